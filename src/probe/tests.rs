//! Looks at real servers that misbehave on the wire, each with the class and the words that must come of it.

mod alone;
mod odd;
#[cfg(feature = "tls")]
mod tls;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde_json::json;

use super::faults::{BlackHole, Closed, Server, Ways};
use super::*;
use crate::config::{HttpConfig, Method, Tls};
use crate::testing::fuzz;

/// For faults that are found by waiting.
const SHORT: Duration = Duration::from_secs(1);
/// For faults that are found at once: long enough for any machine, and never waited for.
const LONG: Duration = Duration::from_secs(60);
/// What a loaded machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

fn http(url: &str) -> HttpConfig {
    HttpConfig {
        url: Secret(url.into()),
        shown: url.into(),
        unix_socket: None,
        method: Method::Get,
        headers: vec![],
        status: vec![200..=299],
        contains: None,
        json: vec![],
        tls: Tls::Verify,
    }
}

fn prober(probe: config::Probe, timeout: Duration) -> Prober {
    Prober::new(&probe, None, timeout, Path::new("/"), &[], &Secrets::default(), &Trust::default())
        .expect("a probe that can be made")
}

fn look_at(http: HttpConfig, timeout: Duration) -> Verdict {
    let look = prober(config::Probe::Http(Box::new(http)), timeout).probe(PriorEvidence::default());
    assert!(look.latency < timeout + SLACK, "{look:?}");
    look.verdict
}

/// The verdict, its class and its words on one line, as a table can have it.
fn line(verdict: &Verdict) -> String {
    match verdict.class() {
        Some(class) => format!("{class}: {}", verdict.detail()),
        None => format!("{}: {}", verdict.as_str(), verdict.detail()),
    }
}

/// `pattern` may have `*` for what differs from run to run.
#[track_caller]
fn assert_like(verdict: &Verdict, pattern: &str) {
    let line = line(verdict);
    let mut rest = line.as_str();
    let mut parts = pattern.split('*');
    let fits = rest.strip_prefix(parts.next().unwrap_or_default()).is_some_and(|after| {
        rest = after;
        parts.all(|part| rest.find(part).map(|at| rest = &rest[at + part.len()..]).is_some())
    });
    assert!(fits && (rest.is_empty() || pattern.ends_with('*')), "expected {pattern}, found {line}");
}

#[track_caller]
fn check(ways: Ways, expected: &str) {
    let server = Server::start(ways);
    assert_like(&look_at(http(&format!("http://127.0.0.1:{}/", server.port())), LONG), expected);
}

#[track_caller]
fn check_slow(ways: Ways, expected: &str) {
    let server = Server::start(ways);
    let look = prober(config::Probe::Http(Box::new(http(&format!("http://127.0.0.1:{}/", server.port())))), SHORT)
        .probe(PriorEvidence::default());
    assert!((SHORT..SHORT + SLACK).contains(&look.latency), "{look:?}");
    assert_like(&look.verdict, expected);
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
const OPEN_HEAD: &str = "HTTP/1.1 200 OK\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[test]
fn answers_are_judged_as_they_are() {
    check(Ways::answer("200 OK", "fine"), "healthy: 200");
    check(Ways::answer("204 No Content", ""), "healthy: 204");
    check(Ways::raw("HTTP/1.0 200 OK\r\n\r\nuntil closed"), "healthy: 200");
    check(Ways::raw(&format!("{CHUNKED}4\r\nfine\r\n0\r\n\r\n")), "healthy: 200");
    check(Ways::raw("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "healthy: 200");
    check(Ways::answer("503 Service Unavailable", "down"), "status: status 503");
    check(Ways::answer("404 Not Found", ""), "status: status 404");
    let redirect = "HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n";
    check(Ways::raw(redirect), "status: status 301, a redirect, which is not followed");
    let bad = |length| Ways::raw(&format!("HTTP/1.1 503 X\r\nContent-Length: {length}\r\n\r\r\nfine"));
    ["-5", "4, 5", "four", "99999999999999999999"].iter().for_each(|it| check(bad(it), "status: status 503"));
    check(Ways::raw("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"), "status: status 302, a redirect, *");
    // A wrong status is known before its body, which need not end.
    check(Ways::Flood(bytes("HTTP/1.1 500 Oh\r\n\r\n"), vec![b'x'; 4096]), "status: status 500");
    check(Ways::Drip(bytes("HTTP/1.1 500 Oh\r\n\r\n"), bytes("x"), PAUSE), "status: status 500");
}

#[test]
fn a_slow_but_right_answer_is_healthy() {
    let piece = |text: &str| (PAUSE * 2, bytes(text));
    let steps = vec![piece("HTTP/1.1 20"), piece("0 OK\r\nContent-Len"), piece("gth: 4\r\n\r\nfi"), piece("ne")];
    check(Ways::Slow(steps), "healthy: 200");
}

#[test]
fn what_is_not_http_is_a_fault_of_protocol() {
    check(Ways::CloseAtOnce, "protocol: closed without an answer");
    check(Ways::raw(""), "protocol: closed without an answer");
    check(Ways::raw("HTTP/1.1 200 OK\r\nContent-Le"), "protocol: cut short before the headers were complete");
    check(Ways::raw(&format!("{HEAD}part")), "protocol: cut short in the body of a 200, after 4 bytes");
    check(Ways::raw(&format!("{CHUNKED}8\r\npart")), "protocol: cut short in the body of a 200, after 4 bytes");
    check(Ways::raw(&format!("{CHUNKED}4\r\npart\r\n")), "protocol: cut short in the body of a 200, after 4 bytes");
    check(Ways::raw(&format!("{CHUNKED}8")), "protocol: cut short in the body of a 200, after 0 bytes");
    check(Ways::raw(&format!("{CHUNKED}zz\r\npart")), "protocol: broken body: chunk length cannot be read as a number");
    check(Ways::raw(&format!("{CHUNKED}4\r\npartial\r\n")), "protocol: broken body: *");
    check(Ways::raw("SSH-2.0-OpenSSH_9.2\r\n"), "protocol: not HTTP: invalid HTTP version");
    check(Ways::raw("<html>HTTP/0.9</html>\r\n\r\n"), "protocol: not HTTP: *");
    check(Ways::raw("\x15\x03\x01\x00\x02\x02\x50"), "protocol: not HTTP: *");
    check(Ways::raw("HTTP/1.1 abc\r\n\r\n"), "protocol: not HTTP: *");
    check(Ways::raw("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), "protocol: not HTTP: *");
    check(Ways::Flood(bytes("HTTP/1.1 200 OK\r\n"), bytes("X-A: b\r\n")), "protocol: *");
    check(Ways::Flood(bytes("HTTP/1.1 200 OK\r\nX: "), vec![b'x'; 4096]), "protocol: headers longer than 1 MiB");
    let hints = "HTTP/1.1 103 Hint\r\n\r\n".repeat(200);
    check(Ways::Flood(vec![], bytes(&hints)), "protocol: headers longer than 1 MiB");
    check(Ways::raw("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nfine"), "protocol: not HTTP: *");
    check(Ways::raw("HTTP/1.1 200OK\r\n\r\n"), "protocol: not HTTP: *");
    check(Ways::Flood(vec![], vec![b'x'; 4096]), "protocol: not HTTP: *");
    check(Ways::Flood(bytes(&format!("{CHUNKED}0\r\nX: ")), bytes("xxxx")), "protocol: *");
    check(Ways::Flood(bytes(&format!("{CHUNKED}4;")), bytes("xxxx")), "protocol: broken body: *");
}

#[test]
fn a_reset_is_one_wherever_it_comes() {
    // The reset may be there before the connection is seen to stand: then it is told of the address.
    check(Ways::ResetAtOnce, "reset: *reset *");
    check(Ways::Reset(vec![]), "reset: connection reset before the first byte");
    check(Ways::Reset(bytes("HTTP/1.1 2")), "reset: connection reset before the headers were complete");
    check(Ways::Reset(bytes(&format!("{HEAD}part"))), "reset: connection reset in the body of a 200, after 4 bytes");
    check(
        Ways::Reset(bytes(&format!("{OPEN_HEAD}part"))),
        "reset: connection reset in the body of a 200, after 4 bytes",
    );
    check(Ways::Reset(bytes(&format!("{CHUNKED}8\r\npart"))), "reset: connection reset in the body of a 200, *");
}

#[test]
fn the_deadline_ends_what_does_not_end_by_itself() {
    let drip = |first: &str, again: &str| Ways::Drip(bytes(first), bytes(again), PAUSE);
    let no_byte = "timeout: connected in *, then no byte for *";
    let no_headers = "timeout: first byte after *, headers not complete * later";
    let no_body = "timeout: 200 after *, body not complete * later (* bytes)";
    let cases = [
        (Ways::Silent, no_byte),
        (Ways::Drip(vec![], bytes("H"), LONG), no_byte),
        (drip("HTTP/1.1 200 OK\r\n", "X"), no_headers),
        (drip("", "HTTP/1.1 103 Hint\r\n\r\n"), no_headers),
        (drip(HEAD, "x"), no_body),
        (drip(OPEN_HEAD, "x"), no_body),
        (drip(CHUNKED, "1\r\nx\r\n"), no_body),
    ];
    // All at once, for each takes its whole time.
    std::thread::scope(|all| {
        for (ways, expected) in cases {
            all.spawn(move || check_slow(ways, expected));
        }
    });
}

#[test]
fn an_endless_body_is_wrong_at_one_mebibyte() {
    check(Ways::Flood(bytes(OPEN_HEAD), vec![b'x'; 65_536]), "body: body of more than 1 MiB");
    let mut whole = bytes("HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n");
    whole.resize(whole.len() + (1 << 20), b'x');
    check(Ways::Answer(whole), "healthy: 200");
}

#[test]
fn bodies_are_judged() {
    let server = Server::start(Ways::answer("200 OK", r#"{"status": "ok", "db": {"up": false}}"#));
    let base = http(&format!("http://localhost:{}/", server.port()));
    let with = |change: fn(&mut HttpConfig), expected: &str| {
        let mut http = base.clone();
        change(&mut http);
        assert_like(&look_at(http, LONG), expected);
    };
    with(|http| http.contains = Some("ok".into()), "healthy: 200");
    with(|http| http.contains = Some("OK\u{202e}".into()), "body: body lacks `OK\\u{202e}`");
    with(|http| http.json = vec![("/status".into(), json!("ok"))], "healthy: 200");
    with(|http| http.json = vec![("/db/up".into(), json!(true))], "body: /db/up is false, not true");
    with(|http| http.status = vec![201..=201], "status: status 200");
    server.turn(Ways::answer("200 OK", "\u{feff}{\"status\": \"ok\"}"));
    with(|http| http.json = vec![("/status".into(), json!("ok"))], "healthy: 200");
    server.turn(Ways::raw("HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\n\u{b}\u{2}"));
    with(|http| http.contains = Some("ok".into()), "body: body lacks `ok`: it is in br, a content coding *");
    server.turn(Ways::answer("200 OK", "<html>"));
    with(|http| http.json = vec![("/status".into(), json!("ok"))], "body: body is not JSON: *");
}

#[test]
fn a_head_has_no_body_to_wait_for_or_to_judge() {
    let server = Server::start(Ways::Drip(bytes(HEAD), vec![], PAUSE));
    let mut http = http(&format!("http://127.0.0.1:{}/", server.port()));
    http.method = Method::Head;
    http.contains = Some("not there".into());
    assert_like(&look_at(http, LONG), "healthy: 200");
}

#[test]
fn nobody_listens() {
    let closed = Closed::new();
    let port = closed.port();
    let refused = format!("refused: refused by [::1]:{port} and 127.0.0.1:{port}");
    let verdict = look_at(http(&format!("http://127.0.0.1:{port}/")), LONG);
    assert_like(&verdict, &format!("refused: refused by 127.0.0.1:{port}"));
    if Server::on((Ipv6Addr::LOCALHOST, 0), Ways::Silent).is_ok() {
        assert_like(&look_at(http(&format!("http://localhost:{port}/")), LONG), &refused);
        let tcp = config::Probe::Tcp { host: "LOCALHOST.".into(), port };
        assert_like(&prober(tcp, LONG).probe(PriorEvidence::default()).verdict, &refused);
    }
}

#[test]
fn a_full_queue_is_a_timeout() {
    let hole = BlackHole::on(Ipv4Addr::LOCALHOST).expect("a full queue");
    let port = hole.port();
    let look = prober(config::Probe::Tcp { host: "127.0.0.1".into(), port }, SHORT).probe(PriorEvidence::default());
    assert_like(&look.verdict, &format!("timeout: no answer from 127.0.0.1:{port} in *"));
    assert!((SHORT..SHORT + SLACK).contains(&look.latency), "{look:?}");
    let verdict = look_at(http(&format!("http://127.0.0.1:{port}/")), SHORT);
    assert_like(&verdict, &format!("timeout: no answer from 127.0.0.1:{port} in *"));
}

#[test]
fn a_silent_address_leaves_time_for_the_next() {
    // The two must share a port, which anybody may take in between.
    for _ in 0..20 {
        let Ok(hole) = BlackHole::on(Ipv6Addr::LOCALHOST) else { return };
        let port = hole.port();
        let Ok(server) = Server::on((Ipv4Addr::LOCALHOST, port), Ways::answer("200 OK", "")) else { continue };
        let url = format!("http://localhost:{}/", server.port());
        assert_like(&look_at(http(&url), SHORT * 4), "healthy: 200");
        drop(server);
        let verdict = look_at(http(&url), SHORT);
        assert_like(&verdict, &format!("timeout: no answer from [::1]:{port} in *; refused by 127.0.0.1:{port}"));
        return;
    }
}

#[test]
fn connecting_is_all_that_tcp_asks_for() {
    for ways in [Ways::Silent, Ways::CloseAtOnce] {
        let server = Server::start(ways);
        for host in ["127.0.0.1", "localhost"] {
            let look = prober(config::Probe::Tcp { host: host.into(), port: server.port() }, LONG)
                .probe(PriorEvidence::default());
            assert_like(&look.verdict, "healthy: connected");
        }
    }
}

#[test]
fn sockets_in_the_file_system() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.sock");
    let mut over = http("http://app.example/health");
    over.unix_socket = Some(path.clone());
    assert_like(&look_at(over.clone(), LONG), "refused: no such socket");

    let server = Server::unix(&path, Ways::answer("200 OK", "fine"));
    assert_like(&look_at(over.clone(), LONG), "healthy: 200");
    let request = server.requests().join("");
    assert!(request.starts_with("GET /health HTTP/1.1\r\n") && request.contains("app.example"), "{request}");
    server.turn(Ways::Silent);
    assert_like(&look_at(over.clone(), SHORT), "timeout: connected in *, then no byte for *");
    drop(server);
    assert_like(&look_at(over.clone(), LONG), "refused: refused");

    over.unix_socket = Some(folder.path().join("x".repeat(200)));
    let refused = Prober::new(
        &config::Probe::Http(Box::new(over)),
        None,
        LONG,
        Path::new("/"),
        &[],
        &Secrets::default(),
        &Trust::default(),
    );
    assert!(refused.is_err_and(|error| error.contains("107 bytes")));
}

#[test]
fn a_full_queue_of_a_socket_in_the_file_system_is_a_timeout() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.sock");
    let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
    rustix::net::bind(&listener, &SocketAddrUnix::new(&path).expect("a short path")).expect("a path to bind");
    rustix::net::listen(&listener, 0).expect("a listener");
    let _first = std::os::unix::net::UnixStream::connect(&path).expect("room for one");

    let mut over = http("http://app.example/");
    over.unix_socket = Some(path);
    assert_like(&look_at(over, SHORT), "timeout: the socket's queue of connections stayed full");
}

#[test]
fn the_request_says_what_it_must_and_no_more() {
    let server = Server::start(Ways::answer("200 OK", ""));
    let port = server.port();
    let mut asked = http(&format!("http://localhost:{port}/api/health?token=s3cret"));
    let header = |name: &str, value: &str| (name.to_owned(), Secret(value.to_owned()));
    asked.headers =
        vec![header("X-Probe", "yes"), header("Authorization", "Basic eA=="), header("Connection", "upgrade")];
    assert_like(&look_at(asked, LONG), "healthy: 200");
    let requests = server.requests();
    let [request] = requests.as_slice() else { panic!("one request, not {requests:?}") };
    let mut lines: Vec<&str> = request.trim_end().lines().collect();
    lines[1..].sort_unstable_by_key(|line| line.to_lowercase());
    let agent = concat!("user-agent: watchdog-agent/", env!("CARGO_PKG_VERSION"));
    let host = format!("host: localhost:{port}");
    let expected = [
        "GET /api/health?token=s3cret HTTP/1.1",
        "accept: */*",
        "authorization: Basic eA==",
        "connection: close",
        &host,
        agent,
        "x-probe: yes",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_name_that_does_not_resolve() {
    let verdict = look_at(http("http://no.such.host.invalid:1/"), Duration::from_secs(5));
    assert!(matches!(verdict, Verdict::Unhealthy { class: crate::outcome::Class::Dns, .. }), "{verdict:?}");
}

#[track_caller]
fn check_refused(change: impl FnOnce(&mut HttpConfig), expected: &str) {
    let mut http = http("http://localhost/");
    change(&mut http);
    match Prober::new(
        &config::Probe::Http(Box::new(http)),
        None,
        LONG,
        Path::new("/"),
        &[],
        &Secrets::default(),
        &Trust::default(),
    ) {
        Ok(_) => panic!("this was not to be accepted"),
        Err(error) => assert_eq!(error, expected),
    }
}

#[test]
fn what_can_never_work_is_refused_without_showing_secrets() {
    let url = |url: &str| Secret(url.into());
    let header = |name: &str, value: &str| vec![(name.to_owned(), Secret(value.to_owned()))];
    check_refused(|http| http.url = url("http://s3 cret/"), "the url is not valid: invalid uri character");
    check_refused(|http| http.url = url("ftp://host/"), "the url begins with neither http:// nor https://");
    check_refused(|http| http.url = url("/api"), "the url begins with neither http:// nor https://");
    check_refused(
        |http| http.url = url(&format!("http://host/{}", "x".repeat(20_000))),
        "the url is longer than 16 KiB",
    );
    check_refused(|http| http.headers = header("a b", ""), "header a b: its name is not one that HTTP allows");
    check_refused(|http| http.headers = header("a", "s3\ncret"), "header a: its value has a control character");
    check_refused(|http| http.headers = header("a", &"x".repeat(20_000)), "header a: it is longer than 16 KiB");
}

#[cfg(not(feature = "tls"))]
#[test]
fn https_is_refused_where_it_was_not_built_in() {
    check_refused(|http| http.url = Secret("https://host/".into()), "https: this watchdog was built without TLS");
}

#[test]
fn a_look_gets_by_with_a_small_stack() {
    let server = Server::start(Ways::answer("200 OK", "[0]"));
    let mut http = http(&format!("http://localhost:{}/", server.port()));
    http.json = vec![("/0".into(), json!(0))];
    let look = || {
        let prober = prober(config::Probe::Http(Box::new(http.clone())), LONG);
        let small = std::thread::Builder::new().stack_size(STACK);
        small
            .spawn(move || prober.probe(PriorEvidence::default()).verdict)
            .expect("a thread")
            .join()
            .expect("enough stack")
    };
    assert_like(&look(), "healthy: 200");
    server.turn(Ways::answer("200 OK", &["[".repeat(100_000), "]".repeat(100_000)].concat()));
    assert_like(&look(), "body: /0 is [[*");
}

#[test]
fn whatever_comes_is_judged_at_once_in_one_plain_line() {
    let head = "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 21\r\n\r\n{\"status\":\"o\\u001bk\"}";
    let chunked = "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\n\r\n";
    let server = Server::start(Ways::raw(""));
    let asked = HttpConfig {
        json: vec![("/status".into(), json!("ok"))],
        ..http(&format!("http://127.0.0.1:{}/", server.port()))
    };
    let prober = prober(config::Probe::Http(Box::new(asked)), LONG);
    fuzz(&[head.as_bytes(), chunked.as_bytes()], 1_000, |bytes| {
        server.turn(Ways::Answer(bytes.to_vec()));
        let look = prober.probe(PriorEvidence::default());
        let line = line(&look.verdict);
        assert!(look.latency < LONG, "it waited: {line}");
        assert!(!matches!(look.verdict, Verdict::Unknown { .. }), "it did not know: {line}");
        assert!(!line.contains(|letter: char| letter.is_control() || letter == '\u{202e}'), "{line:?}");
        assert!(line.chars().count() < 300, "{line}");
    });
}

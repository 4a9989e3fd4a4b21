//! Probes real servers that misbehave on the wire, each with the class and the detail that must come out.

mod addresses;
mod alone;
mod connect;
mod odd;
#[cfg(feature = "tls")]
mod tls;

use std::time::Duration;

use serde_json::json;

use super::faults::{Behaviour, ClosedPort, Server};
use super::*;
use crate::config::{HttpConfig, Method, Tls};
use crate::outcome::Verdict;
use crate::testing::fuzz;

/// A timeout for faults that only the deadline ends.
const SHORT: Duration = Duration::from_secs(1);
/// A timeout for faults that are found at once: long enough for any machine, and never reached.
const LONG: Duration = Duration::from_secs(60);
/// How far a loaded machine may exceed a deadline.
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
    try_prober(probe, timeout).expect("a valid configuration")
}

fn try_prober(probe: config::Probe, timeout: Duration) -> Result<Prober, String> {
    Prober::new(&probe, None, timeout, Path::new("/"), &[], &Secrets::default(), &Trust::default())
}

fn run(probe: config::Probe, timeout: Duration) -> ProbeResult {
    prober(probe, timeout).probe(PriorEvidence::default(), &[])
}

fn probe_http(http: HttpConfig, timeout: Duration) -> Verdict {
    let result = run(config::Probe::Http(vec![http]), timeout);
    assert!(result.latency < timeout + SLACK, "{result:?}");
    result.verdict
}

/// The class, or else the verdict, and the detail on one line, for tables.
fn line(verdict: &Verdict) -> String {
    match verdict.class() {
        Some(class) => format!("{class}: {}", verdict.detail()),
        None => format!("{}: {}", verdict.as_str(), verdict.detail()),
    }
}

/// `*` in `pattern` matches any text.
#[track_caller]
fn assert_like(verdict: &Verdict, pattern: &str) {
    let line = line(verdict);
    let mut rest = line.as_str();
    let mut parts = pattern.split('*');
    let matches = rest.strip_prefix(parts.next().unwrap_or_default()).is_some_and(|after| {
        rest = after;
        parts.all(|part| rest.find(part).map(|at| rest = &rest[at + part.len()..]).is_some())
    });
    assert!(matches && (rest.is_empty() || pattern.ends_with('*')), "expected {pattern}, found {line}");
}

#[track_caller]
fn check(behaviour: Behaviour, expected: &str) {
    let server = Server::start(behaviour);
    assert_like(&probe_http(http(&format!("http://127.0.0.1:{}/", server.port())), LONG), expected);
}

#[track_caller]
fn check_slow(behaviour: Behaviour, expected: &str) {
    let server = Server::start(behaviour);
    let http = http(&format!("http://127.0.0.1:{}/", server.port()));
    let result = run(config::Probe::Http(vec![http]), SHORT);
    assert!((SHORT..SHORT + SLACK).contains(&result.latency), "{result:?}");
    assert_like(&result.verdict, expected);
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
const OPEN_HEAD: &str = "HTTP/1.1 200 OK\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[test]
fn the_status_decides() {
    check(Behaviour::answer("200 OK", "fine"), "healthy: 200");
    check(Behaviour::answer("204 No Content", ""), "healthy: 204");
    check(Behaviour::raw("HTTP/1.0 200 OK\r\n\r\nuntil closed"), "healthy: 200");
    check(Behaviour::raw(&format!("{CHUNKED}4\r\nfine\r\n0\r\n\r\n")), "healthy: 200");
    check(
        Behaviour::raw("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        "healthy: 200",
    );
    check(Behaviour::answer("503 Service Unavailable", "down"), "status: status 503");
    check(Behaviour::answer("404 Not Found", ""), "status: status 404");
    let redirect = "HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n";
    check(Behaviour::raw(redirect), "status: status 301, a redirect, which is not followed");
    let invalid = |length| Behaviour::raw(&format!("HTTP/1.1 503 X\r\nContent-Length: {length}\r\n\r\r\nfine"));
    ["-5", "4, 5", "four", "99999999999999999999"]
        .iter()
        .for_each(|length| check(invalid(length), "status: status 503"));
    check(Behaviour::raw("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"), "status: status 302, a redirect, *");
    // A wrong status is enough; the body need not end.
    check(Behaviour::Flood(bytes("HTTP/1.1 500 Oh\r\n\r\n"), vec![b'x'; 4096]), "status: status 500");
    check(Behaviour::Drip(bytes("HTTP/1.1 500 Oh\r\n\r\n"), bytes("x"), PAUSE), "status: status 500");
}

#[test]
fn a_slow_but_right_answer_is_healthy() {
    let piece = |text: &str| (PAUSE * 2, bytes(text));
    let steps = vec![piece("HTTP/1.1 20"), piece("0 OK\r\nContent-Len"), piece("gth: 4\r\n\r\nfi"), piece("ne")];
    check(Behaviour::Slow(steps), "healthy: 200");
}

#[test]
fn what_is_not_http_is_a_protocol_failure() {
    check(Behaviour::CloseAtOnce, "protocol: closed without an answer");
    check(Behaviour::raw(""), "protocol: closed without an answer");
    check(Behaviour::raw("HTTP/1.1 200 OK\r\nContent-Le"), "protocol: cut short before the headers were complete");
    check(Behaviour::raw(&format!("{HEAD}part")), "protocol: cut short in the body of a 200, after 4 bytes");
    check(Behaviour::raw(&format!("{CHUNKED}8\r\npart")), "protocol: cut short in the body of a 200, after 4 bytes");
    check(
        Behaviour::raw(&format!("{CHUNKED}4\r\npart\r\n")),
        "protocol: cut short in the body of a 200, after 4 bytes",
    );
    check(Behaviour::raw(&format!("{CHUNKED}8")), "protocol: cut short in the body of a 200, after 0 bytes");
    check(
        Behaviour::raw(&format!("{CHUNKED}zz\r\npart")),
        "protocol: malformed body: chunk length cannot be read as a number",
    );
    check(Behaviour::raw(&format!("{CHUNKED}4\r\npartial\r\n")), "protocol: malformed body: *");
    check(Behaviour::raw("SSH-2.0-OpenSSH_9.2\r\n"), "protocol: not HTTP: invalid HTTP version");
    check(Behaviour::raw("<html>HTTP/0.9</html>\r\n\r\n"), "protocol: not HTTP: *");
    check(Behaviour::raw("\x15\x03\x01\x00\x02\x02\x50"), "protocol: not HTTP: *");
    check(Behaviour::raw("HTTP/1.1 abc\r\n\r\n"), "protocol: not HTTP: *");
    check(Behaviour::raw("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), "protocol: not HTTP: *");
    check(Behaviour::Flood(bytes("HTTP/1.1 200 OK\r\n"), bytes("X-A: b\r\n")), "protocol: *");
    check(Behaviour::Flood(bytes("HTTP/1.1 200 OK\r\nX: "), vec![b'x'; 4096]), "protocol: headers longer than 1 MiB");
    let hints = "HTTP/1.1 103 Hint\r\n\r\n".repeat(200);
    check(Behaviour::Flood(vec![], bytes(&hints)), "protocol: headers longer than 1 MiB");
    check(
        Behaviour::raw("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nfine"),
        "protocol: not HTTP: *",
    );
    check(Behaviour::raw("HTTP/1.1 200OK\r\n\r\n"), "protocol: not HTTP: *");
    check(Behaviour::Flood(vec![], vec![b'x'; 4096]), "protocol: not HTTP: *");
    check(Behaviour::Flood(bytes(&format!("{CHUNKED}0\r\nX: ")), bytes("xxxx")), "protocol: *");
    check(Behaviour::Flood(bytes(&format!("{CHUNKED}4;")), bytes("xxxx")), "protocol: malformed body: *");
}

#[test]
fn a_reset_is_found_at_every_stage() {
    // The reset may arrive before the connection is known to be established; the detail then names the address.
    check(Behaviour::ResetAtOnce, "reset: *reset *");
    check(Behaviour::Reset(vec![]), "reset: connection reset before the first byte");
    check(Behaviour::Reset(bytes("HTTP/1.1 2")), "reset: connection reset before the headers were complete");
    check(
        Behaviour::Reset(bytes(&format!("{HEAD}part"))),
        "reset: connection reset in the body of a 200, after 4 bytes",
    );
    check(
        Behaviour::Reset(bytes(&format!("{OPEN_HEAD}part"))),
        "reset: connection reset in the body of a 200, after 4 bytes",
    );
    check(Behaviour::Reset(bytes(&format!("{CHUNKED}8\r\npart"))), "reset: connection reset in the body of a 200, *");
}

#[test]
fn the_deadline_ends_a_response_that_never_completes() {
    let drip = |first: &str, again: &str| Behaviour::Drip(bytes(first), bytes(again), PAUSE);
    let no_byte = "timeout: connected in *, then no byte for *";
    let no_headers = "timeout: first byte after *, headers not complete * later";
    let no_body = "timeout: 200 after *, body not complete * later (* bytes)";
    let cases = [
        (Behaviour::Silent, no_byte),
        (Behaviour::Drip(vec![], bytes("H"), LONG), no_byte),
        (drip("HTTP/1.1 200 OK\r\n", "X"), no_headers),
        (drip("", "HTTP/1.1 103 Hint\r\n\r\n"), no_headers),
        (drip(HEAD, "x"), no_body),
        (drip(OPEN_HEAD, "x"), no_body),
        (drip(CHUNKED, "1\r\nx\r\n"), no_body),
    ];
    // In parallel, because each takes the whole timeout.
    std::thread::scope(|all| {
        for (behaviour, expected) in cases {
            all.spawn(move || check_slow(behaviour, expected));
        }
    });
}

#[test]
fn a_body_longer_than_one_mebibyte_is_a_failure() {
    check(Behaviour::Flood(bytes(OPEN_HEAD), vec![b'x'; 65_536]), "body: body longer than 1 MiB");
    let mut complete = bytes("HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n");
    complete.resize(complete.len() + (1 << 20), b'x');
    check(Behaviour::Answer(complete), "healthy: 200");
}

#[test]
fn bodies_are_checked() {
    let server = Server::start(Behaviour::answer("200 OK", r#"{"status": "ok", "db": {"up": false}}"#));
    let base = http(&format!("http://localhost:{}/", server.port()));
    let with = |change: fn(&mut HttpConfig), expected: &str| {
        let mut http = base.clone();
        change(&mut http);
        assert_like(&probe_http(http, LONG), expected);
    };
    with(|http| http.contains = Some("ok".into()), "healthy: 200");
    with(|http| http.contains = Some("OK\u{202e}".into()), "body: body lacks `OK\\u{202e}`");
    with(|http| http.json = vec![("/status".into(), json!("ok"))], "healthy: 200");
    with(|http| http.json = vec![("/db/up".into(), json!(true))], "body: /db/up is false, not true");
    with(|http| http.status = vec![201..=201], "status: status 200");
    server.set_behaviour(Behaviour::answer("200 OK", "\u{feff}{\"status\": \"ok\"}"));
    with(|http| http.json = vec![("/status".into(), json!("ok"))], "healthy: 200");
    server.set_behaviour(Behaviour::raw("HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\n\u{b}\u{2}"));
    with(|http| http.contains = Some("ok".into()), "body: body lacks `ok`: its content coding is br, which *");
    server.set_behaviour(Behaviour::answer("200 OK", "<html>"));
    with(|http| http.json = vec![("/status".into(), json!("ok"))], "body: body is not JSON: *");
}

#[test]
fn a_head_request_waits_for_no_body_and_checks_none() {
    let server = Server::start(Behaviour::Drip(bytes(HEAD), vec![], PAUSE));
    let mut http = http(&format!("http://127.0.0.1:{}/", server.port()));
    http.method = Method::Head;
    http.contains = Some("not there".into());
    assert_like(&probe_http(http, LONG), "healthy: 200");
}

#[test]
fn the_request_has_the_expected_lines_only() {
    let server = Server::start(Behaviour::answer("200 OK", ""));
    let port = server.port();
    let mut config = http(&format!("http://localhost:{port}/api/health?token=s3cret"));
    let header = |name: &str, value: &str| (name.to_owned(), Secret(value.to_owned()));
    config.headers =
        vec![header("X-Probe", "yes"), header("Authorization", "Basic eA=="), header("Connection", "upgrade")];
    assert_like(&probe_http(config, LONG), "healthy: 200");
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

#[track_caller]
fn check_refused(change: impl FnOnce(&mut HttpConfig), expected: &str) {
    let mut http = http("http://localhost/");
    change(&mut http);
    match try_prober(config::Probe::Http(vec![http]), LONG) {
        Ok(_) => panic!("it was accepted"),
        Err(error) => assert_eq!(error, expected),
    }
}

#[test]
fn an_unusable_configuration_is_refused_without_showing_secrets() {
    let url = |url: &str| Secret(url.into());
    let header = |name: &str, value: &str| vec![(name.to_owned(), Secret(value.to_owned()))];
    check_refused(|http| http.url = url("http://s3 cret/"), "invalid URL: invalid uri character");
    check_refused(|http| http.url = url("ftp://host/"), "the URL must begin with http:// or https://");
    check_refused(|http| http.url = url("/api"), "the URL must begin with http:// or https://");
    check_refused(
        |http| http.url = url(&format!("http://host/{}", "x".repeat(20_000))),
        "the URL is longer than 16 KiB",
    );
    check_refused(|http| http.headers = header("a b", ""), "header a b: its name is not valid in HTTP");
    check_refused(|http| http.headers = header("a", "s3\ncret"), "header a: its value contains a control character");
    check_refused(|http| http.headers = header("a", &"x".repeat(20_000)), "header a: it is longer than 16 KiB");
}

#[cfg(not(feature = "tls"))]
#[test]
fn https_is_refused_in_a_build_without_tls() {
    check_refused(|http| http.url = Secret("https://host/".into()), "https: this watchdog was built without TLS");
}

#[test]
fn a_probe_needs_no_more_than_its_stack() {
    let server = Server::start(Behaviour::answer("200 OK", "[0]"));
    let mut http = http(&format!("http://localhost:{}/", server.port()));
    http.json = vec![("/0".into(), json!(0))];
    let probe = || {
        let prober = prober(config::Probe::Http(vec![http.clone()]), LONG);
        std::thread::Builder::new()
            .stack_size(PROBE_STACK)
            .spawn(move || prober.probe(PriorEvidence::default(), &[]).verdict)
            .expect("a thread")
            .join()
            .expect("enough stack")
    };
    assert_like(&probe(), "healthy: 200");
    server.set_behaviour(Behaviour::answer("200 OK", &["[".repeat(100_000), "]".repeat(100_000)].concat()));
    assert_like(&probe(), "body: /0 is [[*");
}

#[test]
fn any_response_gets_a_verdict_at_once_with_a_plain_detail() {
    let head = "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 21\r\n\r\n{\"status\":\"o\\u001bk\"}";
    let chunked = "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\n\r\n";
    let server = Server::start(Behaviour::raw(""));
    let http = HttpConfig {
        json: vec![("/status".into(), json!("ok"))],
        ..http(&format!("http://127.0.0.1:{}/", server.port()))
    };
    let prober = prober(config::Probe::Http(vec![http]), LONG);
    fuzz(&[head.as_bytes(), chunked.as_bytes()], 1_000, |bytes| {
        server.set_behaviour(Behaviour::Answer(bytes.to_vec()));
        let result = prober.probe(PriorEvidence::default(), &[]);
        let line = line(&result.verdict);
        assert!(result.latency < LONG, "the deadline passed: {line}");
        assert!(!matches!(result.verdict, Verdict::Unknown { .. }), "no verdict: {line}");
        assert!(!line.contains(|letter: char| letter.is_control() || letter == '\u{202e}'), "{line:?}");
        assert!(line.chars().count() < 300, "{line}");
    });
}

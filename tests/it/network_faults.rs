//! Every network fault is detected in time and classified correctly, and a slow but correct answer is accepted.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::faults::{Behaviour, BlackHole, ClosedPort, Server};
use crate::resources::ResourceUsage;
use crate::sandbox::{MISSING_PROGRAM, Sandbox, event_time, require};

const INTERVAL: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(1);
const THRESHOLD: u32 = 3;
/// The detection bound assumes a watchdog that gets CPU time; this is the allowance for a loaded machine.
const SCHEDULING: Duration = Duration::from_secs(5);
/// Pause between pieces of a dripping answer: short enough that no single read times out.
const DRIP: Duration = Duration::from_millis(100);

const LIMITS: &str = "defaults: {interval: 500ms, timeout: 1s, failure_threshold: 3}\ntargets:\n";
const HEALTHY_BODY: &str = r#"{"status": "ok"}"#;
const HEAD: &str = "HTTP/1.1 200 OK\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Name, expected failure class and server behaviour of each fault.
fn fault_cases() -> Vec<(&'static str, &'static str, Behaviour)> {
    let drip = |first: &str, again: &str| Behaviour::Drip(first.into(), again.into(), DRIP);
    let flood = |first: &str, again: &str| Behaviour::Flood(first.into(), again.into());
    let moved =
        |status: &str| Behaviour::raw(&format!("HTTP/1.1 {status}\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"));
    vec![
        ("silent", "timeout", Behaviour::Silent),
        ("reset-on-accept", "reset", Behaviour::ResetAtOnce),
        ("reset-after-request", "reset", Behaviour::Reset(vec![])),
        ("reset-in-body", "reset", Behaviour::Reset(format!("{HEAD}\r\npart").into())),
        ("closed-without-a-byte", "protocol", Behaviour::CloseAtOnce),
        ("dripping-headers", "timeout", drip(HEAD, "X")),
        ("dripping-body", "timeout", drip(&format!("{HEAD}Content-Length: 1000\r\n\r\n"), "x")),
        ("dripping-chunks", "timeout", drip(CHUNKED, "1\r\nx\r\n")),
        ("dripping-interim-answers", "timeout", drip("", "HTTP/1.1 103 Hint\r\n\r\n")),
        ("endless-body", "body", flood(&format!("{HEAD}\r\n"), &"x".repeat(4096))),
        ("endless-headers", "protocol", flood(HEAD, "X-More: of the same\r\n")),
        ("endless-header", "protocol", flood(&format!("{HEAD}X-Long: "), &"x".repeat(4096))),
        ("redirect-loop", "status", moved("302 Found")),
        ("garbage", "protocol", Behaviour::raw("\u{7}\u{1b}[2J garbage\r\n\r\n")),
        ("http-0.9", "protocol", Behaviour::raw("<html>It works!</html>\r\n")),
        ("bad-chunk", "protocol", Behaviour::raw(&format!("{CHUNKED}zz\r\nchunk\r\n"))),
        ("body-cut-short", "protocol", Behaviour::raw(&format!("{HEAD}Content-Length: 1000\r\n\r\npart"))),
        ("chunks-cut-short", "protocol", Behaviour::raw(&format!("{CHUNKED}4\r\npart\r\n"))),
        ("headers-cut-short", "protocol", Behaviour::raw(&format!("{HEAD}Content-Le"))),
        ("status-503", "status", Behaviour::answer("503 Service Unavailable", HEALTHY_BODY)),
        ("status-404", "status", Behaviour::answer("404 Not Found", HEALTHY_BODY)),
        ("status-301", "status", moved("301 Moved Permanently")),
        ("wrong-json", "body", Behaviour::answer("200 OK", r#"{"status": "starting"}"#)),
        ("not-json", "body", Behaviour::answer("200 OK", "<html>502 in disguise</html>")),
    ]
}

/// Checks that the target went down in time, with this class, and not before the threshold was reached.
#[track_caller]
fn check_detected_in_time(sandbox: &Sandbox, target: &str, class: &str, since: SystemTime) {
    let bound = (INTERVAL + TIMEOUT) * THRESHOLD;
    let down = sandbox.events_of(target, "down");
    let failing = sandbox.events_of(target, "failing");
    sandbox.assert(down.len() == 1 && failing.len() == 1, &format!("{target} fails once and is down once"));
    // The probe during the change may report another class.
    sandbox.assert(down[0]["class"] == class, &format!("{target} is classified as {class}: {}", down[0]));
    sandbox.assert(down[0]["failures"] == THRESHOLD, &format!("{target} is down after {THRESHOLD} failures"));
    let duration = event_time(&down[0]).duration_since(since).unwrap_or_default();
    sandbox.assert(
        duration <= bound + SCHEDULING,
        &format!("{target} went down after {duration:?}, allowed are {bound:?}"),
    );
}

/// Targets that fail from the start, because no healthy server could change to this.
fn failing_from_start_targets(
    hole: &BlackHole,
    closed: &ClosedPort,
    handshake: &Server,
) -> Vec<(&'static str, &'static str, String)> {
    vec![
        ("nobody-listens", "refused", format!("http://127.0.0.1:{}/", closed.port())),
        ("syn-unanswered", "timeout", format!("http://127.0.0.1:{}/", hole.port())),
        ("no-such-socket", "refused", "{url: http://app/, unix_socket: run/app.sock}".into()),
        ("no-such-name", "dns", "http://no.such.host.invalid:1/".into()),
        ("dripping-handshake", "timeout", format!("https://127.0.0.1:{}/", handshake.port())),
    ]
}

#[test]
fn every_network_fault_is_detected_in_time_and_classified() {
    let mut text = LIMITS.to_string();
    let mut target =
        |name: &str, http: &str, rest: &str| text += &format!("  - {{name: {name}, http: {http}{rest}}}\n");
    let healthy_answer = || Behaviour::answer("200 OK", HEALTHY_BODY);
    let healthy_first: Vec<_> = fault_cases()
        .into_iter()
        .map(|(name, class, behaviour)| (name, class, Server::start(healthy_answer()), behaviour))
        .collect();
    for (name, _, server, _) in &healthy_first {
        target(name, &format!("{{url: \"http://127.0.0.1:{}/\", json: {{/status: ok}}}}", server.port()), "");
    }
    // An address of its own, so that no other test takes the port when it is free.
    let killed = Server::bind((Ipv4Addr::new(127, 86, 1, 1), 0), healthy_answer()).expect("a loopback address");
    target("killed", &format!("\"http://127.86.1.1:{}/\"", killed.port()), "");
    let pieces = ["HTTP/1.1 200 OK\r\nContent-", "Length: 1", "6\r\n\r\n", HEALTHY_BODY];
    let slow = Server::start(Behaviour::Slow(pieces.map(|piece| (TIMEOUT / 2, piece.into())).into()));
    target("slow", &format!("\"http://127.0.0.1:{}/\"", slow.port()), ", timeout: 30s");
    // Header lines that do not matter, however odd and many.
    let odd = "X-Folded: a\r\n b\r\nX Y: a name with spaces\r\nno colon\r\nX\u{0}: \u{7}\r\n".repeat(100);
    let odd = Server::start(Behaviour::raw(&format!("{HEAD}{odd}Content-Length: 19\r\n\r\n\u{feff}{HEALTHY_BODY}")));
    target("odd", &format!("{{url: \"http://127.0.0.1:{}/\", json: {{/status: ok}}}}", odd.port()), "");
    let (hole, closed) = (BlackHole::bind(Ipv4Addr::LOCALHOST).expect("a full queue"), ClosedPort::new());
    // The beginning of a handshake record whose end never arrives.
    let handshake = Server::start(Behaviour::Drip(vec![0x16, 3, 3, 0x3f, 0xff, 2, 0, 0x3f, 0xfb], vec![3], DRIP));
    let mut failing_from_start = failing_from_start_targets(&hole, &closed, &handshake);
    failing_from_start.retain(|(.., http)| cfg!(feature = "tls") || !http.starts_with("https:"));
    failing_from_start.iter().for_each(|(name, _, http)| target(name, http, ""));
    target("frozen-socket", "{url: http://app/, unix_socket: app.sock}", "");

    let sandbox = Sandbox::new(&text);
    let socket = Server::start_unix(&sandbox.path("app.sock"), healthy_answer());
    let started_at = SystemTime::now();
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("all targets that can be healthy are", || {
        let healthy = |target: &&Value| target["state"] == "healthy";
        let status = sandbox.status();
        status["targets"].as_array().map_or(0, |targets| targets.iter().filter(healthy).count())
            == healthy_first.len() + 4
    });
    let changed_at = SystemTime::now();
    drop(killed);
    socket.set_behaviour(Behaviour::Silent);
    healthy_first.iter().for_each(|(_, _, server, behaviour)| server.set_behaviour(behaviour.clone()));
    let count = healthy_first.len() + failing_from_start.len() + 2;
    sandbox.eventually("all faults are detected", || sandbox.events("down").len() >= count);

    for (name, class, ..) in &healthy_first {
        check_detected_in_time(&sandbox, name, class, changed_at);
    }
    check_detected_in_time(&sandbox, "killed", "refused", changed_at);
    check_detected_in_time(&sandbox, "frozen-socket", "timeout", changed_at);
    for (name, class, _) in &failing_from_start {
        check_detected_in_time(&sandbox, name, class, started_at);
    }
    for (name, description) in [("slow", "the slow but correct target"), ("odd", "the odd but correct target")] {
        sandbox.assert(sandbox.target(name)["state"] == "healthy", &format!("{description} is healthy"));
        sandbox.assert(sandbox.events_of(name, "").is_empty(), &format!("{description} has no events"));
    }
    assert!(daemon.stop().success());
}

#[cfg(feature = "tls")]
#[test]
fn an_invalid_certificate_is_detected_in_time_and_a_valid_one_accepted() {
    use crate::faults::TlsIdentity;

    let good = TlsIdentity(include_str!("tls/good.pem"), include_str!("tls/good.key"));
    let identities = [
        ("good", good),
        ("expired", TlsIdentity(include_str!("tls/expired.pem"), include_str!("tls/expired.key"))),
        ("ahead", TlsIdentity(include_str!("tls/ahead.pem"), include_str!("tls/ahead.key"))),
        ("elsewhere", TlsIdentity(include_str!("tls/elsewhere.pem"), include_str!("tls/elsewhere.key"))),
        ("selfsigned", TlsIdentity(include_str!("tls/selfsigned.pem"), include_str!("tls/selfsigned.key"))),
    ];
    let healthy_answer = || Behaviour::answer("200 OK", HEALTHY_BODY);
    let mut text = LIMITS.to_string();
    let mut target = |name: &str, port: u16, tls: &str| {
        text += &format!("  - {{name: {name}, http: {{url: \"https://localhost:{port}/\"{tls}}}}}\n");
    };
    let servers = identities.map(|(name, identity)| (name, Server::start_tls(identity, healthy_answer())));
    for (name, server) in &servers {
        target(name, server.port(), ", tls: ca.pem");
    }
    let [(_, strange), (_, expired), ..] = &servers;
    target("strange-issuer", strange.port(), "");
    target("anything-will-do", expired.port(), ", tls: insecure");
    let (plain, frozen) = (Server::start(healthy_answer()), Server::start_tls(good, healthy_answer()));
    target("no-tls-at-all", plain.port(), ", tls: ca.pem");
    target("frozen", frozen.port(), ", tls: ca.pem");

    let sandbox = Sandbox::new(&text);
    sandbox.write("ca.pem", include_str!("tls/ca.pem"));
    let started_at = SystemTime::now();
    let daemon = sandbox.start_daemon(&["run"]);
    let invalid = ["expired", "ahead", "elsewhere", "selfsigned", "strange-issuer", "no-tls-at-all"];
    sandbox.eventually("the invalid certificates are detected", || sandbox.events("down").len() >= invalid.len());
    invalid.iter().for_each(|name| check_detected_in_time(&sandbox, name, "tls", started_at));
    for name in ["good", "anything-will-do", "frozen"] {
        sandbox.eventually(&format!("{name} is healthy"), || sandbox.target(name)["state"] == "healthy");
    }

    let changed_at = SystemTime::now();
    frozen.set_behaviour(Behaviour::Silent);
    sandbox.eventually("the frozen server is detected", || !sandbox.events_of("frozen", "down").is_empty());
    check_detected_in_time(&sandbox, "frozen", "timeout", changed_at);
    for name in ["good", "anything-will-do"] {
        sandbox.assert(sandbox.events_of(name, "").is_empty(), &format!("{name} has no events"));
    }
    assert!(daemon.stop().success());
}

#[cfg(feature = "full-tests")]
#[test]
fn a_hanging_resolver_is_detected_in_time_and_delays_no_other_target() {
    // A resolver that receives requests and never answers. No other process has this address.
    let _resolver =
        UdpSocket::bind("127.86.53.53:53").expect("root, and an address that no other process has: see `sh tests/run`");
    let server = Server::start(Behaviour::answer("200 OK", HEALTHY_BODY));
    let healthy = format!("http://127.0.0.1:{}/", server.port());
    let list = format!("[\"{healthy}list\", http://hangs.example/a, http://hangs.example/b]");
    let sandbox = Sandbox::new(&format!(
        "{LIMITS}  - {{name: hanging, http: http://hangs.example/}}\n  - {{name: list, http: {list}}}\n  \
         - {{name: other, http: \"{healthy}\"}}\n"
    ));
    sandbox.write("resolv.conf", "nameserver 127.86.53.53\noptions timeout:30 attempts:5\n");
    sandbox.write("hosts", "127.0.0.1 localhost\n");
    let inside = |script: &str| {
        let mut command = Command::new("unshare");
        let mount = "mount --bind resolv.conf /etc/resolv.conf && mount --bind hosts /etc/hosts";
        command.args(["--mount", "sh", "-c", &format!("{mount} && {script}"), env!("CARGO_BIN_EXE_watchdog"), "run"]);
        command.current_dir(sandbox.home()).env("HOME", sandbox.home()).env_remove("NOTIFY_SOCKET").process_group(0);
        command
    };
    require(inside("true").output().expect(MISSING_PROGRAM).status.success(), "a mount namespace");

    let started_at = SystemTime::now();
    let daemon = sandbox.start_daemon_from(inside("exec \"$0\" \"$@\""));
    sandbox.eventually("the hanging lookups are detected", || sandbox.events("down").len() == 2);
    check_detected_in_time(&sandbox, "hanging", "dns", started_at);
    check_detected_in_time(&sandbox, "list", "dns", started_at);
    // The first probe's name lookups still hang; later probes fail at once and start no lookup of their own.
    let found = sandbox.target("list")["last_probe"]["addresses"].clone();
    let hangs = "the resolver still hangs from an earlier probe";
    assert_eq!((&found[0]["verdict"], &found[1]["detail"]), (&"healthy".into(), &hangs.into()), "{found}");
    let threads = || ResourceUsage::of(daemon.pid()).threads;
    let (probes, mut most) = (server.requests().len(), 0);
    sandbox.eventually("the other target is probed as usual", || {
        most = most.max(threads());
        server.requests().len() > probes + 3
    });
    // The loop, the signals, three hanging lookups, and at most one probe for each target and for each further address.
    sandbox.assert((5..=10).contains(&most), &format!("no probe leaves a thread behind: there are {most}"));
    sandbox.assert(sandbox.events_of("other", "").is_empty(), "the other target is not delayed");
    assert!(daemon.stop().success());
}

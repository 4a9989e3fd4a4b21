//! Whatever a server does on the wire, the watchdog at work finds it in time and says what it is; and a slow but right
//! answer is left alone.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::faults::{BlackHole, Closed, Server, Ways};
use crate::place::{NEEDED, Place, at, need};
use crate::takes::Takes;

const INTERVAL: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(1);
const THRESHOLD: u32 = 3;
/// The promise holds for a watchdog that gets the CPU; this is what a loaded machine may keep from it.
const SCHEDULING: Duration = Duration::from_secs(5);
/// Between two pieces of an answer that drips: each read finds something, and no read alone takes too long.
const DRIP: Duration = Duration::from_millis(100);

const LIMITS: &str = "defaults: {interval: 500ms, timeout: 1s, failure_threshold: 3}\ntargets:\n";
const WELL: &str = r#"{"status": "ok"}"#;
const HEAD: &str = "HTTP/1.1 200 OK\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// What each fault is called, the class it must be told as, and how the server brings it about.
fn faults() -> Vec<(&'static str, &'static str, Ways)> {
    let drip = |first: &str, again: &str| Ways::Drip(first.into(), again.into(), DRIP);
    let flood = |first: &str, again: &str| Ways::Flood(first.into(), again.into());
    let moved = |status: &str| Ways::raw(&format!("HTTP/1.1 {status}\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"));
    vec![
        ("silent", "timeout", Ways::Silent),
        ("reset-on-accept", "reset", Ways::ResetAtOnce),
        ("reset-after-request", "reset", Ways::Reset(vec![])),
        ("reset-in-body", "reset", Ways::Reset(format!("{HEAD}\r\npart").into())),
        ("closed-without-a-byte", "protocol", Ways::CloseAtOnce),
        ("dripping-headers", "timeout", drip(HEAD, "X")),
        ("dripping-body", "timeout", drip(&format!("{HEAD}Content-Length: 1000\r\n\r\n"), "x")),
        ("dripping-chunks", "timeout", drip(CHUNKED, "1\r\nx\r\n")),
        ("dripping-interim-answers", "timeout", drip("", "HTTP/1.1 103 Hint\r\n\r\n")),
        ("endless-body", "body", flood(&format!("{HEAD}\r\n"), &"x".repeat(4096))),
        ("endless-headers", "protocol", flood(HEAD, "X-More: of the same\r\n")),
        ("endless-header", "protocol", flood(&format!("{HEAD}X-Long: "), &"x".repeat(4096))),
        ("redirect-loop", "status", moved("302 Found")),
        ("garbage", "protocol", Ways::raw("\u{7}\u{1b}[2J garbage\r\n\r\n")),
        ("http-0.9", "protocol", Ways::raw("<html>It works!</html>\r\n")),
        ("bad-chunk", "protocol", Ways::raw(&format!("{CHUNKED}zz\r\nchunk\r\n"))),
        ("body-cut-short", "protocol", Ways::raw(&format!("{HEAD}Content-Length: 1000\r\n\r\npart"))),
        ("chunks-cut-short", "protocol", Ways::raw(&format!("{CHUNKED}4\r\npart\r\n"))),
        ("headers-cut-short", "protocol", Ways::raw(&format!("{HEAD}Content-Le"))),
        ("status-503", "status", Ways::answer("503 Service Unavailable", WELL)),
        ("status-404", "status", Ways::answer("404 Not Found", WELL)),
        ("status-301", "status", moved("301 Moved Permanently")),
        ("wrong-json", "body", Ways::answer("200 OK", r#"{"status": "starting"}"#)),
        ("not-json", "body", Ways::answer("200 OK", "<html>502 in disguise</html>")),
    ]
}

/// Demands that the target was found down in time, as what it is, and not before it had failed often enough.
#[track_caller]
fn found_in_time(place: &Place, target: &str, class: &str, since: SystemTime) {
    let bound = (INTERVAL + TIMEOUT) * THRESHOLD;
    let down = place.events_of(target, "down");
    let failing = place.events_of(target, "failing");
    place.demand(down.len() == 1 && failing.len() == 1, &format!("{target} fails once and is down once"));
    // The look in whose midst it happened may see something else.
    place.demand(down[0]["class"] == class, &format!("{target} is told as {class}: {}", down[0]));
    place.demand(down[0]["failures"] == THRESHOLD, &format!("{target} is down after {THRESHOLD} failures"));
    let took = at(&down[0]).duration_since(since).unwrap_or_default();
    place.demand(took <= bound + SCHEDULING, &format!("{target} is found after {took:?}, allowed are {bound:?}"));
}

/// From the start on, for no server can be both well and this.
fn from_the_start(hole: &BlackHole, closed: &Closed, handshake: &Server) -> Vec<(&'static str, &'static str, String)> {
    vec![
        ("nobody-listens", "refused", format!("http://127.0.0.1:{}/", closed.port())),
        ("syn-unanswered", "timeout", format!("http://127.0.0.1:{}/", hole.port())),
        ("no-such-socket", "refused", "{url: http://app/, unix_socket: run/app.sock}".into()),
        ("no-such-name", "dns", "http://no.such.host.invalid:1/".into()),
        ("dripping-handshake", "timeout", format!("https://127.0.0.1:{}/", handshake.port())),
    ]
}

#[test]
fn every_fault_on_the_wire_is_found_in_time_and_told_as_what_it_is() {
    let mut text = LIMITS.to_string();
    let mut target =
        |name: &str, http: &str, rest: &str| text += &format!("  - {{name: {name}, http: {http}{rest}}}\n");
    let well = || Ways::answer("200 OK", WELL);
    let turning: Vec<_> =
        faults().into_iter().map(|(name, class, ways)| (name, class, Server::start(well()), ways)).collect();
    for (name, _, server, _) in &turning {
        target(name, &format!("{{url: \"http://127.0.0.1:{}/\", json: {{/status: ok}}}}", server.port()), "");
    }
    // An address of its own, so that nobody takes the port when it is free.
    let dying = Server::on((Ipv4Addr::new(127, 86, 1, 1), 0), well()).expect("a loopback of 16 million addresses");
    target("killed", &format!("\"http://127.86.1.1:{}/\"", dying.port()), "");
    let pieces = ["HTTP/1.1 200 OK\r\nContent-", "Length: 1", "6\r\n\r\n", WELL];
    let slow = Server::start(Ways::Slow(pieces.map(|piece| (TIMEOUT / 2, piece.into())).into()));
    target("slow", &format!("\"http://127.0.0.1:{}/\"", slow.port()), ", timeout: 30s");
    // Lines that decide nothing, however odd and many.
    let odd = "X-Folded: a\r\n b\r\nX Y: a name with spaces\r\nno colon\r\nX\u{0}: \u{7}\r\n".repeat(100);
    let odd = Server::start(Ways::raw(&format!("{HEAD}{odd}Content-Length: 19\r\n\r\n\u{feff}{WELL}")));
    target("odd", &format!("{{url: \"http://127.0.0.1:{}/\", json: {{/status: ok}}}}", odd.port()), "");
    let (hole, closed) = (BlackHole::on(Ipv4Addr::LOCALHOST).expect("a full queue"), Closed::new());
    // The beginning of a handshake's record, whose end is never seen.
    let handshake = Server::start(Ways::Drip(vec![0x16, 3, 3, 0x3f, 0xff, 2, 0, 0x3f, 0xfb], vec![3], DRIP));
    let mut constant = from_the_start(&hole, &closed, &handshake);
    constant.retain(|(.., http)| cfg!(feature = "tls") || !http.starts_with("https:"));
    constant.iter().for_each(|(name, _, http)| target(name, http, ""));
    target("frozen-socket", "{url: http://app/, unix_socket: app.sock}", "");

    let place = Place::with(&text);
    let socket = Server::unix(&place.path("app.sock"), well());
    let started = SystemTime::now();
    let daemon = place.daemon(&["run"]);
    place.eventually("all that can be are healthy", || {
        let healthy = |target: &&Value| target["state"] == "healthy";
        let status = place.status();
        status["targets"].as_array().map_or(0, |targets| targets.iter().filter(healthy).count()) == turning.len() + 4
    });
    let turned = SystemTime::now();
    drop(dying);
    socket.turn(Ways::Silent);
    turning.iter().for_each(|(_, _, server, ways)| server.turn(ways.clone()));
    let count = turning.len() + constant.len() + 2;
    place.eventually("all are found", || place.events("down").len() >= count);

    for (name, class, ..) in &turning {
        found_in_time(&place, name, class, turned);
    }
    found_in_time(&place, "killed", "refused", turned);
    found_in_time(&place, "frozen-socket", "timeout", turned);
    for (name, class, _) in &constant {
        found_in_time(&place, name, class, started);
    }
    for (name, is) in [("slow", "what is slow but right"), ("odd", "what is odd but right")] {
        place.demand(place.target(name)["state"] == "healthy", &format!("{is} is healthy"));
        place.demand(place.events_of(name, "").is_empty(), &format!("{is} is left alone"));
    }
    assert!(daemon.stop().success());
}

#[cfg(feature = "tls")]
#[test]
fn a_bad_certificate_is_found_in_time_and_a_good_one_is_left_alone() {
    use crate::faults::Identity;

    let good = Identity(include_str!("tls/good.pem"), include_str!("tls/good.key"));
    let identities = [
        ("good", good),
        ("expired", Identity(include_str!("tls/expired.pem"), include_str!("tls/expired.key"))),
        ("ahead", Identity(include_str!("tls/ahead.pem"), include_str!("tls/ahead.key"))),
        ("elsewhere", Identity(include_str!("tls/elsewhere.pem"), include_str!("tls/elsewhere.key"))),
        ("selfsigned", Identity(include_str!("tls/selfsigned.pem"), include_str!("tls/selfsigned.key"))),
    ];
    let well = || Ways::answer("200 OK", WELL);
    let mut text = LIMITS.to_string();
    let mut target = |name: &str, port: u16, tls: &str| {
        text += &format!("  - {{name: {name}, http: {{url: \"https://localhost:{port}/\"{tls}}}}}\n");
    };
    let servers = identities.map(|(name, identity)| (name, Server::secure(identity, well())));
    for (name, server) in &servers {
        target(name, server.port(), ", tls: ca.pem");
    }
    let [(_, strange), (_, expired), ..] = &servers;
    target("strange-issuer", strange.port(), "");
    target("anything-will-do", expired.port(), ", tls: insecure");
    let (plain, frozen) = (Server::start(well()), Server::secure(good, well()));
    target("no-tls-at-all", plain.port(), ", tls: ca.pem");
    target("frozen", frozen.port(), ", tls: ca.pem");

    let place = Place::with(&text);
    place.write("ca.pem", include_str!("tls/ca.pem"));
    let started = SystemTime::now();
    let daemon = place.daemon(&["run"]);
    let bad = ["expired", "ahead", "elsewhere", "selfsigned", "strange-issuer", "no-tls-at-all"];
    place.eventually("the bad ones are found", || place.events("down").len() >= bad.len());
    bad.iter().for_each(|name| found_in_time(&place, name, "tls", started));
    for name in ["good", "anything-will-do", "frozen"] {
        place.eventually(&format!("{name} is healthy"), || place.target(name)["state"] == "healthy");
    }

    let turned = SystemTime::now();
    frozen.turn(Ways::Silent);
    place.eventually("the frozen one is found", || !place.events_of("frozen", "down").is_empty());
    found_in_time(&place, "frozen", "timeout", turned);
    for name in ["good", "anything-will-do"] {
        place.demand(place.events_of(name, "").is_empty(), &format!("{name} is left alone"));
    }
    assert!(daemon.stop().success());
}

#[cfg(feature = "full-tests")]
#[test]
fn a_resolver_that_hangs_is_found_in_time_and_holds_up_nobody() {
    // It takes requests and never answers one: nobody else has this address.
    let _resolver =
        UdpSocket::bind("127.86.53.53:53").expect("root, and an address that nobody has: see `sh tests/run`");
    let server = Server::start(Ways::answer("200 OK", WELL));
    let beside = format!("  - {{name: beside, http: \"http://127.0.0.1:{}/\"}}\n", server.port());
    let place = Place::with(&format!("{LIMITS}  - {{name: hanging, http: \"http://hangs.example/\"}}\n{beside}"));
    place.write("resolv.conf", "nameserver 127.86.53.53\noptions timeout:30 attempts:5\n");
    place.write("hosts", "127.0.0.1 localhost\n");
    let inside = |words: &str| {
        let mut command = Command::new("unshare");
        let mount = "mount --bind resolv.conf /etc/resolv.conf && mount --bind hosts /etc/hosts";
        command.args(["--mount", "sh", "-c", &format!("{mount} && {words}"), env!("CARGO_BIN_EXE_watchdog"), "run"]);
        command.current_dir(place.home()).env("HOME", place.home()).env_remove("NOTIFY_SOCKET").process_group(0);
        command
    };
    need(inside("true").output().expect(NEEDED).status.success(), "a mount namespace");

    let started = SystemTime::now();
    let daemon = place.daemon_by(inside("exec \"$0\" \"$@\""));
    place.eventually("it is found", || !place.events("down").is_empty());
    found_in_time(&place, "hanging", "dns", started);
    // The look-up of the first look hangs still; those after it are told at once and start none of their own.
    let threads = || Takes::of(daemon.pid()).threads;
    let (looks, mut most) = (server.requests().len(), 0);
    place.eventually("the other one is looked at as ever", || {
        most = most.max(threads());
        server.requests().len() > looks + 3
    });
    // The loop, the signals, the look-up that hangs, and at most a look at each target.
    place.demand((3..=5).contains(&most), &format!("no look leaves a thread behind: there are {most}"));
    place.demand(place.events_of("beside", "").is_empty(), "nobody else is held up");
    assert!(daemon.stop().success());
}

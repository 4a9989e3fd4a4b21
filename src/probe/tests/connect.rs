//! Connects to real addresses, ports and sockets: refused, silent, missing, or with a full queue.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

use super::super::faults::BlackHole;
use super::*;
use crate::outcome::Class;

/// Ends the server and waits until connections are refused: a child that another test is starting may hold the socket
/// for a moment.
fn close(server: Server, is_closed: impl Fn() -> bool) {
    drop(server);
    let began = Instant::now();
    while !is_closed() {
        assert!(began.elapsed() < LONG, "connections are still accepted");
    }
}

#[test]
fn a_port_without_a_listener_refuses() {
    let closed = ClosedPort::new();
    let port = closed.port();
    let refused = format!("refused: refused by [::1]:{port} and 127.0.0.1:{port}");
    let verdict = probe_http(http(&format!("http://127.0.0.1:{port}/")), LONG);
    assert_like(&verdict, &format!("refused: refused by 127.0.0.1:{port}"));
    if Server::bind((Ipv6Addr::LOCALHOST, 0), Behaviour::Silent).is_ok() {
        assert_like(&probe_http(http(&format!("http://localhost:{port}/")), LONG), &refused);
        let tcp = config::Probe::Tcp { host: "LOCALHOST.".into(), port };
        assert_like(&run(tcp, LONG).verdict, &refused);
    }
}

#[test]
fn a_full_queue_is_a_timeout() {
    let hole = BlackHole::bind(Ipv4Addr::LOCALHOST).expect("a full queue");
    let port = hole.port();
    let result = run(config::Probe::Tcp { host: "127.0.0.1".into(), port }, SHORT);
    assert_like(&result.verdict, &format!("timeout: no answer from 127.0.0.1:{port} in *"));
    assert!((SHORT..SHORT + SLACK).contains(&result.latency), "{result:?}");
    let verdict = probe_http(http(&format!("http://127.0.0.1:{port}/")), SHORT);
    assert_like(&verdict, &format!("timeout: no answer from 127.0.0.1:{port} in *"));
}

#[cfg(feature = "full-tests")]
#[test]
fn a_silent_address_leaves_time_for_the_next() {
    // Both must use the same port, and another process may take it in between.
    for _ in 0..20 {
        let hole = BlackHole::bind(Ipv6Addr::LOCALHOST).expect("this machine has the address ::1");
        let port = hole.port();
        let Ok(server) = Server::bind((Ipv4Addr::LOCALHOST, port), Behaviour::answer("200 OK", "")) else { continue };
        let url = format!("http://localhost:{}/", server.port());
        assert_like(&probe_http(http(&url), SHORT * 4), "healthy: 200");
        close(server, || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
        let verdict = probe_http(http(&url), SHORT);
        assert_like(&verdict, &format!("timeout: no answer from [::1]:{port} in *; refused by 127.0.0.1:{port}"));
        return;
    }
}

#[test]
fn an_established_connection_is_healthy_for_tcp() {
    for behaviour in [Behaviour::Silent, Behaviour::CloseAtOnce] {
        let server = Server::start(behaviour);
        for host in ["127.0.0.1", "localhost"] {
            let result = run(config::Probe::Tcp { host: host.into(), port: server.port() }, LONG);
            assert_like(&result.verdict, "healthy: connected");
        }
    }
}

#[test]
fn unix_sockets_are_probed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.sock");
    let mut config = http("http://app.example/health");
    config.unix_socket = Some(path.clone());
    assert_like(&probe_http(config.clone(), LONG), "refused: no such socket");

    let server = Server::start_unix(&path, Behaviour::answer("200 OK", "fine"));
    assert_like(&probe_http(config.clone(), LONG), "healthy: 200");
    let request = server.requests().join("");
    assert!(request.starts_with("GET /health HTTP/1.1\r\n") && request.contains("app.example"), "{request}");
    server.set_behaviour(Behaviour::Silent);
    assert_like(&probe_http(config.clone(), SHORT), "timeout: connected in *, then no byte for *");
    close(server, || UnixStream::connect(&path).is_err());
    assert_like(&probe_http(config.clone(), LONG), "refused: refused");

    config.unix_socket = Some(folder.path().join("x".repeat(200)));
    let refused = try_prober(config::Probe::Http(vec![config]), LONG);
    assert!(refused.is_err_and(|error| error.contains("107 bytes")));
}

#[test]
fn a_full_queue_of_a_unix_socket_is_a_timeout() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.sock");
    let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
    rustix::net::bind(&listener, &SocketAddrUnix::new(&path).expect("a short path")).expect("a path to bind");
    rustix::net::listen(&listener, 0).expect("a listener");
    let _first = std::os::unix::net::UnixStream::connect(&path).expect("room for one");

    let mut config = http("http://app.example/");
    config.unix_socket = Some(path);
    assert_like(&probe_http(config, SHORT), "timeout: the socket's connection queue stayed full");
}

#[test]
fn a_name_that_does_not_resolve_is_a_dns_failure() {
    let verdict = probe_http(http("http://no.such.host.invalid:1/"), Duration::from_secs(5));
    assert!(matches!(verdict, Verdict::Unhealthy { class: Class::Dns, .. }), "{verdict:?}");
}

//! Probes over TLS: certificates of every kind, and peers that speak something else.

use std::path::PathBuf;

use super::super::faults::TlsIdentity;
use super::*;
use crate::outcome::Class;
use crate::testing::{is_alone, run_alone};

const GOOD: TlsIdentity =
    TlsIdentity(include_str!("../../../tests/it/tls/good.pem"), include_str!("../../../tests/it/tls/good.key"));
const EXPIRED: TlsIdentity =
    TlsIdentity(include_str!("../../../tests/it/tls/expired.pem"), include_str!("../../../tests/it/tls/expired.key"));
const AHEAD: TlsIdentity =
    TlsIdentity(include_str!("../../../tests/it/tls/ahead.pem"), include_str!("../../../tests/it/tls/ahead.key"));
const ELSEWHERE: TlsIdentity = TlsIdentity(
    include_str!("../../../tests/it/tls/elsewhere.pem"),
    include_str!("../../../tests/it/tls/elsewhere.key"),
);
const SELF_SIGNED: TlsIdentity = TlsIdentity(
    include_str!("../../../tests/it/tls/selfsigned.pem"),
    include_str!("../../../tests/it/tls/selfsigned.key"),
);

const CA_TRUE: &str = "tls: certificate is a CA certificate (CA:TRUE), not a server certificate";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls").join(name)
}

fn ca() -> Tls {
    Tls::Ca(file("ca.pem"))
}

fn https(server: &Server, host: &str, tls: Tls) -> HttpConfig {
    HttpConfig { tls, ..http(&format!("https://{host}:{}/", server.port())) }
}

#[track_caller]
fn check(identity: TlsIdentity, tls: Tls, expected: &str) {
    let server = Server::start_tls(identity, Behaviour::answer("200 OK", "fine"));
    for host in ["localhost", "127.0.0.1"] {
        assert_like(&probe_http(https(&server, host, tls.clone()), LONG), expected);
    }
}

#[test]
fn certificates_are_verified() {
    check(GOOD, ca(), "healthy: 200");
    check(GOOD, Tls::Insecure, "healthy: 200");
    check(EXPIRED, ca(), "tls: certificate expired * days ago");
    check(EXPIRED, Tls::Insecure, "healthy: 200");
    check(AHEAD, ca(), "tls: certificate not valid for another * days");
    check(ELSEWHERE, ca(), "tls: certificate not valid for name *other.example*");
    check(SELF_SIGNED, ca(), CA_TRUE);
    check(SELF_SIGNED, Tls::Verify, CA_TRUE);
    check(GOOD, Tls::Verify, "tls: certificate from an untrusted issuer");
    let own = Tls::Ca(file("selfsigned.pem"));
    check(SELF_SIGNED, own, CA_TRUE);
}

#[test]
fn one_prober_probes_repeatedly() {
    let server = Server::start_tls(GOOD, Behaviour::answer("200 OK", "fine"));
    let prober = prober(config::Probe::Http(vec![https(&server, "localhost", ca())]), LONG);
    for _ in 0..3 {
        assert_like(&prober.probe(PriorEvidence::default(), &[]).verdict, "healthy: 200");
    }
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn faults_under_tls_have_the_same_classes() {
    let server = Server::start_tls(GOOD, Behaviour::answer("503 Down", ""));
    let probe = |timeout| probe_http(https(&server, "localhost", ca()), timeout);
    assert_like(&probe(LONG), "status: status 503");
    server.set_behaviour(Behaviour::raw(HEAD));
    assert_like(&probe(LONG), "protocol: cut short in the body of a 200, after 0 bytes");
    server.set_behaviour(Behaviour::Reset(bytes(&format!("{OPEN_HEAD}part"))));
    assert_like(&probe(LONG), "reset: connection reset in the body of a 200, after 4 bytes");
    server.set_behaviour(Behaviour::Flood(bytes(OPEN_HEAD), vec![b'x'; 65_536]));
    assert_like(&probe(LONG), "body: body longer than 1 MiB");
    server.set_behaviour(Behaviour::raw("garbage\r\n\r\n"));
    assert_like(&probe(LONG), "protocol: not HTTP: *");
    server.set_behaviour(Behaviour::ResetAtOnce);
    assert_like(&probe(LONG), "reset: *reset *");
    server.set_behaviour(Behaviour::CloseAtOnce);
    assert_like(&probe(LONG), "tls: closed during the TLS handshake");
    server.set_behaviour(Behaviour::Silent);
    assert_like(&probe(SHORT * 2), "timeout: TLS handshake done after *, headers not complete * later");
    server.set_behaviour(Behaviour::Drip(bytes(OPEN_HEAD), bytes("x"), PAUSE));
    assert_like(&probe(SHORT * 2), "timeout: 200 after *, body not complete * later (* bytes)");
}

#[test]
fn a_peer_that_does_not_speak_tls_is_detected() {
    // What a plain HTTP server answers to a handshake.
    let plain = Server::start(Behaviour::raw("HTTP/1.1 400 Bad Request\r\n\r\n"));
    let probe = |timeout| probe_http(https(&plain, "localhost", ca()), timeout);
    assert_like(&probe(LONG), "tls: the server does not speak TLS");
    plain.set_behaviour(Behaviour::Silent);
    assert_like(&probe(SHORT), "timeout: connected in *, then no byte for *");
    plain.set_behaviour(Behaviour::Drip(vec![0x16, 0x03, 0x03, 0x40, 0x00], vec![2], PAUSE));
    assert_like(&probe(SHORT), "timeout: connected in *, TLS handshake not complete * later");

    let secure = Server::start_tls(GOOD, Behaviour::answer("200 OK", ""));
    let verdict = probe_http(http(&format!("http://localhost:{}/", secure.port())), LONG);
    assert!(matches!(verdict.class(), Some(Class::Protocol | Class::Reset)), "{verdict:?}");
}

#[test]
fn tls_works_over_a_unix_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.sock");
    let _plain = Server::start_unix(&path, Behaviour::raw("HTTP/1.1 400 Bad Request\r\n\r\n"));
    let mut http = http("https://localhost/");
    http.unix_socket = Some(path);
    assert_like(&probe_http(http, LONG), "tls: the server does not speak TLS");
}

#[test]
fn a_file_without_certificates_is_refused() {
    let refusal = |path: PathBuf| {
        let http = HttpConfig { tls: Tls::Ca(path), ..http("https://localhost/") };
        try_prober(config::Probe::Http(vec![http]), LONG).map(|_| ())
    };
    let key = file("good.key");
    assert_eq!(refusal(key.clone()), Err(format!("{}: contains no certificate", key.display())));
    let none = file("none.pem");
    assert_eq!(refusal(none.clone()), Err(format!("{}: no such file or directory", none.display())));
}

#[test]
fn a_probe_over_tls_needs_no_more_than_its_stack() {
    let server = Server::start_tls(GOOD, Behaviour::answer("200 OK", "fine"));
    let prober = prober(config::Probe::Http(vec![https(&server, "localhost", ca())]), LONG);
    let thread =
        std::thread::Builder::new().stack_size(PROBE_STACK).spawn(move || prober.probe(PriorEvidence::default(), &[]));
    let result = thread.expect("a thread").join().expect("enough stack");
    assert_like(&result.verdict, "healthy: 200");
}

fn probe_good() -> Verdict {
    let server = Server::start_tls(GOOD, Behaviour::answer("200 OK", ""));
    probe_http(http(&format!("https://localhost:{}/", server.port())), LONG)
}

#[test]
fn the_systems_certificates_are_trusted() {
    if !is_alone() {
        let ca = concat!("SSL_CERT_FILE=", env!("CARGO_MANIFEST_DIR"), "/tests/it/tls/ca.pem");
        run_alone("probe::tests::tls::the_systems_certificates_are_trusted", &["env", ca]);
        return;
    }
    assert_like(&probe_good(), "healthy: 200");
}

#[test]
fn a_system_without_certificates_can_still_verify_others() {
    if !is_alone() {
        let none = ["env", "SSL_CERT_FILE=/nonexistent", "SSL_CERT_DIR=/nonexistent"];
        run_alone("probe::tests::tls::a_system_without_certificates_can_still_verify_others", &none);
        return;
    }
    assert_like(&probe_good(), "tls: certificate from an untrusted issuer");
}

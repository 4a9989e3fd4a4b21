//! Probes servers with odd responses that every other client accepts.

use super::*;

#[test]
fn oddities_in_the_head_fail_no_probe() {
    let check_head = |head: &str| check(Behaviour::raw(&format!("{head}\r\n\r\nfine")), "healthy: 200");
    let check_headers = |lines: &str| check_head(&format!("HTTP/1.1 200 OK\r\n{lines}\r\nContent-Length: 4"));
    check_headers("X-Long: it goes\r\n\ton here\r\nX Y: a name with spaces\r\nno colon at all\r\n: no name");
    check_headers("X\u{0}\u{7}: \u{1b}\u{e4}\nX: LF alone");
    check_headers(&"X-Many: of them\r\n".repeat(1_000));
    check_headers(&format!("X-Long: {}", "x".repeat(1_000_000)));
    check_headers("Content-Length: 4\r\ncontent-length : 4");
    check_head("\r\nhttp/1.0 200\nContent-Length:\n 4");
    check_head("HTTP/1.1 200 \u{7}\r\nTransfer-Encoding: identity");
    check_head("HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 103 Hint\r\nLink: a\r\n b\r\n\r\nHTTP/1.1 200 OK");
}

#[test]
fn oddities_around_chunks_fail_no_probe() {
    let lines = "4;name=\"a value\" ; another\r\nfine\n2  \r\nne\r\n0\r\nX-Sum: 1\r\nno colon\r\n\r\n";
    let server =
        Server::start(Behaviour::raw(&format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{lines}")));
    let mut config = http(&format!("http://127.0.0.1:{}/", server.port()));
    config.contains = Some("finene".into());
    assert_like(&probe_http(config, LONG), "healthy: 200");
}

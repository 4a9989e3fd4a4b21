//! Looks at servers whose answers are odd in what decides nothing: every other client takes them, and so do we.

use super::*;

#[test]
fn what_decides_nothing_fails_no_probe() {
    let fine = |head: &str| check(Ways::raw(&format!("{head}\r\n\r\nfine")), "healthy: 200");
    let with = |lines: &str| fine(&format!("HTTP/1.1 200 OK\r\n{lines}\r\nContent-Length: 4"));
    with("X-Long: it goes\r\n\ton here\r\nX Y: a name with spaces\r\nno colon at all\r\n: no name");
    with("X\u{0}\u{7}: \u{1b}\u{e4}\nX: LF alone");
    with(&"X-Many: of them\r\n".repeat(1_000));
    with(&format!("X-Long: {}", "x".repeat(1_000_000)));
    with("Content-Length: 4\r\ncontent-length : 4");
    fine("\r\nhttp/1.0 200\nContent-Length:\n 4");
    fine("HTTP/1.1 200 \u{7}\r\nTransfer-Encoding: identity");
    fine("HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 103 Hint\r\nLink: a\r\n b\r\n\r\nHTTP/1.1 200 OK");
}

#[test]
fn what_stands_around_chunks_decides_nothing_either() {
    let lines = "4;name=\"a value\" ; another\r\nfine\n2  \r\nne\r\n0\r\nX-Sum: 1\r\nno colon\r\n\r\n";
    let server = Server::start(Ways::raw(&format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{lines}")));
    let mut whole = http(&format!("http://127.0.0.1:{}/", server.port()));
    whole.contains = Some("finene".into());
    assert_like(&look_at(whole, LONG), "healthy: 200");
}

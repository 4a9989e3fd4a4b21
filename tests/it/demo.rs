//! The demo's backend starts even if its predecessor still holds the port.

use std::fs;
use std::net::TcpListener;
use std::process::Stdio;

use crate::sandbox::{Sandbox, process_state};

#[test]
fn the_backend_waits_until_its_port_is_free() {
    let sandbox = Sandbox::new("");
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
    sandbox.write("backend.port", &port.local_addr().expect("bound").port().to_string());
    let mut backend = sandbox.command(&["demo", "--backend", "."]);
    let mut backend = backend.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program runs");
    let pid = i32::try_from(backend.id()).expect("a pid fits into i32");
    sandbox.eventually("the backend waits", || process_state(pid) == Some('S'));
    drop(port);
    sandbox.eventually("the backend has the port", || !sandbox.read("backend.pid").is_empty());
    // The backend ends when its pid file is gone.
    fs::remove_file(sandbox.path("backend.pid")).expect("the pid file exists");
    assert_eq!(backend.wait().expect("a child can be waited for").code(), Some(0), "{}", sandbox.dump());
}

//! The demo's backend: it must come up again even on a port that its predecessor has not let go of yet.

use std::fs;
use std::net::TcpListener;
use std::process::Stdio;

use crate::place::{Place, doing};

#[test]
fn the_backend_waits_for_a_port_that_is_not_free_yet() {
    let place = Place::with("");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    place.write("backend.port", &port.local_addr().expect("bound").port().to_string());
    let mut backend = place.command(&["demo", "--backend", "."]);
    let mut backend = backend.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program runs");
    let pid = i32::try_from(backend.id()).expect("a pid is small");
    place.eventually("it waits", || doing(pid) == Some('S'));
    drop(port);
    place.eventually("it has the port", || !place.read("backend.pid").is_empty());
    fs::remove_file(place.path("backend.pid")).expect("removed"); // that ends it
    assert_eq!(backend.wait().expect("a child can be waited for").code(), Some(0), "{}", place.story());
}

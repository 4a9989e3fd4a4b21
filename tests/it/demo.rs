//! The demo: what a newcomer sees first must work each time, and leave nothing behind.

use std::fs;
use std::net::TcpListener;
use std::process::Stdio;

use crate::place::{Place, Said, doing};

#[test]
fn a_frozen_backend_comes_back_before_the_newcomers_eyes() {
    let place = Place::with("");
    fs::create_dir(place.path("tmp")).expect("made");
    let demo = place.command(&["demo"]).env("TMPDIR", place.path("tmp")).output().expect("the program runs");
    let said = Said::new(demo);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    let words: Vec<&str> = said.out.lines().filter_map(|line| line.get(8..)?.split_whitespace().next()).collect();
    assert!(words.starts_with(&["healthy", "failing"]), "{said:?}");
    assert!(words.ends_with(&["down", "restart", "that", "healthy"]), "{said:?}");
    assert_eq!(fs::read_dir(place.path("tmp")).expect("readable").count(), 0, "{}", place.story());
}

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

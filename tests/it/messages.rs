//! Messages to people: which, over which channel, whatever becomes of those who should take them.

mod channels;
#[cfg(all(feature = "email", feature = "full-tests"))]
mod mail;
mod trouble;

use serde_json::Value;

use crate::faults::{Server, Ways};
use crate::place::Place;

/// Quick enough for a test.
const DEFAULTS: &str = "defaults: {interval: 200ms, timeout: 1s, start_period: 2s, cooldown: 1s, max_cooldown: 1s}\n";

fn taking() -> Server {
    Server::start(Ways::answer("200 OK", "ok"))
}

/// A configuration with these channels and targets, a line each.
fn configuration(notify: &[&str], targets: &[&str]) -> String {
    let list = |items: &[&str]| items.iter().map(|item| format!("  - {item}\n")).collect::<String>();
    format!("{DEFAULTS}notify:\n{}targets:\n{}", list(notify), list(targets))
}

/// The messages that a server got as JSON, oldest first.
fn messages(server: &Server) -> Vec<Value> {
    let body = |request: String| Some(request.split_once("\r\n\r\n")?.1.to_owned());
    let bodies = server.requests().into_iter().filter_map(body);
    bodies.filter_map(|body| serde_json::from_str(&body).ok()).collect()
}

/// The kinds of them and of which target, as `down a`.
fn kinds(messages: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    messages.iter().map(|message| format!("{} {}", text(&message["event"]), text(&message["target"]))).collect()
}

/// Waits until the server has got these.
#[track_caller]
fn gets(place: &Place, server: &Server, expected: &[&str]) {
    place.eventually(&format!("{expected:?}"), || messages(server).len() >= expected.len());
    assert_eq!(kinds(&messages(server)), expected, "{}", place.story());
}

//! Messages to people: which ones are sent over which channel, and what happens if they cannot be delivered.

mod channels;
mod delivery_failures;
#[cfg(all(feature = "email", feature = "full-tests"))]
mod mail;

use serde_json::Value;

use crate::faults::{Behaviour, Server};
use crate::sandbox::Sandbox;

const DEFAULTS: &str = "defaults: {interval: 200ms, timeout: 1s, start_period: 2s, cooldown: 1s, max_cooldown: 1s}\n";

fn accepting_server() -> Server {
    Server::start(Behaviour::answer("200 OK", "ok"))
}

/// A configuration with these channels and targets, one line each.
fn configuration(notify: &[&str], targets: &[&str]) -> String {
    let list = |items: &[&str]| items.iter().map(|item| format!("  - {item}\n")).collect::<String>();
    format!("{DEFAULTS}notify:\n{}targets:\n{}", list(notify), list(targets))
}

/// The JSON messages that a server received, oldest first.
fn messages(server: &Server) -> Vec<Value> {
    let body = |request: String| Some(request.split_once("\r\n\r\n")?.1.to_owned());
    let bodies = server.requests().into_iter().filter_map(body);
    bodies.filter_map(|body| serde_json::from_str(&body).ok()).collect()
}

/// The event and target of each message, such as `down a`.
fn kinds(messages: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    messages.iter().map(|message| format!("{} {}", text(&message["event"]), text(&message["target"]))).collect()
}

/// Waits until the server has received exactly these messages.
#[track_caller]
fn check_received(sandbox: &Sandbox, server: &Server, expected: &[&str]) {
    sandbox.eventually(&format!("the messages {expected:?}"), || messages(server).len() >= expected.len());
    assert_eq!(kinds(&messages(server)), expected, "{}", sandbox.dump());
}

//! How an outage is shown while it lasts: since when, after how many restarts, and during which planned command.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::sandbox::{Daemon, Sandbox};

/// A target that only its file makes healthy, with short times and this restart command.
fn with_restart(restart: &str) -> Sandbox {
    let times = "interval: 100ms, failure_threshold: 2, start_period: 0s, cooldown: 0s, max_cooldown: 0s, \
                 max_restarts: 5";
    let probe = "file: {path: up, max_age: 1d}";
    let sandbox = Sandbox::new(&format!("targets:\n  - {{name: app, {probe}, {times}, restart: {restart}}}\n"));
    sandbox.write("up", "");
    sandbox
}

/// Starts a watchdog, and ends the target when it has been healthy once.
fn start_outage(sandbox: &Sandbox) -> Daemon<'_> {
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("it is healthy", || sandbox.target("app")["state"] == "healthy");
    fs::remove_file(sandbox.path("up")).expect("it is there");
    daemon
}

#[test]
fn since_is_the_beginning_of_the_outage_and_not_of_each_restart() {
    let sandbox = with_restart("'true'");
    let _watchdog = start_outage(&sandbox);
    let mut seen: Vec<(String, SystemTime)> = Vec::new();
    sandbox.eventually("it is down and recovering in turn", || {
        let state = sandbox.target("app");
        let name = state["state"].as_str().unwrap_or_default().to_owned();
        if ["down", "recovering"].contains(&&*name) {
            let since = state["since"].as_str().and_then(|since| humantime::parse_rfc3339(since).ok());
            seen.push((name, since.expect("a time")));
        }
        let has = |status: &str| seen.iter().any(|(name, _)| name == status);
        has("down") && has("recovering") && sandbox.events("restart").len() > 4
    });
    let times = || seen.iter().map(|(_, since)| *since);
    let (first, last) = times().min().zip(times().max()).expect("some");
    // A time of the boot clock is converted with a reading of both clocks, which may differ by a few milliseconds.
    let spread = last.duration_since(first).expect("not before the first");
    assert!(spread < Duration::from_millis(50), "{seen:?}\n{}", sandbox.dump());
    // Both count the same restarts.
    sandbox.eventually("the limit is reached", || sandbox.run(&["status"]).out.contains("5 restarts did not help"));
    let incident = sandbox.run(&["incident", "last"]).out;
    sandbox.assert(incident.contains("Helped   not so far, after 5 restarts\n"), &incident);
}

#[test]
fn incident_and_status_agree_on_a_command_that_cannot_be_started() {
    let sandbox = with_restart("{run: [./gone]}");
    let _watchdog = start_outage(&sandbox);
    sandbox.eventually("an attempt has ended", || !sandbox.events("restart_done").is_empty());
    let why = "the restart command could not be started";
    sandbox.eventually("the incident says why", || sandbox.run(&["incident", "last"]).out.contains(why));
    let status = sandbox.run(&["status"]).out;
    sandbox.assert(status.contains(why), &status);
}

#[test]
fn a_pause_during_a_command_is_shown_with_it() {
    let sandbox = with_restart("'true'");
    sandbox.write("watchdog.env", "TOKEN=a-secret-of-the-operator\n");
    let path = sandbox.path("watchdog.env");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a file of ours");
    let config = sandbox.read("watchdog.yaml");
    sandbox.write("watchdog.yaml", &format!("env_file: watchdog.env\nenv: {{T: '${{TOKEN}}'}}\n{config}"));
    let _watchdog = sandbox.start_daemon(&["run"]);
    let wait = "while [ ! -e done ]; do sleep 0.05; done";
    let mut pause =
        sandbox.spawn(&["pause", "--for", "1h", "--", "sh", "-c", wait, "deploy", "a-secret-of-the-operator"]);
    let shown = "paused while `sh -c 'while [ ! -e done ]; do sleep 0.05; done' deploy …` runs, until ";
    sandbox.eventually("status shows the command", || sandbox.run(&["status"]).out.contains(shown));
    sandbox.wait_for_log("app paused while `sh -c 'while [ ! -e done ]; do sleep 0.05; done' deploy …` runs, until ");
    assert_eq!(sandbox.events("paused")[0]["command"], "sh -c 'while [ ! -e done ]; do sleep 0.05; done' deploy …");
    // Another pause that lasts longer is what holds.
    sandbox.run(&["pause", "--for", "2h"]);
    sandbox.eventually("the longer pause is shown", || sandbox.run(&["status"]).out.contains("  paused until "));
    sandbox.run(&["resume"]);
    sandbox.write("done", "");
    let ended = pause.wait().expect("it ends with its command");
    sandbox.assert(ended.success(), &format!("{ended:?}"));
    sandbox.eventually("it is no longer paused", || sandbox.target("app")["state"] != "paused");
}

//! A backend that runs but does not answer, and that PM2 lists as online: one restart fixes it.

use std::time::Duration;

use super::fixture::{APP_NAME, Fixture};
use super::installation::Version;
use crate::sandbox::Daemon;

/// Three probes of 300 ms interval and 1 s timeout, PM2's 1.6 s to end a process, and 5 s; three times that for a slow
/// machine.
const LONGEST_OUTAGE: Duration = Duration::from_millis(3 * (3 * 1_300 + 1_600 + 5_000));

#[track_caller]
fn check<'a>(fixture: &'a Fixture, request: &str) -> Daemon<'a> {
    fixture.start();
    let watchdog = fixture.start_watchdog(&fixture.target_keys(""));
    let before = fixture.freeze(request);
    fixture.wait_for_repair_by_one_restart(before);
    let (down, up) = (&fixture.sandbox.events("down")[0], &fixture.sandbox.events("up")[0]);
    assert_eq!(down["class"], "timeout", "{}", fixture.sandbox.dump());
    let duration = Duration::from_millis(up["down_ms"].as_u64().expect("a number"));
    fixture.sandbox.assert(duration < LONGEST_OUTAGE, &format!("the outage lasted {duration:?}"));
    watchdog
}

#[test]
fn a_busy_loop_is_fixed_by_one_restart() {
    let fixture = Fixture::new("");
    let _watchdog = check(&fixture, "/freeze");
    fixture.sandbox.wait_for_log("busy in a loop");
    let incident_text = || fixture.sandbox.run(&["incident", "last"]).out;
    let is_written = || ["machine: load ", "Helped   yes"].iter().all(|part| incident_text().contains(part));
    fixture.eventually("the incident is complete", is_written);
    let incident_text = incident_text();
    let parts = [
        "What     timeout; connected in ",
        "Why      its process (pid ",
        "of a core: busy in a loop, not waiting",
        "  pm2 restart ",
        "Helped   yes: 200 in ",
        " has cured 1 of 1 timeout in ",
        "process.txt",
    ];
    for part in parts {
        fixture.sandbox.assert(incident_text.contains(part), &format!("`{part}` is in:\n{incident_text}"));
    }
    // On an overloaded machine the report says that instead.
    let is_whole = [" (up ", "others had it while it wanted to run"].iter().any(|part| incident_text.contains(part));
    fixture.sandbox.assert(is_whole, &incident_text);
}

#[test]
fn a_frozen_backend_that_ignores_sigint_is_fixed_by_one_restart() {
    let fixture = Fixture::new("");
    fixture.set_flag("stubborn", "");
    check(&fixture, "/block");
}

#[test]
fn a_backend_that_accepts_connections_but_never_answers_is_fixed_by_one_restart() {
    check(&Fixture::new(""), "/mute");
}

#[test]
fn a_frozen_cluster_worker_is_fixed_without_resetting_the_daemon() {
    let fixture = Fixture::unsaved("exec_mode: 'cluster', instances: 1");
    let daemon = fixture.daemon_pid();
    // The reset comes first in the list and is skipped.
    let _watchdog =
        fixture.start_watchdog(&format!("{}, restart: [{{pm2: reset}}, {{pm2: restart}}]", fixture.target_keys("")));
    let before = fixture.freeze("/block");
    fixture.wait_for_repair_by_one_restart(before);
    assert_eq!(fixture.daemon_pid(), daemon, "{}", fixture.sandbox.dump());
}

#[test]
fn a_stopped_instance_stays_stopped_when_another_one_freezes() {
    let fixture = Fixture::unsaved("exec_mode: 'cluster', instances: 2");
    fixture.pm2(&["stop", "1"]);
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(""));
    let before = fixture.freeze("/block");
    fixture.wait_for_repair_by_one_restart(before);
    let states: Vec<String> = fixture.process_list().into_iter().map(|(_, _, state)| state).collect();
    assert_eq!(states, ["online", "stopped"], "{}", fixture.sandbox.dump());
}

#[test]
fn a_frozen_backend_is_fixed_with_an_older_pm2_too() {
    let fixture = Fixture::with(Version::Five, "");
    fixture.start();
    fixture.pm2(&["save"]);
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(""));
    let before = fixture.freeze("/block");
    let pid = fixture.wait_for_repair_by_one_restart(before);
    fixture.kill_daemon();
    fixture.eventually("the target is up again", || fixture.sandbox.events("up").len() == 2);
    fixture.wait_for_repair(pid);
    // A probe during the command may have found the target up; a start period follows then.
    fixture.eventually("the target is healthy", || fixture.sandbox.target(APP_NAME)["state"] == "healthy");
}

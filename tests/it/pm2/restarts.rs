//! What PM2 writes into its own log when it restarts a process by itself, and when it was told to: the watchdog counts
//! the first and not the second.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::fixture::{APP_NAME, Fixture};
use super::installation::Version;
use crate::sandbox::{event_time, send_signal};

/// The restarts by PM2 that `report` counts after a tick has read the log.
fn counted(fixture: &Fixture) -> Value {
    let output = fixture.sandbox.run(&["--once"]);
    fixture.sandbox.assert(output.code == Some(0), &format!("{output:?}"));
    let output = fixture.sandbox.run(&["report", "--json"]);
    let report: Value = serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    report["targets"][0]["pm2_restarts"].clone()
}

#[test]
fn pm2s_own_restarts_are_told_from_ordered_ones() {
    for version in [Version::Seven, Version::Five] {
        let fixture = Fixture::with(version, "");
        let pid = fixture.start();
        fixture.pm2(&["save"]);
        fixture.configure(&fixture.target_keys(""));
        assert_eq!(counted(&fixture), json!({}), "{}", fixture.pm2_log());
        fixture.request("/exit?code=3");
        let pid = fixture.wait_for_replacement(pid);
        send_signal(pid, Signal::KILL);
        let pid = fixture.wait_for_replacement(pid);
        let expected = json!({"exit 3": 1, "signal SIGKILL": 1});
        assert_eq!(counted(&fixture), expected, "{}", fixture.pm2_log());
        // What was ordered does not count, neither by the operator nor by the watchdog.
        fixture.pm2(&["restart", APP_NAME]);
        let pid = fixture.wait_for_replacement(pid);
        fixture.pm2(&["stop", APP_NAME]);
        fixture.pm2(&["start", APP_NAME]);
        let pid = fixture.wait_for_replacement(pid);
        assert_eq!(counted(&fixture), expected, "{}", fixture.pm2_log());
        let daemon = fixture.start_watchdog(&fixture.target_keys(""));
        fixture.freeze("/freeze");
        let pid = fixture.wait_for_repair_by_one_restart(pid);
        daemon.stop();
        assert_eq!(counted(&fixture), expected, "{}", fixture.pm2_log());
        // A crash within the second of the attempt's end cannot be told from what the attempt did.
        let ended = event_time(&fixture.sandbox.events("restart_done")[0]);
        let is_past = || ended.elapsed().is_ok_and(|since| since > Duration::from_secs(3));
        fixture.eventually("the attempt is over for a while", is_past);
        fixture.pm2(&["flush"]);
        fixture.request("/exit?code=4");
        fixture.wait_for_replacement(pid);
        let expected = json!({"exit 3": 1, "exit 4": 1, "signal SIGKILL": 1});
        assert_eq!(counted(&fixture), expected, "{}", fixture.pm2_log());
    }
}

/// Without its sockets, the daemon gets no order: the watchdog ends the process, and the daemon starts it again.
#[test]
fn a_process_that_the_watchdog_ends_is_not_counted() {
    let fixture = Fixture::saved("");
    let daemon = fixture.start_watchdog(&fixture.target_keys(""));
    fixture.delete_sockets();
    let frozen = fixture.freeze("/block");
    fixture.wait_for_replacement(frozen);
    fixture.eventually("the target is up again", || !fixture.sandbox.events("up").is_empty());
    daemon.stop();
    assert_eq!(counted(&fixture), json!({}), "{}", fixture.pm2_log());
}

/// PM2 checks the memory every 30 s.
#[test]
fn a_restart_for_memory_is_counted_with_its_limit() {
    let fixture = Fixture::new("max_memory_restart: '10M'");
    let pid = fixture.start();
    fixture.configure(&fixture.target_keys(""));
    assert_eq!(counted(&fixture), json!({}), "{}", fixture.pm2_log());
    fixture.wait_for_replacement(pid);
    assert_eq!(counted(&fixture), json!({"memory 10485760": 1}), "{}", fixture.pm2_log());
    let status = fixture.sandbox.run(&["status"]).out;
    fixture.sandbox.assert(status.contains("PM2 restarted it once in 24 h for memory (10M)"), &status);
}

//! `watchdog restart` of a process under PM2: running, stopped by the operator, without a living daemon, and without a
//! running watchdog.

use serde_json::Value;

use super::fixture::{APP_NAME, Fixture};
use crate::sandbox::CommandOutput;

impl Fixture {
    /// Checks the outcome that is printed, and that the restart is the operator's.
    #[track_caller]
    fn check_ordered(&self, output: &CommandOutput) {
        let outcome = format!("{APP_NAME} healthy after the operator's restart: ");
        self.sandbox.assert(output.code == Some(0) && output.out.contains(&outcome), &format!("{output:?}"));
        let restart = self.sandbox.events("restart").pop().unwrap_or_default();
        self.sandbox.assert(restart["by"] == "operator", &format!("{restart}"));
        self.eventually("one backend runs", || self.backend_pids().len() == 1);
        assert_eq!(self.daemon_pids().len(), 1, "{}", self.sandbox.dump());
    }
}

#[test]
fn a_running_and_a_stopped_process_are_restarted() {
    let fixture = Fixture::saved("");
    let watchdog = fixture.start_watchdog(&fixture.target_keys(""));
    let before = fixture.wait_until_healthy();
    fixture.check_ordered(&fixture.run_from_cron(&["restart", APP_NAME]));
    let before = fixture.wait_for_replacement(before);
    fixture.assert_no_incident();
    // The start that it has ordered is no sign of a crash loop, and PM2 did not make it by itself.
    fixture.wait_until_known(before);
    let report: Value = serde_json::from_str(&fixture.sandbox.run(&["report", "--json"]).out).expect("JSON");
    let target = &report["targets"][0];
    assert_eq!(
        (&target["by_operator"], target["pm2_restarts"].as_object().map(serde_json::Map::len)),
        (&1.into(), Some(0))
    );
    // By itself the watchdog leaves a stopped process alone.
    fixture.pm2(&["stop", APP_NAME]);
    fixture.wait_until_at_rest("operator");
    fixture.check_ordered(&fixture.run_from_cron(&["restart", APP_NAME]));
    let before = fixture.wait_for_replacement(before);
    fixture.eventually("it is at rest no more", || !fixture.sandbox.events("woke").is_empty());
    fixture.assert_no_incident();
    watchdog.stop();
    // Without a running watchdog.
    fixture.check_ordered(&fixture.run_from_cron(&["restart", APP_NAME]));
    fixture.wait_for_replacement(before);
    assert_eq!(fixture.sandbox.events("restart").len(), 3, "{}", fixture.sandbox.dump());
}

#[test]
fn a_dead_daemon_is_replaced() {
    let fixture = Fixture::saved("");
    fixture.simulate_power_loss();
    fixture.configure(&fixture.target_keys(""));
    fixture.check_ordered(&fixture.run_from_cron(&["restart", APP_NAME]));
    fixture.sandbox.wait_for_log("pm2 resurrect: exit 0 in");
}

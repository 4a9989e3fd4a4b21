//! Processes that are at rest on purpose: deleted, between two scheduled runs, or ended for good. They cause no
//! incident, no message and no restart.

use super::fixture::{APP_NAME, Fixture};

impl Fixture {
    /// Starts a job that writes its pid into `works` and exits with this code.
    fn start_job(&self, keys: &str, code: i32) {
        let script = format!(
            "require('fs').appendFileSync('works', `${{process.pid}}\\n`);\nsetTimeout(() => process.exit({code}), \
             300);\n"
        );
        self.sandbox.write("app/job.js", &script);
        self.write_ecosystem(&format!("{{name: 'sav-backend', script: 'job.js', {keys}}}"));
        self.pm2_in_app(&[], &["start", "ecosystem.config.js"]);
        self.pm2(&["save"]);
        self.eventually("the job has ended", || self.listed_status().as_deref() == Some("stopped"));
    }

    #[track_caller]
    fn check_left_alone(&self, why: &str, runs: usize) {
        self.wait_until_at_rest(why);
        self.wait_for_probes(9);
        self.assert_untouched();
        let found = self.sandbox.log().matches("its list has").count();
        self.sandbox.assert(found == 1, &format!("what PM2 says is logged once, not {found} times"));
        assert_eq!(self.sandbox.target(APP_NAME)["state"], "stopped", "{}", self.sandbox.dump());
        assert_eq!(self.sandbox.lines("app/works").len(), runs, "{}", self.sandbox.dump());
        assert_eq!(self.sandbox.run(&["status"]).code, Some(0), "{}", self.sandbox.dump());
    }
}

#[test]
fn a_scheduled_job_is_at_rest_between_its_runs() {
    for code in [0, 1] {
        let fixture = Fixture::new("");
        fixture.start_job("cron_restart: '0 4 * * *', autorestart: false", code);
        let output = fixture.run_init();
        let row = output.out.lines().find(|line| line.contains(APP_NAME)).unwrap_or_default().to_owned();
        fixture.sandbox.assert(row.contains("a job") && row.ends_with("not watched"), &format!("{output:?}"));
        fixture.configure(&fixture.pm2_key(""));
        let _watchdog = fixture.sandbox.start_daemon(&["run"]);
        fixture.check_left_alone("schedule", 1);
        let output = fixture.run_from_cron(&["check"]);
        fixture.sandbox.assert(output.out.contains("runs on a schedule (cron_restart)"), &format!("{output:?}"));
    }
}

#[test]
fn a_process_that_exits_with_a_stop_exit_code_is_at_rest() {
    let fixture = Fixture::new("");
    fixture.start_job("stop_exit_codes: [3]", 3);
    fixture.configure(&fixture.pm2_key(""));
    let _watchdog = fixture.sandbox.start_daemon(&["run"]);
    fixture.check_left_alone("exit", 1);
}

/// The operator deletes it from the daemon's list, and starts it again later.
#[test]
fn a_process_deleted_by_the_operator_stays_deleted() {
    let fixture = Fixture::saved("");
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(&fixture.config_key()));
    fixture.pm2(&["delete", APP_NAME]);
    fixture.wait_until_at_rest("deleted");
    fixture.wait_for_probes(9);
    fixture.assert_untouched();
    assert_eq!(fixture.start_count(), 1, "{}", fixture.sandbox.dump());
    fixture.start();
    fixture.eventually("the start is noticed", || !fixture.sandbox.events("woke").is_empty());
    fixture.assert_untouched();
}

/// During an outage: the incident ends, and no further message is sent.
#[test]
fn an_incident_ends_when_the_operator_stops_the_process() {
    let fixture = Fixture::saved("");
    let _watchdog = fixture.start_watchdog(&format!("{}, start_period: 1s, max_restarts: 1", fixture.target_keys("")));
    fixture.set_flag("broken", "");
    fixture.freeze("/block");
    fixture.wait_until_held_back("limit");
    fixture.pm2(&["stop", APP_NAME]);
    // The restart window is full, so PM2 would be asked again only when it has room; resume clears that wait.
    fixture.sandbox.run(&["resume", APP_NAME]);
    fixture.wait_until_at_rest("operator");
    let (down, rested) = (fixture.sandbox.events("down"), fixture.sandbox.events("rested"));
    assert_eq!(down[0]["incident"], rested[0]["incident"], "{}", fixture.sandbox.dump());
    let incident_text = || fixture.sandbox.run(&["incident", "last"]).out;
    fixture.eventually("the incident is closed", || incident_text().contains("not needed: stopped by the operator"));
    assert_eq!(fixture.sandbox.target(APP_NAME)["incident"], serde_json::Value::Null, "{}", fixture.sandbox.dump());
}

/// Stopped and saved as stopped: a reboot does not turn it into a failure.
#[test]
fn a_process_saved_as_stopped_is_at_rest_even_without_a_daemon() {
    let fixture = Fixture::saved("");
    fixture.configure(&fixture.target_keys(""));
    assert_eq!(fixture.sandbox.run(&["--once"]).code, Some(0), "{}", fixture.sandbox.dump());
    fixture.pm2(&["stop", APP_NAME]);
    fixture.pm2(&["save"]);
    fixture.simulate_power_loss();
    for _ in 0..4 {
        fixture.sandbox.run(&["--once"]);
    }
    fixture.sandbox.assert(fixture.daemon_pids().is_empty() && fixture.start_count() == 1, "nothing was started");
    assert_eq!(fixture.sandbox.target(APP_NAME)["state"], "stopped", "{}", fixture.sandbox.dump());
}

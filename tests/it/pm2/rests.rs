//! What is deliberately at rest: deleted, between two runs, ended for good. No incident, no message, no restart.

use super::scene::{NAME, Scene};

impl Scene {
    /// A job that writes its pid into `works` and ends with this code.
    fn job(&self, keys: &str, code: i32) {
        let script = format!(
            "require('fs').appendFileSync('works', `${{process.pid}}\\n`);\nsetTimeout(() => process.exit({code}), \
             300);\n"
        );
        self.place.write("app/job.js", &script);
        self.describe(&format!("{{name: 'sav-backend', script: 'job.js', {keys}}}"));
        self.pm2_in_app(&[], &["start", "ecosystem.config.js"]);
        self.pm2(&["save"]);
        self.eventually("it is done", || self.listed().as_deref() == Some("stopped"));
    }

    #[track_caller]
    fn is_left_alone(&self, why: &str, runs: usize) {
        self.rests(why);
        self.looks(9);
        self.demand_untouched();
        assert_eq!(self.place.target(NAME)["state"], "stopped", "{}", self.place.story());
        assert_eq!(self.place.lines("app/works").len(), runs, "{}", self.place.story());
        assert_eq!(self.place.run(&["status"]).code, Some(0), "{}", self.place.story());
    }
}

#[test]
fn a_job_is_at_rest_between_its_runs_however_it_ended() {
    for code in [0, 1] {
        let scene = Scene::new("");
        scene.job("cron_restart: '0 4 * * *', autorestart: false", code);
        let said = scene.init();
        let row = said.out.lines().find(|line| line.contains(NAME)).unwrap_or_default().to_owned();
        scene.place.demand(row.contains("a job") && row.ends_with("not watched"), &format!("{said:?}"));
        scene.configure(&scene.beside(""));
        let _watchdog = scene.place.daemon(&["run"]);
        scene.is_left_alone("schedule", 1);
        let said = scene.by_cron(&["check"]);
        scene.place.demand(said.out.contains("runs on a schedule (cron_restart)"), &format!("{said:?}"));
    }
}

#[test]
fn what_ends_by_a_code_that_stops_it_stays_ended() {
    let scene = Scene::new("");
    scene.job("stop_exit_codes: [3]", 3);
    scene.configure(&scene.beside(""));
    let _watchdog = scene.place.daemon(&["run"]);
    scene.is_left_alone("exit", 1);
}

/// By the operator, from the daemon that listed it; and it is started anew some day.
#[test]
fn what_the_operator_has_deleted_stays_deleted() {
    let scene = Scene::saved("");
    let _watchdog = scene.watch(&scene.target(&scene.by_file()));
    scene.pm2(&["delete", NAME]);
    scene.rests("deleted");
    scene.looks(9);
    scene.demand_untouched();
    assert_eq!(scene.starts(), 1, "{}", scene.place.story());
    scene.start();
    scene.eventually("it is noticed", || !scene.place.events("woke").is_empty());
    scene.demand_untouched();
}

/// In the middle of an outage: the incident ends with it, and nobody is told of anything more.
#[test]
fn an_incident_ends_when_the_operator_stops_what_is_down() {
    let scene = Scene::saved("");
    let _watchdog = scene.watch(&format!("{}, start_period: 1s, max_restarts: 1", scene.target("")));
    scene.set("broken", "");
    scene.freeze("/block");
    scene.held_back("limit");
    scene.pm2(&["stop", NAME]);
    // The window is full: it is asked once more when it has room, so the watchdog is told that it has.
    scene.place.run(&["resume", NAME]);
    scene.rests("operator");
    let (down, rested) = (scene.place.events("down"), scene.place.events("rested"));
    assert_eq!(down[0]["incident"], rested[0]["incident"], "{}", scene.place.story());
    let story = || scene.place.run(&["incident", "last"]).out;
    scene.eventually("it is over", || story().contains("not needed: stopped in PM2 by the operator"));
    assert_eq!(scene.place.target(NAME)["incident"], serde_json::Value::Null, "{}", scene.place.story());
}

/// Stopped, and saved as that: a reboot does not make it a failure.
#[test]
fn what_was_saved_as_stopped_is_at_rest_without_a_daemon_too() {
    let scene = Scene::saved("");
    scene.configure(&scene.target(""));
    assert_eq!(scene.place.run(&["--once"]).code, Some(0), "{}", scene.place.story());
    scene.pm2(&["stop", NAME]);
    scene.pm2(&["save"]);
    scene.lose_power();
    for _ in 0..4 {
        scene.place.run(&["--once"]);
    }
    scene.place.demand(scene.daemons().is_empty() && scene.starts() == 1, "nothing was started");
    assert_eq!(scene.place.target(NAME)["state"], "stopped", "{}", scene.place.story());
}

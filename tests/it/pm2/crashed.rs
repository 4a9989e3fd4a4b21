//! A backend that has exited: what PM2 restarts is left to PM2, and what it does not restart is repaired.

use super::fixture::{APP_NAME, Fixture};

#[test]
fn a_crash_that_pm2_repairs_is_left_to_pm2() {
    let fixture = Fixture::unsaved("");
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(""));
    let before = fixture.wait_until_healthy();
    fixture.request("/exit?code=1");
    fixture.wait_for_replacement(before);
    fixture.wait_for_probes(6);
    fixture.assert_untouched();
    assert_eq!(fixture.start_count(), 2, "{}", fixture.sandbox.dump());
}

/// PM2 lists each of them as `stopped`, and a killed one even with exit code 0.
#[test]
fn a_crash_that_pm2_does_not_repair_is_repaired() {
    for (keys, kill) in [("autorestart: false", false), ("autorestart: false", true), ("stop_exit_codes: [0]", true)] {
        let fixture = Fixture::unsaved(keys);
        let _watchdog = fixture.start_watchdog(&fixture.target_keys(""));
        let before = fixture.wait_until_healthy();
        if kill {
            fixture.kill(before);
        } else {
            fixture.request("/exit?code=3");
        }
        fixture.wait_for_repair_by_one_restart(before);
    }
}

#[test]
fn a_process_that_pm2_gave_up_is_repaired_once_the_cause_is_gone() {
    for keys in ["max_restarts: 3", "max_restarts: 3, restart_delay: 100"] {
        let fixture = Fixture::unsaved(keys);
        let _watchdog = fixture.start_watchdog(&format!("{}, start_period: 3s", fixture.target_keys("")));
        let before = fixture.wait_until_healthy();
        fixture.crash_until_given_up();
        fixture.remove_flag("broken");
        fixture.wait_for_repair(before);
        fixture.sandbox.assert(!fixture.sandbox.events("restart").is_empty(), "the watchdog restarted it");
    }
}

#[test]
fn a_process_that_keeps_crashing_is_restarted_up_to_the_limit_and_still_probed() {
    let fixture = Fixture::unsaved("max_restarts: 2");
    let _watchdog = fixture.start_watchdog(&format!("{}, start_period: 2s, max_restarts: 2", fixture.target_keys("")));
    fixture.crash_until_given_up();
    fixture.wait_until_held_back("limit");
    fixture.wait_for_probes(5);
    assert_eq!(fixture.sandbox.events("restart").len(), 2, "{}", fixture.sandbox.dump());
    assert_eq!(fixture.sandbox.target(APP_NAME)["waiting"]["why"], "limit", "{}", fixture.sandbox.dump());
}

#[test]
fn a_crash_loop_that_pm2_repairs_each_time_is_reported_once() {
    let fixture = Fixture::unsaved("");
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(""));
    for _ in 0..3 {
        let before = fixture.wait_until_healthy();
        fixture.request("/exit?code=1");
        fixture.wait_until_known(fixture.wait_for_replacement(before));
    }
    fixture.eventually("the crash loop is reported", || fixture.warning_count("crash_loop") > 0);
    fixture.wait_for_probes(5);
    assert_eq!(fixture.warning_count("crash_loop"), 1, "{}", fixture.sandbox.dump());
    fixture.assert_untouched();
}

#[test]
fn without_another_probe_the_process_itself_is_watched_without_calling_pm2() {
    let fixture = Fixture::new("autorestart: false").with_counted_calls();
    fixture.start();
    let _watchdog = fixture.start_watchdog(&fixture.pm2_key(&fixture.config_key()));
    fixture.wait_for_probes(5);
    assert_eq!(fixture.sandbox.lines("calls"), [""; 0], "no PM2 command runs while the target is healthy");
    let before = fixture.wait_until_healthy();
    fixture.kill(before);
    fixture.wait_for_repair_by_one_restart(before);
    fixture
        .sandbox
        .assert(!fixture.sandbox.lines("calls").is_empty(), "the repair runs PM2, which shows that calls are counted");
    assert_eq!(fixture.sandbox.events("down")[0]["class"], "gone", "{}", fixture.sandbox.dump());
}

#[test]
fn no_pm2_command_runs_while_the_target_is_healthy() {
    let fixture = Fixture::new("").with_counted_calls();
    fixture.start();
    let watchdog = fixture.start_watchdog(&fixture.target_keys(", reset: true"));
    fixture.wait_for_probes(5);
    assert_eq!(fixture.sandbox.lines("calls"), [""; 0], "no call by a daemon");
    watchdog.stop();
    assert_eq!(fixture.sandbox.run(&["--once"]).code, Some(0), "{}", fixture.sandbox.dump());
    assert_eq!(fixture.sandbox.lines("calls"), [""; 0], "no call by a tick");
}

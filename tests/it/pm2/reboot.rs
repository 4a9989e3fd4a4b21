//! After a power loss: PM2 and the backend are gone, their files are stale, and only cron runs, with an environment in
//! which neither pm2 nor node is found.

use rustix::process::Signal;

use super::fixture::{APP_NAME, Fixture};
use crate::sandbox::{is_alive, send_signal};

/// A fixture with a saved list, or without one and with the ecosystem file in the target's configuration.
fn new_fixture(saved: bool) -> Fixture {
    let fixture = if saved { Fixture::saved("") } else { Fixture::unsaved("") };
    let pm2 = if saved { String::new() } else { fixture.config_key() };
    fixture.configure(&fixture.target_keys(&pm2));
    fixture
}

#[track_caller]
fn check_start(saved: bool) {
    let fixture = new_fixture(saved);
    assert_eq!(fixture.run_from_cron(&["start"]).code, Some(0), "{}", fixture.sandbox.dump());
    fixture.eventually("the target is healthy", || fixture.sandbox.target(APP_NAME)["state"] == "healthy");
    let (before, watchdog) =
        (fixture.wait_until_healthy(), fixture.sandbox.lock_holder().expect("it was just started"));
    send_signal(watchdog, Signal::KILL);
    fixture.simulate_power_loss();
    fixture.eventually("the watchdog is gone", || !is_alive(watchdog));
    let output = fixture.run_from_cron(&["start", "--cron"]);
    fixture.sandbox.assert(output.code == Some(0) && fixture.sandbox.lock_holder().is_some(), &format!("{output:?}"));
    fixture.wait_for_repair_by_one_restart(before);
}

#[track_caller]
fn check_ticks(saved: bool) {
    let fixture = new_fixture(saved);
    let silent = |code: i32| {
        let output = fixture.run_from_cron(&["--once"]);
        let expected = (Some(code), "", "");
        assert_eq!((output.code, output.out.as_str(), output.err.as_str()), expected, "{}", fixture.sandbox.dump());
    };
    silent(0);
    let before = fixture.wait_until_healthy();
    fixture.simulate_power_loss();
    // PM2 and the backend are both proven dead, so one tick decides.
    let output = fixture.run_from_cron(&["--once"]);
    fixture.sandbox.assert(output.code == Some(0) && output.out.contains(" helped"), &format!("{output:?}"));
    fixture.wait_for_repair_by_one_restart(before);
    silent(0);
}

#[test]
fn start_from_cron_restores_the_watchdog_and_a_saved_backend() {
    check_start(true);
}

#[test]
fn start_from_cron_restores_the_watchdog_and_an_unsaved_backend() {
    check_start(false);
}

#[test]
fn ticks_from_cron_restore_a_saved_backend() {
    check_ticks(true);
}

#[test]
fn ticks_from_cron_restore_an_unsaved_backend() {
    check_ticks(false);
}

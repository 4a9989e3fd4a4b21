//! How long an outage lasts at the defaults, with a probe every 30 s: the table in README.

use std::time::Duration;

use rustix::process::Signal;

use super::fixture::{APP_NAME, Fixture};
use crate::sandbox::{event_time, is_alive, send_signal};

/// A fixture with a saved list and a configuration without any times of its own.
fn fixture_at_the_defaults() -> Fixture {
    let fixture = Fixture::saved("");
    let configuration = format!("env: {{PATH: '{}'}}\ntargets:\n  - {{{}}}\n", fixture.path, fixture.target_keys(""));
    fixture.sandbox.configure(&configuration);
    fixture
}

/// After the first failed probe, the others follow within seconds, since both PM2 and the backend are proven dead.
#[track_caller]
fn check_outage(fixture: &Fixture, before: i32) {
    fixture.wait_for_repair_by_one_restart(before);
    let outage = fixture.sandbox.events("up")[0]["down_ms"].as_u64().expect("milliseconds");
    println!("down at most {outage} ms");
    fixture.sandbox.assert(outage < 45_000, &format!("down for {outage} ms"));
}

#[test]
fn a_killed_daemon_costs_less_than_45_s_at_the_defaults() {
    let fixture = fixture_at_the_defaults();
    let _watchdog = fixture.sandbox.start_daemon(&["run"]);
    fixture.eventually("it is healthy", || fixture.sandbox.target(APP_NAME)["state"] == "healthy");
    let before = fixture.wait_until_healthy();
    fixture.kill_daemon();
    check_outage(&fixture, before);
}

#[test]
fn after_a_reboot_the_first_start_from_cron_repairs_within_seconds() {
    let fixture = fixture_at_the_defaults();
    assert_eq!(fixture.run_from_cron(&["start"]).code, Some(0), "{}", fixture.sandbox.dump());
    fixture.eventually("it is healthy", || fixture.sandbox.target(APP_NAME)["state"] == "healthy");
    let (before, watchdog) =
        (fixture.wait_until_healthy(), fixture.sandbox.lock_holder().expect("it was just started"));
    send_signal(watchdog, Signal::KILL);
    fixture.simulate_power_loss();
    fixture.eventually("the watchdog is gone", || !is_alive(watchdog));
    assert_eq!(fixture.run_from_cron(&["start", "--cron"]).code, Some(0), "{}", fixture.sandbox.dump());
    check_outage(&fixture, before);
    let (started, down) = (fixture.sandbox.events("started"), fixture.sandbox.events("down"));
    let found_in = event_time(&down[0]).duration_since(event_time(started.last().expect("it was started twice")));
    let is_quick = found_in.is_ok_and(|found_in| found_in < Duration::from_secs(20));
    fixture.sandbox.assert(is_quick, "three probes in a row took less than an interval");
}

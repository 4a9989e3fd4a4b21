//! What the operator does in PM2 is not undone, and what is missing for a repair is reported before it is needed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::json;

use super::fixture::{APP_NAME, Fixture};
use crate::sandbox::CommandOutput;

#[test]
fn a_process_stopped_by_the_operator_stays_stopped_until_it_is_started() {
    let fixture = Fixture::saved("");
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(", reset: true"));
    fixture.eventually("the uptime is measured", || fixture.sandbox.target(APP_NAME)["uptime_24h"] == 1.0);
    fixture.pm2(&["stop", APP_NAME]);
    fixture.wait_until_at_rest("operator");
    // Several cooldowns long.
    fixture.wait_for_probes(12);
    let target = fixture.sandbox.target(APP_NAME);
    let is_stopped =
        target["state"] == "stopped" && target["waiting"]["why"] == "stopped" && target["uptime_24h"] == 1.0;
    fixture.sandbox.assert(is_stopped, &target.to_string());
    let output = fixture.sandbox.run(&["status"]);
    let is_correct = output.code == Some(0) && output.out.contains("stopped by the operator (pm2 stop");
    fixture.sandbox.assert(is_correct, &format!("{output:?}"));
    fixture.pm2(&["start", APP_NAME]);
    fixture.eventually("the start is noticed", || !fixture.sandbox.events("woke").is_empty());
    fixture.eventually("the target is healthy", || fixture.sandbox.target(APP_NAME)["state"] == "healthy");
    fixture.assert_untouched();
    assert_eq!(fixture.start_count(), 2, "{}", fixture.sandbox.dump());
}

/// The boot takes longer than three probes and less than the start period.
#[test]
fn a_deploy_with_a_slow_boot_is_not_a_failure() {
    let fixture = Fixture::unsaved("");
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(""));
    let before = fixture.wait_until_healthy();
    fixture.set_flag("delay", "6000");
    fixture.pm2(&["restart", APP_NAME]);
    fixture.wait_for_replacement(before);
    fixture.wait_for_probes(3);
    fixture.assert_untouched();
    assert_eq!(fixture.start_count(), 2, "{}", fixture.sandbox.dump());
}

/// A PATH without pm2, and one with pm2 but without node.
#[test]
fn a_path_without_pm2_or_node_is_reported_before_an_outage() {
    for (link, expected) in [(false, "command not found: pm2 (PATH="), (true, "pm2 needs node")] {
        let mut fixture = Fixture::new("");
        let tools = fixture.sandbox.path("tools");
        fs::create_dir(&tools).expect("folder access");
        if link {
            symlink(fixture.installed.bin.join("pm2"), tools.join("pm2")).expect("link created");
        }
        fixture = fixture.with_path(tools.display().to_string());
        fixture.configure(&fixture.target_keys(""));
        let output = fixture.sandbox.run(&["check", "--offline"]);
        fixture
            .sandbox
            .assert(output.code == Some(1) && output.out.contains(expected), &format!("`{expected}`: {output:?}"));
        let _watchdog = fixture.sandbox.start_daemon(&["run"]);
        fixture.eventually("the missing program is reported", || fixture.warning_count("cannot_repair") > 0);
        let detail = fixture.sandbox.events("warn")[0]["detail"].clone();
        fixture.sandbox.assert(detail.as_str().is_some_and(|detail| detail.contains(expected)), &format!("{detail}"));
        fixture.sandbox.assert(fixture.daemon_pids().is_empty(), "nothing was started");
    }
}

#[test]
fn another_watchdog_under_pm2_is_reported_as_a_danger() {
    let fixture = Fixture::saved("");
    fixture.sandbox.write("app/watchdog.js", "setInterval(() => {}, 1_000_000);\n");
    let script = fixture.sandbox.path("app/watchdog.js").display().to_string();
    fixture.pm2(&["start", &script, "--name", "sav-watchdog"]);
    fixture.pm2(&["save"]);
    fixture.configure(&fixture.target_keys(""));
    let output = fixture.sandbox.run(&["check"]);
    let named = output.out.lines().any(|line| line.starts_with("DANGER") && line.contains("sav-watchdog"));
    let is_correct = output.code == Some(1) && named && !output.out.contains("* * * * *");
    fixture.sandbox.assert(is_correct, &format!("{output:?}"));
}

/// The program as run by an operator with pm2 and node in PATH.
fn run_as_operator(fixture: &Fixture, args: &[&str]) -> CommandOutput {
    let mut command = fixture.sandbox.command(args);
    CommandOutput::new(command.env("PATH", fixture.installed.path()).output().expect("the program runs"))
}

#[test]
fn init_writes_a_configuration_that_works_unchanged() {
    let fixture = Fixture::saved("");
    let home = fixture.home();
    let existing = fixture.sandbox.read("watchdog.yaml");
    let output = run_as_operator(&fixture, &["init", "--pm2-home", &home]);
    let kept = output.code != Some(0) && fixture.sandbox.read("watchdog.yaml") == existing;
    fixture.sandbox.assert(kept, &format!("the existing file is kept: {output:?}"));
    let output = run_as_operator(&fixture, &["init", "--pm2-home", &home, "--force"]);
    fixture.sandbox.assert(output.code == Some(0) && output.out.contains(APP_NAME), &format!("{output:?}"));
    let mode = fs::metadata(fixture.sandbox.path("watchdog.yaml")).expect("it was written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "readable by the owner only");

    let output = fixture.run_from_cron(&["check"]);
    fixture.sandbox.assert(output.code == Some(0) && output.out.contains("* * * * *"), &format!("{output:?}"));
    assert_eq!(fixture.run_from_cron(&["--once"]).code, Some(0), "{}", fixture.sandbox.dump());
    let before = fixture.freeze("/block");
    let codes: Vec<Option<i32>> = (0..3).map(|_| fixture.run_from_cron(&["--once"]).code).collect();
    assert_eq!(json!(codes), json!([1, 1, 0]), "{}\n{}", fixture.sandbox.dump(), fixture.sandbox.read("watchdog.yaml"));
    fixture.wait_for_replacement(before);
    fixture.daemon_pid();
}

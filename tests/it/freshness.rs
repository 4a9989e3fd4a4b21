//! Whether a saved state is current: a fresh lock does not prove a fresh state, a free lock no daemon, and a changed
//! clock no death. The text, the JSON and the exit code of `status` agree.

use std::fs::{self, File};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::sandbox::{CommandOutput, Daemon, Sandbox, faketime_library, is_alive, process_state, send_signal};

const TARGETS: &str = "defaults: {interval: 100ms, failure_threshold: 1}\ntargets:\n  \
                       - {name: app, command: test -e well}\n";

fn healthy_watchdog(sandbox: &Sandbox) -> Daemon<'_> {
    sandbox.write("well", "");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || sandbox.target("app")["state"] == "healthy");
    daemon
}

/// Checks the text, `running` and exit code of `status`.
#[track_caller]
fn check(sandbox: &Sandbox, expected: &str, running: bool, code: i32) -> Value {
    let (text, json) = (sandbox.run(&["status"]), sandbox.run(&["status", "--json"]));
    let answer: Value = serde_json::from_str(&json.out).expect("valid JSON");
    let is_expected = text.out.contains(expected) && answer["watchdog"]["running"] == running;
    let codes_agree = (text.code, json.code) == (Some(code), Some(code));
    sandbox.assert(is_expected && codes_agree, &format!("`{expected}`, {running} and {code}: {text:#?}\n{json:#?}"));
    answer
}

/// Makes saving the state fail; the returned function makes it work again.
fn make_unsavable(sandbox: &Sandbox) -> impl Fn() {
    let temporary = sandbox.path("state/state.tmp");
    sandbox.eventually("the temporary name is blocked", || fs::create_dir(&temporary).is_ok());
    move || fs::remove_dir(&temporary).expect("the folder exists")
}

/// Makes the saved state this many seconds older.
fn age_state(sandbox: &Sandbox, seconds: i64) {
    let mut state: Value = serde_json::from_str(&sandbox.read("state/state.json")).expect("valid JSON");
    for clock in ["boot", "wall"] {
        let at = state["written"][clock].as_i64().expect("a time") - seconds * 1_000;
        state["written"][clock] = at.into();
    }
    sandbox.write("state/state.json", &state.to_string());
}

#[test]
fn a_state_that_is_no_longer_saved_is_called_old() {
    let sandbox = Sandbox::new(TARGETS);
    let daemon = healthy_watchdog(&sandbox);
    let make_savable = make_unsavable(&sandbox);
    age_state(&sandbox, 3_600);
    fs::remove_file(sandbox.path("well")).expect("the file exists");
    sandbox.wait_for_log("app down: ");
    let answer = check(&sandbox, ", alive 1 s ago), BUT HAS SAVED NOTHING FOR 1 h", true, 3);
    let time = |value: &Value| humantime::parse_rfc3339(value.as_str().expect("a time")).expect("a time");
    let age = time(&answer["at"]).duration_since(time(&answer["watchdog"]["state_at"])).expect("the state is older");
    assert!(age > Duration::from_secs(3_600), "{answer}");
    assert_eq!(answer["targets"][0]["state"], "healthy", "the last known state is still shown: {answer}");
    // Cron gets the error once, and never the message that all targets are healthy.
    let ticks = || (0..5).map(|_| sandbox.run(&["--once"])).collect::<Vec<CommandOutput>>();
    let reports = |ticks: &[CommandOutput]| ticks.iter().filter(|output| !output.err.is_empty()).count();
    let first = ticks();
    let why = format!("watchdog: the running watchdog (pid {}) has not saved its state since ", daemon.pid());
    sandbox.assert(first[0].err.starts_with(&why) && reports(&first) == 1, &format!("{first:#?}"));
    sandbox.assert(first.iter().all(|output| output.code == Some(4) && output.out.is_empty()), &format!("{first:#?}"));
    make_savable();
    sandbox.eventually("the state is saved again", || sandbox.target("app")["state"] == "down");
    check(&sandbox, ", alive 1 s ago) · could repair", true, 1);
    let output = sandbox.run(&["--once"]);
    assert_eq!((output.code, output.err.as_str()), (Some(1), ""), "{}", sandbox.dump());
}

/// A healthy tick ends the suppression of an earlier error, also while a daemon runs.
#[test]
fn an_error_is_reported_again_after_a_healthy_tick() {
    let sandbox = Sandbox::new(TARGETS);
    let _daemon = healthy_watchdog(&sandbox);
    let tick_with = |configuration: &str| {
        sandbox.configure(configuration);
        let output = sandbox.run(&["--once"]);
        (output.code, !output.err.is_empty())
    };
    let script = [("[]", true), ("[]", false), (TARGETS, false), ("[]", true)];
    for (step, (configuration, is_reported)) in script.into_iter().enumerate() {
        let code = if configuration == TARGETS { 0 } else { 2 };
        assert_eq!(tick_with(configuration), (Some(code), is_reported), "step {step}: {}", sandbox.dump());
    }
}

#[test]
fn a_killed_watchdog_is_reported_in_text_json_and_exit_code() {
    let sandbox = Sandbox::new(TARGETS);
    let daemon = healthy_watchdog(&sandbox);
    fs::remove_file(sandbox.path("well")).expect("the file exists");
    sandbox.eventually("the target is down", || sandbox.target("app")["state"] == "down");
    daemon.kill();
    let answer = check(&sandbox, "NOBODY IS WATCHING: last sign of life ", false, 3);
    assert_eq!(answer["watchdog"]["pid"], Value::Null);
    sandbox.assert(sandbox.run(&["report"]).out.contains("not watched "), "the report counts the time as not watched");
    assert_eq!(sandbox.run(&["--once"]).code, Some(1), "the tick works");
    check(&sandbox, "runs from cron, last ", true, 1);
}

#[test]
fn removed_targets_do_not_count_after_a_reload() {
    let sandbox = Sandbox::new(&format!("{TARGETS}  - {{name: other, command: test -e other}}\n"));
    let daemon = healthy_watchdog(&sandbox);
    sandbox.eventually("the other target is down", || sandbox.target("other")["state"] == "down");
    assert_eq!(sandbox.run(&["--once"]).code, Some(1));
    assert_eq!(sandbox.status()["watchdog"]["config_changed"], false);
    sandbox.configure(TARGETS);
    // The configuration loaded by the running watchdog counts.
    assert_eq!((sandbox.run(&["--once"]).code, sandbox.run(&["status"]).code), (Some(1), Some(1)));
    let answer = check(&sandbox, "The configuration file has changed since the watchdog read it.", true, 1);
    assert_eq!(answer["watchdog"]["config_changed"], true);
    let check_reports = || sandbox.run(&["check"]).out.contains("has not read the file since the last change");
    sandbox.assert(check_reports(), "check reports the unread change");
    daemon.signal(Signal::HUP);
    sandbox.eventually("the configuration is loaded", || sandbox.status()["watchdog"]["config_changed"] == false);
    assert_eq!(
        (sandbox.run(&["--once"]).code, sandbox.run(&["status"]).code),
        (Some(0), Some(0)),
        "{}",
        sandbox.dump()
    );
    sandbox.assert(!check_reports(), "check reports no unread change");
}

/// The program with a wall clock that is off by this much.
fn at_offset(sandbox: &Sandbox, args: &[&str], offset: &str) -> Command {
    let mut command = sandbox.command(args);
    command.env("LD_PRELOAD", faketime_library()).env("FAKETIME", offset).env("DONT_FAKE_MONOTONIC", "1");
    command
}

fn status_at(sandbox: &Sandbox, offset: &str) -> CommandOutput {
    CommandOutput::new(at_offset(sandbox, &["status"], offset).output().expect("the program runs"))
}

/// As on a file server with another clock.
#[cfg(feature = "full-tests")]
#[test]
fn a_heartbeat_from_another_clock_counts() {
    for offset in ["-5m", "+2h", "-3d"] {
        let sandbox = Sandbox::new(TARGETS);
        sandbox.write("well", "");
        let _daemon = sandbox.start_daemon_from(at_offset(&sandbox, &["run"], offset));
        let output = status_at(&sandbox, offset);
        sandbox.assert(
            output.code == Some(0) && output.out.contains(", alive 1 s ago)"),
            &format!("{offset}: {output:?}"),
        );
        check(&sandbox, ", alive 1 s ago)", true, 0);
    }
}

#[cfg(feature = "full-tests")]
#[test]
fn a_changed_clock_makes_no_watchdog_look_hung() {
    let sandbox = Sandbox::new(TARGETS);
    let daemon = healthy_watchdog(&sandbox);
    let offsets = ["-5m", "+5m", "-1d", "+3d", "-10y", "+10y"];
    for offset in offsets {
        let output = status_at(&sandbox, offset);
        sandbox.assert(output.code == Some(0) && output.out.contains(" runs (pid "), &format!("{offset}: {output:?}"));
    }
    // Without an answer from the process, the boot clock decides.
    daemon.signal(Signal::STOP);
    sandbox.eventually("the process is stopped", || process_state(daemon.pid()) == Some('T'));
    for offset in offsets {
        let output = status_at(&sandbox, offset);
        sandbox.assert(output.code == Some(0) && output.out.contains(" runs (pid "), &format!("{offset}: {output:?}"));
    }
    let lock = File::options().append(true).open(sandbox.path("state/watchdog.lock")).expect("the lock file exists");
    lock.set_modified(SystemTime::now() - Duration::from_secs(600)).expect("the file's time can be set");
    check(&sandbox, "is HUNG (pid ", true, 3);
    let checked = sandbox.run(&["check"]);
    sandbox.assert(
        checked.code == Some(1) && checked.out.contains("PROBLEM     watchdog 0.1.0 is HUNG"),
        &format!("{checked:?}"),
    );
    daemon.kill();

    assert_eq!(sandbox.run(&["--once"]).code, Some(0));
    for offset in offsets {
        let output = status_at(&sandbox, offset);
        sandbox.assert(
            output.code == Some(0) && output.out.contains("runs from cron, last "),
            &format!("{offset}: {output:?}"),
        );
    }
}

/// `start --cron` measures the time without a watchdog by the boot clock, too.
#[cfg(feature = "full-tests")]
#[test]
fn a_changed_clock_looks_neither_like_a_reboot_nor_like_a_long_absence() {
    let sandbox = Sandbox::new(TARGETS);
    sandbox.write("well", "");
    assert_eq!(sandbox.run(&["start"]).code, Some(0));
    // Each watchdog leaves a state written with its own clock.
    for offset in ["+1d", "-5h", "-10y", "+10y"] {
        let killed = sandbox.lock_holder().expect("a watchdog runs");
        sandbox.eventually("the state is saved", || {
            sandbox.read("state/state.json").contains(&format!("\"pid\":{killed},"))
        });
        send_signal(killed, Signal::KILL);
        sandbox.eventually("the process is gone", || !is_alive(killed));
        let run_with_clock = |args: &[&str]| {
            let output = at_offset(&sandbox, args, offset).env("TZ", "UTC").output().expect("the program runs");
            CommandOutput::new(output)
        };
        let output = run_with_clock(&["start", "--cron"]);
        let last = output.out.split_once("Last sign of life ").map_or("", |(_, last)| last);
        let last = last.lines().next().unwrap_or_default();
        let is_recent = last.contains(" s ago;") || last.contains(" min ago;");
        let is_correct = is_recent && last.ends_with("ago; the machine was not rebooted.");
        sandbox.assert(output.code == Some(0) && is_correct, &format!("{offset}: {output:?}"));
    }
}

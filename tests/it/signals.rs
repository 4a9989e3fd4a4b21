//! Signals, hung-up terminals and closed streams have only their intended effect on a running watchdog.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::resources::ResourceUsage;
use crate::sandbox::{CommandOutput, Daemon, MISSING_PROGRAM, Sandbox, is_alive, process_state};

/// A target that is healthy while the file `well` exists, and whose restart command creates it.
const APP: &str = "targets:\n  - name: app\n    command: test -e well\n    interval: 100ms\n    \
    failure_threshold: 1\n    restart: touch well; echo $WATCHDOG_ATTEMPT >> restarts\n    cooldown: 0s\n    \
    max_restarts: 100\n";

/// A target whose first restart command runs until the file `go` exists, and then fails.
const LONG_RESTART: &str = "targets:\n  - name: app\n    command: test -e well\n    interval: 100ms\n    \
    failure_threshold: 1\n    restart:\n      \
    - touch running; until test -e go; do sleep 0.02; done; echo done >> done; exit 3\n      \
    - echo second >> done\n";

/// Breaks the target and waits until the watchdog has repaired it.
#[track_caller]
fn check_repairs(sandbox: &Sandbox) {
    let before = sandbox.events("up").len();
    fs::remove_file(sandbox.path("well")).expect("the target was healthy");
    sandbox.eventually("the target is repaired", || sandbox.events("up").len() > before);
}

/// Runs a shell line in which `$0` is the program.
fn shell(sandbox: &Sandbox, line: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", line, env!("CARGO_BIN_EXE_watchdog")]).stdin(Stdio::null());
    shell.current_dir(sandbox.home()).env("HOME", sandbox.home());
    shell
}

/// As soon as its pid is in the lock file, another process may send it a signal, as `status` does.
#[test]
fn a_signal_right_after_the_lock_is_taken_does_not_end_the_watchdog() {
    for signal in [Signal::USR1, Signal::HUP].into_iter().cycle().take(20) {
        let sandbox = Sandbox::new(APP);
        sandbox.write("well", "");
        let daemon = sandbox.spawn_daemon(&["run"]);
        let began = Instant::now();
        while sandbox.lock_holder().is_none() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "the lock file never names the daemon\n{}",
                sandbox.dump()
            );
        }
        daemon.signal(signal);
        sandbox.eventually("the watchdog runs", || !sandbox.events("started").is_empty());
        assert_eq!(daemon.stop().code(), Some(0), "{signal:?}\n{}", sandbox.dump());
    }
}

/// A running tick, which ends once the file `go` exists, and a daemon that waits for it.
fn tick_and_waiting_daemon(sandbox: &Sandbox) -> (Child, Daemon<'_>) {
    let tick = sandbox.spawn(&["--once"]);
    sandbox.eventually("the tick runs", || sandbox.lock_holder().is_some());
    let daemon = sandbox.spawn_daemon(&["run"]);
    sandbox.eventually("the daemon handles signals", || ResourceUsage::of(daemon.pid()).threads == 2);
    (tick, daemon)
}

const LONG_PROBE: &str =
    "targets:\n  - name: app\n    command: until test -e go; do sleep 0.02; done\n    timeout: 1m\n";

#[test]
fn a_daemon_that_waits_for_a_tick_can_be_stopped() {
    let sandbox = Sandbox::new(LONG_PROBE);
    let (tick, daemon) = tick_and_waiting_daemon(&sandbox);
    assert_eq!(daemon.stop().code(), Some(0), "{}", sandbox.dump());
    sandbox.write("go", "");
    let output = CommandOutput::new(tick.wait_with_output().expect("a child can be waited for"));
    assert_eq!((output.code, sandbox.events("started").len()), (Some(0), 0), "{output:?}\n{}", sandbox.dump());
}

/// Several requests lead to one reload.
#[test]
fn a_daemon_that_waits_for_a_tick_reloads_once_when_it_starts_to_work() {
    let sandbox = Sandbox::new(LONG_PROBE);
    let (tick, daemon) = tick_and_waiting_daemon(&sandbox);
    sandbox.configure(&format!("{LONG_PROBE}  - {{name: new, command: 'true'}}\n"));
    for _ in 0..20 {
        daemon.signal(Signal::HUP);
        thread::sleep(Duration::from_millis(20));
    }
    sandbox.write("go", "");
    assert_eq!(CommandOutput::new(tick.wait_with_output().expect("a child can be waited for")).code, Some(0));
    sandbox.eventually("the configuration is reloaded", || !sandbox.events("reloaded").is_empty());
    sandbox.eventually("the new target is probed", || sandbox.target("new")["state"] == "healthy");
    assert_eq!(daemon.stop().code(), Some(0), "{}", sandbox.dump());
    assert_eq!(sandbox.events("reloaded").len(), 1, "{}", sandbox.dump());
}

#[test]
fn a_stop_signal_lets_the_running_command_finish_and_starts_no_other() {
    for signal in [Signal::TERM, Signal::INT] {
        let sandbox = Sandbox::new(LONG_RESTART);
        let mut daemon = sandbox.start_daemon(&["run"]);
        sandbox.eventually("the command runs", || sandbox.path("running").exists());
        daemon.signal(signal);
        sandbox.wait_for_log("signal to stop: ending when the running restart command has finished");
        sandbox.assert(
            daemon.child.try_wait().expect("the state of a child can be read").is_none(),
            "the watchdog waits for the command",
        );
        sandbox.write("go", "");
        let status = daemon.child.wait().expect("a child can be waited for");
        assert_eq!(status.code(), Some(0), "{}", sandbox.dump());
        // The first command failed, but the second one of the ladder is not started any more.
        assert_eq!(sandbox.lines("done"), ["done"], "{}", sandbox.dump());
        let done = &sandbox.events("restart_done")[0];
        assert_eq!((&done["outcome"], &done["code"]), (&"exited".into(), &3.into()), "{}", sandbox.dump());
        assert_eq!(sandbox.events("stopped").len(), 1, "{}", sandbox.dump());
    }
}

#[test]
fn a_second_stop_signal_ends_the_watchdog_at_once_and_leaves_the_command_running() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let sandbox = Sandbox::new(LONG_RESTART);
        let mut daemon = sandbox.start_daemon(&["run"]);
        sandbox.eventually("the command runs", || sandbox.path("running").exists());
        daemon.signal(first);
        sandbox.wait_for_log("signal to stop: ending when the running restart command has finished");
        daemon.signal(second);
        let status = daemon.child.wait().expect("a child can be waited for");
        assert_eq!(status.code(), Some(0), "{}", sandbox.dump());
        sandbox.write("go", "");
        sandbox.eventually("the command ends by itself", || !sandbox.lines("done").is_empty());
    }
}

#[test]
fn reloading_an_invalid_file_changes_nothing_and_is_reported() {
    let sandbox = Sandbox::new(APP);
    sandbox.write("well", "");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || sandbox.target("app")["state"] == "healthy");
    let good = sandbox.read("watchdog.yaml");
    let check_refused = |count| {
        daemon.signal(Signal::HUP);
        sandbox.eventually("the failure is reported", || sandbox.events("reload_failed").len() == count);
        check_repairs(&sandbox);
    };
    sandbox.write("watchdog.yaml", &good.replace("interval", "intervall"));
    check_refused(1);
    let detail = sandbox.events("reload_failed")[0]["detail"].to_string();
    sandbox.assert(detail.contains("intervall") && detail.contains("watchdog.yaml:5:5"), &detail);
    let consequence =
        format!("nothing changed; the running watchdog (pid {}) keeps its old configuration\n", daemon.pid());
    sandbox.wait_for_log(&consequence);
    // People read this log: a line of the message is a line in the log.
    sandbox.assert(
        sandbox.log().contains("did you mean `interval`?") && !sandbox.log().contains("\\n"),
        "the log is readable",
    );

    sandbox.write("watchdog.yaml", &good.replace("state_dir: state", "state_dir: elsewhere"));
    check_refused(2);
    fs::remove_file(sandbox.path("watchdog.yaml")).expect("file access");
    check_refused(3);

    sandbox.write("watchdog.yaml", &good);
    daemon.signal(Signal::HUP);
    sandbox.eventually("a valid file is accepted", || sandbox.events("reloaded").len() == 1);
    check_repairs(&sandbox);
}

/// A configuration with `app`, which no restart fixes, and other targets.
fn unfixable(others: &str) -> String {
    format!(
        "targets:\n  - {{name: app, command: test -e well, interval: 100ms, failure_threshold: 1, start_period: 0s, \
         restart: echo $WATCHDOG_ATTEMPT >> restarts, cooldown: 1h, max_cooldown: 1h}}\n{others}"
    )
}

#[test]
fn a_reload_keeps_the_state_of_unchanged_targets() {
    let other = "  - {name: other, file: {path: watchdog.yaml, max_age: 1d}, interval: 100ms}\n";
    let sandbox = Sandbox::new(&unfixable(other));
    sandbox.write("well", "");
    let daemon = sandbox.start_daemon(&["run"]);
    let waits = || sandbox.target("app")["waiting"]["why"] == "cooldown";
    let reload_with = |text: &str| {
        let before = sandbox.events("reloaded").len();
        sandbox.configure(text);
        daemon.signal(Signal::HUP);
        sandbox.eventually("the configuration is reloaded", || sandbox.events("reloaded").len() > before);
    };
    for name in ["app", "other"] {
        sandbox.eventually("both targets are healthy", || sandbox.target(name)["state"] == "healthy");
    }
    fs::remove_file(sandbox.path("well")).expect("file access");
    sandbox.eventually("the target waits after one attempt", waits);

    reload_with(&unfixable(&other.replace("100ms", "200ms")));
    assert_eq!(sandbox.target("app")["state"], "down", "{}", sandbox.dump());
    let (since, reloaded) = (sandbox.target("other")["since"].clone(), sandbox.events("reloaded")[0]["at"].clone());
    sandbox
        .assert(since.as_str() < reloaded.as_str(), &format!("healthy since {since}, before the reload at {reloaded}"));

    // A target that is removed and added again keeps its attempts and its incident.
    let incident = sandbox.target("app")["incident"].clone();
    reload_with(&format!("targets:\n{other}"));
    assert_eq!(sandbox.target("app"), Value::Null, "{}", sandbox.dump());
    reload_with(&unfixable(other));
    sandbox.eventually("the target waits as before", waits);
    let app = sandbox.target("app");
    assert_eq!((&app["attempts_in_window"], &app["incident"]), (&1.into(), &incident), "{}", sandbox.dump());
    assert_eq!(sandbox.lines("restarts"), ["1"], "{}", sandbox.dump());
    assert_eq!(sandbox.events("down").len(), 1, "{}", sandbox.dump());
}

#[test]
fn a_running_command_keeps_its_timeout_after_a_reload() {
    let sandbox = Sandbox::new(LONG_RESTART);
    let daemon = sandbox.start_daemon(&["run"]);
    let reload_with = |text: &str, count| {
        sandbox.configure(text);
        daemon.signal(Signal::HUP);
        sandbox.eventually("the configuration is reloaded", || sandbox.events("reloaded").len() == count);
    };
    sandbox.eventually("the command runs", || sandbox.path("running").exists());
    let short = "targets:\n  - {name: app, command: test -e well, interval: 100ms, failure_threshold: 1, \
                 restart: {run: 'true', timeout: 100ms}}\n";
    reload_with(short, 1);
    // The target may even be removed.
    reload_with("targets:\n  - {name: other, file: {path: watchdog.yaml, max_age: 1d}, interval: 100ms}\n", 2);
    let began = Instant::now();
    sandbox.eventually("the new timeout would be over", || began.elapsed() > Duration::from_millis(500));
    sandbox.assert(sandbox.events("restart_done").is_empty(), "the command was not killed");
    sandbox.write("go", "");
    sandbox.eventually("the command ends by itself", || !sandbox.events("restart_done").is_empty());
    let done = &sandbox.events("restart_done")[0];
    assert_eq!((&done["outcome"], &done["code"]), (&"exited".into(), &3.into()), "{}", sandbox.dump());
}

/// Rule 15 of the contract: a running command is finished, and no other command is started under a configuration that
/// forbids it.
#[cfg(feature = "full-tests")]
#[test]
fn a_reload_during_an_attempt_can_forbid_the_next_command() {
    let limits = "interval: 100ms, failure_threshold: 1, start_period: 100ms, cooldown: 100ms, max_cooldown: 100ms";
    let first = "'echo >> first; while ! test -e go; do sleep 0.02; done; exit 1'";
    let target = |rest: &str| format!("targets:\n  - {{name: a, command: test -e well, {limits}, {rest}}}\n");
    let ladder = format!("restart: [{first}, echo >> second]");
    let forbidding = [
        target(&format!("{ladder}, dry_run: true")),
        target(&format!("restart: [{first}, echo >> second, echo third], dry_run: true")),
        "targets:\n  - {name: b, command: 'true'}\n".to_owned(),
    ];
    for text in forbidding {
        let sandbox = Sandbox::new(&target(&ladder));
        sandbox.write("well", "");
        let daemon = sandbox.start_daemon(&["run"]);
        sandbox.eventually("the target is healthy", || sandbox.target("a")["state"] == "healthy");
        fs::remove_file(sandbox.path("well")).expect("file access");
        sandbox.eventually("the first command runs", || sandbox.path("first").exists());
        sandbox.configure(&text);
        daemon.signal(Signal::HUP);
        sandbox.eventually("the configuration is reloaded", || sandbox.events("reloaded").len() == 1);
        sandbox.write("go", "");
        sandbox.eventually("the first command ends", || sandbox.events("restart_done").len() == 1);
        // The next rung would wait 5 s, in which the target might still become healthy.
        let began = Instant::now();
        sandbox.eventually("the time has passed", || began.elapsed() > Duration::from_secs(6));
        sandbox.assert(!sandbox.path("second").exists(), "no further command is started");
        assert_eq!(sandbox.events("restart").len(), 1, "{}", sandbox.dump());
        assert!(daemon.stop().success());
    }
}

/// Without a change the state is written once a minute, so three writes in less time are caused by the signal. Each
/// save creates a new file, whose inode tells two writes of the same text apart.
#[test]
fn sigusr1_writes_the_state_at_once() {
    let sandbox = Sandbox::new("targets:\n  - {name: app, file: {path: watchdog.yaml, max_age: 1d}}\n");
    let written = || {
        let state = fs::metadata(sandbox.path("state/state.json")).expect("the file exists");
        (state.ino(), sandbox.read("state/state.json"))
    };
    let daemon = sandbox.start_daemon(&["run"]);
    let began = Instant::now();
    for _ in 0..3 {
        let before = written();
        daemon.signal(Signal::USR1);
        sandbox.eventually("the state is written", || written() != before);
    }
    sandbox.assert(began.elapsed() < Duration::from_secs(55), "the signals caused the writes");
}

/// The terminal belongs to script(1) and disappears with it. SIGHUP then reaches the program, with `nohup` or without.
#[cfg(feature = "full-tests")]
#[test]
fn a_terminal_hangup_does_not_end_the_watchdog() {
    for line in ["exec nohup \"$WATCHDOG\" run", "nohup \"$WATCHDOG\" run & sleep 600", "exec \"$WATCHDOG\" run"] {
        let sandbox = Sandbox::new(APP);
        sandbox.write("well", "");
        let mut script = shell(&sandbox, "exec script -qfc \"$LINE\" typescript");
        script.env("LINE", line).env("WATCHDOG", env!("CARGO_BIN_EXE_watchdog")).stdout(Stdio::null());
        let mut script = script.spawn().expect(MISSING_PROGRAM);
        sandbox.eventually("the target is healthy", || sandbox.target("app")["state"] == "healthy");
        let daemon = sandbox.lock_holder().expect("the watchdog runs");
        script.kill().expect("the child can be killed");
        script.wait().expect("a child can be waited for");
        // Repairing three times leaves enough time for an effect of the hang-up.
        for _ in 0..3 {
            check_repairs(&sandbox);
        }
        assert_eq!(sandbox.lock_holder(), Some(daemon), "{line}\n{}", sandbox.dump());
        assert_eq!(sandbox.run(&["stop"]).code, Some(0), "{line}\n{}", sandbox.dump());
    }
}

/// Closed streams, streams that cannot be written, and pipes without a reader.
#[test]
fn closed_and_broken_streams_do_not_end_the_watchdog() {
    for line in ["exec \"$0\" run -v <&- >&- 2>&-", "exec \"$0\" run -v >/dev/full 2>&1", "\"$0\" run -v 2>&1 | true"] {
        let sandbox = Sandbox::new(APP);
        sandbox.write("well", "");
        let mut shell = shell(&sandbox, line).spawn().expect("a shell");
        sandbox.eventually("the target is healthy", || sandbox.target("app")["state"] == "healthy");
        check_repairs(&sandbox);
        assert_eq!(sandbox.run(&["stop"]).code, Some(0), "{line}\n{}", sandbox.dump());
        assert_eq!(shell.wait().expect("a child can be waited for").code(), Some(0), "{line}\n{}", sandbox.dump());
    }
}

#[test]
fn a_tick_whose_output_cannot_be_written_still_does_its_work() {
    for line in ["\"$0\" --once >&- 2>&-", "\"$0\" --once >/dev/full", "{ \"$0\" --once; echo $? > code; } | true"] {
        let sandbox = Sandbox::new("targets:\n  - {name: app, command: exit 1, failure_threshold: 1}\n");
        let output = shell(&sandbox, &format!("{line}; test -e code || echo $? > code")).output().expect("a shell");
        sandbox.eventually("the tick ends", || !sandbox.read("code").is_empty());
        assert_eq!(sandbox.read("code").trim(), "1", "{line}: {:?}\n{}", CommandOutput::new(output), sandbox.dump());
        assert_eq!(sandbox.events("down").len(), 1, "{line}\n{}", sandbox.dump());
    }
}

#[test]
fn a_log_that_cannot_be_written_does_not_stop_the_watchdog() {
    let sandbox = Sandbox::new(&format!("log: {{file: logs/watchdog.log}}\n{APP}"));
    sandbox.write("well", "");
    sandbox.write("logs", "a file where the folder should be");
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || sandbox.target("app")["state"] == "healthy");
    check_repairs(&sandbox);
    fs::remove_file(sandbox.path("logs")).expect("file access");
    check_repairs(&sandbox);
    sandbox.eventually("the log is written again", || sandbox.read("logs/watchdog.log").contains("lost here"));
    fs::remove_dir_all(sandbox.path("logs")).expect("folder access");
    check_repairs(&sandbox);
    sandbox.eventually("the log is written again in a new folder", || {
        sandbox.read("logs/watchdog.log").contains("app healthy")
    });
}

#[test]
fn a_watchdog_that_was_suspended_briefly_goes_on() {
    let sandbox = Sandbox::new(APP);
    sandbox.write("well", "");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || sandbox.target("app")["state"] == "healthy");
    daemon.signal(Signal::STOP);
    sandbox.eventually("the process is stopped", || process_state(daemon.pid()) == Some('T'));
    daemon.signal(Signal::CONT);
    check_repairs(&sandbox);
    assert!(is_alive(daemon.pid()), "{}", sandbox.dump());
}

//! Processes left behind by commands: those of probes and conditions are ended, their output cannot fill the memory,
//! and what became a daemon is left alone.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::sandbox::{Sandbox, process_state};

/// Limit of a saved output (64 KiB), and room for the line that replaces the cut part.
const KEPT_BYTES: u64 = (64 << 10) + 64;

/// Runs forever and ignores the signals to stop.
const STUBBORN: &str = "trap '' TERM HUP INT; echo $$ >> pids; while :; do sleep 0.05; done\n";
/// The same, in the background of a command that ends at once.
const IN_BACKGROUND: &str = "sh stubborn & until test -s pids; do sleep 0.01; done\n";
/// A daemon that prints while this test runs, counts its lines, and does not end on write errors. The command that
/// starts it waits for its own daemon, as several may start at once.
const PRINTING: &str = "setsid sh -c 'echo $$ >> daemons; echo > begun.$0; while kill -0 TEST; do \
                        echo a line of a daemon; n=$((n+1)); echo $n > count.$$; done 2> /dev/null' $$ & \
                        until test -e begun.$$; do sleep 0.01; done\n";

fn new_sandbox(config: &str) -> Sandbox {
    let sandbox = Sandbox::new(config);
    for (name, text) in [("stubborn", STUBBORN), ("left", IN_BACKGROUND), ("printing", PRINTING)] {
        sandbox.write(name, &text.replace("TEST", &std::process::id().to_string()));
    }
    sandbox
}

/// Two ticks with this target leave no process running.
#[track_caller]
fn check_leaves_nothing(target: &str) {
    let defaults = "defaults: {timeout: 1s, failure_threshold: 1, start_period: 0s, cooldown: 0s}\n";
    let sandbox = new_sandbox(&format!("{defaults}targets:\n  - {{name: app, {target}}}\n"));
    for run in 0..2 {
        let output = sandbox.run(&["--once"]);
        let has_run = !sandbox.lines("pids").is_empty();
        sandbox.assert(has_run, &format!("{target} has run: {output:?}"));
        sandbox.eventually(&format!("no process is left by tick {run} of {target}"), || sandbox.processes().is_empty());
    }
}

#[test]
fn no_probe_or_condition_outlives_its_tick() {
    let down = "command: exit 1, restart: 'true'";
    let targets = [
        "command: sh stubborn".to_owned(),
        "command: sh stubborn; exit 0".to_owned(),
        // In a process group of its own, as timeout(1) creates.
        "command: timeout 600 sh stubborn; exit 0".to_owned(),
        "command: sh left; exit 0".to_owned(),
        "command: sh left; exit 3".to_owned(),
        format!("{down}, only_if: sh left; exit 1"),
        format!("{down}, diagnose: sh left"),
    ];
    std::thread::scope(|all| {
        for target in &targets {
            all.spawn(move || check_leaves_nothing(target));
        }
    });
}

#[test]
fn check_leaves_no_process_running() {
    let sandbox = new_sandbox("targets:\n  - {name: app, command: sh stubborn, timeout: 1s}\n");
    sandbox.run(&["check"]);
    sandbox.assert(!sandbox.lines("pids").is_empty(), "the probe has run");
    sandbox.eventually("no process is left", || sandbox.processes().is_empty());
}

/// A running watchdog ends what a probe left at the probe's deadline, not sooner; the verdict and the next probe do not
/// wait for that.
#[test]
fn processes_left_by_a_probe_are_ended_at_its_deadline() {
    let sandbox = new_sandbox("targets:\n  - {name: app, command: sh left, interval: 1d, timeout: 4s}\n");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || sandbox.target("app")["state"] == "healthy");
    sandbox.assert(sandbox.alive_pids("pids").len() == 1, "the process runs until the deadline");
    let other = |pid: &i32| *pid != daemon.pid();
    sandbox.eventually("the process is ended", || !sandbox.processes().iter().any(other));
    sandbox.assert(sandbox.target("app")["state"] == "healthy", "the verdict is unchanged");
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_stop_ends_running_probes() {
    let sandbox = new_sandbox("targets:\n  - {name: app, command: sh stubborn, interval: 1d, timeout: 1d}\n");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the probe runs", || !sandbox.lines("pids").is_empty());
    assert_eq!(daemon.stop().code(), Some(0));
    sandbox.eventually("no process is left", || sandbox.processes().is_empty());
}

/// A probe that still runs under a replaced configuration belongs to no target of the new one.
#[test]
fn a_stop_ends_probes_of_an_older_configuration() {
    let probe = |name: &str, timeout: &str| format!("  - {{name: {name}, command: sh stubborn, timeout: {timeout}}}\n");
    let changed = (probe("changed", "1d"), probe("changed", "23h"));
    let sandbox = new_sandbox(&format!("targets:\n{}{}", changed.0, probe("removed", "1d")));
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("both probes run", || sandbox.lines("pids").len() == 2);
    sandbox.configure(&format!("targets:\n{}", changed.1));
    daemon.signal(Signal::HUP);
    sandbox.eventually("the configuration is reloaded", || !sandbox.events("reloaded").is_empty());
    sandbox.assert(sandbox.alive_pids("pids").len() >= 2, "a reload ends no probe");
    assert_eq!(daemon.stop().code(), Some(0));
    sandbox.eventually("no process is left", || sandbox.processes().is_empty());
}

/// At a second request to stop the watchdog waits for nothing, but leaves only the restart command running.
#[test]
fn a_second_stop_ends_running_probes_but_not_the_restart_command() {
    let sandbox = new_sandbox(
        "defaults: {failure_threshold: 1, start_period: 0s, timeout: 1d}\ntargets:\n  \
         - {name: down, command: exit 1, restart: 'echo $$ > repair; exec sleep 1000'}\n  \
         - {name: app, command: sh stubborn}\n  - {name: other, command: timeout 1d sh stubborn; exit 0}\n",
    );
    let mut daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("both probes run", || sandbox.lines("pids").len() == 2);
    sandbox.eventually("the restart command runs", || !sandbox.lines("repair").is_empty());
    daemon.signal(Signal::TERM);
    sandbox.wait_for_log("signal to stop: ending when the running restart command has finished");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.child.wait().expect("a child can be waited for").code(), Some(0));
    sandbox.eventually("only the restart command is left", || sandbox.processes() == sandbox.alive_pids("repair"));
    sandbox.assert(sandbox.alive_pids("repair").len() == 1, "the process is alive");
}

/// The command that sends a message may start a daemon. A command that hangs ends with the tick.
#[cfg(feature = "full-tests")]
#[test]
fn only_a_daemon_started_by_a_message_command_outlives_the_tick() {
    let sandbox = new_sandbox(
        "notify: [{command: sh stubborn}, {command: 'sh printing; echo sent >> sent'}]\ntargets:\n  \
         - {name: app, command: exit 1, failure_threshold: 1}\n",
    );
    sandbox.run(&["--once"]);
    sandbox.assert(sandbox.lines("sent") == ["sent"] && !sandbox.lines("pids").is_empty(), "both commands were run");
    sandbox.eventually("only the daemon is left", || sandbox.processes() == sandbox.alive_pids("daemons"));
    sandbox.assert(sandbox.alive_pids("daemons").len() == 1, "the process is alive");
}

/// The output of probes and messages is in memory, where no later process could find and cut it.
#[test]
fn a_daemon_that_prints_forever_survives_and_cannot_fill_the_memory() {
    let sandbox = new_sandbox(
        "notify: [{command: sh printing}]\ndefaults: {failure_threshold: 1, start_period: 0s}\ntargets:\n  \
         - {name: probe, command: sh printing}\n  - {name: down, command: exit 1}\n",
    );
    sandbox.run(&["--once"]);
    let daemons = sandbox.alive_pids("daemons");
    sandbox.assert(daemons.len() == 2, &format!("both daemons are alive: {daemons:?}"));
    let counts =
        || daemons.iter().map(|pid| sandbox.read(&format!("count.{pid}")).trim().parse().unwrap_or(0)).collect();
    let before: Vec<u64> = counts();
    let enough = KEPT_BYTES / 16;
    sandbox.eventually("each daemon has printed more than is kept", || {
        before.iter().zip(counts()).all(|(before, now): (_, u64)| now > before + enough)
    });
    for pid in daemons {
        let output = fs::metadata(format!("/proc/{pid}/fd/1")).expect("the daemon has its output open");
        sandbox.assert(output.len() <= KEPT_BYTES, &format!("{} bytes are kept", output.len()));
        // Writing its count, the daemon may wait for the disk.
        sandbox
            .eventually("the daemon is not blocked", || process_state(pid).is_some_and(|state| "RS".contains(state)));
    }
}

/// A tick that has no process to end does not wait.
#[test]
fn a_tick_without_leftover_processes_ends_at_once() {
    let sandbox = new_sandbox("targets:\n  - {name: app, command: 'true'}\n");
    let best = (0..5).map(|_| {
        let began = Instant::now();
        sandbox.run(&["--once"]);
        began.elapsed()
    });
    let best = best.min().expect("five");
    sandbox.assert(best < Duration::from_millis(900), &format!("{best:?}"));
}

//! What commands leave behind: nothing of a probe or a question is there for good, no output fills the memory, and what
//! made itself a daemon is left alone.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::place::{Place, doing};

/// Bytes that are kept of an output, and room for the line that tells what was cut.
const KEPT: u64 = (64 << 10) + 64;

/// Ignores what it is asked, for ever.
const STUBBORN: &str = "trap '' TERM HUP INT; echo $$ >> pids; while :; do sleep 0.05; done\n";
/// The same, left behind in the background of a command that ends at once.
const LEFT: &str = "sh stubborn & until test -s pids; do sleep 0.01; done\n";
/// Prints as a daemon for as long as this test runs, and counts what it has done; what cannot be written is no reason
/// to end. Whoever starts it waits for its own one, which others may have begun before.
const PRINTING: &str = "setsid sh -c 'echo $$ >> daemons; echo > begun.$0; while kill -0 TEST; do \
                        echo a line of a daemon; n=$((n+1)); echo $n > count.$$; done 2> /dev/null' $$ & \
                        until test -e begun.$$; do sleep 0.01; done\n";

fn place(config: &str) -> Place {
    let place = Place::with(config);
    for (name, text) in [("stubborn", STUBBORN), ("left", LEFT), ("printing", PRINTING)] {
        place.write(name, &text.replace("TEST", &std::process::id().to_string()));
    }
    place
}

/// Ticks with this target, one after the other, leave nothing running.
#[track_caller]
fn leaves_nothing(target: &str) {
    let defaults = "defaults: {timeout: 1s, failure_threshold: 1, start_period: 0s, cooldown: 0s}\n";
    let place = place(&format!("{defaults}targets:\n  - {{name: app, {target}}}\n"));
    for run in 0..2 {
        let said = place.run(&["--once"]);
        let has_run = !place.lines("pids").is_empty();
        place.demand(has_run, &format!("{target} has run it: {said:?}"));
        place.eventually(&format!("nobody is left by tick {run} of {target}"), || place.processes().is_empty());
    }
}

#[test]
fn nothing_that_a_tick_has_asked_outlives_it() {
    let down = "command: exit 1, restart: 'true'";
    let cases = [
        "command: sh stubborn".to_owned(),
        "command: sh stubborn; exit 0".to_owned(),
        // In a group of its own, as timeout(1) makes one for whatever it runs.
        "command: timeout 600 sh stubborn; exit 0".to_owned(),
        "command: sh left; exit 0".to_owned(),
        "command: sh left; exit 3".to_owned(),
        format!("{down}, only_if: sh left; exit 1"),
        format!("{down}, diagnose: sh left"),
    ];
    std::thread::scope(|all| {
        for target in &cases {
            all.spawn(move || leaves_nothing(target));
        }
    });
}

#[test]
fn a_check_leaves_nothing_either() {
    let place = place("targets:\n  - {name: app, command: sh stubborn, timeout: 1s}\n");
    place.run(&["check"]);
    place.demand(!place.lines("pids").is_empty(), "it has run");
    place.eventually("nobody is left", || place.processes().is_empty());
}

/// While the watchdog is at work it ends what a probe leaves at the probe's deadline, not sooner; the verdict and the
/// next probe do not wait for that.
#[test]
fn what_a_probe_leaves_is_ended_at_its_deadline() {
    let place = place("targets:\n  - {name: app, command: sh left, interval: 1d, timeout: 4s}\n");
    let daemon = place.daemon(&["run"]);
    place.eventually("it is healthy", || place.target("app")["state"] == "healthy");
    place.demand(place.alive("pids").len() == 1, "it is left alone until then");
    let other = |pid: &i32| *pid != daemon.pid();
    place.eventually("it is ended", || !place.processes().iter().any(other));
    place.demand(place.target("app")["state"] == "healthy", "the verdict stands");
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn what_is_asked_when_it_is_told_to_stop_ends_with_it() {
    let place = place("targets:\n  - {name: app, command: sh stubborn, interval: 1d, timeout: 1d}\n");
    let daemon = place.daemon(&["run"]);
    place.eventually("it is being probed", || !place.lines("pids").is_empty());
    assert_eq!(daemon.stop().code(), Some(0));
    place.eventually("nobody is left", || place.processes().is_empty());
}

/// What is asked still under a configuration that was replaced belongs to nobody that is in the new one.
#[test]
fn what_is_asked_under_an_older_configuration_ends_with_it_too() {
    let probe = |name: &str, timeout: &str| format!("  - {{name: {name}, command: sh stubborn, timeout: {timeout}}}\n");
    let changed = (probe("changed", "1d"), probe("changed", "23h"));
    let place = place(&format!("targets:\n{}{}", changed.0, probe("removed", "1d")));
    let daemon = place.daemon(&["run"]);
    place.eventually("both are being probed", || place.lines("pids").len() == 2);
    place.configure(&format!("targets:\n{}", changed.1));
    daemon.signal(Signal::HUP);
    place.eventually("it was read", || !place.events("reloaded").is_empty());
    place.demand(place.alive("pids").len() >= 2, "a reload ends no probe");
    assert_eq!(daemon.stop().code(), Some(0));
    place.eventually("nobody is left", || place.processes().is_empty());
}

/// Told to stop for the second time it waits for nothing, but leaves the restart command alone only.
#[test]
fn what_is_asked_ends_also_when_it_is_told_to_stop_twice() {
    let place = place(
        "defaults: {failure_threshold: 1, start_period: 0s, timeout: 1d}\ntargets:\n  \
         - {name: down, command: exit 1, restart: 'echo $$ > repair; exec sleep 1000'}\n  \
         - {name: app, command: sh stubborn}\n  - {name: other, command: timeout 1d sh stubborn; exit 0}\n",
    );
    let mut daemon = place.daemon(&["run"]);
    place.eventually("both are being probed", || place.lines("pids").len() == 2);
    place.eventually("the other one is being repaired", || !place.lines("repair").is_empty());
    daemon.signal(Signal::TERM);
    place.told("signal to stop: ending when the running restart command has finished");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.child.wait().expect("a child can be waited for").code(), Some(0));
    place.eventually("the restart command alone is left", || place.processes() == place.alive("repair"));
    place.demand(place.alive("repair").len() == 1, "it lives");
}

/// A message is sent by whatever the operator likes, which may start something. One that hangs ends with the tick.
#[cfg(feature = "full-tests")]
#[test]
fn of_messages_only_what_became_a_daemon_outlives_the_tick() {
    let place = place(
        "notify: [{command: sh stubborn}, {command: 'sh printing; echo sent >> sent'}]\ntargets:\n  \
         - {name: app, command: exit 1, failure_threshold: 1}\n",
    );
    place.run(&["--once"]);
    place.demand(place.lines("sent") == ["sent"] && !place.lines("pids").is_empty(), "both were run");
    place.eventually("the daemon alone is left", || place.processes() == place.alive("daemons"));
    place.demand(place.alive("daemons").len() == 1, "it lives");
}

/// In memory, where the output of probes and messages is, nobody could find it to cut it once the tick is over.
#[test]
fn a_daemon_that_prints_for_ever_lives_and_cannot_fill_the_memory() {
    let place = place(
        "notify: [{command: sh printing}]\ndefaults: {failure_threshold: 1, start_period: 0s}\ntargets:\n  \
         - {name: probe, command: sh printing}\n  - {name: down, command: exit 1}\n",
    );
    place.run(&["--once"]);
    let daemons = place.alive("daemons");
    place.demand(daemons.len() == 2, &format!("both live: {daemons:?}"));
    let counts = || daemons.iter().map(|pid| place.read(&format!("count.{pid}")).trim().parse().unwrap_or(0)).collect();
    let before: Vec<u64> = counts();
    let enough = KEPT / 16;
    place.eventually("each has gone on to print more than is kept", || {
        before.iter().zip(counts()).all(|(before, now): (_, u64)| now > before + enough)
    });
    for pid in daemons {
        let output = fs::metadata(format!("/proc/{pid}/fd/1")).expect("it holds its output open");
        place.demand(output.len() <= KEPT, &format!("{} bytes are kept", output.len()));
        // Writing to its count it may wait for the disk.
        place.eventually("it is not held up", || doing(pid).is_some_and(|state| "RS".contains(state)));
    }
}

/// A tick that has nothing to end does not wait.
#[test]
fn a_tick_without_leftovers_is_over_at_once() {
    let place = place("targets:\n  - {name: app, command: 'true'}\n");
    let best = (0..5).map(|_| {
        let began = Instant::now();
        place.run(&["--once"]);
        began.elapsed()
    });
    let best = best.min().expect("five");
    place.demand(best < Duration::from_millis(900), &format!("{best:?}"));
}

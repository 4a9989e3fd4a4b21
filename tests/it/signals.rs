//! What signals, dead terminals and closed streams do to a watchdog at work: only what was meant.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::place::{Daemon, NEEDED, Place, Said, doing, is_alive};
use crate::takes::Takes;

/// A target that is well as long as the file `well` is there, and a command that makes it so.
const APP: &str = "targets:\n  - name: app\n    command: test -e well\n    interval: 100ms\n    \
    failure_threshold: 1\n    restart: touch well; echo $WATCHDOG_ATTEMPT >> restarts\n    cooldown: 0s\n    \
    max_restarts: 100\n";

/// One whose first restart command runs until the file `go` is there, and then fails.
const LONG_RESTART: &str = "targets:\n  - name: app\n    command: test -e well\n    interval: 100ms\n    \
    failure_threshold: 1\n    restart:\n      \
    - touch running; until test -e go; do sleep 0.02; done; echo done >> done; exit 3\n      \
    - echo second >> done\n";

/// The app goes, and the watchdog at work brings it back.
#[track_caller]
fn still_repairs(place: &Place) {
    let before = place.events("up").len();
    fs::remove_file(place.path("well")).expect("the app was well");
    place.eventually("it is repaired", || place.events("up").len() > before);
}

/// The program in a shell's hands, as `$0` of this line.
fn shell(place: &Place, line: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", line, env!("CARGO_BIN_EXE_watchdog")]).stdin(Stdio::null());
    shell.current_dir(place.home()).env("HOME", place.home());
    shell
}

/// Whoever finds its pid in the lock may ask it for something at once, as `status` does.
#[test]
fn from_the_moment_it_can_be_found_no_request_ends_it() {
    for signal in [Signal::USR1, Signal::HUP].into_iter().cycle().take(20) {
        let place = Place::with(APP);
        place.write("well", "");
        let daemon = place.daemon_unchecked(&["run"]);
        let began = Instant::now();
        while place.holder().is_none() {
            assert!(began.elapsed() < Duration::from_secs(60), "it never says who it is\n{}", place.story());
        }
        daemon.signal(signal);
        place.eventually("it is at work", || !place.events("started").is_empty());
        assert_eq!(daemon.stop().code(), Some(0), "{signal:?}\n{}", place.story());
    }
}

/// A tick at work, until the file `go` is there, and a daemon that waits for its end.
fn waiting(place: &Place) -> (Child, Daemon<'_>) {
    let tick = place.begin(&["--once"]);
    place.eventually("the tick is at work", || place.holder().is_some());
    let daemon = place.daemon_unchecked(&["run"]);
    place.eventually("the daemon listens", || Takes::of(daemon.pid()).threads == 2);
    (tick, daemon)
}

const LONG_LOOK: &str =
    "targets:\n  - name: app\n    command: until test -e go; do sleep 0.02; done\n    timeout: 1m\n";

#[test]
fn a_daemon_that_waits_for_a_tick_can_be_stopped() {
    let place = Place::with(LONG_LOOK);
    let (tick, daemon) = waiting(&place);
    assert_eq!(daemon.stop().code(), Some(0), "{}", place.story());
    place.write("go", "");
    let said = Said::new(tick.wait_with_output().expect("a child can be waited for"));
    assert_eq!((said.code, place.events("started").len()), (Some(0), 0), "{said:?}\n{}", place.story());
}

/// Once, however often it was asked to meanwhile.
#[test]
fn a_daemon_that_waits_for_a_tick_reads_the_configuration_again_when_it_is_at_work() {
    let place = Place::with(LONG_LOOK);
    let (tick, daemon) = waiting(&place);
    place.configure(&format!("{LONG_LOOK}  - {{name: new, command: 'true'}}\n"));
    for _ in 0..20 {
        daemon.signal(Signal::HUP);
        thread::sleep(Duration::from_millis(20));
    }
    place.write("go", "");
    assert_eq!(Said::new(tick.wait_with_output().expect("a child can be waited for")).code, Some(0));
    place.eventually("it was read", || !place.events("reloaded").is_empty());
    place.eventually("the new target is looked at", || place.target("new")["state"] == "healthy");
    assert_eq!(daemon.stop().code(), Some(0), "{}", place.story());
    assert_eq!(place.events("reloaded").len(), 1, "{}", place.story());
}

#[test]
fn told_to_stop_it_finishes_the_command_and_starts_no_other() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::with(LONG_RESTART);
        let mut daemon = place.daemon(&["run"]);
        place.eventually("the command runs", || place.path("running").exists());
        daemon.signal(signal);
        place.told("signal to stop: ending when the running restart command has finished");
        place.demand(daemon.child.try_wait().expect("a child can be asked").is_none(), "it does not wait");
        place.write("go", "");
        let status = daemon.child.wait().expect("a child can be waited for");
        assert_eq!(status.code(), Some(0), "{}", place.story());
        // The second command of the ladder is another one, though the first has failed.
        assert_eq!(place.lines("done"), ["done"], "{}", place.story());
        let done = &place.events("restart_done")[0];
        assert_eq!((&done["outcome"], &done["code"]), (&"exited".into(), &3.into()), "{}", place.story());
        assert_eq!(place.events("stopped").len(), 1, "{}", place.story());
    }
}

#[test]
fn told_twice_it_ends_at_once_and_leaves_the_command_alone() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let place = Place::with(LONG_RESTART);
        let mut daemon = place.daemon(&["run"]);
        place.eventually("the command runs", || place.path("running").exists());
        daemon.signal(first);
        place.told("signal to stop: ending when the running restart command has finished");
        daemon.signal(second);
        let status = daemon.child.wait().expect("a child can be waited for");
        assert_eq!(status.code(), Some(0), "{}", place.story());
        place.write("go", "");
        place.eventually("the command ends in its own time", || !place.lines("done").is_empty());
    }
}

#[test]
fn a_bad_file_changes_nothing_and_is_told() {
    let place = Place::with(APP);
    place.write("well", "");
    let daemon = place.daemon(&["run"]);
    place.eventually("it is healthy", || place.target("app")["state"] == "healthy");
    let good = place.read("watchdog.yaml");
    let refused = |count| {
        daemon.signal(Signal::HUP);
        place.eventually("it is told", || place.events("reload_failed").len() == count);
        still_repairs(&place);
    };
    place.write("watchdog.yaml", &good.replace("interval", "intervall"));
    refused(1);
    let detail = place.events("reload_failed")[0]["detail"].to_string();
    place.demand(detail.contains("intervall") && detail.contains("watchdog.yaml:5:5"), &detail);
    let consequence =
        format!("nothing changed; the running watchdog (pid {}) keeps its old configuration\n", daemon.pid());
    place.told(&consequence);
    // A person reads this at night: a line of the message is a line of the log.
    place.demand(place.log().contains("did you mean `interval`?") && !place.log().contains("\\n"), "not to be read");

    place.write("watchdog.yaml", &good.replace("state_dir: state", "state_dir: elsewhere"));
    refused(2);
    fs::remove_file(place.path("watchdog.yaml")).expect("a file");
    refused(3);

    place.write("watchdog.yaml", &good);
    daemon.signal(Signal::HUP);
    place.eventually("a good one is taken", || place.events("reloaded").len() == 1);
    still_repairs(&place);
}

/// A configuration with `app`, which no command makes well, and others.
fn hopeless(others: &str) -> String {
    format!(
        "targets:\n  - {{name: app, command: test -e well, interval: 100ms, failure_threshold: 1, start_period: 0s, \
         restart: echo $WATCHDOG_ATTEMPT >> restarts, cooldown: 1h, max_cooldown: 1h}}\n{others}"
    )
}

#[test]
fn a_reload_keeps_what_is_known_of_a_target() {
    let other = "  - {name: other, file: {path: watchdog.yaml, max_age: 1d}, interval: 100ms}\n";
    let place = Place::with(&hopeless(other));
    place.write("well", "");
    let daemon = place.daemon(&["run"]);
    let waits = || place.target("app")["waiting"]["why"] == "cooldown";
    let reload = |text: &str| {
        let before = place.events("reloaded").len();
        place.configure(text);
        daemon.signal(Signal::HUP);
        place.eventually("it is read again", || place.events("reloaded").len() > before);
    };
    for name in ["app", "other"] {
        place.eventually("both are healthy", || place.target(name)["state"] == "healthy");
    }
    fs::remove_file(place.path("well")).expect("a file");
    place.eventually("one attempt was made, and no other", waits);

    reload(&hopeless(&other.replace("100ms", "200ms")));
    assert_eq!(place.target("app")["state"], "down", "{}", place.story());
    let (since, reloaded) = (place.target("other")["since"].clone(), place.events("reloaded")[0]["at"].clone());
    place.demand(since.as_str() < reloaded.as_str(), &format!("since {since}, though it was read again at {reloaded}"));

    // Removed and brought back, its attempts count still, and the incident is the same.
    let incident = place.target("app")["incident"].clone();
    reload(&format!("targets:\n{other}"));
    assert_eq!(place.target("app"), Value::Null, "{}", place.story());
    reload(&hopeless(other));
    place.eventually("it waits as before", waits);
    let app = place.target("app");
    assert_eq!((&app["attempts_in_window"], &app["incident"]), (&1.into(), &incident), "{}", place.story());
    assert_eq!(place.lines("restarts"), ["1"], "{}", place.story());
    assert_eq!(place.events("down").len(), 1, "{}", place.story());
}

#[test]
fn a_command_that_runs_keeps_its_limits_over_a_reload() {
    let place = Place::with(LONG_RESTART);
    let daemon = place.daemon(&["run"]);
    let reload = |text: &str, count| {
        place.configure(text);
        daemon.signal(Signal::HUP);
        place.eventually("it is read again", || place.events("reloaded").len() == count);
    };
    place.eventually("the command runs", || place.path("running").exists());
    let short = "targets:\n  - {name: app, command: test -e well, interval: 100ms, failure_threshold: 1, \
                 restart: {run: 'true', timeout: 100ms}}\n";
    reload(short, 1);
    // Not even its target has to be there any more.
    reload("targets:\n  - {name: other, file: {path: watchdog.yaml, max_age: 1d}, interval: 100ms}\n", 2);
    let began = Instant::now();
    place.eventually("its new limit would be over", || began.elapsed() > Duration::from_millis(500));
    place.demand(place.events("restart_done").is_empty(), "it was ended");
    place.write("go", "");
    place.eventually("it ends by itself", || !place.events("restart_done").is_empty());
    let done = &place.events("restart_done")[0];
    assert_eq!((&done["outcome"], &done["code"]), (&"exited".into(), &3.into()), "{}", place.story());
}

/// Without a change the state is written once a minute, so three times in less are its answers to the signal. Each time
/// to a file of its own, which tells them apart where two were written in one millisecond with the same text.
/// Rule 15: what runs is brought to its end, and no other command is begun under a configuration that forbids it.
#[cfg(feature = "full-tests")]
#[test]
fn a_reload_in_the_middle_of_an_attempt_forbids_the_next_command() {
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
        let place = Place::with(&target(&ladder));
        place.write("well", "");
        let daemon = place.daemon(&["run"]);
        place.eventually("it is well", || place.target("a")["state"] == "healthy");
        fs::remove_file(place.path("well")).expect("a file");
        place.eventually("the first command runs", || place.path("first").exists());
        place.configure(&text);
        daemon.signal(Signal::HUP);
        place.eventually("it was read", || place.events("reloaded").len() == 1);
        place.write("go", "");
        place.eventually("the first command ends", || place.events("restart_done").len() == 1);
        // What a further rung would wait for: 5 s in which it may prove healthy after all.
        let began = Instant::now();
        place.eventually("time passes", || began.elapsed() > Duration::from_secs(6));
        place.demand(!place.path("second").exists(), "no further command is begun");
        assert_eq!(place.events("restart").len(), 1, "{}", place.story());
        assert!(daemon.stop().success());
    }
}

#[test]
fn sigusr1_writes_the_state_now() {
    let place = Place::with("targets:\n  - {name: app, file: {path: watchdog.yaml, max_age: 1d}}\n");
    let written = || {
        let state = fs::metadata(place.path("state/state.json")).expect("it is there");
        (state.ino(), place.read("state/state.json"))
    };
    let daemon = place.daemon(&["run"]);
    let began = Instant::now();
    for _ in 0..3 {
        let before = written();
        daemon.signal(Signal::USR1);
        place.eventually("it is written", || written() != before);
    }
    place.demand(began.elapsed() < Duration::from_secs(55), "it was not the signal");
}

/// The terminal is script(1)'s, and goes with it. SIGHUP then reaches the program, `nohup` or not.
#[cfg(feature = "full-tests")]
#[test]
fn a_terminal_that_hangs_up_does_not_end_it() {
    for line in ["exec nohup \"$WATCHDOG\" run", "nohup \"$WATCHDOG\" run & sleep 600", "exec \"$WATCHDOG\" run"] {
        let place = Place::with(APP);
        place.write("well", "");
        let mut script = shell(&place, "exec script -qfc \"$LINE\" typescript");
        script.env("LINE", line).env("WATCHDOG", env!("CARGO_BIN_EXE_watchdog")).stdout(Stdio::null());
        let mut script = script.spawn().expect(NEEDED);
        place.eventually("it is healthy", || place.target("app")["state"] == "healthy");
        let daemon = place.holder().expect("it is at work");
        script.kill().expect("a child can be killed");
        script.wait().expect("a child can be waited for");
        // Whatever the hang-up was to it, it has time to die of it.
        for _ in 0..3 {
            still_repairs(&place);
        }
        assert_eq!(place.holder(), Some(daemon), "{line}\n{}", place.story());
        assert_eq!(place.run(&["stop"]).code, Some(0), "{line}\n{}", place.story());
    }
}

/// Streams that are not there, that take nothing, and that nobody reads any more.
#[test]
fn closed_and_dead_streams_do_not_end_it() {
    for way in ["exec \"$0\" run -v <&- >&- 2>&-", "exec \"$0\" run -v >/dev/full 2>&1", "\"$0\" run -v 2>&1 | true"] {
        let place = Place::with(APP);
        place.write("well", "");
        let mut shell = shell(&place, way).spawn().expect("a shell");
        place.eventually("it is healthy", || place.target("app")["state"] == "healthy");
        still_repairs(&place);
        assert_eq!(place.run(&["stop"]).code, Some(0), "{way}\n{}", place.story());
        assert_eq!(shell.wait().expect("a child can be waited for").code(), Some(0), "{way}\n{}", place.story());
    }
}

#[test]
fn a_tick_whose_news_nobody_takes_makes_its_work_all_the_same() {
    for way in ["\"$0\" --once >&- 2>&-", "\"$0\" --once >/dev/full", "{ \"$0\" --once; echo $? > code; } | true"] {
        let place = Place::with("targets:\n  - {name: app, command: exit 1, failure_threshold: 1}\n");
        let output = shell(&place, &format!("{way}; test -e code || echo $? > code")).output().expect("a shell");
        place.eventually("it ends", || !place.read("code").is_empty());
        assert_eq!(place.read("code").trim(), "1", "{way}: {:?}\n{}", Said::new(output), place.story());
        assert_eq!(place.events("down").len(), 1, "{way}\n{}", place.story());
    }
}

#[test]
fn a_log_that_cannot_be_written_does_not_stop_the_work() {
    let place = Place::with(&format!("log: {{file: logs/watchdog.log}}\n{APP}"));
    place.write("well", "");
    place.write("logs", "a file where the folder should be");
    let _daemon = place.daemon(&["run"]);
    place.eventually("it is healthy", || place.target("app")["state"] == "healthy");
    still_repairs(&place);
    fs::remove_file(place.path("logs")).expect("a file");
    still_repairs(&place);
    place.eventually("it is logged again", || place.read("logs/watchdog.log").contains("lost here"));
    fs::remove_dir_all(place.path("logs")).expect("a folder");
    still_repairs(&place);
    place.eventually("and again", || place.read("logs/watchdog.log").contains("app healthy"));
}

#[test]
fn stopped_for_a_moment_it_goes_on() {
    let place = Place::with(APP);
    place.write("well", "");
    let daemon = place.daemon(&["run"]);
    place.eventually("it is healthy", || place.target("app")["state"] == "healthy");
    daemon.signal(Signal::STOP);
    place.eventually("it stands still", || doing(daemon.pid()) == Some('T'));
    daemon.signal(Signal::CONT);
    still_repairs(&place);
    assert!(is_alive(daemon.pid()), "{}", place.story());
}

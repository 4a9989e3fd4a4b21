//! `watchdog drill`: the process of a healthy target is stopped, found and repaired; and whatever happens meanwhile, it
//! does not stay stopped.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::fixture::{APP_NAME, Fixture};
use crate::sandbox::{CommandOutput, MISSING_PROGRAM, env_count, is_alive, process_state, send_signal};

/// So many failures take minutes: a drill with this threshold does not end by itself in a test.
const NEVER: &str = ", failure_threshold: 100";
const DRILL: [&str; 3] = ["drill", APP_NAME, "--yes"];

#[track_caller]
fn check(fixture: &Fixture, output: &CommandOutput, code: i32, parts: &[&str]) {
    fixture.sandbox.assert(output.code == Some(code), &format!("exit code {code}: {output:?}"));
    let text = output.out.clone() + &output.err;
    for part in parts {
        fixture.sandbox.assert(text.contains(part), &format!("`{part}` is printed: {output:?}"));
    }
}

/// Begins a drill and waits until the process is stopped; returns the command and the process.
#[track_caller]
fn begin(fixture: &Fixture) -> (Child, i32) {
    let pid = fixture.wait_until_healthy();
    wait_until_healthy_again(fixture);
    let command = fixture.sandbox.spawn(&DRILL);
    fixture.eventually("the process is stopped", || process_state(pid) == Some('T'));
    (command, pid)
}

#[track_caller]
fn assert_continued(fixture: &Fixture, pid: i32) {
    fixture.eventually("the process continues", || process_state(pid).is_some_and(|state| state != 'T'));
    fixture.eventually("it answers", || fixture.pid() == Some(pid));
}

/// A probe that ran at the end of a drill says nothing, and the next one does.
#[track_caller]
fn wait_until_healthy_again(fixture: &Fixture) {
    fixture.wait_for_probes(2);
    fixture.eventually("it is healthy", || {
        let target = fixture.sandbox.target(APP_NAME);
        target["state"] == "healthy" && target["last_probe"]["verdict"] == "healthy"
    });
}

/// The command may show the end of a drill before its events are in their file.
#[track_caller]
fn wait_for_outcome(fixture: &Fixture, outcome: &str) {
    fixture.eventually(&format!("the drill ends as {outcome}"), || {
        fixture.sandbox.events("drill_ended").last().is_some_and(|event| event["outcome"] == outcome)
    });
}

#[test]
fn a_drill_is_found_repaired_told_and_counted_as_a_drill() {
    let fixture = Fixture::saved("");
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(""));
    let text = fixture.sandbox.read("watchdog.yaml") + "notify: [{command: cat >> messages}]\n";
    fixture.sandbox.write("watchdog.yaml", &text);
    assert_eq!(fixture.sandbox.run(&["reload"]).code, Some(0), "{}", fixture.sandbox.dump());
    let none = "none so far, so the repair was never tried: watchdog drill sav-backend";
    check(&fixture, &fixture.sandbox.run(&["check"]), 0, &[none]);
    let before = fixture.wait_until_healthy();
    let output = fixture.sandbox.run(&DRILL);
    let stopped = format!("   0 s  stopped   pid {before} of {APP_NAME} (SIGSTOP)\n");
    let steps = [
        &stopped,
        " s  failing   1 of 3 failures: ",
        " s  failing   3 of 3 failures: ",
        " s  down      3 failures in a row\n",
        " s  restart   1: pm2 restart sav-backend\n",
        " s  healthy   200 in ",
        "\nFound in ",
        " later. The repair of sav-backend works",
    ];
    check(&fixture, &output, 0, &steps);
    let after = fixture.wait_for_replacement(before);
    fixture.eventually("the stopped process is gone", || !is_alive(before));
    wait_for_outcome(&fixture, "healed");
    // Each of its events names it, and it is an attempt like any other for the limits.
    for kind in ["failing", "down", "restart", "up"] {
        let events = fixture.sandbox.events(kind);
        let is_marked = events.len() == 1 && events[0]["by"] == "drill";
        fixture.sandbox.assert(is_marked, &format!("one `{kind}` of the drill: {events:?}"));
    }
    assert_eq!(fixture.sandbox.events("drill_began")[0]["pids"], serde_json::json!([before]));
    let target = fixture.sandbox.target(APP_NAME);
    assert_eq!((&target["attempts_in_window"], &target["state"]), (&1.into(), &"healthy".into()), "{target}");
    assert_eq!((&target["uptime_24h"], &target["drill"]), (&1.0.into(), &Value::Null), "{target}");
    fixture.sandbox.wait_for_log("drill: ended: found in ");
    check(&fixture, &fixture.sandbox.run(&["check"]), 0, &["  drill       last drill ", ": found in "]);
    let report = fixture.sandbox.run(&["report"]);
    check(&fixture, &report, 0, &["no incident", "  drills     1 drill: found in ", " later"]);
    let metrics: Value = serde_json::from_str(&fixture.sandbox.run(&["report", "--json"]).out).expect("JSON");
    assert_eq!((&metrics["targets"][0]["drills"], &metrics["targets"][0]["incidents"]), (&1.into(), &0.into()));
    fixture.eventually("the incident is written", || {
        fixture.sandbox.run(&["incident", "last"]).out.contains("Helped   yes")
    });
    let incident = fixture.sandbox.run(&["incident", "last"]);
    check(&fixture, &incident, 0, &["sav-backend (a drill), ", "Again?   a drill, which counts in no statistics"]);
    check(&fixture, &fixture.sandbox.run(&["incident"]), 0, &["sav-backend (drill)"]);
    // A real failure then is told as the first one.
    fixture.wait_until_known(after);
    fixture.freeze("/block");
    fixture.eventually("the message is sent", || fixture.sandbox.read("messages").contains("[healed]"));
    let messages = fixture.sandbox.lines("messages");
    fixture.sandbox.assert(messages.len() == 1, &format!("one message, and none of the drill: {messages:?}"));
    fixture.sandbox.assert(!messages[0].contains("2nd time"), &messages[0]);
}

#[test]
fn all_workers_of_a_cluster_are_stopped_and_the_daemon_is_not() {
    let fixture = Fixture::unsaved("exec_mode: 'cluster', instances: 2");
    let daemon = fixture.daemon_pid();
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(""));
    check(&fixture, &fixture.sandbox.run(&DRILL), 0, &["   0 s  stopped   pids ", "\nFound in "]);
    assert_eq!(fixture.sandbox.events("drill_began")[0]["pids"].as_array().map(Vec::len), Some(2));
    assert_eq!(fixture.daemon_pid(), daemon, "{}", fixture.sandbox.dump());
}

#[test]
fn ctrl_c_and_a_closed_terminal_continue_the_process() {
    let fixture = Fixture::unsaved("");
    let _watchdog = fixture.start_watchdog(&(fixture.target_keys("") + NEVER));
    for signal in [Signal::INT, Signal::HUP] {
        let (command, pid) = begin(&fixture);
        let is_shown = || fixture.sandbox.run(&["status"]).out.contains("a drill: its process was stopped at ");
        fixture.eventually("status names the drill", is_shown);
        fixture.sandbox.assert(fixture.sandbox.target(APP_NAME)["drill"].is_string(), "its JSON does too");
        send_signal(i32::try_from(command.id()).expect("a pid"), signal);
        let output = CommandOutput::new(command.wait_with_output().expect("it ends"));
        check(&fixture, &output, 1, &["Cut short: cancelled by the operator. Its process was continued"]);
        assert_continued(&fixture, pid);
    }
    fixture.sandbox.assert(fixture.sandbox.events("restart").is_empty(), "nothing was restarted");
    assert_eq!(fixture.sandbox.target(APP_NAME)["uptime_24h"], 1.0, "{}", fixture.sandbox.dump());
}

#[test]
fn without_its_command_a_drill_goes_on_to_its_end() {
    let fixture = Fixture::unsaved("");
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(""));
    let (mut command, pid) = begin(&fixture);
    command.kill().expect("it runs");
    command.wait().expect("a child can be waited for");
    fixture.wait_for_replacement(pid);
    wait_for_outcome(&fixture, "healed");
}

#[test]
fn a_watchdog_that_is_killed_or_stopped_leaves_no_process_stopped() {
    let fixture = Fixture::unsaved("");
    let keys = fixture.target_keys("") + NEVER;
    // The command continues the process, and the next watchdog closes the drill.
    let watchdog = fixture.start_watchdog(&keys);
    let (command, pid) = begin(&fixture);
    watchdog.kill();
    let output = CommandOutput::new(command.wait_with_output().expect("it ends"));
    check(&fixture, &output, 1, &["the watchdog has ended meanwhile", &format!("pid {pid} was continued")]);
    assert_continued(&fixture, pid);
    let watchdog = fixture.start_watchdog(&keys);
    assert_eq!(fixture.sandbox.events("drill_ended").last().map(|event| event["why"].clone()), Some("lost".into()));
    // Both are killed: the next watchdog continues the process.
    let (mut command, pid) = begin(&fixture);
    command.kill().expect("it runs");
    watchdog.kill();
    command.wait().expect("a child can be waited for");
    assert_eq!(process_state(pid), Some('T'), "nobody can have continued it yet");
    let watchdog = fixture.start_watchdog(&keys);
    assert_continued(&fixture, pid);
    // Stopped in the ordinary way.
    let (command, pid) = begin(&fixture);
    assert!(watchdog.stop().success(), "{}", fixture.sandbox.dump());
    assert_continued(&fixture, pid);
    let output = CommandOutput::new(command.wait_with_output().expect("it ends"));
    check(&fixture, &output, 1, &["Cut short: the watchdog was stopped"]);
    // Killed, and a tick follows.
    let watchdog = fixture.start_watchdog(&keys);
    let (mut command, pid) = begin(&fixture);
    command.kill().expect("it runs");
    command.wait().expect("a child can be waited for");
    watchdog.kill();
    fixture.sandbox.run(&["--once"]);
    assert_continued(&fixture, pid);
    fixture.sandbox.assert(fixture.sandbox.events("restart").is_empty(), "nothing was restarted");
}

#[test]
fn no_kill_at_any_moment_leaves_a_process_stopped() {
    let fixture = Fixture::unsaved("");
    let limits = ", interval: 100ms, timeout: 300ms, failure_threshold: 2, cooldown: 0s, max_restarts: 100";
    let keys = fixture.target_keys("") + limits;
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let mut dice = fastrand::Rng::with_seed(seed);
    for round in 0..env_count("KILLS", 25).div_ceil(4) {
        let watchdog = fixture.start_watchdog(&keys);
        wait_until_healthy_again(&fixture);
        let mut command = fixture.sandbox.spawn(&DRILL);
        // Up to 2.5 s: from before the order is read to after the repair.
        thread::sleep(Duration::from_millis(dice.u64(0..=50).pow(2)));
        if dice.bool() {
            let _ = command.kill(); // it may have ended
            watchdog.kill();
        } else {
            watchdog.kill();
            let _ = command.kill(); // as above
        }
        command.wait().expect("a child can be waited for");
        let _watchdog = fixture.sandbox.start_daemon(&["run"]);
        fixture.eventually(&format!("no process is stopped in round {round} of SEED={seed}"), || {
            let is_stopped = |pid| process_state(pid) == Some('T');
            !fixture.all_processes().into_iter().any(is_stopped) && fixture.pid().is_some()
        });
        fixture.eventually("its drill is over", || {
            fixture.sandbox.events("drill_began").len() == fixture.sandbox.events("drill_ended").len()
        });
    }
}

#[test]
fn a_reload_and_a_pause_continue_the_process() {
    let fixture = Fixture::unsaved("");
    let _watchdog = fixture.start_watchdog(&(fixture.target_keys("") + NEVER));
    let (command, pid) = begin(&fixture);
    assert_eq!(fixture.sandbox.run(&["pause", APP_NAME, "--for", "1h"]).code, Some(0));
    assert_continued(&fixture, pid);
    let output = CommandOutput::new(command.wait_with_output().expect("it ends"));
    check(&fixture, &output, 1, &["Cut short: the operator paused it"]);
    check(&fixture, &fixture.sandbox.run(&DRILL), 1, &["is not drilled before ", "paused by the operator"]);
    assert_eq!(fixture.sandbox.run(&["resume"]).code, Some(0));
    let (command, pid) = begin(&fixture);
    let without = "targets: [{name: other, file: {path: watchdog.yaml, max_age: 1d}}]\n";
    fixture.sandbox.configure(without);
    assert_eq!(fixture.sandbox.run(&["reload"]).code, Some(0), "{}", fixture.sandbox.dump());
    assert_continued(&fixture, pid);
    let output = CommandOutput::new(command.wait_with_output().expect("it ends"));
    check(&fixture, &output, 1, &["Cut short: the configuration was read again"]);
}

#[test]
fn a_repair_that_does_not_work_is_said_and_the_process_continues() {
    let fixture = Fixture::unsaved("");
    let keys = fixture.target_keys("") + ", start_period: 500ms, restart: [exit 3, 'true']";
    let _watchdog = fixture.start_watchdog(&keys);
    let pid = fixture.wait_until_healthy();
    let output = fixture.sandbox.run(&DRILL);
    check(&fixture, &output, 1, &["the restart command exited 3 after ", "\nThe repair did not work: ", " continued"]);
    assert_continued(&fixture, pid);
    wait_for_outcome(&fixture, "not_healed");
    fixture.eventually("it is healthy", || fixture.sandbox.target(APP_NAME)["state"] == "healthy");
    fixture.sandbox.assert(fixture.sandbox.events("up").is_empty(), "the drill's incident ended with the drill");
    check(&fixture, &fixture.sandbox.run(&["report"]), 0, &["1 drill: the repair did not work"]);
    // A condition that forbids the restart is shown as it is.
    let forbidden = fixture.target_keys("") + ", only_if: 'false'";
    fixture.configure(&forbidden);
    assert_eq!(fixture.sandbox.run(&["reload"]).code, Some(0), "{}", fixture.sandbox.dump());
    fixture.eventually("its cooldown is over", || fixture.sandbox.run(&DRILL).out.contains("only_if"));
    assert_continued(&fixture, pid);
}

#[test]
fn on_a_terminal_it_asks_first() {
    let fixture = Fixture::unsaved("");
    let keys = fixture.target_keys("") + "}\n  - {name: worker, tcp: 'localhost:1', depends_on: [sav-backend]";
    let _watchdog = fixture.start_watchdog(&keys);
    let answer = |answer: &str| {
        let mut script = Command::new("script");
        let program = concat!(env!("CARGO_BIN_EXE_watchdog"), " drill sav-backend");
        script.args(["-qec", program, "typescript"]).current_dir(fixture.sandbox.home());
        script.env("HOME", fixture.sandbox.home()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().expect(MISSING_PROGRAM);
        writeln!(child.stdin.take().expect("a pipe"), "{answer}").expect("it reads");
        CommandOutput::new(child.wait_with_output().expect("it ends"))
    };
    let questions = [
        "The process sav-backend of PM2 will be stopped (SIGSTOP).",
        "sav-backend will not answer for up to 33 s if the repair works, and for ",
        "It counts as one of 10 restarts in 1 h. No message is sent.",
        "What depends on it may go down for real meanwhile: worker.",
        "Stop it now? [y/N]",
    ];
    for no in ["n", "", "yep"] {
        check(&fixture, &answer(no), 1, &questions);
    }
    fixture.sandbox.assert(fixture.sandbox.events("drill_began").is_empty(), "no drill began");
    check(&fixture, &answer("y"), 0, &["Stop it now? [y/N]", "Found in "]);
}

#[test]
fn a_wrapper_whose_child_answers_is_named() {
    let fixture = Fixture::new("");
    let wrapper = "trap 'kill $!; exit' INT TERM\nnode backend.js &\nwait\n";
    fixture.sandbox.write("app/wrapper.sh", wrapper);
    let cwd = fixture.sandbox.path("app").display().to_string();
    fixture.write_ecosystem(&format!(
        "{{name: '{APP_NAME}', script: 'wrapper.sh', interpreter: 'sh', cwd: '{cwd}', env: {{PORT: PORT_HERE}}}}"
    ));
    fixture.start();
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(""));
    let output = fixture.sandbox.run(&DRILL);
    check(&fixture, &output, 1, &["It still answered: what answers is another process, as behind a wrapper"]);
    fixture.eventually("no process is stopped", || {
        fixture.all_processes().into_iter().all(|pid| process_state(pid) != Some('T'))
    });
    fixture.assert_untouched();
}

#[test]
fn refusals_name_the_reason_and_stop_nothing() {
    let fixture = Fixture::unsaved("");
    let pid = fixture.wait_until_healthy();
    let (keys, pm2) = (fixture.target_keys(""), fixture.pm2_key(""));
    fixture.configure(&keys);
    let refused = |code: i32, parts: &[&str]| {
        let output = fixture.sandbox.run(&DRILL);
        check(&fixture, &output, code, parts);
        check(&fixture, &output, code, &["nothing was stopped"]);
    };
    refused(3, &["a drill needs a watchdog that keeps running", "watchdog start"]);
    // What the configuration alone shows.
    let daemon = fixture.start_watchdog(&keys);
    for (target, code, why) in [
        (pm2.clone(), 2, "with pm2 alone a freeze is not noticed"),
        (format!("{pm2}, tcp: '127.0.0.1:{}'", fixture.port), 2, "a tcp probe does not notice a freeze"),
        (format!("name: {APP_NAME}, http: '{}', restart: 'true'", fixture.url()), 2, "it has no `pm2`"),
        (format!("{keys}, restart_on: [refused]"), 1, "restart_on lacks `timeout`"),
        (format!("{keys}, dry_run: true"), 1, "dry_run is set"),
        ("name: [".into(), 2, "without errors"),
    ] {
        fixture.configure(&target);
        refused(code, &[why]);
    }
    fixture.configure(&keys);
    check(&fixture, &fixture.sandbox.run(&["drill", APP_NAME]), 2, &["without a terminal, add --yes"]);
    check(&fixture, &fixture.sandbox.run(&["drill", "other", "--yes"]), 2, &["no target `other`"]);
    check(&fixture, &fixture.sandbox.run(&["drill"]), 2, &["<TARGET>"]);
    fixture.sandbox.write("other.yaml", &fixture.sandbox.read("watchdog.yaml"));
    let other = fixture.sandbox.run(&["drill", APP_NAME, "--yes", "-c", "other.yaml"]);
    check(&fixture, &other, 5, &["nothing was stopped"]);
    // What only the watchdog knows.
    fixture.configure(&format!("{keys}, max_restarts: 1"));
    assert_eq!(fixture.sandbox.run(&["reload"]).code, Some(0), "{}", fixture.sandbox.dump());
    refused(1, &["is not drilled: no restart would be left for a real failure (max_restarts: 1"]);
    fixture.configure(&keys);
    assert_eq!(fixture.sandbox.run(&["reload"]).code, Some(0), "{}", fixture.sandbox.dump());
    send_signal(pid, Signal::STOP);
    refused(1, &["pid ", ", which PM2 lists: it is stopped by a signal already"]);
    send_signal(pid, Signal::CONT);
    fixture.sandbox.assert(fixture.sandbox.events("drill_began").is_empty(), "no drill began");
    daemon.kill();
    fixture.sandbox.assert(fixture.sandbox.read("state/orders").is_empty(), "no order is left");
}

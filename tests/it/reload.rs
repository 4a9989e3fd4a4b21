//! `reload`: the running watchdog reads its configuration again, and the command reports what came of it.

use std::fs;

use rustix::process::Signal;

use crate::lock_holder::check;
use crate::sandbox::{CommandOutput, Sandbox};

/// A target that is always healthy, and another one with it.
const ONE: &str = "targets:\n  - {name: app, file: {path: watchdog.yaml, max_age: 1d}, interval: 200ms}\n";
const TWO: &str = "targets:\n  - {name: app, file: {path: watchdog.yaml, max_age: 1d}, interval: 200ms}\n  \
    - {name: new, file: {path: watchdog.yaml, max_age: 1d}}\n";

#[test]
fn a_valid_configuration_is_used_when_the_command_returns() {
    let sandbox = Sandbox::new(ONE);
    let daemon = sandbox.start_daemon(&["run"]);
    let (pid, file) = (daemon.pid(), "~/watchdog.yaml");
    let reload = |expected: &str| {
        let output = sandbox.run(&["reload"]);
        let line = format!("the watchdog (pid {pid}) has read {file} again: {expected}\n");
        sandbox.assert(output.code == Some(0) && output.out == line && output.err.is_empty(), &format!("{output:?}"));
    };
    reload("1 target");
    for _ in 0..5 {
        sandbox.configure(TWO);
        // Hints: the file is newer than what the watchdog has read.
        for (args, hint) in
            [(&["status"][..], "Load it: watchdog reload"), (&["check", "--offline"], "watchdog reload")]
        {
            sandbox.assert(sandbox.run(args).out.contains(hint), hint);
        }
        check(&sandbox, &["pause", "new"], 1, &["has not read `new` yet. Load it: watchdog reload"]);
        reload("2 targets (new: new)");
        let output = sandbox.run(&["pause", "new"]);
        sandbox.assert(output.code == Some(0), &format!("the new target is known at once: {output:?}"));
        sandbox.assert(!sandbox.run(&["status"]).out.contains("watchdog reload"), "no hint is left");
        sandbox.configure(ONE);
        reload("1 target (removed: new)");
    }
    assert_eq!(sandbox.events("reloaded").len(), 11, "{}", sandbox.dump());
    let waiting = || fs::read_dir(sandbox.path("state/orders")).expect("it was made").count();
    sandbox.eventually("request and answer are removed", || waiting() == 0);
    // A channel that the new configuration cannot use does not stop the reload, but is named.
    sandbox.configure(&format!("notify: [{{webhook: '${{NO_SUCH}}'}}]\n{ONE}"));
    let output = sandbox.run(&["reload"]);
    let named = output.out.contains("${NO_SUCH}") && output.out.contains("disabled; no messages are sent there\n");
    sandbox.assert(output.code == Some(0) && named, &format!("{output:?}"));
}

#[test]
fn a_refused_configuration_is_reported_as_check_does_and_the_old_one_kept() {
    let sandbox = Sandbox::new(ONE);
    let daemon = sandbox.start_daemon(&["run"]);
    let kept = format!("nothing changed; the running watchdog (pid {}) keeps its old configuration\n", daemon.pid());
    let refused = |text: &str, args: &[&str]| {
        sandbox.write("watchdog.yaml", text);
        let check = sandbox.run(&[&["check", "--offline"], args].concat());
        let errors = check.err.strip_suffix("nothing else was checked\n").expect("the consequence");
        let output = sandbox.run(&[&["reload"], args].concat());
        let good = output.code == Some(2) && output.out.is_empty() && output.err == format!("{errors}{kept}");
        sandbox.assert(good, &format!("{args:?} {text}\n{output:#?}\n{check:#?}"));
    };
    let file = sandbox.path("watchdog.yaml").display().to_string();
    for args in [&[][..], &["-c", "watchdog.yaml"], &["-c", &file]] {
        refused("state_dir: state\ntargets:\n  - {name: app, tcp: 'localhost:1', intervall: 15s}\n", args);
        refused("state_dir: state\ntargets:\n  - {name: app, tcp: 'localhost:0', interval: 15}\n", args);
        refused("state_dir: state\ntargets:\n  - {name: app\n", args);
        refused("state_dir: state\n", args);
    }
    // What only the watchdog's own environment lacks, only the watchdog can know.
    sandbox.write("watchdog.yaml", "state_dir: state\nenv: {A: '${ONLY_HERE}'}\ntargets: [{name: a, tcp: 'h:1'}]\n");
    let mut command = sandbox.command(&["reload"]);
    let output = CommandOutput::new(command.env("ONLY_HERE", "x").output().expect("it runs"));
    let good = output.code == Some(2) && output.err.contains("needs ${ONLY_HERE}, which is not set");
    sandbox.assert(good && output.err.ends_with(&kept), &format!("{output:?}"));
    assert_eq!(sandbox.events("reload_failed").len(), 13, "{}", sandbox.dump());
    assert!(sandbox.events("reloaded").is_empty(), "{}", sandbox.dump());
    assert_eq!(sandbox.target("app")["state"], "healthy", "{}", sandbox.dump());
}

/// Most configurations name no state folder, and each may be broken while it is edited.
#[test]
fn a_broken_file_that_names_no_state_folder_has_the_default_one() {
    let sandbox = Sandbox::new("");
    sandbox.write("watchdog.yaml", ONE);
    let mut daemon = sandbox.spawn_daemon(&["run"]);
    let started = ".local/state/watchdog/events.jsonl";
    sandbox.eventually("the watchdog runs", || sandbox.read(started).contains("started"));
    sandbox.write("watchdog.yaml", &format!("# state_dir: elsewhere\n{ONE}  - {{name: b\n"));
    for args in [&["reload"][..], &["reload", "-c", "watchdog.yaml"]] {
        check(&sandbox, args, 2, &["not valid YAML", "keeps its old configuration"]);
    }
    daemon.child.kill().expect("it runs");
}

#[test]
fn without_a_watchdog_there_is_nothing_to_reload() {
    let sandbox = Sandbox::new(ONE);
    let none = |what: &str| {
        let output = sandbox.run(&["reload"]);
        let good =
            output.code == Some(3) && output.out.starts_with("no watchdog was running for ") && output.err.is_empty();
        sandbox.assert(good, &format!("{what}: {output:?}"));
    };
    none("never started");
    sandbox.assert(!sandbox.path("state").exists(), "nothing is written");
    assert_eq!(sandbox.run(&["--once"]).code, Some(0));
    none("ticks read it each time");
    sandbox.start_daemon(&["run"]).stop();
    none("stopped");
    sandbox.start_daemon(&["run"]).kill();
    none("killed");
    sandbox.configure("nonsense: 1\n");
    none("not valid either");
    // What a killed command has left, a tick removes and a watchdog carries out.
    sandbox.configure(ONE);
    fs::create_dir_all(sandbox.path("state/orders")).expect("made");
    sandbox.write("state/orders/1-4294967295-000.json", "{\"order\":\"reload\"}");
    assert_eq!(sandbox.run(&["--once"]).code, Some(0));
    sandbox.assert(!sandbox.path("state/orders/1-4294967295-000.json").exists(), "the tick has removed it");
}

#[test]
fn another_watchdog_is_named_and_left_alone() {
    let sandbox = Sandbox::new(ONE);
    sandbox.write("b.yaml", &format!("state_dir: state\n{TWO}"));
    let daemon = sandbox.start_daemon(&["run"]);
    let who = format!("a watchdog with pid {} and configuration ", daemon.pid());
    check(
        &sandbox,
        &["reload", "-c", "b.yaml"],
        5,
        &[&who, "name its configuration with -c", "(nothing was reloaded)"],
    );
    check(&sandbox, &["reload", "-c", "gone.yaml"], 2, &["cannot read gone.yaml"]);
    assert!(sandbox.events("reloaded").is_empty() && sandbox.events("reload_failed").is_empty(), "{}", sandbox.dump());
}

/// It answers as soon as it runs again, and one that ends instead is not waited for.
#[test]
fn a_watchdog_that_is_suspended_or_ends_is_waited_for_no_longer_than_needed() {
    let sandbox = Sandbox::new(ONE);
    let daemon = sandbox.start_daemon(&["run"]);
    let ask = || {
        daemon.signal(Signal::STOP);
        let asked = sandbox.spawn(&["reload"]);
        let waits = || fs::read_dir(sandbox.path("state/orders")).is_ok_and(|mut requests| requests.next().is_some());
        sandbox.eventually("the request waits", waits);
        asked
    };
    let ended = |child: std::process::Child| CommandOutput::new(child.wait_with_output().expect("it ends"));
    let asked = ask();
    daemon.signal(Signal::CONT);
    let output = ended(asked);
    sandbox.assert(output.code == Some(0) && output.out.contains("again: 1 target"), &format!("{output:?}"));
    let is_removed = || fs::read_dir(sandbox.path("state/orders")).expect("a folder").next().is_none();
    sandbox.eventually("the request is removed", is_removed);
    let asked = ask();
    daemon.signal(Signal::KILL);
    let output = ended(asked);
    sandbox.assert(output.code == Some(3) && output.err.contains("has ended"), &format!("{output:?}"));
    sandbox.assert(fs::read_dir(sandbox.path("state/orders")).expect("a folder").count() == 0, "it is withdrawn");
}

#[cfg(feature = "full-tests")]
#[test]
fn a_watchdog_that_never_answers_is_given_up() {
    let sandbox = Sandbox::new(ONE);
    let daemon = sandbox.start_daemon(&["run"]);
    daemon.signal(Signal::STOP);
    let output = sandbox.run(&["reload"]);
    let waits = format!("waiting for the watchdog (pid {}) to answer\n", daemon.pid());
    let good = output.code == Some(4) && output.out == waits && output.err.contains("did not answer within 60 s");
    sandbox.assert(good, &format!("{output:?}"));
    daemon.signal(Signal::CONT);
    sandbox.eventually("it lives", || sandbox.status()["watchdog"]["running"] == true);
    assert!(sandbox.events("reloaded").is_empty(), "a request that was given up is withdrawn\n{}", sandbox.dump());
}

//! State folders with damaged files: every command still answers, and nothing in the files controls a terminal.

use std::fs;

use serde_json::Value;

use crate::mangle::mangled;
use crate::sandbox::{CommandOutput, Sandbox, env_count, files_below};

/// A state folder with every kind of file: a closed and an open incident, the history of both, and a request that was
/// not carried out.
fn full_state_folder() -> Sandbox {
    let sandbox = Sandbox::new(
        "defaults: {interval: 100ms, failure_threshold: 1, start_period: 100ms, cooldown: 100ms, max_cooldown: 100ms}\n\
         page: state/page.html\nmetrics: state/watchdog.prom\ntargets:\n  \
         - {name: ill, file: {path: no, max_age: 1d}, restart: echo in vain, diagnose: ls}\n  \
         - {name: cured, file: {path: up, max_age: 1d}, restart: touch up}\n",
    );
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("one target is up", || !sandbox.events_of("cured", "up").is_empty());
    sandbox.eventually("the other one is restarted without success", || {
        !sandbox.events_of("ill", "restart_done").is_empty()
    });
    assert!(daemon.stop().success());
    let output = sandbox.run(&["pause", "cured"]);
    assert!(output.out.contains("no watchdog is running"), "{output:?}");
    sandbox
}

#[test]
fn every_command_answers_whatever_is_in_the_state_folder() {
    let sandbox = full_state_folder();
    let state = sandbox.path("state");
    let intact = files_below(&state);
    for name in ["state.json", "events.jsonl", "incidents.jsonl", "history.json", "incident.json"] {
        assert!(intact.iter().any(|(path, _)| path.ends_with(name)), "{name} exists\n{}", sandbox.dump());
    }
    assert!(intact.iter().any(|(path, _)| path.starts_with(state.join("orders"))), "{}", sandbox.dump());
    let mut dice = fastrand::Rng::with_seed(7);
    for round in 0..env_count("DAMAGES", 15) {
        fs::remove_dir_all(&state).expect("the state folder exists");
        for (path, bytes) in &intact {
            fs::create_dir_all(path.parent().expect("folder access")).expect("folder access");
            let bytes = if dice.bool() { mangled(bytes, &mut dice) } else { bytes.clone() };
            fs::write(path, bytes).expect("file access");
        }
        for command_line in
            ["status", "status --json", "report", "report --json", "incident last", "incident", "--once", "status"]
        {
            let args: Vec<&str> = command_line.split(' ').collect();
            let output = sandbox.command_through(&["timeout", "60"], &args).output().expect("timeout of coreutils");
            let output = CommandOutput::new(output);
            let printed = format!("{}{}", output.out, output.err);
            assert!(
                matches!(output.code, Some(0..=4)),
                "round {round}, {command_line}: {output:?}\n{}",
                sandbox.dump()
            );
            let is_bug = printed.contains("panicked") || sandbox.log().contains("a bug in the watchdog");
            assert!(!is_bug, "round {round}, {command_line}: {output:?}\n{}", sandbox.dump());
            assert!(
                !printed.contains(|c: char| c.is_control() && c != '\n'),
                "round {round}, {command_line}: {output:?}"
            );
            assert!(command_line == "--once" || !printed.is_empty(), "round {round}, {command_line}: no output");
            let is_json = command_line.ends_with("--json") && output.code != Some(2) && !output.out.is_empty();
            assert!(
                !is_json || serde_json::from_str::<Value>(&output.out).is_ok(),
                "round {round}, {command_line}: {output:?}"
            );
        }
    }
}

#[test]
fn a_request_with_an_absurd_time_is_applied_or_dropped() {
    let sandbox = Sandbox::new("targets:\n  - {name: app, file: {path: watchdog.yaml, max_age: 1d}}\n");
    assert_eq!(sandbox.run(&["--once"]).code, Some(0));
    for time in [i64::MIN, -1, 0, i64::MAX] {
        assert_eq!(sandbox.run(&["pause"]).code, Some(0));
        for (path, bytes) in files_below(&sandbox.path("state/orders")) {
            let request: Value = serde_json::from_slice(&bytes).expect("a request is JSON");
            let mut request = request.as_object().expect("a JSON object").clone();
            let requested_at =
                request.get_mut("given").and_then(Value::as_object_mut).expect("the time of the request");
            for clock in ["boot", "wall"] {
                assert!(
                    requested_at.insert(clock.into(), time.into()).is_some_and(|at| at.is_i64()),
                    "{requested_at:?}"
                );
            }
            // A negative length would be rejected as damaged.
            let length = time.unsigned_abs();
            assert!(request.insert("length_ms".into(), length.into()).is_some_and(|ms| ms.is_u64()), "{request:?}");
            fs::write(path, serde_json::to_vec(&request).expect("valid JSON")).expect("file access");
        }
        for args in [&["status"][..], &["--once"], &["status"]] {
            let output = sandbox.run(args);
            sandbox.assert(matches!(output.code, Some(0 | 3)) && output.err.is_empty(), &format!("{time}: {output:?}"));
        }
        sandbox.assert(!sandbox.log().contains("a bug in the watchdog"), "no bug is logged");
        sandbox.assert(files_below(&sandbox.path("state/orders")).is_empty(), "the request was removed");
        assert_eq!(sandbox.run(&["resume"]).code, Some(0));
        assert_eq!(sandbox.run(&["--once"]).code, Some(0));
    }
}

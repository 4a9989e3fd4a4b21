//! What is recorded about incidents: their course, their evidence, and the statistics over them.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::faults::{Behaviour, Server};
use crate::sandbox::Sandbox;

const DEFAULTS: &str =
    "defaults: {interval: 200ms, timeout: 500ms, start_period: 2s, cooldown: 1s, max_cooldown: 1s}\n";

fn new_sandbox(target: &str) -> Sandbox {
    Sandbox::new(&format!("{DEFAULTS}targets:\n  - {target}\n"))
}

/// The record that `incident last --json` prints.
fn last(sandbox: &Sandbox) -> Value {
    let output = sandbox.run(&["incident", "last", "--json"]);
    serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn timeline_kinds(record: &Value) -> Vec<&str> {
    record["timeline"].as_array().expect("a list").iter().filter_map(|entry| entry["event"].as_str()).collect()
}

#[track_caller]
fn assert_contains(sandbox: &Sandbox, text: &str, parts: &[&str]) {
    for part in parts {
        sandbox.assert(text.contains(part), &format!("`{part}` is in:\n{text}"));
    }
}

#[test]
fn a_frozen_backend_leaves_a_complete_incident_report() {
    let backend = Server::start(Behaviour::answer("200 OK", "ok"));
    let target =
        format!("{{name: a, http: 'http://127.0.0.1:{}/health', restart: 'echo begun; touch thawed'}}", backend.port());
    let sandbox = new_sandbox(&target);
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || sandbox.target("a")["state"] == "healthy");
    backend.set_behaviour(Behaviour::Silent);
    sandbox.eventually("the target is restarted", || {
        let is_restarted = sandbox.path("thawed").exists();
        if is_restarted {
            backend.set_behaviour(Behaviour::answer("200 OK", "ok"));
        }
        is_restarted
    });
    sandbox.eventually("the target is up", || !sandbox.events("up").is_empty());
    sandbox.eventually("the incident is complete", || {
        let record = last(&sandbox);
        !record["ended"].is_null() && !record["machine"].is_null()
    });
    let output = sandbox.run(&["incident", "last"]);
    assert_contains(
        &sandbox,
        &output.out,
        &[
            "What     timeout; connected in ",
            ", 3 of 3 (connect ",
            ", first byte never)",
            "probe: GET http://127.0.0.1:",
            "machine: load ",
            "  echo begun; touch thawed, exit 0 in ",
            "Helped   yes: 200 in ",
            " has cured 1 of 1 timeout in ",
            "Again?   the first in 30 days",
            "of the 24 h before",
            "restart-1-1.out",
        ],
    );
    let record = last(&sandbox);
    assert_eq!(timeline_kinds(&record), ["failing", "down", "restart", "restart_done", "up"], "{record}");
    assert_eq!((&record["version"], &record["target"]), (&1.into(), &"a".into()));
    let phases = &record["evidence"]["phases"];
    assert!(phases["connect_us"].is_u64() && phases["first_byte_us"].is_null(), "{record}");
    let folder = record["folder"].as_str().expect("a path");
    assert_eq!(fs::read_to_string(format!("{folder}/restart-1-1.out")).expect("the output is saved"), "begun\n");

    let id = record["id"].as_str().expect("a name");
    assert_eq!(sandbox.run(&["incident", id]).out, output.out);
    let list = sandbox.run(&["incident"]);
    assert_contains(&sandbox, &list.out, &[id, "timeout", "cured by echo begun; touch thawed"]);
    let unknown = sandbox.run(&["incident", "1231-2359"]);
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert_contains(&sandbox, &unknown.err, &["no incident `1231-2359` is on record"]);

    let report = sandbox.run(&["report"]);
    assert_contains(
        &sandbox,
        &report.out,
        &["1 incident, ", "cures      echo begun; touch thawed  1 of 1 timeout in "],
    );
    let report: Value =
        serde_json::from_str(&sandbox.run(&["report", "--since", "2d", "--json"]).out).expect("valid JSON");
    let target = &report["targets"][0];
    assert_eq!((&target["name"], &target["incidents"]), (&"a".into(), &1.into()), "{report}");
    assert!(target["uptime"].as_f64().is_some_and(|uptime| uptime > 0.0 && uptime < 1.0), "{report}");
    assert!(target["found_ms"]["worst"].is_u64() && target["healed_ms"]["median"].is_u64(), "{report}");
}

#[test]
fn a_failed_ladder_is_recorded_with_each_command_and_the_backends_answer() {
    let wrong = "HTTP/1.1 503 Busy\r\nSet-Cookie: sid=s3cret\r\nX-Note: the s3cret\r\nContent-Length: 27\r\n\r\n\
                 {\"why\": \"\x1b[2Jpool is s3cret\"}";
    let backend = Server::start(Behaviour::answer("200 OK", "ok"));
    let port = backend.port();
    let sandbox = Sandbox::new(&format!(
        "{DEFAULTS}env: {{TOKEN: '${{TOKEN}}'}}\ntargets:\n  - name: a\n    \
         http: {{url: 'http://127.0.0.1:{port}/', headers: {{X-Token: '${{TOKEN}}'}}}}\n    \
         restart: [exit 3, {{run: sleep 60, timeout: 200ms}}]\n"
    ));
    let mut command = sandbox.command(&["run"]);
    command.env("TOKEN", "s3cret");
    let _daemon = sandbox.start_daemon_from(command);
    sandbox.eventually("the target is healthy", || sandbox.target("a")["state"] == "healthy");
    backend.set_behaviour(Behaviour::raw(wrong));
    sandbox.eventually("both commands were tried", || sandbox.events("restart_done").len() >= 2);
    let incident_text = || sandbox.run(&["incident", "last"]).out;
    sandbox
        .eventually("both are in the incident record", || incident_text().contains("  sleep 60, not finished within "));
    assert_contains(
        &sandbox,
        &incident_text(),
        &[
            "STILL DOWN after ",
            "What     status 503, 3 of 3 (connect ",
            "its answer: 503, {\"why\": \"\\u{1b}[2Jpool is …",
            "  exit 3, exit 3 in ",
            "Helped   not so far, after 1 restart",
        ],
    );
    let record = last(&sandbox);
    let headers = record["evidence"]["headers"].to_string();
    assert!(headers.contains("[\"set-cookie\",\"…\"]") && headers.contains("[\"x-note\",\"the …\"]"), "{headers}");
    let all = sandbox.dump() + &record.to_string();
    assert!(!all.replace(&sandbox.read("watchdog.yaml"), "").contains("s3cret"), "{all}");
}

#[test]
fn diagnose_commands_run_before_the_restart() {
    let target = "{name: a, command: test ! -e sick, restart: 'rm sick', diagnose: [ls, 'echo $WATCHDOG_CLASS >&2']}";
    let sandbox = new_sandbox(target);
    sandbox.write("sick", "");
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is up", || !sandbox.events("up").is_empty());
    let record = last(&sandbox);
    let folder = record["folder"].as_str().expect("a path");
    let saved_output = |name: &str| fs::read_to_string(format!("{folder}/{name}")).unwrap_or_default();
    assert_contains(&sandbox, &saved_output("diagnose-1.out"), &["sick\n", "watchdog.yaml\n"]);
    assert_eq!(saved_output("diagnose-2.out"), "exit\n");
    assert_eq!(record["diagnosed"][0], "ls");
    sandbox.wait_for_log("a diagnose: 2 of 2 commands exited 0, in ");
    let output = sandbox.run(&["incident", "last"]);
    assert_contains(&sandbox, &output.out, &["diagnose-1.out  diagnose-2.out"]);
}

#[cfg(feature = "full-tests")]
#[test]
fn a_diagnose_command_that_hangs_is_killed_and_the_restart_follows() {
    let target = "{name: a, command: test ! -e sick, restart: 'rm sick', diagnose: 'echo $$ > pid; exec sleep 1000'}";
    let sandbox = new_sandbox(target);
    sandbox.write("sick", "");
    // A tick waits for the diagnosis as well.
    let output = sandbox.run(&["--once"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    sandbox.run(&["--once"]);
    let output = sandbox.run(&["--once"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let (down, restart) = (&sandbox.events("down")[0], &sandbox.events("restart")[0]);
    let waited = crate::sandbox::event_time(restart)
        .duration_since(crate::sandbox::event_time(down))
        .expect("the restart comes after it");
    assert!(waited.as_millis() >= 9_900, "{waited:?}");
    let pid: i32 = sandbox.read("pid").trim().parse().expect("a number");
    sandbox.eventually("the process is gone", || !crate::sandbox::is_alive(pid));
}

#[test]
fn an_incident_continues_after_the_watchdog_was_killed() {
    let sandbox = Sandbox::new(&format!(
        "metrics: metrics.prom\n{DEFAULTS}targets:\n  - {{name: a, command: touch probed; test ! -e sick, restart: \
         'true', start_period: 200ms, cooldown: 200ms, max_cooldown: 200ms}}\n"
    ));
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || sandbox.target("a")["state"] == "healthy");
    sandbox.write("sick", "");
    let restarts = || sandbox.events("restart").len();
    sandbox.eventually("the target was restarted three times", || restarts() >= 3);
    sandbox.eventually("the machine's load is recorded", || !last(&sandbox)["machine"].is_null());
    daemon.kill();
    fs::remove_file(sandbox.path("probed")).expect("the file exists");
    let daemon = sandbox.start_daemon(&["run"]);
    let before = restarts();
    sandbox.eventually("restarts continue", || restarts() > before);
    // During the incident and after it, all counters agree with the events.
    daemon.stop();
    let (attempts, record) = (restarts(), last(&sandbox));
    assert_eq!(record["attempts"], attempts, "{record}\n{}", sandbox.dump());
    assert_contains(
        &sandbox,
        &sandbox.run(&["incident", "last"]).out,
        &[&format!("not so far, after {attempts} restarts")],
    );
    assert_contains(
        &sandbox,
        &sandbox.read("metrics.prom"),
        &[&format!("watchdog_restart_attempts_total{{target=\"a\"}} {attempts}\n")],
    );
    fs::remove_file(sandbox.path("sick")).expect("the file exists");
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is up", || !sandbox.events("up").is_empty());
    sandbox.eventually("the incident is closed", || !last(&sandbox)["ended"].is_null());
    let (record, up) = (last(&sandbox), &sandbox.events("up")[0]);
    assert_eq!((&record["attempts"], &up["attempts"]), (&attempts.into(), &attempts.into()), "{record}");
    assert_eq!(record["down_ms"], up["down_ms"], "{record}");
    let line: Value = serde_json::from_str(&sandbox.lines("state/incidents.jsonl")[0]).expect("valid JSON");
    assert_eq!((&line["down_ms"], &line["runs"]["true"]), (&up["down_ms"], &attempts.into()), "{line}");
    sandbox.assert(
        up["down_ms"].as_u64() > Some(0) && !record["last_healthy"].is_null(),
        "the last healthy probe is recorded",
    );
    assert_contains(&sandbox, &sandbox.run(&["incident", "last"]).out, &[", down at most "]);
}

#[test]
fn an_incident_record_missed_by_a_killed_watchdog_is_written_by_the_next_one() {
    let sandbox = new_sandbox("{name: a, command: test ! -e sick}");
    sandbox.write("sick", "");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is down", || !sandbox.events("down").is_empty());
    sandbox.eventually("the machine's load is recorded", || !last(&sandbox)["machine"].is_null());
    let id = last(&sandbox)["id"].as_str().expect("a name").to_owned();
    let path = format!("state/incidents/{id}/incident.json");
    let before = sandbox.read(&path);
    fs::remove_file(sandbox.path("sick")).expect("the file exists");
    sandbox.eventually("the target is up", || !sandbox.events("up").is_empty());
    sandbox.eventually("the closed incident is recorded", || !sandbox.read("state/incidents.jsonl").is_empty());
    daemon.kill();
    // Restores the files as if the watchdog had been killed a moment earlier, before it wrote the incident record.
    sandbox.write(&path, &before);
    fs::remove_file(sandbox.path("state/incidents.jsonl")).expect("the file exists");
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the record is written", || !last(&sandbox)["ended"].is_null());
    assert_eq!(timeline_kinds(&last(&sandbox)), ["failing", "down", "up"], "{}", sandbox.dump());
    assert_eq!(sandbox.lines("state/incidents.jsonl").len(), 1);
}

/// Sixty targets that go down in one minute get a folder each, even if the state was lost in between.
#[test]
fn no_two_incidents_share_a_name() {
    let target = |n: u32| format!("  - {{name: t{n}, file: {{path: well, max_age: 1d}}}}\n");
    let targets: String = (0..60).map(target).collect();
    let sandbox = Sandbox::new(&format!("defaults: {{interval: 500ms, failure_threshold: 1}}\ntargets:\n{targets}"));
    for round in 1..=2 {
        let daemon = sandbox.start_daemon(&["run"]);
        sandbox.eventually("all targets are down", || sandbox.events("down").len() == 60 * round);
        let mut ids: Vec<String> = sandbox.events("down").iter().map(|event| event["incident"].to_string()).collect();
        ids.sort();
        ids.dedup();
        sandbox.assert(ids.len() == 60 * round, &format!("{} names", ids.len()));
        daemon.kill();
        fs::remove_file(sandbox.path("state/state.json")).expect("the state exists");
        // As if it had been killed before it made them.
        fs::remove_dir_all(sandbox.path("state/incidents")).expect("the folders exist");
    }
}

#[test]
fn without_an_incident_record_repairs_continue_and_the_end_is_recorded() {
    let sandbox = new_sandbox("{name: a, command: test ! -e sick, restart: 'rm sick'}");
    fs::create_dir_all(sandbox.path("state")).expect("folder access");
    // A file where the folder of incidents should be.
    sandbox.write("state/incidents", "");
    sandbox.write("sick", "");
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is up", || !sandbox.events("up").is_empty());
    sandbox.wait_for_log("(evidence and command output are not saved)");
    fs::remove_file(sandbox.path("state/incidents")).expect("the file exists");
    sandbox.write("sick", "");
    sandbox.eventually("the target is up again", || sandbox.events("up").len() == 2);
    sandbox.eventually("the closed incident is recorded", || !last(&sandbox)["ended"].is_null());
}

#[test]
fn time_without_a_watchdog_is_reported_as_not_watched() {
    let sandbox = new_sandbox("{name: a, command: 'true'}");
    let output = sandbox.run(&["report"]);
    assert_eq!((output.code, output.out.trim()), (Some(0), "No watchdog has probed anything here yet."));
    assert_eq!(sandbox.run(&["incident"]).out.trim(), "No incidents are on record.");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the uptime is measured", || sandbox.target("a")["uptime_24h"] == 1.0);
    daemon.stop();
    let output = sandbox.run(&["report"]);
    assert_contains(
        &sandbox,
        &output.out,
        &["; not watched ", ", the watchdog was stopped).", "a  up 100 % of the watched time", "no incident"],
    );
    for invalid in ["5m", "1y", "soon"] {
        assert_eq!(sandbox.run(&["report", "--since", invalid]).code, Some(2), "{invalid}");
    }
}

#[test]
fn an_incident_ends_even_if_its_target_was_removed_for_a_while() {
    for restart_watchdog in [false, true] {
        let target = "a, command: test -e well, interval: 100ms, failure_threshold: 2";
        let sandbox = new_sandbox(&format!("{{name: {target}}}"));
        let mut daemon = sandbox.start_daemon(&["run"]);
        sandbox.eventually("the target is down", || !last(&sandbox)["id"].is_null());
        for (target, count) in [("b, command: 'true'", 1), (target, 2)] {
            sandbox.configure(&format!("{DEFAULTS}targets:\n  - {{name: {target}}}\n"));
            daemon.signal(Signal::HUP);
            sandbox.eventually("the configuration is reloaded", || sandbox.events("reloaded").len() == count);
            if restart_watchdog && count == 1 {
                assert!(daemon.stop().success());
                daemon = sandbox.start_daemon(&["run"]);
            }
        }
        sandbox.assert(last(&sandbox)["ended"].is_null(), "the incident stays open");
        sandbox.write("well", "");
        sandbox.eventually("the target is up", || !sandbox.events("up").is_empty());
        sandbox.eventually("the incident is closed", || !last(&sandbox)["ended"].is_null());
        assert_eq!(timeline_kinds(&last(&sandbox)), ["failing", "down", "up"], "{}", sandbox.dump());
    }
}

//! What is known of an incident afterwards: the story, its evidence, and what incidents have in common.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::faults::{Server, Ways};
use crate::place::Place;

/// Quick enough for a test.
const DEFAULTS: &str =
    "defaults: {interval: 200ms, timeout: 500ms, start_period: 2s, cooldown: 1s, max_cooldown: 1s}\n";

fn place(target: &str) -> Place {
    Place::with(&format!("{DEFAULTS}targets:\n  - {target}\n"))
}

/// The incident that `incident last --json` tells of.
fn last(place: &Place) -> Value {
    let said = place.run(&["incident", "last", "--json"]);
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

fn kinds(account: &Value) -> Vec<&str> {
    account["timeline"].as_array().expect("a list").iter().filter_map(|entry| entry["event"].as_str()).collect()
}

#[track_caller]
fn has(place: &Place, text: &str, parts: &[&str]) {
    for part in parts {
        place.demand(text.contains(part), &format!("`{part}` is in:\n{text}"));
    }
}

#[test]
fn a_frozen_backend_leaves_a_story_that_answers_all_questions() {
    let backend = Server::start(Ways::answer("200 OK", "ok"));
    let target =
        format!("{{name: a, http: 'http://127.0.0.1:{}/health', restart: 'echo begun; touch thawed'}}", backend.port());
    let place = place(&target);
    let _daemon = place.daemon(&["run"]);
    place.eventually("it is seen", || place.target("a")["state"] == "healthy");
    backend.turn(Ways::Silent);
    place.eventually("it is restarted", || {
        let is_restarted = place.path("thawed").exists();
        if is_restarted {
            backend.turn(Ways::answer("200 OK", "ok"));
        }
        is_restarted
    });
    place.eventually("it is up", || !place.events("up").is_empty());
    place.eventually("all is written", || {
        let account = last(&place);
        !account["ended"].is_null() && !account["machine"].is_null()
    });
    let said = place.run(&["incident", "last"]);
    has(
        &place,
        &said.out,
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
    let account = last(&place);
    assert_eq!(kinds(&account), ["failing", "down", "restart", "restart_done", "up"], "{account}");
    assert_eq!((&account["version"], &account["target"]), (&1.into(), &"a".into()));
    let phases = &account["evidence"]["phases"];
    assert!(phases["connect_us"].is_u64() && phases["first_byte_us"].is_null(), "{account}");
    let folder = account["folder"].as_str().expect("a path");
    assert_eq!(fs::read_to_string(format!("{folder}/restart-1-1.out")).expect("its output"), "begun\n");

    let id = account["id"].as_str().expect("a name");
    assert_eq!(place.run(&["incident", id]).out, said.out);
    let list = place.run(&["incident"]);
    has(&place, &list.out, &[id, "timeout", "cured by echo begun; touch thawed"]);
    let unknown = place.run(&["incident", "1231-2359"]);
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    has(&place, &unknown.err, &["no incident `1231-2359` is on record"]);

    let report = place.run(&["report"]);
    has(&place, &report.out, &["1 incident, ", "cures      echo begun; touch thawed  1 of 1 timeout in "]);
    let report: Value = serde_json::from_str(&place.run(&["report", "--since", "2d", "--json"]).out).expect("JSON");
    let target = &report["targets"][0];
    assert_eq!((&target["name"], &target["incidents"]), (&"a".into(), &1.into()), "{report}");
    assert!(target["uptime"].as_f64().is_some_and(|uptime| uptime > 0.0 && uptime < 1.0), "{report}");
    assert!(target["found_ms"]["worst"].is_u64() && target["healed_ms"]["median"].is_u64(), "{report}");
}

#[test]
fn a_ladder_that_failed_is_told_with_each_step_and_what_the_answer_was() {
    let wrong = "HTTP/1.1 503 Busy\r\nSet-Cookie: sid=s3cret\r\nX-Note: the s3cret\r\nContent-Length: 27\r\n\r\n\
                 {\"why\": \"\x1b[2Jpool is s3cret\"}";
    let backend = Server::start(Ways::answer("200 OK", "ok"));
    let port = backend.port();
    let place = Place::with(&format!(
        "{DEFAULTS}env: {{TOKEN: '${{TOKEN}}'}}\ntargets:\n  - name: a\n    \
         http: {{url: 'http://127.0.0.1:{port}/', headers: {{X-Token: '${{TOKEN}}'}}}}\n    \
         restart: [exit 3, {{run: sleep 60, timeout: 200ms}}]\n"
    ));
    let mut command = place.command(&["run"]);
    command.env("TOKEN", "s3cret");
    let _daemon = place.daemon_by(command);
    place.eventually("it is seen", || place.target("a")["state"] == "healthy");
    backend.turn(Ways::raw(wrong));
    place.eventually("both were tried", || place.events("restart_done").len() >= 2);
    let story = || place.run(&["incident", "last"]).out;
    place.eventually("both are in the account", || story().contains("  sleep 60, not finished within "));
    has(
        &place,
        &story(),
        &[
            "STILL DOWN after ",
            "What     status 503, 3 of 3 (connect ",
            "its answer: 503, {\"why\": \"\\u{1b}[2Jpool is …",
            "  exit 3, exit 3 in ",
            "Helped   not so far, after 1 restart",
        ],
    );
    let account = last(&place);
    let headers = account["evidence"]["headers"].to_string();
    assert!(headers.contains("[\"set-cookie\",\"…\"]") && headers.contains("[\"x-note\",\"the …\"]"), "{headers}");
    let all = place.story() + &account.to_string();
    assert!(!all.replace(&place.read("watchdog.yaml"), "").contains("s3cret"), "{all}");
}

#[test]
fn what_the_operator_wants_to_know_is_found_out_before_the_restart() {
    let target = "{name: a, command: test ! -e sick, restart: 'rm sick', diagnose: [ls, 'echo $WATCHDOG_CLASS >&2']}";
    let place = place(target);
    place.write("sick", "");
    let _daemon = place.daemon(&["run"]);
    place.eventually("it is cured", || !place.events("up").is_empty());
    let account = last(&place);
    let folder = account["folder"].as_str().expect("a path");
    let output = |name: &str| fs::read_to_string(format!("{folder}/{name}")).unwrap_or_default();
    has(&place, &output("diagnose-1.out"), &["sick\n", "watchdog.yaml\n"]);
    assert_eq!(output("diagnose-2.out"), "exit\n");
    assert_eq!(account["diagnosed"][0], "ls");
    place.told("a diagnose: 2 of 2 commands exited 0, in ");
    let said = place.run(&["incident", "last"]);
    has(&place, &said.out, &["diagnose-1.out  diagnose-2.out"]);
}

#[cfg(feature = "full-tests")]
#[test]
fn what_takes_too_long_to_find_out_is_ended_and_the_restart_made() {
    let target = "{name: a, command: test ! -e sick, restart: 'rm sick', diagnose: 'echo $$ > pid; exec sleep 1000'}";
    let place = place(target);
    place.write("sick", "");
    // A tick stays for it too.
    let said = place.run(&["--once"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    place.run(&["--once"]);
    let said = place.run(&["--once"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let (down, restart) = (&place.events("down")[0], &place.events("restart")[0]);
    let waited = crate::place::at(restart).duration_since(crate::place::at(down)).expect("it comes after it");
    assert!(waited.as_millis() >= 9_900, "{waited:?}");
    let pid: i32 = place.read("pid").trim().parse().expect("a number");
    place.eventually("it is gone", || !crate::place::is_alive(pid));
}

#[test]
fn an_incident_goes_on_through_the_watchdogs_death() {
    let place = Place::with(&format!(
        "metrics: metrics.prom\n{DEFAULTS}targets:\n  - {{name: a, command: touch probed; test ! -e sick, restart: \
         'true', start_period: 200ms, cooldown: 200ms, max_cooldown: 200ms}}\n"
    ));
    let daemon = place.daemon(&["run"]);
    place.eventually("it is seen", || place.target("a")["state"] == "healthy");
    place.write("sick", "");
    let restarts = || place.events("restart").len();
    place.eventually("it is restarted again and again", || restarts() >= 3);
    place.eventually("the machine is known", || !last(&place)["machine"].is_null());
    daemon.kill();
    fs::remove_file(place.path("probed")).expect("it is there");
    let daemon = place.daemon(&["run"]);
    let before = restarts();
    place.eventually("that goes on", || restarts() > before);
    // While it lasts, and after its end, all who count say the same as the events.
    daemon.stop();
    let (made, account) = (restarts(), last(&place));
    assert_eq!(account["attempts"], made, "{account}\n{}", place.story());
    has(&place, &place.run(&["incident", "last"]).out, &[&format!("not so far, after {made} restarts")]);
    has(&place, &place.read("metrics.prom"), &[&format!("watchdog_restart_attempts_total{{target=\"a\"}} {made}\n")]);
    fs::remove_file(place.path("sick")).expect("it is there");
    let _daemon = place.daemon(&["run"]);
    place.eventually("it is up", || !place.events("up").is_empty());
    place.eventually("it is over", || !last(&place)["ended"].is_null());
    let (account, up) = (last(&place), &place.events("up")[0]);
    assert_eq!((&account["attempts"], &up["attempts"]), (&made.into(), &made.into()), "{account}");
    assert_eq!(account["down_ms"], up["down_ms"], "{account}");
    let line: Value = serde_json::from_str(&place.lines("state/incidents.jsonl")[0]).expect("JSON");
    assert_eq!((&line["down_ms"], &line["runs"]["true"]), (&up["down_ms"], &made.into()), "{line}");
    place.demand(up["down_ms"].as_u64() > Some(0) && !account["last_healthy"].is_null(), "it was healthy before");
    has(&place, &place.run(&["incident", "last"]).out, &[", down at most "]);
}

#[test]
fn what_was_saved_but_not_written_into_the_account_is_written_by_the_next_watchdog() {
    let place = place("{name: a, command: test ! -e sick}");
    place.write("sick", "");
    let daemon = place.daemon(&["run"]);
    place.eventually("it is down", || !place.events("down").is_empty());
    place.eventually("the machine is known", || !last(&place)["machine"].is_null());
    let id = last(&place)["id"].as_str().expect("a name").to_owned();
    let path = format!("state/incidents/{id}/incident.json");
    let before = place.read(&path);
    fs::remove_file(place.path("sick")).expect("it is there");
    place.eventually("it is up", || !place.events("up").is_empty());
    place.eventually("that is kept", || !place.read("state/incidents.jsonl").is_empty());
    daemon.kill();
    // As if it had been killed a moment earlier, before the account was written.
    place.write(&path, &before);
    fs::remove_file(place.path("state/incidents.jsonl")).expect("it is there");
    let _daemon = place.daemon(&["run"]);
    place.eventually("it is written", || !last(&place)["ended"].is_null());
    assert_eq!(kinds(&last(&place)), ["failing", "down", "up"], "{}", place.story());
    assert_eq!(place.lines("state/incidents.jsonl").len(), 1);
}

/// Sixty targets that go down in one minute have a folder each, also where the state was lost meanwhile.
#[test]
fn no_two_incidents_share_a_name() {
    let target = |n: u32| format!("  - {{name: t{n}, file: {{path: well, max_age: 1d}}}}\n");
    let targets: String = (0..60).map(target).collect();
    let place = Place::with(&format!("defaults: {{interval: 500ms, failure_threshold: 1}}\ntargets:\n{targets}"));
    for round in 1..=2 {
        let daemon = place.daemon(&["run"]);
        place.eventually("all are down", || place.events("down").len() == 60 * round);
        let mut ids: Vec<String> = place.events("down").iter().map(|event| event["incident"].to_string()).collect();
        ids.sort();
        ids.dedup();
        place.demand(ids.len() == 60 * round, &format!("{} names", ids.len()));
        daemon.kill();
        fs::remove_file(place.path("state/state.json")).expect("a state");
    }
}

#[test]
fn without_an_account_the_work_goes_on_and_the_end_is_kept() {
    let place = place("{name: a, command: test ! -e sick, restart: 'rm sick'}");
    fs::create_dir_all(place.path("state")).expect("a folder");
    // What stands in the way of the folder of incidents.
    place.write("state/incidents", "");
    place.write("sick", "");
    let _daemon = place.daemon(&["run"]);
    place.eventually("it is cured", || !place.events("up").is_empty());
    place.told("(evidence and command output are not saved)");
    fs::remove_file(place.path("state/incidents")).expect("it is there");
    place.write("sick", "");
    place.eventually("it is cured again", || place.events("up").len() == 2);
    place.eventually("that is kept", || !last(&place)["ended"].is_null());
}

#[test]
fn what_nobody_watched_is_said() {
    let place = place("{name: a, command: 'true'}");
    let said = place.run(&["report"]);
    assert_eq!((said.code, said.out.trim()), (Some(0), "No watchdog has probed anything here yet."));
    assert_eq!(place.run(&["incident"]).out.trim(), "No incidents are on record.");
    let daemon = place.daemon(&["run"]);
    place.eventually("it was watched for a while", || place.target("a")["uptime_24h"] == 1.0);
    daemon.stop();
    let said = place.run(&["report"]);
    has(
        &place,
        &said.out,
        &["; not watched ", ", the watchdog was stopped).", "a  up 100 % of the watched time", "no incident"],
    );
    for bad in ["5m", "1y", "soon"] {
        assert_eq!(place.run(&["report", "--since", bad]).code, Some(2), "{bad}");
    }
}

#[test]
fn an_incident_ends_though_its_target_was_away_for_a_while() {
    for is_begun_anew in [false, true] {
        let target = "a, command: test -e well, interval: 100ms, failure_threshold: 2";
        let place = place(&format!("{{name: {target}}}"));
        let mut daemon = place.daemon(&["run"]);
        place.eventually("it is down", || !last(&place)["id"].is_null());
        for (target, count) in [("b, command: 'true'", 1), (target, 2)] {
            place.configure(&format!("{DEFAULTS}targets:\n  - {{name: {target}}}\n"));
            daemon.signal(Signal::HUP);
            place.eventually("it is read again", || place.events("reloaded").len() == count);
            if is_begun_anew && count == 1 {
                assert!(daemon.stop().success());
                daemon = place.daemon(&["run"]);
            }
        }
        place.demand(last(&place)["ended"].is_null(), "it goes on");
        place.write("well", "");
        place.eventually("it is up", || !place.events("up").is_empty());
        place.eventually("the incident is over", || !last(&place)["ended"].is_null());
        assert_eq!(kinds(&last(&place)), ["failing", "down", "up"], "{}", place.story());
    }
}

//! `status`: how the targets are, in words and to the letter for machines, and whether anybody watches.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::faults::{Server, Ways};
use crate::place::Place;

const LIMITS: &str = "defaults: {interval: 100ms, failure_threshold: 2, start_period: 100ms, cooldown: 1d, \
                      max_cooldown: 1d}\ntargets:\n";

/// A form in which only kinds of values stand: a time, a number, a text.
fn kind(value: &Value) -> Value {
    match value {
        Value::String(text) if humantime::parse_rfc3339(text).is_ok() => json!("time"),
        Value::String(_) => json!("text"),
        Value::Number(number) if number.is_u64() => json!("whole"),
        Value::Number(_) => json!("number"),
        Value::Array(items) => items.iter().map(kind).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), kind(value))).collect(),
        other => other.clone(),
    }
}

/// The contract's fields, in its order.
const FIELDS: &str = "version at watchdog running pid mode last_seen state_at config_changed targets name state \
                      since streak dry_run last_probe at verdict latency_ms class detail attempt attempts_in_window \
                      waiting why until paused_until incident uptime_24h uptime_30d";

#[track_caller]
fn has_fields_in_order(text: &str) {
    let mut rest = text;
    for field in FIELDS.split_whitespace() {
        let key = format!("\"{field}\":");
        let Some((_, after)) = rest.split_once(&key) else { panic!("{key} is not, or not at its place, in {text}") };
        rest = after;
    }
}

#[test]
fn the_answer_for_machines_is_the_contracts_to_the_letter() {
    let server = Server::start(Ways::answer("200 OK", "fine"));
    let http = format!("http: 'http://127.0.0.1:{}/'", server.port());
    let place = Place::with(&format!("{LIMITS}  - {{name: app, {http}, restart: touch done, start_period: 1h}}\n"));
    let never = place.run(&["status", "--json"]);
    let nobody = json!({"running": false, "pid": null, "mode": null, "last_seen": null, "state_at": null,
                        "config_changed": false});
    assert_eq!(place.status()["watchdog"], nobody);
    assert_eq!((never.code, &place.status()["targets"]), (Some(3), &json!([])));

    let daemon = place.daemon(&["run"]);
    let well = || place.target("app")["state"] == "healthy" && place.target("app")["uptime_24h"] == 1.0;
    place.eventually("it is healthy, and was for a while", well);
    let said = place.run(&["status", "--json"]);
    assert_eq!((said.code, said.out.lines().count()), (Some(0), 1), "{said:?}");
    has_fields_in_order(&said.out);
    let status: Value = serde_json::from_str(&said.out).expect("JSON");
    let well = json!({
        "version": "text", "at": "time",
        "watchdog": {"running": true, "pid": "whole", "mode": "text", "last_seen": "time", "state_at": "time",
                     "config_changed": false},
        "targets": [{
            "name": "text", "state": "text", "since": "time", "streak": "whole", "dry_run": false,
            "last_probe": {"at": "time", "verdict": "text", "latency_ms": "whole", "class": null, "detail": null},
            "attempt": "whole", "attempts_in_window": "whole", "waiting": {"why": null, "until": null},
            "paused_until": null, "incident": null, "uptime_24h": "number", "uptime_30d": "number",
        }],
    });
    assert_eq!(kind(&status), well, "{status}");
    assert_eq!(status["watchdog"]["pid"], daemon.pid());
    assert_eq!((&status["watchdog"]["mode"], &status["version"]), (&json!("daemon"), &json!("0.1.0")));

    // Down, restarted in vain, and then waiting.
    server.turn(Ways::answer("503 Service Unavailable", ""));
    place.eventually("it was restarted", || place.target("app")["state"] == "recovering");
    let app = place.target("app");
    assert_eq!((&app["attempt"], &app["attempts_in_window"], &app["streak"]), (&1.into(), &1.into(), &0.into()));
    assert_eq!(place.run(&["status"]).code, Some(1));
    assert_eq!(app["incident"], place.events("down")[0]["incident"]);
    let probe = json!({"at": "time", "verdict": "text", "latency_ms": "whole", "class": "text", "detail": "text"});
    assert_eq!(kind(&app["last_probe"]), probe);
    assert_eq!((&app["last_probe"]["class"], &app["last_probe"]["verdict"]), (&json!("status"), &json!("unhealthy")));

    assert!(daemon.stop().success());
    let stopped = place.run(&["status", "--json"]);
    assert_eq!(stopped.code, Some(3), "nobody watching wins over trouble: {stopped:?}");
    let status: Value = serde_json::from_str(&stopped.out).expect("JSON");
    assert_eq!((&status["watchdog"]["running"], &status["watchdog"]["pid"]), (&json!(false), &Value::Null));
    assert_eq!(status["targets"][0]["state"], "recovering", "what was known last is still told");
}

#[test]
fn a_tick_answers_as_such() {
    let place = Place::with(&format!("{LIMITS}  - {{name: app, file: {{path: up, max_age: 1d}}}}\n"));
    assert_eq!(place.run(&["--once"]).code, Some(1));
    let status = place.status();
    assert_eq!((&status["watchdog"]["running"], &status["watchdog"]["mode"]), (&json!(true), &json!("once")));
    let app = place.target("app");
    assert_eq!((&app["state"], &app["streak"]), (&json!("failing"), &1.into()));
    assert_eq!(place.run(&["status"]).code, Some(1));
    let text = place.run(&["status"]).out;
    place.demand(text.contains("runs from cron, last "), &text);
}

#[test]
fn people_are_told_each_trouble_with_its_reason() {
    let place = Place::with(
        "defaults: {interval: 100ms, failure_threshold: 1, start_period: 100ms, cooldown: 1d, max_cooldown: 1d}\n\
         targets:\n  - {name: fine, file: {path: watchdog.yaml, max_age: 1d}}\n  \
         - {name: watched, file: {path: a, max_age: 1d}}\n  \
         - {name: needy, file: {path: b, max_age: 1d}, restart: touch b, depends_on: [watched]}\n  \
         - {name: vain, file: {path: c, max_age: 1d}, restart: echo in vain}\n  \
         - {name: gated, file: {path: d, max_age: 1d}, restart: touch d, only_if: exit 1}\n  \
         - {name: strange, command: no-such-program}\n  \
         - {name: shadow, file: {path: e, max_age: 1d}, restart: touch e, dry_run: true}\n",
    );
    let daemon = place.daemon(&["run"]);
    let held = |name: &str| place.target(name)["waiting"]["why"] != Value::Null;
    place.eventually("all have come to rest", || ["needy", "vain", "gated", "shadow"].iter().all(|name| held(name)));
    let said = place.run(&["status"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let lines: Vec<&str> = said.out.lines().collect();
    let after = |name: &str, word: &str| {
        let at = lines.iter().position(|line| line.starts_with(&format!("{name} ")));
        let at = at.unwrap_or_else(|| panic!("{name} is in\n{}", said.out));
        assert!(lines[at].contains(word), "{word} is in `{}`", lines[at]);
        lines.get(at + 1).copied().unwrap_or_default()
    };
    assert!(lines[0].starts_with("TARGET") && lines[0].ends_with("30 D"), "{}", lines[0]);
    assert!(after("fine", "healthy").starts_with("watched"), "nothing more is said of what is well:\n{}", said.out);
    let notes = [
        ("watched", "down", "watch-only: no restart command is configured"),
        ("needy", "down", "not restarted: it depends on watched, which is down"),
        ("vain", "down", "never seen healthy: is the address right?"),
        ("gated", "down", ": its only_if command did not allow it"),
        ("strange", "starting", "the last probe gave no verdict: cannot run the command: exit code 127"),
        ("shadow", "down", "(dry run: no command is run)"),
    ];
    for (name, state, note) in notes {
        assert!(after(name, state).contains(note), "`{note}` is said of {name}:\n{}", said.out);
    }
    assert!(said.out.contains(&format!("watchdog 0.1.0 runs (pid {}, alive ", daemon.pid())), "{}", said.out);
    assert!(row_of(&said.out, "fine").contains("100 % of "), "a few seconds are no 30 days:\n{}", said.out);
    assert!(said.out.contains("config ~/watchdog.yaml · log ~/state/watchdog.log"), "{}", said.out);
    assert!(daemon.stop().success());
    let said = place.run(&["status"]);
    assert!(said.code == Some(3) && said.out.contains("NOBODY IS WATCHING: the watchdog was stopped "), "{said:?}");
    assert!(said.out.contains("not restarted: no watchdog is running"), "{said:?}");
}

#[test]
fn whoever_asks_touches_nothing() {
    let place = Place::with(&format!("{LIMITS}  - {{name: app, file: {{path: up, max_age: 1d}}}}\n"));
    assert_eq!(place.run(&["status"]).code, Some(3));
    let mut entries = fs::read_dir(place.home()).expect("the folder").flatten();
    assert!(entries.all(|entry| entry.file_name() == "watchdog.yaml"), "{}", place.story());
}

/// The line of a target in the table.
fn row_of<'a>(table: &'a str, name: &str) -> &'a str {
    table.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_default()
}

#[test]
fn lines_that_the_log_loses_are_told() {
    let server = Server::start(Ways::answer("200 OK", "fine"));
    let http = format!("http: 'http://127.0.0.1:{}/'", server.port());
    let log = "log: {file: taken.log, level: debug}";
    let place = Place::with(&format!("{log}\ntargets: [{{name: app, {http}, interval: 100ms}}]\n"));
    fs::create_dir(place.path("taken.log")).expect("a folder where the log should be");
    let daemon = place.daemon(&["run"]);
    let is_told = || {
        daemon.signal(Signal::USR1);
        place.run(&["status"]).out.contains("cannot write to the log ")
    };
    place.eventually("status says that lines are lost", is_told);
    fs::remove_dir(place.path("taken.log")).expect("an empty folder");
    place.eventually("status says no more of it", || !is_told());
}

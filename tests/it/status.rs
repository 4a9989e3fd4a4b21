//! `status`: the state of the targets, as text and as JSON, and whether a watchdog runs.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::faults::{Behaviour, Server};
use crate::sandbox::Sandbox;

const LIMITS: &str = "defaults: {interval: 100ms, failure_threshold: 2, start_period: 100ms, cooldown: 1d, \
                      max_cooldown: 1d}\ntargets:\n";

/// Replaces values by their kinds, such as `time`, `text` and `number`.
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

/// The fields in the order of the contract.
const FIELDS: &str = "version at watchdog running pid mode last_seen state_at config_changed targets name state \
                      since streak dry_run last_probe at verdict latency_ms class detail attempt attempts_in_window \
                      waiting why until paused_until incident uptime_24h uptime_30d";

#[track_caller]
fn check_field_order(text: &str) {
    let mut remaining = text;
    for field in FIELDS.split_whitespace() {
        let key = format!("\"{field}\":");
        let Some((_, after)) = remaining.split_once(&key) else { panic!("{key} is missing or out of order in {text}") };
        remaining = after;
    }
}

#[test]
fn the_json_answer_has_exactly_the_fields_of_the_contract() {
    let server = Server::start(Behaviour::answer("200 OK", "fine"));
    let http = format!("http: 'http://127.0.0.1:{}/'", server.port());
    let sandbox = Sandbox::new(&format!("{LIMITS}  - {{name: app, {http}, restart: touch done, start_period: 1h}}\n"));
    let never = sandbox.run(&["status", "--json"]);
    let no_watchdog = json!({"running": false, "pid": null, "mode": null, "last_seen": null, "state_at": null,
                        "config_changed": false});
    assert_eq!(sandbox.status()["watchdog"], no_watchdog);
    assert_eq!((never.code, &sandbox.status()["targets"]), (Some(3), &json!([])));

    let daemon = sandbox.start_daemon(&["run"]);
    let well = || sandbox.target("app")["state"] == "healthy" && sandbox.target("app")["uptime_24h"] == 1.0;
    sandbox.eventually("the target is healthy and its uptime is known", well);
    let output = sandbox.run(&["status", "--json"]);
    assert_eq!((output.code, output.out.lines().count()), (Some(0), 1), "{output:?}");
    check_field_order(&output.out);
    let status: Value = serde_json::from_str(&output.out).expect("valid JSON");
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

    // Down, restarted without success, and then waiting.
    server.set_behaviour(Behaviour::answer("503 Service Unavailable", ""));
    sandbox.eventually("the target was restarted", || sandbox.target("app")["state"] == "recovering");
    let app = sandbox.target("app");
    assert_eq!((&app["attempt"], &app["attempts_in_window"], &app["streak"]), (&1.into(), &1.into(), &0.into()));
    assert_eq!(sandbox.run(&["status"]).code, Some(1));
    assert_eq!(app["incident"], sandbox.events("down")[0]["incident"]);
    let probe = json!({"at": "time", "verdict": "text", "latency_ms": "whole", "class": "text", "detail": "text"});
    assert_eq!(kind(&app["last_probe"]), probe);
    assert_eq!((&app["last_probe"]["class"], &app["last_probe"]["verdict"]), (&json!("status"), &json!("unhealthy")));

    assert!(daemon.stop().success());
    let stopped = sandbox.run(&["status", "--json"]);
    assert_eq!(stopped.code, Some(3), "exit code 3 takes precedence over 1: {stopped:?}");
    let status: Value = serde_json::from_str(&stopped.out).expect("valid JSON");
    assert_eq!((&status["watchdog"]["running"], &status["watchdog"]["pid"]), (&json!(false), &Value::Null));
    assert_eq!(status["targets"][0]["state"], "recovering", "the last known state is still shown");
}

#[test]
fn after_a_tick_the_mode_is_once() {
    let sandbox = Sandbox::new(&format!("{LIMITS}  - {{name: app, file: {{path: up, max_age: 1d}}}}\n"));
    assert_eq!(sandbox.run(&["--once"]).code, Some(1));
    let status = sandbox.status();
    assert_eq!((&status["watchdog"]["running"], &status["watchdog"]["mode"]), (&json!(true), &json!("once")));
    let app = sandbox.target("app");
    assert_eq!((&app["state"], &app["streak"]), (&json!("failing"), &1.into()));
    assert_eq!(sandbox.run(&["status"]).code, Some(1));
    let text = sandbox.run(&["status"]).out;
    sandbox.assert(text.contains("runs from cron, last "), &text);
}

#[test]
fn each_problem_is_shown_with_its_reason() {
    let sandbox = Sandbox::new(
        "defaults: {interval: 100ms, failure_threshold: 1, start_period: 100ms, cooldown: 1d, max_cooldown: 1d}\n\
         targets:\n  - {name: fine, file: {path: watchdog.yaml, max_age: 1d}}\n  \
         - {name: watched, file: {path: a, max_age: 1d}}\n  \
         - {name: needy, file: {path: b, max_age: 1d}, restart: touch b, depends_on: [watched]}\n  \
         - {name: vain, file: {path: c, max_age: 1d}, restart: echo in vain}\n  \
         - {name: gated, file: {path: d, max_age: 1d}, restart: touch d, only_if: exit 1}\n  \
         - {name: strange, command: no-such-program}\n  \
         - {name: shadow, file: {path: e, max_age: 1d}, restart: touch e, dry_run: true}\n",
    );
    let daemon = sandbox.start_daemon(&["run"]);
    let held = |name: &str| sandbox.target(name)["waiting"]["why"] != Value::Null;
    sandbox.eventually("all targets wait", || ["needy", "vain", "gated", "shadow"].iter().all(|name| held(name)));
    let output = sandbox.run(&["status"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    let lines: Vec<&str> = output.out.lines().collect();
    let note_after = |name: &str, word: &str| {
        let at = lines.iter().position(|line| line.starts_with(&format!("{name} ")));
        let at = at.unwrap_or_else(|| panic!("{name} is in\n{}", output.out));
        assert!(lines[at].contains(word), "{word} is in `{}`", lines[at]);
        lines.get(at + 1).copied().unwrap_or_default()
    };
    assert!(lines[0].starts_with("TARGET") && lines[0].ends_with("30 D"), "{}", lines[0]);
    assert!(note_after("fine", "healthy").starts_with("watched"), "no note follows a healthy target:\n{}", output.out);
    let notes = [
        ("watched", "down", "watch-only: no restart command is configured"),
        ("needy", "down", "not restarted: it depends on watched, which is down"),
        ("vain", "down", "never seen healthy: is the address right?"),
        ("gated", "down", ": its only_if command did not allow it"),
        ("strange", "starting", "the last probe gave no verdict: cannot run the command: exit code 127"),
        ("shadow", "down", "(dry run: no command is run)"),
    ];
    for (name, state, note) in notes {
        assert!(note_after(name, state).contains(note), "`{note}` follows {name}:\n{}", output.out);
    }
    assert!(output.out.contains(&format!("watchdog 0.1.0 runs (pid {}, alive ", daemon.pid())), "{}", output.out);
    assert!(row_of(&output.out, "fine").contains("100 % of "), "the covered time is shown:\n{}", output.out);
    assert!(output.out.contains("config ~/watchdog.yaml · log ~/state/watchdog.log"), "{}", output.out);
    assert!(daemon.stop().success());
    let output = sandbox.run(&["status"]);
    assert!(
        output.code == Some(3) && output.out.contains("NOBODY IS WATCHING: the watchdog was stopped "),
        "{output:?}"
    );
    assert!(output.out.contains("not restarted: no watchdog is running"), "{output:?}");
}

#[test]
fn status_writes_nothing() {
    let sandbox = Sandbox::new(&format!("{LIMITS}  - {{name: app, file: {{path: up, max_age: 1d}}}}\n"));
    assert_eq!(sandbox.run(&["status"]).code, Some(3));
    let mut entries = fs::read_dir(sandbox.home()).expect("the sandbox's folder can be read").flatten();
    assert!(entries.all(|entry| entry.file_name() == "watchdog.yaml"), "{}", sandbox.dump());
}

/// The target's row in the table.
fn row_of<'a>(table: &'a str, name: &str) -> &'a str {
    table.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_default()
}

#[test]
fn lost_log_lines_are_reported() {
    let server = Server::start(Behaviour::answer("200 OK", "fine"));
    let http = format!("http: 'http://127.0.0.1:{}/'", server.port());
    let log = "log: {file: taken.log, level: debug}";
    let sandbox = Sandbox::new(&format!("{log}\ntargets: [{{name: app, {http}, interval: 100ms}}]\n"));
    fs::create_dir(sandbox.path("taken.log")).expect("a folder where the log should be");
    let daemon = sandbox.start_daemon(&["run"]);
    let is_reported = || {
        daemon.signal(Signal::USR1);
        sandbox.run(&["status"]).out.contains("cannot write to the log ")
    };
    sandbox.eventually("status reports lost lines", is_reported);
    fs::remove_dir(sandbox.path("taken.log")).expect("an empty folder");
    sandbox.eventually("status reports lost lines no more", || !is_reported());
}

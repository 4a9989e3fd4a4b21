//! When a restart is delayed or refused: ladders, limits, conditions, dependencies, dry runs, and targets that were
//! never healthy. Each refusal appears with its reason in the events and in the log, and no command is run.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::faults::{Behaviour, Server};
use crate::sandbox::{Sandbox, event_time};

/// Targets are healthy while a file exists; one failed probe makes them down.
const LIMITS: &str = "defaults: {interval: 100ms, failure_threshold: 1, start_period: 100ms, cooldown: 100ms, \
                      max_cooldown: 100ms}\ntargets:\n";

fn app(rest: &str) -> String {
    format!("  - {{name: app, file: {{path: up, max_age: 1d}}, {rest}}}\n")
}

/// The reasons why restarts were held back, in order.
fn reasons(sandbox: &Sandbox, target: &str) -> Vec<String> {
    let events = sandbox.events_of(target, "held_back");
    events.iter().map(|event| event["why"].as_str().unwrap_or_default().into()).collect()
}

/// The time from the event until the wait that it announces is over.
#[track_caller]
fn announced_wait(event: &Value) -> Duration {
    let until = event["until"].as_str().unwrap_or_else(|| panic!("{event} has an end"));
    let until = humantime::parse_rfc3339(until).expect("a time");
    until.duration_since(event_time(event)).expect("a wait ends in the future")
}

/// Waits until the target is healthy, which ends the restrictions of rule 8 of the contract.
#[track_caller]
fn wait_until_healthy(sandbox: &Sandbox, target: &str) {
    sandbox.eventually("the target is healthy", || sandbox.target(target)["state"] == "healthy");
}

#[test]
fn attempts_go_through_the_ladder_repeatedly_until_the_limit() {
    let record = "echo $WATCHDOG_ATTEMPT.$WATCHDOG_RUNG >> done";
    let ladder = format!("restart: [\"{record}; : small\", \"{record}; : medium\", \"{record}; : large\"]");
    let sandbox = Sandbox::new(&format!("{LIMITS}{}", app(&format!("{ladder}, max_restarts: 5"))));
    sandbox.write("up", "");
    let _daemon = sandbox.start_daemon(&["run"]);
    wait_until_healthy(&sandbox, "app");
    fs::remove_file(sandbox.path("up")).expect("the file exists");
    sandbox.eventually("the limit is reached", || reasons(&sandbox, "app").contains(&"limit".into()));
    assert_eq!(sandbox.lines("done"), ["1.1", "2.2", "3.3", "4.1", "5.2"], "{}", sandbox.dump());
    let events = sandbox.events("held_back");
    let limit = events.iter().find(|event| event["why"] == "limit").expect("checked above");
    sandbox.assert(announced_wait(limit) > Duration::from_secs(3_000), "the event says when the window has room");
    let app = sandbox.target("app");
    assert_eq!((&app["attempts_in_window"], &app["attempt"]), (&5.into(), &5.into()));
    assert_eq!((&app["state"], &app["waiting"]["why"]), (&"down".into(), &"limit".into()), "{app}");
    sandbox.wait_for_log("is the limit");
}

#[test]
fn a_failing_only_if_holds_back_the_restart() {
    let condition = app("only_if: test -e may, restart: echo done >> done; touch up");
    let sandbox = Sandbox::new(&format!("{LIMITS}{condition}"));
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the restart is held back", || !reasons(&sandbox, "app").is_empty());
    assert_eq!(reasons(&sandbox, "app"), ["only_if"], "{}", sandbox.dump());
    announced_wait(&sandbox.events("held_back")[0]);
    sandbox.wait_for_log("only_if exited 1");
    sandbox.wait_for_log("its only_if command did not allow it");
    sandbox.assert(sandbox.lines("done").is_empty(), "no command is run");
    sandbox.write("may", "");
    sandbox.eventually("the target is repaired", || !sandbox.events("up").is_empty());
    assert_eq!(sandbox.lines("done").len(), 1);
}

#[cfg(feature = "full-tests")]
#[test]
fn an_only_if_that_hangs_or_cannot_start_holds_back_the_restart() {
    let target = |name: &str, only_if: &str| {
        let file = format!("file: {{path: {name}-up, max_age: 1d}}");
        let rest = format!("only_if: {only_if}, restart: touch {name}-up, cooldown: 1m, max_cooldown: 1m");
        format!("  - {{name: {name}, {file}, {rest}}}\n")
    };
    let (hangs, missing) = (target("hangs", "'echo $$ >> pids; exec sleep 600'"), target("missing", "[./gone]"));
    let sandbox = Sandbox::new(&format!("{LIMITS}{hangs}{missing}"));
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("both restarts are held back", || sandbox.events("held_back").len() == 2);
    for name in ["hangs", "missing"] {
        assert_eq!(reasons(&sandbox, name), ["only_if"], "{}", sandbox.dump());
    }
    let (down, held) = (&sandbox.events_of("hangs", "down")[0], &sandbox.events_of("hangs", "held_back")[0]);
    let duration = event_time(held).duration_since(event_time(down)).unwrap_or_default();
    sandbox.assert(duration >= Duration::from_secs(10), &format!("the condition has 10 s, not {duration:?}"));
    sandbox.wait_for_log("only_if timed out");
    sandbox.wait_for_log("only_if could not be started: no such file: ./gone");
    sandbox.assert(
        sandbox.lines("pids").len() == 1 && sandbox.alive_pids("pids").is_empty(),
        "the hanging condition was killed",
    );
    sandbox.assert(sandbox.events("restart").is_empty(), "nothing is restarted");
}

#[test]
fn a_target_waits_for_the_targets_it_depends_on() {
    let database = "  - {name: database, file: {path: database-up, max_age: 1d}}\n";
    let sandbox = Sandbox::new(&format!("{LIMITS}{database}{}", app("depends_on: [database], restart: touch up")));
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the restart is held back", || !reasons(&sandbox, "app").is_empty());
    assert_eq!(reasons(&sandbox, "app"), ["depends_on"], "{}", sandbox.dump());
    assert_eq!(sandbox.target("app")["waiting"], json!({"why": "depends_on", "until": null}));
    sandbox.wait_for_log("it depends on database, which is in trouble");
    sandbox.write("database-up", "");
    sandbox.eventually("the target is repaired", || !sandbox.events_of("app", "up").is_empty());
    let database_up = event_time(&sandbox.events_of("database", "up")[0]);
    sandbox.assert(event_time(&sandbox.events("restart")[0]) >= database_up, "restarted after the database was up");
}

#[test]
fn failures_not_in_restart_on_are_not_restarted() {
    let sandbox = Sandbox::new(&format!("{LIMITS}{}", app("restart_on: [timeout, refused], restart: touch up")));
    let output = sandbox.run(&["--once"]);
    assert_eq!(
        (output.code, reasons(&sandbox, "app")),
        (Some(1), vec!["restart_on".to_string()]),
        "{}",
        sandbox.dump()
    );
    sandbox.assert(sandbox.events("restart").is_empty(), "nothing is restarted");
    sandbox.assert(
        output.out.contains("restart_on does not include this failure class"),
        &format!("the reason is printed: {output:?}"),
    );
    assert!(sandbox.events("held_back")[0].get("until").is_none(), "the wait has no known end");
}

#[test]
fn one_attempt_runs_at_a_time_and_probes_do_not_wait_for_it() {
    let server = Server::start(Behaviour::answer("200 OK", ""));
    let slow = |name: &str| {
        let restart = format!("while ! test -e go; do sleep 0.02; done; touch {name}-up");
        format!("  - {{name: {name}, file: {{path: {name}-up, max_age: 1d}}, restart: '{restart}'}}\n")
    };
    let healthy = format!("  - {{name: healthy, http: 'http://127.0.0.1:{}/'}}\n", server.port());
    let sandbox = Sandbox::new(&format!("{LIMITS}{}{}{healthy}", slow("one"), slow("other")));
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("one restart waits for the other", || sandbox.events("held_back").len() == 1);
    let held = sandbox.events("held_back").remove(0);
    assert_eq!(held["why"], "busy", "{}", sandbox.dump());
    let probes = server.requests().len();
    sandbox.eventually("probes continue", || server.requests().len() > probes + 3);
    sandbox.assert(sandbox.events("restart").len() == 1, "the second restart still waits");
    sandbox.write("go", "");
    sandbox.eventually("both targets are repaired", || sandbox.events("up").len() == 2);
    let (restarts, done) = (sandbox.events("restart"), sandbox.events("restart_done"));
    sandbox.assert(
        restarts[0]["target"] == done[0]["target"] && restarts[1]["target"] == held["target"],
        "one restart after the other",
    );
    sandbox.assert(event_time(&done[0]) <= event_time(&restarts[1]), "the second begins after the first has ended");
}

/// Dry-run ticks, and then a real one that they must not affect.
#[track_caller]
fn check_dry(top: &str, key: &str, args: &[&str]) {
    let keys = "restart: echo done >> done; touch up, max_restarts: 1, cooldown: 1d, max_cooldown: 1d";
    let sandbox = Sandbox::new(&format!("{top}{LIMITS}{}", app(&format!("{keys}{key}"))));
    for _ in 0..2 {
        let output = sandbox.run(args);
        sandbox.assert(output.code == Some(1), &format!("the target is still down: {output:?}"));
        sandbox.assert(sandbox.target("app")["dry_run"] == true, "status shows the dry run");
    }
    let dry_restarts = sandbox.events("would_restart");
    sandbox.assert(dry_restarts.len() == 1, "a dry-run restart is recorded and limited like a real one");
    sandbox.assert(dry_restarts[0]["attempt"] == 1 && dry_restarts[0]["rung"] == 1, &format!("{}", dry_restarts[0]));
    sandbox.assert(dry_restarts[0]["run"] == "echo done >> done; touch up", &format!("{}", dry_restarts[0]));
    sandbox.assert(sandbox.events("restart").is_empty() && sandbox.lines("done").is_empty(), "no command is run");

    sandbox.configure(&format!("{LIMITS}{}", app(keys)));
    let output = sandbox.run(&["--once"]);
    sandbox.assert(
        output.code == Some(0) && sandbox.lines("done").len() == 1,
        &format!("the real tick restarts: {output:?}"),
    );
    sandbox.assert(sandbox.events("restart")[0]["attempt"] == 1, "dry-run attempts do not count");
}

#[test]
fn a_dry_run_decides_and_records_but_runs_and_counts_nothing() {
    check_dry("", ", dry_run: true", &["--once"]);
    check_dry("dry_run: true\n", "", &["--once"]);
    check_dry("", "", &["--once", "--dry-run"]);
}

#[test]
fn real_attempts_count_in_a_dry_run() {
    let sandbox =
        Sandbox::new(&format!("{LIMITS}{}", app("restart: echo done >> done, cooldown: 1d, max_cooldown: 1d")));
    sandbox.write("up", "");
    sandbox.run(&["--once"]);
    fs::remove_file(sandbox.path("up")).expect("the file exists");
    sandbox.run(&["--once"]);
    sandbox.run(&["--once", "--dry-run"]);
    assert_eq!(sandbox.lines("done").len(), 1, "{}", sandbox.dump());
    sandbox.assert(sandbox.events("would_restart").is_empty(), "the dry run respects the cooldown");
    sandbox.assert(
        reasons(&sandbox, "app").contains(&"cooldown".into()),
        "the reason is the cooldown of the real restart",
    );
}

#[test]
fn a_target_that_was_never_healthy_gets_one_pass_of_its_ladder_and_then_one_restart_an_hour() {
    let sandbox = Sandbox::new(&format!("{LIMITS}{}", app("restart: ['echo a >> done', 'echo b >> done']")));
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the restart is held back", || reasons(&sandbox, "app").contains(&"never_healthy".into()));
    assert_eq!(sandbox.lines("done"), ["a", "b"], "{}", sandbox.dump());
    let held = sandbox.events("held_back");
    let held = held.iter().find(|event| event["why"] == "never_healthy").expect("checked above");
    let wait = announced_wait(held);
    sandbox.assert((3_400..=3_600).contains(&wait.as_secs()), &format!("one restart an hour, not in {wait:?}"));
    sandbox.wait_for_log("never seen healthy: is the address right? Probing goes on");
}

#[test]
fn an_answer_that_was_always_wrong_causes_no_restart() {
    let wrong = [
        Behaviour::answer("404 Not Found", ""),
        Behaviour::answer("200 OK", "the page of somebody else"),
        Behaviour::raw("SSH-2.0-OpenSSH_9.2\r\n"),
    ];
    for behaviour in wrong {
        let server = Server::start(behaviour.clone());
        let http = format!("http: {{url: 'http://127.0.0.1:{}/', contains: fine}}", server.port());
        let sandbox = Sandbox::new(&format!("{LIMITS}  - {{name: app, {http}, restart: echo done >> done}}\n"));
        let _daemon = sandbox.start_daemon(&["run"]);
        sandbox.eventually("the restart is held back", || !reasons(&sandbox, "app").is_empty());
        assert_eq!(reasons(&sandbox, "app"), ["never_healthy"], "{}", sandbox.dump());
        assert!(sandbox.events("held_back")[0].get("until").is_none(), "the wait has no known end");
        sandbox.assert(sandbox.lines("done").is_empty(), "no command is run");
        // Once the target was healthy, the same answer is a failure that a restart may fix.
        server.set_behaviour(Behaviour::answer("200 OK", "fine"));
        wait_until_healthy(&sandbox, "app");
        server.set_behaviour(behaviour);
        sandbox.eventually("the target is restarted", || !sandbox.lines("done").is_empty());
    }
}

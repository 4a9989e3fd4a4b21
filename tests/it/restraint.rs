//! When a restart is not made, or not yet: ladders, limits, gates, dependencies, dry runs, targets never seen well.
//! Each refusal is seen in the events with its reason, in words in the log, and in that nothing was run.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::faults::{Server, Ways};
use crate::place::{Place, at};

/// Of targets that are well while there is a file, and down when one look does not find it.
const LIMITS: &str = "defaults: {interval: 100ms, failure_threshold: 1, start_period: 100ms, cooldown: 100ms, \
                      max_cooldown: 100ms}\ntargets:\n";

fn app(rest: &str) -> String {
    format!("  - {{name: app, file: {{path: up, max_age: 1d}}, {rest}}}\n")
}

/// Why the target was held back, in order.
fn reasons(place: &Place, target: &str) -> Vec<String> {
    let events = place.events_of(target, "held_back");
    events.iter().map(|event| event["why"].as_str().unwrap_or_default().into()).collect()
}

/// From the event to the end of the wait that it tells of.
#[track_caller]
fn waits(event: &Value) -> Duration {
    let until = event["until"].as_str().unwrap_or_else(|| panic!("{event} has an end"));
    let until = humantime::parse_rfc3339(until).expect("a time");
    until.duration_since(at(event)).expect("a wait ends in the future")
}

/// Waits until the target is healthy, for only then rule 8 lets go of it.
#[track_caller]
fn seen_well(place: &Place, target: &str) {
    place.eventually("it is seen well", || place.target(target)["state"] == "healthy");
}

#[test]
fn attempts_climb_the_ladder_and_begin_anew_until_the_limit() {
    let record = "echo $WATCHDOG_ATTEMPT.$WATCHDOG_RUNG >> done";
    let ladder = format!("restart: [\"{record}; : small\", \"{record}; : medium\", \"{record}; : large\"]");
    let place = Place::with(&format!("{LIMITS}{}", app(&format!("{ladder}, max_restarts: 5"))));
    place.write("up", "");
    let _daemon = place.daemon(&["run"]);
    seen_well(&place, "app");
    fs::remove_file(place.path("up")).expect("it is there");
    place.eventually("the limit is reached", || reasons(&place, "app").contains(&"limit".into()));
    assert_eq!(place.lines("done"), ["1.1", "2.2", "3.3", "4.1", "5.2"], "{}", place.story());
    let events = place.events("held_back");
    let limit = events.iter().find(|event| event["why"] == "limit").expect("as just seen");
    place.demand(waits(limit) > Duration::from_secs(3_000), "its end is told: when the window has room");
    let app = place.target("app");
    assert_eq!((&app["attempts_in_window"], &app["attempt"]), (&5.into(), &5.into()));
    assert_eq!((&app["state"], &app["waiting"]["why"]), (&"down".into(), &"limit".into()), "{app}");
    place.told("is the limit");
}

#[test]
fn only_if_is_asked_before_and_its_no_is_heeded() {
    let gate = app("only_if: test -e may, restart: echo done >> done; touch up");
    let place = Place::with(&format!("{LIMITS}{gate}"));
    let _daemon = place.daemon(&["run"]);
    place.eventually("it is held back", || !reasons(&place, "app").is_empty());
    assert_eq!(reasons(&place, "app"), ["only_if"], "{}", place.story());
    waits(&place.events("held_back")[0]);
    place.told("only_if exited 1");
    place.told("its only_if command did not allow it");
    place.demand(place.lines("done").is_empty(), "nothing is run");
    place.write("may", "");
    place.eventually("it is repaired", || !place.events("up").is_empty());
    assert_eq!(place.lines("done").len(), 1);
}

#[cfg(feature = "full-tests")]
#[test]
fn an_only_if_that_hangs_or_cannot_be_asked_is_a_no() {
    let target = |name: &str, only_if: &str| {
        let file = format!("file: {{path: {name}-up, max_age: 1d}}");
        let rest = format!("only_if: {only_if}, restart: touch {name}-up, cooldown: 1m, max_cooldown: 1m");
        format!("  - {{name: {name}, {file}, {rest}}}\n")
    };
    let (hangs, missing) = (target("hangs", "'echo $$ >> pids; exec sleep 600'"), target("missing", "[./gone]"));
    let place = Place::with(&format!("{LIMITS}{hangs}{missing}"));
    let _daemon = place.daemon(&["run"]);
    place.eventually("both are held back", || place.events("held_back").len() == 2);
    for name in ["hangs", "missing"] {
        assert_eq!(reasons(&place, name), ["only_if"], "{}", place.story());
    }
    let (down, held) = (&place.events_of("hangs", "down")[0], &place.events_of("hangs", "held_back")[0]);
    let asked = at(held).duration_since(at(down)).unwrap_or_default();
    place.demand(asked >= Duration::from_secs(10), &format!("it was given 10 s, not {asked:?}"));
    place.told("only_if timed out");
    place.told("only_if could not be started: no such file: ./gone");
    place.demand(place.lines("pids").len() == 1 && place.alive("pids").is_empty(), "the one that hung is ended");
    place.demand(place.events("restart").is_empty(), "nothing is restarted");
}

#[test]
fn what_it_depends_on_comes_first() {
    let database = "  - {name: database, file: {path: database-up, max_age: 1d}}\n";
    let place = Place::with(&format!("{LIMITS}{database}{}", app("depends_on: [database], restart: touch up")));
    let _daemon = place.daemon(&["run"]);
    place.eventually("it is held back", || !reasons(&place, "app").is_empty());
    assert_eq!(reasons(&place, "app"), ["depends_on"], "{}", place.story());
    assert_eq!(place.target("app")["waiting"], json!({"why": "depends_on", "until": null}));
    place.told("it depends on database, which is in trouble");
    place.write("database-up", "");
    place.eventually("it is repaired", || !place.events_of("app", "up").is_empty());
    let well = at(&place.events_of("database", "up")[0]);
    place.demand(at(&place.events("restart")[0]) >= well, "after the database came back");
}

#[test]
fn only_what_a_restart_may_cure_is_restarted() {
    let place = Place::with(&format!("{LIMITS}{}", app("restart_on: [timeout, refused], restart: touch up")));
    let said = place.run(&["--once"]);
    assert_eq!((said.code, reasons(&place, "app")), (Some(1), vec!["restart_on".to_string()]), "{}", place.story());
    place.demand(place.events("restart").is_empty(), "nothing is restarted");
    let reason = "restart_on does not include this failure class";
    place.demand(said.out.contains(reason), &format!("the reason is printed: {said:?}"));
    assert!(place.events("held_back")[0].get("until").is_none(), "no end is known");
}

#[test]
fn one_attempt_at_a_time_and_looks_never_wait_for_it() {
    let server = Server::start(Ways::answer("200 OK", ""));
    let slow = |name: &str| {
        let restart = format!("while ! test -e go; do sleep 0.02; done; touch {name}-up");
        format!("  - {{name: {name}, file: {{path: {name}-up, max_age: 1d}}, restart: '{restart}'}}\n")
    };
    let beside = format!("  - {{name: beside, http: 'http://127.0.0.1:{}/'}}\n", server.port());
    let place = Place::with(&format!("{LIMITS}{}{}{beside}", slow("one"), slow("other")));
    let _daemon = place.daemon(&["run"]);
    place.eventually("one waits for the other", || place.events("held_back").len() == 1);
    let held = place.events("held_back").remove(0);
    assert_eq!(held["why"], "busy", "{}", place.story());
    let looks = server.requests().len();
    place.eventually("looks go on", || server.requests().len() > looks + 3);
    place.demand(place.events("restart").len() == 1, "it waits still");
    place.write("go", "");
    place.eventually("both are repaired", || place.events("up").len() == 2);
    let (restarts, done) = (place.events("restart"), place.events("restart_done"));
    place.demand(restarts[0]["target"] == done[0]["target"] && restarts[1]["target"] == held["target"], "in turn");
    place.demand(at(&done[0]) <= at(&restarts[1]), "the second begins after the first has ended");
}

/// Dry ticks, and then a real one that nothing of them may weigh on.
#[track_caller]
fn check_dry(top: &str, key: &str, words: &[&str]) {
    let strict = "restart: echo done >> done; touch up, max_restarts: 1, cooldown: 1d, max_cooldown: 1d";
    let place = Place::with(&format!("{top}{LIMITS}{}", app(&format!("{strict}{key}"))));
    for _ in 0..2 {
        let said = place.run(words);
        place.demand(said.code == Some(1), &format!("it is still in trouble: {said:?}"));
        place.demand(place.target("app")["dry_run"] == true, "status says that it is dry");
    }
    let would = place.events("would_restart");
    place.demand(would.len() == 1, "what would be restarted is told, and is limited as a real one");
    place.demand(would[0]["attempt"] == 1 && would[0]["rung"] == 1, &format!("{}", would[0]));
    place.demand(would[0]["run"] == "echo done >> done; touch up", &format!("{}", would[0]));
    place.demand(place.events("restart").is_empty() && place.lines("done").is_empty(), "nothing is run");

    place.configure(&format!("{LIMITS}{}", app(strict)));
    let said = place.run(&["--once"]);
    place.demand(said.code == Some(0) && place.lines("done").len() == 1, &format!("the real one acts: {said:?}"));
    place.demand(place.events("restart")[0]["attempt"] == 1, "as if there had been no dry run");
}

#[test]
fn a_dry_run_decides_and_records_but_runs_nothing_and_weighs_nothing() {
    check_dry("", ", dry_run: true", &["--once"]);
    check_dry("dry_run: true\n", "", &["--once"]);
    check_dry("", "", &["--once", "--dry-run"]);
}

#[test]
fn real_attempts_weigh_on_a_dry_run() {
    let place = Place::with(&format!("{LIMITS}{}", app("restart: echo done >> done, cooldown: 1d, max_cooldown: 1d")));
    place.write("up", "");
    place.run(&["--once"]);
    fs::remove_file(place.path("up")).expect("it is there");
    place.run(&["--once"]);
    place.run(&["--once", "--dry-run"]);
    assert_eq!(place.lines("done").len(), 1, "{}", place.story());
    place.demand(place.events("would_restart").is_empty(), "it would not be restarted");
    place.demand(reasons(&place, "app").contains(&"cooldown".into()), "because it just was");
}

#[test]
fn what_was_never_seen_well_gets_a_turn_of_its_ladder_and_then_one_an_hour() {
    let place = Place::with(&format!("{LIMITS}{}", app("restart: ['echo a >> done', 'echo b >> done']")));
    let _daemon = place.daemon(&["run"]);
    place.eventually("it is held back", || reasons(&place, "app").contains(&"never_healthy".into()));
    assert_eq!(place.lines("done"), ["a", "b"], "{}", place.story());
    let held = place.events("held_back");
    let held = held.iter().find(|event| event["why"] == "never_healthy").expect("as just seen");
    let wait = waits(held);
    place.demand((3_400..=3_600).contains(&wait.as_secs()), &format!("one an hour, not in {wait:?}"));
    place.told("never seen healthy: is the address right? Probing goes on");
}

#[test]
fn an_answer_that_was_always_wrong_is_no_reason_for_a_restart() {
    let wrong = [
        Ways::answer("404 Not Found", ""),
        Ways::answer("200 OK", "the page of somebody else"),
        Ways::raw("SSH-2.0-OpenSSH_9.2\r\n"),
    ];
    for ways in wrong {
        let server = Server::start(ways.clone());
        let http = format!("http: {{url: 'http://127.0.0.1:{}/', contains: fine}}", server.port());
        let place = Place::with(&format!("{LIMITS}  - {{name: app, {http}, restart: echo done >> done}}\n"));
        let _daemon = place.daemon(&["run"]);
        place.eventually("it is held back", || !reasons(&place, "app").is_empty());
        assert_eq!(reasons(&place, "app"), ["never_healthy"], "{}", place.story());
        assert!(place.events("held_back")[0].get("until").is_none(), "no end is known");
        place.demand(place.lines("done").is_empty(), "nothing is run");
        // Once it was seen well, the same answer is a failure that may be cured.
        server.turn(Ways::answer("200 OK", "fine"));
        seen_well(&place, "app");
        server.turn(ways);
        place.eventually("it is restarted", || !place.lines("done").is_empty());
    }
}

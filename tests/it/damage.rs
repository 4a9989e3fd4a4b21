//! A state folder whose files say anything at all: every verb answers, works on, and shows nothing that acts on a
//! terminal.

use std::fs;

use serde_json::Value;

use crate::mangle::mangled;
use crate::place::{Place, Said, count, files_below};

/// A folder with everything that it can have: an incident that is over, one that is not, the history of both, and an
/// order that nobody has carried out.
fn lived_in() -> Place {
    let place = Place::with(
        "defaults: {interval: 100ms, failure_threshold: 1, start_period: 100ms, cooldown: 100ms, max_cooldown: 100ms}\n\
         page: state/page.html\nmetrics: state/watchdog.prom\ntargets:\n  \
         - {name: ill, file: {path: no, max_age: 1d}, restart: echo in vain, diagnose: ls}\n  \
         - {name: cured, file: {path: up, max_age: 1d}, restart: touch up}\n",
    );
    let daemon = place.daemon(&["run"]);
    place.eventually("one is cured", || !place.events_of("cured", "up").is_empty());
    place.eventually("and one is not", || !place.events_of("ill", "restart_done").is_empty());
    assert!(daemon.stop().success());
    let said = place.run(&["pause", "cured"]);
    assert!(said.out.contains("no watchdog is running"), "{said:?}");
    place
}

#[test]
fn every_verb_answers_whatever_the_files_in_the_state_folder_say() {
    let place = lived_in();
    let state = place.path("state");
    let whole = files_below(&state);
    for name in ["state.json", "events.jsonl", "incidents.jsonl", "history.json", "incident.json"] {
        assert!(whole.iter().any(|(path, _)| path.ends_with(name)), "{name} is there\n{}", place.story());
    }
    assert!(whole.iter().any(|(path, _)| path.starts_with(state.join("orders"))), "{}", place.story());
    let mut dice = fastrand::Rng::with_seed(7);
    for round in 0..count("DAMAGES", 15) {
        fs::remove_dir_all(&state).expect("removed");
        for (path, bytes) in &whole {
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            let bytes = if dice.bool() { mangled(bytes, &mut dice) } else { bytes.clone() };
            fs::write(path, bytes).expect("a file");
        }
        for verb in
            ["status", "status --json", "report", "report --json", "incident last", "incident", "--once", "status"]
        {
            let words: Vec<&str> = verb.split(' ').collect();
            let output = place.command_through(&["timeout", "60"], &words).output().expect("timeout of coreutils");
            let said = Said::new(output);
            let all = format!("{}{}", said.out, said.err);
            assert!(matches!(said.code, Some(0..=4)), "round {round}, {verb}: {said:?}\n{}", place.story());
            let is_bug = all.contains("panicked") || place.log().contains("a bug in the watchdog");
            assert!(!is_bug, "round {round}, {verb}: {said:?}\n{}", place.story());
            assert!(!all.contains(|c: char| c.is_control() && c != '\n'), "round {round}, {verb}: {said:?}");
            assert!(verb == "--once" || !all.is_empty(), "round {round}, {verb}: it says nothing");
            let is_json = verb.ends_with("--json") && said.code != Some(2) && !said.out.is_empty();
            assert!(!is_json || serde_json::from_str::<Value>(&said.out).is_ok(), "round {round}, {verb}: {said:?}");
        }
    }
}

#[test]
fn an_order_without_a_sensible_end_is_heeded_or_dropped() {
    let place = Place::with("targets:\n  - {name: app, file: {path: watchdog.yaml, max_age: 1d}}\n");
    assert_eq!(place.run(&["--once"]).code, Some(0));
    for wrong in [i64::MIN, -1, 0, i64::MAX] {
        assert_eq!(place.run(&["pause"]).code, Some(0));
        for (path, bytes) in files_below(&place.path("state/orders")) {
            let order: Value = serde_json::from_slice(&bytes).expect("an order is JSON");
            let mut order = order.as_object().expect("with keys").clone();
            let given = order.get_mut("given").and_then(Value::as_object_mut).expect("the moment of its giving");
            for clock in ["boot", "wall"] {
                assert!(given.insert(clock.into(), wrong.into()).is_some_and(|at| at.is_i64()), "{given:?}");
            }
            // A length is never negative: such an order is damaged.
            let length = wrong.unsigned_abs();
            assert!(order.insert("length_ms".into(), length.into()).is_some_and(|ms| ms.is_u64()), "{order:?}");
            fs::write(path, serde_json::to_vec(&order).expect("JSON")).expect("a file");
        }
        for words in [&["status"][..], &["--once"], &["status"]] {
            let said = place.run(words);
            place.demand(matches!(said.code, Some(0 | 3)) && said.err.is_empty(), &format!("{wrong}: {said:?}"));
        }
        place.demand(!place.log().contains("a bug in the watchdog"), "no bug");
        place.demand(files_below(&place.path("state/orders")).is_empty(), "it was taken");
        assert_eq!(place.run(&["resume"]).code, Some(0));
        assert_eq!(place.run(&["--once"]).code, Some(0));
    }
}

//! A state folder whose files say anything at all: every verb answers, works on, and shows nothing that acts on a
//! terminal.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::mangle::mangled;
use crate::place::Place;

const ROUNDS: usize = 60;

/// The files below a folder, with what is in them.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the state folder").flatten() {
        match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => found.extend(files(&entry.path())),
            false => found.push((entry.path(), fs::read(entry.path()).expect("a file of ours"))),
        }
    }
    found.sort();
    found
}

/// A folder with everything that it can have: an incident that is over, one that is not, the history of both.
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
    place
}

#[test]
fn every_verb_answers_whatever_the_files_in_the_state_folder_say() {
    let place = lived_in();
    let state = place.path("state");
    let whole = files(&state);
    for name in ["state.json", "events.jsonl", "incidents.jsonl", "history.json", "incident.json"] {
        assert!(whole.iter().any(|(path, _)| path.ends_with(name)), "{name} is there\n{}", place.story());
    }
    let mut dice = fastrand::Rng::with_seed(7);
    for round in 0..ROUNDS {
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
            let said = crate::place::Said::new(output);
            let all = format!("{}{}", said.out, said.err);
            assert!(matches!(said.code, Some(0..=4)), "round {round}, {verb}: {said:?}\n{}", place.story());
            let is_bug = all.contains("panicked") || place.log().contains("a bug in the watchdog");
            assert!(!is_bug, "round {round}, {verb}: {said:?}\n{}", place.story());
            assert!(!all.contains(|c: char| c.is_control() && c != '\n'), "round {round}, {verb}: {said:?}");
            let is_json = verb.ends_with("--json") && said.code != Some(2) && !said.out.is_empty();
            assert!(!is_json || serde_json::from_str::<Value>(&said.out).is_ok(), "round {round}, {verb}: {said:?}");
        }
    }
}

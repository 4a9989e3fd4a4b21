//! Whether an answer is of now: a fresh lock is not a fresh picture, a free one no daemon, a clock that was set no
//! death. What `status` says in words, in JSON and by its exit code is one and the same.

use std::fs::{self, File};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::place::{Daemon, Place, Said, doing, faketime, is_alive, send};

const TARGETS: &str = "defaults: {interval: 100ms, failure_threshold: 1}\ntargets:\n  \
                       - {name: app, command: test -e well}\n";

fn at_work(place: &Place) -> Daemon<'_> {
    place.write("well", "");
    let daemon = place.daemon(&["run"]);
    place.eventually("it is healthy", || place.target("app")["state"] == "healthy");
    daemon
}

/// Words, `running` and exit code of `status`.
#[track_caller]
fn check(place: &Place, words: &str, running: bool, code: i32) -> Value {
    let (text, json) = (place.run(&["status"]), place.run(&["status", "--json"]));
    let answer: Value = serde_json::from_str(&json.out).expect("JSON");
    let fits = text.out.contains(words) && answer["watchdog"]["running"] == running;
    let agree = (text.code, json.code) == (Some(code), Some(code));
    place.demand(fits && agree, &format!("`{words}`, {running} and {code}: {text:#?}\n{json:#?}"));
    answer
}

/// The state can be saved no more; gives what lets it be saved again.
fn unsavable(place: &Place) -> impl Fn() {
    let temporary = place.path("state/state.tmp");
    place.eventually("the name is taken", || fs::create_dir(&temporary).is_ok());
    move || fs::remove_dir(&temporary).expect("it is there")
}

/// The saved state is of so many seconds earlier.
fn age_state(place: &Place, seconds: i64) {
    let mut state: Value = serde_json::from_str(&place.read("state/state.json")).expect("JSON");
    for clock in ["boot", "wall"] {
        let at = state["written"][clock].as_i64().expect("a time") - seconds * 1_000;
        state["written"][clock] = at.into();
    }
    place.write("state/state.json", &state.to_string());
}

#[test]
fn a_picture_that_is_not_saved_any_more_is_called_old() {
    let place = Place::with(TARGETS);
    let daemon = at_work(&place);
    let room = unsavable(&place);
    age_state(&place, 3_600);
    fs::remove_file(place.path("well")).expect("it is there");
    place.told("app down: ");
    let answer = check(&place, ", alive 1 s ago), BUT HAS SAVED NOTHING FOR 1 h", true, 3);
    let at = |value: &Value| humantime::parse_rfc3339(value.as_str().expect("a time")).expect("a time");
    let age = at(&answer["at"]).duration_since(at(&answer["watchdog"]["state_at"])).expect("it is of before");
    assert!(age > Duration::from_secs(3_600), "{answer}");
    assert_eq!(answer["targets"][0]["state"], "healthy", "what was known last is still told: {answer}");
    // Cron is told once, and not that all is well.
    let ticks = || (0..5).map(|_| place.run(&["--once"])).collect::<Vec<Said>>();
    let told = |ticks: &[Said]| ticks.iter().filter(|said| !said.err.is_empty()).count();
    let first = ticks();
    let why = format!("watchdog: the running watchdog (pid {}) has not saved its state since ", daemon.pid());
    place.demand(first[0].err.starts_with(&why) && told(&first) == 1, &format!("{first:#?}"));
    place.demand(first.iter().all(|said| said.code == Some(4) && said.out.is_empty()), &format!("{first:#?}"));
    room();
    place.eventually("it is saved again", || place.target("app")["state"] == "down");
    check(&place, ", alive 1 s ago) · could repair", true, 1);
    let said = place.run(&["--once"]);
    assert_eq!((said.code, said.err.as_str()), (Some(1), ""), "{}", place.story());
}

/// Also beside a daemon a tick that is well ends what was complained of before.
#[test]
fn a_complaint_is_news_again_once_all_was_well() {
    let place = Place::with(TARGETS);
    let _daemon = at_work(&place);
    let with = |configuration: &str| {
        place.configure(configuration);
        let said = place.run(&["--once"]);
        (said.code, !said.err.is_empty())
    };
    let script = [("[]", true), ("[]", false), (TARGETS, false), ("[]", true)];
    for (step, (configuration, is_told)) in script.into_iter().enumerate() {
        let code = if configuration == TARGETS { 0 } else { 2 };
        assert_eq!(with(configuration), (Some(code), is_told), "step {step}: {}", place.story());
    }
}

#[test]
fn one_that_was_killed_watches_nothing_in_words_json_and_code() {
    let place = Place::with(TARGETS);
    let daemon = at_work(&place);
    fs::remove_file(place.path("well")).expect("it is there");
    place.eventually("it is down", || place.target("app")["state"] == "down");
    daemon.kill();
    let answer = check(&place, "NOBODY IS WATCHING: last sign of life ", false, 3);
    assert_eq!(answer["watchdog"]["pid"], Value::Null);
    place.demand(place.run(&["report"]).out.contains("not watched "), "the report does not count it as watched");
    assert_eq!(place.run(&["--once"]).code, Some(1), "the tick does its work");
    check(&place, "runs from cron, last ", true, 1);
}

#[test]
fn targets_that_left_the_configuration_count_for_nothing_at_a_tick() {
    let place = Place::with(&format!("{TARGETS}  - {{name: other, command: test -e other}}\n"));
    let daemon = at_work(&place);
    place.eventually("the other is down", || place.target("other")["state"] == "down");
    assert_eq!(place.run(&["--once"]).code, Some(1));
    assert_eq!(place.status()["watchdog"]["config_changed"], false);
    place.configure(TARGETS);
    // What the one at work has read decides.
    assert_eq!((place.run(&["--once"]).code, place.run(&["status"]).code), (Some(1), Some(1)));
    let answer = check(&place, "The configuration file has changed since the watchdog read it.", true, 1);
    assert_eq!(answer["watchdog"]["config_changed"], true);
    let check_says = || place.run(&["check"]).out.contains("has not read the file since the last change");
    place.demand(check_says(), "check says so");
    daemon.signal(Signal::HUP);
    place.eventually("it has read it", || place.status()["watchdog"]["config_changed"] == false);
    assert_eq!((place.run(&["--once"]).code, place.run(&["status"]).code), (Some(0), Some(0)), "{}", place.story());
    place.demand(!check_says(), "check says no more of it");
}

/// The program with the wall clock set by so much.
fn at_offset(place: &Place, words: &[&str], offset: &str) -> Command {
    let mut command = place.command(words);
    command.env("LD_PRELOAD", faketime()).env("FAKETIME", offset).env("DONT_FAKE_MONOTONIC", "1");
    command
}

fn status_at(place: &Place, offset: &str) -> Said {
    Said::new(at_offset(place, &["status"], offset).output().expect("the program runs"))
}

/// As with a file server whose clock is another.
#[cfg(feature = "full-tests")]
#[test]
fn a_sign_of_life_by_another_clock_than_ours_is_one() {
    for offset in ["-5m", "+2h", "-3d"] {
        let place = Place::with(TARGETS);
        place.write("well", "");
        let _daemon = place.daemon_by(at_offset(&place, &["run"], offset));
        let said = status_at(&place, offset);
        place.demand(said.code == Some(0) && said.out.contains(", alive 1 s ago)"), &format!("{offset}: {said:?}"));
        check(&place, ", alive 1 s ago)", true, 0);
    }
}

#[cfg(feature = "full-tests")]
#[test]
fn a_clock_that_was_set_makes_nobody_hung_and_one_that_is_hung_is_found() {
    let place = Place::with(TARGETS);
    let daemon = at_work(&place);
    let offsets = ["-5m", "+5m", "-1d", "+3d", "-10y", "+10y"];
    for offset in offsets {
        let said = status_at(&place, offset);
        place.demand(said.code == Some(0) && said.out.contains(" runs (pid "), &format!("{offset}: {said:?}"));
    }
    // Without an answer the boot clock tells.
    daemon.signal(Signal::STOP);
    place.eventually("it stands still", || doing(daemon.pid()) == Some('T'));
    for offset in offsets {
        let said = status_at(&place, offset);
        place.demand(said.code == Some(0) && said.out.contains(" runs (pid "), &format!("{offset}: {said:?}"));
    }
    let lock = File::options().append(true).open(place.path("state/watchdog.lock")).expect("a lock file");
    lock.set_modified(SystemTime::now() - Duration::from_secs(600)).expect("its time can be set");
    check(&place, "is HUNG (pid ", true, 3);
    let checked = place.run(&["check"]);
    place.demand(
        checked.code == Some(1) && checked.out.contains("PROBLEM     watchdog 0.1.0 is HUNG"),
        &format!("{checked:?}"),
    );
    daemon.kill();

    assert_eq!(place.run(&["--once"]).code, Some(0));
    for offset in offsets {
        let said = status_at(&place, offset);
        place
            .demand(said.code == Some(0) && said.out.contains("runs from cron, last "), &format!("{offset}: {said:?}"));
    }
}

/// Whoever starts it by cron is told by the boot clock, too, how long nobody has watched.
#[cfg(feature = "full-tests")]
#[test]
fn a_clock_that_was_set_makes_no_reboot_and_no_long_absence() {
    let place = Place::with(TARGETS);
    place.write("well", "");
    assert_eq!(place.run(&["start"]).code, Some(0));
    // Each of them leaves a state by its own clock to the next.
    for offset in ["+1d", "-5h", "-10y", "+10y"] {
        let killed = place.holder().expect("one is at work");
        place.eventually("its state is saved", || {
            place.read("state/state.json").contains(&format!("\"pid\":{killed},"))
        });
        send(killed, Signal::KILL);
        place.eventually("it is gone", || !is_alive(killed));
        let clock = |words: &[&str]| {
            let output = at_offset(&place, words, offset).env("TZ", "UTC").output().expect("the program runs");
            Said::new(output)
        };
        let said = clock(&["start", "--cron"]);
        let last = said.out.split_once("Last sign of life ").map_or("", |(_, last)| last);
        let last = last.lines().next().unwrap_or_default();
        let is_recent = last.contains(" s ago;") || last.contains(" min ago;");
        let is_true = is_recent && last.ends_with("ago; the machine was not rebooted.");
        place.demand(said.code == Some(0) && is_true, &format!("{offset}: {said:?}"));
    }
}

//! What `kill -9` cannot break: cooldown, window, one command at a time, one incident, whole lines of events.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::faults::{Server, Ways};
use crate::place::{Place, at, count, files_below, is_alive, send};

const TARGETS: [&str; 4] = ["a", "b", "c", "d"];

/// The limits under which the watchdog is killed, in seconds.
const COOLDOWN: f64 = 1.0;
const WINDOW: f64 = 10.0;
const MAX_RESTARTS: usize = 3;

/// Stamps are hundredths of a second, rounded down.
const STAMP: f64 = 0.02;
/// How much later a command may stamp its beginning than the watchdog has noted it, on a slow machine. An attempt that
/// was forgotten would come after little more than a cooldown, so this is still telling.
const SLOW: f64 = 2.0;

/// Notes on the boot clock when it begins and when it ends.
const RESTART: &str = "note() { echo $WATCHDOG_TARGET $WATCHDOG_ATTEMPT $1 $(cut -d ' ' -f 1 /proc/uptime) >> stamps; }
note begin
sleep 0.2
note end
";

/// The stamps of two restarts of each target.
const ENOUGH: usize = 2 * 2 * TARGETS.len();

fn configuration(port: u16) -> String {
    let target = |name: &&str| {
        format!("  - {{name: {name}, http: 'http://127.0.0.1:{port}/{name}', restart: sh restart.sh {name}}}\n")
    };
    format!(
        "defaults: {{interval: 100ms, timeout: 5s, failure_threshold: 1, start_period: 0s, cooldown: {COOLDOWN}s, \
         max_cooldown: {COOLDOWN}s, max_restarts: {MAX_RESTARTS}, restart_window: {WINDOW}s}}\ntargets:\n{}",
        TARGETS.iter().map(target).collect::<String>()
    )
}

#[test]
fn kills_break_no_promise() {
    let enough = u32::try_from(count("KILLS", 25)).expect("few");
    let server = Server::start(Ways::answer("200 OK", "ok"));
    let place = Place::with(&configuration(server.port()));
    place.write("restart.sh", RESTART);
    assert_eq!(place.run(&["--once"]).code, Some(0), "{}", place.story());
    server.turn(Ways::ResetAtOnce);

    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut kills = 0;
    let says_enough = || place.events("down").len() == TARGETS.len() && place.lines("stamps").len() > ENOUGH;
    // On a slow machine many are killed before they have done anything; so they live longer and longer there.
    while kills < enough || (kills < 10 * enough && !says_enough()) {
        let words: &[&str] = if dice.bool() { &["run"] } else { &["--once"] };
        let mut victim = place.daemon_unchecked(words);
        // Short lives are the more dangerous ones, and attempts need longer ones.
        thread::sleep(Duration::from_millis(dice.u64(0..=20).pow(2)) * (1 + kills / enough));
        // A tick that had nothing to do is over already.
        kills += u32::from(victim.child.try_wait().expect("a child can be asked").is_none());
        victim.kill();
    }
    server.turn(Ways::answer("200 OK", "ok"));
    let daemon = place.daemon_unchecked(&["run"]);
    place.eventually("all are healthy again", || place.events("up").len() >= TARGETS.len());
    let code = daemon.stop().code();
    assert_eq!(code, Some(0), "{}", place.story());

    let runs = runs(&place);
    place.demand(runs.len() >= ENOUGH / 2, "too few restarts for this test to say anything");
    check_limits(&place, &runs);
    check_events(&place, &runs);
}

/// One run of a restart command, by its own account.
#[derive(Debug)]
struct Run {
    target: String,
    attempt: u64,
    begin: f64,
    end: f64,
}

/// All runs in the order of their beginnings; no attempt has two.
fn runs(place: &Place) -> Vec<Run> {
    let mut found: BTreeMap<(String, u64), [Vec<f64>; 2]> = BTreeMap::new();
    for line in place.lines("stamps") {
        let words: Vec<&str> = line.split(' ').collect();
        let [target, attempt, what, at] = words[..] else { panic!("{line}") };
        let attempt = attempt.parse().expect("a number");
        let stamps = found.entry((target.to_string(), attempt)).or_default();
        stamps[usize::from(what == "end")].push(at.parse().expect("a time"));
    }
    let run = |((target, attempt), stamps): ((String, u64), [Vec<f64>; 2])| {
        let [begin, end] = stamps.each_ref().map(|stamps| match stamps[..] {
            [one] => one,
            _ => panic!("attempt {attempt} of {target} was not made once: {stamps:?}\n{}", place.story()),
        });
        Run { target, attempt, begin, end }
    };
    let mut runs: Vec<Run> = found.into_iter().map(run).collect();
    runs.sort_by(|a, b| a.begin.total_cmp(&b.begin));
    runs
}

#[track_caller]
fn check_limits(place: &Place, runs: &[Run]) {
    for pair in runs.windows(2) {
        place.demand(pair[1].begin + STAMP >= pair[0].end, &format!("two commands at a time: {pair:#?}"));
    }
    for name in TARGETS {
        let of_one: Vec<&Run> = runs.iter().filter(|run| run.target == name).collect();
        for pair in of_one.windows(2) {
            let waited = pair[1].begin - pair[0].end;
            place.demand(pair[0].attempt < pair[1].attempt, &format!("numbers go back: {pair:#?}"));
            place.demand(waited + STAMP >= COOLDOWN, &format!("cooldown of {waited} s: {pair:#?}"));
        }
        for group in of_one.windows(MAX_RESTARTS + 1) {
            let span = group[MAX_RESTARTS].begin - group[0].begin;
            place.demand(span + SLOW >= WINDOW, &format!("too many in {span} s: {group:#?}"));
        }
    }
}

#[track_caller]
fn check_events(place: &Place, runs: &[Run]) {
    for line in place.lines("state/events.jsonl") {
        place.demand(serde_json::from_str::<Value>(&line).is_ok(), &format!("not JSON: {line}"));
    }
    let of = |kind: &str, name: &str| -> Vec<Value> {
        place.events(kind).into_iter().filter(|event| event["target"] == name).collect()
    };
    for name in TARGETS {
        let (down, up) = (of("down", name), of("up", name));
        place.demand(down.len() == 1 && up.len() == 1, &format!("{name}: {down:?} {up:?}"));
        assert_eq!(down[0]["incident"], up[0]["incident"], "{}", place.story());
        let numbers = |kind| of(kind, name).iter().map(|event| event["attempt"].as_u64()).collect::<Vec<_>>();
        let (begun, done) = (numbers("restart"), numbers("restart_done"));
        assert_eq!(begun, done, "{name}: each one begun is closed once\n{}", place.story());
        let id = down[0]["incident"].as_str().expect("a name");
        let said = place.run(&["incident", id, "--json"]);
        let account: Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        let entries = account["timeline"].as_array().expect("a list").clone();
        let of_kind = |kind: &str| entries.iter().filter(|entry| entry["event"] == kind).cloned().collect::<Vec<_>>();
        assert_eq!(of_kind("restart"), of("restart", name), "the account lacks none\n{}", place.story());
        assert_eq!(of_kind("up"), up, "the account lacks its end\n{}", place.story());
        for run in runs.iter().filter(|run| run.target == name) {
            place.demand(begun.contains(&Some(run.attempt)), &format!("no event of {run:?}"));
        }
    }
}

/// By a daemon and by a tick: the command is waited for, and ended when its time is over.
#[test]
fn a_command_left_running_is_waited_for_and_ended_at_its_timeout() {
    for successor in ["run", "--once"] {
        let place = Place::with(
            "targets:\n  - name: app\n    command: exit 1\n    interval: 100ms\n    failure_threshold: 1\n    \
             start_period: 0s\n    cooldown: 0s\n    \
             restart: {run: 'echo $$ >> pids; exec sleep 600', timeout: 3s}\n",
        );
        let daemon = place.daemon(&["run"]);
        place.eventually("the command runs", || !place.lines("pids").is_empty());
        daemon.kill();
        let pid = place.lines("pids")[0].parse().expect("a pid");
        assert!(is_alive(pid), "{}", place.story());
        let _successor = place.daemon_unchecked(&[successor]);
        place.eventually("it is ended", || !is_alive(pid));
        // Some of its 3 s may be over before it is seen to run.
        let lived = SystemTime::now().duration_since(at(&place.events("restart")[0])).unwrap_or_default();
        place.demand(lived > Duration::from_millis(2_500), &format!("it was ended after {lived:?}"));
        place.eventually("the attempt is closed", || !place.events("restart_done").is_empty());
        let done = &place.events("restart_done")[0];
        assert_eq!((&done["attempt"], &done["outcome"]), (&1.into(), &"lost".into()), "{}", place.story());
        assert!(done["took_ms"].as_u64() >= Some(3_000), "{}", place.story());
        assert_eq!(place.events("down").len(), 1, "{}", place.story());
    }
}

/// A watchdog killed between what it notes and what it does leaves an attempt of which no process is known. Its
/// successor finds that out first of all; killed at once, it must not lose it.
#[test]
fn what_was_left_open_is_closed_once_though_its_successor_is_killed_at_once() {
    // With so many others a state takes a while to save, and the moment is longer.
    let others = (0..500).map(|number| format!("  - {{name: t{number}, file: {{path: no, max_age: 1d}}}}\n"));
    let place = Place::with(&format!(
        "targets:\n  - {{name: app, command: exit 1, interval: 100ms, failure_threshold: 1, cooldown: 1d,\n     \
         max_cooldown: 1d, restart: 'echo $$ >> pids; exec sleep 600'}}\n{}",
        others.collect::<String>()
    ));
    let daemon = place.daemon(&["run"]);
    let attempt = |state: &Value| state["policy"]["targets"]["app"]["attempt"]["phase"].clone();
    let state = || serde_json::from_str::<Value>(&place.read("state/state.json")).unwrap_or_default();
    place.eventually("the command is known", || attempt(&state())["process"].is_array());
    daemon.kill();
    let pid = place.lines("pids")[0].parse().expect("a pid");
    send(pid, Signal::KILL);
    place.eventually("the command is gone", || !is_alive(pid));
    let mut noted = state();
    noted["policy"]["targets"]["app"]["attempt"]["phase"]["process"] = Value::Null;
    place.write("state/state.json", &noted.to_string());
    let left = files_below(&place.path("state"));
    let size = || fs::metadata(place.path("state/events.jsonl")).expect("it is there").len();
    let before = size();
    for round in 0..20 {
        for (path, bytes) in &left {
            fs::write(path, bytes).expect("a file");
        }
        let daemon = place.daemon_unchecked(&["run"]);
        let began = Instant::now();
        // Without a pause: it is a matter of milliseconds.
        while size() == before {
            assert!(began.elapsed() < Duration::from_secs(60), "it does not start\n{}", place.story());
        }
        daemon.kill();
        let daemon = place.daemon(&["run"]);
        assert_eq!(daemon.stop().code(), Some(0), "{}", place.story());
        let outcomes: Vec<Value> = place.events("restart_done").iter().map(|done| done["outcome"].clone()).collect();
        assert_eq!(outcomes, ["lost"], "round {round}\n{}", place.story());
    }
}

//! The guarantees that survive `kill -9`: cooldown, restart window, one command at a time, one incident, whole event
//! lines.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::faults::{Behaviour, Server};
use crate::sandbox::{Sandbox, env_count, event_time, files_below, is_alive, send_signal};

const TARGETS: [&str; 4] = ["a", "b", "c", "d"];

/// In seconds.
const COOLDOWN: f64 = 1.0;
const WINDOW: f64 = 10.0;
const MAX_RESTARTS: usize = 3;

/// Time stamps are hundredths of a second, rounded down.
const STAMP_PRECISION: f64 = 0.02;
/// On a slow machine a command may record its start this much later than the watchdog does. A forgotten attempt would
/// be repeated after little more than the cooldown, so the check still detects it.
const STAMP_DELAY: f64 = 2.0;

/// Records its start and its end on the boot clock.
const RESTART: &str = "note() { echo $WATCHDOG_TARGET $WATCHDOG_ATTEMPT $1 $(cut -d ' ' -f 1 /proc/uptime) >> stamps; }
note begin
sleep 0.2
note end
";

/// The time stamps of two restarts of each target.
const ENOUGH_STAMPS: usize = 2 * 2 * TARGETS.len();

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
fn kill_9_at_any_moment_breaks_no_limit() {
    let minimum_kills = u32::try_from(env_count("KILLS", 25)).expect("a count that fits");
    let server = Server::start(Behaviour::answer("200 OK", "ok"));
    let sandbox = Sandbox::new(&configuration(server.port()));
    sandbox.write("restart.sh", RESTART);
    assert_eq!(sandbox.run(&["--once"]).code, Some(0), "{}", sandbox.dump());
    server.set_behaviour(Behaviour::ResetAtOnce);

    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut kills = 0;
    let has_enough_runs =
        || sandbox.events("down").len() == TARGETS.len() && sandbox.lines("stamps").len() > ENOUGH_STAMPS;
    // On a slow machine many are killed before they have done anything, so later ones live longer.
    while kills < minimum_kills || (kills < 10 * minimum_kills && !has_enough_runs()) {
        let words: &[&str] = if dice.bool() { &["run"] } else { &["--once"] };
        let mut victim = sandbox.spawn_daemon(words);
        // Squared, so that most lives are short, which is more dangerous, and some are long enough for an attempt.
        thread::sleep(Duration::from_millis(dice.u64(0..=20).pow(2)) * (1 + kills / minimum_kills));
        // A tick that had nothing to do has ended already.
        kills += u32::from(victim.child.try_wait().expect("the state of a child can be read").is_none());
        victim.kill();
    }
    server.set_behaviour(Behaviour::answer("200 OK", "ok"));
    let daemon = sandbox.spawn_daemon(&["run"]);
    sandbox.eventually("all targets are healthy again", || sandbox.events("up").len() >= TARGETS.len());
    let code = daemon.stop().code();
    assert_eq!(code, Some(0), "{}", sandbox.dump());

    let runs = runs(&sandbox);
    sandbox.assert(runs.len() >= ENOUGH_STAMPS / 2, "enough restarts for the test to be meaningful");
    check_limits(&sandbox, &runs);
    check_events(&sandbox, &runs);
}

/// One run of a restart command, from its own time stamps.
#[derive(Debug)]
struct Run {
    target: String,
    attempt: u64,
    begin: f64,
    end: f64,
}

/// All runs in the order they began. Fails if an attempt ran twice.
fn runs(sandbox: &Sandbox) -> Vec<Run> {
    let mut found: BTreeMap<(String, u64), [Vec<f64>; 2]> = BTreeMap::new();
    for line in sandbox.lines("stamps") {
        let words: Vec<&str> = line.split(' ').collect();
        let [target, attempt, what, at] = words[..] else { panic!("{line}") };
        let attempt = attempt.parse().expect("a number");
        let stamps = found.entry((target.to_string(), attempt)).or_default();
        stamps[usize::from(what == "end")].push(at.parse().expect("a time"));
    }
    let run = |((target, attempt), stamps): ((String, u64), [Vec<f64>; 2])| {
        let [begin, end] = stamps.each_ref().map(|stamps| match stamps[..] {
            [one] => one,
            _ => panic!("attempt {attempt} of {target} did not run exactly once: {stamps:?}\n{}", sandbox.dump()),
        });
        Run { target, attempt, begin, end }
    };
    let mut runs: Vec<Run> = found.into_iter().map(run).collect();
    runs.sort_by(|a, b| a.begin.total_cmp(&b.begin));
    runs
}

#[track_caller]
fn check_limits(sandbox: &Sandbox, runs: &[Run]) {
    for pair in runs.windows(2) {
        sandbox.assert(pair[1].begin + STAMP_PRECISION >= pair[0].end, &format!("one command at a time: {pair:#?}"));
    }
    for name in TARGETS {
        let target_runs: Vec<&Run> = runs.iter().filter(|run| run.target == name).collect();
        for pair in target_runs.windows(2) {
            let waited = pair[1].begin - pair[0].end;
            sandbox.assert(pair[0].attempt < pair[1].attempt, &format!("attempt numbers increase: {pair:#?}"));
            sandbox.assert(waited + STAMP_PRECISION >= COOLDOWN, &format!("cooldown of {waited} s: {pair:#?}"));
        }
        for group in target_runs.windows(MAX_RESTARTS + 1) {
            let span = group[MAX_RESTARTS].begin - group[0].begin;
            sandbox.assert(span + STAMP_DELAY >= WINDOW, &format!("too many in {span} s: {group:#?}"));
        }
    }
}

#[track_caller]
fn check_events(sandbox: &Sandbox, runs: &[Run]) {
    for line in sandbox.lines("state/events.jsonl") {
        sandbox.assert(serde_json::from_str::<Value>(&line).is_ok(), &format!("not JSON: {line}"));
    }
    let of = |kind: &str, name: &str| -> Vec<Value> {
        sandbox.events(kind).into_iter().filter(|event| event["target"] == name).collect()
    };
    for name in TARGETS {
        let (down, up) = (of("down", name), of("up", name));
        sandbox.assert(down.len() == 1 && up.len() == 1, &format!("{name}: {down:?} {up:?}"));
        assert_eq!(down[0]["incident"], up[0]["incident"], "{}", sandbox.dump());
        let numbers = |kind| of(kind, name).iter().map(|event| event["attempt"].as_u64()).collect::<Vec<_>>();
        let (begun, done) = (numbers("restart"), numbers("restart_done"));
        assert_eq!(begun, done, "{name}: each attempt is closed once\n{}", sandbox.dump());
        let id = down[0]["incident"].as_str().expect("a name");
        let output = sandbox.run(&["incident", id, "--json"]);
        let record: Value = serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let entries = record["timeline"].as_array().expect("a list").clone();
        let of_kind = |kind: &str| entries.iter().filter(|entry| entry["event"] == kind).cloned().collect::<Vec<_>>();
        assert_eq!(of_kind("restart"), of("restart", name), "the record has all restarts\n{}", sandbox.dump());
        assert_eq!(of_kind("up"), up, "the record has its end\n{}", sandbox.dump());
        for run in runs.iter().filter(|run| run.target == name) {
            sandbox.assert(begun.contains(&Some(run.attempt)), &format!("an event for {run:?}"));
        }
    }
}

/// Both a daemon and a tick wait for the command and kill it at its timeout.
#[test]
fn a_command_left_running_is_awaited_and_killed_at_its_timeout() {
    for successor in ["run", "--once"] {
        let sandbox = Sandbox::new(
            "targets:\n  - name: app\n    command: exit 1\n    interval: 100ms\n    failure_threshold: 1\n    \
             start_period: 0s\n    cooldown: 0s\n    \
             restart: {run: 'echo $$ >> pids; exec sleep 600', timeout: 3s}\n",
        );
        let daemon = sandbox.start_daemon(&["run"]);
        sandbox.eventually("the command runs", || !sandbox.lines("pids").is_empty());
        daemon.kill();
        let pid = sandbox.lines("pids")[0].parse().expect("a pid");
        assert!(is_alive(pid), "{}", sandbox.dump());
        let _successor = sandbox.spawn_daemon(&[successor]);
        sandbox.eventually("the process is ended", || !is_alive(pid));
        // Some of the 3 s may have passed before the command was seen running.
        let lifetime = SystemTime::now().duration_since(event_time(&sandbox.events("restart")[0])).unwrap_or_default();
        sandbox.assert(lifetime > Duration::from_millis(2_500), &format!("the command was killed after {lifetime:?}"));
        sandbox.eventually("the attempt is closed", || !sandbox.events("restart_done").is_empty());
        let done = &sandbox.events("restart_done")[0];
        assert_eq!((&done["attempt"], &done["outcome"]), (&1.into(), &"lost".into()), "{}", sandbox.dump());
        assert!(done["took_ms"].as_u64() >= Some(3_000), "{}", sandbox.dump());
        assert_eq!(sandbox.events("down").len(), 1, "{}", sandbox.dump());
    }
}

/// A watchdog that is killed between saving an attempt and starting its command leaves an attempt without a process.
/// The next watchdog resolves it first of all, and must not lose it if it is killed at once, too.
#[test]
fn an_open_attempt_is_closed_once_even_if_the_next_watchdog_is_killed_at_once() {
    // With so many targets a save takes a while, which widens the critical moment.
    let others = (0..500).map(|number| format!("  - {{name: t{number}, file: {{path: no, max_age: 1d}}}}\n"));
    let sandbox = Sandbox::new(&format!(
        "targets:\n  - {{name: app, command: exit 1, interval: 100ms, failure_threshold: 1, cooldown: 1d,\n     \
         max_cooldown: 1d, restart: 'echo $$ >> pids; exec sleep 600'}}\n{}",
        others.collect::<String>()
    ));
    let daemon = sandbox.start_daemon(&["run"]);
    let attempt = |state: &Value| state["policy"]["targets"]["app"]["attempt"]["phase"].clone();
    let state = || serde_json::from_str::<Value>(&sandbox.read("state/state.json")).unwrap_or_default();
    sandbox.eventually("the command's process is saved", || attempt(&state())["process"].is_array());
    daemon.kill();
    let pid = sandbox.lines("pids")[0].parse().expect("a pid");
    send_signal(pid, Signal::KILL);
    sandbox.eventually("the command is gone", || !is_alive(pid));
    let mut saved_state = state();
    saved_state["policy"]["targets"]["app"]["attempt"]["phase"]["process"] = Value::Null;
    sandbox.write("state/state.json", &saved_state.to_string());
    let saved_files = files_below(&sandbox.path("state"));
    let size = || fs::metadata(sandbox.path("state/events.jsonl")).expect("the file exists").len();
    let before = size();
    for round in 0..20 {
        for (path, bytes) in &saved_files {
            fs::write(path, bytes).expect("file access");
        }
        let daemon = sandbox.spawn_daemon(&["run"]);
        let began = Instant::now();
        // No pause here, because the moment lasts milliseconds.
        while size() == before {
            assert!(began.elapsed() < Duration::from_secs(60), "the watchdog writes no event\n{}", sandbox.dump());
        }
        daemon.kill();
        let daemon = sandbox.start_daemon(&["run"]);
        assert_eq!(daemon.stop().code(), Some(0), "{}", sandbox.dump());
        let outcomes: Vec<Value> = sandbox.events("restart_done").iter().map(|done| done["outcome"].clone()).collect();
        assert_eq!(outcomes, ["lost"], "round {round}\n{}", sandbox.dump());
    }
}

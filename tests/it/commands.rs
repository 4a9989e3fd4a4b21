//! Restart commands of every kind, and what they find around them: seen from their own records, the events, the
//! state and the incident's folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::Signal;

use crate::place::{Place, Said};

/// Bytes that are kept of an output, and room for the line that tells what was cut.
const KEPT: u64 = (64 << 10) + 64;

/// Of a target that is well while there is a file named `up`, and down when one look does not find it.
const LIMITS: &str = "defaults: {interval: 100ms, failure_threshold: 1, start_period: 100ms, cooldown: 1d, \
                      max_cooldown: 1d}\ntargets:\n  - name: app\n    file: {path: up, max_age: 1d}\n";

fn broken(restart: &str) -> Place {
    broken_under(LIMITS, restart)
}

fn broken_under(limits: &str, restart: &str) -> Place {
    let place = Place::with(&format!("{limits}    restart: {restart}\n"));
    place.write("plain", "echo this is no program");
    place
}

/// What became of each attempt and rung, one after the other.
fn course(place: &Place) -> String {
    let mut words = Vec::new();
    for event in place.events("") {
        let number = |key: &str| event[key].as_i64().unwrap_or(-1);
        match event["event"].as_str() {
            Some("restart") => words.push(format!("{}.{}", number("attempt"), number("rung"))),
            Some("restart_done") => {
                let how = event["outcome"].as_str().unwrap_or_default();
                let code = [&event["code"], &event["signal"]].into_iter().find_map(|code| code.as_i64());
                words.push(code.map_or_else(|| how.to_string(), |code| format!("{how} {code}")));
            }
            Some("up") => words.push("up".into()),
            Some("warn") => words.push(event["about"].as_str().unwrap_or_default().into()),
            _ => {}
        }
    }
    words.join(" ")
}

/// One tick with this ladder: what becomes of it, the exit code, and some of what is said.
#[track_caller]
fn check(restart: &str, expected: &str, code: i32, says: &[&str]) -> Place {
    // What comes up has its time on a slow machine too; the others are not waited for so long.
    let limits = if code == 0 { LIMITS.replace("start_period: 100ms", "start_period: 1m") } else { LIMITS.into() };
    let place = broken_under(&limits, restart);
    let said = place.run(&["--once"]);
    place.demand(course(&place) == expected, &format!("expected {expected}, found {}", course(&place)));
    place.demand(said.code == Some(code), &format!("exit code {code}: {said:?}"));
    for words in says {
        place.demand(said.out.contains(words), &format!("`{words}` is said: {said:?}"));
    }
    place
}

#[test]
fn every_way_to_end_is_told_apart() {
    let not_started = "cannot_repair 1.1 not_started";
    let cases: [(&str, &str, i32, &[&str]); 10] = [
        ("touch up", "1.1 exited 0 up", 0, &["restart 1", "Restart 1 helped"]),
        ("'true'", "1.1 exited 0", 1, &[]),
        ("echo oh; exit 3", "1.1 exited 3", 1, &["exited 3", "output: oh"]),
        ("kill -9 $$", "1.1 killed 9", 1, &["killed by signal 9"]),
        ("kill $$", "1.1 killed 15", 1, &["killed by signal 15"]),
        ("exec no-such-program", not_started, 1, &["command not found", "127 (shell: command not found)"]),
        ("{run: [./missing]}", not_started, 1, &["no such file: ./missing"]),
        ("{run: [./plain]}", not_started, 1, &["not executable", "plain"]),
        ("./plain; exit", not_started, 1, &["126 (shell: not executable)"]),
        ("{run: exec sleep 600, timeout: 100ms}", "1.1 timed_out", 1, &["did not end within"]),
    ];
    thread::scope(|all| {
        for (restart, expected, code, says) in cases {
            all.spawn(move || check(restart, expected, code, says));
        }
    });
}

#[test]
fn a_command_that_fails_hands_on_to_the_next_one() {
    let place = check("[echo tried; exit 3, touch up]", "1.1 exited 3 1.2 exited 0 up", 0, &["exited 3"]);
    let incident = incident_of(&place);
    assert_eq!(place.read(&format!("{incident}/restart-1-1.out")), "tried\n");
    assert_eq!(place.read(&format!("{incident}/restart-1-2.out")), "");
    // One that cured although it failed keeps the next one from running.
    check("[touch up; exit 3, echo never >> done]", "1.1 exited 3 up", 0, &[]);
}

fn incident_of(place: &Place) -> String {
    let down = place.events("down").remove(0);
    format!("state/incidents/{}", down["incident"].as_str().unwrap_or_default())
}

fn output_of(place: &Place) -> PathBuf {
    place.path(&incident_of(place)).join("restart-1-1.out")
}

#[test]
fn an_attempt_of_which_nothing_could_be_started_counts_for_the_cooldown_only() {
    let told = "app cannot be repaired: restart command 1 would not start: no such file: ./missing";
    let ladder = "[{run: [./missing]}, {run: [./plain]}]";
    let place = check(ladder, "cannot_repair 1.1 not_started 1.2 not_started", 1, &[told]);
    assert_eq!(place.target("app")["attempts_in_window"], 0);
    let again = place.run(&["--once"]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert_eq!(place.events("restart").len(), 2, "{}", place.story());
    assert_eq!(place.events("held_back")[0]["why"], "cooldown", "{}", place.story());
    assert_eq!(place.events("warn").len(), 1, "told once: {}", place.story());
    check("[{run: [./missing]}, touch up]", "cannot_repair 1.1 not_started 1.2 exited 0 up", 0, &[]);
}

#[test]
fn a_group_that_ignores_sigterm_is_ended_to_the_last_child() {
    let stubborn = "trap '' TERM; sh -c 'echo $$ >> pids; while :; do sleep 1; done' & \
                    echo $$ >> pids; while :; do sleep 1; done";
    let place = broken(&format!("{{run: \"{stubborn}\", timeout: 1s}}"));
    let said = place.run(&["--once"]);
    place.demand(course(&place) == "1.1 timed_out", &format!("{said:?}"));
    place.demand(place.lines("pids").len() == 2, "both have run");
    place.demand(place.processes().is_empty(), "nobody is left");
    let took = place.events("restart_done")[0]["took_ms"].as_u64().unwrap_or_default();
    place.demand(took >= 6_000, &format!("SIGKILL comes 5 s after SIGTERM, not after {took} ms in all"));
}

#[test]
fn what_becomes_a_daemon_neither_blocks_us_nor_is_harmed() {
    let daemon = "setsid sh -c 'echo $$ >> pids; exec sleep 600' & while ! test -s pids; do sleep 0.01; done; touch up";
    let place = broken(&format!("\"{daemon}\""));
    let said = place.run(&["--once"]);
    place.demand(course(&place) == "1.1 exited 0 up" && said.code == Some(0), &format!("{said:?}"));
    let alive = place.alive("pids");
    place.demand(alive.len() == 1, "it is alive");
    let output = fs::read_link(format!("/proc/{}/fd/1", alive[0])).expect("it holds its output open");
    place.demand(output.starts_with(place.path("state/incidents")), &format!("its output is {}", output.display()));
}

#[test]
fn of_300_megabytes_of_output_the_beginning_and_the_end_are_kept() {
    let place = broken("echo first; head -c 300000000 /dev/zero | tr '\\0' x; echo; echo last; touch up");
    let said = place.run(&["--once"]);
    place.demand(course(&place) == "1.1 exited 0 up", &format!("{said:?}"));
    let output = output_of(&place);
    place.demand(fs::metadata(&output).is_ok_and(|output| output.len() <= KEPT), "it is cut");
    let text = fs::read_to_string(output).expect("text");
    place.demand(text.starts_with("first\nxxx") && text.ends_with("xxx\nlast\n"), "the beginning and the end are kept");
    place.demand(text.contains(" bytes cut out here]"), "what was cut is told");
}

#[test]
fn a_child_that_prints_for_ever_lives_and_cannot_fill_the_disk() {
    let place = broken("\"sh -c 'echo $$ >> pids; while test -e pids; do seq 2000; sleep 0.02; done' & touch up\"");
    let said = place.run(&["--once"]);
    place.demand(course(&place) == "1.1 exited 0 up", &format!("{said:?}"));
    let output = output_of(&place);
    let length = || fs::metadata(&output).map_or(0, |output| output.len());
    place.eventually("it has printed more than is kept", || length() > 8 * KEPT);
    let said = place.run(&["--once"]);
    place.demand(said.code == Some(0) && said.out.is_empty() && said.err.is_empty(), &format!("{said:?}"));
    let text = fs::read_to_string(&output).expect("text");
    place.demand(text.contains(" bytes cut out here]"), "the tick has cut it");
    place.demand(place.alive("pids").len() == 1, "the child is not harmed");
    let cut = length();
    place.eventually("it goes on printing, into the same file", || length() > cut);
}

#[test]
fn what_a_command_leaves_running_survives_the_end_of_the_watchdog() {
    for signal in [Signal::TERM, Signal::KILL] {
        let place = broken("\"sh -c 'echo $$ >> pids; exec sleep 600' & touch up\"");
        let mut daemon = place.daemon(&["run"]);
        place.eventually("it is repaired", || !place.events("up").is_empty() && place.alive("pids").len() == 1);
        daemon.signal(signal);
        daemon.child.wait().expect("a child can be waited for");
        place.demand(place.alive("pids").len() == 1, &format!("it survives {signal:?}"));
    }
}

/// Writes down what it finds around it.
const INSPECT: &str = "pwd -P > $1.pwd\nenv > $1.env\ngrep -E '^Sig(Blk|Ign)' /proc/self/status > $1.signals\n\
                       ls /proc/self/fd > $1.fds\nls -l /proc/self/fd > $1.files\nreadlink /proc/self/fd/0 > $1.in\n\
                       touch up\n";

fn variables(place: &Place) -> BTreeMap<String, String> {
    let lines = place.lines("seen.env");
    lines.iter().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

/// A mask of signals as `/proc` has it, without those that only the C library uses.
#[track_caller]
fn mask(place: &Place, file: &str, name: &str) -> u64 {
    let lines = place.lines(file);
    let mask = lines.iter().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{}", place.story()));
    u64::from_str_radix(mask.trim(), 16).expect("a mask") & 0x7fff_ffff
}

#[test]
fn a_command_finds_what_was_promised_and_nothing_of_ours() {
    let place = Place::with(&format!(
        "env: {{GREETING: 'hello, ${{WHO}}', PATH: '${{PATH}}:/opt/of/the/operator'}}\n{LIMITS}    restart: [exit 9, \
         {{run: [sh, inspect.sh, seen]}}]\n"
    ));
    place.write("inspect.sh", INSPECT);
    let config = place.path("watchdog.yaml").display().to_string();
    let mut command = place.command(&["--once", "-c", &config]);
    command.current_dir("/").env("WHO", "operator").env("OTHER", "passed on");
    let systemd = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
    command.envs(systemd.map(|name| (name, "/nowhere")));
    let said = Said::new(command.output().expect("the program runs"));
    place.demand(course(&place) == "1.1 exited 9 1.2 exited 0 up" && said.code == Some(0), &format!("{said:?}"));

    let seen = variables(&place);
    let folder = place.path(&incident_of(&place)).display().to_string();
    let down = place.events("down").remove(0);
    let expected = [
        ("WATCHDOG_TARGET", "app"),
        ("WATCHDOG_CLASS", "stale"),
        ("WATCHDOG_DETAIL", down["detail"].as_str().unwrap_or_default()),
        ("WATCHDOG_FAILURES", "1"),
        ("WATCHDOG_ATTEMPT", "1"),
        ("WATCHDOG_RUNG", "2"),
        ("WATCHDOG_INCIDENT", &folder),
        ("GREETING", "hello, operator"),
        ("OTHER", "passed on"),
    ];
    for (name, value) in expected {
        place.demand(seen.get(name).is_some_and(|seen| seen == value), &format!("{name}={value}, not {seen:?}"));
    }
    let path = seen.get("PATH").map(String::as_str).unwrap_or_default();
    place.demand(path.ends_with(":/opt/of/the/operator"), &format!("PATH is the configured one: {path}"));
    for name in systemd {
        place.demand(!seen.contains_key(name), &format!("{name} is kept from it"));
    }
    let own = place.home().canonicalize().expect("the folder");
    assert_eq!(Path::new(place.read("seen.pwd").trim_end()), own, "it runs in the configuration's folder");
    assert_eq!(place.read("seen.in").trim_end(), "/dev/null");

    // Beside a run of the same script by ourselves.
    let mut alone = Command::new("sh");
    alone.args(["inspect.sh", "alone"]).current_dir(place.home()).stdin(Stdio::null()).stderr(Stdio::null());
    assert!(alone.status().is_ok_and(|status| status.success()));
    assert_eq!(place.read("seen.fds"), place.read("alone.fds"), "{}", place.read("seen.files"));
    assert_eq!(mask(&place, "seen.signals", "SigBlk:"), 0);
    let (seen, alone) = (mask(&place, "seen.signals", "SigIgn:"), mask(&place, "alone.signals", "SigIgn:"));
    assert_eq!(seen & !alone, 0, "{seen:x} beside {alone:x}");
}

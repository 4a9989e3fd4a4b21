//! Restart commands: how each way to end is recorded, what happens to their output and their processes, and the
//! environment they run in.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::Signal;

use crate::sandbox::{CommandOutput, Sandbox};

/// Limit of a saved output (64 KiB), and room for the line that replaces the cut part.
const KEPT_BYTES: u64 = (64 << 10) + 64;

/// The target is healthy while the file `up` exists; one failed probe makes it down.
const LIMITS: &str = "defaults: {interval: 100ms, failure_threshold: 1, start_period: 100ms, cooldown: 1d, \
                      max_cooldown: 1d}\ntargets:\n  - name: app\n    file: {path: up, max_age: 1d}\n";

fn broken_target(restart: &str) -> Sandbox {
    broken_target_with_limits(LIMITS, restart)
}

fn broken_target_with_limits(limits: &str, restart: &str) -> Sandbox {
    let sandbox = Sandbox::new(&format!("{limits}    restart: {restart}\n"));
    sandbox.write("plain", "echo this is no program");
    sandbox
}

/// The attempts, their results and the warnings, in order: `1.2` is attempt 1, rung 2.
fn course(sandbox: &Sandbox) -> String {
    let mut course = Vec::new();
    for event in sandbox.events("") {
        let number = |key: &str| event[key].as_i64().unwrap_or(-1);
        match event["event"].as_str() {
            Some("restart") => course.push(format!("{}.{}", number("attempt"), number("rung"))),
            Some("restart_done") => {
                let how = event["outcome"].as_str().unwrap_or_default();
                let code = [&event["code"], &event["signal"]].into_iter().find_map(|code| code.as_i64());
                course.push(code.map_or_else(|| how.to_string(), |code| format!("{how} {code}")));
            }
            Some("up") => course.push("up".into()),
            Some("warn") => course.push(event["about"].as_str().unwrap_or_default().into()),
            _ => {}
        }
    }
    course.join(" ")
}

/// Runs one tick with these restart commands and checks the course of events, the exit code and parts of the output.
#[track_caller]
fn check(restart: &str, expected: &str, code: i32, expected_output: &[&str]) -> Sandbox {
    // A slow machine gets more time to come up; failing cases do not wait for it.
    let limits = if code == 0 { LIMITS.replace("start_period: 100ms", "start_period: 1m") } else { LIMITS.into() };
    let sandbox = broken_target_with_limits(&limits, restart);
    let output = sandbox.run(&["--once"]);
    sandbox.assert(course(&sandbox) == expected, &format!("expected {expected}, found {}", course(&sandbox)));
    sandbox.assert(output.code == Some(code), &format!("exit code {code}: {output:?}"));
    for part in expected_output {
        sandbox.assert(output.out.contains(part), &format!("`{part}` is in {output:?}"));
    }
    sandbox
}

#[test]
fn each_way_a_command_can_end_has_its_own_outcome() {
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
        for (restart, expected, code, expected_output) in cases {
            all.spawn(move || check(restart, expected, code, expected_output));
        }
    });
}

#[test]
fn a_failed_command_is_followed_by_the_next_one() {
    let sandbox = check("[echo tried; exit 3, touch up]", "1.1 exited 3 1.2 exited 0 up", 0, &["exited 3"]);
    let incident = incident_folder(&sandbox);
    assert_eq!(sandbox.read(&format!("{incident}/restart-1-1.out")), "tried\n");
    assert_eq!(sandbox.read(&format!("{incident}/restart-1-2.out")), "");
    // A command that fixed the target although it failed is the last one.
    check("[touch up; exit 3, echo never >> done]", "1.1 exited 3 up", 0, &[]);
}

fn incident_folder(sandbox: &Sandbox) -> String {
    let down = sandbox.events("down").remove(0);
    format!("state/incidents/{}", down["incident"].as_str().unwrap_or_default())
}

fn output_path(sandbox: &Sandbox) -> PathBuf {
    sandbox.path(&incident_folder(sandbox)).join("restart-1-1.out")
}

#[test]
fn an_attempt_that_started_no_command_counts_only_towards_the_cooldown() {
    let warning = "app cannot be repaired: restart command 1 would not start: no such file: ./missing";
    let ladder = "[{run: [./missing]}, {run: [./plain]}]";
    let sandbox = check(ladder, "cannot_repair 1.1 not_started 1.2 not_started", 1, &[warning]);
    assert_eq!(sandbox.target("app")["attempts_in_window"], 0);
    let second_tick = sandbox.run(&["--once"]);
    assert_eq!(second_tick.code, Some(1), "{second_tick:?}");
    assert_eq!(sandbox.events("restart").len(), 2, "{}", sandbox.dump());
    assert_eq!(sandbox.events("held_back")[0]["why"], "cooldown", "{}", sandbox.dump());
    assert_eq!(sandbox.events("warn").len(), 1, "reported once: {}", sandbox.dump());
    check("[{run: [./missing]}, touch up]", "cannot_repair 1.1 not_started 1.2 exited 0 up", 0, &[]);
}

#[test]
fn a_process_group_that_ignores_sigterm_is_killed_completely() {
    let stubborn = "trap '' TERM; sh -c 'echo $$ >> pids; while :; do sleep 1; done' & \
                    echo $$ >> pids; while :; do sleep 1; done";
    let sandbox = broken_target(&format!("{{run: \"{stubborn}\", timeout: 1s}}"));
    let output = sandbox.run(&["--once"]);
    sandbox.assert(course(&sandbox) == "1.1 timed_out", &format!("{output:?}"));
    sandbox.assert(sandbox.lines("pids").len() == 2, "both processes have run");
    sandbox.assert(sandbox.processes().is_empty(), "no process is left");
    let duration = sandbox.events("restart_done")[0]["took_ms"].as_u64().unwrap_or_default();
    sandbox.assert(
        duration >= 6_000,
        &format!("SIGKILL follows SIGTERM after 5 s; the command ended after {duration} ms"),
    );
}

#[test]
fn a_daemon_started_by_a_command_neither_blocks_the_tick_nor_is_killed() {
    let daemon = "setsid sh -c 'echo $$ >> pids; exec sleep 600' & while ! test -s pids; do sleep 0.01; done; touch up";
    let sandbox = broken_target(&format!("\"{daemon}\""));
    let output = sandbox.run(&["--once"]);
    sandbox.assert(course(&sandbox) == "1.1 exited 0 up" && output.code == Some(0), &format!("{output:?}"));
    let alive = sandbox.alive_pids("pids");
    sandbox.assert(alive.len() == 1, "the daemon is alive");
    let output_file = fs::read_link(format!("/proc/{}/fd/1", alive[0])).expect("the daemon has its output open");
    sandbox.assert(
        output_file.starts_with(sandbox.path("state/incidents")),
        &format!("the output is {}", output_file.display()),
    );
}

#[test]
fn the_beginning_and_the_end_of_300_megabytes_of_output_are_kept() {
    let sandbox = broken_target("echo first; head -c 300000000 /dev/zero | tr '\\0' x; echo; echo last; touch up");
    let output = sandbox.run(&["--once"]);
    sandbox.assert(course(&sandbox) == "1.1 exited 0 up", &format!("{output:?}"));
    let output_file = output_path(&sandbox);
    sandbox.assert(
        fs::metadata(&output_file).is_ok_and(|output_file| output_file.len() <= KEPT_BYTES),
        "the output is cut",
    );
    let text = fs::read_to_string(output_file).expect("text");
    sandbox
        .assert(text.starts_with("first\nxxx") && text.ends_with("xxx\nlast\n"), "the beginning and the end are kept");
    sandbox.assert(text.contains(" bytes cut out here]"), "a line states how much was cut");
}

#[test]
fn a_child_that_prints_forever_survives_and_cannot_fill_the_disk() {
    let sandbox =
        broken_target("\"sh -c 'echo $$ >> pids; while test -e pids; do seq 2000; sleep 0.02; done' & touch up\"");
    let output = sandbox.run(&["--once"]);
    sandbox.assert(course(&sandbox) == "1.1 exited 0 up", &format!("{output:?}"));
    let output_file = output_path(&sandbox);
    let length = || fs::metadata(&output_file).map_or(0, |output_file| output_file.len());
    sandbox.eventually("the child has printed more than is kept", || length() > 8 * KEPT_BYTES);
    let output = sandbox.run(&["--once"]);
    sandbox.assert(output.code == Some(0) && output.out.is_empty() && output.err.is_empty(), &format!("{output:?}"));
    let text = fs::read_to_string(&output_file).expect("text");
    sandbox.assert(text.contains(" bytes cut out here]"), "the tick has cut the output");
    sandbox.assert(sandbox.alive_pids("pids").len() == 1, "the child still runs");
    let cut = length();
    sandbox.eventually("the child prints more into the same file", || length() > cut);
}

#[test]
fn a_process_left_by_a_command_survives_the_end_of_the_watchdog() {
    for signal in [Signal::TERM, Signal::KILL] {
        let sandbox = broken_target("\"sh -c 'echo $$ >> pids; exec sleep 600' & touch up\"");
        let mut daemon = sandbox.start_daemon(&["run"]);
        sandbox.eventually("the target is repaired", || {
            !sandbox.events("up").is_empty() && sandbox.alive_pids("pids").len() == 1
        });
        daemon.signal(signal);
        daemon.child.wait().expect("a child can be waited for");
        sandbox.assert(sandbox.alive_pids("pids").len() == 1, &format!("the child survives {signal:?}"));
    }
}

/// Records the environment it runs in.
const INSPECT: &str = "pwd -P > $1.pwd\nenv > $1.env\ngrep -E '^Sig(Blk|Ign)' /proc/self/status > $1.signals\n\
                       ls /proc/self/fd > $1.fds\nls -l /proc/self/fd > $1.files\nreadlink /proc/self/fd/0 > $1.in\n\
                       touch up\n";

fn environment(sandbox: &Sandbox) -> BTreeMap<String, String> {
    let lines = sandbox.lines("seen.env");
    lines.iter().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

/// A signal mask from /proc, without the signals that only the C library uses.
#[track_caller]
fn signal_mask(sandbox: &Sandbox, file: &str, name: &str) -> u64 {
    let lines = sandbox.lines(file);
    let signal_mask =
        lines.iter().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{}", sandbox.dump()));
    u64::from_str_radix(signal_mask.trim(), 16).expect("a signal mask") & 0x7fff_ffff
}

#[test]
fn a_command_gets_the_promised_environment_and_inherits_nothing_else() {
    let sandbox = Sandbox::new(&format!(
        "env: {{GREETING: 'hello, ${{WHO}}', PATH: '${{PATH}}:/opt/of/the/operator'}}\n{LIMITS}    restart: [exit 9, \
         {{run: [sh, inspect.sh, seen]}}]\n"
    ));
    sandbox.write("inspect.sh", INSPECT);
    let config = sandbox.path("watchdog.yaml").display().to_string();
    let mut command = sandbox.command(&["--once", "-c", &config]);
    command.current_dir("/").env("WHO", "operator").env("OTHER", "passed on");
    let systemd =
        ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM", "INVOCATION_ID", "SYSTEMD_EXEC_PID"];
    command.envs(systemd.map(|name| (name, "/nowhere")));
    let output = CommandOutput::new(command.output().expect("the program runs"));
    sandbox
        .assert(course(&sandbox) == "1.1 exited 9 1.2 exited 0 up" && output.code == Some(0), &format!("{output:?}"));

    let seen = environment(&sandbox);
    let folder = sandbox.path(&incident_folder(&sandbox)).display().to_string();
    let down = sandbox.events("down").remove(0);
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
        sandbox.assert(seen.get(name).is_some_and(|seen| seen == value), &format!("{name}={value}, not {seen:?}"));
    }
    let path = seen.get("PATH").map(String::as_str).unwrap_or_default();
    sandbox.assert(path.ends_with(":/opt/of/the/operator"), &format!("PATH is the configured one: {path}"));
    for name in systemd {
        sandbox.assert(!seen.contains_key(name), &format!("{name} is not passed on"));
    }
    let own = sandbox.home().canonicalize().expect("the sandbox's folder");
    assert_eq!(Path::new(sandbox.read("seen.pwd").trim_end()), own, "the command runs in the configuration's folder");
    assert_eq!(sandbox.read("seen.in").trim_end(), "/dev/null");

    // For comparison, the test runs the same script.
    let mut reference = Command::new("sh");
    reference.args(["inspect.sh", "reference"]).current_dir(sandbox.home()).stdin(Stdio::null()).stderr(Stdio::null());
    assert!(reference.status().is_ok_and(|status| status.success()));
    assert_eq!(sandbox.read("seen.fds"), sandbox.read("reference.fds"), "{}", sandbox.read("seen.files"));
    assert_eq!(signal_mask(&sandbox, "seen.signals", "SigBlk:"), 0);
    let (seen, reference) =
        (signal_mask(&sandbox, "seen.signals", "SigIgn:"), signal_mask(&sandbox, "reference.signals", "SigIgn:"));
    assert_eq!(seen & !reference, 0, "{seen:x} against {reference:x}");
}

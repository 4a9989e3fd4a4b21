//! `--once` from cron. Between ticks the clock is moved by a time namespace, which changes the boot clock that the
//! watchdog computes with, but not the wall clock.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::sandbox::{CommandOutput, MISSING_PROGRAM, Sandbox, require};

/// A target that is healthy while the file `well` exists, with these further keys.
fn app(keys: &str) -> String {
    format!("targets:\n  - {{name: app, command: echo >> probes; test -e well, {keys}}}\n")
}

/// The command line that starts a program with the boot clock moved by this many seconds, and with another boot id to
/// simulate a reboot.
fn time_shift(seconds: i64, boot_id: Option<&str>) -> Vec<String> {
    let mut command_line: Vec<String> = ["unshare", "--map-root-user", "--time", "--boottime"].map(String::from).into();
    command_line.push(seconds.to_string());
    if let Some(boot_id) = boot_id {
        let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        command_line.extend(["--mount", "sh", "-c", script, boot_id].map(String::from));
    }
    command_line
}

/// Fails if this machine does not allow that.
fn require_time_shift(sandbox: &Sandbox, boot_id: Option<&str>) {
    let starter = time_shift(60, boot_id);
    let mut command = Command::new(&starter[0]);
    command.args(&starter[1..]).arg("true").current_dir(sandbox.home()).stderr(Stdio::null());
    require(command.status().expect(MISSING_PROGRAM).success(), "time and mount namespaces");
}

/// A tick at this many seconds from now.
#[track_caller]
fn tick(sandbox: &Sandbox, seconds: i64) -> CommandOutput {
    run(sandbox, &time_shift(seconds, None), &["--once"])
}

#[track_caller]
fn run(sandbox: &Sandbox, starter: &[String], args: &[&str]) -> CommandOutput {
    let starter: Vec<&str> = starter.iter().map(String::as_str).collect();
    CommandOutput::new(sandbox.command_through(&starter, args).output().expect(MISSING_PROGRAM))
}

/// A tick with this exit code that prints nothing.
#[track_caller]
fn check_silent(sandbox: &Sandbox, seconds: i64, code: i32) {
    let output = tick(sandbox, seconds);
    let expected = (Some(code), "", "");
    assert_eq!((output.code, output.out.as_str(), output.err.as_str()), expected, "at {seconds} s; {}", sandbox.dump());
}

/// A tick with this exit code that prints these lines, each given by its beginning and a part of it.
#[track_caller]
fn check_prints(sandbox: &Sandbox, seconds: i64, code: i32, expected: &[(&str, &str)]) {
    let output = tick(sandbox, seconds);
    let lines: Vec<&str> = output.out.lines().collect();
    let fits = lines.len() == expected.len()
        && lines.iter().zip(expected).all(|(line, (begin, part))| line.starts_with(begin) && line.contains(part));
    let is_expected = output.code == Some(code) && fits && output.err.is_empty();
    sandbox.assert(is_expected, &format!("at {seconds} s, expected {expected:#?}: {output:#?}"));
}

const REPAIR_LINES: [(&str, &str); 3] = [
    ("app down: 3 of 3, the last: exit 1. ", "Last healthy probe "),
    ("app restart 1 (of 10 an hour): ", "touch well"),
    ("app healthy: ", "Restart 1 helped"),
];

/// Without `retry_interval` each tick makes one probe, and the third failed one causes the restart.
#[cfg(feature = "full-tests")]
#[test]
fn failures_are_counted_across_ticks_until_a_restart() {
    for every in [60, 300] {
        let sandbox = Sandbox::new(&app("restart: touch well"));
        require_time_shift(&sandbox, None);
        sandbox.write("well", "");
        check_silent(&sandbox, 0, 0);
        fs::remove_file(sandbox.path("well")).expect("file access");
        check_silent(&sandbox, every, 1);
        check_silent(&sandbox, 2 * every, 1);
        assert_eq!(sandbox.lines("probes").len(), 3, "{}", sandbox.dump());
        check_prints(&sandbox, 3 * every, 0, &REPAIR_LINES);
        check_silent(&sandbox, 4 * every, 0);
        let down = sandbox.events("up")[0]["down_ms"].as_i64().expect("a number");
        // Downtime counts from the last healthy probe, because the failure may have begun right after it.
        assert!((3 * every * 1_000..4 * every * 1_000).contains(&down), "{}", sandbox.dump());
        assert_eq!((sandbox.events("failing").len(), sandbox.events("down").len()), (1, 1), "{}", sandbox.dump());
        // Only the last of the four spans lies between two healthy probes.
        let status = run(&sandbox, &time_shift(4 * every, None), &["status", "--json"]);
        let status: Value = serde_json::from_str(&status.out).expect("valid JSON");
        let uptime = status["targets"][0]["uptime_24h"].as_f64().expect("a number");
        sandbox.assert((0.2..=0.3).contains(&uptime), &status.to_string());
    }
}

/// A pause counts neither as up nor as down, gaps longer than an hour count as not watched, and missing ticks are
/// reported.
#[cfg(feature = "full-tests")]
#[test]
fn time_without_ticks_counts_as_not_watched() {
    let sandbox = Sandbox::new(&app("restart: 'true'"));
    require_time_shift(&sandbox, None);
    let report = |seconds: i64| {
        let output = run(&sandbox, &time_shift(seconds, None), &["report", "--json"]);
        let report: Value = serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let target = &report["targets"][0];
        let watched = target["watched_ms"].as_i64().expect("a number") / 10_000;
        (watched, report["not_watched"].as_array().expect("a list").len())
    };
    sandbox.write("well", "");
    [0, 60, 120].into_iter().for_each(|at| check_silent(&sandbox, at, 0));
    assert_eq!(report(120), (12, 0), "{}", sandbox.dump());
    check_silent(&sandbox, 120 + 2_400, 0);
    assert_eq!(
        report(2_520),
        (252, 1),
        "within an hour both probes count, but 40 ticks are missing; {}",
        sandbox.dump()
    );
    check_silent(&sandbox, 2_520 + 7_200, 0);
    assert_eq!(report(9_720), (252, 2), "two hours were not watched; {}", sandbox.dump());
    let pause = run(&sandbox, &time_shift(9_721, None), &["pause", "--for", "10m"]);
    assert_eq!(pause.code, Some(0), "{pause:?}");
    [9_780, 9_840, 9_900].into_iter().for_each(|at| check_silent(&sandbox, at, 0));
    assert_eq!(report(9_900), (252, 2), "paused; {}", sandbox.dump());
}

/// With `retry_interval`, the tick that finds the first failure probes until the outcome is clear.
#[cfg(feature = "full-tests")]
#[test]
fn with_a_retry_interval_one_tick_decides() {
    for every in [60, 300] {
        let sandbox = Sandbox::new(&app("restart: touch well, retry_interval: 100ms"));
        require_time_shift(&sandbox, None);
        sandbox.write("well", "");
        check_silent(&sandbox, 0, 0);
        fs::remove_file(sandbox.path("well")).expect("file access");
        check_prints(&sandbox, every, 0, &REPAIR_LINES);
        assert_eq!(sandbox.lines("probes").len(), 1 + 3 + 1, "{}", sandbox.dump());
        check_silent(&sandbox, 2 * every, 0);
        // A target that fails once and is healthy at the second probe is not down and causes no output.
        let keys = app("restart: echo >> restarts, retry_interval: 100ms");
        sandbox.configure(&keys.replace("test -e well", "test -e well; code=$?; touch well; exit $code"));
        fs::remove_file(sandbox.path("well")).expect("file access");
        check_silent(&sandbox, 3 * every, 0);
        assert_eq!(sandbox.events("failing").len(), 2, "{}", sandbox.dump());
        assert!(sandbox.lines("restarts").is_empty(), "{}", sandbox.dump());
    }
}

/// Failures older than half an hour do not count if ticks usually come every minute.
#[cfg(feature = "full-tests")]
#[test]
fn failures_from_an_hour_ago_do_not_count() {
    let sandbox = Sandbox::new(&app("restart: touch well, failure_threshold: 2"));
    require_time_shift(&sandbox, None);
    sandbox.write("well", "");
    for minute in 0..3 {
        check_silent(&sandbox, minute * 60, 0);
    }
    fs::remove_file(sandbox.path("well")).expect("file access");
    check_silent(&sandbox, 180, 1);
    check_silent(&sandbox, 3_780, 1);
    assert!(sandbox.events("down").is_empty(), "{}", sandbox.dump());
    check_prints(&sandbox, 3_840, 0, &[("app down: 2 of 2", ""), ("app restart 1 ", ""), ("app healthy: ", "")]);
}

/// Some hosts allow a cron job only every 45 or 60 minutes. There a threshold of three must not take three hours: once
/// the rare ticks are known, the tick that finds a failure decides.
#[cfg(feature = "full-tests")]
#[test]
fn one_tick_decides_if_ticks_are_rare() {
    let expected = [("app down: 3 of 3", ""), ("app restart 1 ", ""), ("app healthy: ", "")];
    for every in [2_700, 3_600] {
        let sandbox = Sandbox::new(&app("restart: touch well, interval: 200ms"));
        require_time_shift(&sandbox, None);
        sandbox.write("well", "");
        check_silent(&sandbox, 0, 0);
        check_silent(&sandbox, every, 0);
        fs::remove_file(sandbox.path("well")).expect("file access");
        check_prints(&sandbox, 2 * every, 0, &expected);
        assert_eq!(sandbox.lines("probes").len(), 2 + 3 + 1, "{}", sandbox.dump());
        // A target that fails once and is healthy at the next probe causes no output, and a manual tick changes
        // nothing.
        sandbox.configure(
            &app("restart: echo >> restarts, interval: 200ms")
                .replace("test -e well", "test -e well; code=$?; touch well; exit $code"),
        );
        fs::remove_file(sandbox.path("well")).expect("file access");
        check_silent(&sandbox, 3 * every, 0);
        check_silent(&sandbox, 3 * every + 10, 0);
        check_silent(&sandbox, 4 * every, 0);
        assert!(sandbox.lines("restarts").is_empty(), "{}", sandbox.dump());

        // A target that was down before the first tick: the second tick knows of the first failure, and decides.
        let sandbox = Sandbox::new(&app("restart: touch well, interval: 200ms"));
        check_silent(&sandbox, 0, 1);
        check_prints(&sandbox, every, 0, &expected);
    }
}

/// Two hours of one tick a minute while no restart helps: the restart command's own time stamps respect cooldown and
/// window, and cron mails only what is new.
#[cfg(feature = "full-tests")]
#[test]
fn a_target_that_stays_down_is_restarted_within_its_limits_and_mailed_about_rarely() {
    let keys = "restart: cut -d . -f 1 /proc/uptime >> stamps, failure_threshold: 1, start_period: 0s, \
                max_restarts: 4";
    let sandbox = Sandbox::new(&app(keys));
    require_time_shift(&sandbox, None);
    sandbox.write("well", "");
    check_silent(&sandbox, 0, 0);
    fs::remove_file(sandbox.path("well")).expect("file access");
    let mut lines_printed = Vec::new();
    for minute in 1..=120 {
        let output = tick(&sandbox, minute * 60);
        assert_eq!((output.code, output.err.as_str()), (Some(1), ""), "{}", sandbox.dump());
        lines_printed.extend(output.out.lines().map(str::to_string));
    }
    let stamps: Vec<u64> =
        sandbox.lines("stamps").iter().map(|line| line.parse().expect("a number of seconds")).collect();
    sandbox.assert(stamps.len() == 8, &format!("four restarts in an hour are allowed: {stamps:?}"));
    for (index, pair) in stamps.windows(2).enumerate() {
        let cooldown = (60 << index).min(600);
        sandbox.assert(pair[1] - pair[0] + 1 >= cooldown, &format!("cooldown of {cooldown} s: {stamps:?}"));
    }
    for five in stamps.windows(5) {
        sandbox.assert(five[4] - five[0] + 1 >= 3_600, &format!("at most four in an hour: {stamps:?}"));
    }
    let incident: Value = serde_json::from_str(&sandbox.run(&["incident", "last", "--json"]).out).expect("valid JSON");
    sandbox.assert(incident["attempts"] == 8, &incident.to_string());
    let count = |what: &str| lines_printed.iter().filter(|line| line.starts_with(what)).count();
    let counts = (count("app down: "), count("app restart "), count("app not restarted until "));
    sandbox.assert(counts.0 == 1 && counts.1 == 8, &format!("{lines_printed:#?}"));
    sandbox.assert((2..=8).contains(&counts.2) && lines_printed.len() == 9 + counts.2, &format!("{lines_printed:#?}"));

    let is_full_window =
        |line: &String| line.ends_with("4 restarts in the last hour is the limit. Probing goes on at every tick");
    sandbox
        .assert(lines_printed.iter().any(is_full_window), &format!("the full window is reported: {lines_printed:#?}"));
}

#[cfg(feature = "full-tests")]
#[test]
fn a_reboot_ends_the_cooldown_but_not_the_restart_window() {
    let keys = "restart: echo $WATCHDOG_ATTEMPT >> restarts, failure_threshold: 1, start_period: 0s, cooldown: 1h, \
                max_cooldown: 1h, max_restarts: 2, restart_window: 1d";
    let sandbox = Sandbox::new(&app(keys));
    sandbox.write("boot", "11111111-2222-3333-4444-555555555555\n");
    require_time_shift(&sandbox, Some("boot"));
    sandbox.write("well", "");
    check_silent(&sandbox, 0, 0);
    fs::remove_file(sandbox.path("well")).expect("file access");
    check_prints(&sandbox, 0, 1, &[("app down: ", ""), ("app restart 1 ", "")]);
    check_prints(&sandbox, 60, 1, &[("app not restarted until ", "cooldown")]);
    let after_boot = |boot_id: &str, uptime: f64| {
        sandbox.write("boot", boot_id);
        let now: f64 = fs::read_to_string("/proc/uptime")
            .expect("/proc is there")
            .split(' ')
            .next()
            .and_then(|word| word.parse().ok())
            .expect("a number of seconds");
        run(&sandbox, &time_shift((uptime - now) as i64, Some("boot")), &["--once"])
    };
    let output = after_boot("11111111-2222-3333-4444-555555555555\n", 120.0);
    sandbox.assert(output.code == Some(1) && output.out.starts_with("app restart 1 (2 of 2 "), &format!("{output:?}"));
    let output = after_boot("66666666-7777-8888-9999-000000000000\n", 120.0);
    sandbox.assert(output.code == Some(1) && output.out.contains("limit"), &format!("{output:?}"));
    // The boot started a new episode, so both restarts were attempt 1.
    assert_eq!(sandbox.lines("restarts"), ["1", "1"], "{}", sandbox.dump());
    assert_eq!(sandbox.events("down").len(), 1, "{}", sandbox.dump());

    // Right after a boot failures do not count yet, and the tick waits until the target is up.
    sandbox.configure(&app("restart: echo $WATCHDOG_ATTEMPT >> restarts, failure_threshold: 1, start_period: 1m"));
    let probes = sandbox.lines("probes").len();
    let output = thread::scope(|scope| {
        scope.spawn(|| {
            sandbox.eventually("the tick probes twice", || sandbox.lines("probes").len() >= probes + 2);
            sandbox.write("well", "");
        });
        after_boot("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee\n", 5.0)
    });
    sandbox.assert(output.code == Some(0) && output.out.starts_with("app healthy: "), &format!("{output:?}"));
    assert_eq!(sandbox.lines("restarts").len(), 2, "{}", sandbox.dump());
}

#[test]
fn a_tick_makes_one_attempt_per_target() {
    let target = |name: &str| {
        format!(
            "  - {{name: {name}, command: test -e well, failure_threshold: 1, start_period: 0s, cooldown: 0s, \
             retry_interval: 100ms, restart: echo {name} >> restarts}}\n"
        )
    };
    let sandbox = Sandbox::new(&format!("targets:\n{}{}", target("a"), target("b")));
    sandbox.write("well", "");
    assert_eq!(sandbox.run(&["--once"]).code, Some(0), "{}", sandbox.dump());
    fs::remove_file(sandbox.path("well")).expect("file access");
    assert_eq!(sandbox.run(&["--once"]).code, Some(1), "{}", sandbox.dump());
    let mut restarts = sandbox.lines("restarts");
    restarts.sort();
    assert_eq!(restarts, ["a", "b"], "{}", sandbox.dump());
}

#[test]
fn a_tick_waits_until_the_restarted_target_is_up() {
    let sandbox = Sandbox::new(&app(
        "failure_threshold: 1, start_period: 1m, restart: '(sleep 1.5; touch well) > /dev/null 2>&1 &'",
    ));
    let output = sandbox.run(&["--once"]);
    sandbox.assert(output.code == Some(0) && output.out.contains(" helped"), &format!("{output:?}"));
    assert_eq!(sandbox.events("up").len(), 1, "{}", sandbox.dump());

    // A tick stops waiting when the start period is over.
    let sandbox = Sandbox::new(&app("failure_threshold: 1, start_period: 2s, restart: echo >> restarts"));
    let output = sandbox.run(&["--once"]);
    assert_eq!((output.code, sandbox.lines("restarts").len()), (Some(1), 1), "{}", sandbox.dump());
    sandbox.assert(sandbox.lines("probes").len() >= 2, "the tick probes after the restart");
}

#[test]
fn a_tick_next_to_a_daemon_answers_from_the_saved_state() {
    let sandbox = Sandbox::new(&app("interval: 100ms, failure_threshold: 1"));
    sandbox.write("well", "");
    let _daemon = sandbox.start_daemon(&["run"]);
    let check = |state: &str, code| {
        sandbox.eventually(state, || sandbox.target("app")["state"] == state);
        let output = sandbox.run(&["--once"]);
        assert_eq!((output.code, output.out.as_str(), output.err.as_str()), (Some(code), "", ""), "{}", sandbox.dump());
    };
    check("healthy", 0);
    fs::remove_file(sandbox.path("well")).expect("file access");
    check("down", 1);
}

/// A probe that cannot be made is the watchdog's problem and no reason for a restart.
#[test]
fn a_tick_that_cannot_probe_exits_4_and_restarts_nothing() {
    let sandbox = Sandbox::new(
        "targets:\n  - {name: app, command: [./nowhere], failure_threshold: 1, retry_interval: 100ms, \
         restart: echo >> restarts}\n",
    );
    for _ in 0..3 {
        assert_eq!(sandbox.run(&["--once"]).code, Some(4), "{}", sandbox.dump());
    }
    assert!(sandbox.lines("restarts").is_empty() && sandbox.events("failing").is_empty(), "{}", sandbox.dump());
    // One target that can be probed is enough.
    let more = "  - {name: other, file: {path: watchdog.yaml, max_age: 1d}}\n";
    sandbox.configure(&format!("targets:\n  - {{name: app, command: [./nowhere]}}\n{more}"));
    assert_eq!(sandbox.run(&["--once"]).code, Some(0), "{}", sandbox.dump());
}

/// Such as one written while the clock was ahead, or by another machine.
#[test]
fn a_file_dated_in_the_future_becomes_stale() {
    let sandbox = Sandbox::new("targets:\n  - {name: app, file: {path: beat, max_age: 1s}, interval: 100ms}\n");
    sandbox.write("beat", "");
    let beat = |days: u64| {
        let time = SystemTime::now() + Duration::from_secs(86_400 * days);
        fs::File::open(sandbox.path("beat")).and_then(|file| file.set_modified(time)).expect("the test owns the file");
    };
    let tick = || sandbox.run(&["--once"]).code;
    for days in [10, 20] {
        beat(days);
        sandbox.assert(tick() == Some(0), "the file counts as just written");
        sandbox.eventually("the file is stale", || tick() == Some(1));
    }
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the file is still stale", || sandbox.target("app")["last_probe"]["class"] == "stale");
    beat(30);
    sandbox.eventually("the rewritten file is healthy", || sandbox.target("app")["state"] == "healthy");
    sandbox.eventually("the file is stale again", || sandbox.target("app")["last_probe"]["class"] == "stale");
    assert!(daemon.stop().success());
}

#[cfg(feature = "full-tests")]
#[test]
fn on_a_terminal_a_tick_names_each_unhealthy_target() {
    let sandbox = Sandbox::new(&app("restart: touch well"));
    let tick = || {
        let mut script = Command::new("script");
        let program = concat!(env!("CARGO_BIN_EXE_watchdog"), " --once");
        script.args(["-qec", program, "typescript"]).current_dir(sandbox.home()).env("HOME", sandbox.home());
        CommandOutput::new(script.stdin(Stdio::null()).output().expect(MISSING_PROGRAM))
    };
    let output = tick();
    sandbox.assert(output.code == Some(1) && output.out.contains("app is failing: "), &format!("{output:?}"));
    sandbox.write("well", "");
    let output = tick();
    sandbox.assert(output.code == Some(0) && !output.out.contains("app is "), &format!("{output:?}"));
}

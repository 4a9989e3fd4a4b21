//! Faults of the machine: no file descriptors, no processes, no disk space, a changed clock, countless reloads, and
//! folders replaced underneath. The watchdog continues, restarts no target for them, and recovers.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use crate::faults::{Behaviour, Server};
use crate::sandbox::{MISSING_PROGRAM, Sandbox, event_time, faketime_library, require, send_signal};

/// A restart would create a file.
const DEFAULTS: &str = "defaults: {interval: 100ms, timeout: 2s, failure_threshold: 2, start_period: 0s, cooldown: 1s, \
                    max_cooldown: 1s}\n";

fn watched_target(port: u16) -> String {
    format!("{DEFAULTS}targets:\n  - {{name: a, http: 'http://127.0.0.1:{port}/', restart: touch restarted}}\n")
}

fn set_limit(pid: i32, resource: Resource, current: Option<u64>) {
    let pid = Pid::from_raw(pid).expect("a process");
    let maximum = getrlimit(resource).maximum;
    prlimit(Some(pid), resource, Rlimit { current, maximum }).expect("the limit can be set");
}

/// The verdict of the last probe, from `status`.
fn verdict(sandbox: &Sandbox) -> String {
    sandbox.target("a")["last_probe"]["verdict"].as_str().unwrap_or_default().to_owned()
}

/// Takes a resource away from a running watchdog and gives it back: the log must name it, and no target may suffer.
#[track_caller]
fn check_without(sandbox: &Sandbox, server: &Server, take: impl FnOnce(), give: impl FnOnce(), log_text: &str) {
    let probes = server.requests().len();
    take();
    sandbox.wait_for_log(log_text);
    give();
    sandbox.eventually("probes continue", || server.requests().len() > probes + 10);
    let is_healthy = |line: &str| line.contains("a healthy: 200 in ");
    sandbox.eventually("the target is healthy", || sandbox.log().lines().last().is_some_and(is_healthy));
    sandbox.assert(!sandbox.path("restarted").exists(), "the watchdog's own problem restarts nothing");
    sandbox.assert(sandbox.events("down").is_empty(), "no target is down");
}

#[test]
fn without_file_descriptors_probes_are_unknown_until_there_are_some_again() {
    let server = Server::start(Behaviour::answer("200 OK", "ok"));
    let sandbox = Sandbox::new(&watched_target(server.port()));
    let daemon = sandbox.start_daemon(&["-v", "run"]);
    sandbox.eventually("the target is healthy", || verdict(&sandbox) == "healthy");
    let pid = daemon.pid();
    let take = || set_limit(pid, Resource::Nofile, Some(4));
    let give = || set_limit(pid, Resource::Nofile, Some(1_024));
    check_without(&sandbox, &server, take, give, "a unknown: cannot connect to ");
}

#[cfg(feature = "full-tests")]
#[test]
fn without_processes_probes_are_unknown_until_there_are_some_again() {
    const NOBODY: u32 = 65_534;
    const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    // A probe of each target is always running, so the one parked worker is not enough.
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    let server = Server::start(Behaviour::Slow(vec![(Duration::from_millis(300), answer)]));
    let other = format!("  - {{name: b, http: 'http://127.0.0.1:{}/'}}\n", server.port());
    let sandbox = Sandbox::new(&(watched_target(server.port()) + &other));
    // The limit belongs to an account, and root has none: a test run by root uses a copy of the program as nobody.
    let is_root = rustix::process::geteuid().is_root();
    let starter = if is_root { &AS_NOBODY[..] } else { &["env"] };
    let forks = ["sh", "-c", "ulimit -Su 0 && (true) && echo forked"];
    let tried = Command::new(starter[0]).args(&starter[1..]).args(forks).output().expect(MISSING_PROGRAM);
    let is_limited = !String::from_utf8_lossy(&tried.stdout).contains("forked");
    require(is_limited, "a machine that enforces RLIMIT_NPROC");
    let program = sandbox.path("program");
    fs::copy(env!("CARGO_BIN_EXE_watchdog"), &program).expect("the program is copied");
    let mut command = sandbox.command(&[]);
    if is_root {
        for path in [sandbox.home(), &sandbox.path("watchdog.yaml"), &program] {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("root may change owners");
        }
        command = Command::new(AS_NOBODY[0]);
        command.args(&AS_NOBODY[1..]).arg(&program).args(["-v", "run"]);
        command.current_dir(sandbox.home()).env("HOME", sandbox.home());
    } else {
        command.args(["-v", "run"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let daemon = sandbox.start_daemon_from(command);
    sandbox.eventually("the target is healthy", || server.requests().len() > 5);
    let pid = daemon.pid();
    // Only the same account may set the limit.
    let set_limit = |soft: &str| {
        let mut command = Command::new(starter[0]);
        command.args(&starter[1..]).args(["prlimit", &format!("--pid={pid}"), &format!("--nproc={soft}:")]);
        assert!(command.status().expect(MISSING_PROGRAM).success(), "{command:?}");
    };
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("the process is alive");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max processes")).expect("a limit");
    let hard = line.split_whitespace().nth(1).expect("the hard limit").to_owned();
    let refused = || sandbox.log().matches(" unknown: the probe could not be made").count();
    let take = || {
        set_limit("0");
        sandbox.eventually("several probes are refused", || refused() > 3);
    };
    let give = || set_limit(&hard);
    check_without(&sandbox, &server, take, give, "cannot start a thread for ");
    let reports = sandbox.log().matches("cannot start a thread for").count();
    sandbox.assert(reports == 1, &format!("reported once, not {reports} times"));
}

/// A pause requested while the clock is off by years has its full length.
#[cfg(feature = "full-tests")]
#[test]
fn a_pause_has_its_length_whatever_the_clock_says() {
    for offset in ["+3650d", "-3650d"] {
        let sandbox = Sandbox::new("targets:\n  - {name: a, command: 'true', interval: 100ms}\n");
        let paused = || sandbox.target("a")["state"] == "paused";
        let pause = |length: &str| {
            let mut command = sandbox.command(&["pause", "--for", length]);
            command.env("LD_PRELOAD", faketime_library()).env("FAKETIME", offset).env("DONT_FAKE_MONOTONIC", "1");
            assert!(command.output().expect("the program runs").status.success());
        };
        // For the next tick, which finds the request in the state folder.
        sandbox.run(&["--once"]);
        pause("30m");
        sandbox.run(&["--once"]);
        let until = sandbox.target("a")["paused_until"].as_str().map(str::to_owned);
        let until = until.and_then(|until| humantime::parse_rfc3339(&until).ok());
        let left = until.and_then(|until| until.duration_since(SystemTime::now()).ok());
        let is_expected = left.is_some_and(|left| (1_500..=1_800).contains(&left.as_secs()));
        sandbox.assert(is_expected, &format!("about 30 min at {offset}: {left:?}"));
        assert_eq!(sandbox.run(&["resume"]).code, Some(0));
        // For a running watchdog, which ends the pause itself.
        let daemon = sandbox.start_daemon(&["run"]);
        sandbox.eventually("the target is not paused", || !paused());
        pause("5s");
        sandbox.assert(paused(), "the pause is applied");
        sandbox.eventually("the pause ends", || !paused());
        assert!(daemon.stop().success());
    }
}

#[cfg(feature = "full-tests")]
#[test]
fn changing_the_wall_clock_affects_no_limit() {
    let sandbox = Sandbox::new(
        "defaults: {interval: 100ms, failure_threshold: 1, start_period: 0s, cooldown: 2s, max_cooldown: 2s, \
         max_restarts: 3, restart_window: 1d}\ntargets:\n  - {name: a, command: test -e well && touch seen, restart: \
         cut -d ' ' -f 1 /proc/uptime >> stamps}\n",
    );
    let set_clock = |offset: &str| {
        sandbox.write("clock.new", offset);
        fs::rename(sandbox.path("clock.new"), sandbox.path("clock")).expect("renamed");
    };
    set_clock("+0");
    sandbox.write("well", "");
    let mut command = sandbox.command(&["run"]);
    command.env("LD_PRELOAD", faketime_library()).env("FAKETIME_TIMESTAMP_FILE", sandbox.path("clock"));
    command.env("FAKETIME_NO_CACHE", "1").env("DONT_FAKE_MONOTONIC", "1");
    let _daemon = sandbox.start_daemon_from(command);
    sandbox.eventually("the target is healthy", || sandbox.path("seen").exists());
    fs::remove_file(sandbox.path("well")).expect("the file exists");
    let stamps =
        || sandbox.lines("stamps").iter().map(|line| line.parse().expect("a number of seconds")).collect::<Vec<f64>>();
    sandbox.eventually("the first restart", || stamps().len() == 1);
    set_clock("+3d");
    sandbox.eventually("the second restart", || stamps().len() == 2);
    set_clock("-9d");
    sandbox.eventually("the third restart", || stamps().len() == 3);
    set_clock("+40d");
    let (count, began) = (stamps().len(), Instant::now());
    sandbox.eventually("no fourth restart, although the wall clock has passed the window", || {
        began.elapsed() > Duration::from_secs(4) || stamps().len() > count
    });
    let stamps = stamps();
    sandbox.assert(stamps.len() == 3, &format!("{stamps:?}"));
    sandbox.assert(stamps.windows(2).all(|pair| pair[1] - pair[0] > 1.9), &format!("{stamps:?}"));
    sandbox.assert(sandbox.events("stalled").is_empty(), "a changed clock is not a gap");
    let events = sandbox.read("state/events.jsonl");
    let lines_with = |word: &str| events.lines().filter(|line| line.contains(word)).count();
    sandbox.assert(lines_with("\"restart\"") >= 3, &events);
}

/// Times measured while the wall clock is more than a year ahead keep their length, and nothing recorded is lost.
#[cfg(feature = "full-tests")]
#[test]
fn a_temporarily_wrong_wall_clock_distorts_no_record() {
    let sandbox = Sandbox::new(
        "defaults: {interval: 100ms, timeout: 10s}\ntargets:\n  - {name: a, command: touch probed; test ! -e sick}\n",
    );
    let with_fake_clock = |mut command: Command| {
        command.env("LD_PRELOAD", faketime_library());
        command.env("FAKETIME_TIMESTAMP_FILE", sandbox.path("clock")).env("FAKETIME_NO_CACHE", "1");
        command.env("DONT_FAKE_MONOTONIC", "1");
        command
    };
    let set_clock = |offset: &str| {
        sandbox.write("clock.new", offset);
        fs::rename(sandbox.path("clock.new"), sandbox.path("clock")).expect("renamed");
    };
    let output = |args: &[&str]| with_fake_clock(sandbox.command(args)).output().expect("the program runs").stdout;
    let json = |args: &[&str]| serde_json::from_slice::<serde_json::Value>(&output(args)).expect("valid JSON");
    let report = || json(&["report", "--json"]);
    let watched = || report()["targets"][0]["watched_ms"].as_i64().unwrap_or(0);
    set_clock("+0");
    let daemon = sandbox.start_daemon_from(with_fake_clock(sandbox.command(&["run"])));
    sandbox.eventually("a second is recorded as watched", || watched() >= 1_000);
    let before = watched();
    set_clock("+400d");
    sandbox.eventually("watching continues", || (1_000..before).contains(&watched()) || watched() > before);
    sandbox.write("sick", "");
    sandbox.eventually("the target is down", || !sandbox.events("down").is_empty());
    set_clock("-400d");
    let so_far = || json(&["incident", "last", "--json"])["down_ms"].as_i64();
    sandbox.eventually("the incident lasts", || so_far() >= Some(1));
    sandbox.assert(so_far() < Some(60_000), &format!("{:?}", so_far()));
    fs::remove_file(sandbox.path("sick")).expect("the file exists");
    sandbox.eventually("the target is up", || !sandbox.events("up").is_empty());
    daemon.kill();
    set_clock("+0");
    let daemon = sandbox.start_daemon_from(with_fake_clock(sandbox.command(&["run"])));
    sandbox.eventually("the recorded time is kept", || watched() > before);
    let (report, up) = (report(), &sandbox.events("up")[0]);
    let is_short = |value: &serde_json::Value| value.as_i64().is_some_and(|ms| ms < 120_000);
    sandbox.assert(is_short(&report["watched_ms"]) && is_short(&up["down_ms"]), &report.to_string());
    let gaps = report["not_watched"].as_array().expect("a list");
    let has_current_year =
        |gap: &serde_json::Value| gap["from"].as_str().map(|at| &at[..4]) == report["at"].as_str().map(|at| &at[..4]);
    sandbox.assert(gaps.iter().all(has_current_year), &report.to_string());
    daemon.stop();
}

#[test]
fn a_hundred_reloads_a_second_disturb_nothing() {
    let server = Server::start(Behaviour::answer("200 OK", "ok"));
    let sandbox = Sandbox::new(&watched_target(server.port()));
    let valid = sandbox.read("watchdog.yaml");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || verdict(&sandbox) == "healthy");
    let replace_config = |text: &str| {
        sandbox.write("watchdog.new", text);
        fs::set_permissions(sandbox.path("watchdog.new"), Permissions::from_mode(0o600)).expect("the test owns it");
        fs::rename(sandbox.path("watchdog.new"), sandbox.path("watchdog.yaml")).expect("renamed");
    };
    let before = server.requests().len();
    for round in 0..300 {
        match round % 3 {
            0 => replace_config("targets: [{name: a}]\n"),
            1 => replace_config(&valid),
            _ => replace_config(&format!("{valid}  - {{name: b, command: 'true'}}\n")),
        }
        send_signal(daemon.pid(), Signal::HUP);
        std::thread::sleep(Duration::from_millis(10));
    }
    replace_config(&valid);
    send_signal(daemon.pid(), Signal::HUP);
    sandbox.eventually("the last file is loaded", || sandbox.target("b").is_null() && verdict(&sandbox) == "healthy");
    sandbox.eventually("probes continued", || server.requests().len() > before + 10);
    sandbox.assert(
        !sandbox.events("reload_failed").is_empty() && !sandbox.events("reloaded").is_empty(),
        "valid and invalid files were read",
    );
    sandbox.assert(!sandbox.path("restarted").exists() && sandbox.events("down").is_empty(), "nothing was restarted");
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_state_folder_replaced_by_a_link_is_not_written_through() {
    let server = Server::start(Behaviour::answer("200 OK", "ok"));
    let sandbox = Sandbox::new(&watched_target(server.port()));
    let elsewhere = tempfile::tempdir().expect("folder access");
    // World-writable, so files there may belong to anyone.
    fs::set_permissions(elsewhere.path(), Permissions::from_mode(0o777)).expect("the test owns it");
    let _daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || verdict(&sandbox) == "healthy");
    let probes = server.requests().len();
    fs::rename(sandbox.path("state"), sandbox.path("before")).expect("renamed");
    symlink(elsewhere.path(), sandbox.path("state")).expect("link created");
    sandbox.eventually("probes continue", || server.requests().len() > probes + 20);
    let written = fs::read_dir(elsewhere.path()).expect("the test owns it").count();
    sandbox.assert(written == 0, "nothing is written through the link");
    fs::remove_file(sandbox.path("state")).expect("link created");
    fs::rename(sandbox.path("before"), sandbox.path("state")).expect("renamed");
    server.set_behaviour(Behaviour::answer("503 Busy", "no"));
    sandbox.eventually("the target is restarted", || sandbox.path("restarted").exists());
}

/// A full disk for state, log, incidents and outbox at once, and then space again.
#[cfg(feature = "full-tests")]
#[test]
fn with_a_full_disk_repairs_and_messages_continue() {
    let (receiver, backend) =
        (Server::start(Behaviour::answer("200 OK", "ok")), Server::start(Behaviour::answer("200 OK", "ok")));
    let sandbox = Sandbox::new(&format!(
        "{DEFAULTS}log: {{file: state/watchdog.log}}\nnotify: [{{webhook: 'http://127.0.0.1:{}/'}}]\n\
         page: state/page.html\ntargets:\n  - {{name: a, http: 'http://127.0.0.1:{}/',\n      \
         restart: touch restarted, diagnose: ls}}\n",
        receiver.port(),
        backend.port()
    ));
    let disk = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        "mkdir -p state && mount -t tmpfs -o size=256k,mode=0700 tmpfs state || exit 99; exec \"$0\" \"$@\"",
    ];
    let mounted = sandbox.command_through(&disk, &["--version"]).output().expect(MISSING_PROGRAM);
    require(mounted.status.success(), "a mount namespace");
    let daemon = sandbox.spawn_daemon_from(sandbox.command_through(&disk, &["run"]));
    let inside = |name: &str| format!("/proc/{}/root{}", daemon.pid(), sandbox.path("state").join(name).display());
    let read = |name: &str| fs::read_to_string(inside(name)).unwrap_or_default();
    sandbox.eventually("the target is healthy", || read("page.html").contains("Everything is up"));
    let filled =
        fs::File::create(inside("filler")).and_then(|mut file| std::io::copy(&mut std::io::repeat(0), &mut file));
    assert!(filled.is_err());
    backend.set_behaviour(Behaviour::answer("503 Busy", "no"));
    sandbox.eventually("the target is restarted", || sandbox.path("restarted").exists());
    sandbox
        .eventually("the message arrives", || receiver.requests().iter().any(|request| request.contains("[DOWN] a")));
    backend.set_behaviour(Behaviour::answer("200 OK", "ok"));
    sandbox.eventually("the `up` message arrives", || {
        receiver.requests().iter().any(|request| request.contains("[up] a"))
    });
    fs::remove_file(inside("filler")).expect("the file exists");
    backend.set_behaviour(Behaviour::answer("503 Busy", "no"));
    sandbox.eventually("the state is saved again", || read("state.json").contains("\"condition\":\"down\""));
    sandbox.eventually("events are written again", || read("events.jsonl").contains("\"restart_done\""));
    sandbox.eventually("incidents are recorded again", || {
        fs::read_dir(inside("incidents"))
            .is_ok_and(|mut all| all.any(|one| one.is_ok_and(|one| one.path().join("incident.json").exists())))
    });
    sandbox.eventually("the log is written again", || read("watchdog.log").contains("can be saved again"));
}

/// Saving takes longer than the longest gap allowed between two passes of the loop. That time is the watchdog's own
/// work and does not count as a gap.
#[cfg(feature = "full-tests")]
#[test]
fn a_very_slow_disk_does_not_prevent_repairs() {
    let sandbox = Sandbox::new(
        "defaults: {interval: 100ms, timeout: 1s, start_period: 0s}\n\
         targets:\n  - {name: a, command: test -e restarted, restart: touch restarted}\n",
    );
    let mut command = sandbox.command(&["run"]);
    command.env("LD_PRELOAD", sandbox.build_preload("slow.c")).env("DISK_MS", "2000");
    let daemon = sandbox.start_daemon_from(command);
    sandbox.eventually("the target is down", || !sandbox.events("down").is_empty());
    sandbox.assert(sandbox.events("stalled").is_empty(), "no gap is recorded");
    sandbox.eventually("the target is repaired", || !sandbox.events("up").is_empty());
    let (restart, done) = (&sandbox.events("restart")[0], &sandbox.events("restart_done")[0]);
    let took = event_time(done).duration_since(event_time(restart)).unwrap_or_default();
    sandbox.assert(took > Duration::from_secs(2), &format!("the disk is slow: {took:?}"));

    // A suspension during such a save is a gap.
    fs::remove_file(sandbox.path("restarted")).expect("the file exists");
    sandbox.eventually("a save has begun", || sandbox.path("state/state.tmp").exists());
    daemon.signal(Signal::STOP);
    let began = Instant::now();
    sandbox.eventually("the gap is long enough", || began.elapsed() > Duration::from_millis(4_500));
    daemon.signal(Signal::CONT);
    sandbox.eventually("the gap is recorded", || !sandbox.events("stalled").is_empty());
}

//! What the machine may do to it: no descriptors, no processes, no disk, another clock, orders without end, and folders
//! that are swapped under its feet. It goes on, restarts nothing for it, and is itself again when that is over.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use crate::faults::{Server, Ways};
use crate::place::{NEEDED, Place, at, faketime, need, send};

/// Quick enough for a test, and a restart would leave a file.
const WELL: &str = "defaults: {interval: 100ms, timeout: 2s, failure_threshold: 2, start_period: 0s, cooldown: 1s, \
                    max_cooldown: 1s}\n";

fn watching(port: u16) -> String {
    format!("{WELL}targets:\n  - {{name: a, http: 'http://127.0.0.1:{port}/', restart: touch restarted}}\n")
}

fn limit(pid: i32, resource: Resource, current: Option<u64>) {
    let pid = Pid::from_raw(pid).expect("a process");
    let maximum = getrlimit(resource).maximum;
    prlimit(Some(pid), resource, Rlimit { current, maximum }).expect("a limit of ours");
}

/// The verdict of the latest look, as it is in the state.
fn verdict(place: &Place) -> String {
    place.target("a")["last_probe"]["verdict"].as_str().unwrap_or_default().to_owned()
}

/// Takes something away from a watchdog at work and gives it back.
#[track_caller]
fn without(place: &Place, server: &Server, take: impl FnOnce(), give: impl FnOnce(), said: &str) {
    let looks = server.requests().len();
    take();
    place.told(said);
    give();
    place.eventually("it looks again", || server.requests().len() > looks + 10);
    let is_well = |line: &str| line.contains("a healthy: 200 in ");
    place.eventually("and finds it well", || place.log().lines().last().is_some_and(is_well));
    place.demand(!place.path("restarted").exists(), "our own trouble restarts nothing");
    place.demand(place.events("down").is_empty(), "and is nobody's failure");
}

#[test]
fn without_descriptors_nothing_is_said_of_a_target_and_with_them_all_is_as_before() {
    let server = Server::start(Ways::answer("200 OK", "ok"));
    let place = Place::with(&watching(server.port()));
    let daemon = place.daemon(&["-v", "run"]);
    place.eventually("it is well", || verdict(&place) == "healthy");
    let pid = daemon.pid();
    let take = || limit(pid, Resource::Nofile, Some(4));
    let give = || limit(pid, Resource::Nofile, Some(1_024));
    without(&place, &server, take, give, "a unknown: cannot connect to ");
}

#[cfg(feature = "full-tests")]
#[test]
fn without_processes_nothing_is_said_of_a_target_and_with_them_all_is_as_before() {
    const NOBODY: u32 = 65_534;
    const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    // A probe of each is under way all the time, so the one thread that waits for the next job is not enough.
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    let server = Server::start(Ways::Slow(vec![(Duration::from_millis(300), answer)]));
    let other = format!("  - {{name: b, http: 'http://127.0.0.1:{}/'}}\n", server.port());
    let place = Place::with(&(watching(server.port()) + &other));
    // The limit is an account's, and root has none: as root it is tried as nobody, with a copy of the program.
    let is_root = rustix::process::geteuid().is_root();
    let starter = if is_root { &AS_NOBODY[..] } else { &["env"] };
    let forks = ["sh", "-c", "ulimit -Su 0 && (true) && echo forked"];
    let tried = Command::new(starter[0]).args(&starter[1..]).args(forks).output().expect(NEEDED);
    let is_limited = !String::from_utf8_lossy(&tried.stdout).contains("forked");
    need(is_limited, "a machine that heeds RLIMIT_NPROC");
    let program = place.path("program");
    fs::copy(env!("CARGO_BIN_EXE_watchdog"), &program).expect("copied");
    let mut command = place.command(&[]);
    if is_root {
        for path in [place.home(), &place.path("watchdog.yaml"), &program] {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        command = Command::new(AS_NOBODY[0]);
        command.args(&AS_NOBODY[1..]).arg(&program).args(["-v", "run"]);
        command.current_dir(place.home()).env("HOME", place.home());
    } else {
        command.args(["-v", "run"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let daemon = place.daemon_by(command);
    place.eventually("it is well", || server.requests().len() > 5);
    let pid = daemon.pid();
    // Who sets the limit must have the account, too.
    let limit = |soft: &str| {
        let mut command = Command::new(starter[0]);
        command.args(&starter[1..]).args(["prlimit", &format!("--pid={pid}"), &format!("--nproc={soft}:")]);
        assert!(command.status().expect(NEEDED).success(), "{command:?}");
    };
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it lives");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max processes")).expect("a limit");
    let hard = line.split_whitespace().nth(1).expect("the second figure").to_owned();
    let refused = || place.log().matches(" unknown: the probe could not be made").count();
    let take = || {
        limit("0");
        place.eventually("more than one look is refused", || refused() > 3);
    };
    let give = || limit(&hard);
    without(&place, &server, take, give, "cannot start a thread for ");
    let told = place.log().matches("cannot start a thread for").count();
    place.demand(told == 1, &format!("it is told once, not {told} times"));
}

/// A pause that is given under a clock that is ahead or behind by years is of its length all the same.
#[cfg(feature = "full-tests")]
#[test]
fn a_pause_is_a_length_whatever_the_clock_says() {
    for offset in ["+3650d", "-3650d"] {
        let place = Place::with("targets:\n  - {name: a, command: 'true', interval: 100ms}\n");
        let paused = || place.target("a")["state"] == "paused";
        let pause = |length: &str| {
            let mut command = place.command(&["pause", "--for", length]);
            command.env("LD_PRELOAD", faketime()).env("FAKETIME", offset).env("DONT_FAKE_MONOTONIC", "1");
            assert!(command.output().expect("it runs").status.success());
        };
        // For whoever comes next, and takes it from the folder.
        place.run(&["--once"]);
        pause("30m");
        place.run(&["--once"]);
        let until = place.target("a")["paused_until"].as_str().map(str::to_owned);
        let until = until.and_then(|until| humantime::parse_rfc3339(&until).ok());
        let left = until.and_then(|until| until.duration_since(SystemTime::now()).ok());
        let is_right = left.is_some_and(|left| (1_500..=1_800).contains(&left.as_secs()));
        place.demand(is_right, &format!("about 30 min at {offset}: {left:?}"));
        assert_eq!(place.run(&["resume"]).code, Some(0));
        // For a watchdog at work, that ends it by itself.
        let daemon = place.daemon(&["run"]);
        place.eventually("it is not paused", || !paused());
        pause("5s");
        place.demand(paused(), "it is heeded");
        place.eventually("it ends", || !paused());
        assert!(daemon.stop().success());
    }
}

#[cfg(feature = "full-tests")]
#[test]
fn a_wall_clock_that_is_set_moves_nothing_that_counts() {
    let place = Place::with(
        "defaults: {interval: 100ms, failure_threshold: 1, start_period: 0s, cooldown: 2s, max_cooldown: 2s, \
         max_restarts: 3, restart_window: 1d}\ntargets:\n  - {name: a, command: test -e well && touch seen, restart: \
         cut -d ' ' -f 1 /proc/uptime >> stamps}\n",
    );
    let clock = |offset: &str| {
        place.write("clock.new", offset);
        fs::rename(place.path("clock.new"), place.path("clock")).expect("renamed");
    };
    clock("+0");
    place.write("well", "");
    let mut command = place.command(&["run"]);
    command.env("LD_PRELOAD", faketime()).env("FAKETIME_TIMESTAMP_FILE", place.path("clock"));
    command.env("FAKETIME_NO_CACHE", "1").env("DONT_FAKE_MONOTONIC", "1");
    let _daemon = place.daemon_by(command);
    place.eventually("it is well", || place.path("seen").exists());
    fs::remove_file(place.path("well")).expect("it is there");
    let stamps = || place.lines("stamps").iter().map(|line| line.parse().expect("seconds")).collect::<Vec<f64>>();
    place.eventually("the first restart", || stamps().len() == 1);
    clock("+3d");
    place.eventually("the second", || stamps().len() == 2);
    clock("-9d");
    place.eventually("the third", || stamps().len() == 3);
    clock("+40d");
    let (count, began) = (stamps().len(), Instant::now());
    place.eventually("no fourth, though the day is long over by the wall clock", || {
        began.elapsed() > Duration::from_secs(4) || stamps().len() > count
    });
    let stamps = stamps();
    place.demand(stamps.len() == 3, &format!("{stamps:?}"));
    place.demand(stamps.windows(2).all(|pair| pair[1] - pair[0] > 1.9), &format!("{stamps:?}"));
    place.demand(place.events("stalled").is_empty(), "a clock that is set is no gap");
    let dates = place.read("state/events.jsonl");
    let years = |word: &str| dates.lines().filter(|line| line.contains(word)).count();
    place.demand(years("\"restart\"") >= 3, &dates);
}

/// What is measured while the wall clock is more than a year ahead is as long as it was, and what was known is known.
#[cfg(feature = "full-tests")]
#[test]
fn a_wall_clock_that_is_wrong_for_a_while_loses_and_adds_nothing() {
    let place = Place::with(
        "defaults: {interval: 100ms, timeout: 10s}\ntargets:\n  - {name: a, command: touch probed; test ! -e sick}\n",
    );
    let shift = |mut command: Command| {
        command.env("LD_PRELOAD", faketime());
        command.env("FAKETIME_TIMESTAMP_FILE", place.path("clock")).env("FAKETIME_NO_CACHE", "1");
        command.env("DONT_FAKE_MONOTONIC", "1");
        command
    };
    let clock = |offset: &str| {
        place.write("clock.new", offset);
        fs::rename(place.path("clock.new"), place.path("clock")).expect("renamed");
    };
    let said = |words: &[&str]| shift(place.command(words)).output().expect("the program runs").stdout;
    let json = |words: &[&str]| serde_json::from_slice::<serde_json::Value>(&said(words)).expect("JSON");
    let report = || json(&["report", "--json"]);
    let watched = || report()["targets"][0]["watched_ms"].as_i64().unwrap_or(0);
    clock("+0");
    let daemon = place.daemon_by(shift(place.command(&["run"])));
    place.eventually("it is watched for a second", || watched() >= 1_000);
    let before = watched();
    clock("+400d");
    place.eventually("it goes on there", || (1_000..before).contains(&watched()) || watched() > before);
    place.write("sick", "");
    place.eventually("it is down", || !place.events("down").is_empty());
    clock("-400d");
    let so_far = || json(&["incident", "last", "--json"])["down_ms"].as_i64();
    place.eventually("it lasts", || so_far() >= Some(1));
    place.demand(so_far() < Some(60_000), &format!("{:?}", so_far()));
    fs::remove_file(place.path("sick")).expect("it is there");
    place.eventually("it is up", || !place.events("up").is_empty());
    daemon.kill();
    clock("+0");
    let daemon = place.daemon_by(shift(place.command(&["run"])));
    place.eventually("what was counted is there", || watched() > before);
    let (report, up) = (report(), &place.events("up")[0]);
    let long = |value: &serde_json::Value| value.as_i64().is_some_and(|ms| ms < 120_000);
    place.demand(long(&report["watched_ms"]) && long(&up["down_ms"]), &report.to_string());
    let gaps = report["not_watched"].as_array().expect("a list");
    let of_today =
        |gap: &serde_json::Value| gap["from"].as_str().map(|at| &at[..4]) == report["at"].as_str().map(|at| &at[..4]);
    place.demand(gaps.iter().all(of_today), &report.to_string());
    daemon.stop();
}

#[test]
fn a_hundred_orders_a_second_to_read_good_and_bad_files_change_nothing_else() {
    let server = Server::start(Ways::answer("200 OK", "ok"));
    let place = Place::with(&watching(server.port()));
    let good = place.read("watchdog.yaml");
    let daemon = place.daemon(&["run"]);
    place.eventually("it is well", || verdict(&place) == "healthy");
    let replace = |text: &str| {
        place.write("watchdog.new", text);
        fs::set_permissions(place.path("watchdog.new"), Permissions::from_mode(0o600)).expect("ours");
        fs::rename(place.path("watchdog.new"), place.path("watchdog.yaml")).expect("renamed");
    };
    let before = server.requests().len();
    for order in 0..300 {
        match order % 3 {
            0 => replace("targets: [{name: a}]\n"),
            1 => replace(&good),
            _ => replace(&format!("{good}  - {{name: b, command: 'true'}}\n")),
        }
        send(daemon.pid(), Signal::HUP);
        std::thread::sleep(Duration::from_millis(10));
    }
    replace(&good);
    send(daemon.pid(), Signal::HUP);
    place.eventually("it reads the last one", || place.target("b").is_null() && verdict(&place) == "healthy");
    place.eventually("looks went on", || server.requests().len() > before + 10);
    place.demand(!place.events("reload_failed").is_empty() && !place.events("reloaded").is_empty(), "both were read");
    place.demand(!place.path("restarted").exists() && place.events("down").is_empty(), "nothing was restarted");
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_state_folder_that_is_swapped_for_a_link_is_not_written_through() {
    let server = Server::start(Ways::answer("200 OK", "ok"));
    let place = Place::with(&watching(server.port()));
    let elsewhere = tempfile::tempdir().expect("a folder");
    // Where others can write: what lies there may be anybody's.
    fs::set_permissions(elsewhere.path(), Permissions::from_mode(0o777)).expect("ours");
    let _daemon = place.daemon(&["run"]);
    place.eventually("it is well", || verdict(&place) == "healthy");
    let looks = server.requests().len();
    fs::rename(place.path("state"), place.path("before")).expect("renamed");
    symlink(elsewhere.path(), place.path("state")).expect("a link");
    place.eventually("looks go on", || server.requests().len() > looks + 20);
    let written = fs::read_dir(elsewhere.path()).expect("ours").count();
    place.demand(written == 0, "nothing is written through the link");
    fs::remove_file(place.path("state")).expect("a link");
    fs::rename(place.path("before"), place.path("state")).expect("renamed");
    server.turn(Ways::answer("503 Busy", "no"));
    place.eventually("it repairs", || place.path("restarted").exists());
}

/// A full disk under state, log, incidents and outbox at once, and room again.
#[cfg(feature = "full-tests")]
#[test]
fn with_the_disk_full_it_goes_on_repairing_and_telling() {
    let (taker, backend) = (Server::start(Ways::answer("200 OK", "ok")), Server::start(Ways::answer("200 OK", "ok")));
    let place = Place::with(&format!(
        "{WELL}log: {{file: state/watchdog.log}}\nnotify: [{{webhook: 'http://127.0.0.1:{}/'}}]\n\
         page: state/page.html\ntargets:\n  - {{name: a, http: 'http://127.0.0.1:{}/',\n      \
         restart: touch restarted, diagnose: ls}}\n",
        taker.port(),
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
    let mounted = place.command_through(&disk, &["--version"]).output().expect(NEEDED);
    need(mounted.status.success(), "a mount namespace");
    let daemon = place.daemon_unchecked_by(place.command_through(&disk, &["run"]));
    let its = |name: &str| format!("/proc/{}/root{}", daemon.pid(), place.path("state").join(name).display());
    let read = |name: &str| fs::read_to_string(its(name)).unwrap_or_default();
    place.eventually("it is well", || read("page.html").contains("Everything is up"));
    let filled = fs::File::create(its("filler")).and_then(|mut file| std::io::copy(&mut std::io::repeat(0), &mut file));
    assert!(filled.is_err());
    backend.turn(Ways::answer("503 Busy", "no"));
    place.eventually("it is restarted", || place.path("restarted").exists());
    place.eventually("it is told", || taker.requests().iter().any(|request| request.contains("[DOWN] a")));
    backend.turn(Ways::answer("200 OK", "ok"));
    place.eventually("its end is told", || taker.requests().iter().any(|request| request.contains("[up] a")));
    fs::remove_file(its("filler")).expect("it is there");
    backend.turn(Ways::answer("503 Busy", "no"));
    place.eventually("the state is saved again", || read("state.json").contains("\"condition\":\"down\""));
    place.eventually("events are written again", || read("events.jsonl").contains("\"restart_done\""));
    place.eventually("incidents are kept again", || {
        fs::read_dir(its("incidents"))
            .is_ok_and(|mut all| all.any(|one| one.is_ok_and(|one| one.path().join("incident.json").exists())))
    });
    place.eventually("the log goes on", || read("watchdog.log").contains("can be saved again"));
}

/// All that the watchdog notes for good takes longer than a gap may last. That is its own work, and no time in which it
/// was not there.
#[cfg(feature = "full-tests")]
#[test]
fn on_a_disk_that_takes_seconds_for_each_write_it_finds_and_repairs() {
    let place = Place::with(
        "defaults: {interval: 100ms, timeout: 1s, start_period: 0s}\n\
         targets:\n  - {name: a, command: test -e restarted, restart: touch restarted}\n",
    );
    let mut command = place.command(&["run"]);
    command.env("LD_PRELOAD", place.library("slow.c")).env("DISK_MS", "2000");
    let daemon = place.daemon_by(command);
    place.eventually("it is down", || !place.events("down").is_empty());
    place.demand(place.events("stalled").is_empty(), "it was never away");
    place.eventually("it is repaired", || !place.events("up").is_empty());
    let (noted, done) = (&place.events("restart")[0], &place.events("restart_done")[0]);
    let took = at(done).duration_since(at(noted)).unwrap_or_default();
    place.demand(took > Duration::from_secs(2), &format!("the disk is slow: {took:?}"));

    // Stopped in the middle of such work it is away.
    fs::remove_file(place.path("restarted")).expect("it is there");
    place.eventually("a save is under way", || place.path("state/state.tmp").exists());
    daemon.signal(Signal::STOP);
    let began = Instant::now();
    place.eventually("the gap is long enough", || began.elapsed() > Duration::from_millis(4_500));
    daemon.signal(Signal::CONT);
    place.eventually("it is told", || !place.events("stalled").is_empty());
}

//! Bounds that hold however long the watchdog runs: disk, memory and threads; a damaged state or one that cannot be
//! saved; hanging targets; and a suspended watchdog.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::faults::{Behaviour, Server};
use crate::resources::ResourceUsage;
use crate::sandbox::{CommandOutput, MISSING_PROGRAM, Sandbox, process_state, require};

#[test]
fn log_files_stay_within_their_total_size() {
    let target = |n| format!("  - {{name: t{n}, file: {{path: watchdog.yaml, max_age: 1d}}, interval: 100ms}}\n");
    let targets: String = (0..10).map(target).collect();
    let sandbox = Sandbox::new(&format!(
        "log: {{file: logs/watchdog.log, level: debug, max_size: 4KiB, keep: 2}}\ntargets:\n{targets}"
    ));
    let _daemon = sandbox.start_daemon(&["run"]);
    let mut oldest = Vec::new();
    sandbox.eventually("the log is rotated four times", || {
        // Counted by inode, because a file may be renamed meanwhile.
        let entries = fs::read_dir(sandbox.path("logs")).into_iter().flatten().flatten();
        let sizes: BTreeMap<u64, u64> =
            entries.filter_map(|entry| entry.metadata().ok()).map(|found| (found.ino(), found.len())).collect();
        let total: u64 = sizes.values().sum();
        sandbox.assert(total <= 3 * 4_096, &format!("{total} bytes of log: {sizes:?}"));
        let first = sandbox.lines("logs/watchdog.log.2").into_iter().next();
        oldest.extend(first.filter(|line| !oldest.contains(line)));
        oldest.len() >= 4
    });
    sandbox.assert(!sandbox.path("logs/watchdog.log.3").exists(), "no more than two old files are kept");
}

/// Contents of a damaged `state.json`.
fn damaged_states() -> [Vec<u8>; 4] {
    let mut dice = fastrand::Rng::with_seed(7);
    let noise = (0..2_000).map(|_| dice.u8(..)).collect();
    [noise, Vec::new(), b"{\"version\":1,\"written\":{\"wall\":1".into(), b"{\"version\":99,\"state\":{}}".into()]
}

/// The backend answers 503: a target that was never healthy would not be restarted for that at all.
#[test]
fn a_damaged_state_is_set_aside_and_delays_restarts_by_the_longest_cooldown() {
    let server = Server::start(Behaviour::answer("503 Service Unavailable", "no"));
    let check = |damage: Vec<u8>| {
        let sandbox = Sandbox::new(&format!(
            "targets:\n  - {{name: app, http: 'http://127.0.0.1:{}/', interval: 100ms, failure_threshold: 1, \
             start_period: 0s, cooldown: 100ms, max_cooldown: 3s, restart: echo >> restarts}}\n",
            server.port()
        ));
        fs::create_dir(sandbox.path("state")).expect("folder access");
        fs::write(sandbox.path("state/state.json"), &damage).expect("file access");
        let _daemon = sandbox.start_daemon(&["run"]);
        sandbox.eventually("the restart is held back", || !sandbox.events("held_back").is_empty());
        let began = Instant::now();
        assert_eq!(sandbox.events("held_back")[0]["why"], "cooldown", "{}", sandbox.dump());
        let kept = damaged_files(&sandbox);
        assert_eq!(kept.len(), 1, "{}", sandbox.dump());
        assert_eq!(fs::read(sandbox.path("state").join(&kept[0])).expect("file access"), damage);
        sandbox.assert(
            sandbox.log().contains(&format!("it is kept as {}", sandbox.path("state").join(&kept[0]).display())),
            "the log names the kept file",
        );
        sandbox.eventually("the target is restarted after the cooldown", || !sandbox.lines("restarts").is_empty());
        sandbox.assert(began.elapsed() > Duration::from_secs(2), "no restart within the longest cooldown");
    };
    thread::scope(|scope| {
        let check = &check;
        for case in damaged_states().map(|damage| scope.spawn(move || check(damage))) {
            case.join().expect("the case passes");
        }
    });
}

fn damaged_files(sandbox: &Sandbox) -> Vec<String> {
    let entries = fs::read_dir(sandbox.path("state")).expect("folder access").flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with("state.json.corrupt-")).collect()
}

#[test]
fn a_tick_reports_a_damaged_state_and_three_copies_are_kept() {
    let sandbox = Sandbox::new("targets:\n  - {name: app, file: {path: watchdog.yaml, max_age: 1d}}\n");
    fs::create_dir(sandbox.path("state")).expect("folder access");
    for round in 1..=5 {
        sandbox.write("state/state.json", "not JSON");
        let output = sandbox.run(&["--once"]);
        let says_so =
            output.out.contains("state.json") && output.out.contains("no restart before max_cooldown has passed");
        sandbox.assert(output.code == Some(0) && says_so, &format!("{output:?}"));
        assert_eq!(damaged_files(&sandbox).len(), round.min(3), "{}", sandbox.dump());
    }
    assert_eq!(sandbox.run(&["--once"]).out, "", "{}", sandbox.dump());
}

/// Starts a program with a small file system mounted at `state`, filled completely if `$FULL` is set.
const WITH_SMALL_DISK: [&str; 6] = [
    "unshare",
    "--map-root-user",
    "--mount",
    "sh",
    "-c",
    "mkdir -p state && mount -t tmpfs -o size=256k,mode=0700 tmpfs state || exit 99
     test -z \"$FULL\" || cat /dev/zero > state/filler 2> /dev/null
     exec \"$0\" \"$@\"",
];

/// Fails if this machine does not allow mounting one.
fn require_mount(sandbox: &Sandbox) {
    let output = sandbox.command_through(&WITH_SMALL_DISK, &["--version"]).output().expect(MISSING_PROGRAM);
    require(output.status.success(), "a mount namespace");
}

/// A target that is healthy while the file `well` exists, and that no restart fixes. Its restart command records the
/// uptime in seconds in a file outside the full disk.
const ON_FULL_DISK: &str = "log: {file: watchdog.log}\ntargets:\n  - {name: app, command: test -e well && touch seen, \
    interval: 100ms, failure_threshold: 1, start_period: 0s, cooldown: 0s, max_cooldown: 3s, max_restarts: 100, \
    restart: 'cut -d \" \" -f 1 /proc/uptime >> stamps'}\n";

#[cfg(feature = "full-tests")]
#[test]
fn with_a_full_disk_a_daemon_restarts_once_per_longest_cooldown() {
    let sandbox = Sandbox::new(ON_FULL_DISK);
    require_mount(&sandbox);
    sandbox.write("well", "");
    let mut daemon = sandbox.command_through(&WITH_SMALL_DISK, &["run"]).spawn().expect(MISSING_PROGRAM);
    let inside = |name: &str| format!("/proc/{}/root{}", daemon.id(), sandbox.path("state").join(name).display());
    sandbox.eventually("the watchdog runs", || {
        fs::read_to_string(inside("events.jsonl")).is_ok_and(|text| !text.is_empty())
    });
    sandbox.eventually("the target is healthy", || sandbox.path("seen").exists());
    // Writing until the disk is full ends with an error.
    let filled = fs::File::create(inside("filler")).and_then(|mut filler| io::copy(&mut io::repeat(0), &mut filler));
    assert!(filled.is_err());
    let stamps = || -> Vec<f64> {
        sandbox.lines("stamps").iter().map(|line| line.parse().expect("a number of seconds")).collect()
    };
    fs::remove_file(sandbox.path("well")).expect("file access");
    sandbox.eventually("the target is restarted anyway", || stamps().len() >= 3);
    for pair in stamps().windows(2) {
        sandbox.assert(pair[1] - pair[0] > 2.9, &format!("{:?}\n{}", stamps(), sandbox.read("watchdog.log")));
    }
    let log = sandbox.read("watchdog.log");
    sandbox.assert(log.contains("restarts are still limited, in memory: one per max_cooldown"), &log);

    fs::remove_file(inside("filler")).expect("file access");
    sandbox.eventually("the log says that saving works again", || {
        sandbox.read("watchdog.log").contains("the state can be saved again")
    });
    let before = stamps().len();
    sandbox.eventually("restarts continue without the longer cooldown", || stamps().len() >= before + 3);
    let after = &stamps()[before..];
    sandbox.assert(after[2] - after[0] < 5.0, &format!("{after:?}"));
    daemon.kill().expect("the child can be killed");
    daemon.wait().expect("a child can be waited for");
}

#[cfg(feature = "full-tests")]
#[test]
fn with_a_full_disk_a_tick_restarts_nothing() {
    let sandbox = Sandbox::new(ON_FULL_DISK);
    require_mount(&sandbox);
    let tick = |full: &str| {
        let mut command = sandbox.command_through(&WITH_SMALL_DISK, &["--once"]);
        CommandOutput::new(command.env("FULL", full).output().expect(MISSING_PROGRAM))
    };
    let output = tick("yes");
    let expected = [
        "no space left on device (nothing is restarted)\n",
        "app not restarted: the state cannot be saved, so the next tick would not know about the restart. ",
    ];
    let all = expected.iter().all(|part| output.out.contains(part));
    sandbox.assert(output.code == Some(4) && all, &format!("{output:?}\n{}", sandbox.read("watchdog.log")));
    sandbox.assert(sandbox.lines("stamps").is_empty(), &format!("{output:?}\n{}", sandbox.read("watchdog.log")));
    assert_eq!((tick("").code, sandbox.lines("stamps").len()), (Some(1), 1), "{}", sandbox.read("watchdog.log"));
}

/// Half of fifty targets accept connections and never answer, and a restart command runs for a long time.
#[test]
fn hanging_targets_do_not_delay_others() {
    let (healthy, silent) = (Server::start(Behaviour::answer("200 OK", "ok")), Server::start(Behaviour::Silent));
    let target =
        |server: &Server, n| format!("  - {{name: t{}-{n}, http: 'http://127.0.0.1:{0}/{n}'}}\n", server.port());
    let targets: String = (0..25).flat_map(|n| [target(&healthy, n), target(&silent, n)]).collect();
    let sandbox = Sandbox::new(&format!(
        "defaults: {{interval: 1s, timeout: 20s}}\ntargets:\n{targets}  - {{name: slow, command: exit 1, \
         failure_threshold: 1, restart: echo >> restarts; exec sleep 600, max_restarts: 1}}\n"
    ));
    let _daemon = sandbox.start_daemon(&["run"]);
    let mut probes: BTreeMap<String, Vec<Instant>> = BTreeMap::new();
    sandbox.eventually("each target is probed eight times", || {
        probes.clear();
        for (at, request) in healthy.timed_requests() {
            probes.entry(request.lines().next().unwrap_or_default().to_string()).or_default().push(at);
        }
        probes.len() == 25 && probes.values().all(|probes| probes.len() >= 8)
    });
    // Waiting for a hanging target would take 20 s.
    for (request, probes) in probes {
        let longest = probes.windows(2).map(|pair| pair[1] - pair[0]).max().expect("eight probes");
        sandbox.assert(longest < Duration::from_secs(5), &format!("{request}: no probe for {longest:?}"));
    }
    assert_eq!(sandbox.lines("restarts").len(), 1, "the restart command is running; {}", sandbox.dump());
    assert_eq!(silent.requests().len(), 25, "one probe for each hanging target\n{}", sandbox.dump());
}

/// The usage of a process while it is idle: the minimum of many samples.
fn idle_usage(pid: i32) -> ResourceUsage {
    let samples = (0..200).map(|_| {
        thread::sleep(Duration::from_millis(5));
        ResourceUsage::of(pid)
    });
    let minimum = |a: ResourceUsage, b: ResourceUsage| ResourceUsage {
        rss: a.rss.min(b.rss),
        anon: a.anon.min(b.anon),
        threads: a.threads.min(b.threads),
        files: a.files.min(b.files),
    };
    samples.reduce(minimum).expect("many samples")
}

#[cfg(feature = "full-tests")]
#[test]
fn resource_usage_does_not_grow_with_the_number_of_probes() {
    let server = Server::start(Behaviour::answer("200 OK", "ok"));
    let target = |n| format!("  - {{name: t{n}, http: 'http://127.0.0.1:{}/', interval: 100ms}}\n", server.port());
    let targets: String = (0..5).map(target).collect();
    let sandbox = Sandbox::new(&format!("targets:\n{targets}"));
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("a hundred probes", || server.requests().len() >= 100);
    let before = idle_usage(daemon.pid());
    sandbox.eventually("five hundred probes", || server.requests().len() >= 500);
    let after = idle_usage(daemon.pid());
    let usage = format!("{before:?}, then {after:?}");
    // The loop, the signals, and the parked worker for probes.
    sandbox.assert(before.threads == 3 && after.threads == 3, &usage);
    sandbox.assert(after.files <= before.files, &usage);
    // A release build uses about 4 MiB; this asserts only that usage does not grow.
    sandbox.assert(after.rss < before.rss + 1_024 && after.rss < 20 << 10, &usage);
}

#[test]
fn a_watchdog_that_was_suspended_starts_counting_again() {
    let sandbox = Sandbox::new(
        "targets:\n  - {name: app, command: test -e well, interval: 300ms, timeout: 300ms, failure_threshold: 5, \
         restart: touch well}\n",
    );
    sandbox.write("well", "");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || sandbox.target("app")["state"] == "healthy");
    fs::remove_file(sandbox.path("well")).expect("file access");
    sandbox.eventually("failures are counted", || sandbox.target("app")["streak"].as_u64() >= Some(2));
    daemon.signal(Signal::STOP);
    sandbox.eventually("the process is stopped", || process_state(daemon.pid()) == Some('T'));
    assert!(sandbox.events("down").is_empty(), "{}", sandbox.dump());
    let began = Instant::now();
    sandbox.eventually("the gap is long enough", || began.elapsed() > Duration::from_millis(4_500));
    // The first event after the gap may be one that decides nothing.
    daemon.signal(Signal::USR1);
    daemon.signal(Signal::CONT);
    sandbox.eventually("the target is repaired after the gap", || !sandbox.events("up").is_empty());
    let stalled = sandbox.events("stalled");
    assert_eq!(stalled.len(), 1, "{}", sandbox.dump());
    assert!((3_000..20_000).contains(&stalled[0]["gap_ms"].as_u64().expect("a number")), "{}", sandbox.dump());
    // All five failures that led to the restart happened after the gap.
    assert_eq!(sandbox.events("down")[0]["failures"], 5, "{}", sandbox.dump());
    let kinds: Vec<String> =
        sandbox.events("").iter().map(|event| event["event"].to_string().replace('"', "")).collect();
    let expected = ["started", "failing", "stalled", "failing", "down", "restart", "restart_done", "up"];
    assert_eq!(kinds, expected, "{}", sandbox.dump());
}

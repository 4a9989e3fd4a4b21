//! What holds however long it runs and whatever the machine does: bounds on disk, memory and threads, a state that is
//! damaged or cannot be saved, targets that hang beside others that do not, and a watchdog that was not there itself.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::faults::{Server, Ways};
use crate::place::{NEEDED, Place, Said, doing, need};
use crate::takes::Takes;

#[test]
fn the_log_keeps_to_its_total() {
    let target = |n| format!("  - {{name: t{n}, file: {{path: watchdog.yaml, max_age: 1d}}, interval: 100ms}}\n");
    let targets: String = (0..10).map(target).collect();
    let place = Place::with(&format!(
        "log: {{file: logs/watchdog.log, level: debug, max_size: 4KiB, keep: 2}}\ntargets:\n{targets}"
    ));
    let _daemon = place.daemon(&["run"]);
    let mut oldest = Vec::new();
    place.eventually("it is rotated four times", || {
        // By inode: a file that is renamed while we count is still one.
        let entries = fs::read_dir(place.path("logs")).into_iter().flatten().flatten();
        let sizes: BTreeMap<u64, u64> =
            entries.filter_map(|entry| entry.metadata().ok()).map(|found| (found.ino(), found.len())).collect();
        let total: u64 = sizes.values().sum();
        place.demand(total <= 3 * 4_096, &format!("{total} bytes of log: {sizes:?}"));
        let first = place.lines("logs/watchdog.log.2").into_iter().next();
        oldest.extend(first.filter(|line| !oldest.contains(line)));
        oldest.len() >= 4
    });
    place.demand(!place.path("logs/watchdog.log.3").exists(), "more is kept than was said");
}

/// What a damaged `state.json` may hold.
fn damages() -> [Vec<u8>; 4] {
    let mut dice = fastrand::Rng::with_seed(7);
    let noise = (0..2_000).map(|_| dice.u8(..)).collect();
    [noise, Vec::new(), b"{\"version\":1,\"written\":{\"wall\":1".into(), b"{\"version\":99,\"state\":{}}".into()]
}

/// The backend answers 503, for which a target that was never healthy would not be restarted at all.
#[test]
fn a_damaged_state_is_set_aside_and_nothing_is_restarted_for_the_longest_cooldown() {
    let server = Server::start(Ways::answer("503 Service Unavailable", "no"));
    let check = |damage: Vec<u8>| {
        let place = Place::with(&format!(
            "targets:\n  - {{name: app, http: 'http://127.0.0.1:{}/', interval: 100ms, failure_threshold: 1, \
             start_period: 0s, cooldown: 100ms, max_cooldown: 3s, restart: echo >> restarts}}\n",
            server.port()
        ));
        fs::create_dir(place.path("state")).expect("a folder");
        fs::write(place.path("state/state.json"), &damage).expect("a file");
        let _daemon = place.daemon(&["run"]);
        place.eventually("it is held back", || !place.events("held_back").is_empty());
        let began = Instant::now();
        assert_eq!(place.events("held_back")[0]["why"], "cooldown", "{}", place.story());
        let kept = set_aside(&place);
        assert_eq!(kept.len(), 1, "{}", place.story());
        assert_eq!(fs::read(place.path("state").join(&kept[0])).expect("a file"), damage);
        place.demand(
            place.log().contains(&format!("it is kept as {}", place.path("state").join(&kept[0]).display())),
            "not told",
        );
        place.eventually("it is restarted in the end", || !place.lines("restarts").is_empty());
        place.demand(began.elapsed() > Duration::from_secs(2), "too early");
    };
    thread::scope(|scope| {
        let check = &check;
        for case in damages().map(|damage| scope.spawn(move || check(damage))) {
            case.join().expect("the case above fails");
        }
    });
}

fn set_aside(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(place.path("state")).expect("a folder").flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with("state.json.corrupt-")).collect()
}

#[test]
fn a_tick_tells_of_a_damaged_state_and_three_are_kept() {
    let place = Place::with("targets:\n  - {name: app, file: {path: watchdog.yaml, max_age: 1d}}\n");
    fs::create_dir(place.path("state")).expect("a folder");
    for round in 1..=5 {
        place.write("state/state.json", "not JSON");
        let said = place.run(&["--once"]);
        let told = said.out.contains("state.json") && said.out.contains("no restart before max_cooldown has passed");
        place.demand(said.code == Some(0) && told, &format!("{said:?}"));
        assert_eq!(set_aside(&place).len(), round.min(3), "{}", place.story());
    }
    assert_eq!(place.run(&["--once"]).out, "", "{}", place.story());
}

/// Starts a program with a small file system of its own at `state`, filled to its last byte if `$FULL` says so.
const ON_SMALL_DISK: [&str; 6] = [
    "unshare",
    "--map-root-user",
    "--mount",
    "sh",
    "-c",
    "mkdir -p state && mount -t tmpfs -o size=256k,mode=0700 tmpfs state || exit 99
     test -z \"$FULL\" || cat /dev/zero > state/filler 2> /dev/null
     exec \"$0\" \"$@\"",
];

/// Fails where this machine does not let us mount one.
fn need_mount(place: &Place) {
    let said = place.command_through(&ON_SMALL_DISK, &["--version"]).output().expect(NEEDED);
    need(said.status.success(), "a mount namespace");
}

/// An app that is well as long as the file `well` is there, and that no restart brings back. Each leaves its time, in
/// hundredths of a second, where the disk has room.
const ON_FULL_DISK: &str = "log: {file: watchdog.log}\ntargets:\n  - {name: app, command: test -e well && touch seen, \
    interval: 100ms, failure_threshold: 1, start_period: 0s, cooldown: 0s, max_cooldown: 3s, max_restarts: 100, \
    restart: 'cut -d \" \" -f 1 /proc/uptime >> stamps'}\n";

#[cfg(feature = "full-tests")]
#[test]
fn while_nothing_can_be_saved_a_daemon_restarts_once_per_longest_cooldown() {
    let place = Place::with(ON_FULL_DISK);
    need_mount(&place);
    place.write("well", "");
    let mut daemon = place.command_through(&ON_SMALL_DISK, &["run"]).spawn().expect(NEEDED);
    let its = |name: &str| format!("/proc/{}/root{}", daemon.id(), place.path("state").join(name).display());
    place.eventually("it is at work", || fs::read_to_string(its("events.jsonl")).is_ok_and(|text| !text.is_empty()));
    place.eventually("it is seen to be well", || place.path("seen").exists());
    // It ends with an error, which is what it is for.
    let filled = fs::File::create(its("filler")).and_then(|mut filler| io::copy(&mut io::repeat(0), &mut filler));
    assert!(filled.is_err());
    let stamps = || -> Vec<f64> { place.lines("stamps").iter().map(|line| line.parse().expect("seconds")).collect() };
    fs::remove_file(place.path("well")).expect("a file");
    place.eventually("it restarts all the same", || stamps().len() >= 3);
    for pair in stamps().windows(2) {
        place.demand(pair[1] - pair[0] > 2.9, &format!("{:?}\n{}", stamps(), place.read("watchdog.log")));
    }
    let log = place.read("watchdog.log");
    place.demand(log.contains("restarts are still limited, in memory: one per max_cooldown"), &log);

    fs::remove_file(its("filler")).expect("a file");
    place.eventually("it is told", || place.read("watchdog.log").contains("the state can be saved again"));
    let before = stamps().len();
    place.eventually("it goes on", || stamps().len() >= before + 3);
    let after = &stamps()[before..];
    place.demand(after[2] - after[0] < 5.0, &format!("{after:?}"));
    daemon.kill().expect("a child can be killed");
    daemon.wait().expect("a child can be waited for");
}

#[cfg(feature = "full-tests")]
#[test]
fn while_nothing_can_be_saved_a_tick_restarts_nothing() {
    let place = Place::with(ON_FULL_DISK);
    need_mount(&place);
    let tick = |full: &str| {
        let mut command = place.command_through(&ON_SMALL_DISK, &["--once"]);
        Said::new(command.env("FULL", full).output().expect(NEEDED))
    };
    let said = tick("yes");
    let told = [
        "no space left on device (nothing is restarted)\n",
        "app not restarted: the state cannot be saved, so the next tick would not know about the restart. ",
    ];
    let all = told.iter().all(|part| said.out.contains(part));
    place.demand(said.code == Some(4) && all, &format!("{said:?}\n{}", place.read("watchdog.log")));
    place.demand(place.lines("stamps").is_empty(), &format!("{said:?}\n{}", place.read("watchdog.log")));
    assert_eq!((tick("").code, place.lines("stamps").len()), (Some(1), 1), "{}", place.read("watchdog.log"));
}

/// Half of fifty targets accept and say nothing, and a restart command takes its time beside them.
#[test]
fn targets_that_hang_do_not_delay_the_others() {
    let (healthy, silent) = (Server::start(Ways::answer("200 OK", "ok")), Server::start(Ways::Silent));
    let target =
        |server: &Server, n| format!("  - {{name: t{}-{n}, http: 'http://127.0.0.1:{0}/{n}'}}\n", server.port());
    let targets: String = (0..25).flat_map(|n| [target(&healthy, n), target(&silent, n)]).collect();
    let place = Place::with(&format!(
        "defaults: {{interval: 1s, timeout: 20s}}\ntargets:\n{targets}  - {{name: slow, command: exit 1, \
         failure_threshold: 1, restart: echo >> restarts; exec sleep 600, max_restarts: 1}}\n"
    ));
    let _daemon = place.daemon(&["run"]);
    let mut looks: BTreeMap<String, Vec<Instant>> = BTreeMap::new();
    place.eventually("each is looked at eight times", || {
        looks.clear();
        for (at, request) in healthy.arrivals() {
            looks.entry(request.lines().next().unwrap_or_default().to_string()).or_default().push(at);
        }
        looks.len() == 25 && looks.values().all(|looks| looks.len() >= 8)
    });
    // Waiting for one that hangs would have taken 20 s.
    for (request, looks) in looks {
        let longest = looks.windows(2).map(|pair| pair[1] - pair[0]).max().expect("eight looks");
        place.demand(longest < Duration::from_secs(5), &format!("{request}: none for {longest:?}"));
    }
    assert_eq!(place.lines("restarts").len(), 1, "the command runs meanwhile; {}", place.story());
    assert_eq!(silent.requests().len(), 25, "a second look beside one that hangs\n{}", place.story());
}

/// What a process takes while nothing is under way: the least of many looks at it.
fn least(pid: i32) -> Takes {
    let looks = (0..200).map(|_| {
        thread::sleep(Duration::from_millis(5));
        Takes::of(pid)
    });
    let lesser = |a: Takes, b: Takes| Takes {
        rss: a.rss.min(b.rss),
        own: a.own.min(b.own),
        threads: a.threads.min(b.threads),
        files: a.files.min(b.files),
    };
    looks.reduce(lesser).expect("many looks")
}

#[cfg(feature = "full-tests")]
#[test]
fn nothing_grows_with_the_number_of_looks() {
    let server = Server::start(Ways::answer("200 OK", "ok"));
    let target = |n| format!("  - {{name: t{n}, http: 'http://127.0.0.1:{}/', interval: 100ms}}\n", server.port());
    let targets: String = (0..5).map(target).collect();
    let place = Place::with(&format!("targets:\n{targets}"));
    let daemon = place.daemon(&["run"]);
    place.eventually("a hundred looks", || server.requests().len() >= 100);
    let before = least(daemon.pid());
    place.eventually("five hundred looks", || server.requests().len() >= 500);
    let after = least(daemon.pid());
    let told = format!("{before:?}, then {after:?}");
    // The loop, the signals, and the one that waits for the next probe.
    place.demand(before.threads == 3 && after.threads == 3, &told);
    place.demand(after.files <= before.files, &told);
    // About 4 MiB when built for release; what counts here is that it does not grow.
    place.demand(after.rss < before.rss + 1_024 && after.rss < 20 << 10, &told);
}

#[test]
fn a_watchdog_that_was_not_there_counts_anew() {
    let place = Place::with(
        "targets:\n  - {name: app, command: test -e well, interval: 300ms, timeout: 300ms, failure_threshold: 5, \
         restart: touch well}\n",
    );
    place.write("well", "");
    let daemon = place.daemon(&["run"]);
    place.eventually("it is healthy", || place.target("app")["state"] == "healthy");
    fs::remove_file(place.path("well")).expect("a file");
    place.eventually("failures are counted", || place.target("app")["streak"].as_u64() >= Some(2));
    daemon.signal(Signal::STOP);
    place.eventually("it stands still", || doing(daemon.pid()) == Some('T'));
    assert!(place.events("down").is_empty(), "{}", place.story());
    let began = Instant::now();
    place.eventually("the gap is long enough", || began.elapsed() > Duration::from_millis(4_500));
    // What comes first afterwards need not be anything that is decided about.
    daemon.signal(Signal::USR1);
    daemon.signal(Signal::CONT);
    place.eventually("it repairs in the end", || !place.events("up").is_empty());
    let stalled = place.events("stalled");
    assert_eq!(stalled.len(), 1, "{}", place.story());
    assert!((3_000..20_000).contains(&stalled[0]["gap_ms"].as_u64().expect("a number")), "{}", place.story());
    // The five failures that led to the restart are all of after the gap.
    assert_eq!(place.events("down")[0]["failures"], 5, "{}", place.story());
    let kinds: Vec<String> = place.events("").iter().map(|event| event["event"].to_string().replace('"', "")).collect();
    let expected = ["started", "failing", "stalled", "failing", "down", "restart", "restart_done", "up"];
    assert_eq!(kinds, expected, "{}", place.story());
}

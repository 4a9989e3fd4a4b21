//! `--once` from cron: the clock is stepped from tick to tick by a time namespace, which moves the boot clock that the
//! watchdog computes with (and not the wall clock).

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::place::{NEEDED, Place, Said, need};

/// A target that is well as long as the file `well` is there; what follows are its further keys.
fn app(keys: &str) -> String {
    format!("targets:\n  - {{name: app, command: echo >> looks; test -e well, {keys}}}\n")
}

/// What starts a program with the boot clock moved by so many seconds, and perhaps after a reboot.
fn shifted(seconds: i64, boot_id: Option<&str>) -> Vec<String> {
    let mut words: Vec<String> = ["unshare", "--map-root-user", "--time", "--boottime"].map(String::from).into();
    words.push(seconds.to_string());
    if let Some(boot_id) = boot_id {
        let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        words.extend(["--mount", "sh", "-c", script, boot_id].map(String::from));
    }
    words
}

/// Fails where this machine does not let us do that.
fn need_shift(place: &Place, boot_id: Option<&str>) {
    let starter = shifted(60, boot_id);
    let mut command = Command::new(&starter[0]);
    command.args(&starter[1..]).arg("true").current_dir(place.home()).stderr(Stdio::null());
    need(command.status().expect(NEEDED).success(), "time and mount namespaces");
}

/// A tick so many seconds from now.
#[track_caller]
fn tick(place: &Place, seconds: i64) -> Said {
    run(place, &shifted(seconds, None), &["--once"])
}

#[track_caller]
fn run(place: &Place, starter: &[String], words: &[&str]) -> Said {
    let starter: Vec<&str> = starter.iter().map(String::as_str).collect();
    Said::new(place.command_through(&starter, words).output().expect(NEEDED))
}

/// A tick with this exit code that has nothing to say.
#[track_caller]
fn check_silent(place: &Place, seconds: i64, code: i32) {
    let said = tick(place, seconds);
    let expected = (Some(code), "", "");
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), expected, "at {seconds} s; {}", place.story());
}

/// A tick with this exit code that tells these news, a line each, given by what they begin with and what they contain.
#[track_caller]
fn check_news(place: &Place, seconds: i64, code: i32, news: &[(&str, &str)]) {
    let said = tick(place, seconds);
    let lines: Vec<&str> = said.out.lines().collect();
    let fits = lines.len() == news.len()
        && lines.iter().zip(news).all(|(line, (begin, part))| line.starts_with(begin) && line.contains(part));
    let good = said.code == Some(code) && fits && said.err.is_empty();
    place.demand(good, &format!("at {seconds} s, where {news:#?} was expected: {said:#?}"));
}

const REPAIRED: [(&str, &str); 3] = [
    ("app down: 3 of 3, the last: exit 1. ", "Last healthy probe "),
    ("app restart 1 (of 10 an hour): ", "touch well"),
    ("app healthy: ", "Restart 1 helped"),
];

/// Without `retry_interval` each tick is one look, and the third one that fails repairs.
#[cfg(feature = "full-tests")]
#[test]
fn ticks_count_together_and_repair() {
    for every in [60, 300] {
        let place = Place::with(&app("restart: touch well"));
        need_shift(&place, None);
        place.write("well", "");
        check_silent(&place, 0, 0);
        fs::remove_file(place.path("well")).expect("a file");
        check_silent(&place, every, 1);
        check_silent(&place, 2 * every, 1);
        assert_eq!(place.lines("looks").len(), 3, "{}", place.story());
        check_news(&place, 3 * every, 0, &REPAIRED);
        check_silent(&place, 4 * every, 0);
        let down = place.events("up")[0]["down_ms"].as_i64().expect("a number");
        // From the last healthy look on: that is where it may have broken.
        assert!((3 * every * 1_000..4 * every * 1_000).contains(&down), "{}", place.story());
        assert_eq!((place.events("failing").len(), place.events("down").len()), (1, 1), "{}", place.story());
        // Of four spans the last one alone lies between two healthy looks.
        let status = run(&place, &shifted(4 * every, None), &["status", "--json"]);
        let status: Value = serde_json::from_str(&status.out).expect("JSON");
        let uptime = status["targets"][0]["uptime_24h"].as_f64().expect("a number");
        place.demand((0.2..=0.3).contains(&uptime), &status.to_string());
    }
}

/// A pause is neither up nor down, what is longer than an hour is not watched, and ticks that stay away are told.
#[cfg(feature = "full-tests")]
#[test]
fn what_no_tick_saw_is_not_watched() {
    let place = Place::with(&app("restart: 'true'"));
    need_shift(&place, None);
    let report = |seconds: i64| {
        let said = run(&place, &shifted(seconds, None), &["report", "--json"]);
        let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        let target = &report["targets"][0];
        let watched = target["watched_ms"].as_i64().expect("a number") / 10_000;
        (watched, report["not_watched"].as_array().expect("a list").len())
    };
    place.write("well", "");
    [0, 60, 120].into_iter().for_each(|at| check_silent(&place, at, 0));
    assert_eq!(report(120), (12, 0), "{}", place.story());
    check_silent(&place, 120 + 2_400, 0);
    assert_eq!(report(2_520), (252, 1), "within an hour both looks count, but 40 ticks stayed away; {}", place.story());
    check_silent(&place, 2_520 + 7_200, 0);
    assert_eq!(report(9_720), (252, 2), "two hours that nobody saw; {}", place.story());
    let pause = run(&place, &shifted(9_721, None), &["pause", "--for", "10m"]);
    assert_eq!(pause.code, Some(0), "{pause:?}");
    [9_780, 9_840, 9_900].into_iter().for_each(|at| check_silent(&place, at, 0));
    assert_eq!(report(9_900), (252, 2), "paused; {}", place.story());
}

/// With it, the tick that finds the first failure looks until it knows.
#[cfg(feature = "full-tests")]
#[test]
fn with_a_retry_interval_one_tick_decides() {
    for every in [60, 300] {
        let place = Place::with(&app("restart: touch well, retry_interval: 100ms"));
        need_shift(&place, None);
        place.write("well", "");
        check_silent(&place, 0, 0);
        fs::remove_file(place.path("well")).expect("a file");
        check_news(&place, every, 0, &REPAIRED);
        assert_eq!(place.lines("looks").len(), 1 + 3 + 1, "{}", place.story());
        check_silent(&place, 2 * every, 0);
        // One that fails once and is well at the second look is neither down nor news.
        let keys = app("restart: echo >> restarts, retry_interval: 100ms");
        place.configure(&keys.replace("test -e well", "test -e well; code=$?; touch well; exit $code"));
        fs::remove_file(place.path("well")).expect("a file");
        check_silent(&place, 3 * every, 0);
        assert_eq!(place.events("failing").len(), 2, "{}", place.story());
        assert!(place.lines("restarts").is_empty(), "{}", place.story());
    }
}

/// What is older than half an hour counts no more where ticks usually come every minute.
#[cfg(feature = "full-tests")]
#[test]
fn failures_of_an_hour_ago_do_not_count() {
    let place = Place::with(&app("restart: touch well, failure_threshold: 2"));
    need_shift(&place, None);
    place.write("well", "");
    for minute in 0..3 {
        check_silent(&place, minute * 60, 0);
    }
    fs::remove_file(place.path("well")).expect("a file");
    check_silent(&place, 180, 1);
    check_silent(&place, 3_780, 1);
    assert!(place.events("down").is_empty(), "{}", place.story());
    check_news(&place, 3_840, 0, &[("app down: 2 of 2", ""), ("app restart 1 ", ""), ("app healthy: ", "")]);
}

/// Where cron calls every 45 or 60 minutes, which is all that some hosts give, a threshold of three takes no three
/// hours: the tick that finds a failure decides, as soon as it is known how rarely ticks come.
#[cfg(feature = "full-tests")]
#[test]
fn where_ticks_are_rare_one_decides() {
    let news = [("app down: 3 of 3", ""), ("app restart 1 ", ""), ("app healthy: ", "")];
    for every in [2_700, 3_600] {
        let place = Place::with(&app("restart: touch well, interval: 200ms"));
        need_shift(&place, None);
        place.write("well", "");
        check_silent(&place, 0, 0);
        check_silent(&place, every, 0);
        fs::remove_file(place.path("well")).expect("a file");
        check_news(&place, 2 * every, 0, &news);
        assert_eq!(place.lines("looks").len(), 2 + 3 + 1, "{}", place.story());
        // One that fails once and is well at the next probe is no news, nor does a tick by hand change anything.
        place.configure(
            &app("restart: echo >> restarts, interval: 200ms")
                .replace("test -e well", "test -e well; code=$?; touch well; exit $code"),
        );
        fs::remove_file(place.path("well")).expect("a file");
        check_silent(&place, 3 * every, 0);
        check_silent(&place, 3 * every + 10, 0);
        check_silent(&place, 4 * every, 0);
        assert!(place.lines("restarts").is_empty(), "{}", place.story());

        // Down since before the first tick: the second one remembers it, and decides.
        let place = Place::with(&app("restart: touch well, interval: 200ms"));
        check_silent(&place, 0, 1);
        check_news(&place, every, 0, &news);
    }
}

/// Two hours of a tick a minute while nothing helps: cooldown and window hold by the command's own stamps, and mails
/// come for what is new only.
#[cfg(feature = "full-tests")]
#[test]
fn a_hopeless_case_is_restarted_within_its_limits_and_mailed_about_sparingly() {
    let keys = "restart: cut -d . -f 1 /proc/uptime >> stamps, failure_threshold: 1, start_period: 0s, \
                max_restarts: 4";
    let place = Place::with(&app(keys));
    need_shift(&place, None);
    place.write("well", "");
    check_silent(&place, 0, 0);
    fs::remove_file(place.path("well")).expect("a file");
    let mut told = Vec::new();
    for minute in 1..=120 {
        let said = tick(&place, minute * 60);
        assert_eq!((said.code, said.err.as_str()), (Some(1), ""), "{}", place.story());
        told.extend(said.out.lines().map(str::to_string));
    }
    let stamps: Vec<u64> = place.lines("stamps").iter().map(|line| line.parse().expect("seconds")).collect();
    place.demand(stamps.len() == 8, &format!("four in an hour were allowed: {stamps:?}"));
    for (index, pair) in stamps.windows(2).enumerate() {
        let cooldown = (60 << index).min(600);
        place.demand(pair[1] - pair[0] + 1 >= cooldown, &format!("after less than {cooldown} s: {stamps:?}"));
    }
    for five in stamps.windows(5) {
        place.demand(five[4] - five[0] + 1 >= 3_600, &format!("five in an hour: {stamps:?}"));
    }
    let incident: Value = serde_json::from_str(&place.run(&["incident", "last", "--json"]).out).expect("JSON");
    place.demand(incident["attempts"] == 8, &incident.to_string());
    let count = |what: &str| told.iter().filter(|line| line.starts_with(what)).count();
    let counts = (count("app down: "), count("app restart "), count("app not restarted until "));
    place.demand(counts.0 == 1 && counts.1 == 8, &format!("{told:#?}"));
    place.demand((2..=8).contains(&counts.2) && told.len() == 9 + counts.2, &format!("{told:#?}"));

    let full =
        |line: &String| line.ends_with("4 restarts in the last hour is the limit. Probing goes on at every tick");
    place.demand(told.iter().any(full), &format!("the full window is told: {told:#?}"));
}

#[cfg(feature = "full-tests")]
#[test]
fn a_reboot_ends_the_cooldown_and_not_the_window() {
    let keys = "restart: echo $WATCHDOG_ATTEMPT >> restarts, failure_threshold: 1, start_period: 0s, cooldown: 1h, \
                max_cooldown: 1h, max_restarts: 2, restart_window: 1d";
    let place = Place::with(&app(keys));
    place.write("boot", "11111111-2222-3333-4444-555555555555\n");
    need_shift(&place, Some("boot"));
    place.write("well", "");
    check_silent(&place, 0, 0);
    fs::remove_file(place.path("well")).expect("a file");
    check_news(&place, 0, 1, &[("app down: ", ""), ("app restart 1 ", "")]);
    check_news(&place, 60, 1, &[("app not restarted until ", "cooldown")]);
    let after_boot = |boot_id: &str, uptime: f64| {
        place.write("boot", boot_id);
        let now: f64 = fs::read_to_string("/proc/uptime")
            .expect("/proc is there")
            .split(' ')
            .next()
            .and_then(|word| word.parse().ok())
            .expect("seconds");
        run(&place, &shifted((uptime - now) as i64, Some("boot")), &["--once"])
    };
    let said = after_boot("11111111-2222-3333-4444-555555555555\n", 120.0);
    place.demand(said.code == Some(1) && said.out.starts_with("app restart 1 (2 of 2 "), &format!("{said:?}"));
    let said = after_boot("66666666-7777-8888-9999-000000000000\n", 120.0);
    place.demand(said.code == Some(1) && said.out.contains("limit"), &format!("{said:?}"));
    // The episode began anew with the boot, and both restarts were the first of theirs.
    assert_eq!(place.lines("restarts"), ["1", "1"], "{}", place.story());
    assert_eq!(place.events("down").len(), 1, "{}", place.story());

    // Right after a boot failures do not count yet, and the tick stays until it comes up.
    place.configure(&app("restart: echo $WATCHDOG_ATTEMPT >> restarts, failure_threshold: 1, start_period: 1m"));
    let looks = place.lines("looks").len();
    let said = thread::scope(|scope| {
        scope.spawn(|| {
            place.eventually("it looks twice", || place.lines("looks").len() >= looks + 2);
            place.write("well", "");
        });
        after_boot("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee\n", 5.0)
    });
    place.demand(said.code == Some(0) && said.out.starts_with("app healthy: "), &format!("{said:?}"));
    assert_eq!(place.lines("restarts").len(), 2, "{}", place.story());
}

#[test]
fn a_tick_makes_one_attempt_per_target() {
    let target = |name: &str| {
        format!(
            "  - {{name: {name}, command: test -e well, failure_threshold: 1, start_period: 0s, cooldown: 0s, \
             retry_interval: 100ms, restart: echo {name} >> restarts}}\n"
        )
    };
    let place = Place::with(&format!("targets:\n{}{}", target("a"), target("b")));
    place.write("well", "");
    assert_eq!(place.run(&["--once"]).code, Some(0), "{}", place.story());
    fs::remove_file(place.path("well")).expect("a file");
    assert_eq!(place.run(&["--once"]).code, Some(1), "{}", place.story());
    let mut restarts = place.lines("restarts");
    restarts.sort();
    assert_eq!(restarts, ["a", "b"], "{}", place.story());
}

#[test]
fn a_tick_stays_until_what_it_restarted_has_come_up() {
    let place = Place::with(&app(
        "failure_threshold: 1, start_period: 1m, restart: '(sleep 1.5; touch well) > /dev/null 2>&1 &'",
    ));
    let said = place.run(&["--once"]);
    place.demand(said.code == Some(0) && said.out.contains(" helped"), &format!("{said:?}"));
    assert_eq!(place.events("up").len(), 1, "{}", place.story());

    // What does not come up is left when the start period is over.
    let place = Place::with(&app("failure_threshold: 1, start_period: 2s, restart: echo >> restarts"));
    let said = place.run(&["--once"]);
    assert_eq!((said.code, place.lines("restarts").len()), (Some(1), 1), "{}", place.story());
    place.demand(place.lines("looks").len() >= 2, "it did not look whether it helped");
}

#[test]
fn a_tick_answers_from_the_state_of_a_daemon_at_work() {
    let place = Place::with(&app("interval: 100ms, failure_threshold: 1"));
    place.write("well", "");
    let _daemon = place.daemon(&["run"]);
    let check = |state: &str, code| {
        place.eventually(state, || place.target("app")["state"] == state);
        let said = place.run(&["--once"]);
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(code), "", ""), "{}", place.story());
    };
    check("healthy", 0);
    fs::remove_file(place.path("well")).expect("a file");
    check("down", 1);
}

/// That nothing can be said of a target is our own trouble, and no reason to restart it.
#[test]
fn a_tick_that_sees_nothing_says_so_and_restarts_nothing() {
    let place = Place::with(
        "targets:\n  - {name: app, command: [./nowhere], failure_threshold: 1, retry_interval: 100ms, \
         restart: echo >> restarts}\n",
    );
    for _ in 0..3 {
        assert_eq!(place.run(&["--once"]).code, Some(4), "{}", place.story());
    }
    assert!(place.lines("restarts").is_empty() && place.events("failing").is_empty(), "{}", place.story());
    // One target that can be seen is enough.
    let more = "  - {name: other, file: {path: watchdog.yaml, max_age: 1d}}\n";
    place.configure(&format!("targets:\n  - {{name: app, command: [./nowhere]}}\n{more}"));
    assert_eq!(place.run(&["--once"]).code, Some(0), "{}", place.story());
}

/// One whose clock was ahead when it was written, or is another machine's.
#[test]
fn a_file_of_the_future_grows_old_from_tick_to_tick_and_under_a_daemon() {
    let place = Place::with("targets:\n  - {name: app, file: {path: beat, max_age: 1s}, interval: 100ms}\n");
    place.write("beat", "");
    let beat = |days: u64| {
        let time = SystemTime::now() + Duration::from_secs(86_400 * days);
        fs::File::open(place.path("beat")).and_then(|file| file.set_modified(time)).expect("a file of ours");
    };
    let tick = || place.run(&["--once"]).code;
    for days in [10, 20] {
        beat(days);
        place.demand(tick() == Some(0), "it has just been written");
        place.eventually("it is old", || tick() == Some(1));
    }
    let daemon = place.daemon(&["run"]);
    place.eventually("it is old still", || place.target("app")["last_probe"]["class"] == "stale");
    beat(30);
    place.eventually("it is written anew", || place.target("app")["state"] == "healthy");
    place.eventually("it is old again", || place.target("app")["last_probe"]["class"] == "stale");
    assert!(daemon.stop().success());
}

#[cfg(feature = "full-tests")]
#[test]
fn on_a_terminal_a_tick_tells_of_each_target_in_trouble() {
    let place = Place::with(&app("restart: touch well"));
    let tick = || {
        let mut script = Command::new("script");
        let program = concat!(env!("CARGO_BIN_EXE_watchdog"), " --once");
        script.args(["-qec", program, "typescript"]).current_dir(place.home()).env("HOME", place.home());
        Said::new(script.stdin(Stdio::null()).output().expect(NEEDED))
    };
    let said = tick();
    place.demand(said.code == Some(1) && said.out.contains("app is failing: "), &format!("{said:?}"));
    place.write("well", "");
    let said = tick();
    place.demand(said.code == Some(0) && !said.out.contains("app is "), &format!("{said:?}"));
}

//! Stopped by hand or crashed: both are `stopped` to PM2.

use super::*;

const START: &str = "2026-11-26T06:26:38: PM2 log: App [sav:7] starting in -fork mode-";
const STOP: &str = "2026-11-26T06:26:39: PM2 log: Stopping app:sav id:7";

fn end(code: i32, signal: &str) -> String {
    format!("2026-11-26T06:26:40: PM2 log: App [sav:7] exited with code [{code}] via signal [{signal}]")
}

/// `apps` as `name status autorestart exit_code`, with the ids 7, 8 …
#[track_caller]
fn check(apps: &[&str], log: &[&str], expected: bool) {
    let place = Place::new();
    if !log.is_empty() {
        fs::write(place.home.path().join("pm2.log"), log.join("\n") + "\n").unwrap();
    }
    let entry = |(id, app): (usize, &&str)| {
        let [name, status, autorestart, code] = app.split(' ').collect::<Vec<_>>()[..] else { panic!("{app}") };
        let own = format!(r#""pm_id":{id},"status":"{status}","autorestart":{autorestart},"exit_code":{code}"#);
        format!(r#"{{"name":"{name}",{own}}}"#)
    };
    let list: Vec<String> = (7..).zip(apps).map(entry).collect();
    let apps = parse_list(format!("[{}]", list.join(",")).as_bytes()).unwrap();
    assert_eq!(is_stopped_by_hand(&place.home, &apps, "sav"), expected, "{list:?} {log:?}");
}

#[test]
fn what_pm2_would_restart_was_stopped_on_purpose() {
    check(&[], &[], false);
    check(&["sav2 stopped true 0"], &[], false);
    check(&["sav online true 0"], &[], false);
    check(&["sav errored true 1"], &[], false);
    check(&["sav stopped true 0"], &[], true);
    check(&["sav stopped true 1"], &[], true);
    check(&["sav stopped true null", "sav online true 0"], &[], false);
    check(&["sav stopped true null", "sav stopped true 0", "sav2 online true 0"], &[], true);
}

#[test]
fn of_the_others_pm2s_log_tells_and_else_the_exit_code() {
    let crash = end(3, "SIGINT");
    let killed = end(0, "SIGKILL");
    let done = end(0, "SIGINT");
    let stopped = end(1, "SIGINT");
    let (crash, killed, done, stopped) = (crash.as_str(), killed.as_str(), done.as_str(), stopped.as_str());
    let once = |code: i32, log: &[&str], expected| check(&[&format!("sav stopped false {code}")], log, expected);
    once(0, &[], true);
    once(3, &[], false);
    once(3, &[START, crash], false);
    once(0, &[START, killed], false);
    once(0, &[START, done], true);
    once(1, &[START, STOP, stopped], true);
    once(0, &[START, STOP, killed], true);
    once(0, &[START, STOP, killed, START, killed], false);
    once(1, &[START, STOP, stopped, START, STOP, stopped], true);
    once(0, &[START, killed, START, done], true);
    once(0, &[START, killed, STOP], true);
    // Others have numbers and names that begin alike.
    once(0, &[START, &STOP.replace(":7", ":77"), killed], false);
    once(0, &[START, &STOP.replace("id:7", "id:7 "), killed], true);
    once(0, &[START, &STOP.replace("sav", "sav2"), killed], false);
    once(0, &[START, STOP, &START.replace(":7]", ":77]"), killed], true);
    // One that did not crash does not excuse another that did.
    check(&["sav stopped false 0", "sav stopped false 2"], &[START, done], false);
    check(&["sav stopped false 0", "sav stopped true 2"], &[START, done], true);
}

#[test]
fn only_the_end_of_the_log_is_read() {
    let filler = "x".repeat(1 << 10);
    let mut log = vec![START, STOP];
    log.extend(std::iter::repeat_n(filler.as_str(), 300));
    check(&["sav stopped false 1"], &log, false);
    log.push(STOP);
    check(&["sav stopped false 1"], &log, true);
}

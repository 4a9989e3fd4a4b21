//! Stopped by hand, at rest by itself, or crashed: all are `stopped` to PM2.

use super::*;
use crate::outcome::RestReason;
use crate::pm2::rest::at_rest;

const START: &str = "2026-11-26T06:26:38: PM2 log: App [sav:7] starting in -fork mode-";
const STOP: &str = "2026-11-26T06:26:39: PM2 log: Stopping app:sav id:7";

fn end(code: i32, signal: &str) -> String {
    format!("2026-11-26T06:26:40: PM2 log: App [sav:7] exited with code [{code}] via signal [{signal}]")
}

/// `apps` as `name status autorestart exit_code` and further keys, with the ids 7, 8 …
#[track_caller]
fn check(apps: &[&str], log: &[&str], expected: Option<RestReason>) {
    let place = Place::new();
    if !log.is_empty() {
        fs::write(place.home.path().join("pm2.log"), log.join("\n") + "\n").unwrap();
    }
    let entry = |(id, app): (usize, &&str)| {
        let mut words = app.splitn(5, ' ');
        let [name, status, autorestart, code] = [(); 4].map(|()| words.next().unwrap());
        let own = format!(r#""pm_id":{id},"status":"{status}","autorestart":{autorestart},"exit_code":{code}"#);
        let more = words.next().map_or_else(String::new, |more| format!(",{more}"));
        format!(r#"{{"name":"{name}",{own}{more}}}"#)
    };
    let list: Vec<String> = (7..).zip(apps).map(entry).collect();
    let apps = parse_list(format!("[{}]", list.join(",")).as_bytes()).unwrap();
    assert_eq!(at_rest(&apps, "sav", &place.home.log_tail()), expected, "{list:?} {log:?}");
}

const BY_HAND: Option<RestReason> = Some(RestReason::Operator);
const DONE: Option<RestReason> = Some(RestReason::Schedule);
const FOR_GOOD: Option<RestReason> = Some(RestReason::Exit);

#[test]
fn what_pm2_would_restart_was_stopped_on_purpose() {
    check(&[], &[], None);
    check(&["sav2 stopped true 0"], &[], None);
    check(&["sav online true 0"], &[], None);
    check(&["sav errored true 1"], &[], None);
    check(&["sav stopped true 0"], &[], BY_HAND);
    check(&["sav stopped true 1"], &[], BY_HAND);
    check(&["sav stopped true null", "sav online true 0"], &[], None);
    check(&["sav stopped true null", "sav stopped true 0", "sav2 online true 0"], &[], BY_HAND);
}

#[test]
fn of_the_others_pm2s_log_tells_and_else_the_exit_code() {
    let crash = end(3, "SIGINT");
    let killed = end(0, "SIGKILL");
    let done = end(0, "SIGINT");
    let stopped = end(1, "SIGINT");
    let (crash, killed, done, stopped) = (crash.as_str(), killed.as_str(), done.as_str(), stopped.as_str());
    let once = |code: i32, log: &[&str], expected| check(&[&format!("sav stopped false {code}")], log, expected);
    once(0, &[], DONE);
    once(3, &[], None);
    once(3, &[START, crash], None);
    once(0, &[START, killed], None);
    once(0, &[START, done], DONE);
    once(1, &[START, STOP, stopped], BY_HAND);
    once(0, &[START, STOP, killed], BY_HAND);
    once(0, &[START, STOP, killed, START, killed], None);
    once(1, &[START, STOP, stopped, START, STOP, stopped], BY_HAND);
    once(0, &[START, killed, START, done], DONE);
    once(0, &[START, killed, STOP], BY_HAND);
    // Others have numbers and names that begin alike.
    once(0, &[START, &STOP.replace(":7", ":77"), killed], None);
    once(0, &[START, &STOP.replace("id:7", "id:7 "), killed], BY_HAND);
    once(0, &[START, &STOP.replace("sav", "sav2"), killed], None);
    once(0, &[START, STOP, &START.replace(":7]", ":77]"), killed], BY_HAND);
    // One that did not crash does not excuse another that did.
    check(&["sav stopped false 0", "sav stopped false 2"], &[START, done], None);
    check(&["sav stopped false 0", "sav stopped true 2"], &[START, done], BY_HAND);
}

#[test]
fn what_runs_at_times_and_what_ends_for_good_is_at_rest_too() {
    let (crash, killed, done) = (end(3, "SIGINT"), end(0, "SIGKILL"), end(0, "SIGINT"));
    let (crash, killed, done) = (crash.as_str(), killed.as_str(), done.as_str());
    let cron = r#""cron_restart":"0 4 * * *""#;
    let job = |code: i32, log: &[&str], expected| check(&[&format!("sav stopped false {code} {cron}")], log, expected);
    job(0, &[START, done], DONE);
    job(3, &[START, crash], DONE);
    job(0, &[START, killed], DONE);
    job(0, &[START, STOP, killed], BY_HAND);
    job(1, &[], DONE);
    // One that PM2 keeps running is only restarted at that time.
    check(&[&format!("sav stopped true 0 {cron}")], &[START, STOP, done], BY_HAND);
    check(&[&format!("sav errored true 1 {cron}")], &[], None);
    check(&[r#"sav stopped false 1 "cron_restart":"0""#], &[START, crash], None);
    for codes in [r#""stop_exit_codes":[0,3]"#, r#""stop_exit_codes":3"#, r#""stop_exit_codes":["3"]"#] {
        check(&[&format!("sav stopped true 3 {codes}")], &[START, crash], FOR_GOOD);
        check(&[&format!("sav stopped true 3 {codes}")], &[], FOR_GOOD);
        check(&[&format!("sav stopped true 3 {codes}")], &[START, STOP, crash], BY_HAND);
        check(&[&format!("sav stopped false 4 {codes}")], &[START, &end(4, "SIGINT")], None);
    }
    // PM2 takes a crash for the code 0, and lets it lie.
    let zero = r#""stop_exit_codes":[0]"#;
    let of_zero = |log: &[&str], expected| check(&[&format!("sav stopped true 0 {zero}")], log, expected);
    of_zero(&[START, done], FOR_GOOD);
    of_zero(&[START, killed], None);
    of_zero(&[START, &end(0, "SIGSEGV")], None);
    of_zero(&[START, STOP, killed], BY_HAND);
}

#[test]
fn only_the_end_of_the_log_is_read() {
    let filler = "x".repeat(1 << 10);
    let mut log = vec![START, STOP];
    log.extend(std::iter::repeat_n(filler.as_str(), 300));
    check(&["sav stopped false 1"], &log, None);
    log.push(STOP);
    check(&["sav stopped false 1"], &log, BY_HAND);
}

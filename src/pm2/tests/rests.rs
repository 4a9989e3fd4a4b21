//! Processes that PM2 lists as `stopped`: by the operator, at rest by themselves, or crashed.

use super::*;
use crate::outcome::RestReason;
use crate::pm2::rest::common_rest_reason;

const START: &str = "2026-11-26T06:26:38: PM2 log: App [sav:7] starting in -fork mode-";
const STOP: &str = "2026-11-26T06:26:39: PM2 log: Stopping app:sav id:7";

fn end(code: i32, signal: &str) -> String {
    format!("2026-11-26T06:26:40: PM2 log: App [sav:7] exited with code [{code}] via signal [{signal}]")
}

/// `apps` as `name status autorestart exit_code` and further keys, with the ids 7, 8 …
#[track_caller]
fn check(apps: &[&str], log: &[&str], expected: Option<RestReason>) {
    let fixture = Pm2Fixture::new();
    if !log.is_empty() {
        fs::write(fixture.home.path().join("pm2.log"), log.join("\n") + "\n").unwrap();
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
    assert_eq!(common_rest_reason(&apps, "sav", &fixture.home.read_log_tail()), expected, "{list:?} {log:?}");
}

const BY_OPERATOR: Option<RestReason> = Some(RestReason::Operator);
const ON_SCHEDULE: Option<RestReason> = Some(RestReason::Schedule);
const BY_EXIT_CODE: Option<RestReason> = Some(RestReason::Exit);

#[test]
fn a_stopped_process_with_autorestart_was_stopped_by_the_operator() {
    check(&[], &[], None);
    check(&["sav2 stopped true 0"], &[], None);
    check(&["sav online true 0"], &[], None);
    check(&["sav errored true 1"], &[], None);
    check(&["sav stopped true 0"], &[], BY_OPERATOR);
    check(&["sav stopped true 1"], &[], BY_OPERATOR);
    check(&["sav stopped true null", "sav online true 0"], &[], None);
    check(&["sav stopped true null", "sav stopped true 0", "sav2 online true 0"], &[], BY_OPERATOR);
}

#[test]
fn without_autorestart_pm2s_log_decides_or_else_the_exit_code() {
    let crash = end(3, "SIGINT");
    let killed = end(0, "SIGKILL");
    let done = end(0, "SIGINT");
    let stopped = end(1, "SIGINT");
    let (crash, killed, done, stopped) = (crash.as_str(), killed.as_str(), done.as_str(), stopped.as_str());
    let once = |code: i32, log: &[&str], expected| check(&[&format!("sav stopped false {code}")], log, expected);
    once(0, &[], ON_SCHEDULE);
    once(3, &[], None);
    once(3, &[START, crash], None);
    once(0, &[START, killed], None);
    once(0, &[START, done], ON_SCHEDULE);
    once(1, &[START, STOP, stopped], BY_OPERATOR);
    once(0, &[START, STOP, killed], BY_OPERATOR);
    once(0, &[START, STOP, killed, START, killed], None);
    once(1, &[START, STOP, stopped, START, STOP, stopped], BY_OPERATOR);
    once(0, &[START, killed, START, done], ON_SCHEDULE);
    once(0, &[START, killed, STOP], BY_OPERATOR);
    // Other processes have ids and names that begin the same.
    once(0, &[START, &STOP.replace(":7", ":77"), killed], None);
    once(0, &[START, &STOP.replace("id:7", "id:7 "), killed], BY_OPERATOR);
    once(0, &[START, &STOP.replace("sav", "sav2"), killed], None);
    once(0, &[START, STOP, &START.replace(":7]", ":77]"), killed], BY_OPERATOR);
    // One instance at rest does not hide another that crashed.
    check(&["sav stopped false 0", "sav stopped false 2"], &[START, done], None);
    check(&["sav stopped false 0", "sav stopped true 2"], &[START, done], BY_OPERATOR);
}

#[test]
fn scheduled_processes_and_stop_exit_codes_are_at_rest_too() {
    let (crash, killed, done) = (end(3, "SIGINT"), end(0, "SIGKILL"), end(0, "SIGINT"));
    let (crash, killed, done) = (crash.as_str(), killed.as_str(), done.as_str());
    let cron = r#""cron_restart":"0 4 * * *""#;
    let job = |code: i32, log: &[&str], expected| check(&[&format!("sav stopped false {code} {cron}")], log, expected);
    job(0, &[START, done], ON_SCHEDULE);
    job(3, &[START, crash], ON_SCHEDULE);
    job(0, &[START, killed], ON_SCHEDULE);
    job(0, &[START, STOP, killed], BY_OPERATOR);
    job(1, &[], ON_SCHEDULE);
    // With autorestart, `cron_restart` only restarts a running process at that time.
    check(&[&format!("sav stopped true 0 {cron}")], &[START, STOP, done], BY_OPERATOR);
    check(&[&format!("sav errored true 1 {cron}")], &[], None);
    check(&[r#"sav stopped false 1 "cron_restart":"0""#], &[START, crash], None);
    for codes in [r#""stop_exit_codes":[0,3]"#, r#""stop_exit_codes":3"#, r#""stop_exit_codes":["3"]"#] {
        check(&[&format!("sav stopped true 3 {codes}")], &[START, crash], BY_EXIT_CODE);
        check(&[&format!("sav stopped true 3 {codes}")], &[], BY_EXIT_CODE);
        check(&[&format!("sav stopped true 3 {codes}")], &[START, STOP, crash], BY_OPERATOR);
        check(&[&format!("sav stopped false 4 {codes}")], &[START, &end(4, "SIGINT")], None);
    }
    // PM2 treats a death by signal as code 0, and does not restart the process.
    let zero = r#""stop_exit_codes":[0]"#;
    let of_zero = |log: &[&str], expected| check(&[&format!("sav stopped true 0 {zero}")], log, expected);
    of_zero(&[START, done], BY_EXIT_CODE);
    of_zero(&[START, killed], None);
    of_zero(&[START, &end(0, "SIGSEGV")], None);
    of_zero(&[START, STOP, killed], BY_OPERATOR);
}

#[test]
fn only_the_end_of_the_log_is_read() {
    let filler = "x".repeat(1 << 10);
    let mut log = vec![START, STOP];
    log.extend(std::iter::repeat_n(filler.as_str(), 300));
    check(&["sav stopped false 1"], &log, None);
    log.push(STOP);
    check(&["sav stopped false 1"], &log, BY_OPERATOR);
}

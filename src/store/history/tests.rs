//! History that is counted, dropped and saved.

#![expect(clippy::unwrap_used, reason = "a test must end when it cannot prepare its folder")]

use std::fs;

use super::*;
use crate::testing::temp_state_folder;

mod clocks;

const DAY_S: u64 = 86_400;
/// 2026-11-22T02:12:10Z
const NOW: i64 = 1_795_313_530_000;

/// Spans as (healthy, minutes from, minutes to), relative to now.
#[track_caller]
fn check(spans: &[(bool, i64, i64)], last_s: u64, expected: Option<f64>) {
    let mut uptime = Uptime::default();
    let at = |minute: i64| WallTime::from_ms(NOW + minute * 60_000);
    for &(healthy, from, to) in spans {
        uptime.record(healthy, at(from), at(to));
    }
    assert_eq!(uptime.uptime(Duration::from_secs(last_s), at(0)), expected);
    let json = serde_json::to_string(&uptime).expect("numbers have a JSON form");
    assert_eq!(serde_json::from_str::<Uptime>(&json).expect("it was just written"), uptime);
}

#[test]
fn unwatched_time_is_neither_up_nor_down() {
    let mut uptime = Uptime::default();
    let now = WallTime::from_ms(1_795_313_530_123);
    uptime.record(true, now.offset_by(-60_000), now.offset_by(-30_000));
    uptime.record(false, now.offset_by(-10_000), now);
    assert_eq!(uptime.watched(Duration::from_secs(DAY_S), now), Duration::from_secs(40));
    assert_eq!(Uptime::default().watched(Duration::from_secs(DAY_S), now), Duration::ZERO);
}

#[test]
fn uptime_is_a_share_of_the_watched_time() {
    check(&[], DAY_S, None);
    check(&[(true, -60, 0)], DAY_S, Some(1.0));
    check(&[(false, -60, 0)], DAY_S, Some(0.0));
    check(&[(true, -60, -30), (false, -30, 0)], DAY_S, Some(0.5));
    check(&[(true, -600, -570), (false, -10, 0)], DAY_S, Some(0.75));
    check(&[(false, -27 * 60, -26 * 60), (true, -60, 0)], DAY_S, Some(1.0));
    check(&[(false, -27 * 60, -26 * 60), (true, -60, 0)], 30 * DAY_S, Some(0.5));
    check(&[(false, -40 * 1_440, -39 * 1_440), (true, -60, 0)], 30 * DAY_S, Some(1.0));
    check(&[(false, -40 * 1_440, -39 * 1_440), (true, -60, 0)], 90 * DAY_S, Some(0.04));
    check(&[(true, -50 * 1_440, -49 * 1_440)], 30 * DAY_S, None);
}

#[test]
fn percentages_round_down() {
    // 3 s in 100,000: 99.997 % must not become 100 % or 99.998 %.
    let mut uptime = Uptime::default();
    let at = |ms: i64| WallTime::from_ms(NOW - 1_000_000 + ms);
    uptime.record(true, at(0), at(999_970));
    uptime.record(false, at(999_970), at(1_000_000));
    assert_eq!(uptime.uptime(Duration::from_secs(DAY_S), at(1_000_000)), Some(0.9999));
}

#[test]
fn a_clock_set_back_counts_nothing_twice_and_ignores_the_future() {
    check(&[(true, 0, -60)], DAY_S, None);
    check(&[(false, 600_000, 600_060), (true, -60, 0)], DAY_S, Some(1.0));
    check(&[(false, 600_000, 600_060)], DAY_S, None);
}

#[test]
fn the_size_is_bounded_for_any_times() {
    let mut uptime = Uptime::default();
    let extremes = [i64::MIN, -NOW, 0, NOW, i64::MAX - 1, i64::MAX].map(WallTime::from_ms);
    for from in extremes {
        for to in extremes {
            uptime.record(true, from, to);
            uptime.record(false, from, to);
            uptime.uptime(Duration::MAX, to);
        }
    }
    for minute in 0..200 * 1_440 {
        let at = WallTime::from_ms(NOW + minute * 60_000);
        uptime.record(minute % 3 == 0, at, at.offset_by(60_000));
    }
    assert_eq!((uptime.hours.len(), uptime.days.len()), (50, 182));
    assert!(serde_json::to_string(&uptime).expect("numbers have a JSON form").len() < 7_000);
}

/// A history with a minute of uptime and a latency in each of these hours, relative to now.
fn history(hours: &[i64]) -> History {
    let mut history = History::default();
    for hour in hours {
        let at = WallTime::from_ms(NOW + hour * HOUR);
        history.record("a", true, at.offset_by(-60_000), at);
        history.record_latency("a", Duration::from_millis(3), at);
    }
    history
}

#[test]
fn most_is_in_a_separate_file_and_nothing_is_counted_twice() {
    let (_scene, folder) = temp_state_folder();
    let now = WallTime::from_ms(NOW);
    let mut before = history(&[-30, -3, -1]);
    assert!(before.is_flush_due(now));
    before.load_file(&folder).unwrap();
    before.flush(&folder, now).unwrap();
    assert!(!before.is_flush_due(now) && before.is_flush_due(now.offset_by(HOUR)));
    before.record("a", false, now, now.offset_by(30_000));
    before.record_latency("a", Duration::from_millis(9), now);
    let state = serde_json::to_string(&before).unwrap();
    assert!(state.len() < 300, "{state}");

    let mut after: History = serde_json::from_str(&state).unwrap();
    assert_ne!(after.get("a"), before.get("a"), "the rest is in the file");
    after.load_file(&folder).unwrap();
    assert_eq!(after.get("a"), before.get("a"));
    after.load_file(&folder).unwrap();
    after.flush(&folder, now.offset_by(HOUR)).unwrap();
    let mut again: History = serde_json::from_str(&serde_json::to_string(&after).unwrap()).unwrap();
    again.load_file(&folder).unwrap();
    assert_eq!(again, after);
    again.retain(|name| name != "a");
    assert_eq!(again.get("a"), None);
}

#[test]
fn what_could_not_be_flushed_stays_in_the_state() {
    let (_scene, folder) = temp_state_folder();
    fs::create_dir(folder.file(HISTORY)).unwrap();
    let mut history = history(&[-3, -1]);
    assert!(history.flush(&folder, WallTime::from_ms(NOW)).is_err());
    let state = serde_json::to_string(&history).unwrap();
    let read: History = serde_json::from_str(&state).unwrap();
    assert_eq!(read.get("a"), history.get("a"));
}

#[test]
fn a_damaged_file_loses_only_its_own_contents() {
    let (_scene, folder) = temp_state_folder();
    for text in ["", "{", "{\"version\":2,\"targets\":{}}", "{\"version\":1,\"targets\":7}"] {
        fs::write(folder.file(HISTORY), text).unwrap();
        let mut history = history(&[-1]);
        let known = history.get("a").cloned();
        assert_eq!(history.load_file(&folder).unwrap_err().kind(), io::ErrorKind::InvalidData, "{text}");
        assert_eq!(history.get("a").cloned(), known);
        history.flush(&folder, WallTime::from_ms(NOW)).unwrap();
        history.load_file(&folder).unwrap();
    }
}

#[test]
fn ninety_days_of_a_thousand_targets_are_bounded() {
    let mut uptime = Uptime::default();
    for minute in 0..91 * 1_440 {
        let at = WallTime::from_ms(NOW + minute * 60_000);
        uptime.record(minute % 3 == 0, at, at.offset_by(60_000));
        uptime.latency.record(Duration::from_micros(123_456_789), at);
    }
    let size = serde_json::to_string(&uptime).unwrap().len();
    // 10 MB for a thousand.
    assert!(size < 10_000, "{size}");
}

#[test]
fn days_are_listed_whether_they_were_watched_or_not() {
    let mut uptime = Uptime::default();
    let now = WallTime::from_ms(NOW);
    uptime.record(true, now.offset_by(-2 * DAY), now.offset_by(-2 * DAY + HOUR));
    uptime.record(false, now.offset_by(-2 * DAY + HOUR), now.offset_by(-2 * DAY + 2 * HOUR));
    let days = uptime.days(4, now);
    let shown: Vec<(u64, Option<f64>)> = days.iter().map(|day| (day.watched.as_secs(), day.up)).collect();
    assert_eq!(shown, [(0, None), (7_200, Some(0.5)), (0, None), (0, None)]);
    assert_eq!(days[3].start.rfc3339(), "2026-11-22T00:00:00.000Z");
}

//! Reports over a month, as text and as JSON.

use super::*;
use crate::outcome::Class;
use crate::policy::{DrillInterruption, DrillOutcome, Incident, TargetState};
use crate::store::history::GapReason;
use crate::store::state::TargetView;
use crate::time::BootTime;

const DAY_S: i64 = 86_400;

/// So many seconds before 30 Nov, 12:00 UTC.
fn ago(seconds: i64) -> WallTime {
    WallTime::parse_rfc3339("2026-11-30T12:00:00.000Z").expect("a time").offset_by(-seconds * 1_000)
}

fn reading(boot: BootTime) -> ClockReading {
    ClockReading { now: boot, wall: ago(0) }
}

fn closed(id: &str, began: WallTime, down_s: u64, heal_s: Option<u64>) -> ClosedIncident {
    ClosedIncident {
        id: id.into(),
        target: "sav-backend".into(),
        began,
        down_ms: down_s * 1_000,
        found_ms: Some(down_s * 900),
        class: Class::Timeout,
        runs: [("pm2 restart x".to_owned(), 1)].into(),
        cured: heal_s.map(|_| "pm2 restart x".into()),
        heal_ms: heal_s.map(|seconds| seconds * 1_000),
    }
}

fn saved() -> SavedState {
    let mut saved = SavedState { first_start: Some(ago(60 * DAY_S)), ..SavedState::default() };
    let shown = |order| TargetView { order, ..TargetView::default() };
    saved.views = [("sav-backend".to_owned(), shown(0)), ("db".to_owned(), shown(1))].into();
    let mut record = |up, from, to| saved.history.record("sav-backend", up, from, to);
    record(true, ago(20 * DAY_S), ago(10_000));
    record(false, ago(10_000), ago(9_000));
    saved.gaps.note(Gap { from: ago(3 * DAY_S + 3_600), to: ago(3 * DAY_S), why: GapReason::Ended });
    saved
}

#[test]
fn a_report_shows_uptime_incidents_and_gaps() {
    let night = |n: i64| ago(n * DAY_S + 9 * 3_600);
    let past =
        [closed("a", night(5), 64, Some(3)), closed("b", night(4), 104, Some(31)), closed("c", night(3), 70, Some(3))];
    let saved = saved();
    let span = Duration::from_secs(30 * 86_400);
    let mut db = Noted::default();
    let by = Some(OrderedBy::Operator);
    for (attempt, rung) in [(1, 1), (1, 2), (1, 1)] {
        db.add(&EventKind::Restart { attempt, rung, run: "x".into(), incident: None, by });
    }
    db.add(&EventKind::Restart { attempt: 1, rung: 1, run: "x".into(), incident: None, by: None });
    db.add(&EventKind::Warn { about: WarningKind::Slow, detail: String::new() });
    db.add(&EventKind::Warn { about: WarningKind::Unsteady, detail: String::new() });
    db.add(&EventKind::Warn { about: WarningKind::Unsteady, detail: String::new() });
    let outcome = DrillOutcome::CutShort { why: DrillInterruption::Cancelled };
    db.add(&EventKind::DrillEnded { outcome, incident: None });
    let outcome = DrillOutcome::Healed { found_ms: 61_000, healed_ms: 3_000 };
    db.add(&EventKind::DrillEnded { outcome, incident: None });
    db.add(&EventKind::Warn { about: WarningKind::Blind, detail: String::new() });
    let noted = [("db".to_owned(), db)].into();
    let report =
        Report { saved: &saved, closed: &past, noted: &noted, span, at: reading(BootTime::BOOT), zone: Zone::UTC };
    assert_eq!(
        report.text(),
        "\
30 days to 30 Nov. Watched 29 d 23 h; not watched 1 h (27 Nov 11:00 to 12:00, the watchdog was killed, or no \
tick ran).
sav-backend  up 99.94 % of the watched time       3 incidents, at most 3 min 58 s in all, longest at most 1 min 44 s
  found in   1 min 3 s median, 1 min 33 s worst   healed 3 s median, 31 s worst after the restart
  cures      pm2 restart x  3 of 3 timeouts, median 3 s
  pattern    all between 03:00 and 03:05. Restarting hides a cause; it is still there
db           not watched                          no incident
  by hand    2 restarts, ordered by the operator
  drills     2 drills, the last: found in 1 min 1 s, healed 3 s later
  slow       once: healthy, but slower than its limit
  unsteady   2 times: a third of an hour's probes failed, but too few in a row"
    );
    let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
    assert_eq!(json["targets"][0]["found_ms"], serde_json::json!({"median": 63_000, "worst": 93_600}));
    assert_eq!(json["not_watched"][0]["why"], "ended");
    assert_eq!(json["targets"][1]["uptime"], serde_json::Value::Null);
    assert_eq!((&json["targets"][0]["by_operator"], &json["targets"][1]["by_operator"]), (&0.into(), &2.into()));
    assert_eq!((&json["targets"][0]["slow"], &json["targets"][1]["slow"]), (&0.into(), &1.into()));
}

#[test]
fn an_open_incident_counts_and_a_short_record_is_named() {
    let mut saved = saved();
    saved.first_start = Some(ago(7_200));
    saved.gaps = Default::default();
    let now = BootTime::from_ms(10_000_000);
    let open = Incident {
        id: "x".into(),
        began: now - Duration::from_secs(600),
        down_since: Some(now - Duration::from_secs(630)),
        down_at: now,
        attempts: 0,
        recovering: false,
        diagnosing: None,
        held: None,
        tried: None,
        cause: None,
        last: None,
    };
    saved.policy.targets.insert("db".into(), TargetState { incident: Some(open), ..TargetState::default() });
    let span = Duration::from_secs(30 * 86_400);
    let report =
        Report { saved: &saved, closed: &[], noted: &BTreeMap::new(), span, at: reading(now), zone: Zone::UTC };
    let text = report.text();
    assert!(text.starts_with("2 h to 30 Nov, all that is recorded. Watched 2 h without a gap.\n"), "{text}");
    assert!(text.ends_with("1 incident, at most 10 min 30 s"), "{text}");
    let nothing = SavedState::default();
    let report = Report { saved: &nothing, ..report };
    assert_eq!(report.text(), "No watchdog has probed anything here yet.");
}

#[test]
fn a_wrong_clock_makes_no_gap_and_no_beginning() {
    #[track_caller]
    fn check(first_start: WallTime, gaps: &[(i64, i64)], expected: &str) {
        let mut saved = saved();
        saved.first_start = Some(first_start);
        saved.gaps = Default::default();
        gaps.iter()
            .for_each(|(from, to)| saved.gaps.note(Gap { from: ago(*from), to: ago(*to), why: GapReason::Ended }));
        let span = Duration::from_secs(30 * 86_400);
        let report = Report {
            saved: &saved,
            closed: &[],
            noted: &BTreeMap::new(),
            span,
            at: reading(BootTime::BOOT),
            zone: Zone::UTC,
        };
        let text = report.text();
        assert!(text.starts_with(expected), "{text}");
    }
    let (year, first) = (365 * DAY_S, ago(60 * DAY_S));
    check(first, &[], "30 days to 30 Nov. Watched 30 days without a gap.");
    check(first, &[(3_600, 1_800)], "30 days to 30 Nov. Watched 29 d 23 h; not watched 30 min (");
    // From now to next year; within next year; and from 1970 to a day that the history shows as watched.
    check(
        first,
        &[(3_600, -year), (-year, -year - 60), (50 * year, 2 * DAY_S)],
        "30 days to 30 Nov. Watched 30 days without a gap.",
    );
    // A first start in the future is replaced by the beginning of the history.
    check(ago(-year), &[], "20 d 12 h to 30 Nov, all that is recorded. Watched 20 d 12 h without a gap.");
    // The list of gaps is full, so there may have been more.
    let many: Vec<(i64, i64)> = (1..=150).map(|n| (600 * n, 600 * n - n)).collect();
    check(first, &many, "30 days to 30 Nov. Watched 29 d 21 h; not watched at least 2 h 47 min (97 more; ");
}

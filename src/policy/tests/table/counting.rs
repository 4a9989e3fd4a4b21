//! Rules 1, 2 and 6: which failures count, what resets the count, and the status meanwhile.

use super::{begin, check, check_statuses};
use crate::outcome::{Class, Downtime, Exit};
use crate::policy::{Record, Status};
use crate::time::BootTime;
use std::time::Duration;

#[test]
fn a_healthy_verdict_ends_the_streak_and_the_incident() {
    check("", "F F S F F F", "failing@0 -@30 -@60 failing@90 -@120 down+restart#1@150");
    check("rungs=0", "S F*3 F S F", "- failing+down - up failing");
    check("rungs=0", "S F*3 S F*3 S", "- failing+down up failing+down up");
    check("rungs=0", "S F*2 S F*2 S F*2", "- failing - failing - failing");
}

#[test]
fn a_target_is_down_at_the_threshold_once_per_incident() {
    check("failure_threshold=1", "S F", "- failing+down+restart#1@30");
    check("failure_threshold=5", "S F*4 F", "- failing down+restart#1@150");
    check("rungs=0", "S F F F F*100 S", "- failing - down - up");
    check("", "S F*3 ok +30 F F F", "- failing+down+restart#1@90 - -@120 -@150 restart#2@180 -@210");
}

#[test]
fn failures_do_not_count_while_a_command_runs() {
    let bare = "start_period=0";
    check(bare, "S F*3 F F F ok F F F", "- failing+down+restart#1@90 - - -@180 - -@180 -@210 restart#2@240");
    check(
        "rungs=2 start_period=0",
        "S F*3 fail F*5 F F F ok F F F",
        "- failing+down+restart#1.1@90 - - restart#1.2@95 - - - - - restart#2.2@210",
    );
}

#[test]
fn unknown_changes_no_counter_and_never_leads_to_a_restart() {
    check("", "S F U F U U F", "- failing - - - - down+restart#1");
    check("", "S U*20", "- -");
    check("rungs=0", "S F*3 U*5 F S", "- failing+down - - up");
    // The attempt is due, but the last verdict is not a failure, so it waits for the next failure.
    let script = "S F*3 ok +29 F F F U +1 U F";
    check(
        "cooldown=2m",
        script,
        "- failing+down+restart#1@90 - - -@120 -@150 held:cooldown..210@180 -@210 -@211 -@240 restart#2@270",
    );
}

#[test]
fn only_a_healthy_verdict_proves_a_repair() {
    check("", "S F*3 ok F*5 S", "- failing+down+restart#1@90 - - cured#1@95");
    check("", "S F*3 fail F*5 S", "- failing+down+restart#1@90 - - cured#1@95");
    check("", "S F*3 ok +28 S", "- failing+down+restart#1 - - cured#1@119");
    check("", "S F*3 ok +29 S", "- failing+down+restart#1 - - up#1@120");
    // A target that is healthy while its command still runs counts as cured.
    check("", "S F*3 S ok S", "- failing+down+restart#1 cured#1 - -");
}

#[test]
fn every_target_has_one_status() {
    check_statuses("", "U U S U F U F F", "starting starting healthy healthy failing failing failing down");
    check_statuses("", "F S F S", "failing healthy failing healthy");
    check_statuses("", "S F*3 F ok F S", "healthy down down recovering recovering healthy");
    // After an attempt the target is recovering until the threshold is reached again; then it is down.
    check_statuses(
        "",
        "S F*3 ok +30 F F ok F",
        "healthy down recovering recovering recovering down recovering recovering",
    );
    check_statuses("max_restarts=1", "S F*3 ok +5m stall/1h F*2 F", "healthy down recovering down down down down");
    check_statuses("rungs=0", "S F*3 stall/1h F S", "healthy down down down healthy");
    check_statuses("dry_run=yes", "S F*3 F S", "healthy down down healthy");
    check_statuses("", "S pause F*3 resume F S", "healthy paused paused starting starting healthy");
    check_statuses("", "S F*3 ok pause F", "healthy down recovering paused paused");
    check_statuses("", "S pause F resume F +1m S", "healthy paused paused starting starting failing healthy");
    check_statuses("", "S F stall/1h U", "healthy failing failing failing");
    check_statuses("", "S pause U resume U", "healthy paused paused healthy healthy");
    check_statuses("", "reboot/10 daemon F F S", "starting starting starting starting healthy");
}

#[test]
fn healthy_starting_and_paused_are_no_trouble() {
    let trouble = [Status::Failing, Status::Down, Status::Recovering];
    let no_trouble = [Status::Healthy, Status::Starting, Status::Paused];
    assert!(trouble.iter().all(|status| status.is_trouble()));
    assert!(!no_trouble.iter().any(|status| status.is_trouble()));
}

#[test]
fn records_hold_everything_that_log_and_events_need() {
    let mut harness = begin("rungs=2", "");
    "S F F:reset F:refused fail F S pause/1h".split(' ').for_each(|token| _ = harness.play(token));
    let boot_clock = |s: i64| BootTime::from_ms((10 * 86_400 + s) * 1000);
    let (incident, detail, secs) = ("1122-0313".to_string(), "no byte".to_string(), Duration::from_secs);
    let expected = [
        Record::Failing { class: Class::Timeout, detail: detail.clone(), threshold: 3, by: None },
        Record::Down {
            failures: 3,
            class: Class::Refused,
            detail,
            incident: incident.clone(),
            last_healthy: Some(boot_clock(0)),
            by: None,
        },
        Record::Restart {
            attempt: 1,
            rung: 0,
            incident: Some(incident.clone()),
            by: None,
            spent: 1,
            max: 10,
            window: secs(3_600),
        },
        Record::RestartDone {
            attempt: 1,
            rung: 0,
            exit: Exit::Exited(3),
            duration: secs(2),
            incident: Some(incident.clone()),
            folder: incident.clone(),
            start_period: secs(30),
            by: None,
        },
        // Down from the last healthy probe at 0 s to the next healthy probe at 91 s.
        Record::Up {
            incident,
            down: Downtime::AtMost(secs(91)),
            attempts: 1,
            cured: true,
            detail: "200".into(),
            latency: Duration::from_millis(2),
            by: None,
        },
        Record::Paused { until: boot_clock(91 + 3_600), command: None },
    ];
    assert_eq!(harness.records, expected);
}

#[test]
fn down_time_counts_from_the_last_healthy_probe_without_rest_and_pauses() {
    #[track_caller]
    fn check_down(script: &str, expected: Option<&str>) {
        let limits = if script.starts_with("app") { "rungs=0 stopped=yes" } else { "rungs=0" };
        let mut harness = begin(limits, script);
        script.split(' ').for_each(|token| _ = harness.play(token));
        let down = harness.records.iter().find_map(|record| match record {
            Record::Up { down, .. } => Some(down.to_string()),
            _ => None,
        });
        assert_eq!(down.as_deref(), expected, "{script}");
    }
    check_down("S S F*3 S", Some("at most 2 min"));
    check_down("F*3 S", Some("at least 1 min 30 s"));
    // No watchdog ran for two hours; the target may have been down all that time.
    check_down("S S stop +2h daemon F*3 S", Some("at most 2 h 2 min"));
    check_down("tick S +5m tick F +5m tick F +5m tick F +5m tick S", Some("at most 20 min"));
    check_down("S F reboot/1m daemon F*3 S", Some("at most 3 min"));
    // An unknown verdict is not a healthy one.
    check_down("S U U F*3 S", Some("at most 3 min"));
    check_down("S pause/50 F F*30 F*3 S", Some("at most 1 min 40 s"));
    check_down("app:1 S app F*3 no +1h app:2 F*40 yes S", Some("at most 20 min"));
    check_down("S F*3 pause/1h +1h S", Some("at most 1 h 2 min"));
}

#[test]
fn no_two_incidents_have_the_same_id() {
    let mut harness = begin("rungs=0", "");
    // An incident on disk that is missing from the state.
    harness.policy.as_mut().expect("it begins as a daemon").remember_incident("1122-0313-2".into());
    "S F*3 S F*3 S crash daemon F*3".split(' ').for_each(|token| _ = harness.play(token));
    let names = harness.records.iter().filter_map(|record| match record {
        Record::Down { incident, .. } => Some(incident.as_str()),
        _ => None,
    });
    assert_eq!(names.collect::<Vec<_>>(), ["1122-0313-3", "1122-0313-4", "1122-0313-5"]);
}

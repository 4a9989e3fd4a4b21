//! Warnings about targets that are not down but do not do well.

use super::{begin, check, check_notifications};
use crate::policy::Record;

#[test]
fn a_target_that_answers_slowly_is_reported_once_per_change_and_never_repaired() {
    let slow = "slow=2s";
    check(slow, "S S:3 S:3 S:3 S:3*9 +1h", "- - - warn:slow - -");
    check_notifications(slow, "S S:3*2 S:3 S:3", "- - warn:slow -");
    // Only a row of probes changes it, in either direction.
    check(slow, "S S:3*2 S S:3*2 F S:3*2 S:2*9", "- - - - failing - -");
    check(slow, "S S:3*3 S*2 S:3*9 S*3 S:3*2 S:3", "- warn:slow - - - - warn:slow");
    check("slow=2s failure_threshold=1", "S S:2.001 S S:3", "- warn:slow - warn:slow");
    check("", "S S:9*9", "- -");
    // A failure ends the row. The probe that ends a start period, and those in a pause, do not count.
    check(slow, "S S:3*2 U S:3", "- - - warn:slow");
    check("slow=2s start_period=5m", "S S:3*2 order ok S:3 S:3*2 S:3", "- - ordered#1 - - - warn:slow");
    check(slow, "S S:3*2 pause/1h S:3*9 resume S:3*3 S:3", "- - paused..3660 - resumed - warn:slow");
    // It survives the watchdog, but not the removal of the limit.
    check(slow, "S S:3*3 crash daemon S:3*9", "- warn:slow - - -");
    check(slow, "S S:3*2 crash daemon S:3", "- - - - -");
    check(slow, "S S:3*3 reload:slow=0 S:3 reload:slow=2s S:3*2 S:3", "- warn:slow - - - - warn:slow");
}

#[test]
fn a_warning_about_slowness_has_the_figures() {
    let mut harness = begin("slow=2s", "");
    for token in ["S", "S:3*3"] {
        harness.play(token);
    }
    let Some(Record::Warn { detail, .. }) = harness.records.last() else { panic!("a warning") };
    assert_eq!(detail, "200 in 3 s; 3 probes in a row took longer than 2 s");
}

#[test]
fn a_target_that_fails_a_third_of_an_hours_probes_is_reported_once_per_change() {
    let (pair, quiet) = ("F*2 S ", "failing - ");
    let warned = format!("- {}failing+warn:unsteady - {}", quiet.repeat(4), quiet.repeat(30));
    check("", &format!("S {}", pair.repeat(35)), &warned);
    check_notifications("", &format!("S {}", pair.repeat(6)), &format!("- {}warn:unsteady - - -", "- - ".repeat(4)));
    // A quarter is not enough, nor are nine failures.
    check("", &format!("S {}", "F S*3 ".repeat(60)), &format!("- {}", quiet.repeat(60)));
    check("", &format!("S {}F S*99", pair.repeat(4)), &format!("- {}failing -", quiet.repeat(4)));
    // Only the last hour counts: an hour later it starts from nothing, and it is reported again.
    let again = format!("S {}+1h {}", pair.repeat(5), pair.repeat(40));
    let before = format!("- {}failing+warn:unsteady - -", quiet.repeat(4));
    let mut harness = begin("", "");
    again.split_whitespace().for_each(|token| drop(harness.play(token)));
    let warnings = harness.records.iter().filter(|record| matches!(record, Record::Warn { .. })).count();
    assert_eq!(warnings, 2, "{before}");
    // An incident is told by itself, and what led to it does not count again. Nor does what happens in a pause, in a
    // start period or at rest.
    check(
        "rungs=0",
        &format!("S {}F*3 S {}", pair.repeat(3), pair.repeat(4)),
        &format!("- {}failing+down up {}", quiet.repeat(3), quiet.repeat(4)),
    );
    check(
        "",
        &format!("S {}pause/1h {}resume S F*2 S", pair.repeat(3), pair.repeat(9)),
        &format!("- {}paused..3870 {}resumed - failing -", quiet.repeat(3), quiet.repeat(9)),
    );
    // It survives the watchdog.
    let script = format!("S {}crash daemon {}", pair.repeat(3), pair.repeat(2));
    check("", &script, &format!("- {}- - failing - failing+warn:unsteady -", quiet.repeat(3)));
}

#[test]
fn a_warning_about_unsteadiness_has_the_figures() {
    let mut harness = begin("", "");
    format!("S {}", "F*2 S ".repeat(5)).split_whitespace().for_each(|token| drop(harness.play(token)));
    let warning = harness.records.iter().find_map(|record| match record {
        Record::Warn { detail, .. } => Some(detail.as_str()),
        _ => None,
    });
    assert_eq!(warning, Some("10 of 15 probes failed within 7 min, but never 3 in a row"));
}

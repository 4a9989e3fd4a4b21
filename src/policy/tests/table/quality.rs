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

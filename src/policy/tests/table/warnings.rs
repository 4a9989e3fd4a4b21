//! Section 7: warnings.

use super::{begin, check};
use crate::policy::Record;

#[test]
fn healed_by_restarts_three_times_in_7_days_is_recurrent() {
    let cure = "failing+down+restart#1 - cured#1";
    let thrice = format!("- {cure} - {cure} - {cure}+warn:recurrent");
    check("", "S F*3 ok S +2d F*3 ok S +2d F*3 ok S", &thrice);
    // Once per change.
    let expected = format!("{thrice} - {cure} - {cure} - {cure} - {cure}+warn:recurrent");
    check("", "S F*3 ok S +2d F*3 ok S +2d F*3 ok S +1d F*3 ok S +8d F*3 ok S +1h F*3 ok S +1h F*3 ok S", &expected);
    let expected = format!("- {cure} - {cure} - {cure}");
    check("", "S F*3 ok S +3d F*3 ok S +4d F*3 ok S", &expected);
    // Within 7 days, not after them.
    let (seldom, often) = ("S F*3 ok S +3d F*3 ok S +345420 F*3 ok S", "S F*3 ok S +3d F*3 ok S +345390 F*3 ok S");
    check("", seldom, &format!("- {cure} - {cure} - {cure}@604890"));
    check("", often, &format!("- {cure} - {cure} - {cure}+warn:recurrent@604860"));
    // The target recovered by itself.
    let by_itself = "S F*3 ok +29 S F*3 ok +29 S F*3 ok +29 S";
    check(
        "",
        by_itself,
        "- failing+down+restart#1 - - up#1 failing+down+restart#2 - - up#1 failing+down+restart#3 - - up#1",
    );
}

#[test]
fn unknown_for_10_min_is_blind() {
    check("", "S U*20 U U S U*20 U", "- -@600 warn:blind@630 - - -@1290 warn:blind@1320");
    check("", "S U*20 F U*20 U", "- -@600 failing - warn:blind");
    check("", "S U*21 F U*21", "- warn:blind failing warn:blind");
    check("", "S U stop reboot/9m daemon U U U", "- - end - - - - warn:blind");
}

#[test]
fn a_missing_executable_is_reported_before_an_outage() {
    check("", "S gone gone there gone", "- warn:cannot_repair - - warn:cannot_repair");
    let mut harness = begin("", "");
    let found = ["S", "gone", "there"].map(|token| {
        harness.play(token);
        harness.target().cannot_be_repaired()
    });
    assert_eq!(found, [false, true, false]);
}

#[test]
fn going_down_again_and_again_is_flapping() {
    let (down, flapping) = ("failing+down up", "failing+down+warn:flapping up");
    let expected = format!("- {down} {down} {down} {flapping} {down} - {down} {down} {down} {flapping}");
    check("rungs=0", "S F*3 S F*3 S F*3 S F*3 S F*3 S +1h F*3 S F*3 S F*3 S F*3 S", &expected);
    let script = format!("S {} F*3 S +1d F*3 S", "F*3 S +2h ".repeat(8));
    check("rungs=0", &script, &format!("- {} {flapping} - {down}", format!("{down} - ").repeat(8)));
    check(
        "rungs=0",
        "S F*3 S F*3 S F*3 S stop reboot/2h daemon F*3",
        "- failing+down up failing+down up failing+down up end - - failing+down",
    );
    // Flapping is more than 3 within an hour; a fourth one hour after the first does not count.
    let slow = "rungs=0 failure_threshold=1 interval=10m";
    check(
        slow,
        "S F S F S F S F S F",
        "- failing+down up failing+down up failing+down up failing+down up failing+down",
    );
}

#[test]
fn a_warning_has_the_details_that_the_operator_needs() {
    #[track_caller]
    fn check(limits: &str, script: &str, expected: &str) {
        let mut harness = begin(limits, "");
        script.split(' ').for_each(|token| _ = harness.play(token));
        let details = harness.records.iter().filter_map(|record| match record {
            Record::Warn { detail, .. } => Some(detail.as_str()),
            _ => None,
        });
        assert_eq!(details.collect::<Vec<_>>(), [expected]);
    }
    check("rungs=0", "S F*3 S F*3 S F*3 S F*3", "went down 4 times within the last hour");
    check("rungs=0", &format!("S {}F*3", "F*3 S +2h ".repeat(8)), "went down 9 times within the last day");
    check("", "S U*21", "health unknown for 10 min: no descriptors");
    check("", "S F*3 missing", "no restart command could be started: no such file");
    check("", "S gone", "no such file");
    let cured = "healed by a restart 3 times within 7 days: the cause is still there";
    check("cooldown=0", "S F*3 ok S F*3 ok S F*3 ok S", cured);
}

//! Section 7: what a person should see to some day.

use super::check;

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
    // It healed by itself.
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
}

#[test]
fn a_rung_that_is_gone_is_told_before_the_outage() {
    check("", "S gone gone there gone", "- warn:cannot_repair - - warn:cannot_repair");
}

#[test]
fn going_down_again_and_again_is_flapping() {
    let (down, flapping) = ("failing+down up", "failing+down+warn:flapping up");
    let expected = format!("- {down} {down} {down} {flapping} {down} - {down} {down} {down} {flapping}");
    check("rungs=0", "S F*3 S F*3 S F*3 S F*3 S F*3 S +1h F*3 S F*3 S F*3 S F*3 S", &expected);
    let script = format!("S {} F*3 S +1d F*3 S", "F*3 S +2h ".repeat(8));
    check("rungs=0", &script, &format!("- {} {flapping} - {down}", format!("{down} - ").repeat(8)));
}

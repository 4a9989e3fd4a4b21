//! Section 8: which message people get, and when.

use super::{begin, check_tells};

#[test]
fn what_a_restart_heals_is_told_once_and_afterwards() {
    check_tells("", "S F*3 ok S", "- - - healed#1");
    check_tells("", "S F*3 ok F*5 S S", "- - - - healed#1 -");
    // It came back by itself before anything was told.
    check_tells("depends_on=b | b", "S F*2 S", "- - -");
    check_tells("cooldown=10m", "S F*3 ok S F*3 S", "- - - healed#1 - -");
}

#[test]
fn what_a_restart_did_not_heal_is_told_as_soon_as_its_time_is_over() {
    // The start period ends 30 s after the restart, and the next look fails.
    check_tells("", "S F*3 ok +29 F S", "- - - - down#1 up#1");
    check_tells("start_period=0", "S F*3 ok F F S", "- - - - down#1 up#1");
    // The next attempt cures it: that is an `up`, for the `down` was told.
    check_tells("", "S F*3 ok +1m F F*2 ok S", "- - - down#1 - - - cured#2");
    // A ladder to its end, and then the start period.
    check_tells("rungs=2", "S F*3 fail +5 ok +29 F S", "- - - - - - down#1 up#1");
    // No command could be started: there is nothing to wait for but the start period.
    check_tells("", "S F*3 missing +31", "- - warn:cannot_repair down#1");
}

#[test]
fn what_may_not_be_restarted_is_told_at_once_with_the_reason() {
    check_tells("rungs=0", "S F*3 F S", "- down#0 - up#0");
    check_tells("restart_on=refused", "S F*3 S", "- down:restart_on#0 up#0");
    check_tells("", "F:status*3", "down:never_healthy#0");
    check_tells("max_restarts=1", "S F*3 ok S F*3 S", "- - - healed#1 down:limit#0 up#0");
    check_tells("only_if=yes", "S F*3 no S", "- - down:only_if#0 up#0");
    check_tells("stopped=yes", "S F*3 no +10m", "- - - -");
    // A tick that can save nothing restarts nothing, and the next one will not know that it was so.
    check_tells("failure_threshold=1", "tick S full tick F", "- - - - down:cooldown#0");
    // What may be over soon is told after a minute only.
    check_tells("depends_on=b | b rungs=0", "S b.F F*3 +20 +90 S", "- - b.down#0 - down:depends_on#0 up#0");
    check_tells("cooldown=3m max_cooldown=3m", "S F*3 ok S F*3 +30 +60", "- - - healed#1 - - down:cooldown#0");
}

#[test]
fn what_lasts_is_told_whatever_may_still_come() {
    // A ladder that takes an hour.
    check_tells("", "S F*3 +9m +1m +1m S", "- - - down#1 - cured#1");
}

#[test]
fn people_are_reminded_less_and_less_often() {
    let script = "S F*3 +59m +2m +1h +2h +4h +8h +8h +23h +2h +24h";
    let expected = "- down#0 - down#0/1h down#0/2h down#0/4h down#0/8h down#0/16h down#0/24h - down#0/48h down#0/72h";
    check_tells("rungs=0", script, expected);
    // Not for the time when nobody was there to do it.
    check_tells("rungs=0", "S F*3 stop +5h daemon F +2h +61m", "- down#0 - - - down#0/5h - down#0/8h");
}

#[test]
fn what_was_told_outlives_the_watchdog() {
    check_tells("rungs=0", "S F*3 crash daemon F*3 S", "- down#0 - - - up#0");
    check_tells("rungs=0", "S F*3 reboot/10m daemon F*3 S", "- down#0 - - - up#0");
    check_tells("rungs=0", "tick S tick F tick F tick F tick F tick S", "- - - - - - - down#0 - - - up#0");
}

#[test]
fn hands_off_and_dry_runs_tell_nothing() {
    check_tells("dry_run=yes", "S F*3 +1h S gone", "- - - - -");
    check_tells("rungs=0", "S pause/1h F*3 S +1h", "- - - - -");
    check_tells("rungs=0", "S F*3 pause/2h +2h +31", "- down#0 - - down#0/2h");
    check_tells("rungs=0", "S F*3 pause/2h S +2h S", "- down#0 - - - -");
}

#[test]
fn what_goes_down_again_and_again_is_told_once_and_folded() {
    let flap = "F*3 ok S ";
    let three = "- - healed#1 ".repeat(3);
    let quick = "cooldown=0 start_period=5s";
    // The cause is still there, too: three cures in seven days.
    let first = three.trim_end().strip_suffix("healed#1").expect("the third").to_owned() + "healed#1+warn:recurrent";
    check_tells(
        quick,
        &format!("S {}{flap}{flap}+59m +2m S", flap.repeat(3)),
        &format!("- {first} warn:flapping - folded:1 - - folded:2 - calm:2 -"),
    );
    // What was decided in a dry run nobody knows of: whoever is told again is told of that first.
    let flaps = "S F*3 ".repeat(4);
    check_tells(
        "dry_run=yes rungs=0",
        &format!("{flaps}S reload:dry_run=no F*3 S"),
        &format!("{}- - - folded:2", "- - ".repeat(4)),
    );
    // What stays down is told all the same, and when it is over.
    check_tells(
        "rungs=0",
        "S F*3 S F*3 S F*3 S F*3 F*10 F*12 S",
        "- down#0 up#0 down#0 up#0 down#0 up#0 warn:flapping - down#0 up#0",
    );
}

#[test]
fn two_hundred_flaps_in_a_day_are_a_handful_of_messages() {
    let mut stage = begin("cooldown=0 start_period=5s interval=10s retry_interval=10s max_restarts=100", "");
    let mut told = Vec::new();
    stage.play("S");
    for _ in 0..200 {
        for token in ["F*3", "ok", "S", "+6m"] {
            stage.play(token);
            stage.tells.retain(|tell| !tell.starts_with("folded"));
            told.append(&mut stage.tells);
        }
    }
    stage.play("+25h");
    told.append(&mut stage.tells);
    assert!(told.len() <= 8, "{told:?}");
    assert!(told.last().is_some_and(|last| last == "calm:197"), "{told:?}");
}

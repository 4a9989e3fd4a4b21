//! Section 8: which notifications are sent, and when.

use super::{begin, check_notifications};

#[test]
fn healed_is_sent_once_after_the_cure() {
    check_notifications("", "S F*3 ok S", "- - - healed#1");
    check_notifications("", "S F*3 ok F*5 S S", "- - - - healed#1 -");
    // The target recovered by itself before anything was sent.
    check_notifications("depends_on=b | b", "S F*2 S", "- - -");
    check_notifications("cooldown=10m", "S F*3 ok S F*3 S", "- - - healed#1 - -");
}

#[test]
fn down_is_sent_when_the_start_period_after_a_restart_ends_without_health() {
    // The start period ends 30 s after the restart, and the next probe fails.
    check_notifications("", "S F*3 ok +29 F S", "- - - - down#1 up#1");
    check_notifications("start_period=0", "S F*3 ok F F S", "- - - - down#1 up#1");
    // The next attempt cures the target: `up` is sent, because `down` was.
    check_notifications("", "S F*3 ok +1m F F*2 ok S", "- - - down#1 - - - cured#2");
    // All rungs of the ladder, and then the start period.
    check_notifications("rungs=2", "S F*3 fail +5 ok +29 F S", "- - - - - - down#1 up#1");
    // No command could be started, so only the start period follows.
    check_notifications("", "S F*3 missing +31", "- - warn:cannot_repair down#1");
}

#[test]
fn down_is_sent_at_once_with_the_reason_if_no_attempt_may_be_made() {
    check_notifications("rungs=0", "S F*3 F S", "- down#0 - up#0");
    check_notifications("restart_on=refused", "S F*3 S", "- down:restart_on#0 up#0");
    check_notifications("", "F:status*3", "down:never_healthy#0");
    check_notifications("max_restarts=1", "S F*3 ok S F*3 S", "- - - healed#1 down:limit#0 up#0");
    check_notifications("only_if=yes", "S F*3 no S", "- - down:only_if#0 up#0");
    check_notifications("stopped=yes", "S F*3 no +10m", "- - - -");
    // A tick that cannot save makes no attempt, and the next tick will not know about it.
    check_notifications("failure_threshold=1", "tick S full tick F", "- - - - down:cooldown#0");
    // If the wait may soon be over, `down` is sent only after a minute.
    check_notifications("depends_on=b | b rungs=0", "S b.F F*3 +20 +90 S", "- - b.down#0 - down:depends_on#0 up#0");
    check_notifications("cooldown=3m max_cooldown=3m", "S F*3 ok S F*3 +30 +60", "- - - healed#1 - - down:cooldown#0");
}

#[test]
fn down_is_sent_after_10_min_even_while_an_attempt_is_running() {
    // A command that takes over 10 min.
    check_notifications("", "S F*3 +9m +1m +1m S", "- - - down#1 - cured#1");
}

#[test]
fn reminders_become_less_frequent() {
    let script = "S F*3 +59m +2m +1h +2h +4h +8h +8h +23h +2h +24h";
    let expected = "- down#0 - down#0/1h down#0/2h down#0/4h down#0/8h down#0/16h down#0/24h - down#0/48h down#0/72h";
    check_notifications("rungs=0", script, expected);
    // Reminders that were due while no watchdog ran are not sent later.
    check_notifications("rungs=0", "S F*3 stop +5h daemon F +2h +61m", "- down#0 - - - down#0/5h - down#0/8h");
}

#[test]
fn sent_notifications_are_remembered_across_watchdogs() {
    check_notifications("rungs=0", "S F*3 crash daemon F*3 S", "- down#0 - - - up#0");
    check_notifications("rungs=0", "S F*3 reboot/10m daemon F*3 S", "- down#0 - - - up#0");
    check_notifications("rungs=0", "tick S tick F tick F tick F tick F tick S", "- - - - - - - down#0 - - - up#0");
}

#[test]
fn pauses_and_dry_runs_send_nothing() {
    check_notifications("dry_run=yes", "S F*3 +1h S gone", "- - - - -");
    check_notifications("rungs=0", "S pause/1h F*3 S +1h", "- - - - -");
    check_notifications("rungs=0", "S F*3 pause/2h +2h +31", "- down#0 - - down#0/2h");
    check_notifications("rungs=0", "S F*3 pause/2h S +2h S", "- down#0 - - - -");
}

#[test]
fn flapping_is_reported_once_and_incidents_are_folded() {
    let flap = "F*3 ok S ";
    let three = "- - healed#1 ".repeat(3);
    let quick = "cooldown=0 start_period=5s";
    // Three cures within seven days are also reported as recurrent.
    let first = three.trim_end().strip_suffix("healed#1").expect("the third").to_owned() + "healed#1+warn:recurrent";
    check_notifications(
        quick,
        &format!("S {}{flap}{flap}+59m +2m S", flap.repeat(3)),
        &format!("- {first} warn:flapping - folded:1 - - folded:2 - calm:2 -"),
    );
    // The warning of a dry run was not sent, so the first incident after it is reported as folded.
    let flaps = "S F*3 ".repeat(4);
    check_notifications(
        "dry_run=yes rungs=0",
        &format!("{flaps}S reload:dry_run=no F*3 S"),
        &format!("{}- - - folded:2", "- - ".repeat(4)),
    );
    // A target that stays down is still reported, and so is the end of that incident.
    check_notifications(
        "rungs=0",
        "S F*3 S F*3 S F*3 S F*3 F*10 F*12 S",
        "- down#0 up#0 down#0 up#0 down#0 up#0 warn:flapping - down#0 up#0",
    );
}

#[test]
fn two_hundred_flaps_in_a_day_are_a_handful_of_messages() {
    let mut harness = begin("cooldown=0 start_period=5s interval=10s retry_interval=10s max_restarts=100", "");
    let mut sent = Vec::new();
    harness.play("S");
    for _ in 0..200 {
        for token in ["F*3", "ok", "S", "+6m"] {
            harness.play(token);
            harness.notifications.retain(|notification| !notification.starts_with("folded"));
            sent.append(&mut harness.notifications);
        }
    }
    harness.play("+25h");
    sent.append(&mut harness.notifications);
    assert!(sent.len() <= 8, "{sent:?}");
    assert!(sent.last().is_some_and(|last| last == "calm:197"), "{sent:?}");
}

//! Rule 15 and dry runs: the effect of a changed configuration on the stored state.

use super::{check, check_probes};

#[test]
fn targets_keep_their_state_by_name() {
    check("", "S F F reload F", "- failing - - down+restart#1");
    check("", "S F F reload:failure_threshold=5 F F F", "- failing - - - - down+restart#1@150");
    check("failure_threshold=5", "S F*3 reload:failure_threshold=3 F", "- failing - down+restart#1@120");
    check("", "S F*3 reload ok F*30", "- failing+down+restart#1 - - -");
    check(
        "max_restarts=1",
        "S F*3 ok S reload:max_restarts=2 F*3",
        "- failing+down+restart#1 - cured#1 - failing+down+restart#2",
    );
    check("rungs=3", "S F*3 reload:rungs=1 fail +10", "- failing+down+restart#1.1 - - -");
    check_probes("", "S +10 reload S", "a@0 a@30");
    check_probes("", "S +10 reload:interval=20 S S", "a@0 a@10 a@30");
    // After a change of the probe, the target must prove itself again, and the result of the old probe is ignored.
    check_probes("", "S hang reload:probe=2 F", "a@0 a@30 a@30");
    check("failure_threshold=1", "S hang reload:probe=2 F:status", "- - - failing+down+held:never_healthy");
    check("", "S F*2 reload:probe=2 F*3", "- failing - failing+down+restart#1@120");
    check_probes("", "S +10 reload:probe=2 S S", "a@0 a@10 a@30");
}

#[test]
fn the_attempts_of_a_removed_target_are_remembered_for_a_day() {
    let daily = "max_restarts=1 restart_window=1d | b";
    check(
        daily,
        "S F*3 ok S remove +23h add S F*3",
        "- failing+down+restart#1@90 - cured#1 - - - - failing+down+held:limit..86490",
    );
    check(
        daily,
        "S F*3 ok S remove stop +23h daemon add S F*3",
        "- failing+down+restart#1@90 - cured#1 - end - - - - failing+down+held:limit..86490",
    );
    let two_days = "max_restarts=1 restart_window=2d | b";
    check(
        two_days,
        "S F*3 ok S remove +86399 add S F*3",
        "- failing+down+restart#1@90 - cured#1 - - - - failing+down+held:limit..172890",
    );
    check(
        two_days,
        "S F*3 ok S remove +86400 add F:status*3",
        "- failing+down+restart#1@90 - cured#1 - - - failing+down+held:never_healthy",
    );
    check(
        two_days,
        "S F*3 ok S remove stop reboot/25h daemon add F:status*3",
        "- failing+down+restart#1@90 - cured#1 - end - - - failing+down+held:never_healthy",
    );
    check(
        two_days,
        "S F*3 ok S remove +23h b.reload:rungs=1 +1h add F:status*3",
        "- failing+down+restart#1@90 - cured#1 - - - - - failing+down+held:never_healthy",
    );
    check(
        two_days,
        "S F*3 ok S remove +23h add S +23h remove +1h add S F*3",
        "- failing+down+restart#1@90 - cured#1 - - - - - - - - - failing+down+held:limit..172890",
    );
    check_probes("|b", "S b.S remove +1m", "a@0 b@0 b@30 b@60");
}

#[test]
fn a_running_attempt_at_a_removed_target_is_completed() {
    check("rungs=2|b", "S F*3 remove fail add F*30 F*3", "- failing+down+restart#1.1@90 - - - - restart#2.2@180");
    check("rungs=2|b", "S F*3 remove +1m add F fail +5", "- failing+down+restart#1.1@90 - - - - - restart#1.2@155");
    check(
        "rungs=2|b",
        "S b.S F*3 remove b.F*3 fail b.S",
        "- - failing+down+restart#1.1@90 - b.failing+b.down+b.held:busy b.restart#1@150 b.cured#1",
    );
    check(
        "rungs=2|b",
        "S F*3 remove stop crash daemon b.S lost add F*30 F*3",
        "- failing+down+restart#1.1@90 - - - adopt - - - - restart#2.2@180",
    );
    check_probes(
        "|b",
        "S b.S F*3 remove b.S crash daemon b.S lost +59",
        "a@0 b@0 a@30 b@30 a@60 b@60 a@90 b@90 b@90 b@120",
    );
    // No attempt begins, although the cooldown has just ended.
    let slow = "interval=20s cooldown=150s|b";
    check(slow, "S F*3 ok +149 remove/1", "- failing+down+restart#1@60 - held:cooldown..210@209 -@210");
    check("only_if=yes|b", "S F*3 remove yes", "- failing+down+ask@90 - -");
    check("interval=20|b", "S F*3 crash daemon F F lost", "- failing+down+restart#1@60 - adopt - - -");
    check("|b", "S F*3 crash daemon F F lost", "- failing+down+restart#1@90 - adopt - - -");
}

#[test]
fn no_further_rung_runs_under_a_configuration_that_forbids_it() {
    let two = "rungs=2|b";
    for change in ["reload:dry_run=yes", "reload:repair=2", "reload:rungs=3;repair=2", "remove"] {
        // While the command runs, and during the verification after it.
        check(two, &format!("S F*3 {change} fail +10"), "- failing+down+restart#1.1@90 - - -");
        check(two, &format!("S F*3 fail +2 {change} +10"), "- failing+down+restart#1.1@90 - - - -");
        let missing = format!("S F*3 {change} missing +10");
        check(two, &missing, "- failing+down+restart#1.1@90 - warn:cannot_repair -");
    }
    // What counts is the configuration when the next rung is due. Changes of other limits forbid nothing.
    for same in ["reload:dry_run=yes reload:dry_run=no", "reload:repair=2 reload:repair=0", "remove add"] {
        check(two, &format!("S F*3 {same} fail +5"), "- failing+down+restart#1.1@90 - - - restart#1.2@95");
    }
    check(two, "S F*3 fail reload:cooldown=5m;max_restarts=1 +5", "- failing+down+restart#1.1@90 - - restart#1.2@95");
    // A reset that is being checked is not made, and a running command is still recorded as a reset.
    let reset = "rungs=2 reset=2";
    for change in ["reload:dry_run=yes", "reload:repair=2", "reload:reset=1;repair=2"] {
        check(reset, &format!("S F*3 fail +5 {change} warranted"), "- failing+down+restart#1.1@90 - reset?@95 - -");
    }
    check(
        "rungs=2 reset=1",
        "S F*3 warranted reload:reset=2;repair=2 ok F*30 F*3",
        "- failing+down+reset?@90 restart#1.1 - - - restart#2.1@180",
    );
    check(
        "rungs=1 reset=1",
        "S F*3 warranted reload:dry_run=yes ok reload:dry_run=no F*3",
        "- failing+down+reset?@90 restart#1 - - - held:cooldown..210@150",
    );
}

#[test]
fn checks_that_began_before_a_change_are_repeated() {
    check("only_if=yes", "S F*3 reload:repair=2 yes yes", "- failing+down+ask@90 - ask restart#1");
    check("only_if=yes", "S F*3 reload:repair=2 no no", "- failing+down+ask@90 - ask held:only_if..150");
    check("only_if=yes", "S F*3 reload:cooldown=5 yes", "- failing+down+ask@90 - restart#1");
    check("reset=1", "S F*3 reload:repair=2 warranted warranted", "- failing+down+reset?@90 - reset? restart#1");
    check("only_if=yes", "S F*3 reload:dry_run=yes yes F*3", "- failing+down+ask@90 - - ask@180");
}

#[test]
fn a_dry_run_decides_and_runs_nothing() {
    let dry = "dry_run=yes";
    check(dry, "S F*3 F*30 F*3", "- failing+down+would#1@90 -@119 would#2@180");
    check(dry, "S F*3 S", "- failing+down+would#1 up");
    check("dry_run=yes max_restarts=1", "S F*3 F*30 F*3", "- failing+down+would#1@90 -@119 held:limit..3690@180");
    check("dry_run=yes cooldown=5m", "S F*3 F*30 F*3", "- failing+down+would#1@90 - held:cooldown..390");
    check("dry_run=yes rungs=0", "S F*3", "- failing+down");
    check("dry_run=yes only_if=yes", "S F*3 yes", "- failing+down+ask would#1");
    check(
        "dry_run=yes rungs=2 cooldown=0",
        "S F*3 F*30 F*3 S +15m F*3",
        "- failing+down+would#1@90 - would#2@180 up - failing+down+would#1@1170",
    );
    check("dry_run=yes|b dry_run=yes", "S b.S F*3 b.F*3", "- - failing+down+would#1@90 b.failing+b.down+b.would#1@150");
}

#[test]
fn a_dry_run_never_counts_in_a_real_run() {
    let one = "dry_run=yes max_restarts=1 cooldown=10m";
    check(one, "S F*3 +1 reload:dry_run=no F*3", "- failing+down+would#1@90 - - restart#1@150");
    check("dry_run=yes", "S F*2 reload:dry_run=no F F F", "- failing - failing - down+restart#1@150");
    check(
        "dry_run=yes only_if=yes cooldown=10m",
        "S F*3 no reload:dry_run=no F*3",
        "- failing+down+ask held:only_if..690 - ask@180",
    );
    check("dry_run=yes", "F*3 reload:dry_run=no F*3", "failing+down+would#1 - restart#1@120");
    check(
        "rungs=2",
        "F*3 ok reload:dry_run=yes +3m reload:dry_run=no +3m",
        "failing+down+restart#1.1@60 - - would#1+held:never_healthy..3720@240 - restart#2.2@420",
    );
    check("", "reboot/5 daemon F reload:dry_run=yes F*24 F", "- - - - - failing");
    // Real attempts count in dry runs too.
    check(
        "max_restarts=1",
        "S F*3 ok S reload:dry_run=yes F*3",
        "- failing+down+restart#1@90 - cured#1 - failing+down+held:limit..3690",
    );
    check(
        "cooldown=10m",
        "S F*3 ok S reload:dry_run=yes F*3",
        "- failing+down+restart#1@90 - cured#1 - failing+down+held:cooldown..690",
    );
    check("", "F*3 ok reload:dry_run=yes F*40", "failing+down+restart#1@60 - - held:never_healthy..3660");
}

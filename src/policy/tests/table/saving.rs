//! Sections 6 and 7: no attempt before its intent is on disk, and few attempts while the disk fails.

use super::check;

#[test]
fn a_new_watchdog_closes_an_unfinished_attempt() {
    // It waits for a command that still runs, and runs no further rung.
    check("rungs=2", "S F*3 crash daemon lost F", "- failing+down+restart#1.1@90 - adopt - -");
    check(
        "rungs=2",
        "S F*3 crash daemon late F*30 F*3",
        "- failing+down+restart#1.1@90 - adopt - -@119 restart#2.2@180",
    );
    check("rungs=2", "S F*3 crash +1h daemon +1h late", "- failing+down+restart#1.1@90 - - adopt - -");
    // No pid was stored, so there is nothing to wait for.
    check("rungs=2", "S F*3 crash! daemon F", "- failing+down+restart#1.1@90 - lost -");
    check("rungs=2", "S F*3 fail crash daemon F*30 F*3", "- failing+down+restart#1.1@90 - - - -@119 restart#2.2@180");
    // The attempt counts for window and cooldown.
    check("max_restarts=1", "S F*3 crash! daemon +3m", "- failing+down+restart#1@90 - lost held:limit..3690");
    check(
        "cooldown=10m",
        "S F*3 crash +1m daemon lost +3m",
        "- failing+down+restart#1@90 - - adopt - held:cooldown..750",
    );
    // One attempt at a time, whichever watchdog began it.
    check(
        "|b",
        "S b.S F*3 crash daemon b.F*3 lost",
        "- - failing+down+restart#1@90 - adopt b.failing+b.down+b.held:busy b.restart#1",
    );
    // Failures that were reset do not return, and an attempt that was saved at the last moment may have been made.
    check("", "S F S crash daemon F F F", "- failing - - - failing - down+restart#1");
    check(
        "max_restarts=1",
        "S F*2 hang full:1 F crash room daemon F*40",
        "- failing - - down+restart#1@90 - - lost held:limit..3690",
    );
    check("", "S F*3 ok crash daemon F*30 F*3", "- failing+down+restart#1@90 - - - -@119 restart#2@180");
    check("", "S F*3 crash daemon stop lost", "- failing+down+restart#1@90 - adopt - end");
}

#[test]
fn a_down_target_is_still_down_after_a_restart_of_the_watchdog() {
    check("rungs=0", "S F*3 crash daemon F*3 crash +1h daemon F*3 S", "- failing+down - - - - - - - up");
    check("max_restarts=1", "S F*3 ok +3m stop daemon F F*9", "- failing+down+restart#1 - held:limit..3690 end - - -");
    check("", "S F*3 ok S crash daemon F*3", "- failing+down+restart#1 - cured#1 - - failing+down+restart#2");
    check("only_if=yes", "S F*3 no crash daemon F +60", "- failing+down+ask@90 held:only_if..150 - - - ask@150");
    check(
        "cooldown=10m",
        "S F*3 ok crash +5m daemon F*3 +5m",
        "- failing+down+restart#1@90 - - - - held:cooldown..690 restart#2@750",
    );
}

#[test]
fn while_the_state_cannot_be_saved_restarts_are_few() {
    // A daemon makes one attempt per `max_cooldown`.
    check(
        "",
        "S full F*3 ok F*30 F*3 +509 +1",
        "- - failing+down+restart#1@90 - - held:cooldown..690@180 -@689 restart#2@690",
    );
    check("", "S F*3 ok full F*30 F*3 +510", "- failing+down+restart#1@90 - - - held:cooldown..690@180 restart#2@690");
    check("", "S full F*3 ok room F*30 F*3", "- - failing+down+restart#1@90 - - - restart#2@180");
    check("", "S full F*3 ok F*30 F*3 room F", "- - failing+down+restart#1@90 - - held:cooldown..690 - restart#2@210");
    check("rungs=2", "S F*3 full fail +5 missing", "- failing+down+restart#1.1@90 - - restart#1.2@95 -");
    check("rungs=2", "S full F*3 missing fail", "- - failing+down+restart#1.1@90 restart#1.2@90 -");
    // An attempt that could not be saved is not made and does not count.
    let (two, script) = ("max_restarts=2", "S F*3 ok S F*2 hang full F room F ok S");
    let expected =
        "- failing+down+restart#1 - cured#1 failing - - down+held:cooldown..690@180 - restart#2@210 - cured#1";
    check(two, script, expected);
    let script = "F*3 ok +29 F*2 hang full F room F ok +10m";
    let expected =
        "failing+down+restart#1.1@60 - - - - - held:cooldown..660@150 - restart#2.2@180 - held:never_healthy..3780";
    check("rungs=2", script, expected);
    check("", "S F*3 ok reboot/1m daemon full F*3", "- failing+down+restart#1@90 - - - - held:cooldown..690");
    // A tick makes none.
    check("failure_threshold=1", "tick S tick hang full F", "- end - - - failing+down+held:cooldown+end");
    let ticks = "failure_threshold=1 retry_interval=30";
    check(
        ticks,
        "tick S full tick F tick F room tick F",
        "- end - - failing+down+held:cooldown+end - failing+down+held:cooldown+end - - failing+down+restart#1@0",
    );
    check(
        "failure_threshold=1 rungs=2",
        "tick S tick F full missing ok S",
        "- end - failing+down+restart#1.1@0 - restart#1.2@0 - cured#1+end",
    );
}

#[test]
fn a_state_that_cannot_be_read_starts_in_max_cooldown() {
    check("", "S crash corrupt daemon F*3 +10m", "- - - - failing+down+held:cooldown..600@60 restart#1@660");
    // The target counts as having been healthy once, whatever its probe.
    let expected = "failing - - - failing+down+held:cooldown..600@60 restart#1@660";
    check("probe=2 dry_run=no", "F crash corrupt daemon F:status*3 +10m", expected);
    check(
        "",
        "F crash corrupt daemon F:status*3 +10m",
        "failing - - - failing+down+held:cooldown..600@60 restart#1@660",
    );
}

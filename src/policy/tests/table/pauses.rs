//! Rule 14: the operator's pauses.

use super::{check, check_probes, check_statuses, check_waiting};

#[test]
fn a_paused_target_is_probed_but_not_restarted_and_no_incident_opens() {
    check("", "S pause/10m F*3 F S F*3", "- paused..600 failing - -@150 failing@240");
    check_statuses("", "S pause/10m F*3 resume F F*30 F*3", "healthy paused paused starting starting failing down");
    // An incident that was open before stays open without attempts, and ends with the next success.
    check("", "S F F F/0 pause/10m F*3 S", "- failing - down+restart#1 paused..690 - cured#1");
    check("rungs=0", "S F*3 pause/10m F*3 S", "- failing+down paused..690 - up@210");
    check(
        "only_if=yes",
        "S F*3 no pause/10m F*3",
        "- failing+down+ask@90 held:only_if..150 paused..690+held:paused..690 -",
    );
    check_waiting("only_if=yes", "S F*3 no pause/10m F*3", "- - only_if..150 paused..690 paused..690");
    check("", "S F*3 ok pause/1h F*20 S", "- failing+down+restart#1@90 - paused..3690 -@109 cured#1@110");
}

#[test]
fn the_end_of_a_pause_sets_the_streak_to_0_and_begins_a_start_period() {
    check("", "S pause/10m F*3 +510 F*29 F*3", "- paused..600 failing@90 resumed@600 -@629 failing+down+restart#1@690");
    check("", "S pause/10m F*2 resume F*30 F*3", "- paused..600 failing@60 resumed@60 -@89 failing+down+restart#1@150");
    check("", "S pause/45 +44 +1", "- paused..45 - resumed@45");
    check("", "S F*2 pause resume S F", "- failing paused..1860 resumed - failing@90");
    check_probes("", "S pause/10m S +15 resume F F S S", "a@0 a@30 a@45 a@46 a@47 a@60");
    check("", "S pause/10m F*3 stop +20m daemon F", "- paused..600 failing@90 end - resumed@1290 -");
    // A success in the start period after a pause is no cure.
    check("", "S F*3 ok pause resume S", "- failing+down+restart#1@90 - paused..1890 resumed up#1");
    check("", "S resume F*3", "- - failing+down+restart#1");
}

#[test]
fn pauses_overlap_and_the_last_end_counts() {
    check("", "S pause/10m pause/20m +10m +10m", "- paused..600 paused..1200 -@600 resumed@1200");
    check(
        "",
        "S pause/20m pause/10m +10m F +9m +1m",
        "- paused..1200 paused..1200 -@600 failing - resumed+failing@1230",
    );
    // Of two simultaneous deployments, neither ends the other's pause.
    let two = "S pause:x/30m pause:y/30m F*3 over:x F*3 over:y F*29 F F*3";
    check("", two, "- paused..1800 paused..1800 failing@90 - -@180 resumed@180 - - failing+down+restart#1");
    check("", "S pause/10m pause:x/1h over:x +9m +1m", "- paused..600 paused..3600 - - resumed@600");
    check("", "S pause:x/1h pause/10m +10m +49m +1m over:x", "- paused..3600 paused..3600 -@600 -@3540 resumed@3600 -");
    check("", "S pause:x/1h pause:x/1h over:x over:x", "- paused..3600 paused..3600 resumed -");
    check("", "S pause:x/1h pause/2h resume over:x +2h", "- paused..3600 paused..7200 resumed - -");
    check("", "S over:x pause/10m over:x", "- - paused..600 -");
    // Pauses survive a restart of the watchdog, and those without a command survive a reboot.
    check("", "S pause:x/1h pause/10m crash daemon over:x +10m", "- paused..3600 paused..3600 - - - resumed@600");
    check("", "S pause:x/1h pause/10m reboot/5m daemon +5m", "- paused..3600 paused..3600 - - resumed@600");
    check("", "S pause:x/1h reboot/5m daemon", "- paused..3600 - resumed@300");
}

#[test]
fn a_pause_of_all_targets_applies_to_each() {
    let both = "rungs=0 failure_threshold=1|b";
    check(
        both,
        "S b.S all.pause/10m resume F +10m",
        "- - paused..600+b.paused..600 resumed@0 - failing+down+b.resumed@600",
    );
    check(both, "S all.pause/1h pause/10m all.resume", "- paused..3600+b.paused..3600 paused..3600 resumed+b.resumed");
    // It applies to targets added while it lasts, but not to targets that return with a state of their own.
    let later = "failure_threshold=1|b";
    check(
        later,
        "reboot/1h b.remove daemon S all.pause/10m b.add b.F +10m",
        "- - - - paused..4200 - b.failing resumed+b.resumed@4200",
    );
    let one = "paused..600+b.paused..600";
    check(later, "b.S all.pause:x/10m b.remove resume b.add over:x", &format!("- {one} - resumed - b.resumed"));
    check(later, "b.S all.pause:x/10m b.remove over:x b.add", &format!("- {one} - resumed b.resumed"));
    check(later, "b.F b.remove all.pause/10m b.add all.resume", "b.failing - paused..600 - resumed+b.resumed");
    check(later, "b.F b.remove all.pause/10m all.resume b.add", "b.failing - paused..600 resumed b.resumed");
}

#[test]
fn resume_of_a_target_clears_its_waits() {
    let one = "max_restarts=1";
    check(one, "S F*3 ok +2m resume F", "- failing+down+restart#1@90 - held:limit..3690@210 - -");
    check(one, "S F*3 ok +2m resume!", "- failing+down+restart#1@90 - held:limit..3690@210 restart#2@210");
    check(
        one,
        "S F*3 ok pause F*40 resume! F*30 F*3",
        "- failing+down+restart#1@90 - paused..1890 held:paused..1890 resumed@390 - restart#2@480",
    );
    check(
        "cooldown=30m max_cooldown=30m",
        "S F*3 ok +2m resume!",
        "- failing+down+restart#1@90 - held:cooldown..1890@210 restart#2",
    );
    check("only_if=yes", "S F*3 no resume!", "- failing+down+ask@90 held:only_if..150 ask@90");
    check(
        "",
        "F*3 ok +5m resume! ok +3599 +1",
        "failing+down+restart#1@60 - held:never_healthy..3660 restart#2@360 - - restart#3@3960",
    );
    let expected = "failing+down+restart#1.1@60 - restart#2.2@180 - held:never_healthy..3750 restart#3.1@300 - \
                    held:cooldown..420+restart#4.2@600";
    check("rungs=2", "F*3 ok +2m ok +2m resume! ok +5m", expected);
    check("dry_run=yes max_restarts=1", "S F*3 +2m resume!", "- failing+down+would#1@90 held:limit..3690 would#2@210");
    // This survives a crash.
    check(
        "max_restarts=1",
        "S F*3 ok S resume! crash daemon F*3",
        "- failing+down+restart#1@90 - cured#1 - - - failing+down+restart#2@150",
    );
}

//! Rule 14: hands off, by the operator.

use super::{check, check_looks, check_waits};

#[test]
fn a_pause_looks_counts_and_records_but_restarts_nothing() {
    check("", "S pause/10m F*3 F S", "- paused..600 failing+down+held:paused..600 -@120 up@150");
    check_waits("", "S pause/10m F*3", "- - paused..600");
    check("", "S F*3 ok pause/1h F*20 S", "- failing+down+restart#1@90 - paused..3690 -@109 cured#1@110");
}

#[test]
fn its_end_sets_the_streak_to_0_and_starts_a_start_period() {
    check(
        "",
        "S pause/10m F*3 +510 F*29 F*3",
        "- paused..600 failing+down+held:paused..600@90 resumed@600 -@629 restart#1@690",
    );
    check("", "S pause/10m F*2 resume F*30 F*3", "- paused..600 failing@60 resumed@60 -@89 failing+down+restart#1@150");
    check("", "S pause/45 +44 +1", "- paused..45 - resumed@45");
    check("", "S F*2 pause resume S F", "- failing paused..1860 resumed - failing@90");
    check_looks("", "S pause/10m S +15 resume F F S S", "a@0 a@30 a@45 a@46 a@47 a@60");
    check("", "S pause/10m pause/20m +10m +10m", "- paused..600 paused..1200 -@600 resumed@1200");
    check(
        "",
        "S pause/10m F*3 stop +20m daemon F",
        "- paused..600 failing+down+held:paused..600@90 end - resumed@1290 -",
    );
    // It is not the pause that cures.
    check("", "S F*3 ok pause resume S", "- failing+down+restart#1@90 - paused..1890 resumed up#1");
    check("", "S resume F*3", "- - failing+down+restart#1");
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
    // It is remembered.
    check(
        "max_restarts=1",
        "S F*3 ok S resume! crash daemon F*3",
        "- failing+down+restart#1@90 - cured#1 - - - failing+down+restart#2@150",
    );
}

//! Rules 3, 7 and 8: why a due attempt waits, in which order of precedence, and until when.

use super::{check, check_probes, check_waiting};

#[test]
fn an_attempt_is_made_only_on_a_fresh_failure() {
    // When the cooldown ends, at 34 min, the last verdict is 4 min old, so the target is probed again.
    let slow = "interval=5m cooldown=19m max_cooldown=19m";
    check(slow, "S F*3 ok +18m F", "- failing+down+restart#1@15m - held:cooldown..34m@33m restart#2@34m");
    check(slow, "S F*3 ok +18m S", "- failing+down+restart#1@15m - held:cooldown..34m@33m up#1@34m");
    check(slow, "S F*3 ok +18m U F", "- failing+down+restart#1@15m - held:cooldown..34m@33m -@34m restart#2@35m");
    // A verdict no older than `timeout` is fresh, so there is no extra probe.
    let quick = "interval=20s timeout=10s cooldown=150s start_period=3s";
    check(quick, "S F*3 ok +150", "- failing+down+restart#1@60 - held:cooldown..210+restart#2@210");
    let probes = "a@0 a@20 a@40 a@60 a@60 a@61 a@62 a@63 a@80 a@100 a@120 a@140 a@160 a@180 a@200 a@220";
    check_probes(quick, "S F*3 ok +150 F", probes);
}

#[test]
fn of_several_reasons_the_first_counts() {
    check_waiting("", "F:status*3 pause/1h F resume", "never_healthy paused..3660 paused..3660 -");
    check_waiting("restart_on=refused", "F:status*3 F:dns S F:dns*3", "never_healthy restart_on - restart_on");
    let dear = "max_restarts=1 restart_on=timeout";
    check_waiting(dear, "S F*3 ok +2m F:dns F", "- - - limit..3690 restart_on limit..3690");
    check_waiting("max_restarts=1 cooldown=5m", "S F*3 ok +2m", "- - - limit..3690");
    let dependent = "cooldown=5m depends_on=b | b rungs=0";
    check_waiting(dependent, "S F*3 b.S ok +2m b.F +5m", "- - - - cooldown..390 cooldown..390 depends_on");
    check_waiting("depends_on=b | b", "S b.F*3 F*3 b.ok b.S", "- - depends_on depends_on -");
    check_waiting("only_if=yes | b failure_threshold=1", "S F*3 no b.F b.ok", "- - only_if..150 busy only_if..150");
}

#[test]
fn the_diagnosis_is_made_before_the_first_attempt() {
    let diagnosed = "diagnose=yes";
    check(diagnosed, "S F*3 +2 diagnosed ok", "- failing+down+diagnose@90 - restart#1@92 -");
    // The attempt waits for 10 s at most. The last verdict is then still fresh enough.
    check(diagnosed, "S F*3 +9 +1 diagnosed", "- failing+down+diagnose@90 - restart#1@100 -");
    // Only the first attempt waits, and the wait is not recorded.
    check(diagnosed, "S F*3 diagnosed ok +2m", "- failing+down+diagnose restart#1 - restart#2");
    check("diagnose=yes interval=5s", "S F*3 S diagnosed", "- failing+down+diagnose up -");
    check("diagnose=yes rungs=0", "S F*3 +1m diagnosed", "- failing+down+diagnose - -");
    // A new watchdog does not wait for a diagnosis that ended with the old one. A tick waits for its own.
    check(diagnosed, "S F*3 crash daemon", "- failing+down+diagnose - restart#1");
    let ticks = "diagnose=yes failure_threshold=1";
    check(ticks, "tick S tick F diagnosed ok S", "- end - failing+down+diagnose restart#1 - cured#1+end");
}

#[test]
fn classes_outside_restart_on_are_recorded_and_never_repaired() {
    check("", "S F:dns*3 F:dns*50 F:tls S", "- failing+down+held:restart_on - - up");
    check("", "S F:dns*3 F:refused", "- failing+down+held:restart_on restart#1");
    check("", "S F:refused*2 F:dns F:reset", "- failing down+held:restart_on restart#1");
    for class in ["refused", "timeout", "reset", "exit", "stale", "gone", "protocol", "status", "body"] {
        check("", &format!("S F:{class}*3"), "- failing+down+restart#1");
    }
    check("restart_on=exit", "S F:refused*3 F:exit", "- failing+down+held:restart_on restart#1");
}

#[test]
fn a_full_window_is_recorded_and_the_attempt_is_made_when_it_has_room() {
    let two = "max_restarts=2 restart_window=10m cooldown=0";
    check(two, "S F*3 ok +2m ok +479", "- failing+down+restart#1@90 - restart#2@210 - held:limit..690@689");
    // Probing continues, and the attempt is made on the first failure for which the window has room.
    let script = "S F*3 ok +2m ok +479 F ok";
    check(two, script, "- failing+down+restart#1 - restart#2 - held:limit..690 restart#3@690 -");
    let script = "S F*3 ok +2m ok +479 S F*3";
    check(two, script, "- failing+down+restart#1 - restart#2 - held:limit..690 up#2 failing+down+restart#3@780");
    // Attempts of other incidents count, and the reason is recorded once per incident.
    let (one, restarted) = ("max_restarts=1", "- failing+down+restart#1@90 -");
    let held = "failing+down+held:limit..3690";
    check(one, "S F*3 ok S F*9 S F*3", &format!("{restarted} cured#1 {held} up {held}"));
    // Within an incident, a reason is recorded when it differs from the last one.
    let script = "S F*3 ok +2m F:dns*2 F F";
    check(one, script, &format!("{restarted} held:limit..3690 held:restart_on held:limit..3690 -"));
}

#[test]
fn a_dependency_in_trouble_holds_the_attempt_back() {
    let ab = "depends_on=b | b rungs=0";
    let script = "S b.S F*2 b.F F b.F F b.S";
    check(ab, script, "- - failing b.failing@60 down@90 held:depends_on@90 -@120 restart#1@120");
    check(ab, "S b.F*3 F*3 b.F b.S F", "- b.failing+b.down failing+down held:depends_on b.up restart#1@150");
    // The attempt waits for the verdict of the dependency's running probe; its earlier verdict does not count.
    check(ab, "S b.S F*2 b.S b.hang F b.F", "- - failing@60 - - down@90 b.failing+held:depends_on@90");
    check(ab, "S b.S F*2 b.S b.hang F b.S", "- - failing@60 - - down@90 restart#1@90");
    check(ab, "S b.F F*2 b.F b.hang F b.S", "- b.failing failing b.down - down b.up+restart#1@90");
    check(ab, "S b.S b.U F*3 b.U", "- - - failing+down restart#1@90");
    check(ab, "S b.F b.U F*3 b.U", "- b.failing - failing+down held:depends_on");
}

#[test]
fn one_attempt_at_a_time_first_come_first_served() {
    // Also if they become due at the same moment.
    check(
        "|b|c",
        "S b.S c.S c.F*3 hang b.F F hang b.F F hang b.F F c.ok",
        "- - - c.failing+c.down+c.restart#1@90 - b.failing failing - - - - b.down+b.held:busy@150 \
         down+held:busy@150 b.restart#1@150",
    );
    check(
        "|b",
        "S b.S F*3 b.F*3 F ok b.F b.ok",
        "- - failing+down+restart#1@90 b.failing+b.down+b.held:busy - b.restart#1@150 - -",
    );
    check(
        "rungs=2|b failure_threshold=1",
        "S b.S F*3 b.hang fail F b.F S",
        "- - failing+down+restart#1.1@90 - - - b.failing+b.down+b.held:busy cured#1+b.restart#1@91",
    );
    let three = "|b|c";
    check(
        three,
        "S b.S c.S F*3 c.F*3 b.F*3 ok b.F c.F c.ok b.F",
        "- - - failing+down+restart#1@90 c.failing+c.down+c.held:busy b.failing+b.down+b.held:busy - \
         c.restart#1 - b.restart#1@240 -",
    );
    // The preconditions of the first in the queue are checked; those behind it wait for the result.
    check(
        "|b only_if=yes|c",
        "S b.S c.S F*3 b.F*3 c.F*3 b.F c.F ok b.F b.no",
        "- - - failing+down+restart#1@90 b.failing+b.down+b.held:busy c.failing+c.down+c.held:busy - - - \
         b.ask@240 b.held:only_if..300+c.restart#1+b.held:busy@240",
    );
    // An attempt that is held back, or waits for a dependency, does not delay others.
    let held = "max_restarts=1 | b failure_threshold=1";
    check(
        held,
        "S b.S F*3 ok +2m hang b.F",
        "- - failing+down+restart#1 - held:limit..3690 - b.failing+b.down+b.restart#1",
    );
    let waiting = "depends_on=b | b rungs=0 | c failure_threshold=1";
    check(waiting, "S b.S c.S F*2 b.S b.hang F c.F", "- - - failing - - down c.failing+c.down+c.restart#1@90");
    // Nor does an attempt at a target whose last verdict is unknown.
    check(
        three,
        "S b.S c.S F*3 b.F*3 c.F*3 F b.F c.F b.U F ok",
        "- - - failing+down+restart#1@90 b.failing+b.down+b.held:busy c.failing+c.down+c.held:busy - - - - - \
         c.restart#1@240",
    );
}

#[test]
fn only_if_is_repeated_with_growing_delays() {
    let guarded = "only_if=yes";
    check(guarded, "S F*3 yes S", "- failing+down+ask@90 restart#1@90 cured#1");
    check(guarded, "S F*3 no +60 yes", "- failing+down+ask@90 held:only_if..150@90 ask@150 restart#1@150");
    check(guarded, "S F*3 no S F*3", "- failing+down+ask held:only_if..150 up failing+down+ask");
    // After 1, 2, 4 and 8 min, then every 10 min, until the target is healthy or restarted.
    let script = "S F*3 no +1m no +2m no +4m no +8m no +10m no +10m yes ok +2m no +1m";
    let expected = "- failing+down+ask@90 held:only_if..150 ask@150 - ask@270 - ask@510 - ask@990 - ask@1590 - \
                    ask@2190 restart#1 - ask@2310 - ask@2370";
    check(guarded, script, expected);
    check(
        "only_if=yes cooldown=0",
        "S F*3 no +1 no +1 no +1",
        "- failing+down+ask@90 held:only_if..91 ask@91 - ask@92 - ask@93",
    );
    // A result is valid only for the attempt that it was requested for.
    check(guarded, "S F*3 +15 yes F", "- failing+down+ask@90 -@105 -@105 restart#1@105");
    check(guarded, "S F*3 U yes F", "- failing+down+ask@90 -@120 -@120 ask@150");
    check(guarded, "S F*3 S yes F*3", "- failing+down+ask@90 up@120 - failing+down+ask@210");
    check(guarded, "S F*3 +15 yes S F*3", "- failing+down+ask@90 - - up@105 failing+down+ask@180");
    check(guarded, "S F*3 +15 yes F:dns F", "- failing+down+ask@90 - - held:restart_on ask@120");
    check(guarded, "S F*3 stall/10m yes F*3", "- failing+down+ask@90 stalled..570 - ask@750");
    check(
        "only_if=yes|b",
        "S b.S F*3 b.F*3 yes F",
        "- - failing+down+ask@90 b.failing+b.down - restart#1+b.held:busy@150",
    );
    check(guarded, "S yes no F*3", "- - - failing+down+ask");
    check(
        "only_if=yes cooldown=5m",
        "S F*3 no S F*3",
        "- failing+down+ask@90 held:only_if..390 up failing+down+ask@210",
    );
    check("only_if=yes cooldown=5m", "S F*3 S no F*3", "- failing+down+ask@90 up - failing+down+ask@210");
    check(guarded, "S F*3 reload:only_if=no no", "- failing+down+ask - restart#1");
    check("preconditions=2", "S F*3 yes yes", "- failing+down+ask ask restart#1");
    check("preconditions=2", "S F*3 yes no", "- failing+down+ask ask held:only_if..150");
}

#[test]
fn a_target_that_was_never_healthy_is_probably_misconfigured() {
    check("", "F*3 ok +1h F", "failing+down+restart#1@60 - held:never_healthy..1h1m+restart#2@3660 -");
    let expected = "failing+down+restart#1.1@60 - restart#2.2@180 - restart#3.3@300 - held:never_healthy..3870@420";
    check("rungs=3", "F*3 ok +2m ok +2m ok +2m", expected);
    check(
        "rungs=3",
        "F*3 ok +2m ok S F*3",
        "failing+down+restart#1.1@60 - restart#2.2@180 - cured#2 failing+down+restart#3.3@270",
    );
    for class in ["status", "body", "protocol"] {
        let script = format!("F:{class}*3 F:{class}*500 S F:{class}*3");
        check("", &script, "failing+down+held:never_healthy - up failing+down+restart#1");
    }
    check("", "S reload:probe=2 F:status*3", "- - failing+down+held:never_healthy");
    check(
        "",
        "S F*3 ok reload:probe=2 +90 ok +5m",
        "- failing+down+restart#1@90 - - restart#2@180 - held:never_healthy..3780",
    );
    check("", "F*3 ok reload:probe=2 +3m", "failing+down+restart#1@60 - - restart#2@240");
    check("dry_run=yes", "F*3 reload:probe=2 +3m", "failing+down+would#1@60 - would#2+held:never_healthy..3750@240");
    check("", "F*3 missing +10m", "failing+down+restart#1@60 warn:cannot_repair restart#2@660");
    check("dry_run=yes", "F*3 +10m", "failing+down+would#1@60 held:never_healthy..3660");
}

//! Section 6: ticks run by cron.

use super::check;

#[test]
fn a_tick_probes_each_target_once_whatever_the_interval() {
    let script = "tick S +5m tick F +5m tick F +5m tick F ok F S";
    check("", script, "- end@0 - - failing+end@300 - - end@600 - - down+restart#1@900 - - cured#1+end@901");
    check(
        "interval=1d",
        "tick S +1m tick F +1m tick F +1m tick F",
        "- end - - failing+end - - end - - down+restart#1@180",
    );
    check("|b", "tick S b.S", "- - end");
    check("", "tick U", "- end");
    check("", "tick S/9", "- end@9");
}

#[test]
fn with_retry_interval_one_tick_decides() {
    let retry = "interval=5m retry_interval=10s";
    check(retry, "tick S +5m tick F F F ok S", "- end - - failing@300 - down+restart#1@320 - cured#1+end");
    check(retry, "tick S +5m tick F F S", "- end - - failing@300 - end@320");
    // An unknown verdict ends the tick, so that it never lasts.
    check(retry, "tick S tick F U +5m tick F F", "- end - failing@0 end@10 - - -@310 down+restart#1@320");
    check(retry, "tick S tick F tick U", "- end - failing - end");
}

#[test]
fn if_ticks_are_rare_a_single_tick_decides() {
    check("", "tick S +45m tick F F F ok S", "- end - - failing@2700 - down+restart#1@2760 - cured#1+end");
    let script = "tick S +1h tick F S +1h tick F U +1h tick F F";
    let expected = "- end - - failing@3600 end@3630 - - failing@7230 end@7260 - - -@10860 down+restart#1@10890";
    check("", script, expected);
    // The distance is not known in the first tick, but in the second.
    check("", "tick F +1h tick F F", "- failing+end - - - down+restart#1@3630");
    // A manual tick does not make ticks frequent, and a night without ticks does not make them rare.
    check(
        "",
        "tick S +1h tick S +1h tick S +5m tick S +55m tick F F F",
        "- end - - end - - end - - end - - failing - down+restart#1@10860",
    );
    check("", "tick S +5m tick S +8h tick F", "- end - - end - - failing+end");
    // Every five minutes is often enough, even if a little late, but not for a threshold of four.
    check("", "tick S +303 tick F +303 tick F +303 tick F", "- end - - failing+end - - end - - down+restart#1");
    check("failure_threshold=4", "tick S +5m tick F F F F", "- end - - failing - - down+restart#1@390");
    // A pace no faster than cron would only make other ticks wait. In a pause nothing is decided.
    check("interval=1h", "tick S +1h tick F +1h tick F", "- end - - failing+end - - end");
    check("", "tick pause/5h S +1h tick F", "- paused..18000 end - - failing+end");
    check("retry_interval=10", "tick pause/5h F +1h tick F", "- paused..18000 failing+end - - end");
}

#[test]
fn a_tick_makes_one_attempt_and_stays_for_its_start_period() {
    let quick = "failure_threshold=1 cooldown=0";
    check(quick, "tick S tick F ok F*30 +1", "- end - failing+down+restart#1 - -@29 end@30");
    check(
        "failure_threshold=1 cooldown=0 retry_interval=5",
        "tick S tick F ok F*30 +1",
        "- end - failing+down+restart#1 - -@29 end@30",
    );
    check(
        "failure_threshold=1 cooldown=0 rungs=2",
        "tick S tick F fail +5 ok +30",
        "- end - failing+down+restart#1.1@0 - restart#1.2@5 - end",
    );
    let both = "failure_threshold=1 cooldown=0 | b failure_threshold=1";
    check(
        both,
        "tick S b.S tick F b.F ok b.ok S b.S",
        "- - end - failing+down+restart#1 b.failing+b.down+b.held:busy b.restart#1 - cured#1 b.cured#1+end",
    );
    check(
        "failure_threshold=1",
        "tick S tick F ok +30 tick F +30 tick F",
        "- end - failing+down+restart#1 - end@30 - held:cooldown..60+end - - restart#2@60",
    );
    check(
        "failure_threshold=1 dry_run=yes",
        "tick S tick F +30 tick F",
        "- end - failing+down+would#1@0 end - held:cooldown..60+end",
    );
    let short = "failure_threshold=1 cooldown=0 start_period=5";
    check(short, "tick S tick F ok F*4 F/3", "- end - failing+down+restart#1 - - end@7");
    // It also stays for other start periods, and then probes once more.
    check("", "reboot/10 tick F*20 F", "- - -@29 failing+end@30");
    check("", "tick pause/5 S +10 tick F*30 F", "- paused..5 end - resumed@10 - failing+end");
}

#[test]
fn a_tick_waits_for_the_results_of_its_checks() {
    let guarded = "failure_threshold=1 only_if=yes";
    check(guarded, "tick S tick F +5 yes ok S", "- end - failing+down+ask - restart#1 - cured#1+end");
    check(
        guarded,
        "tick S tick F no +59 tick F +1 tick F no +2m tick F",
        "- end - failing+down+ask@0 held:only_if..60+end - - end - ask@60 - end - - ask@180",
    );
}

#[test]
fn a_tick_decides_only_after_its_own_probe_of_a_dependency() {
    // The dependency was in trouble in the previous tick, but is not in this one.
    let dependent = "depends_on=b failure_threshold=2 | b rungs=0";
    check(
        dependent,
        "tick S b.S tick F b.F tick F b.F tick F b.S",
        "- - end - failing b.failing+end - down held:depends_on+end - - restart#1",
    );
    check(
        dependent,
        "tick S b.S tick F b.F tick F b.S ok S",
        "- - end - failing b.failing+end - down restart#1@0 - cured#1+end",
    );
}

#[test]
fn ticks_and_daemons_take_over_from_one_another() {
    check("", "S F daemon F tick F", "- failing - - - down+restart#1");
    check("", "tick S tick F tick F daemon F", "- end - failing+end - end - down+restart#1");
    check(
        "",
        "tick S tick F tick F tick F crash tick late F*30 F",
        "- end - failing+end - end - down+restart#1 - adopt - -@29 end@30",
    );
}

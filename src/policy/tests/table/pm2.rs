//! Beside PM2: the deliberate stop, the reset that is weighed, the young process, what PM2 is warned of.

use super::{check, check_conditions, check_looks, check_tells, check_waits};

#[test]
fn what_is_deliberately_at_rest_is_neither_down_nor_restarted() {
    let gated = "stopped=yes";
    // It is asked before it is called down, and probed on.
    check(gated, "S F*3 no F*4 no F S", "- failing+stopped?@90 rested:operator@90 stopped?@210 - -@240 woke@270");
    // Nobody can be asked, or nobody answers: it is left alone as it was.
    check(
        gated,
        "S F*3 no +1m unlisted +2m +45 +195 +1m",
        "- failing+stopped? rested:operator stopped?@150 - stopped?@270 - - stopped?@570",
    );
    check(gated, "S F*3 deleted S", "- failing+stopped?@90 rested:deleted woke");
    check(gated, "S F*3 done S", "- failing+stopped?@90 rested:schedule woke");
    check_conditions(gated, "S F*3 no F S", "healthy failing stopped stopped healthy");
    check_waits(gated, "S F*3 no S", "- - stopped..150 -");
    // Later and later, until it is not at rest any more; then it counts anew.
    let script = "S F*3 no +1m no +2m no +4m no +8m no +10m no +10m yes F*3 yes";
    let expected = "- failing+stopped?@90 rested:operator stopped?@150 - stopped?@270 - stopped?@510 - stopped?@990 - \
                    stopped?@1590 - stopped?@2190 woke failing+stopped?@2280 down+restart#1@2280";
    check(gated, script, expected);
    // An incident that was open ends with it.
    let open = "- failing+stopped?@90 down+restart#1@90 - stopped?@210 rested:operator!@210 woke";
    check(gated, "S F*3 yes ok +2m no S", open);
    let open = "- failing+stopped? down+ask held:only_if..150 stopped?@150 rested:operator!@150 woke";
    check("only_if=yes stopped=yes", "S F*3 yes no +60 no S", open);
    // Whoever does not watch it any more by PM2 cannot ask, and one that is watched only is asked about, too.
    check(gated, "S F*3 no reload:gates=0 F*3", "- failing+stopped? rested:operator - woke+failing+down+restart#1");
    check("stopped=yes rungs=0", "S F*3 no F*3 S", "- failing+stopped? rested:operator stopped? woke");
    // A late answer is of no use, and a yes holds for the attempt that follows.
    check(gated, "S F*2 S no F*3", "- failing - - failing+stopped?");
    check(gated, "S F*3 S no F*3", "- failing+stopped? - - failing+stopped?");
    check(gated, "S F*3 F yes", "- failing+stopped? - down+restart#1");
    check("only_if=yes stopped=yes", "S F*3 yes yes", "- failing+stopped? down+ask restart#1");
    check("stopped=yes diagnose=yes", "S F*3 yes +2 diagnosed", "- failing+stopped? down+diagnose - restart#1");
    check(
        "stopped=yes timeout=2s diagnose=yes",
        "S F*3 yes +9 +1 F",
        "- failing+stopped?@90 down+diagnose@90 - stopped?@100 -@120",
    );
    // An inspection that hangs keeps nothing from being told.
    check(gated, "S F*3 +44 +1 no", "- failing+stopped?@90 - down+restart#1@135 -");
    check(gated, "S F*3 yes ok +2m +45", "- failing+stopped? down+restart#1 - stopped?@210 restart#2@255");
    // Through the end of the watchdog and a reboot, after which it is asked at once.
    check(gated, "S F*3 no crash daemon F +1m", "- failing+stopped? rested:operator - - - stopped?@150");
    check(
        gated,
        "S F*3 no reboot daemon F*3 no",
        "- failing+stopped? rested:operator - - failing+stopped? rested:operator",
    );
    check(gated, "S F*3 no pause/1h resume F S", "- failing+stopped? rested:operator paused..3690 resumed - woke");
}

#[test]
fn a_tick_asks_and_does_not_stay_with_what_is_at_rest() {
    let ticks = "stopped=yes retry_interval=1s";
    check(ticks, "tick S tick F*3 no", "- end - failing+stopped? rested:operator+end");
    check(ticks, "tick S tick F*3 no +1m tick F no", "- end - failing+stopped? rested:operator+end - - stopped? end");
    check(
        "stopped=yes",
        "tick S tick F tick F tick F yes ok S",
        "- end - failing+end - end - stopped? down+restart#1 - cured#1+end",
    );
}

#[test]
fn whoever_stopped_it_is_reminded_after_a_day_and_then_weekly() {
    let slow = "stopped=yes interval=1h max_cooldown=1d cooldown=1d";
    check_tells(slow, "S F*3 no +23h no +1h no +6d no +1d no +1h", "- - - - - warn:stopped - - - warn:stopped - -");
    check_tells(slow, "S F*3 done +23h no +2d", "- - - - - -");
}

#[test]
fn what_lives_by_the_list_alone_is_not_gone() {
    // Its pid file is missing and its environment says nothing: only PM2's list shows the process.
    let alone = "stopped=yes interval=2s retry_interval=2s timeout=1s";
    check(alone, "app:1 S app F:gone*3 app:1 yes S", "- -@0 - failing+stopped?@6 - -@6 -@6");
    // For any other probe that lives, and does not answer.
    check(alone, "app:1 S F:refused*3 yes", "- - failing+stopped? down+restart#1");
}

#[test]
fn a_deaf_daemon_is_told_and_a_reset_comes_first_then() {
    let quick = "interval=2s retry_interval=2s timeout=1s";
    check(quick, "app:1 S god:deaf S S S S S", "- - - - - - warn:pm2_deaf -");
    check(quick, "app:1 S god:unknown S*4 S", "- - - warn:pm2_deaf -");
    check(quick, "app:1 S god:deaf S S god S god:deaf S S S S", "- - - - - - - - - - - warn:pm2_deaf");
    check(quick, "app:1 S god:deaf F*3 F", "- - - failing+down+restart#1 warn:pm2_deaf");
    // Of several with one daemon one tells it.
    check_tells(quick, "app:1 S god:deaf S*5", "- - - warn:pm2_deaf");
    check_tells(&format!("{quick} tells_of_pm2=no"), "app:1 S god:deaf S*5", "- - - -");
    let ladder = "stopped=yes rungs=2 reset=2";
    check(ladder, "S F*3 deaf warranted ok", "- failing+stopped? down+weigh restart#1.2 -");
    check(ladder, "S F*3 deaf unwarranted", "- failing+stopped? down+weigh restart#1.1");
    check("stopped=yes rungs=2", "S F*3 deaf", "- failing+stopped? down+restart#1.1");
    // Within the hour after a reset the others are all that is left.
    let script = "S F*3 deaf warranted ok +2m deaf";
    check(ladder, script, "- failing+stopped? down+weigh restart#1.2 - stopped?@210 restart#2.1");
}

#[test]
fn an_interrupted_reset_is_taken_up_again_and_counts_for_nothing() {
    check(
        "rungs=2 reset=1 stable_after=1d",
        "S F*3 warranted crash daemon lost +2m warranted",
        "- failing+down+weigh@90 restart#1.1@90 - adopt - weigh@210 restart#2.1@210",
    );
    // Without the interruption the first command would be its turn.
    check(
        "rungs=2 reset=1 stable_after=1d",
        "S F*3 warranted ok +2m",
        "- failing+down+weigh@90 restart#1.1@90 - restart#2.2@210",
    );
    check(
        "rungs=2 reset=1 stable_after=1d",
        "S F*3 warranted crash daemon lost +2m unwarranted",
        "- failing+down+weigh@90 restart#1.1@90 - adopt - weigh@210 restart#2.2@210",
    );
}

#[test]
fn a_reset_is_weighed_when_its_turn_comes() {
    let ladder = "rungs=2 reset=2";
    // Within an attempt: the first command fails and no look is healthy.
    check(ladder, "S F*3 late +5 warranted ok S", "- failing+down+restart#1.1@90 - weigh@95 restart#1.2@95 - cured#1");
    check(ladder, "S F*3 late +5 unwarranted S", "- failing+down+restart#1.1@90 - weigh@95 - cured#1");
    // As the beginning of one: attempt 2 begins at rung 2, or hands on to the first, wrapping.
    check(ladder, "S F*3 ok +2m warranted", "- failing+down+restart#1.1@90 - weigh@210 restart#2.2@210");
    check(
        ladder,
        "S F*3 ok +2m unwarranted fail +5",
        "- failing+down+restart#1.1@90 - weigh@210 restart#2.1@210 - weigh",
    );
    // In the middle it hands on within the attempt.
    check("rungs=3 reset=2", "S F*3 fail +5 unwarranted", "- failing+down+restart#1.1@90 - weigh@95 restart#1.3@95");
    check("rungs=3 reset=1", "S F*3 unwarranted", "- failing+down+weigh@90 restart#1.2@90");
    // After the questions, and before the attempt is in the window.
    check("stopped=yes rungs=2 reset=1", "S F*3 yes warranted", "- failing+stopped? down+weigh restart#1.1");
    check(ladder, "S F*3 late +5 +10 S", "- failing+down+restart#1.1@90 - weigh@95 - cured#1");
    check("rungs=2 reset=1", "S F*3 S warranted F*3", "- failing+down+weigh@90 up - failing+down+weigh");
    check("rungs=2 reset=1 dry_run=yes", "S F*3 warranted", "- failing+down+weigh would#1");
    // Its late answer, or one to nobody, does nothing.
    check(ladder, "S warranted F*3", "- - failing+down+restart#1.1");
    check(ladder, "S F*3 late +5 stall/10m warranted", "- failing+down+restart#1.1@90 - weigh@95 stalled..575 -");
    check(ladder, "S F*3 late +5 pause/1h warranted", "- failing+down+restart#1.1@90 - weigh@95 paused..3695 -");
    check(ladder, "S F*3 late +5 stop", "- failing+down+restart#1.1@90 - weigh@95 end");
    check(ladder, "S F*3 late +5 crash daemon F*3", "- failing+down+restart#1.1@90 - weigh@95 - - -");
}

#[test]
fn where_a_reset_is_all_there_is_nothing_is_done_until_it_is_warranted() {
    let alone = "rungs=1 reset=1";
    let script = "S F*3 unwarranted +60 unwarranted +120 warranted ok";
    let expected = "- failing+down+weigh@90 held:cooldown..150@90 weigh@150 - weigh@270 restart#1@270 -";
    check(alone, script, expected);
    // Within the hour after it nothing is left but to wait.
    check(alone, "S F*3 warranted ok +5m", "- failing+down+weigh restart#1@90 - held:cooldown..240");
    check("rungs=1 reset=1 stopped=yes", "S F*3 yes unwarranted", "- failing+stopped? down+weigh held:cooldown..150");
}

#[test]
fn a_reset_is_made_once_an_hour_at_most() {
    let ladder = "rungs=2 reset=2 cooldown=0 max_restarts=100 start_period=0";
    // Within the hour it is passed over without being weighed; after it, it is not.
    check(
        ladder,
        "S F*3 late +5 warranted ok F*3 ok F*3 fail +5 F*3 ok reload:interval=1h +3h ok +3h warranted",
        "- failing+down+restart#1.1@90 - weigh@95 restart#1.2@95 - restart#2.1 - restart#3.1 - - restart#4.1 - - \
         restart#5.1 - weigh restart#6.2",
    );
    // The operator's `resume` ends that wait too.
    check(
        ladder,
        "S F*3 late +5 warranted ok resume! F*3 warranted",
        "- failing+down+restart#1.1@90 - weigh@95 restart#1.2@95 - - weigh restart#2.2",
    );
}

#[test]
fn a_young_process_gets_its_time_to_come_up_whoever_started_it() {
    // A deploy: 20 s to come up, looked at every second meanwhile, and no failure counts.
    let quick = "interval=2s retry_interval=2s timeout=1s start_period=30s";
    check(quick, "app:1 S app:2 F*10 +8 S", "- -@0 - -@11 -@19 -@20");
    check_conditions(quick, "app:1 S app:2 F S", "starting healthy healthy starting healthy");
    // It does not come up: what fails after its time counts.
    check(quick, "app:1 S app:2 F*28 F F*2", "- -@0 - -@29 failing@30 down+restart#1@34");
    // The same process as at the last success gets none.
    check(quick, "app:1 S F*3", "- - failing+down+restart#1");
    // Old ones have had their time.
    check(quick, "app:1 +40 app:2 +40 F*3", "- -@40 - -@80 failing+down+restart#1@86");
    // Once: one that keeps crashing is down in the end.
    check(quick, "app:1 S app:2 F app:3 F app:4 +26 app:5 F*3", "- - - - - - - - - failing+down+restart#1");
    // A success makes the next change count anew, across a crash too.
    check(quick, "app:1 S app:2 F S +40 crash app:3 daemon F", "- - - - - - - - - -");
    check_looks(quick, "app:1 S app:2 F F F", "a@0 a@2 a@3 a@4");
    // What rests wakes up with a process of its own, which gets it, too.
    let asked = "stopped=yes interval=2s retry_interval=2s timeout=1s";
    check(asked, "app:1 S app F*3 no +55 app:2 +20 S", "- -@0 - failing+stopped?@6 rested:operator@6 - - woke@81 -@82");
    // One that is started while PM2 is asked gets it, and is not called down; one that PM2 was asked about does not.
    check(asked, "app:1 S app F*3 app:2 yes F*3 S", "- -@0 - failing+stopped?@6 - - - -");
    check(asked, "app:1 S F*3 yes", "- - failing+stopped?@6 down+restart#1@6");
}

#[test]
fn a_tick_stays_for_a_young_process() {
    check("", "app:1 tick S app:2 tick F F*3 S", "- - end - - - - end");
}

#[test]
fn a_dead_daemon_under_a_healthy_backend_is_told_once_and_left_alone() {
    let quick = "interval=2s retry_interval=2s timeout=1s";
    check(quick, "app:1 S god:dead S S S S S", "- - - - - - warn:pm2_gone -");
    check(quick, "app:1 S god:dead S S god S god:dead S S S S", "- - - - - - - - - - - warn:pm2_gone");
    // While it fails there is more to tell.
    check(quick, "app:1 S god:dead F*3", "- - - failing+down+restart#1");
}

#[test]
fn a_process_that_is_started_again_and_again_is_told() {
    let three = "app:1 S app:2 S app:3 S app:4 S app:5 S";
    check("", three, "- - - - - - - warn:crash_loop - -");
    // Spread over more than ten minutes it is none.
    check("", "app:1 S app:2 S app:3 S +10m app:4 S", "- - - - - - - - -");
    // Quiet for ten minutes, and it is told anew.
    let again = format!("{three} +11m app:6 S app:7 S app:8 S");
    check("", &again, "- - - - - - - warn:crash_loop - - - - - - - - warn:crash_loop");
    // What our own restarts start is none of it.
    check(
        "cooldown=0",
        "app:1 S app F*3 app:2 ok S app F*3 app:3 ok S app F*3 app:4 ok S",
        "- - - failing+down+restart#1 - - cured#1 - failing+down+restart#2 - - cured#1 - failing+down+restart#3 - - \
         cured#1+warn:recurrent",
    );
}

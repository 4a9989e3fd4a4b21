//! Section 4b: targets deliberately at rest, resets, new processes, and warnings about PM2.

use super::{check, check_notifications, check_probes, check_statuses, check_waiting};

#[test]
fn a_target_deliberately_at_rest_is_neither_down_nor_restarted() {
    let inspected = "stopped=yes";
    // PM2 is inspected before the target goes down, and probing continues.
    check(inspected, "S F*3 no F*4 no F S", "- failing+stopped?@90 rested:operator@90 stopped?@210 - -@240 woke@270");
    // Without an answer from PM2, the target stays at rest.
    check(
        inspected,
        "S F*3 no +1m unlisted +2m +45 +195 +1m",
        "- failing+stopped? rested:operator stopped?@150 - stopped?@270 - - stopped?@570",
    );
    check(inspected, "S F*3 deleted S", "- failing+stopped?@90 rested:deleted woke");
    check(inspected, "S F*3 done S", "- failing+stopped?@90 rested:schedule woke");
    check_statuses(inspected, "S F*3 no F S", "healthy failing stopped stopped healthy");
    check_waiting(inspected, "S F*3 no S", "- - stopped..150 -");
    // Inspections become less frequent, until the target is no longer at rest; then failures count from 0.
    let script = "S F*3 no +1m no +2m no +4m no +8m no +10m no +10m yes F*3 yes";
    let expected = "- failing+stopped?@90 rested:operator stopped?@150 - stopped?@270 - stopped?@510 - stopped?@990 - \
                    stopped?@1590 - stopped?@2190 woke failing+stopped?@2280 down+restart#1@2280";
    check(inspected, script, expected);
    // An open incident ends.
    let open = "- failing+stopped?@90 down+restart#1@90 - stopped?@210 rested:operator!@210 woke";
    check(inspected, "S F*3 yes ok +2m no S", open);
    let open = "- failing+stopped? down+ask held:only_if..150 stopped?@150 rested:operator!@150 woke";
    check("only_if=yes stopped=yes", "S F*3 yes no +60 no S", open);
    // Without `pm2` in the configuration, rest ends. Watch-only targets are inspected too.
    check(
        inspected,
        "S F*3 no reload:preconditions=0 F*3",
        "- failing+stopped? rested:operator - woke+failing+down+restart#1",
    );
    check("stopped=yes rungs=0", "S F*3 no F*3 S", "- failing+stopped? rested:operator stopped? woke");
    // A late result is ignored. A confirmed failure counts for the attempt that follows.
    check(inspected, "S F*2 S no F*3", "- failing - - failing+stopped?");
    check(inspected, "S F*3 S no F*3", "- failing+stopped? - - failing+stopped?");
    check(inspected, "S F*3 F yes", "- failing+stopped? - down+restart#1");
    check("only_if=yes stopped=yes", "S F*3 yes yes", "- failing+stopped? down+ask restart#1");
    check("stopped=yes diagnose=yes", "S F*3 yes +2 diagnosed", "- failing+stopped? down+diagnose - restart#1");
    check(
        "stopped=yes timeout=2s diagnose=yes",
        "S F*3 yes +9 +1 F",
        "- failing+stopped?@90 down+diagnose@90 - stopped?@100 -@120",
    );
    // A hanging inspection does not hide that the target is down.
    check(inspected, "S F*3 +44 +1 no", "- failing+stopped?@90 - down+restart#1@135 -");
    check(inspected, "S F*3 yes ok +2m +45", "- failing+stopped? down+restart#1 - stopped?@210 restart#2@255");
    // Rest survives the end of the watchdog. After a reboot, PM2 is inspected at once.
    check(inspected, "S F*3 no crash daemon F +1m", "- failing+stopped? rested:operator - - - stopped?@150");
    check(
        inspected,
        "S F*3 no reboot daemon F*3 no",
        "- failing+stopped? rested:operator - - failing+stopped? rested:operator",
    );
    check(inspected, "S F*3 no pause/1h resume F S", "- failing+stopped? rested:operator paused..3690 resumed - woke");
}

#[test]
fn a_tick_inspects_pm2_and_ends_if_the_target_is_at_rest() {
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
fn the_operator_is_reminded_of_a_stopped_target_after_a_day_and_then_weekly() {
    let slow = "stopped=yes interval=1h max_cooldown=1d cooldown=1d";
    check_notifications(
        slow,
        "S F*3 no +23h no +1h no +6d no +1d no +1h",
        "- - - - - warn:stopped - - - warn:stopped - -",
    );
    check_notifications(slow, "S F*3 done +23h no +2d", "- - - - - -");
}

#[test]
fn a_process_that_only_the_list_shows_is_not_gone() {
    // The pid file is missing and the environment cannot be read, so only PM2's list shows the process.
    let alone = "stopped=yes interval=2s retry_interval=2s timeout=1s";
    check(alone, "app:1 S app F:gone*3 app:1 yes S", "- -@0 - failing+stopped?@6 - -@6 -@6");
    // For any other probe, the process is alive but does not answer.
    check(alone, "app:1 S F:refused*3 yes", "- - failing+stopped? down+restart#1");
}

#[test]
fn a_deaf_daemon_is_reported_and_a_reset_comes_first() {
    let quick = "interval=2s retry_interval=2s timeout=1s";
    check(quick, "app:1 S god:deaf S S S S S", "- - - - - - warn:pm2_deaf -");
    check(quick, "app:1 S god:unknown S*4 S", "- - - warn:pm2_deaf -");
    check(quick, "app:1 S god:deaf S S god S god:deaf S S S S", "- - - - - - - - - - - warn:pm2_deaf");
    check(quick, "app:1 S god:deaf F*3 F", "- - - failing+down+restart#1 warn:pm2_deaf");
    // Of several targets with one daemon, only one reports it.
    check_notifications(quick, "app:1 S god:deaf S*5", "- - - warn:pm2_deaf");
    check_notifications(&format!("{quick} reports_pm2=no"), "app:1 S god:deaf S*5", "- - - -");
    let ladder = "stopped=yes rungs=2 reset=2";
    check(ladder, "S F*3 deaf warranted ok", "- failing+stopped? down+reset? restart#1.2 -");
    check(ladder, "S F*3 deaf unwarranted", "- failing+stopped? down+reset? restart#1.1");
    check("stopped=yes rungs=2", "S F*3 deaf", "- failing+stopped? down+restart#1.1");
    // Within an hour after a reset, only the other rungs are left.
    let script = "S F*3 deaf warranted ok +2m deaf";
    check(ladder, script, "- failing+stopped? down+reset? restart#1.2 - stopped?@210 restart#2.1");
}

#[test]
fn an_interrupted_reset_is_repeated_and_does_not_count() {
    check(
        "rungs=2 reset=1 stable_after=1d",
        "S F*3 warranted crash daemon lost +2m warranted",
        "- failing+down+reset?@90 restart#1.1@90 - adopt - reset?@210 restart#2.1@210",
    );
    // Without the interruption, the next attempt begins with its own rung.
    check(
        "rungs=2 reset=1 stable_after=1d",
        "S F*3 warranted ok +2m",
        "- failing+down+reset?@90 restart#1.1@90 - restart#2.2@210",
    );
    check(
        "rungs=2 reset=1 stable_after=1d",
        "S F*3 warranted crash daemon lost +2m unwarranted",
        "- failing+down+reset?@90 restart#1.1@90 - adopt - reset?@210 restart#2.2@210",
    );
}

#[test]
fn a_reset_is_checked_when_its_rung_is_due() {
    let ladder = "rungs=2 reset=2";
    // Within an attempt: the first command fails and no probe is healthy.
    check(ladder, "S F*3 late +5 warranted ok S", "- failing+down+restart#1.1@90 - reset?@95 restart#1.2@95 - cured#1");
    check(ladder, "S F*3 late +5 unwarranted S", "- failing+down+restart#1.1@90 - reset?@95 - cured#1");
    // At its beginning: attempt 2 begins at rung 2, or skips it and wraps to rung 1.
    check(ladder, "S F*3 ok +2m warranted", "- failing+down+restart#1.1@90 - reset?@210 restart#2.2@210");
    check(
        ladder,
        "S F*3 ok +2m unwarranted fail +5",
        "- failing+down+restart#1.1@90 - reset?@210 restart#2.1@210 - reset?",
    );
    // In the middle of an attempt, the next rung follows.
    check("rungs=3 reset=2", "S F*3 fail +5 unwarranted", "- failing+down+restart#1.1@90 - reset?@95 restart#1.3@95");
    check("rungs=3 reset=1", "S F*3 unwarranted", "- failing+down+reset?@90 restart#1.2@90");
    // The check follows the preconditions and precedes the attempt's entry in the window.
    check("stopped=yes rungs=2 reset=1", "S F*3 yes warranted", "- failing+stopped? down+reset? restart#1.1");
    check(ladder, "S F*3 late +5 +10 S", "- failing+down+restart#1.1@90 - reset?@95 - cured#1");
    check("rungs=2 reset=1", "S F*3 S warranted F*3", "- failing+down+reset?@90 up - failing+down+reset?");
    check("rungs=2 reset=1 dry_run=yes", "S F*3 warranted", "- failing+down+reset? would#1");
    // A late or unexpected result does nothing.
    check(ladder, "S warranted F*3", "- - failing+down+restart#1.1");
    check(ladder, "S F*3 late +5 stall/10m warranted", "- failing+down+restart#1.1@90 - reset?@95 stalled..575 -");
    check(ladder, "S F*3 late +5 pause/1h warranted", "- failing+down+restart#1.1@90 - reset?@95 paused..3695 -");
    check(ladder, "S F*3 late +5 stop", "- failing+down+restart#1.1@90 - reset?@95 end");
    check(ladder, "S F*3 late +5 crash daemon F*3", "- failing+down+restart#1.1@90 - reset?@95 - - -");
}

#[test]
fn a_ladder_of_one_reset_waits_until_it_is_warranted() {
    let alone = "rungs=1 reset=1";
    let script = "S F*3 unwarranted +60 unwarranted +120 warranted ok";
    let expected = "- failing+down+reset?@90 held:cooldown..150@90 reset?@150 - reset?@270 restart#1@270 -";
    check(alone, script, expected);
    // Within an hour after a reset, the attempt waits.
    check(alone, "S F*3 warranted ok +5m", "- failing+down+reset? restart#1@90 - held:cooldown..240");
    check("rungs=1 reset=1 stopped=yes", "S F*3 yes unwarranted", "- failing+stopped? down+reset? held:cooldown..150");
}

#[test]
fn a_reset_is_made_once_an_hour_at_most() {
    let ladder = "rungs=2 reset=2 cooldown=0 max_restarts=100 start_period=0";
    // Within an hour the reset is skipped without a check; after that, it is checked again.
    check(
        ladder,
        "S F*3 late +5 warranted ok F*3 ok F*3 fail +5 F*3 ok reload:interval=1h +3h ok +3h warranted",
        "- failing+down+restart#1.1@90 - reset?@95 restart#1.2@95 - restart#2.1 - restart#3.1 - - restart#4.1 - - \
         restart#5.1 - reset? restart#6.2",
    );
    // The operator's `resume` also ends that wait.
    check(
        ladder,
        "S F*3 late +5 warranted ok resume! F*3 warranted",
        "- failing+down+restart#1.1@90 - reset?@95 restart#1.2@95 - - reset? restart#2.2",
    );
}

#[test]
fn a_new_process_gets_a_start_period_from_any_starter() {
    // A deployment that takes 20 s: the target is probed every second meanwhile, and failures do not count.
    let quick = "interval=2s retry_interval=2s timeout=1s start_period=30s";
    check(quick, "app:1 S app:2 F*10 +8 S", "- -@0 - -@11 -@19 -@20");
    check_statuses(quick, "app:1 S app:2 F S", "starting healthy healthy starting healthy");
    // The process does not come up: failures after its start period count.
    check(quick, "app:1 S app:2 F*28 F F*2", "- -@0 - -@29 failing@30 down+restart#1@34");
    // The process of the last success gets none.
    check(quick, "app:1 S F*3", "- - failing+down+restart#1");
    // An older process has had its start period.
    check(quick, "app:1 +40 app:2 +40 F*3", "- -@40 - -@80 failing+down+restart#1@86");
    // Only one is granted, so a process that keeps crashing is down in the end.
    check(quick, "app:1 S app:2 F app:3 F app:4 +26 app:5 F*3", "- - - - - - - - - failing+down+restart#1");
    // After a success, the next new process gets one again, also across a crash of the watchdog.
    check(quick, "app:1 S app:2 F S +40 crash app:3 daemon F", "- - - - - - - - - -");
    check_probes(quick, "app:1 S app:2 F F F", "a@0 a@2 a@3 a@4");
    // A target that wakes from rest has a new process, which gets one too.
    let inspected = "stopped=yes interval=2s retry_interval=2s timeout=1s";
    check(
        inspected,
        "app:1 S app F*3 no +55 app:2 +20 S",
        "- -@0 - failing+stopped?@6 rested:operator@6 - - woke@81 -@82",
    );
    // A process started during the inspection gets one, so the target is not down. A process that ran before does not.
    check(inspected, "app:1 S app F*3 app:2 yes F*3 S", "- -@0 - failing+stopped?@6 - - - -");
    check(inspected, "app:1 S F*3 yes", "- - failing+stopped?@6 down+restart#1@6");
}

#[test]
fn a_tick_stays_for_a_new_process() {
    check("", "app:1 tick S app:2 tick F F*3 S", "- - end - - - - end");
}

#[test]
fn a_dead_daemon_under_a_healthy_backend_is_reported_once_and_left_alone() {
    let quick = "interval=2s retry_interval=2s timeout=1s";
    check(quick, "app:1 S god:dead S S S S S", "- - - - - - warn:pm2_gone -");
    check(quick, "app:1 S god:dead S S god S god:dead S S S S", "- - - - - - - - - - - warn:pm2_gone");
    // While the target fails, the daemon is not reported separately.
    check(quick, "app:1 S god:dead F*3", "- - - failing+down+restart#1");
}

#[test]
fn a_target_that_died_with_its_pm2_is_confirmed_every_second() {
    // Still three failures in a row, and only while both signs hold.
    check("", "app:1 S app god:dead F:refused*3 ok S", "- -@0 - - failing+down+restart#1@32 -@32 cured#1@32");
    check_probes(
        "failure_threshold=5",
        "app:1 S app god:dead F:refused F F:refused F:refused",
        "a@0 a@30 a@31 a@60 a@61",
    );
    check_probes("", "app:1 S app god:dead F:refused god F:refused F", "a@0 a@30 a@31 a@60");
    check_probes("", "app:1 S app god:dead F:refused U F:refused", "a@0 a@30 a@31 a@60");
    check_probes("", "app:1 S app god:dead F:refused S F:refused", "a@0 a@30 a@31 a@60");
    // A process that outlived the daemon may still come up, and a pm2 command may be starting a new daemon.
    check("", "app:1 S god:dead F:refused*3", "- -@0 - failing+down+restart#1@90");
    check("", "app:1 S app god:called F:refused*3", "- -@0 - - failing+down+restart#1@90");
    check("", "app:1 S app god:unknown F:refused*3", "- -@0 - - failing+warn:pm2_deaf+down+restart#1@90");
    // A faster pace remains. Once the target is down, probes follow at the regular pace again.
    check_probes(
        "interval=200ms timeout=100ms",
        "app god:dead F:refused*2 +1",
        "a@0 a@0.2 a@0.4 a@0.6 a@0.8 a@1 a@1.2",
    );
    check_probes("rungs=0", "S god:dead app F:refused*3 F:refused F:refused", "a@0 a@30 a@31 a@32 a@60 a@90");
    // The pace ends at the threshold of a paused target too.
    check_probes("", "S god:dead app pause/1h F:refused F:refused F:refused", "a@0 a@30 a@60 a@90");
    // After a boot, failures count from the end of the start period on, and a tick decides.
    check("", "S reboot/5 god:dead app daemon F:refused*25 F:refused*3", "- - - - - - failing+down+restart#1@32");
    check("", "tick S god:dead app tick F:refused*3 ok S", "- end - - - failing+down+restart#1@2 - cured#1+end");
}

#[test]
fn a_process_that_is_restarted_again_and_again_is_reported() {
    let three = "app:1 S app:2 S app:3 S app:4 S app:5 S";
    check("", three, "- - - - - - - warn:crash_loop - -");
    // Restarts spread over more than ten minutes are no crash loop.
    check("", "app:1 S app:2 S app:3 S +10m app:4 S", "- - - - - - - - -");
    // After ten minutes without restarts, a new crash loop is reported again.
    let again = format!("{three} +11m app:6 S app:7 S app:8 S");
    check("", &again, "- - - - - - - warn:crash_loop - - - - - - - - warn:crash_loop");
    // Processes started by the watchdog's own attempts do not count.
    check(
        "cooldown=0",
        "app:1 S app F*3 app:2 ok S app F*3 app:3 ok S app F*3 app:4 ok S",
        "- - - failing+down+restart#1 - - cured#1 - failing+down+restart#2 - - cured#1 - failing+down+restart#3 - - \
         cured#1+warn:recurrent",
    );
}

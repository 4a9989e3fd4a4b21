//! Rule 17: drills.

use super::{Harness, begin, check, check_notifications, check_probes, check_statuses, compare};
use crate::policy::{DrillRefusal, DrillStep};

/// After each token, why the latest order was refused.
#[track_caller]
fn check_refusals(limits: &str, script: &str, expected: &str) {
    compare(limits, script, expected, |harness, _| match harness.target().drills.refused {
        None => "-".into(),
        Some(refused) => {
            let word = match refused.why {
                DrillRefusal::Hold { reason } => reason.as_str().to_owned(),
                DrillRefusal::Interrupted { why } => format!("{why:?}").to_lowercase(),
                DrillRefusal::Unproven { .. } => "unproven".into(),
                other => format!("{other:?}").to_lowercase(),
            };
            let until = refused.until.map_or_else(String::new, |until| format!("..{}", harness.format_time(until)));
            word + &until
        }
    });
}

fn play(limits: &str, script: &str) -> Harness {
    let mut harness = begin(limits, script);
    script.split_whitespace().for_each(|token| drop(harness.play(token)));
    harness
}

#[test]
fn a_stopped_process_is_found_and_repaired_by_the_ordinary_rules() {
    let script = "S drill +5 proven F F F ok F S";
    let expected = "- prove?@0 -@5 ~began+stop@5 ~failing@30 -@60 ~down+~restart#1@90 -@90 -@90 \
                    continue+~cured#1+~healed:85000:1000@91";
    check("", script, expected);
    check_statuses("", "S drill proven F F*2 ok S", "healthy healthy healthy failing down recovering healthy");
    // The command fails, the next one heals.
    check(
        "rungs=2",
        "S drill proven F*3 fail F +5 ok S",
        "- prove? ~began+stop ~failing+~down+~restart#1.1@90 - - ~restart#1.2@95 - \
         continue+~cured#1+~healed:90000:5000@95",
    );
    // A healthy probe during the command.
    let healed = "continue+~cured#1+~healed:90000:33000";
    check("", "S drill proven F*3 S/3 ok", &format!("- prove? ~began+stop ~failing+~down+~restart#1 {healed} -"));
    // The steps, for the command that shows them.
    let drill = play("", "S drill proven F*3 ok F S").target().drills.last.expect("it has ended");
    let seconds: Vec<i64> = drill.steps.iter().map(|(at, _)| (at.as_ms() - drill.began.as_ms()) / 1_000).collect();
    assert_eq!(seconds, [30, 60, 90, 90, 90, 90, 91], "{:?}", drill.steps);
    let done = DrillStep::Healthy { detail: "200".into(), latency_ms: 2 };
    assert_eq!(drill.steps.last().map(|(_, step)| step), Some(&done));
}

#[test]
fn it_sends_no_message_and_counts_only_for_the_limits() {
    check_notifications("", "S drill proven F*3 ok F S +1h", "- - - - - - - -");
    // Neither flapping nor recurrent, however often.
    let drill = |n: u32| format!("drill:{n} proven:{n} F*3 ok S");
    let many: Vec<String> = (1..=9).map(drill).collect();
    let script = format!("S {}", many.join(" "));
    let harness = play("cooldown=0 max_restarts=100", &script);
    let target = harness.target();
    assert!(target.warned.is_empty() && target.downs.is_empty() && target.cures.is_empty(), "{target:?}");
    assert_eq!((target.real.starts.len(), target.drills.last.map(|drill| drill.id)), (9, Some("9".into())));
    // The place in the window, the cooldown and the attempt's number are those of any attempt.
    check(
        "rungs=2 cooldown=2m",
        "S drill proven F*3 ok S F*3 +1m",
        "- prove? ~began+stop ~failing+~down+~restart#1.1@90 - continue+~cured#1+~healed:90000:0 \
         failing+down+held:cooldown..210@180 restart#2.2@240",
    );
}

#[test]
fn a_repair_that_does_not_work_ends_it_and_what_follows_is_an_ordinary_incident() {
    let failed = "- prove? ~began+stop ~failing+~down+~restart#1@90 -";
    // Its process continues and is healthy.
    check("", "S drill proven F*3 ok F*30 S", &format!("{failed} -@119 continue+~not_healed!@120"));
    check_notifications("", "S drill proven F*3 ok F*30 S +1h", "- - - - - - - -");
    // It is not: it goes down as always, and that is told.
    let then = "continue+~not_healed!+failing@120 down+restart#2@180";
    check("", "S drill proven F*3 ok F*31 F*2", &format!("{failed} {then}"));
    check_notifications("", "S drill proven F*3 ok F*31 F*2 ok F*31", "- - - - - - - - down#1");
    // Without a start period, the first probe after the command decides.
    check(
        "start_period=0",
        "S drill proven F*3 ok F",
        "- prove? ~began+stop ~failing+~down+~restart#1 - continue+~not_healed!",
    );
    check(
        "start_period=0",
        "S drill proven F*3 missing F",
        "- prove? ~began+stop ~failing+~down+~restart#1 warn:cannot_repair continue+~not_healed!",
    );
    check(
        "only_if=yes",
        "S drill proven F*3 no",
        "- prove? ~began+stop ~failing+~down+ask continue+~held:only_if..150+~held:only_if!",
    );
}

#[test]
fn whatever_ends_it_continues_the_process_and_closes_the_incident() {
    let before = "- prove? ~began+stop ~failing+~down+~restart#1";
    let check_end = |token: &str, expected: &str| {
        check("", &format!("S drill proven F*3 {token}"), &format!("{before} {expected}"));
    };
    check_end("cancel", "continue+~cancelled!");
    check_end("pause/1h", "continue+paused..3690+~paused!");
    check_end("reload", "continue+~reloaded!");
    check_end("remove", "continue+~reloaded!");
    check_end("order", "-");
    check_end("cancel:7", "-");
    check_end("stop", "continue+~stopping!");
    check("", "S drill proven F stop", "- prove? ~began+stop ~failing continue+~stopping+end");
    check("", "S drill proven F order ok S", "- prove? ~began+stop ~failing continue+~restart+ordered#1 - -");
    check("", "S drill proven F stall/10m", "- prove? ~began+stop ~failing continue+stalled..570+~stalled");
    check(
        "stopped=yes",
        "S drill proven F*3 no",
        "- prove? ~began+stop ~failing+stopped? continue+~rested+rested:operator",
    );
    // The watchdog is killed: the next one continues the process, also before it was stopped, also if it is a tick, and
    // also if the target has left the configuration. After a reboot no pid is worth anything.
    check("", "S drill proven F crash daemon S", "- prove? ~began+stop ~failing - continue+~lost -");
    check(
        "",
        "S drill proven F*3 crash daemon lost",
        &format!("{before} - adopt+continue+~lost! -").replace("adopt+continue+~lost!", "continue+~lost!+adopt"),
    );
    check("", "S drill proven crash tick S", "- prove? ~began+stop - continue+~lost end");
    check("", "S drill proven F crash remove daemon", "- prove? ~began+stop ~failing - - continue+~lost");
    let harness = play("", "S drill proven F reboot daemon");
    assert_eq!(harness.target().drills.last.map(|drill| drill.processes), Some(Vec::new()));
    // A drill ends in time, whatever happens.
    check("", "S drill proven U +5m", "- prove? ~began+stop -@30 continue+~timed_out@330");
    check("", "S drill full proven", "- prove? - ~began+continue+~not_stopped");
}

#[test]
fn a_probe_that_ran_when_it_ended_counts_for_nothing() {
    check(
        "failure_threshold=1",
        "S drill proven hang cancel F S",
        "- prove? ~began+stop -@30 continue+~cancelled@30 - -",
    );
    check_probes("", "S drill proven F cancel +1", "a@0 a@30 a@30");
    // It would have been the first failure of a real outage.
    check(
        "failure_threshold=1",
        "S drill proven hang cancel F F",
        "- prove? ~began+stop - continue+~cancelled - failing+down+restart#1",
    );
}

#[test]
fn a_target_that_still_answers_shows_nothing() {
    check("", "S drill proven S", "- prove? ~began+stop continue+~without_restart:false");
    check("", "S drill proven F S", "- prove? ~began+stop ~failing continue+~without_restart:true");
    // A probe that began before the stop, or at the same moment, says nothing.
    check(
        "interval=500ms retry_interval=500ms timeout=400ms",
        "S drill hang proven S +1",
        "- prove? - ~began+stop - continue+~without_restart:false",
    );
}

#[test]
fn it_is_refused_where_it_would_do_harm_or_show_nothing() {
    check("", "S drill unproven", "- prove? -");
    check_refusals("", "S drill unproven", "- - unproven");
    check_refusals("rungs=0", "S drill", "- watchonly");
    check_refusals("", "tick S tick drill", "- - - tick");
    check_refusals("dry_run=yes", "S drill", "- dryrun");
    check_refusals("", "drill", "nothealthy");
    check_refusals("", "S F drill", "- - nothealthy");
    check_refusals("", "S U drill", "- - nothealthy");
    check_refusals("", "S crash +2m daemon drill", "- - - - nothealthy");
    check_refusals("", "S drill F proven", "- - - nothealthy");
    check_refusals("", "S pause/1h drill", "- - paused..3600");
    check_refusals("", "S F*3 drill", "- - busy");
    check_refusals("", "S F*3 ok S drill", "- - - - cooldown..150");
    check_refusals("| b", "S b.S b.F*3 drill", "- - - busy");
    check_refusals("depends_on=b | b", "S b.S b.F drill", "- - - depends_on");
    check_refusals("max_restarts=1", "S drill", "- limit");
    check_refusals("max_restarts=2 cooldown=0", "S order ok S drill", "- - - - limit..3600");
    check_refusals("max_restarts=3 cooldown=0", "S order ok S drill", "- - - - -");
    check_refusals("| b", "S b.S b.drill b.proven drill", "- - - - busy");
    check_refusals("", "S drill drill:2", "- - busy");
    check_refusals("", "S drill cancel proven", "- - cancelled cancelled");
    check_refusals("", "S drill crash daemon proven", "- - - lost lost");
    check_refusals("", "S F*2 S full F:tls room F drill", "- - - - - - - nothealthy");
    // The same order is carried out once.
    check(
        "",
        "S drill drill proven drill F*3 ok S +1m drill proven",
        "- prove? - ~began+stop - ~failing+~down+~restart#1 - continue+~cured#1+~healed:90000:0 - - -",
    );
}

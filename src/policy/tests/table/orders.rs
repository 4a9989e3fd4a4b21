//! Rule 16: restarts that the operator orders.

use super::{check, check_notifications, check_probes, check_waiting, compare};
use crate::policy::{ManualProgress, ManualRestart, OrderedBy, Record};

/// After each token, what came of the order so far: `running`, `starting`, `healthy`, `not_healthy`, `not_started`,
/// or the reason for which it was refused.
#[track_caller]
fn check_orders(limits: &str, script: &str, expected: &str) {
    compare(limits, script, expected, |harness, _| {
        let target = harness.target();
        if let Some(refused) = target.refused {
            return format!("{:?}", refused.why).to_lowercase();
        }
        let word = |manual: ManualRestart| match manual.progress {
            ManualProgress::Running { .. } => "running",
            ManualProgress::Starting { .. } => "starting",
            ManualProgress::Healthy { .. } => "healthy",
            ManualProgress::NotHealthy { .. } => "not_healthy",
            ManualProgress::NotStarted { .. } => "not_started",
        };
        target.manual.map_or("-", word).into()
    });
}

#[test]
fn an_ordered_restart_is_made_at_once_whatever_the_health() {
    // A healthy target: no incident and no message, but a cooldown and a place in the window.
    check("cooldown=2m", "S order ok S F*3 +1m", "- ordered#1@0 - - failing+down+held:cooldown..120 restart#2");
    check_notifications("", "S order ok S +1h", "- - - - -");
    check_orders("", "S order ok S", "- running starting healthy");
    // Never probed, failing, down and waiting, paused.
    check("", "order ok S", "ordered#1@0 - -");
    check("", "S F order ok S", "- failing ordered#1@30 - -");
    check("", "S F*3 ok +31 order:2 ok S", "- failing+down+restart#1 - - ordered#2 - cured#2");
    check("", "S pause/1h order ok S", "- paused..3600 ordered#1 - -");
    check_orders("", "S pause/1h order ok S", "- - running starting healthy");
    check("restart_on=tls", "S F*3 order ok S", "- failing+down+held:restart_on ordered#1 - cured#1");
    check("", "F:status*3 order ok S", "failing+down+held:never_healthy ordered#1 - cured#1");
    check("| b depends_on=a", "S b.S F b.order ok b.S", "- - failing b.ordered#1 - -");
    check("only_if=yes", "S F*3 no order ok S", "- failing+down+ask held:only_if..150 ordered#1 - cured#1");
    check("diagnose=yes", "S F*3 order ok S", "- failing+down+diagnose ordered#1 - cured#1");
    // A target at rest stays at rest until its process runs.
    let inspected = "stopped=yes";
    check(inspected, "S F*3 no order ok app:2 S", "- failing+stopped? rested:operator ordered#1 - - woke");
    // An inspection that ends during the attempt changes nothing.
    check(inspected, "S F*3 order yes ok S", "- failing+stopped? ordered#1 - - -");
}

#[test]
fn the_window_and_a_running_attempt_refuse_it() {
    check("max_restarts=1", "S order ok S order:2", "- ordered#1 - - -");
    check_orders("max_restarts=1", "S order ok S order:2", "- running starting healthy limit");
    check_orders("max_restarts=1", "S order ok S +1h order:2", "- running starting healthy healthy running");
    check_orders("", "S order order:2", "- running busy");
    check_orders("", "S F*3 order", "- - busy");
    check_orders("| b", "S b.S b.F*3 order", "- - - busy");
    check_orders("rungs=0", "S order", "- watchonly");
    check_orders("dry_run=yes", "S order", "- dryrun");
    check("dry_run=yes", "S order", "- -");
    check_orders("", "S F*3 stop order:9", "- - - stopping");
    // The same order is carried out once, also by the next watchdog.
    check("", "S order order ok order S crash daemon order", "- ordered#1 - - - - - - -");
    check("max_restarts=1", "S order ok S order:2 +1h order:2 order:3", "- ordered#1 - - - - - ordered#1");
    // The order for an unknown target does nothing.
    check("", "S x.order", "- -");
}

#[test]
fn only_a_probe_after_the_command_shows_that_it_is_healthy() {
    // The probe that ran during the command says nothing.
    let script = "S hang +1 order ok S S";
    check_orders("", script, "- - - running starting starting healthy");
    check_probes("", script, "a@0 a@30 a@32");
    check_orders("start_period=0", script, "- - - running starting starting healthy");
    check_probes("start_period=0", script, "a@0 a@30 a@31");
    check_orders("", "S order ok F*30 F", "- running starting starting not_healthy");
    check_orders("", "S order ok U S", "- running starting starting healthy");
    check_orders("start_period=0", "S order ok F", "- running starting not_healthy");
    check_orders("start_period=0", "S order ok S", "- running starting healthy");
    check_orders("", "S order fail S", "- running starting healthy");
    check_orders("rungs=2", "S order fail F +5 ok S", "- running running running running starting healthy");
    check("rungs=2", "S order fail F +5 ok S", "- ordered#1.1@0 - - ordered#1.2@5 - -");
    check_orders("", "S order missing", "- running not_started");
    check("", "S order missing", "- ordered#1 warn:cannot_repair");
    // The watchdog is killed while the command runs.
    check_orders("", "S order crash daemon lost S", "- running running running starting healthy");
}

#[test]
fn a_tick_stays_until_the_outcome() {
    check("", "tick S tick order ok F*3 S", "- end - ordered#1 - - end");
    check_orders("", "tick S tick order ok F*3 S", "- - - running starting starting healthy");
    check("start_period=0", "tick S tick order ok F", "- end - ordered#1 - failing+end");
    check_orders("start_period=0", "tick S tick order ok F", "- - - running starting not_healthy");
    check("start_period=4s", "tick S tick order ok +5", "- end - ordered#1 - end");
}

#[test]
fn it_counts_like_any_other_attempt() {
    // The next attempt of the episode begins with the next rung, and the cooldown doubles.
    let script = "S order ok S F*3 ok +1m";
    let expected = "- ordered#1.1@0 - - failing+down+restart#2.2@90 -@90 -@150";
    check("rungs=2", script, expected);
    check_waiting("cooldown=2m", "S order ok F*33", "- - - cooldown..120");
    // A process that it started is no sign of a crash loop.
    let three = "app:1 S order:1 app:2 ok S order:2 app:3 ok S order:3 app:4 ok S";
    check("", three, "- - ordered#1 - - - ordered#2 - - - ordered#3 - - -");
    // A ladder of one reset is checked first.
    check("reset=1", "S order warranted ok S", "- reset? ordered#1 - -");
    check_orders("reset=1", "S order unwarranted", "- running not_started");
    check_orders("reset=1", "S order warranted ok S order:2", "- running running starting healthy resettoorecent");
    check("rungs=2 reset=1", "S order ok S", "- ordered#1.2 - -");
}

#[test]
fn what_cannot_be_saved_is_refused() {
    check("", "tick S full tick order", "- end - - -");
    check_orders("", "S full order ok S order:2", "- - running starting healthy unsaved");
}

#[test]
fn its_record_names_the_operator_and_the_incident_if_there_is_one() {
    let by = |script: &str| {
        let mut harness = super::begin("", script);
        script.split_whitespace().for_each(|token| drop(harness.play(token)));
        let restarts = harness.records.iter().filter_map(|record| match record {
            Record::Restart { incident, by, .. } => Some((incident.clone(), *by)),
            _ => None,
        });
        restarts.collect::<Vec<_>>()
    };
    let operator = Some(OrderedBy::Operator);
    assert_eq!(by("S order"), [(None, operator)]);
    assert_eq!(by("S F*3 ok +31 order"), [(Some("1122-0313".into()), None), (Some("1122-0313".into()), operator)]);
}

//! What systemd 252 prints in each situation, and what that means. The times are real ones, in microseconds, shortened.

use super::*;
use crate::systemd::evidence::JournalSign::{NotAsked, Nothing, Other, Stopped, Unreadable};

/// A loaded service of `Type=simple`, in words such as `ActiveState=inactive`.
fn unit(words: &str) -> UnitEvidence {
    const SHORT: [(&str, &str); 8] = [
        ("started=", "ExecMainStartTimestampMonotonic="),
        ("ended=", "ExecMainExitTimestampMonotonic="),
        ("starting=", "InactiveExitTimestampMonotonic="),
        ("up=", "ActiveEnterTimestampMonotonic="),
        ("left=", "ActiveExitTimestampMonotonic="),
        ("code=", "ExecMainCode="),
        ("status=", "ExecMainStatus="),
        ("prevent=", "RestartPreventExitStatus="),
    ];
    let line = |word: &str| {
        let short = SHORT.iter().find_map(|(short, name)| Some(format!("{name}{}", word.strip_prefix(short)?)));
        short.unwrap_or_else(|| word.to_owned())
    };
    let mut lines: Vec<String> = words.split_whitespace().map(line).collect();
    for default in ["LoadState=loaded", "Type=simple", "Restart=no", "Result=success", "RuntimeMaxUSec=infinity"] {
        let (name, _) = default.split_once('=').expect("a pair");
        if !lines.iter().any(|line| line.starts_with(&format!("{name}="))) {
            lines.push(default.to_owned());
        }
    }
    UnitEvidence::parse(&lines.join("\n")).expect("a unit")
}

fn facts(words: &str) -> UnitFacts {
    let unit = Ok(unit(words));
    UnitFacts { unit, bound_to: Vec::new(), journal: NotAsked, ran_in_this_boot: true, rested_before_boot: false }
}

#[track_caller]
fn check(words: &str, expected: &str) {
    check_facts(&facts(words), expected);
}

#[track_caller]
fn check_facts(facts: &UnitFacts, expected: &str) {
    let word = match conclude(facts) {
        UnitState::Running => "running",
        UnitState::Starting => "starting",
        UnitState::AtRest(reason) => reason.as_str(),
        UnitState::Down(_) => "down",
        UnitState::Unknown(_) => "unknown",
    };
    assert_eq!(word, expected, "{facts:?}");
}

#[test]
fn what_runs_or_starts_is_not_at_rest() {
    check("ActiveState=active SubState=running started=750 starting=972 up=972", "running");
    check("ActiveState=reloading started=750 starting=972 up=972", "running");
    check("ActiveState=activating SubState=start started=750 starting=972", "starting");
    let waits = "ActiveState=activating SubState=auto-restart Restart=always Result=exit-code code=1 status=1 ";
    check(&format!("{waits} started=219754 ended=252995 starting=253747 up=219892 left=253656"), "starting");
    check("ActiveState=maintenance", "unknown");
    // A masked unit that runs still runs.
    check("LoadState=masked ActiveState=active", "running");
}

#[test]
fn an_ordered_stop_is_told_by_the_order_of_events_whatever_the_exit_code() {
    let times = "started=1000 starting=1200 up=1200 left=6286 ended=6955";
    check(&format!("ActiveState=inactive code=2 status=15 {times}"), "operator");
    check(&format!("ActiveState=inactive code=1 status=0 {times}"), "operator");
    check(&format!("ActiveState=failed Result=exit-code code=1 status=143 Restart=always {times}"), "operator");
    check(&format!("ActiveState=failed Result=signal code=2 status=9 {times}"), "operator");
    check(&format!("ActiveState=failed Result=core-dump code=3 status=6 {times}"), "operator");
    // A frozen one that had to be killed after TimeoutStopSec=, and one that is being stopped still.
    check(&format!("ActiveState=failed Result=timeout code=2 status=9 {times}"), "operator");
    check("ActiveState=deactivating SubState=stop-sigterm started=1000 starting=1200 up=1200 left=6286", "operator");
    // RemainAfterExit=: its process had ended long before.
    check(
        "ActiveState=inactive Type=oneshot code=1 status=0 started=1000 ended=1100 starting=990 up=1110 left=5000",
        "operator",
    );
}

#[test]
fn what_ended_by_itself_or_by_systemd_is_down() {
    let times = "started=1000 starting=1200 up=1200 ended=6000 left=6123";
    check(&format!("ActiveState=failed Result=exit-code code=1 status=1 {times}"), "down");
    check(&format!("ActiveState=failed Result=signal code=2 status=9 {times}"), "down");
    // Killed with SIGTERM, or exited with 0: no failure for systemd, but nobody ordered a stop.
    check(&format!("ActiveState=inactive code=2 status=15 {times}"), "down");
    check(&format!("ActiveState=inactive code=1 status=0 {times}"), "down");
    // After `systemctl reset-failed`.
    check(&format!("ActiveState=inactive code=2 status=9 {times}"), "down");
    check(&format!("ActiveState=inactive code=1 status=1 Restart=always {times}"), "down");
    // systemd ended it: the order of events is that of a stop.
    let ended = "started=1000 starting=1200 up=1200 left=6286 ended=6955 code=2";
    check(&format!("ActiveState=failed Result=watchdog status=6 {ended}"), "down");
    check(&format!("ActiveState=deactivating Result=watchdog {ended}"), "down");
    check(&format!("ActiveState=failed Result=oom-kill status=9 {ended}"), "down");
    check(&format!("ActiveState=failed Result=timeout RuntimeMaxUSec=500ms status=15 {ended}"), "down");
    // Its ExecStopPost= runs.
    check(&format!("ActiveState=deactivating SubState=stop-post code=1 status=1 Result=exit-code {times}"), "down");
    // No main process is known.
    check("ActiveState=inactive Type=forking starting=1000 up=1200 left=6000", "down");
}

#[test]
fn a_start_that_fails_is_no_stop() {
    let limit = "started=536206 ended=539141 starting=540660 up=536286 left=540520 code=1 status=1";
    check(&format!("ActiveState=failed Restart=always Result=exit-code {limit}"), "down");
    check(&format!("ActiveState=failed Restart=always Result=start-limit-hit {limit}"), "down");
    // A restart stopped it, and it did not come up again.
    check(
        "ActiveState=failed Result=exit-code code=1 status=1 started=9000 ended=9100 starting=8999 up=1200 left=8000",
        "down",
    );
    check(
        "ActiveState=failed Type=notify Result=timeout code=2 status=15 started=9000 ended=9900 starting=8999",
        "down",
    );
    // A stop while systemd waits to start it again, or while it starts.
    let waits = "Restart=always starting=300 up=100 left=250 started=99 ended=249";
    check(&format!("ActiveState=inactive Result=exit-code code=1 status=1 {waits}"), "operator");
    check(&format!("ActiveState=inactive code=1 status=0 {waits}"), "operator");
    check("ActiveState=inactive Type=notify code=2 status=15 started=9000 ended=9900 starting=8999", "operator");
    check("ActiveState=inactive ConditionResult=no ConditionTimestampMonotonic=77 starting=5 up=6 left=7", "unknown");
    // With Restart=always, one without a known main process is down only on an order.
    check("ActiveState=inactive Type=forking Restart=always starting=1000 up=1200 left=6000", "operator");
}

#[test]
fn jobs_are_at_rest_between_their_runs() {
    let ran = "started=1000 ended=1100 starting=990 left=1101";
    check(&format!("ActiveState=inactive Type=oneshot code=1 status=0 {ran}"), "schedule");
    check(&format!("ActiveState=failed Type=oneshot Result=exit-code code=1 status=1 {ran}"), "down");
    let ended = "started=1000 starting=1001 up=1001 ended=2000 left=2001 code=1";
    check(&format!("ActiveState=inactive TriggeredBy=a.timer status=0 {ended}"), "schedule");
    check(&format!("ActiveState=inactive TriggeredBy=a.socket status=0 {ended}"), "down");
    check("ActiveState=inactive TriggeredBy=a.timer", "schedule");
    let done = "ActiveState=failed Result=exit-code Restart=on-failure prevent=7";
    check(&format!("{done} status=7 {ended}"), "exit");
    check(&format!("{done} status=8 {ended}"), "down");
}

#[test]
fn what_systemd_has_forgotten_is_told_by_the_journal_or_unknown() {
    #[track_caller]
    fn check(words: &str, journal: JournalSign, ran_in_this_boot: bool, rested_before_boot: bool, expected: &str) {
        let facts = UnitFacts { journal, ran_in_this_boot, rested_before_boot, ..facts(words) };
        assert!(needs_journal(&facts), "{words}");
        check_facts(&facts, expected);
    }
    let (simple, always) = ("ActiveState=inactive", "ActiveState=inactive Restart=always");
    check(simple, Stopped, true, false, "operator");
    check(simple, Other, true, false, "down");
    check(always, Other, true, true, "down");
    for journal in [Nothing, Unreadable] {
        check(simple, journal, true, false, "unknown");
        check(simple, journal, true, true, "unknown");
        check(always, journal, true, false, "operator");
        check(simple, journal, false, true, "operator");
    }
    check(simple, Nothing, false, false, "down");
    check(simple, Unreadable, false, false, "unknown");
    check(always, Unreadable, false, false, "unknown");
    // It says that it is stopping before it exits, whether it was asked to or not.
    let notify = "Type=notify code=1 status=0 started=1000 starting=1001 up=1100 left=2000 ended=2100";
    check(&format!("{simple} {notify}"), Stopped, true, false, "operator");
    check(&format!("{simple} {notify}"), Other, true, false, "down");
    check(&format!("{simple} {notify}"), Unreadable, true, false, "down");
    assert!(!needs_journal(&facts(&format!("{always} {notify}"))), "systemd would have started it again");
    check_facts(&facts(&format!("{always} {notify}")), "operator");
}

#[test]
fn a_unit_that_ended_with_another_is_at_rest_only_if_that_is() {
    let stopped = "ActiveState=inactive code=2 status=15 started=1000 starting=1200 up=1200 left=6286 ended=6955";
    let with = |bound: &str| UnitFacts { bound_to: vec![facts(bound)], ..facts(stopped) };
    check_facts(&with("ActiveState=active"), "operator");
    check_facts(&with(stopped), "operator");
    let died =
        "ActiveState=failed Result=signal code=2 status=9 started=1000 starting=1200 up=1200 ended=6000 left=6123";
    check_facts(&with(died), "down");
    check_facts(&with("LoadState=not-found ActiveState=inactive"), "down");
}

#[test]
fn a_unit_that_cannot_be_asked_about_is_unknown() {
    let failed = UnitFacts { unit: Err("Failed to connect to bus".into()), ..facts("ActiveState=active") };
    check_facts(&failed, "unknown");
    check("LoadState=not-found ActiveState=inactive", "unknown");
    check("LoadState=bad-setting ActiveState=inactive", "unknown");
    check("LoadState=masked ActiveState=inactive", "operator");
    check("LoadState=masked ActiveState=failed Result=signal", "operator");
    assert_eq!(UnitEvidence::parse(""), None);
    assert_eq!(UnitEvidence::parse("Failed to get properties: Access denied"), None);
}

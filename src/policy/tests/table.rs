//! The policy in tables: limits, a script of tokens, and what the policy must do at each token.
//!
//! Limits are the contract's defaults (a probe every 30 s, down after three failures, one rung, a cooldown of 60 s …)
//! with the given changes: `rungs=2 cooldown=10s`. Further targets follow a bar: `| b depends_on=a`.
//!
//! | token | what happens |
//! | --- | --- |
//! | `S` `F` `F:dns` `U` | the next probe, whenever the policy starts it, is healthy, fails (`timeout`), is unknown |
//! | `S:3` | the next probe is healthy and takes 3 s |
//! | `F/8` | the same, 8 s after the probe began; `hang`: the probe begins, and a later `F`, `S` or `U` ends it |
//! | `+30` `+10m` | time passes; probes repeat the latest verdict (`S` at first) |
//! | `ok` `fail` `killed` `late` `lost` | the running command ends in this way |
//! | `missing` `127` | the command cannot be started: no such file; the shell reports that it cannot start it |
//! | `yes` `no` | the result of `only_if`, or of the inspection: not at rest, stopped by the operator |
//! | `deaf` `unlisted` `deleted` `done` | other results of the inspection |
//! | `warranted` `unwarranted` | the result of the check of the reset |
//! | `diagnosed` | the diagnosis is complete |
//! | `app:7` `app` `god:dead` `god` | probes observe a new PM2 process 7; none; PM2's daemon dead; alive |
//! | `pause/1h` `resume` `resume!` | the operator pauses, resumes, resumes and clears the waits; `all.pause`: all |
//! | `pause:x/1h` `over:x` | a pause while command x runs; x has ended |
//! | `stall/1m` `work/9` `work!/9` | the watchdog gets no CPU for a minute; works for 9 s; is stopped while it works |
//! | `stop` `crash` `crash!` | SIGTERM; `kill -9`; `kill -9` before the pid of the command is stored |
//! | `daemon` `tick` | the watchdog ends, and another continues from the saved state; scripts begin with `daemon` |
//! | `reboot/40` | the machine boots and has been up for 40 s |
//! | `corrupt` `full` `room` | the state does not parse; the disk is full (`full:1`: after one save); it has room |
//! | `gone` `there` | the hourly search for the rungs' executables |
//! | `order` `order:2` | the operator orders a restart; orders with the same id are one |
//! | `drill` `proven` `unproven` `cancel` | the operator orders a drill; its process is proven, or not; cancelled |
//! | `reload:cooldown=5;rungs=1` `remove` `add` | the configuration is reloaded with changes |
//!
//! `b.F` concerns target `b`; `F*3` is three times `F`; `remove/1` happens 1 s later, before anything else.
//! Expectations correspond to tokens: `-` nothing; `down+restart#1` both (`restart#2.1` with several rungs: attempt 2,
//! rung 1), `ordered#1` if the operator ordered it; `cured#1` and `up#1`: healthy after one attempt, because of it or
//! not; `ask`, `stopped?`, `reset?`: a check of `only_if`, of PM2, of a reset begins; `held:cooldown..90`: the attempt
//! waits until 90 s after the beginning of the script; `prove?`, `stop`, `continue`: a drill's process; `~` before
//! anything: it is a drill's; `end`: the watchdog has ended; `@60` after any of them: the token ends 60 s after the
//! beginning.

mod attempts;
mod changes;
mod counting;
mod drills;
mod gaps;
mod harness;
mod notify;
mod orders;
mod pauses;
mod pm2;
mod quality;
mod saving;
mod schedule;
mod script;
mod starting;
mod ticks;
mod waits;
mod warnings;

use harness::Harness;
use script::{limits, ms, seconds};

#[track_caller]
fn check(limits: &str, script: &str, expected: &str) {
    compare(limits, script, expected, |_, output| output);
}

#[track_caller]
fn check_statuses(limits: &str, script: &str, expected: &str) {
    compare(limits, script, expected, |harness, _| harness.target().status.as_str().into());
}

/// After each token: why the due attempt at target `a` waits, and until when.
#[track_caller]
fn check_waiting(limits: &str, script: &str, expected: &str) {
    compare(limits, script, expected, |harness, _| match harness.target().waiting {
        None => "-".into(),
        Some(waiting) => {
            let until = waiting.until.map_or_else(String::new, |until| format!("..{}", harness.format_time(until)));
            format!("{}{until}", waiting.why.as_str())
        }
    });
}

/// The notifications: `healed#1`; `down:limit#10`; `down#1/4h`: the reminder after four hours; `up#1` and `cured#1`:
/// after a `down`; `warn:flapping`; `calm:7`: seven incidents were folded.
#[track_caller]
fn check_notifications(limits: &str, script: &str, expected: &str) {
    compare(limits, script, expected, |harness, _| match &harness.notifications[..] {
        [] => "-".into(),
        notifications => notifications.join("+"),
    });
}

#[track_caller]
fn check_probes(limits: &str, script: &str, expected: &str) {
    let mut harness = begin(limits, script);
    for token in script.split_whitespace() {
        harness.play(token);
    }
    let expected: Vec<String> = expected.split_whitespace().map(normalize).collect();
    assert_eq!(harness.probes, expected, "\n{script}");
}

#[track_caller]
fn compare(limits: &str, script: &str, expected: &str, show: impl Fn(&Harness, String) -> String) {
    let mut harness = begin(limits, script);
    let tokens: Vec<&str> = script.split_whitespace().collect();
    let expected: Vec<String> = expected.split_whitespace().map(normalize).collect();
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let output = harness.play(token);
        let shown = show(&harness, output);
        let is_timed = expected.get(index).is_none_or(|expected| expected.contains('@'));
        found.push(if is_timed { format!("{shown}@{}", seconds(harness.now)) } else { shown });
    }
    let line = |(index, token): (usize, &&str)| {
        let expected = expected.get(index).map_or("nothing", String::as_str);
        let mark = if expected == found[index] { " " } else { "!" };
        format!("{mark} {token:<24} {:<40} {expected}\n", found[index])
    };
    let table: String = tokens.iter().enumerate().map(line).collect();
    assert!(found == expected, "limits: {limits}\n  token                    found, then expected\n{table}");
}

fn begin(text: &str, script: &str) -> Harness {
    let mut harness = Harness::new(limits(text));
    if !["tick", "daemon", "reboot"].iter().any(|start| script.starts_with(start)) {
        harness.play("daemon");
    }
    harness
}

/// The expectation with its points in time in seconds, as the harness shows them.
#[track_caller]
fn normalize(expected: &str) -> String {
    let (text, at) = expected.split_once('@').map_or((expected, None), |(text, at)| (text, Some(at)));
    let parts = text.split('+').map(|part| match part.split_once("..") {
        Some((word, until)) => format!("{word}..{}", seconds(ms(until))),
        None => part.to_string(),
    });
    let text = parts.collect::<Vec<_>>().join("+");
    at.map_or(text.clone(), |at| format!("{text}@{}", seconds(ms(at))))
}

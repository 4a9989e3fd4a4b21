//! The policy as tables: limits, a script, and what the policy does at each token of it.
//!
//! Limits are the contract's defaults (a look every 30 s, three failures are down, one rung, 60 s of cooldown …)
//! with what is written changed: `rungs=2 cooldown=10s`. More targets follow a bar: `| b depends_on=a`.
//!
//! | token | what happens |
//! | --- | --- |
//! | `S` `F` `F:dns` `U` | the next look, whenever the policy makes it, is healthy, a failure (`timeout`), unknown |
//! | `F/8` | the same, 8 s after the look has begun; `hang`: it has begun, and waits for its `F`, `S` or `U` |
//! | `+30` `+10m` | time passes; looks find what the last one found (`S` at first) |
//! | `ok` `fail` `killed` `late` `lost` | the command that runs ends so |
//! | `missing` `127` | it cannot be started; a shell was, and says that it cannot |
//! | `yes` `no` | what was asked, `only_if` or whether it is stopped in PM2, answers |
//! | `warranted` `unwarranted` | it is known whether PM2 may be reset |
//! | `app:7` `app` `god:dead` `god` | looks see process 7 of PM2, which begins now; none; PM2's daemon dead; alive |
//! | `pause/1h` `resume` `resume!` | the operator pauses, resumes, resumes and clears the waits; `all.pause`: of all |
//! | `pause:x/1h` `over:x` | the same while command x runs; it has ended |
//! | `stall/1m` `work/9` `work!/9` | the watchdog gets no CPU for a minute; is at work for 9 s; and stopped meanwhile |
//! | `stop` `crash` `crash!` | SIGTERM; `kill -9`; the same before the pid of its command could be noted |
//! | `daemon` `tick` | the watchdog (a daemon stands at every beginning) ends and another takes up what is saved |
//! | `reboot/40` | the machine boots and is up for 40 s |
//! | `corrupt` `full` `room` | the state does not parse; the disk is full (`full:1`: after a last save); it has room |
//! | `gone` `there` | the hourly look at the rungs' executables |
//! | `reload:cooldown=5;rungs=1` `remove` `add` | the configuration is read again, changed |
//!
//! `b.F` is about target `b`; `F*3` is three times `F`; `remove/1` comes 1 s later, before anything else can happen.
//! What is expected stands token by token: `-` nothing, `down+restart#1` both (`restart#2.1` where the ladder has
//! rungs: attempt 2, rung 1), `cured#1` and `up#1`: healthy after one attempt, by it or not, `held:cooldown..90` waits
//! until 90 s after the script's beginning, `end` the watchdog has ended, and `@60` behind it: the token ends 60 s
//! after the beginning.

mod attempts;
mod changes;
mod counting;
mod gaps;
mod holds;
mod notify;
mod pauses;
mod pm2;
mod saving;
mod schedule;
mod script;
mod stage;
mod starting;
mod ticks;
mod warnings;

use script::{limits, ms, seconds};
use stage::Stage;

#[track_caller]
fn check(limits: &str, script: &str, expected: &str) {
    compare(limits, script, expected, |_, said| said);
}

#[track_caller]
fn check_conditions(limits: &str, script: &str, expected: &str) {
    compare(limits, script, expected, |stage, _| stage.target().status.as_str().into());
}

/// Why the due attempt at target `a` waits after each token, and until when.
#[track_caller]
fn check_waits(limits: &str, script: &str, expected: &str) {
    compare(limits, script, expected, |stage, _| match stage.target().waiting {
        None => "-".into(),
        Some(waiting) => {
            let until = waiting.until.map_or_else(String::new, |until| format!("..{}", stage.shown(until)));
            format!("{}{until}", waiting.why.as_str())
        }
    });
}

/// What people are told: `healed#1`, `down:limit#10`, `down#1/4h` the reminder after four hours, `up#1` and `cured#1`
/// after a `down`, `warn:flapping`, `calm:7` seven incidents were folded.
#[track_caller]
fn check_tells(limits: &str, script: &str, expected: &str) {
    compare(limits, script, expected, |stage, _| match &stage.tells[..] {
        [] => "-".into(),
        tells => tells.join("+"),
    });
}

#[track_caller]
fn check_looks(limits: &str, script: &str, expected: &str) {
    let mut stage = begin(limits, script);
    for token in script.split_whitespace() {
        stage.play(token);
    }
    let expected: Vec<String> = expected.split_whitespace().map(plain).collect();
    assert_eq!(stage.looks, expected, "\n{script}");
}

#[track_caller]
fn compare(limits: &str, script: &str, expected: &str, show: impl Fn(&Stage, String) -> String) {
    let mut stage = begin(limits, script);
    let tokens: Vec<&str> = script.split_whitespace().collect();
    let expected: Vec<String> = expected.split_whitespace().map(plain).collect();
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let said = stage.play(token);
        let shown = show(&stage, said);
        let is_timed = expected.get(index).is_none_or(|expected| expected.contains('@'));
        found.push(if is_timed { format!("{shown}@{}", seconds(stage.now)) } else { shown });
    }
    let line = |(index, token): (usize, &&str)| {
        let expected = expected.get(index).map_or("nothing", String::as_str);
        let mark = if expected == found[index] { " " } else { "!" };
        format!("{mark} {token:<24} {:<40} {expected}\n", found[index])
    };
    let table: String = tokens.iter().enumerate().map(line).collect();
    assert!(
        found == expected,
        "limits: {limits}\n  token                    found, and then what was expected\n{table}"
    );
}

fn begin(text: &str, script: &str) -> Stage {
    let mut stage = Stage::new(limits(text));
    if !["tick", "daemon", "reboot"].iter().any(|start| script.starts_with(start)) {
        stage.play("daemon");
    }
    stage
}

/// What is expected, with its points in time in seconds, as the stage shows them.
#[track_caller]
fn plain(expected: &str) -> String {
    let (said, at) = expected.split_once('@').map_or((expected, None), |(said, at)| (said, Some(at)));
    let parts = said.split('+').map(|part| match part.split_once("..") {
        Some((word, until)) => format!("{word}..{}", seconds(ms(until))),
        None => part.to_string(),
    });
    let said = parts.collect::<Vec<_>>().join("+");
    at.map_or(said.clone(), |at| format!("{said}@{}", seconds(ms(at))))
}

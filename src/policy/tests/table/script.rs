//! The notation of the tables: limits, spans, tokens, records and notifications as text.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::outcome::{Class, Exit};
use crate::policy::{DrillOutcome, Limits, Notification, OrderedBy, Precondition, Record};
use crate::time::{BootTime, millis};

/// One token of a script: `target.verb:detail/span`. All parts but the verb are optional.
pub(super) struct Token<'a> {
    pub(super) target: &'a str,
    pub(super) verb: &'a str,
    pub(super) detail: Option<&'a str>,
    pub(super) span: Option<i64>,
}

impl<'a> Token<'a> {
    pub(super) fn read(text: &'a str) -> Token<'a> {
        let (text, span) = text.split_once('/').map_or((text, None), |(text, span)| (text, Some(ms(span))));
        let (text, detail) = text.split_once(':').map_or((text, None), |(text, detail)| (text, Some(detail)));
        let (target, verb) = text.split_once('.').unwrap_or(("a", text));
        Token { target, verb, detail, span }
    }
}

/// The milliseconds of a span: `90` (seconds), `10m`, `1h` or `500ms`.
#[track_caller]
pub(super) fn ms(span: &str) -> i64 {
    if let Ok(seconds) = span.parse::<f64>() {
        return (seconds * 1000.0).round() as i64;
    }
    millis(humantime::parse_duration(span).unwrap_or_else(|error| panic!("`{span}`: {error}")))
}

#[track_caller]
pub(super) fn span(text: &str) -> Duration {
    Duration::from_millis(ms(text).try_into().expect("spans are positive"))
}

/// A point in time or a span in seconds, as the tables show it.
pub(super) fn seconds(ms: i64) -> String {
    if ms % 1000 == 0 { (ms / 1000).to_string() } else { (ms as f64 / 1000.0).to_string() }
}

/// The contract's defaults with the changes in `text`, such as `rungs=2 cooldown=10s | b depends_on=a`.
/// The first target is `a`.
#[track_caller]
pub(super) fn limits(text: &str) -> BTreeMap<String, Limits> {
    let mut all = BTreeMap::new();
    for part in text.split('|') {
        let mut name = "a";
        let mut limits = Limits::default();
        for word in part.split_whitespace() {
            match word.split_once('=') {
                Some((key, value)) => set(&mut limits, key, value),
                None => name = word,
            }
        }
        all.insert(name.to_string(), limits);
    }
    all
}

#[track_caller]
pub(super) fn set(limits: &mut Limits, key: &str, value: &str) {
    let number = || value.parse::<u32>().expect("a number");
    let words = || value.split(',').filter(|word| !word.is_empty());
    match key {
        "interval" => {
            if !limits.retry_in_tick {
                limits.retry_interval = span(value);
            }
            limits.interval = span(value);
        }
        "retry_interval" => (limits.retry_interval, limits.retry_in_tick) = (span(value), true),
        "timeout" => limits.timeout = span(value),
        "slow" => limits.slow = Some(span(value)).filter(|slow| !slow.is_zero()),
        "failure_threshold" => limits.failure_threshold = number(),
        "start_period" => limits.start_period = span(value),
        "rungs" => limits.rungs = value.parse().expect("a number"),
        "cooldown" => limits.cooldown = span(value),
        "max_cooldown" => limits.max_cooldown = span(value),
        "stable_after" => limits.stable_after = span(value),
        "max_restarts" => limits.max_restarts = number(),
        "restart_window" => limits.restart_window = span(value),
        "restart_on" => limits.restart_on = words().map(|word| word.parse::<Class>().expect("a class")).collect(),
        "depends_on" => limits.depends_on = words().map(str::to_string).collect(),
        "only_if" => limits.preconditions = if value == "yes" { vec![Precondition::OnlyIf] } else { Vec::new() },
        "stopped" => limits.preconditions.insert(0, Precondition::Stopped),
        "reset" => limits.reset = Some(value.parse::<usize>().expect("a number") - 1),
        "preconditions" => limits.preconditions = vec![Precondition::OnlyIf; value.parse().expect("a number")],
        "diagnose" => limits.diagnose = value == "yes",
        "reports_pm2" => limits.reports_pm2 = value == "yes",
        "dry_run" => limits.dry_run = value == "yes",
        "probe" => limits.probe_id = number().into(),
        "repair" => limits.repair_id = number().into(),
        _ => panic!("no limit is called `{key}`"),
    }
}

fn exit_name(exit: &Exit) -> &'static str {
    match exit {
        Exit::Exited(_) => "exited",
        Exit::Killed(_) => "killed",
        Exit::TimedOut => "timed_out",
        Exit::NotStarted(_) => "not_started",
        Exit::Lost => "lost",
    }
}

pub(super) fn target_names(target: String) -> Option<Vec<String>> {
    (target != "all").then(|| vec![target])
}

fn show_outcome(outcome: &DrillOutcome) -> String {
    match outcome {
        DrillOutcome::Healed { found_ms, healed_ms } => format!("healed:{found_ms}:{healed_ms}"),
        DrillOutcome::NotHealed { .. } => "not_healed".into(),
        DrillOutcome::WithoutRestart { was_failing } => format!("without_restart:{was_failing}"),
        DrillOutcome::HeldBack { why } => format!("held:{}", why.as_str()),
        DrillOutcome::TimedOut => "timed_out".into(),
        DrillOutcome::NotStopped { .. } => "not_stopped".into(),
        DrillOutcome::CutShort { why } => format!("{why:?}").to_lowercase(),
    }
}

pub(super) fn show_record(record: &Record, show_time: impl Fn(BootTime) -> String) -> String {
    let drill = if record.by() == Some(OrderedBy::Drill) { "~" } else { "" };
    let text = describe_record(record, show_time);
    format!("{drill}{text}")
}

fn describe_record(record: &Record, show_time: impl Fn(BootTime) -> String) -> String {
    match record {
        Record::Failing { .. } => "failing".into(),
        Record::Down { .. } => "down".into(),
        Record::Restart { attempt, .. } => format!("restart#{attempt}"),
        Record::RestartDone { exit, .. } => exit_name(exit).into(),
        Record::WouldRestart { attempt, .. } => format!("would#{attempt}"),
        Record::HeldBack { why, until: None, .. } => format!("held:{}", why.as_str()),
        Record::HeldBack { why, until: Some(until), .. } => format!("held:{}..{}", why.as_str(), show_time(*until)),
        Record::Up { cured: true, attempts, .. } => format!("cured#{attempts}"),
        Record::Up { attempts: 0, .. } => "up".into(),
        Record::Up { attempts, .. } => format!("up#{attempts}"),
        Record::Rested { why, incident: None } => format!("rested:{}", why.as_str()),
        Record::Rested { why, incident: Some(_) } => format!("rested:{}!", why.as_str()),
        Record::Woke { .. } => "woke".into(),
        Record::Warn { about, .. } => format!("warn:{}", about.as_str()),
        Record::Paused { until, .. } => format!("paused..{}", show_time(*until)),
        Record::Resumed { .. } => "resumed".into(),
        Record::DrillBegan { .. } => "began".into(),
        Record::DrillEnded { outcome, incident: None } => show_outcome(outcome),
        Record::DrillEnded { outcome, incident: Some(_) } => format!("{}!", show_outcome(outcome)),
        Record::Stalled { gap } => format!("stalled..{}", gap.as_secs_f64()),
    }
}

pub(super) fn show_notification(target: &str, notification: &Notification) -> String {
    let prefix = if target == "a" { String::new() } else { format!("{target}.") };
    let text = match notification {
        Notification::Healed(summary) => format!("healed#{}", summary.attempts),
        Notification::Down { summary, waiting, reminder } => {
            let reason = waiting.map_or_else(String::new, |waiting| format!(":{}", waiting.why.as_str()));
            let reminder = reminder.map_or_else(String::new, |hours| format!("/{hours}h"));
            format!("down{reason}#{}{reminder}", summary.attempts)
        }
        Notification::Up(summary) => format!("{}#{}", if summary.cured { "cured" } else { "up" }, summary.attempts),
        Notification::Warn { about, .. } => format!("warn:{}", about.as_str()),
        Notification::Folded { folded, .. } => format!("folded:{folded}"),
        Notification::Calm { folded, .. } => format!("calm:{folded}"),
    };
    prefix + &text
}

//! What happened to a target, told in a line: for the log, for cron's mail, for the demo.
//! It must tell every refusal with its reason and its end, and nothing that only code calls by its name.

use std::time::Duration;

use log::Level;

use crate::outcome::{Exit, RestReason};
use crate::policy::{HoldReason, Record, WarningKind};
use crate::time::{BootTime, ClockReading, HumanDuration, Latency, Zone};

#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a> {
    /// The target; empty: the watchdog itself.
    pub target: &'a str,
    pub command: &'a str,
    pub said: Option<&'a str>,
    pub depends_on: &'a [String],
    /// How often it is looked at; `None`: whenever cron makes a tick.
    pub interval: Option<Duration>,
    pub at: ClockReading,
    pub zone: Zone,
}

impl LogLine<'_> {
    fn time_of_day(&self, at: BootTime) -> String {
        let moved = self.at.wall_at(at);
        self.zone.with_day(self.zone.time_of_day(moved), moved, self.at.wall)
    }

    pub fn line(&self, record: &Record) -> (Level, String) {
        let (level, text) = self.text(record);
        match self.target {
            "" => (level, text),
            target => (level, format!("{target} {text}")),
        }
    }

    fn text(&self, record: &Record) -> (Level, String) {
        match record {
            Record::Failing { class, detail, threshold } => {
                (Level::Warn, format!("failing, 1 of {threshold}: {}", class.with_detail(detail)))
            }
            Record::Down { failures, class, detail, incident, last_healthy } => {
                let last = match last_healthy {
                    Some(at) => format!("Last healthy look {}", self.time_of_day(*at)),
                    None => "Never seen healthy".into(),
                };
                let bad = format!("{failures} of {failures}, the last: {}", class.with_detail(detail));
                (Level::Error, format!("down: {bad}. {last}. Incident {incident}"))
            }
            Record::Restart { attempt, spent, max, window, rung, .. } => {
                let step = if *rung > 0 { format!(", command {}", rung + 1) } else { String::new() };
                let budget = format!("{spent} of at most {max} in {}", HumanDuration(*window));
                (Level::Warn, format!("restart {attempt}{step} ({budget}): {}", self.command))
            }
            Record::RestartDone { attempt, ending, took, start_period, .. } => {
                self.restart_done(*attempt, ending, HumanDuration(*took), HumanDuration(*start_period))
            }
            Record::WouldRestart { attempt, .. } => {
                (Level::Warn, format!("would now be restarted (dry run), restart {attempt}: {}", self.command))
            }
            Record::HeldBack { why, until, .. } => (Level::Warn, self.held_back(*why, *until)),
            Record::Up { down, attempts, cured, detail, latency, .. } => {
                let healthy = format!("healthy: {detail} in {}. Down {down}", Latency(*latency));
                (Level::Info, format!("{healthy}. {}", cure(*attempts, *cured)))
            }
            Record::Rested { why, incident } => {
                let ends = incident.as_ref().map_or_else(String::new, |id| format!(". Incident {id} ends with that"));
                (Level::Info, format!("{}: left alone until it runs again{ends}", at_rest(*why)))
            }
            Record::Woke { why } => (Level::Info, format!("not at rest any more ({})", at_rest(*why))),
            Record::Warn { about: WarningKind::CannotRepair, detail } => {
                (Level::Error, format!("cannot be repaired: {detail}"))
            }
            Record::Warn { about, detail } => (Level::Warn, format!("{}: {detail}", about.as_str())),
            Record::Paused { until } => (Level::Info, format!("paused until {}", self.time_of_day(*until))),
            Record::Resumed { .. } => (Level::Info, "no longer paused".into()),
            Record::Stalled { gap } => {
                let text = format!("the watchdog itself was held up for {}", HumanDuration(*gap));
                (Level::Warn, format!("{text} (sleep, or no CPU): failures counted before do not count any more"))
            }
        }
    }

    fn restart_done(
        &self,
        attempt: u32,
        ending: &Exit,
        took: HumanDuration,
        start_period: HumanDuration,
    ) -> (Level, String) {
        let said = self.said.map_or_else(String::new, |said| format!(", saying: {said}"));
        match ending {
            Exit::Exited(0) => {
                let then = match start_period {
                    HumanDuration(Duration::ZERO) => "the next look tells whether it helped".into(),
                    _ => format!("looking every second, up to {start_period}, whether it helped"),
                };
                (Level::Info, format!("that exited 0 after {took}; {then}"))
            }
            Exit::Exited(code) => (Level::Warn, format!("that exited {code} after {took}{said}")),
            Exit::Killed(signal) => (Level::Warn, format!("that was killed by signal {signal} after {took}{said}")),
            Exit::TimedOut => (Level::Warn, format!("that did not end in {took} and was killed{said}")),
            Exit::NotStarted(reason) => (Level::Error, format!("that could not be started: {reason}{said}")),
            // Most often of an earlier watchdog, so that there is no line before this one to point to.
            Exit::Lost => {
                let text =
                    format!("restart {attempt} was lost from sight, as when the watchdog ends before its command");
                (Level::Warn, format!("{text}; how that went is not known"))
            }
        }
    }

    fn held_back(&self, why: HoldReason, until: Option<BootTime>) -> String {
        let still = match self.interval {
            Some(interval) => format!("Still looking every {}", HumanDuration(interval)),
            None => "Still looking at every tick".into(),
        };
        let reason = match (why, until) {
            (HoldReason::Cooldown, None) => UNSAVED.into(),
            _ => reason(why, self.depends_on),
        };
        let end = if reason.ends_with('?') { "" } else { "." };
        let until = until.map_or_else(String::new, |at| format!(" until {}", self.time_of_day(at)));
        format!("not restarted{until}: {reason}{end} {still}")
    }
}

/// Why there is a cooldown without an end, in words: that of a tick with a disk that takes nothing.
pub const UNSAVED: &str = "nothing can be saved, so the next tick would not know of the restart";

pub fn reason(why: HoldReason, depends_on: &[String]) -> String {
    match why {
        HoldReason::Paused => "paused by the operator".into(),
        HoldReason::NeverHealthy => "never seen healthy: is the address right?".into(),
        HoldReason::RestartOn => "a restart does not cure this (restart_on)".into(),
        HoldReason::Limit => "the limit of restarts (max_restarts) is reached".into(),
        HoldReason::Cooldown => "it is too soon for the next try (cooldown)".into(),
        HoldReason::DependsOn => format!("what it depends on is in trouble ({})", depends_on.join(", ")),
        HoldReason::Busy => "another target is being restarted".into(),
        HoldReason::Stopped => "it is deliberately at rest in PM2".into(),
        HoldReason::OnlyIf => "only_if says no".into(),
    }
}

pub fn at_rest(why: RestReason) -> &'static str {
    match why {
        RestReason::Operator => "the operator stopped it in PM2 (pm2 stop)",
        RestReason::Deleted => "the operator deleted it from PM2 (pm2 delete)",
        RestReason::Schedule => "it has done its work, and PM2 starts it when it is due (cron_restart, autorestart)",
        RestReason::Exit => "it ended with a code that is to stop it (stop_exit_codes)",
    }
}

pub fn cure(attempts: u32, cured: bool) -> String {
    match (attempts, cured) {
        (0, _) => "It came back by itself".into(),
        (1, true) => "Cured by the restart".into(),
        (_, true) => format!("Cured by the last of {attempts} restarts"),
        (1, false) => "It came back after the start period of restart 1, so that was probably not it".into(),
        (_, false) => {
            format!(
                "It came back after the start period of the last of {attempts} restarts, so that was probably not it"
            )
        }
    }
}

//! What comes of a restart that the operator ordered, line by line: for the log and for `watchdog restart`.
//! It must never call a restart a success before a later probe was healthy.

use std::time::Duration;

use log::Level;

use crate::outcome::Exit;
use crate::policy::HoldReason;
use crate::policy::{FailedCommand, ManualProgress, RefusedRestart, RestartRefusal, TargetState};
use crate::terminal::escaped;
use crate::time::{BootTime, ClockReading, HumanDuration, Latency, Zone};
use crate::view::log_line::{RestartLimit, describe_hold};

#[derive(Clone, Copy, Debug)]
pub struct OrderedRestart<'a> {
    pub target: &'a str,
    pub id: &'a str,
    /// Those of the ladder; none if the configuration is not at hand.
    pub commands: &'a [String],
    pub limit: Option<RestartLimit>,
    pub at: ClockReading,
    pub zone: Zone,
}

impl OrderedRestart<'_> {
    /// How it ended; `None` while it goes on or was not noticed yet.
    pub fn outcome(&self, state: &TargetState) -> Option<(Level, String)> {
        if let Some(refused) = state.refused.as_ref().filter(|refused| refused.id == self.id) {
            return Some((Level::Warn, format!("{} {}", self.target, self.refusal(refused))));
        }
        let manual = state.manual.as_ref().filter(|manual| manual.id == self.id)?;
        let (level, text) = match &manual.progress {
            ManualProgress::Running { .. } | ManualProgress::Starting { .. } => return None,
            ManualProgress::NotStarted { why } => {
                (Level::Error, format!("not restarted: the restart command could not be started: {}", escaped(why)))
            }
            ManualProgress::Healthy { exit, detail, latency_ms, .. } => {
                let latency = Latency(Duration::from_millis(*latency_ms));
                (
                    Level::Info,
                    format!("healthy after the operator's restart: {} in {latency}{}", escaped(detail), but(exit)),
                )
            }
            ManualProgress::NotHealthy { exit, detail, .. } => {
                (Level::Error, format!("not healthy after the operator's restart: {}{}", escaped(detail), but(exit)))
            }
        };
        Some((level, format!("{} {text}", self.target)))
    }

    /// A line for each step so far, without the outcome. A later state has the same lines and more, except that of
    /// several commands that failed only the last is named.
    pub fn steps(&self, state: &TargetState, start_period: Option<Duration>) -> Vec<String> {
        let Some(manual) = state.manual.as_ref().filter(|manual| manual.id == self.id) else { return Vec::new() };
        let first = match manual.first {
            0 => format!("restart ordered{}", self.command(0)),
            rung => format!("restart ordered, beginning with command {}{}", rung + 1, self.command(rung)),
        };
        let second = match &manual.progress {
            ManualProgress::Running { failed: None, .. } => None,
            ManualProgress::Running { rung, failed: Some(FailedCommand { rung: last, exit }) } if rung == last => {
                Some(format!("command {} {}", last + 1, describe_exit(exit)))
            }
            ManualProgress::Running { rung, failed: Some(FailedCommand { rung: last, exit }) } => {
                let next = format!("now command {}{}", rung + 1, self.command(*rung));
                Some(format!("command {} {}; {next}", last + 1, describe_exit(exit)))
            }
            ManualProgress::Starting { exit, .. }
            | ManualProgress::Healthy { exit, .. }
            | ManualProgress::NotHealthy { exit, .. } => {
                let limit = start_period.filter(|period| !period.is_zero());
                let limit = limit.map_or_else(String::new, |period| format!(" for up to {}", HumanDuration(period)));
                Some(format!("the restart command {}; probing{limit}", describe_exit(exit)))
            }
            ManualProgress::NotStarted { .. } => None,
        };
        [first].into_iter().chain(second).map(|text| format!("{} {text}", self.target)).collect()
    }

    fn command(&self, rung: usize) -> String {
        self.commands.get(rung).map_or_else(String::new, |command| format!(": {}", escaped(command)))
    }

    fn refusal(&self, RefusedRestart { why, until, .. }: &RefusedRestart) -> String {
        let until = until.map_or_else(String::new, |at| format!(" before {}", self.time_of_day(at)));
        let why = match why {
            RestartRefusal::WatchOnly => "it has no restart command, so it is only watched".into(),
            RestartRefusal::DryRun => "dry_run is set, so no restart command runs".into(),
            RestartRefusal::Limit => describe_hold(HoldReason::Limit, &[], self.limit),
            RestartRefusal::Busy => "a restart is being made, of it or of another target".into(),
            RestartRefusal::ResetTooRecent => "it is only repaired by a reset of PM2, at most once an hour".into(),
            RestartRefusal::Unsaved => "the state cannot be saved, so the restart would not be counted".into(),
            RestartRefusal::Stopping => "the watchdog is about to end".into(),
        };
        format!("not restarted{until}: {why}")
    }

    fn time_of_day(&self, at: BootTime) -> String {
        let wall = self.at.wall_at(at);
        self.zone.with_day(self.zone.time_of_day(wall), wall, self.at.wall)
    }
}

pub(super) fn describe_exit(exit: &Exit) -> String {
    match exit {
        Exit::Exited(code) => format!("exited {code}"),
        Exit::Killed(signal) => format!("was killed by signal {signal}"),
        Exit::TimedOut => "did not end in time and was killed".into(),
        Exit::NotStarted(why) => format!("could not be started: {}", escaped(why)),
        Exit::Lost => "has an unknown result, because the watchdog ended while it ran".into(),
    }
}

/// A command that failed, although the target may be healthy.
fn but(exit: &Exit) -> String {
    match exit {
        Exit::Exited(0) => String::new(),
        exit => format!(" (the restart command {})", describe_exit(exit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ManualRestart;
    use crate::time::WallTime;

    fn with_progress(first: usize, progress: ManualProgress) -> TargetState {
        TargetState { manual: Some(ManualRestart { id: "1".into(), first, progress }), ..TargetState::default() }
    }

    #[track_caller]
    fn check(state: &TargetState, steps: &[&str], outcome: Option<&str>) {
        let commands = ["./a.sh".to_owned(), "./b.sh\u{1b}".to_owned()];
        let limit = Some(RestartLimit { max: 10, window: Duration::from_secs(3_600) });
        let wall = WallTime::parse_rfc3339("2026-11-22T03:13:14.000Z").expect("a time");
        let at = ClockReading { now: BootTime::from_ms(0), wall };
        let restart = OrderedRestart { target: "sav", id: "1", commands: &commands, limit, at, zone: Zone::UTC };
        assert_eq!(restart.steps(state, Some(Duration::from_secs(30))), steps);
        assert_eq!(restart.outcome(state).map(|(_, line)| line).as_deref(), outcome);
        let other = OrderedRestart { id: "2", ..restart };
        assert_eq!((other.steps(state, None).len(), other.outcome(state)), (0, None));
    }

    #[test]
    fn each_step_and_outcome_is_a_line() {
        let running = |first, rung, failed| with_progress(first, ManualProgress::Running { rung, failed });
        let first = "sav restart ordered: ./a.sh";
        check(&running(0, 0, None), &[first], None);
        check(&running(1, 1, None), &["sav restart ordered, beginning with command 2: ./b.sh\\u{1b}"], None);
        let failed = Some(FailedCommand { rung: 0, exit: Exit::Exited(3) });
        check(&running(0, 0, failed.clone()), &[first, "sav command 1 exited 3"], None);
        check(&running(0, 1, failed), &[first, "sav command 1 exited 3; now command 2: ./b.sh\\u{1b}"], None);
        let (exit, since, failure) = (Exit::Exited(0), BootTime::from_ms(0), None);
        let starting = ManualProgress::Starting { rung: 0, exit: exit.clone(), since, failure };
        let probing = "sav the restart command exited 0; probing for up to 30 s";
        check(&with_progress(0, starting), &[first, probing], None);
        let healthy =
            |exit| with_progress(0, ManualProgress::Healthy { rung: 0, exit, detail: "200".into(), latency_ms: 4 });
        check(&healthy(exit.clone()), &[first, probing], Some("sav healthy after the operator's restart: 200 in 4 ms"));
        check(
            &healthy(Exit::Exited(3)),
            &[first, "sav the restart command exited 3; probing for up to 30 s"],
            Some("sav healthy after the operator's restart: 200 in 4 ms (the restart command exited 3)"),
        );
        let not_healthy = ManualProgress::NotHealthy { rung: 0, exit, detail: "status 503".into() };
        let outcome = "sav not healthy after the operator's restart: status 503";
        check(&with_progress(0, not_healthy), &[first, probing], Some(outcome));
        check(
            &with_progress(0, ManualProgress::NotStarted { why: "no such file".into() }),
            &[first],
            Some("sav not restarted: the restart command could not be started: no such file"),
        );
    }

    #[test]
    fn a_refusal_has_its_reason_and_its_end() {
        let refused = |why, until: Option<i64>| TargetState {
            refused: Some(RefusedRestart { id: "1".into(), why, until: until.map(BootTime::from_ms) }),
            ..TargetState::default()
        };
        check(
            &refused(RestartRefusal::Limit, Some(60_000)),
            &[],
            Some("sav not restarted before 03:14:14: 10 restarts in the last hour is the limit"),
        );
        check(
            &refused(RestartRefusal::Busy, None),
            &[],
            Some("sav not restarted: a restart is being made, of it or of another target"),
        );
    }
}

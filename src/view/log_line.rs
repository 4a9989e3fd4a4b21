//! One line for each change of a target's state: for the log and for cron's mail.
//! It must give the reason and the end of every refusal, and no name that only code uses.

use std::time::Duration;

use log::Level;

use crate::outcome::{Exit, RestReason};
use crate::policy::{DrillInterruption, DrillOutcome, HoldReason, Limits, OrderedBy, Record, WarningKind};
use crate::terminal::escaped;
use crate::time::{BootTime, ClockReading, HumanDuration, Latency, Zone};

#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a> {
    /// Empty for a line about the watchdog itself.
    pub target: &'a str,
    pub command: &'a str,
    /// The last line that the restart command printed.
    pub output_line: Option<&'a str>,
    pub depends_on: &'a [String],
    pub limit: Option<RestartLimit>,
    /// The number of the latest restart, as the line that announced it had it.
    pub attempt: Option<u32>,
    /// `None` where cron's ticks decide when to probe.
    pub interval: Option<Duration>,
    pub at: ClockReading,
    pub zone: Zone,
}

#[derive(Clone, Copy, Debug)]
pub struct RestartLimit {
    pub max: u32,
    pub window: Duration,
}

impl RestartLimit {
    pub fn of(limits: &Limits) -> RestartLimit {
        RestartLimit { max: limits.max_restarts, window: limits.restart_window }
    }
}

impl LogLine<'_> {
    pub fn line(&self, record: &Record) -> (Level, String) {
        let (level, text) = self.text(record);
        let text = if record.by() == Some(OrderedBy::Drill) { format!("drill: {text}") } else { text };
        match self.target {
            "" => (level, text),
            target => (level, format!("{target} {text}")),
        }
    }

    /// A line without the target that it begins with.
    pub fn message<'l>(&self, line: &'l str) -> &'l str {
        let rest = line.strip_prefix(self.target).and_then(|rest| rest.strip_prefix(' '));
        rest.filter(|_| !self.target.is_empty()).unwrap_or(line)
    }

    fn text(&self, record: &Record) -> (Level, String) {
        match record {
            Record::Failing { class, detail, threshold, .. } => {
                let failures = if *threshold == 1 { "failure" } else { "failures" };
                (Level::Warn, format!("failing, 1 of {threshold} {failures}: {}", class.with_detail(detail)))
            }
            Record::Down { failures, class, detail, incident, last_healthy, .. } => {
                let last = match last_healthy {
                    Some(at) => format!("Last healthy probe {}", self.time_of_day(*at)),
                    None => "Never seen healthy".into(),
                };
                let failed = format!("{failures} of {failures}, the last: {}", class.with_detail(detail));
                (Level::Error, format!("down: {failed}. {last}. Incident {incident}"))
            }
            Record::Restart { attempt, spent, max, window, rung, by, .. } => {
                let step = if *rung > 0 { format!(", command {}", rung + 1) } else { String::new() };
                // The restarts of an earlier incident count for the limit too.
                let number = if u32::try_from(*spent) == Ok(*attempt) { String::new() } else { format!("{spent} ") };
                let limit = format!("{number}of {max} {}", per(*window));
                let ordered = by.map_or("", |by| match by {
                    OrderedBy::Operator => ", ordered by the operator",
                    OrderedBy::Drill => "",
                });
                (Level::Warn, format!("restart {attempt}{step} ({limit}){ordered}: {}", self.command))
            }
            Record::RestartDone { attempt, exit: ending, duration: took, start_period, .. } => {
                self.restart_done(*attempt, ending, HumanDuration(*took), *start_period)
            }
            Record::WouldRestart { attempt, .. } => {
                (Level::Warn, format!("dry run: restart {attempt} would run now: {}", self.command))
            }
            Record::HeldBack { why, until, .. } => (Level::Warn, self.held_back(*why, *until)),
            Record::Up { down, attempts, cured, detail, latency, .. } => {
                let healthy = format!("healthy: {detail} in {}. Down {down}", Latency(*latency));
                (Level::Info, format!("{healthy}. {}", self.recovery(*attempts, *cured)))
            }
            Record::Rested { why, incident } => {
                let ends = incident.as_ref().map_or_else(String::new, |id| format!(". Incident {id} is closed"));
                (Level::Info, format!("{}; not restarted until it runs again{ends}", describe_rest(*why)))
            }
            Record::Woke { why } => (Level::Info, format!("no longer at rest; it was {}", describe_rest(*why))),
            Record::Warn { about: WarningKind::CannotRepair, detail } => {
                (Level::Error, format!("cannot be repaired: {detail}"))
            }
            Record::Warn { about, detail } => (Level::Warn, format!("{}: {detail}", about.as_str())),
            Record::Paused { until, command: None } => {
                (Level::Info, format!("paused until {}", self.time_of_day(*until)))
            }
            Record::Paused { until, command: Some(command) } => {
                (Level::Info, format!("paused while `{command}` runs, until {} at most", self.time_of_day(*until)))
            }
            Record::Resumed { .. } => (Level::Info, "no longer paused".into()),
            Record::Stalled { gap } => {
                let text = format!("the watchdog did not run for {}", HumanDuration(*gap));
                (Level::Warn, format!("{text} (machine asleep, or no CPU time); earlier failures no longer count"))
            }
            Record::DrillBegan { pids, until } => {
                let (pids, until) = (list_pids(pids), self.time_of_day(*until));
                let task = "the watchdog must find and repair that by itself";
                (Level::Warn, format!("{pids} is stopped now (SIGSTOP); {task}, until {until} at most"))
            }
            Record::DrillEnded { outcome, .. } => {
                let is_healed = matches!(outcome, DrillOutcome::Healed { .. });
                let level = if is_healed { Level::Info } else { Level::Warn };
                (level, format!("ended: {}", describe_drill(outcome)))
            }
        }
    }

    fn restart_done(
        &self,
        attempt: u32,
        exit: &Exit,
        duration: HumanDuration,
        start_period: Duration,
    ) -> (Level, String) {
        let output = self.output_line.map_or_else(String::new, |line| format!("; last line of its output: {line}"));
        let (level, result) = match exit {
            Exit::Exited(0) if start_period.is_zero() => {
                let next = "the next probe shows whether it helped";
                (Level::Info, format!("exited 0 in {duration}; {next}"))
            }
            Exit::Exited(0) => {
                let start_period = HumanDuration(start_period);
                (Level::Info, format!("exited 0 in {duration}; probing every second for up to {start_period}"))
            }
            Exit::Exited(code) => (Level::Warn, format!("exited {code} in {duration}{output}")),
            Exit::Killed(signal) => (Level::Warn, format!("was killed by signal {signal} after {duration}{output}")),
            Exit::TimedOut => (Level::Warn, format!("did not end within {duration} and was killed{output}")),
            Exit::NotStarted(reason) => (Level::Error, format!("could not be started: {reason}{output}")),
            // Most often the log of another watchdog announced this restart, so the line names it.
            Exit::Lost => {
                return (Level::Warn, format!("the watchdog ended during restart {attempt}; its result is unknown"));
            }
        };
        (level, format!("restart command {result}"))
    }

    fn held_back(&self, why: HoldReason, until: Option<BootTime>) -> String {
        let probing = match self.interval {
            Some(interval) => format!("Probing goes on every {}", HumanDuration(interval)),
            None => "Probing goes on at every tick".into(),
        };
        let reason = match (why, until) {
            (HoldReason::Cooldown, None) => UNSAVED.into(),
            _ => describe_hold(why, self.depends_on, self.limit),
        };
        let end = if reason.ends_with('?') { "" } else { "." };
        let until = until.map_or_else(String::new, |at| format!(" until {}", self.time_of_day(at)));
        format!("not restarted{until}: {reason}{end} {probing}")
    }

    fn recovery(&self, attempts: u32, cured: bool) -> String {
        match (attempts, cured, self.attempt) {
            (0, ..) => "It recovered without a restart".into(),
            (_, true, Some(attempt)) => format!("Restart {attempt} helped"),
            (_, true, None) => "The last restart helped".into(),
            (_, false, _) => {
                let restart =
                    self.attempt.map_or_else(|| "the last restart".into(), |number| format!("restart {number}"));
                format!("It recovered after the start period of {restart}, so probably not because of it")
            }
        }
    }

    fn time_of_day(&self, at: BootTime) -> String {
        let wall = self.at.wall_at(at);
        self.zone.with_day(self.zone.time_of_day(wall), wall, self.at.wall)
    }
}

/// `an hour`, `in 30 min`
fn per(window: Duration) -> String {
    match window.as_secs() {
        3_600 => "an hour".into(),
        86_400 => "a day".into(),
        _ => format!("in {}", HumanDuration(window)),
    }
}

/// The reason for a cooldown that has no known end: a tick whose state cannot be saved.
pub const UNSAVED: &str = "the state cannot be saved, so the next tick would not know about the restart";

/// Why a restart that is due is not made. `limit`, where it is known, makes the reason more exact.
pub fn describe_hold(why: HoldReason, depends_on: &[String], limit: Option<RestartLimit>) -> String {
    match why {
        HoldReason::Paused => "paused by the operator".into(),
        HoldReason::NeverHealthy => "never seen healthy: is the address right?".into(),
        HoldReason::RestartOn => "restart_on does not include this failure class".into(),
        HoldReason::Limit => match limit {
            Some(RestartLimit { max, window }) => {
                let restarts = if max == 1 { "restart" } else { "restarts" };
                let window = match window.as_secs() {
                    3_600 => "hour".into(),
                    86_400 => "day".into(),
                    _ => HumanDuration(window).to_string(),
                };
                format!("{max} {restarts} in the last {window} is the limit")
            }
            None => "its limit of restarts (max_restarts) is reached".into(),
        },
        HoldReason::Cooldown => "cooldown between restarts".into(),
        HoldReason::DependsOn => match depends_on {
            [one] => format!("it depends on {one}, which is in trouble"),
            all => format!("it depends on {}, and at least one of them is in trouble", all.join(", ")),
        },
        HoldReason::Busy => "another target is being restarted".into(),
        HoldReason::Stopped => "it was stopped on purpose".into(),
        HoldReason::OnlyIf => "its only_if command did not allow it".into(),
    }
}

/// The state of a target that is deliberately at rest.
pub fn describe_rest(why: RestReason) -> &'static str {
    match why {
        RestReason::Operator => "stopped by the operator (pm2 stop, systemctl stop)",
        RestReason::Deleted => "deleted from PM2 by the operator (pm2 delete)",
        RestReason::Schedule => "at rest after finishing its work; it is started again when due",
        RestReason::Exit => "stopped for its exit code (stop_exit_codes, RestartPreventExitStatus=)",
    }
}

/// What came of a drill: `found in 1 min 1 s, healed 3 s later`
pub fn describe_drill(outcome: &DrillOutcome) -> String {
    let span = |ms: &u64| HumanDuration(Duration::from_millis(*ms));
    match outcome {
        DrillOutcome::Healed { found_ms, healed_ms } => {
            format!("found in {}, healed {} later", span(found_ms), span(healed_ms))
        }
        DrillOutcome::NotHealed { detail } => format!("the repair did not work: {}", escaped(detail)),
        DrillOutcome::WithoutRestart { was_failing: false } => {
            "it still answered: what answers is another process, as behind a wrapper such as npm".into()
        }
        DrillOutcome::WithoutRestart { was_failing: true } => {
            "it became healthy without a restart: something else continued or replaced its process".into()
        }
        DrillOutcome::HeldBack { why } => format!("found, but not restarted: {}", describe_hold(*why, &[], None)),
        DrillOutcome::TimedOut => "it was not found and repaired in time".into(),
        DrillOutcome::NotStopped { why } => format!("not begun: {}", escaped(why)),
        DrillOutcome::CutShort { why } => format!("cut short: {}", describe_interruption(*why)),
    }
}

/// `pid 7`, `pids 7, 8`
pub fn list_pids(pids: &[u32]) -> String {
    let all: Vec<String> = pids.iter().map(u32::to_string).collect();
    format!("{} {}", if pids.len() == 1 { "pid" } else { "pids" }, all.join(", "))
}

pub fn describe_interruption(by: DrillInterruption) -> &'static str {
    match by {
        DrillInterruption::Cancelled => "cancelled by the operator",
        DrillInterruption::Restart => "the operator ordered a restart",
        DrillInterruption::Paused => "the operator paused it",
        DrillInterruption::Rested => "it was stopped in PM2 on purpose",
        DrillInterruption::Reloaded => "the configuration was read again",
        DrillInterruption::Stalled => "the watchdog itself did not run for a while",
        DrillInterruption::Stopping => "the watchdog was stopped",
        DrillInterruption::Lost => "the watchdog was killed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Class, Downtime};
    use crate::time::WallTime;

    fn at(seconds: i64) -> BootTime {
        BootTime::from_ms(1_000_000 + seconds * 1_000)
    }

    #[track_caller]
    fn check(record: &Record, expected: &str) {
        let line = LogLine {
            target: "sav",
            command: "./restart.sh",
            output_line: Some("no such app"),
            depends_on: &["mailer".to_owned()],
            limit: Some(RestartLimit { max: 10, window: Duration::from_secs(3_600) }),
            attempt: Some(2),
            interval: Some(Duration::from_secs(30)),
            at: ClockReading { now: at(0), wall: WallTime::parse_rfc3339("2026-11-22T03:13:10.000Z").expect("a time") },
            zone: Zone::UTC,
        };
        assert_eq!(line.line(record).1, format!("sav {expected}"));
    }

    fn restart(attempt: u32, rung: usize, spent: usize, window: u64) -> Record {
        let (incident, window) = (Some("1122-0313".into()), Duration::from_secs(window));
        Record::Restart { attempt, rung, incident, by: None, spent, max: 10, window }
    }

    fn restart_done(ending: Exit, start_period: u64) -> Record {
        let (took, start_period) = (Duration::from_millis(2_100), Duration::from_secs(start_period));
        Record::RestartDone {
            attempt: 1,
            rung: 0,
            exit: ending,
            duration: took,
            incident: Some("1122-0313".into()),
            folder: "1122-0313".into(),
            start_period,
            by: None,
        }
    }

    #[test]
    fn an_incident_is_logged_line_by_line() {
        let detail = String::from("connected in 0.1 ms, then no byte for 10 s");
        check(
            &Record::Failing { class: Class::Timeout, detail: detail.clone(), threshold: 3, by: None },
            "failing, 1 of 3 failures: timeout; connected in 0.1 ms, then no byte for 10 s",
        );
        let (incident, last_healthy) = (String::from("1122-0313"), Some(at(-100)));
        check(
            &Record::Down { failures: 3, class: Class::Timeout, detail, incident, last_healthy, by: None },
            "down: 3 of 3, the last: timeout; connected in 0.1 ms, then no byte for 10 s. Last healthy probe 03:11:30. \
             Incident 1122-0313",
        );
        check(&restart(1, 0, 1, 3_600), "restart 1 (of 10 an hour): ./restart.sh");
        check(&restart(2, 1, 4, 1_800), "restart 2, command 2 (4 of 10 in 30 min): ./restart.sh");
        let Record::Restart { attempt, rung, spent, max, window, .. } = restart(1, 0, 1, 3_600) else {
            panic!("a restart")
        };
        let by = Some(OrderedBy::Operator);
        check(
            &Record::Restart { attempt, rung, incident: None, by, spent, max, window },
            "restart 1 (of 10 an hour), ordered by the operator: ./restart.sh",
        );
        let up = |attempts, cured| Record::Up {
            incident: "1122-0313".into(),
            down: Downtime::AtMost(Duration::from_secs(94)),
            attempts,
            cured,
            detail: "200".into(),
            latency: Duration::from_millis(4),
            by: None,
        };
        check(&up(1, true), "healthy: 200 in 4 ms. Down at most 1 min 34 s. Restart 2 helped");
        check(&up(0, false), "healthy: 200 in 4 ms. Down at most 1 min 34 s. It recovered without a restart");
        check(
            &up(1, false),
            "healthy: 200 in 4 ms. Down at most 1 min 34 s. It recovered after the start period of restart 2, so \
             probably not because of it",
        );
    }

    #[test]
    fn the_end_of_a_restart_command_is_named() {
        check(
            &restart_done(Exit::Exited(0), 30),
            "restart command exited 0 in 2.1 s; probing every second for up to 30 s",
        );
        check(
            &restart_done(Exit::Exited(0), 0),
            "restart command exited 0 in 2.1 s; the next probe shows whether it helped",
        );
        let output = "last line of its output: no such app";
        check(&restart_done(Exit::Exited(3), 30), &format!("restart command exited 3 in 2.1 s; {output}"));
        check(
            &restart_done(Exit::TimedOut, 30),
            &format!("restart command did not end within 2.1 s and was killed; {output}"),
        );
        check(&restart_done(Exit::Lost, 30), "the watchdog ended during restart 1; its result is unknown");
    }

    #[test]
    fn a_refusal_has_its_reason_and_its_end() {
        let held = |why, until| Record::HeldBack { why, until, incident: "1122-0313".into(), by: None };
        check(
            &held(HoldReason::Limit, Some(at(1_672))),
            "not restarted until 03:41:02: 10 restarts in the last hour is the limit. Probing goes on every 30 s",
        );
        check(
            &held(HoldReason::NeverHealthy, None),
            "not restarted: never seen healthy: is the address right? Probing goes on every 30 s",
        );
        check(
            &held(HoldReason::DependsOn, None),
            "not restarted: it depends on mailer, which is in trouble. Probing goes on every 30 s",
        );
        check(&held(HoldReason::Cooldown, None), &format!("not restarted: {UNSAVED}. Probing goes on every 30 s"));
        check(
            &Record::Rested { why: RestReason::Operator, incident: Some("1122-0313".into()) },
            "stopped by the operator (pm2 stop, systemctl stop); not restarted until it runs again. Incident \
             1122-0313 is closed",
        );
        check(
            &Record::Woke { why: RestReason::Operator },
            "no longer at rest; it was stopped by the operator (pm2 stop, systemctl stop)",
        );
    }
}

//! The texts of the messages: the first line must be enough on a lock screen, the rest says what to do next.
//! It must never let text from outside act on a terminal or begin a line of its own.

use std::time::Duration;

use crate::outcome::{Exit, NotificationKind};
use crate::policy::{HoldReason, IncidentSummary, Notification, OrderedBy, TriedCommand, Waiting, WarningKind};
use crate::terminal::escaped;
use crate::time::{BootTime, ClockReading, HumanDuration, WallTime, Zone, round_age};
use crate::view::log_line::{RestartLimit, UNSAVED, describe_hold};
use crate::view::pattern::ordinal;
use crate::view::sentence;

#[derive(Clone, Copy, Debug)]
pub struct MessageFacts<'a> {
    pub target: &'a str,
    pub host: &'a str,
    pub commands: &'a [String],
    pub depends_on: &'a [String],
    pub limit: Option<RestartLimit>,
    pub cooldown_until: Option<BootTime>,
    /// The last line of the target's own log, where one is known.
    pub last_log_line: Option<&'a str>,
    /// How often this has happened lately, and when.
    pub recurrence: Option<&'a str>,
    pub at: ClockReading,
    pub zone: Zone,
}

pub fn kind(notification: &Notification) -> NotificationKind {
    match notification {
        Notification::Healed(_) => NotificationKind::Healed,
        Notification::Down { .. } => NotificationKind::Down,
        Notification::Up(_) => NotificationKind::Up,
        Notification::Warn { .. } | Notification::Folded { .. } | Notification::Calm { .. } => NotificationKind::Warn,
    }
}

impl MessageFacts<'_> {
    pub fn text(&self, notification: &Notification) -> String {
        let who = self.target_on_host();
        match notification {
            Notification::Healed(incident) => {
                let down = incident.downtime(self.at.now);
                let again = self.recurrence.map_or_else(String::new, |again| format!("{again}."));
                let from = incident.down_since.map_or_else(String::new, |from| self.outage_times(from));
                let rest = [cause(incident), self.repair(incident), from, again, "Nothing to do now.".into()];
                let restart = if is_by_operator(incident) { "a restart by the operator" } else { "a restart" };
                compose(&format!("[healed] {who}: down {down}, {restart} helped"), &rest)
            }
            Notification::Down { summary: story, waiting, reminder } => self.down(story, *waiting, *reminder),
            Notification::Up(incident) => {
                let (back, down) = (self.hour_minute(self.at.now), incident.downtime(self.at.now));
                let recovery = self.recovery(incident);
                compose(&format!("[up] {who}: back at {back} after {down}, {recovery}."), &[])
            }
            Notification::Warn { about, detail } => {
                let detail = escaped(detail);
                compose(&format!("[warn] {who}: {}: {detail}", warning(*about)), &[advice(*about).into()])
            }
            Notification::Folded { since, folded } => {
                let first =
                    format!("[warn] {who}: {}: {}", warning(WarningKind::Flapping), self.folded(*since, *folded));
                compose(&first, &[advice(WarningKind::Flapping).into()])
            }
            Notification::Calm { since, folded } => {
                let first = format!("[warn] {who}: no longer flapping, up for an hour");
                compose(&first, &[format!("{}.", self.folded(*since, *folded))])
            }
        }
    }

    /// Several machines may run the same backend, so a target's name alone is not enough.
    fn target_on_host(&self) -> String {
        format!("{} on {}", self.target, escaped(self.host))
    }

    fn folded(&self, since: BootTime, folded: u32) -> String {
        let since = self.day_and_time(since);
        let incidents = if folded == 1 { "1 incident was".to_owned() } else { format!("{folded} incidents were") };
        format!("{incidents} not reported one by one since {since}")
    }

    fn down(&self, incident: &IncidentSummary, waiting: Option<Waiting>, reminder: Option<u64>) -> String {
        let began = incident.down_since.unwrap_or(incident.began);
        let (target, who, since) = (self.target, self.target_on_host(), self.day_and_time(began));
        let why = match waiting {
            Some(Waiting { why: HoldReason::Cooldown, until: None }) => format!("not restarted: {UNSAVED}"),
            Some(Waiting { why, .. }) => {
                format!("not restarted: {}", describe_hold(why, self.depends_on, self.limit))
            }
            None if self.commands.is_empty() => "watch-only, no restart command".into(),
            None if incident.attempts == 0 => "not restarted yet".into(),
            None if could_not_start(incident) => "the restart command could not be started".into(),
            None => "restarting did not help".into(),
        };
        let first = match reminder {
            Some(hours) => format!("[DOWN] {who} since {since}, still down {hours} h later: {why}"),
            None => format!("[DOWN] {who} since {since}, {why}"),
        };
        let mut lines = vec![cause(incident)];
        if let Some(tried) = &incident.tried {
            let command = self.commands.get(tried.rung).map_or("The restart command", String::as_str);
            let by = if is_by_operator(incident) { " by the operator" } else { "" };
            lines.push(format!("`{}`{by}: {}.", escaped(command), self.exit(tried)));
        }
        lines.push(self.next_restart(waiting));
        if let Some(line) = self.last_log_line {
            lines.push(format!("\nIts last log line: {}", escaped(line)));
        }
        let pause = format!("Stop restarts and messages for 2 h: watchdog pause {target} --for 2h");
        lines.push(format!("\nMore: watchdog incident last · {pause}"));
        compose(&first, &lines)
    }

    fn next_restart(&self, waiting: Option<Waiting>) -> String {
        let next = waiting.and_then(|waiting| waiting.until).max(self.cooldown_until);
        let next = next.filter(|at| *at > self.at.now).map(|at| self.hour_minute(at));
        match (next, waiting.map(|waiting| waiting.why)) {
            (None, _) => "Probing goes on.".into(),
            (Some(_), _) if self.commands.is_empty() => "Probing goes on.".into(),
            (Some(at), None | Some(HoldReason::Cooldown | HoldReason::Limit)) => format!("Next restart at {at}."),
            // That the time has come does not end these reasons.
            (Some(at), Some(_)) => format!("Probing goes on; no restart before {at}."),
        }
    }

    fn repair(&self, incident: &IncidentSummary) -> String {
        let Some(tried) = &incident.tried else { return "A restart brought it back.".into() };
        let duration = HumanDuration(self.at.now.since(tried.began));
        let command = self.commands.get(tried.rung).map_or("the restart command", String::as_str);
        let number = match usize::try_from(incident.attempts) {
            Ok(attempts @ 2..) => format!(", the {} restart", ordinal(attempts)),
            _ => String::new(),
        };
        format!("`{}` brought it back in {duration}{number}.", escaped(command))
    }

    fn recovery(&self, incident: &IncidentSummary) -> String {
        let tried = incident.tried.as_ref().filter(|tried| !matches!(tried.exit, Exit::NotStarted(_)));
        match (incident.attempts, tried) {
            (0, _) => "without a restart".into(),
            (_, _) if incident.cured && is_by_operator(incident) => "the operator's restart helped".into(),
            (1, _) if incident.cured => "the restart helped".into(),
            (attempts, _) if incident.cured => format!("the last of {attempts} restarts helped"),
            (_, None) => "probably not because of a restart".into(),
            (_, Some(tried)) => {
                let after = round_age(self.at.now.since(tried.began));
                let restart = if is_by_operator(incident) { "the operator's" } else { "the last" };
                format!("{after} after {restart} restart, so probably not because of it")
            }
        }
    }

    fn exit(&self, tried: &TriedCommand) -> String {
        match &tried.exit {
            Exit::Exited(code) => {
                format!("exit {code}, still failing {} after its start", round_age(self.at.now.since(tried.began)))
            }
            Exit::Killed(signal) => format!("killed by signal {signal}"),
            Exit::TimedOut => "did not end in time and was killed".into(),
            Exit::NotStarted(reason) => format!("could not be started: {}", escaped(reason)),
            Exit::Lost => "result unknown, the watchdog ended while it ran".into(),
        }
    }

    /// `Down from 03:11:40 to 03:13:14.`, with the day if the outage began on another.
    fn outage_times(&self, from: BootTime) -> String {
        let (start, now) = (self.at.wall_at(from), self.at.wall);
        let start = self.zone.with_day(self.zone.time_of_day(start), start, now);
        format!("Down from {start} to {}.", self.zone.time_of_day(now))
    }

    fn hour_minute(&self, at: BootTime) -> String {
        self.zone.hour_minute(self.at.wall_at(at))
    }

    fn day_and_time(&self, at: BootTime) -> String {
        self.zone.with_day(self.hour_minute(at), self.at.wall_at(at), self.at.wall)
    }
}

/// The first line, then the sentences of `rest` in one paragraph; one that begins with a line feed begins a line.
fn compose(first: &str, rest: &[String]) -> String {
    let rest: Vec<&str> = rest.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
    let body = rest.join(" ").replace(" \n", "\n");
    if body.is_empty() { first.to_owned() } else { format!("{first}\n{body}") }
}

fn could_not_start(incident: &IncidentSummary) -> bool {
    incident.tried.as_ref().is_some_and(|tried| matches!(tried.exit, Exit::NotStarted(_)))
}

/// The operator ordered the latest restart.
fn is_by_operator(incident: &IncidentSummary) -> bool {
    incident.tried.as_ref().is_some_and(|tried| tried.by == Some(OrderedBy::Operator))
}

fn cause(incident: &IncidentSummary) -> String {
    let Some((class, detail)) = &incident.failure else { return String::new() };
    sentence(&escaped(&class.with_detail(detail)))
}

fn warning(about: WarningKind) -> &'static str {
    match about {
        WarningKind::Recurrent => "it keeps failing",
        WarningKind::Blind => "it cannot be probed",
        WarningKind::CannotRepair => "it cannot be restarted",
        WarningKind::Pm2Gone => "no PM2 daemon manages it",
        WarningKind::Pm2Deaf => "PM2 cannot be reached",
        WarningKind::CrashLoop => "it keeps crashing",
        WarningKind::Slow => "it answers slowly",
        WarningKind::Unsteady => "it fails again and again",
        WarningKind::Stopped => "still stopped",
        WarningKind::Flapping => "it is flapping",
    }
}

fn advice(about: WarningKind) -> &'static str {
    match about {
        WarningKind::Recurrent => "Restarting hides a cause; it is still there.",
        WarningKind::Blind => "Nobody is watching it until this is fixed.",
        WarningKind::CannotRepair => "Fix this, then run: watchdog check",
        WarningKind::Pm2Gone => "pm2 resurrect alone would start a second copy next to it.",
        WarningKind::Pm2Deaf => {
            "Until this is fixed, no pm2 command helps, yours or the watchdog's. More: watchdog check"
        }
        WarningKind::CrashLoop => "PM2 restarts it each time. Its log shows why it crashes.",
        WarningKind::Slow => "It is healthy, so nothing is restarted.",
        WarningKind::Unsteady => {
            "Only failures in a row lead to a restart (failure_threshold), so nothing is restarted."
        }
        WarningKind::Stopped => {
            "It stays stopped until somebody starts it. If it is no longer needed, remove it from watchdog.yaml."
        }
        WarningKind::Flapping => "Further incidents are not reported one by one until it has been up for an hour.",
    }
}

pub fn test_message(host: &str) -> String {
    format!("[test] watchdog on {host}: messages arrive\nSent by watchdog check --send. Nothing is wrong.")
}

/// Marks a message that is delivered later than it was written, with the time at which it was written.
pub fn mark_late(text: &str, at: WallTime, zone: Zone, delay: Duration) -> String {
    let time = zone.hour_minute(at);
    let written = if delay >= Duration::from_secs(12 * 3_600) { format!("{} {time}", zone.day(at)) } else { time };
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    format!("{first} (late, from {written})\n{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Class;
    use crate::policy::TriedCommand;

    fn at(seconds: i64) -> BootTime {
        BootTime::from_ms(seconds * 1_000)
    }

    fn summary(attempts: u32, cured: bool) -> IncidentSummary {
        let tried = TriedCommand { rung: 0, exit: Exit::Exited(0), began: at(61), by: None };
        IncidentSummary {
            incident: "1122-0313".into(),
            began: at(0),
            down_since: Some(at(-30)),
            attempts,
            cured,
            tried: (attempts > 0).then_some(tried),
            failure: Some((Class::Timeout, "connected in 0.1 ms, then no byte for 10 s".into())),
        }
    }

    /// The text of a message 64 s after the first failure, at 03:13:14.
    #[track_caller]
    fn check(notification: &Notification, commands: &[&str], expected: &str) {
        let commands: Vec<String> = commands.iter().map(ToString::to_string).collect();
        let facts = MessageFacts {
            target: "sav-backend",
            host: "srv412",
            commands: &commands,
            depends_on: &["mailer".into()],
            limit: Some(RestartLimit { max: 10, window: Duration::from_secs(3_600) }),
            cooldown_until: Some(at(130)),
            recurrence: Some("4th time in 30 days"),
            last_log_line: Some("connect ECONNREFUSED\u{1b}[2J"),
            at: ClockReading {
                now: at(64),
                wall: WallTime::parse_rfc3339("2026-11-22T03:13:14.000Z").expect("a time"),
            },
            zone: Zone::UTC,
        };
        assert_eq!(facts.text(notification), expected);
    }

    #[test]
    fn a_healed_message_says_that_nothing_is_to_do() {
        let text = "[healed] sav-backend on srv412: down at most 1 min 34 s, a restart helped\nTimeout; connected in \
                    0.1 ms, then no byte for 10 s. `pm2 restart api` brought it back in 3 s. \
                    Down from 03:11:40 to 03:13:14. 4th time in 30 days. Nothing to do now.";
        check(&Notification::Healed(summary(1, true)), &["pm2 restart api"], text);
    }

    #[test]
    fn a_restart_that_the_operator_ordered_is_called_so() {
        let by_operator = |cured| {
            let summary = summary(1, cured);
            let tried = summary.tried.map(|tried| TriedCommand { by: Some(OrderedBy::Operator), ..tried });
            IncidentSummary { tried, ..summary }
        };
        let seen = "Timeout; connected in 0.1 ms, then no byte for 10 s.";
        check(
            &Notification::Healed(by_operator(true)),
            &["x"],
            &format!(
                "[healed] sav-backend on srv412: down at most 1 min 34 s, a restart by the operator helped\n{seen} \
                 `x` brought it back in 3 s. Down from 03:11:40 to 03:13:14. 4th time in 30 days. Nothing to do now."
            ),
        );
        check(
            &Notification::Up(by_operator(true)),
            &["x"],
            "[up] sav-backend on srv412: back at 03:13 after at most 1 min 34 s, the operator's restart helped.",
        );
        let down = Notification::Down { summary: by_operator(false), waiting: None, reminder: None };
        check(
            &down,
            &["x"],
            &format!(
                "[DOWN] sav-backend on srv412 since 03:11, restarting did not help\n{seen} `x` by the operator: exit \
                 0, still failing 3 s after its start. Next restart at 03:14.\nIts last log line: connect \
                 ECONNREFUSED\\u{{1b}}[2J\nMore: watchdog incident last · Stop restarts and messages for 2 h: watchdog \
                 pause sav-backend --for 2h"
            ),
        );
    }

    #[test]
    fn a_down_message_says_what_was_tried_and_what_comes_next() {
        let down =
            |attempts, waiting, reminder| Notification::Down { summary: summary(attempts, false), waiting, reminder };
        let end = "\nIts last log line: connect ECONNREFUSED\\u{1b}[2J\nMore: watchdog incident last · Stop \
                   restarts and messages for 2 h: watchdog pause sav-backend --for 2h";
        let seen = "Timeout; connected in 0.1 ms, then no byte for 10 s.";
        let tried = "`./restart.sh`: exit 0, still failing 3 s after its start.";
        check(
            &down(1, None, None),
            &["./restart.sh"],
            &format!(
                "[DOWN] sav-backend on srv412 since 03:11, restarting did not help\n{seen} {tried} Next \
                 restart at 03:14.{end}"
            ),
        );
        check(
            &down(0, None, Some(26)),
            &[],
            &format!(
                "[DOWN] sav-backend on srv412 since 03:11, still down 26 h later: watch-only, no restart command\n\
                 {seen} Probing goes on.{end}"
            ),
        );
        let mut refused = summary(1, false);
        refused.tried =
            refused.tried.map(|tried| TriedCommand { exit: Exit::NotStarted("PM2 is deaf".into()), ..tried });
        check(
            &Notification::Down { summary: refused, waiting: None, reminder: None },
            &["pm2 restart api"],
            &format!(
                "[DOWN] sav-backend on srv412 since 03:11, the restart command could not be started\n{seen} \
                 `pm2 restart api`: could not be started: PM2 is deaf. Next restart at 03:14.{end}"
            ),
        );
        let waiting = Waiting { why: HoldReason::DependsOn, until: None };
        check(
            &down(0, Some(waiting), None),
            &["./restart.sh"],
            &format!(
                "[DOWN] sav-backend on srv412 since 03:11, not restarted: it depends on mailer, which is in \
                 trouble\n{seen} Probing goes on; no restart before 03:14.{end}"
            ),
        );
    }

    #[test]
    fn up_and_warn_messages_name_the_facts() {
        check(
            &Notification::Up(summary(2, false)),
            &["x"],
            "[up] sav-backend on srv412: back at 03:13 after at most 1 min 34 s, 3 s after the last restart, so \
             probably not because of it.",
        );
        let warn = |about, detail: &str| Notification::Warn { about, detail: detail.into() };
        check(
            &warn(WarningKind::Flapping, "went down 4 times within the last hour"),
            &[],
            "[warn] sav-backend on srv412: it is flapping: went down 4 times within the last hour\nFurther incidents \
             are not reported one by one until it has been up for an hour.",
        );
        check(
            &Notification::Folded { since: at(-7_200), folded: 1 },
            &[],
            "[warn] sav-backend on srv412: it is flapping: 1 incident was not reported one by one since \
             01:12\nFurther incidents are not reported one by one until it has been up for an hour.",
        );
        check(
            &Notification::Calm { since: at(-7_200), folded: 7 },
            &[],
            "[warn] sav-backend on srv412: no longer flapping, up for an hour\n7 incidents were not reported one by \
             one since 01:12.",
        );
    }

    #[test]
    fn a_late_message_shows_when_it_was_written() {
        let at = WallTime::parse_rfc3339("2026-11-22T03:13:14.000Z").expect("a time");
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert_eq!(mark_late("[up] a\nb", at, Zone::UTC, minutes(10)), "[up] a (late, from 03:13)\nb");
        assert_eq!(mark_late("[up] a\nb", at, Zone::UTC, minutes(900)), "[up] a (late, from 22 Nov 03:13)\nb");
    }
}

//! What people are told, in words: the first line must do alone on a lock screen, the rest says what to do next.

use std::time::Duration;

use crate::outcome::{Exit, NotificationKind};
use crate::policy::{HoldReason, IncidentSummary, Notification, Waiting, WarningKind};
use crate::terminal::escaped;
use crate::time::{BootTime, ClockReading, HumanDuration, WallTime, Zone};
use crate::view::log_line::{UNSAVED, cure, reason};

#[derive(Clone, Copy, Debug)]
pub struct MessageFacts<'a> {
    pub target: &'a str,
    pub host: &'a str,
    pub commands: &'a [String],
    pub depends_on: &'a [String],
    pub cooldown_until: Option<BootTime>,
    /// The last line of the target's own log, where one is known.
    pub said: Option<&'a str>,
    /// How often this has happened lately, and when.
    pub again: Option<&'a str>,
    pub at: ClockReading,
    pub zone: Zone,
}

pub fn kind(tell: &Notification) -> NotificationKind {
    match tell {
        Notification::Healed(_) => NotificationKind::Healed,
        Notification::Down { .. } => NotificationKind::Down,
        Notification::Up(_) => NotificationKind::Up,
        Notification::Warn { .. } | Notification::Folded { .. } | Notification::Calm { .. } => NotificationKind::Warn,
    }
}

impl MessageFacts<'_> {
    pub fn text(&self, tell: &Notification) -> String {
        let who = self.who();
        match tell {
            Notification::Healed(story) => {
                let down = story.downtime(self.at.now);
                let again = self.again.map_or_else(String::new, |again| format!("{again}."));
                let rest = [seen(story), self.cured(story), again, "Nothing to do now.".into()];
                letter(&format!("[healed] {who}: down {down}, cured by a restart"), &rest)
            }
            Notification::Down { story, waiting, reminder } => self.down(story, *waiting, *reminder),
            Notification::Up(story) => {
                let (back, down) = (self.hour_minute(self.at.now), story.downtime(self.at.now));
                let by = format!("{}.", cure(story.attempts, story.cured));
                letter(&format!("[up] {who}: back at {back} after {down}. {by}"), &[])
            }
            Notification::Warn { about, detail } => {
                let detail = escaped(detail);
                letter(&format!("[warn] {who}: {}: {detail}", warning(*about)), &[advice(*about).into()])
            }
            Notification::Folded { since, folded } => {
                let first =
                    format!("[warn] {who}: {}: {}", warning(WarningKind::Flapping), self.folded(*since, *folded));
                letter(&first, &[advice(WarningKind::Flapping).into()])
            }
            Notification::Calm { since, folded } => {
                let first = format!("[warn] {who}: calm again, up for an hour");
                letter(&first, &[format!("{}.", self.folded(*since, *folded))])
            }
        }
    }

    /// Names alone say little to whoever has several machines with the same backend.
    fn who(&self) -> String {
        format!("{} on {}", self.target, escaped(self.host))
    }

    fn folded(&self, since: BootTime, folded: u32) -> String {
        let since = self.day_and_time(since);
        let times = if folded == 1 { "1 incident was".to_owned() } else { format!("{folded} incidents were") };
        format!("{times} not told one by one since {since}")
    }

    fn down(&self, story: &IncidentSummary, waiting: Option<Waiting>, reminder: Option<u64>) -> String {
        let (target, who, since) = (self.target, self.who(), self.day_and_time(story.began));
        let why = match waiting {
            Some(Waiting { why: HoldReason::Cooldown, until: None }) => format!("not restarted: {UNSAVED}"),
            Some(Waiting { why, .. }) => format!("not restarted: {}", reason(why, self.depends_on)),
            None if self.commands.is_empty() => "it is only watched".into(),
            None if story.attempts == 0 => "not restarted yet".into(),
            None if was_refused(story) => "it could not be restarted".into(),
            None => "restarting did not help".into(),
        };
        let first = match reminder {
            Some(hours) => format!("[DOWN] {who}, still, since {since} ({hours} h): {why}"),
            None => format!("[DOWN] {who} since {since}, {why}"),
        };
        let mut lines = vec![seen(story)];
        if let Some(tried) = &story.tried {
            let command = self.commands.get(tried.rung).map_or("The restart command", String::as_str);
            lines.push(format!("`{}`: {}.", escaped(command), ended(&tried.exit)));
        }
        let next = waiting.and_then(|waiting| waiting.until).max(self.cooldown_until);
        let next = next.filter(|at| *at > self.at.now).map(|at| format!("; next try {}", self.hour_minute(at)));
        lines.push(match self.commands.is_empty() {
            true => "I go on looking.".into(),
            false => format!("I go on{}.", next.unwrap_or_default()),
        });
        if let Some(said) = self.said {
            lines.push(format!("\nIts last log line: {}", escaped(said)));
        }
        lines.push(format!("\nMore: watchdog incident last · Silence: watchdog pause {target} --for 2h"));
        letter(&first, &lines)
    }

    fn cured(&self, story: &IncidentSummary) -> String {
        let Some(tried) = &story.tried else { return "A restart cured it.".into() };
        let after = HumanDuration(self.at.now.since(tried.began));
        let command = self.commands.get(tried.rung).map_or("the restart command", String::as_str);
        let times = if story.attempts > 1 { format!(" at try {}", story.attempts) } else { String::new() };
        format!("`{}` cured it in {after}{times}.", escaped(command))
    }

    fn hour_minute(&self, at: BootTime) -> String {
        self.zone.hour_minute(self.at.wall_at(at))
    }

    fn day_and_time(&self, at: BootTime) -> String {
        self.zone.with_day(self.hour_minute(at), self.at.wall_at(at), self.at.wall)
    }
}

fn letter(first: &str, rest: &[String]) -> String {
    let rest: Vec<&str> = rest.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
    let body = rest.join(" ").replace(" \n", "\n");
    if body.is_empty() { first.to_owned() } else { format!("{first}\n{body}") }
}

fn was_refused(story: &IncidentSummary) -> bool {
    story.tried.as_ref().is_some_and(|tried| matches!(tried.exit, Exit::NotStarted(_)))
}

fn seen(story: &IncidentSummary) -> String {
    let Some((class, detail)) = &story.seen else { return String::new() };
    let text = escaped(&class.with_detail(detail)).into_owned();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

fn ended(ending: &Exit) -> String {
    match ending {
        Exit::Exited(code) => format!("exit {code}, and it did not come back"),
        Exit::Killed(signal) => format!("killed by signal {signal}"),
        Exit::TimedOut => "did not end in time".into(),
        Exit::NotStarted(reason) => format!("could not be started: {}", escaped(reason)),
        Exit::Lost => "lost from sight".into(),
    }
}

fn warning(about: WarningKind) -> &'static str {
    match about {
        WarningKind::Recurrent => "it keeps failing",
        WarningKind::Blind => "I cannot look at it",
        WarningKind::CannotRepair => "I could not restart it",
        WarningKind::Pm2Gone => "no PM2 keeps it",
        WarningKind::Pm2Deaf => "PM2 cannot be reached",
        WarningKind::CrashLoop => "it crashes again and again",
        WarningKind::Stopped => "still stopped",
        WarningKind::Flapping => "up and down",
    }
}

fn advice(about: WarningKind) -> &'static str {
    match about {
        WarningKind::Recurrent => "Restarting hides a cause; it is still there.",
        WarningKind::Blind => "Until that is mended nobody watches it.",
        WarningKind::CannotRepair => "Mend that, then: watchdog check",
        WarningKind::Pm2Gone => "pm2 resurrect alone would start a second copy beside it.",
        WarningKind::Pm2Deaf => "Until then no pm2 command of mine or yours helps. More: watchdog check",
        WarningKind::CrashLoop => "PM2 brings it back each time: look at its log.",
        WarningKind::Stopped => {
            "It stays so until somebody starts it. If it is no longer needed, remove it from watchdog.yaml."
        }
        WarningKind::Flapping => "Further incidents are not told one by one until it was up for an hour.",
    }
}

pub fn test(host: &str) -> String {
    format!("[test] watchdog on {host}: messages arrive\nSent by watchdog check --send. Nothing is wrong.")
}

pub fn late(text: &str, at: WallTime, zone: Zone, behind: Duration) -> String {
    let time = zone.hour_minute(at);
    let of = if behind >= Duration::from_secs(12 * 3_600) { format!("{} {time}", zone.day(at)) } else { time };
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    format!("{first} (late, of {of})\n{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Class;
    use crate::policy::TriedCommand;

    fn at(seconds: i64) -> BootTime {
        BootTime::from_ms(seconds * 1_000)
    }

    fn story(attempts: u32, cured: bool) -> IncidentSummary {
        let tried = TriedCommand { rung: 0, exit: Exit::Exited(0), began: at(61) };
        IncidentSummary {
            incident: "1122-0313".into(),
            began: at(0),
            down_since: Some(at(-30)),
            attempts,
            cured,
            tried: (attempts > 0).then_some(tried),
            seen: Some((Class::Timeout, "connected in 0.1 ms, then no byte for 10 s".into())),
        }
    }

    /// Told 64 s after the first failure, at 03:13:14.
    #[track_caller]
    fn check(tell: &Notification, commands: &[&str], expected: &str) {
        let commands: Vec<String> = commands.iter().map(ToString::to_string).collect();
        let facts = MessageFacts {
            target: "sav-backend",
            host: "srv412",
            commands: &commands,
            depends_on: &["mailer".into()],
            cooldown_until: Some(at(130)),
            again: Some("4th time in 30 days"),
            said: Some("connect ECONNREFUSED\u{1b}[2J"),
            at: ClockReading {
                now: at(64),
                wall: WallTime::parse_rfc3339("2026-11-22T03:13:14.000Z").expect("a time"),
            },
            zone: Zone::UTC,
        };
        assert_eq!(facts.text(tell), expected);
    }

    #[test]
    fn what_was_healed_needs_nobody() {
        let text = "[healed] sav-backend on srv412: down at most 1 min 34 s, cured by a restart\nTimeout; connected in \
                    0.1 ms, then no byte for 10 s. `pm2 restart api` cured it in 3 s. \
                    4th time in 30 days. Nothing to do now.";
        check(&Notification::Healed(story(1, true)), &["pm2 restart api"], text);
    }

    #[test]
    fn what_is_down_says_what_was_tried_and_what_comes_next() {
        let down =
            |attempts, waiting, reminder| Notification::Down { story: story(attempts, false), waiting, reminder };
        let end = "\nIts last log line: connect ECONNREFUSED\\u{1b}[2J\nMore: watchdog incident last · Silence: \
                   watchdog pause sav-backend --for 2h";
        let seen = "Timeout; connected in 0.1 ms, then no byte for 10 s.";
        let tried = "`./restart.sh`: exit 0, and it did not come back.";
        check(
            &down(1, None, None),
            &["./restart.sh"],
            &format!(
                "[DOWN] sav-backend on srv412 since 03:12, restarting did not help\n{seen} {tried} I go on; \
                 next try 03:14.{end}"
            ),
        );
        check(
            &down(0, None, Some(26)),
            &[],
            &format!(
                "[DOWN] sav-backend on srv412, still, since 03:12 (26 h): it is only watched\n{seen} I go on \
                 looking.{end}"
            ),
        );
        let mut refused = story(1, false);
        refused.tried =
            refused.tried.map(|tried| TriedCommand { exit: Exit::NotStarted("PM2 is deaf".into()), ..tried });
        check(
            &Notification::Down { story: refused, waiting: None, reminder: None },
            &["pm2 restart api"],
            &format!(
                "[DOWN] sav-backend on srv412 since 03:12, it could not be restarted\n{seen} `pm2 restart api`: could \
                 not be started: PM2 is deaf. I go on; next try 03:14.{end}"
            ),
        );
        let waiting = Waiting { why: HoldReason::DependsOn, until: None };
        check(
            &down(0, Some(waiting), None),
            &["./restart.sh"],
            &format!(
                "[DOWN] sav-backend on srv412 since 03:12, not restarted: what it depends on is in trouble \
                 (mailer)\n{seen} I go on; next try 03:14.{end}"
            ),
        );
    }

    #[test]
    fn what_came_back_and_what_needs_a_person_some_day() {
        check(
            &Notification::Up(story(2, false)),
            &["x"],
            "[up] sav-backend on srv412: back at 03:13 after at most 1 min 34 s. It came back after the start period \
             of the last of 2 restarts, so that was probably not it.",
        );
        let warn = |about, detail: &str| Notification::Warn { about, detail: detail.into() };
        check(
            &warn(WarningKind::Flapping, "went down 4 times within the last hour"),
            &[],
            "[warn] sav-backend on srv412: up and down: went down 4 times within the last hour\nFurther incidents are \
             not told one by one until it was up for an hour.",
        );
        check(
            &Notification::Folded { since: at(-7_200), folded: 1 },
            &[],
            "[warn] sav-backend on srv412: up and down: 1 incident was not told one by one since 01:12\nFurther \
             incidents are not told one by one until it was up for an hour.",
        );
        check(
            &Notification::Calm { since: at(-7_200), folded: 7 },
            &[],
            "[warn] sav-backend on srv412: calm again, up for an hour\n7 incidents were not told one by one since \
             01:12.",
        );
    }

    #[test]
    fn what_is_late_says_of_when_it_is() {
        let at = WallTime::parse_rfc3339("2026-11-22T03:13:14.000Z").expect("a time");
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert_eq!(late("[up] a\nb", at, Zone::UTC, minutes(10)), "[up] a (late, of 03:13)\nb");
        assert_eq!(late("[up] a\nb", at, Zone::UTC, minutes(900)), "[up] a (late, of 22 Nov 03:13)\nb");
    }
}

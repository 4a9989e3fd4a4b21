//! How the targets are: a table for people, JSON for machines.
//! It must never let an old answer look like a new one, nor round a percentage up.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::outcome::{Class, Exit, Verdict};
use crate::policy::{LastProbe, Mode, Pauses, Status, TargetState, TriedCommand, spent};
use crate::store::BootClockReading;
use crate::store::lock::Holder;
use crate::store::requests::Request;
use crate::store::state::{SavedState, TargetView};
use crate::terminal::escaped;
use crate::time::{BootTime, ClockReading, Latency, WallTime, Zone, millis, rough};
use crate::view::log_line::{at_rest, reason};
use crate::view::presence::{PresenceSigns, WatchdogPresence};
use crate::view::{at_home, percent, table};

const DAY: Duration = Duration::from_secs(86_400);
/// Watched for this part of a span, nobody asks about the rest.
const NEARLY: f64 = 0.95;

#[derive(Clone, Debug)]
pub struct StatusReport {
    /// The state as it was last saved, its times on the present boot clock.
    pub saved: SavedState,
    pub holder: Option<Holder>,
    /// Whether that one cannot be seen from here, so that its pid means nothing.
    pub is_unseen: bool,
    /// How whoever held the lock last works, and its last sign of life there.
    pub last_held: Option<(Mode, WallTime)>,
    /// Whether the holder has given a sign of life when it was asked for one just now.
    pub has_answered: bool,
    /// Whether the configuration's file is newer than what the watchdog has read of it.
    pub config_changed: bool,
    pub at: ClockReading,
    pub zone: Zone,
    /// Shown as `~`.
    pub home: Option<PathBuf>,
}

impl StatusReport {
    /// Lets orders that nobody has carried out yet show already.
    pub fn apply(&mut self, orders: &[Request], moment: &BootClockReading) {
        for order in orders {
            let (targets, command) = match order {
                Request::Pause { targets, command, .. } => (targets.as_deref(), command.as_deref()),
                Request::Over { command } => (None, Some(command.as_str())),
                Request::Resume { targets, .. } => (targets.as_deref(), None),
            };
            let until = order.pauses_until(moment);
            let meant = |name: &String| targets.is_none_or(|targets| targets.contains(name));
            for (_, state) in self.saved.policy.targets.iter_mut().filter(|(name, _)| meant(name)) {
                match (order, until) {
                    (Request::Pause { .. }, Some(until)) => state.pauses.begin(until, command),
                    (Request::Pause { .. }, None) => {}
                    (Request::Over { command }, _) => state.pauses.end(command),
                    (Request::Resume { .. }, _) => state.pauses = Pauses::default(),
                }
                state.status = match state.status {
                    _ if state.pauses.until().is_some() => Status::Paused,
                    Status::Paused => Status::Starting,
                    condition => condition,
                };
            }
        }
    }

    pub fn watch(&self) -> WatchdogPresence {
        let (saved, holder) = (&self.saved, self.holder.as_ref());
        let touched = holder.map(|holder| holder.touched).or(self.last_held.map(|(_, at)| at));
        let touched = touched.map(|at| saved.since(at, self.at));
        WatchdogPresence::of(&PresenceSigns {
            holder: holder.map(|holder| (holder.mode, Some(holder.pid).filter(|_| !self.is_unseen))),
            last: self.last_held.map(|(mode, _)| mode).or(saved.mode),
            touched: if self.has_answered { Some(Duration::ZERO) } else { touched },
            picture: saved.age(self.at.now),
            stopped: saved.stopped,
            tick_patience: saved.tick_patience(),
        })
    }

    pub fn is_trouble(&self) -> bool {
        self.targets().iter().any(|target| target.state.status.is_trouble())
    }

    fn targets(&self) -> Vec<TargetRow<'_>> {
        let known = &self.saved.policy.targets;
        let target = |(name, shown)| Some(TargetRow { name, shown, state: known.get(name)?, status: self });
        self.saved.in_order().into_iter().filter_map(target).collect()
    }

    fn clock_time(&self, at: BootTime) -> String {
        let at = self.at.wall_at(at);
        self.zone.with_day(self.zone.hour_minute(at), at, self.at.wall)
    }

    pub fn json(&self) -> String {
        let mode = self.holder.as_ref().map(|holder| holder.mode).or(self.saved.mode);
        let watch = self.watch();
        let ago = |age: Duration| self.at.wall.offset_by(-millis(age)).rfc3339();
        let answer = StatusJson {
            version: env!("CARGO_PKG_VERSION"),
            at: self.at.wall.rfc3339(),
            watchdog: WatchdogJson {
                running: watch.is_running(),
                pid: self.holder.as_ref().filter(|_| !self.is_unseen).map(|holder| holder.pid),
                mode: mode.map(Mode::as_str),
                last_seen: watch.seen.map(ago),
                state_at: watch.picture.map(ago),
                config_changed: self.config_changed,
            },
            targets: self.targets().into_iter().map(TargetRow::answer).collect(),
        };
        serde_json::to_string(&answer).expect("text and numbers have a JSON form")
    }

    pub fn text(&self) -> String {
        let targets = self.targets();
        let mut rows = vec![["TARGET", "STATE", "SINCE", "LAST LOOK", "24 H", "30 D"].map(String::from)];
        rows.extend(targets.iter().map(TargetRow::row));
        let mut lines = Vec::new();
        for (index, row) in table(&rows).into_iter().enumerate() {
            lines.push(row);
            let note = index.checked_sub(1).and_then(|index| targets[index].note());
            lines.extend(note.map(|note| format!("  {note}")));
        }
        if targets.is_empty() {
            lines = vec!["No watchdog has looked at anything here yet.".into()];
        }
        lines.push(self.about_us());
        lines.extend(self.saved.log_trouble.as_deref().map(|trouble| escaped(trouble).into_owned()));
        lines.extend(
            self.saved.outbox.troubles(self.at.now).map(|(channel, words)| format!("{} {words}", escaped(channel))),
        );
        lines.extend(self.places());
        lines.extend(self.config_changed.then(|| "The configuration is newer than what the watchdog has read.".into()));
        lines.join("\n")
    }

    fn about_us(&self) -> String {
        let watch = self.watch();
        match watch.is_current() {
            true => format!("{watch}{}{}", self.could_repair(), self.messages()),
            false => watch.to_string(),
        }
    }

    fn could_repair(&self) -> String {
        let Some(checked) = self.saved.checked else { return String::new() };
        let cannot = self.targets().iter().any(|target| target.state.cannot_be_repaired());
        let answer = if cannot { "NO" } else { "yes" };
        format!(" · could repair: {answer}, checked {} ago", rough(self.at.wall.since(checked)))
    }

    fn messages(&self) -> String {
        let waiting = self.saved.outbox.waiting();
        let tells = self.saved.channels > 0 || waiting > 0;
        if tells { format!(" · messages waiting: {waiting}") } else { String::new() }
    }

    fn places(&self) -> Option<String> {
        let (config, log) = (self.saved.config.as_ref()?, self.saved.log.as_ref()?);
        let home = self.home.as_deref();
        Some(format!("config {} · log {}", at_home(home, config), at_home(home, log)))
    }
}

/// The answer for machines; its fields are the contract's, in its order.
#[derive(Serialize)]
struct StatusJson<'a> {
    version: &'static str,
    at: String,
    watchdog: WatchdogJson,
    targets: Vec<TargetJson<'a>>,
}

#[derive(Serialize)]
struct WatchdogJson {
    running: bool,
    pid: Option<u32>,
    mode: Option<&'static str>,
    last_seen: Option<String>,
    state_at: Option<String>,
    config_changed: bool,
}

#[derive(Serialize)]
struct TargetJson<'a> {
    name: &'a str,
    state: &'static str,
    since: Option<String>,
    streak: u32,
    dry_run: bool,
    last_probe: Option<ProbeJson<'a>>,
    attempt: u32,
    attempts_in_window: usize,
    waiting: WaitingJson,
    paused_until: Option<String>,
    incident: Option<&'a str>,
    uptime_24h: Option<f64>,
    uptime_30d: Option<f64>,
}

#[derive(Serialize)]
struct ProbeJson<'a> {
    at: String,
    verdict: &'static str,
    latency_ms: u64,
    class: Option<&'static str>,
    detail: Option<&'a str>,
}

#[derive(Serialize)]
struct WaitingJson {
    why: Option<&'static str>,
    until: Option<String>,
}

struct TargetRow<'a> {
    name: &'a String,
    shown: &'a TargetView,
    state: &'a TargetState,
    status: &'a StatusReport,
}

impl<'a> TargetRow<'a> {
    /// The part of the watched time that it was up; where not nearly all of the span was watched, how much was.
    fn share(&self, last: Duration) -> String {
        let history = self.status.saved.history.get(self.name);
        let watched = history.map_or(Duration::ZERO, |history| history.watched(last, self.status.at.wall));
        let share = percent(self.uptime(last));
        match watched {
            Duration::ZERO => share,
            _ if watched < last.mul_f64(NEARLY) => format!("{share} of {}", rough(watched)),
            _ => share,
        }
    }

    fn uptime(&self, last: Duration) -> Option<f64> {
        self.status.saved.history.get(self.name)?.uptime(last, self.status.at.wall)
    }

    fn answer(self) -> TargetJson<'a> {
        let (state, status) = (self.state, self.status);
        let time = |at: BootTime| status.at.wall_at(at).rfc3339();
        let window = Duration::from_millis(self.shown.window_ms);
        TargetJson {
            name: self.name,
            state: state.status.as_str(),
            since: state.since.map(time),
            streak: state.failures(),
            dry_run: self.shown.dry_run,
            last_probe: state.last_probe.as_ref().map(|look| ProbeJson {
                at: time(look.at),
                verdict: look.verdict.as_str(),
                latency_ms: look.latency_ms,
                class: look.verdict.class().map(Class::as_str),
                detail: Some(look.verdict.detail()).filter(|_| !look.verdict.is_healthy()),
            }),
            attempt: state.real.episode.map_or(0, |episode| episode.attempts),
            attempts_in_window: spent(state.real.starts.iter().copied(), status.at.now, window),
            waiting: WaitingJson {
                why: state.waiting.map(|waiting| waiting.why.as_str()),
                until: state.waiting.and_then(|waiting| waiting.until).map(time),
            },
            paused_until: state.pauses.until().map(time),
            incident: state.incident.as_ref().map(|incident| incident.id.as_str()),
            uptime_24h: self.uptime(DAY),
            uptime_30d: self.uptime(DAY * 30),
        }
    }

    fn row(&self) -> [String; 6] {
        let (state, status) = (self.state, self.status);
        let since = state.since.map_or_else(String::new, |since| {
            let at = status.at.wall_at(since);
            let when = match status.zone.day(at) == status.zone.day(status.at.wall) {
                true => status.zone.hour_minute(at),
                false => status.zone.day(at),
            };
            format!("{when} ({})", rough(status.at.now.since(since)))
        });
        let look = state.last_probe.as_ref().map_or_else(
            || "none yet".into(),
            |look| format!("{}, {} ago", seen(look), rough(status.at.now.since(look.at))),
        );
        let state_word = state.status.as_str().to_string();
        [self.name.clone(), state_word, since, look, self.share(DAY), self.share(DAY * 30)]
    }

    fn note(&self) -> Option<String> {
        let blind = self.state.last_probe.as_ref().and_then(|look| match &look.verdict {
            Verdict::Unknown { detail } => Some(format!("the last look told nothing: {}", escaped(detail))),
            Verdict::Healthy { .. } | Verdict::Unhealthy { .. } => None,
        });
        // What is down says what it was told about PM2 already; the rest is told nowhere else.
        let pm2 = match (&self.state.incident, &self.state.pm2.trouble, self.state.pm2.gone_since) {
            (None, Some(trouble), _) => Some(escaped(trouble).into_owned()),
            (None, None, Some(_)) => Some("PM2's daemon is dead".into()),
            (Some(_), _, _) | (None, None, None) => None,
        };
        let notes: Vec<String> = [self.trouble(), blind, pm2].into_iter().flatten().collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    fn trouble(&self) -> Option<String> {
        let state = self.state;
        let dry = if self.shown.dry_run { " (dry run: nothing is run)" } else { "" };
        let attempts = state.incident.as_ref().map_or(0, |incident| incident.attempts);
        let tried = match state.incident.as_ref().and_then(|incident| incident.tried.as_ref()) {
            Some(TriedCommand { exit: Exit::NotStarted(why), .. }) => {
                format!("nothing could be done: {}; ", escaped(why))
            }
            Some(_) | None if attempts == 0 => String::new(),
            Some(_) | None if attempts == 1 => "restarted once, without success so far; ".into(),
            Some(_) | None => format!("restarted {attempts} times, without success so far; "),
        };
        let details = if tried.is_empty() { "" } else { ". Details: watchdog incident last" };
        let next = |at: BootTime| format!("next try {}", self.status.clock_time(at));
        match state.status {
            Status::Paused => Some(format!("paused until {}", self.status.clock_time(state.pauses.until()?))),
            Status::Stopped => {
                let rest = state.rest?;
                Some(format!("{}; asked again at {}", at_rest(rest.why), self.status.clock_time(rest.ask_at)))
            }
            Status::Failing if state.failures() > 0 => {
                Some(format!("{} of {} bad in a row", state.failures(), self.shown.threshold))
            }
            Status::Recovering => {
                let since = format!("{} of {} bad since then", state.failures(), self.shown.threshold);
                Some(format!("{tried}{since}{dry}"))
            }
            Status::Down if !self.shown.repairs => Some("no restart command: it is only watched".into()),
            Status::Down => Some(match state.waiting {
                Some(waiting) => {
                    let until = waiting.until.map_or_else(String::new, |at| format!("; {}", next(at)));
                    let why = reason(waiting.why, &self.shown.depends_on);
                    format!("{tried}not restarted now: {why}{until}{dry}{details}")
                }
                None if !self.status.watch().is_at_work() => {
                    format!("{tried}not restarted now: no watchdog is at work{dry}")
                }
                None => format!("{tried}a restart is due or under way{dry}"),
            }),
            Status::Starting | Status::Healthy | Status::Failing => None,
        }
    }
}

fn seen(look: &LastProbe) -> String {
    let cut = |text: &str| escaped(text).chars().take(40).collect::<String>();
    match &look.verdict {
        Verdict::Healthy { detail } => {
            format!("{} in {}", cut(detail), Latency(Duration::from_millis(look.latency_ms)))
        }
        Verdict::Unhealthy { class: Class::Status | Class::Body | Class::Exit, detail } => cut(detail),
        Verdict::Unhealthy { class, .. } => class.to_string(),
        Verdict::Unknown { .. } => "unknown".into(),
    }
}

//! The states of all targets: a table for people, JSON for machines.
//! It must never let an old state look like a new one, nor round a percentage up.

mod json;
mod requests;

use std::path::PathBuf;
use std::time::Duration;

use crate::outcome::{Class, Exit, Verdict};
use crate::policy::{HoldReason, LastProbe, Mode, Status, TargetState, TriedCommand, Waiting};
use crate::store::lock::Holder;
use crate::store::state::{SavedState, TargetView};
use crate::terminal::escaped;
use crate::time::{BootTime, ClockReading, Latency, WallTime, Zone, round_age};
use crate::view::log_line::{UNSAVED, describe_hold, describe_rest};
use crate::view::presence::{Presence, PresenceSigns, WatchdogPresence};
use crate::view::{Screen, addresses, describe_quality, percent, pm2_restarts, table, with_tilde, wrap};

const DAY: Duration = Duration::from_secs(86_400);
/// An uptime over less than this part of a span is shown with the time that was watched.
const NEARLY_ALL: f64 = 0.95;

#[derive(Clone, Debug)]
pub struct StatusReport {
    /// The state as it was last saved, its times on the present boot clock.
    pub saved: SavedState,
    pub holder: Option<Holder>,
    /// The holder's process is not visible from here, so its pid means nothing.
    pub is_holder_hidden: bool,
    /// The mode of the latest holder, and its latest sign of life.
    pub last_held: Option<(Mode, WallTime)>,
    /// The holder has just given a sign of life on request.
    pub has_answered: bool,
    /// The configuration file is newer than what the watchdog has read.
    pub config_changed: bool,
    pub at: ClockReading,
    pub zone: Zone,
    /// Shown as `~`.
    pub home: Option<PathBuf>,
}

impl StatusReport {
    pub fn presence(&self) -> WatchdogPresence {
        let (saved, holder) = (&self.saved, self.holder.as_ref());
        let touched = holder.map(|holder| holder.touched).or(self.last_held.map(|(_, at)| at));
        let touched = touched.map(|at| saved.elapsed_since(at, self.at));
        WatchdogPresence::of(&PresenceSigns {
            holder: holder.map(|holder| (holder.mode, Some(holder.pid).filter(|_| !self.is_holder_hidden))),
            last: self.last_held.map(|(mode, _)| mode).or(saved.mode),
            touched: if self.has_answered { Some(Duration::ZERO) } else { touched },
            picture: saved.age(self.at.now),
            stopped: saved.stopped,
            max_tick_gap: saved.max_tick_gap(),
        })
    }

    pub fn is_trouble(&self) -> bool {
        self.targets().iter().any(|target| target.state.status.is_trouble())
    }

    fn targets(&self) -> Vec<TargetRow<'_>> {
        let known = &self.saved.policy.targets;
        let target = |(name, shown)| Some(TargetRow { name, shown, state: known.get(name)?, status: self });
        self.saved.targets_in_order().into_iter().filter_map(target).collect()
    }

    fn clock_time(&self, at: BootTime) -> String {
        let at = self.at.wall_at(at);
        self.zone.with_day(self.zone.hour_minute(at), at, self.at.wall)
    }

    pub fn text(&self, screen: Screen) -> String {
        let targets = self.targets();
        let mut lines = match targets.is_empty() {
            true => vec!["No watchdog has probed anything here yet.".into()],
            false => self.table(&targets, screen),
        };
        let mut footer = vec![self.watchdog_line()];
        footer.extend(self.saved.log_trouble.as_deref().map(|trouble| escaped(trouble).into_owned()));
        footer.extend(
            self.saved
                .outbox
                .describe_troubles(self.at.now)
                .map(|(channel, trouble)| format!("{} {trouble}", escaped(channel))),
        );
        footer.extend(self.paths());
        footer.extend(self.config_changed.then(|| self.config_line()));
        lines.extend(footer.iter().flat_map(|line| wrap(line, 0, screen.columns)));
        lines.join("\n")
    }

    /// Where the terminal is too narrow for all columns, the last probe and the uptimes have lines of their own.
    fn table(&self, targets: &[TargetRow], screen: Screen) -> Vec<String> {
        let mut rows = vec![["TARGET", "STATE", "SINCE", "LAST PROBE", "24 H", "30 D"].map(String::from)];
        rows.extend(targets.iter().map(TargetRow::row));
        let wide = table(&rows);
        let is_wide = screen.fits(&wide);
        let shown = if is_wide { wide } else { table(&rows.iter().map(first_columns).collect::<Vec<_>>()) };
        let state_column = rows.iter().map(|[name, ..]| name.len()).max().unwrap_or(0) + 2;
        let mut lines = Vec::new();
        for (index, line) in shown.into_iter().enumerate() {
            let Some(target) = index.checked_sub(1).map(|index| &targets[index]) else {
                lines.push(line);
                continue;
            };
            lines.push(screen.colour(line, state_column, target.state.status));
            let [_, _, _, probe, day, month] = &rows[index];
            let hidden = [format!("last probe {probe}"), format!("uptime 24 h: {day}, 30 d: {month}")];
            let notes = hidden.into_iter().filter(|_| !is_wide).chain(target.note());
            lines.extend(notes.flat_map(|note| wrap(&note, 2, screen.columns)));
        }
        lines
    }

    fn config_line(&self) -> String {
        let is_daemon = matches!(self.presence().who, Presence::Daemon { .. });
        let next = if is_daemon { " Load it: watchdog reload" } else { "" };
        format!("The configuration file has changed since the watchdog read it.{next}")
    }

    fn watchdog_line(&self) -> String {
        let watch = self.presence();
        match watch.is_current() {
            true => format!("{watch}{}{}", self.could_repair(), self.messages()),
            false => watch.to_string(),
        }
    }

    fn could_repair(&self) -> String {
        let Some(checked) = self.saved.programs_checked else { return String::new() };
        let cannot = self.targets().iter().any(|target| target.state.cannot_be_repaired());
        let answer = if cannot { "NO" } else { "yes" };
        format!(" · could repair: {answer}, checked {} ago", round_age(self.at.wall.since(checked)))
    }

    fn messages(&self) -> String {
        let waiting = self.saved.outbox.waiting_count();
        let has_channels = self.saved.channels > 0 || waiting > 0;
        if has_channels { format!(" · messages waiting: {waiting}") } else { String::new() }
    }

    fn paths(&self) -> Option<String> {
        let (config, log) = (self.saved.config.as_ref()?, self.saved.log.as_ref()?);
        let home = self.home.as_deref();
        Some(format!("config {} · log {}", with_tilde(home, config), with_tilde(home, log)))
    }
}

struct TargetRow<'a> {
    name: &'a String,
    shown: &'a TargetView,
    state: &'a TargetState,
    status: &'a StatusReport,
}

impl<'a> TargetRow<'a> {
    /// The uptime within the watched time; with the watched time where that is not nearly all of `last`.
    fn share(&self, last: Duration) -> String {
        let history = self.status.saved.history.get(self.name);
        let watched = history.map_or(Duration::ZERO, |history| history.watched(last, self.status.at.wall));
        let share = percent(self.uptime(last));
        match watched {
            Duration::ZERO => share,
            _ if watched < last.mul_f64(NEARLY_ALL) => format!("{share} of {}", round_age(watched)),
            _ => share,
        }
    }

    fn uptime(&self, last: Duration) -> Option<f64> {
        self.status.saved.history.get(self.name)?.uptime(last, self.status.at.wall)
    }

    fn row(&self) -> [String; 6] {
        let (state, status) = (self.state, self.status);
        let since = state.since.map_or_else(String::new, |since| {
            let at = status.at.wall_at(since);
            let when = match status.zone.day(at) == status.zone.day(status.at.wall) {
                true => status.zone.hour_minute(at),
                false => status.zone.day(at),
            };
            format!("{when} ({})", round_age(status.at.now.since(since)))
        });
        let probe = state.last_probe.as_ref().map_or_else(
            || "none yet".into(),
            |probe| format!("{}, {} ago", result(probe), round_age(status.at.now.since(probe.at))),
        );
        let state_word = state.status.as_str().to_string();
        [self.name.clone(), state_word, since, probe, self.share(DAY), self.share(DAY * 30)]
    }

    fn note(&self) -> Option<String> {
        let blind = self.state.last_probe.as_ref().and_then(|probe| match &probe.verdict {
            Verdict::Unknown { detail } => Some(format!("the last probe gave no verdict: {}", escaped(detail))),
            Verdict::Healthy { .. } | Verdict::Unhealthy { .. } => None,
        });
        // An incident shows what is wrong with PM2; without one, only this line does.
        let pm2 = match (&self.state.incident, &self.state.pm2.trouble, self.state.pm2.gone_since) {
            (None, Some(trouble), _) => Some(escaped(trouble).into_owned()),
            (None, None, Some(_)) => Some("PM2's daemon is dead".into()),
            (Some(_), _, _) | (None, None, None) => None,
        };
        let history = self.status.saved.history.get(self.name);
        let restarts = history.map(|history| history.restarts().within(DAY, self.status.at.wall));
        let restarts = restarts.and_then(|counts| pm2_restarts::describe(&counts, "in 24 h"));
        let quality = describe_quality(self.state, self.shown);
        let probe = self.state.last_probe.as_ref().filter(|_| self.state.status != Status::Stopped);
        let failing = probe.and_then(addresses::describe_failing);
        let notes = [self.drill(), self.trouble(), failing, blind, pm2, restarts, quality];
        let notes: Vec<String> = notes.into_iter().flatten().collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    fn drill(&self) -> Option<String> {
        let began = self.state.drills.running.as_ref()?.began;
        Some(format!("a drill: its process was stopped at {}", self.status.clock_time(began)))
    }

    fn trouble(&self) -> Option<String> {
        let state = self.state;
        let dry = if self.shown.dry_run { " (dry run: no command is run)" } else { "" };
        let attempts = state.incident.as_ref().map_or(0, |incident| incident.attempts);
        let tried = match state.incident.as_ref().and_then(|incident| incident.tried.as_ref()) {
            Some(TriedCommand { exit: Exit::NotStarted(why), .. }) => {
                format!("the restart command could not be started: {}; ", escaped(why))
            }
            Some(_) | None if attempts == 0 => String::new(),
            Some(_) | None if attempts == 1 => "1 restart did not help; ".into(),
            Some(_) | None => format!("{attempts} restarts did not help; "),
        };
        match state.status {
            Status::Paused => {
                let until = self.status.clock_time(state.pauses.until()?);
                Some(match state.pauses.command() {
                    Some(command) => format!("paused while `{}` runs, until {until} at most", escaped(command)),
                    None => format!("paused until {until}"),
                })
            }
            Status::Stopped => {
                let rest = state.rest?;
                Some(format!("{}; next check at {}", describe_rest(rest.why), self.status.clock_time(rest.ask_at)))
            }
            Status::Failing if state.failures() > 0 => {
                Some(format!("{} of {} failures in a row", state.failures(), self.shown.threshold))
            }
            Status::Recovering => {
                let restarted = match attempts {
                    _ if state.could_not_start() => tried,
                    0 => String::new(),
                    1 => "restarted once; ".into(),
                    _ => format!("restarted {attempts} times; "),
                };
                Some(format!("{restarted}{} of {} failures since then{dry}", state.failures(), self.shown.threshold))
            }
            Status::Down if !self.shown.has_restart_commands => {
                Some("watch-only: no restart command is configured".into())
            }
            Status::Down => Some(match state.waiting {
                Some(waiting) => with_details(format!("{tried}{}{dry}", self.hold(waiting)), !tried.is_empty()),
                None if !self.status.presence().is_watching() => {
                    format!("{tried}not restarted: no watchdog is running{dry}")
                }
                None => format!("{tried}a restart is due or running{dry}"),
            }),
            Status::Starting | Status::Healthy | Status::Failing => None,
        }
    }

    fn hold(&self, waiting: Waiting) -> String {
        let until = waiting.until.map(|at| self.status.clock_time(at));
        let reason = match waiting.why {
            HoldReason::Cooldown => match until {
                Some(at) => return format!("next restart at {at} (cooldown)"),
                None => Some(UNSAVED.into()),
            },
            HoldReason::DependsOn => self.dependency_in_trouble(),
            _ => None,
        };
        let reason = reason.unwrap_or_else(|| describe_hold(waiting.why, &self.shown.depends_on, None));
        let until = until.map_or_else(String::new, |at| format!(" until {at}"));
        format!("not restarted{until}: {reason}")
    }

    fn dependency_in_trouble(&self) -> Option<String> {
        let targets = &self.status.saved.policy.targets;
        let status = |name: &String| Some((name.clone(), targets.get(name)?.status));
        let mut known = self.shown.depends_on.iter().filter_map(status);
        let (name, status) = known.find(|(_, status)| status.is_trouble())?;
        Some(format!("it depends on {name}, which is {}", status.as_str()))
    }
}

fn with_details(note: String, was_tried: bool) -> String {
    match (was_tried, note.ends_with('?')) {
        (false, _) => note,
        (true, true) => note + " Details: watchdog incident last",
        (true, false) => note + ". Details: watchdog incident last",
    }
}

fn first_columns([name, state, since, ..]: &[String; 6]) -> [String; 3] {
    [name, state, since].map(String::clone)
}

fn result(probe: &LastProbe) -> String {
    let detail = || escaped(addresses::short_detail(probe)).chars().take(40).collect::<String>();
    match &probe.verdict {
        Verdict::Healthy { .. } => {
            format!("{} in {}", detail(), Latency(Duration::from_millis(probe.latency_ms)))
        }
        Verdict::Unhealthy { class: Class::Status | Class::Body | Class::Exit, .. } => detail(),
        Verdict::Unhealthy { class, .. } => class.to_string(),
        Verdict::Unknown { .. } => "unknown".into(),
    }
}

#[cfg(test)]
mod tests;

//! What is kept on disk while the agent works: the state, the events, and how well that goes.

use std::io::ErrorKind;
use std::time::Duration;

use crate::clock;
use crate::config::Target;
use crate::logging::Logging;
use crate::outcome::Look;
use crate::policy::{Action, Condition};
use crate::store::complaints::Complaints;
use crate::store::events::{self, Entry, Kind};
use crate::store::history::{Absence, Gap};
use crate::store::state::Shown;
use crate::store::{self, Error, Moment, lock};
use crate::time::{ClockReading, Timestamp, Wall, millis};

use super::uptime::TICK_SPAN;
use super::{Agent, Ended, Mode};

/// Without a change that matters the state is saved this often.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// Lines of events that wait for a disk with room; older ones are dropped.
const UNWRITTEN_KEPT: usize = 1_000;
/// Ticks that stay away for three times their usual distance are missed, but not before this.
const TICKS_MISSED: Duration = Duration::from_secs(300);
/// Milliseconds by which the two clocks drift apart for other reasons.
const WALL_WAS_SET: u64 = 10_000;

/// How the disk does.
#[derive(Default)]
pub(super) struct Disk {
    unwritten: Vec<String>,
    saved_at: Option<Timestamp>,
    state_failed: bool,
    events_failed: bool,
    history_failed: bool,
    /// Something was saved that must not be lost, so that the last save is of that kind too.
    mattered: bool,
}

/// What notes of a target are of: those of one kind are forgotten together.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum Course {
    /// It is down, and what is done about that.
    Outage,
    /// It is over.
    Recovery,
    /// Whatever may be true of a target that is in order.
    Other,
}

impl Disk {
    /// Whether a save was tried at all.
    pub(super) fn is_tried(&self) -> bool {
        self.saved_at.is_some()
    }

    /// Whether the latest save went well.
    pub(super) fn is_ok(&self) -> bool {
        !self.state_failed
    }
}

impl Agent {
    /// Takes up the work: says so, heeds the orders that wait, and does what the policy asks for first.
    /// `usual`: how far apart the ticks before this one were.
    pub(super) fn begin(&mut self, first: Vec<Action>, usual: Option<Duration>) {
        let wall = clock::wall();
        self.note_absence(usual, clock::now(), wall);
        self.take_accounts_up();
        self.saved.mode = Some(match self.mode {
            Mode::Daemon => lock::Mode::Daemon,
            Mode::Tick => lock::Mode::Once,
        });
        self.saved.pid = Some(std::process::id());
        self.saved.started = Some(wall);
        self.saved.stopped = false;
        self.show();
        if self.mode == Mode::Daemon {
            let (version, pid) = (env!("CARGO_PKG_VERSION").to_string(), std::process::id());
            self.keep_entries(&[Entry { at: wall, target: None, kind: Kind::Started { version, pid } }]);
        }
        self.tell_off();
        // The policy has closed already what a watchdog before us left open: it must not be saved without its events.
        self.carry_out(first);
        if !self.disk.unwritten.is_empty() {
            self.save(true);
        }
        self.carry_out_orders();
    }

    /// Remembers since when nobody has watched, if that is longer than can be expected.
    fn note_absence(&mut self, usual: Option<Duration>, now: Timestamp, wall: Wall) {
        self.note_wall_set(self.saved.wall_moved, now, wall);
        self.saved.first_start.get_or_insert(wall);
        let (age, usual) = (self.saved.age(now).unwrap_or_default(), usual.unwrap_or_default());
        let longest = match self.saved.mode {
            // Then no span between two of its looks counts as watched.
            Some(lock::Mode::Daemon) => self.config.targets.iter().map(|target| target.limits.gap()).min(),
            Some(lock::Mode::Once) => Some(usual.saturating_mul(3).clamp(TICKS_MISSED, TICK_SPAN)),
            None => None,
        };
        if longest.is_none_or(|longest| age <= longest) {
            return;
        }
        let from = wall.shifted(-millis(age));
        let why = match (self.saved.rebooted, self.saved.stopped) {
            (true, _) => Absence::Rebooted,
            (false, true) => Absence::Stopped,
            (false, false) => Absence::Ended,
        };
        self.saved.gaps.note(Gap { from, to: wall, why });
    }

    /// Moves with the wall clock what it said since the boot, where somebody has set it.
    fn note_wall_set(&mut self, moved: i64, now: Timestamp, wall: Wall) {
        if moved.unsigned_abs() >= WALL_WAS_SET {
            let booted = wall.shifted(now.as_ms().saturating_add(moved).saturating_neg());
            self.saved.wall_was_set(booted, moved);
        }
    }

    /// Keeps what `status` tells of the configuration.
    pub(super) fn show(&mut self) {
        let shown = |(order, target): (usize, &Target)| {
            let limits = &target.limits;
            let shown = Shown {
                order,
                threshold: limits.failure_threshold,
                window_ms: u64::try_from(millis(limits.restart_window)).unwrap_or(0),
                repairs: limits.rungs > 0,
                dry_run: limits.dry_run,
                depends_on: limits.depends_on.clone(),
            };
            (target.name.clone(), shown)
        };
        self.saved.shown = self.config.targets.iter().enumerate().map(shown).collect();
        let shown = &self.saved.shown;
        self.accounts.retain(|name| shown.contains_key(name), &self.policy.open_incidents());
        self.saved.history.retain(|name| shown.contains_key(name));
        self.saved.counts.retain(|name, _| shown.contains_key(name));
        self.saved.told_of_flapping.retain(|name, _| shown.contains_key(name));
        self.saved.undecided.retain(|name, _| shown.contains_key(name));
        self.saved.files.retain(|name, _| shown.contains_key(name));
        self.saved.channels = self.config.notify.len();
        self.saved.config = Some(self.config.path.clone());
        self.saved.config_written = self.config.written;
        self.saved.log = Some(self.config.log.file.clone());
    }

    /// The last save, and what the verb needs to know for its exit code.
    pub(super) fn end(mut self) -> Ended {
        self.give_deliveries_up();
        match self.mode {
            _ if self.is_displaced() => {}
            Mode::Daemon => {
                self.saved.stopped = true;
                self.record_own(Kind::Stopped { reason: "told to stop".into() });
                self.publish_end();
                log::info!("watchdog stopped (pid {})", std::process::id());
            }
            Mode::Tick => {
                self.save(self.disk.mattered);
                if !self.disk.is_ok() {
                    self.tell_failing();
                    self.forget_what_is_over();
                }
            }
        }
        let left = |target: &Target| Some((target.name.clone(), self.policy.target(&target.name)?.clone()));
        let targets = self.config.targets.iter().filter_map(left).collect();
        Ended { displaced_by: self.displaced_by, unsaved: !self.disk.is_ok(), targets }
    }

    pub(super) fn keep_entries(&mut self, entries: &[Entry]) {
        self.disk.unwritten.extend(entries.iter().map(Entry::line));
        let too_many = self.disk.unwritten.len().saturating_sub(UNWRITTEN_KEPT);
        self.disk.unwritten.drain(..too_many);
    }

    /// Saves the state, then writes the events that are not written yet; neither of them once another watchdog has
    /// taken our place, for both files are its then.
    pub(super) fn save(&mut self, durable: bool) {
        self.touch();
        if self.is_displaced() {
            return;
        }
        self.disk.mattered |= durable;
        let (now, wall) = (clock::now(), clock::wall());
        if let Some((then, said)) = self.disk.saved_at.zip(self.saved.last_seen) {
            let passed = |from: i64, to: i64| to.saturating_sub(from);
            let moved = passed(said.as_ms(), wall.as_ms()).saturating_sub(passed(then.as_ms(), now.as_ms()));
            self.note_wall_set(moved, now, wall);
        }
        self.flush_history(wall);
        self.saved.last_seen = Some(wall);
        self.saved.pending.clone_from(&self.disk.unwritten);
        self.saved.log_trouble = self.logging.as_ref().and_then(Logging::trouble);
        self.disk.saved_at = Some(now);
        let moment = Moment { at: ClockReading { now, wall }, boot_id: self.boot_id.clone() };
        let saved = store::state::save(&self.folder, &self.saved, &self.policy.remembered(), &moment, durable);
        match (&saved, self.disk.state_failed) {
            (Err(error), false) => {
                let consequence = match self.mode {
                    Mode::Daemon => "restarts are still limited, in memory: one per max_cooldown",
                    Mode::Tick => "nothing is restarted",
                };
                let line = format!("{error} ({consequence})");
                log::error!("{line}");
                self.say_once_a_day(&line, &line);
            }
            (Ok(()), true) => log::info!("the state can be saved again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        self.disk.state_failed = saved.is_err();
        self.write_events();
    }

    /// Says what is news. Where the state does not remember that it was said, the next tick would say it again.
    pub(super) fn say(&mut self, target: &str, course: Course, about: &str, line: &str) {
        let told = self.told_of(target, course).filter(|_| !self.disk.is_ok());
        if told.is_none_or(|told| told.is_news(about, clock::wall())) {
            (self.news)(line);
        }
    }

    /// What a tick has told of a target.
    pub(super) fn told_of(&self, target: &str, course: Course) -> Option<Complaints> {
        self.told.as_ref().map(|told| told.of(&(target, course)))
    }

    /// Says what may come again at every tick.
    pub(super) fn say_once_a_day(&mut self, about: &str, line: &str) {
        if self.told.as_ref().is_none_or(|told| told.is_news(about, clock::wall())) {
            (self.news)(line);
        }
    }

    /// Where ticks cannot count together, one that fails may never be called down, and is told all the same. So is one
    /// that was told to be up again, which the state does not know.
    fn tell_failing(&mut self) {
        let wall = clock::wall();
        let was_up = |target: &str| {
            self.told_of(target, Course::Recovery).is_some_and(|recovery| recovery.was_anything_told(wall))
        };
        let failing = |target: &Target| {
            let state = self.policy.target(&target.name)?;
            let what = match state.condition {
                Condition::Failing => "fails",
                Condition::Down | Condition::Recovering if was_up(&target.name) => "is down again",
                _ => return None,
            };
            let detail = state.last_look.as_ref().map_or("", |look| look.verdict.detail());
            let why = "ticks cannot count together while the state is not saved";
            Some((target.name.clone(), format!("{} {what}: {detail} ({why})", target.name)))
        };
        let failing: Vec<_> = self.config.targets.iter().filter_map(failing).collect();
        failing.iter().for_each(|(target, line)| self.say(target, Course::Outage, "failing", line));
    }

    /// The state does not know that an outage has ended or begun: should it come again, only its notes can say so.
    fn forget_what_is_over(&self) {
        let wall = clock::wall();
        for target in &self.config.targets {
            let Some(state) = self.policy.target(&target.name) else { continue };
            let is_healthy = state.last_look.as_ref().is_some_and(|look| look.verdict.is_healthy());
            let over = match state.condition {
                Condition::Healthy if is_healthy => Course::Outage,
                condition if condition.is_trouble() => Course::Recovery,
                _ => continue,
            };
            if let Some(told) = self.told_of(&target.name, over) {
                told.forget_this_round(wall);
            }
        }
    }

    /// Once an hour what is remembered of the targets leaves the state for a file of its own.
    fn flush_history(&mut self, wall: Wall) {
        if !self.saved.history.is_due(wall) {
            return;
        }
        let completed = self.complete_history();
        let shown = &self.saved.shown;
        self.saved.history.retain(|name| shown.contains_key(name));
        let flushed = completed.and_then(|()| self.saved.history.flush(&self.folder, wall));
        match (&flushed, self.disk.history_failed) {
            (Err(error), false) => log::warn!("{error} (it is kept with the state)"),
            (Ok(()), true) => log::info!("the history can be saved again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        self.disk.history_failed = flushed.is_err();
    }

    /// Reads what is remembered of the targets, where that was not done yet. What is damaged is lost.
    pub(super) fn complete_history(&mut self) -> Result<(), Error> {
        match self.saved.history.complete(&self.folder) {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                log::error!("{error} (what was known of uptime before this hour is lost)");
                Ok(())
            }
            completed => completed,
        }
    }

    fn write_events(&mut self) {
        let written = events::append(&self.folder, &self.disk.unwritten);
        match (&written, self.disk.events_failed) {
            (Err(error), false) => log::error!("{error} (events wait in memory, the latest {UNWRITTEN_KEPT})"),
            (Ok(()), true) => log::info!("events can be written again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        self.disk.events_failed = written.is_err();
        if written.is_ok() {
            self.disk.unwritten.clear();
        }
    }

    pub(super) fn save_if_old(&mut self, now: Timestamp) {
        if self.disk.saved_at.is_none_or(|at| now.since(at) >= SAVE_EVERY) {
            self.save_and_say_how(false);
        }
    }

    /// Saves the state, and lets the policy know where that goes otherwise than before.
    pub(super) fn save_and_say_how(&mut self, durable: bool) {
        let was_ok = self.disk.is_ok();
        self.save(durable);
        if was_ok != self.disk.is_ok() {
            self.step(crate::policy::Event::Saved { ok: self.disk.is_ok() });
        }
    }

    /// Keeps what was seen of a target's file. One that cannot be seen for a while may come back as it was.
    pub(super) fn note_file(&mut self, name: &str, look: &Look) {
        if let Some(file) = look.file.filter(|_| self.saved.shown.contains_key(name)) {
            self.saved.files.insert(name.to_owned(), file);
        }
    }
}

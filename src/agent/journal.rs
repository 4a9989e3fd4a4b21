//! What outlives the process: the state, the events, the lock's sign of life, and how well the disk takes them.
//! It must never write a byte once the folder is another watchdog's, and never let a disk that fails end the work.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
use crate::policy::{Mode, Policy};
use crate::store::events::{self, EventEntry, EventKind};
use crate::store::history::{Absence, Gap};
use crate::store::lock::{HeldBy, Lock, TouchResult, Unseen};
use crate::store::state::{Loaded, SavedState};
use crate::store::{self, BootClockReading, Error, Folder};
use crate::time::{BootTime, ClockReading, WallTime, millis};

/// Without a change that matters the state is saved this often.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);
/// From the end of one save to the next, at the least. Each may write a MiB and wait for the disk twice (the file and
/// its folder): 20 a second leave the disk, and most of a core, to others.
const MIN_SAVE_GAP: Duration = Duration::from_millis(50);
/// Lines of events that wait for a disk with room; older ones are dropped.
const MAX_UNWRITTEN: usize = 1_000;
/// Between two ticks no more than an hour counts as watched, and what cron and the probe may be late.
pub(super) const MAX_TICK_GAP: Duration = Duration::from_secs(3_660);
/// Ticks that stay away for three times their usual distance are missed, but not before this.
const MIN_MISSED_TICKS: Duration = Duration::from_secs(300);
/// Milliseconds by which the two clocks drift apart for other reasons.
const MIN_WALL_SHIFT_MS: u64 = 10_000;

/// What would undo what is to be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Durability {
    /// The end of the watchdog: what a reboot undoes anyway need not be synced.
    ProcessCrash,
    /// A loss of power.
    PowerLoss,
}

pub(super) struct Journal {
    mode: Mode,
    folder: Folder,
    lock: Lock,
    boot_id: Option<String>,
    /// The state, but for what the policy remembers.
    pub(super) saved: SavedState,
    /// The watchdog's own events, for the next save.
    own_events: Vec<EventEntry>,
    /// Lines of events that are not in their file yet.
    unwritten: Vec<String>,
    /// Lines of events that are in their file, but not all in the accounts of their incidents.
    not_in_records: Vec<String>,
    /// The next save is wanted, against this.
    requested: Option<Durability>,
    /// When the last save began, and when it had ended.
    last_save: Option<(BootTime, BootTime)>,
    /// Something was saved against a loss of power, so that the last save is of that kind too.
    has_saved_durably: bool,
    state_failed: bool,
    events_failed: bool,
    history_failed: bool,
    /// Why no sign of life can be given.
    touch_error: Option<String>,
    /// Another watchdog has the folder: which one, in words.
    displaced_by: Option<String>,
}

impl Journal {
    /// Takes up what the watchdog before this one left; and in words, if what it knew of its attempts is lost. Errors:
    /// the state cannot be read; in words.
    pub(super) fn open(mode: Mode, folder: Folder, lock: Lock) -> Result<(Journal, Option<String>), String> {
        let boot_id = clock::boot_id();
        let moment = BootClockReading { at: clock::read(), boot_id: boot_id.clone() };
        let (saved, is_recorded, lost) = load(&folder, &moment)?;
        let (unaccounted, unwritten) =
            if is_recorded { (saved.pending.clone(), Vec::new()) } else { (Vec::new(), saved.pending.clone()) };
        let journal = Journal {
            mode,
            folder,
            lock,
            boot_id,
            saved,
            own_events: Vec::new(),
            unwritten,
            not_in_records: unaccounted,
            requested: None,
            last_save: None,
            has_saved_durably: false,
            state_failed: false,
            events_failed: false,
            history_failed: false,
            touch_error: None,
            displaced_by: None,
        };
        Ok((journal, lost))
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    pub(super) fn clock_reading(&self) -> BootClockReading {
        BootClockReading { at: clock::read(), boot_id: self.boot_id.clone() }
    }

    pub(super) fn incident_folder(&self, id: &str) -> Option<PathBuf> {
        match store::incidents::create(&self.folder, id) {
            Ok(path) => Some(path),
            Err(error) => {
                log::warn!("{error} (the output of commands is not kept)");
                None
            }
        }
    }

    pub(super) fn has_tried_to_save(&self) -> bool {
        self.last_save.is_some()
    }

    pub(super) fn is_saved(&self) -> bool {
        !self.state_failed
    }

    /// Who has the folder by now: nothing is ours to do any more.
    pub(super) fn displaced_by(&self) -> Option<&str> {
        self.displaced_by.as_deref()
    }

    pub(super) fn is_displaced(&self) -> bool {
        self.displaced_by.is_some()
    }

    pub(super) fn note_own_event(&mut self, kind: EventKind) {
        self.own_events.push(EventEntry { at: clock::wall(), target: None, kind });
        self.request_save(Durability::PowerLoss);
    }

    pub(super) fn request_save(&mut self, against: Durability) {
        self.requested = self.requested.max(Some(against));
    }

    pub(super) fn request_save_if_old(&mut self, now: BootTime) {
        if self.last_save.is_none_or(|(began, _)| now.since(began) >= SAVE_INTERVAL) {
            self.request_save(Durability::ProcessCrash);
        }
    }

    pub(super) fn is_save_requested(&self) -> bool {
        self.requested.is_some()
    }

    pub(super) fn until_save(&self, now: BootTime) -> Option<Duration> {
        let since = self.last_save.map_or(Duration::ZERO, |(_, ended)| (ended + MIN_SAVE_GAP).since(now));
        self.requested.map(|_| since)
    }

    /// Saves the state with these events, and with the watchdog's own. Where it could not be saved, and that is news,
    /// says so.
    pub(super) fn save(&mut self, policy: &Policy, entries: &[EventEntry]) -> Option<String> {
        self.touch();
        if self.is_displaced() {
            return None;
        }
        let against = self.requested.take().unwrap_or(Durability::ProcessCrash);
        self.has_saved_durably |= against == Durability::PowerLoss;
        let at = clock::read();
        self.detect_wall_clock_change(at);
        self.flush_history(at.wall);
        let own = std::mem::take(&mut self.own_events);
        self.queue_lines(own.iter().map(EventEntry::line));
        let pending = self.not_in_records.iter().chain(&self.unwritten).cloned();
        self.saved.pending = pending.chain(entries.iter().map(EventEntry::line)).collect();
        self.saved.last_seen = Some(at.wall);
        let moment = BootClockReading { at, boot_id: self.boot_id.clone() };
        let durable = against == Durability::PowerLoss;
        let saved = store::state::save(&self.folder, &self.saved, &policy.remembered(), &moment, durable);
        self.last_save = Some((at.now, clock::now()));
        let was_failing = std::mem::replace(&mut self.state_failed, saved.is_err());
        match (saved, was_failing) {
            (Err(error), false) => {
                let consequence = match self.mode {
                    Mode::Daemon => "restarts are still limited, in memory: one per max_cooldown",
                    Mode::Once => "nothing is restarted",
                };
                let line = format!("{error} ({consequence})");
                log::error!("{line}");
                return Some(line);
            }
            (Ok(()), true) => log::info!("the state can be saved again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        None
    }

    /// Writes these events, and all that wait, to their file: after the state that knows of them.
    pub(super) fn write_events(&mut self, entries: &[EventEntry]) {
        if self.is_displaced() {
            return;
        }
        self.queue_lines(entries.iter().map(EventEntry::line));
        let written = events::append(&self.folder, &self.unwritten);
        match (&written, self.events_failed) {
            (Err(error), false) => log::error!("{error} (events wait in memory, the latest {MAX_UNWRITTEN})"),
            (Ok(()), true) => log::info!("events can be written again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        self.events_failed = written.is_err();
        if written.is_ok() {
            self.not_in_records.append(&mut self.unwritten);
            drop_oldest(&mut self.not_in_records);
        }
    }

    /// All events that were recorded are in the accounts of their incidents.
    pub(super) fn note_records_written(&mut self) {
        self.not_in_records.clear();
    }

    fn queue_lines(&mut self, lines: impl Iterator<Item = String>) {
        self.unwritten.extend(lines);
        drop_oldest(&mut self.unwritten);
    }

    pub(super) fn request_final_save(&mut self) {
        self.request_save(if self.has_saved_durably { Durability::PowerLoss } else { Durability::ProcessCrash });
    }

    /// Gives the sign of life. Where another watchdog has taken our place meanwhile, nothing is ours to do any more.
    pub(super) fn touch(&mut self) {
        let trouble = match self.lock.touch() {
            Ok(TouchResult::Ours) => None,
            Ok(TouchResult::Remade) => {
                log::warn!("{} was deleted; made again", self.folder.path().display());
                self.request_save(Durability::PowerLoss);
                None
            }
            Ok(TouchResult::Lost(held)) => {
                let by = describe_takeover(&held, self.folder.path());
                log::error!("{by}: ending");
                self.displaced_by = Some(by);
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if trouble != self.touch_error {
            match &trouble {
                Some(error) => log::error!("{error} (others may take this watchdog for dead)"),
                None => log::info!("the sign of life can be given again"),
            }
            self.touch_error = trouble;
        }
    }

    /// Remembers since when nobody has watched, if that is longer than can be expected: `gap` is the longest span
    /// between two looks of a daemon that counts as watched, `usual` how far apart ticks were.
    pub(super) fn note_absence(&mut self, gap: Option<Duration>, usual: Option<Duration>) {
        let at = clock::read();
        self.follow_wall_clock(self.saved.wall_moved, at);
        self.saved.first_start.get_or_insert(at.wall);
        let (age, usual) = (self.saved.age(at.now).unwrap_or_default(), usual.unwrap_or_default());
        let longest = match self.saved.mode {
            Some(Mode::Daemon) => gap,
            Some(Mode::Once) => Some(usual.saturating_mul(3).clamp(MIN_MISSED_TICKS, MAX_TICK_GAP)),
            None => None,
        };
        if longest.is_none_or(|longest| age <= longest) {
            return;
        }
        let why = match (self.saved.rebooted, self.saved.stopped) {
            (true, _) => Absence::Rebooted,
            (false, true) => Absence::Stopped,
            (false, false) => Absence::Ended,
        };
        self.saved.gaps.note(Gap { from: at.wall.offset_by(-millis(age)), to: at.wall, why });
    }

    fn detect_wall_clock_change(&mut self, at: ClockReading) {
        if let Some(((then, _), said)) = self.last_save.zip(self.saved.last_seen) {
            let passed = |from: i64, to: i64| to.saturating_sub(from);
            let by_wall = passed(said.as_ms(), at.wall.as_ms());
            self.follow_wall_clock(by_wall.saturating_sub(passed(then.as_ms(), at.now.as_ms())), at);
        }
    }

    /// Moves with the wall clock what it said since the boot, where somebody has set it.
    fn follow_wall_clock(&mut self, moved: i64, at: ClockReading) {
        if moved.unsigned_abs() >= MIN_WALL_SHIFT_MS {
            let booted = at.wall_at(BootTime::from_ms(moved.saturating_neg()));
            self.saved.wall_was_set(booted, moved);
        }
    }

    /// Once an hour what is remembered of the targets leaves the state for a file of its own.
    fn flush_history(&mut self, wall: WallTime) {
        if !self.saved.history.is_due(wall) {
            return;
        }
        let completed = self.complete_history();
        let shown = &self.saved.shown;
        self.saved.history.retain(|name| shown.contains_key(name));
        let flushed = completed.and_then(|()| self.saved.history.flush(&self.folder, wall));
        match (&flushed, self.history_failed) {
            (Err(error), false) => log::warn!("{error} (it is kept with the state)"),
            (Ok(()), true) => log::info!("the history can be saved again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        self.history_failed = flushed.is_err();
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
}

fn drop_oldest(lines: &mut Vec<String>) {
    let too_many = lines.len().saturating_sub(MAX_UNWRITTEN);
    lines.drain(..too_many);
}

/// The state, whether its latest events are in their file, and in words if it is lost.
fn load(folder: &Folder, moment: &BootClockReading) -> Result<(SavedState, bool, Option<String>), String> {
    match store::state::load(folder, moment).map_err(|error| error.to_string())? {
        Loaded::Fresh => Ok((SavedState::default(), true, None)),
        Loaded::Read(saved) => {
            let recorded = events::append_missing(folder, &saved.pending);
            if let Err(error) = &recorded {
                log::warn!("{error} (the latest events wait in memory)");
            }
            Ok((*saved, recorded.is_ok(), None))
        }
        Loaded::SetAside { to, why } => {
            let kept = format!("it is kept as {}", to.display());
            let lost = format!("{why}; {kept}. What was restarted lately is not known: nothing is for max_cooldown");
            log::error!("{lost}");
            Ok((SavedState::default(), true, Some(lost)))
        }
    }
}

/// Of a tick it names no pid: another one each minute, cron would mail each of them.
fn describe_takeover(held: &HeldBy, folder: &Path) -> String {
    let (whose, note) = match held {
        HeldBy::Seen(holder) => ("", Some((holder.mode, holder.pid, holder.config.display().to_string()))),
        HeldBy::Unseen(Unseen { note, .. }) => {
            (" that I cannot see", note.as_ref().map(|note| (note.mode, note.pid, note.config.clone())))
        }
    };
    let who = match note {
        Some((Mode::Daemon, pid, config)) => {
            format!("another watchdog{whose} with pid {pid} and configuration {config}")
        }
        Some((Mode::Once, _, config)) => format!("a tick{whose} with configuration {config}"),
        None => format!("another watchdog{whose}"),
    };
    format!("{who} has taken over {}", folder.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::lock::LockNote;

    #[test]
    fn whoever_has_taken_over_is_named_but_not_each_tick_anew() {
        #[track_caller]
        fn check(mode: Option<Mode>, expected: &str) {
            let note = mode.map(|mode| LockNote { pid: 7, started: 1, mode, config: "/w.yaml".into() });
            let held = HeldBy::Unseen(Unseen { note, touched: Default::default() });
            assert_eq!(describe_takeover(&held, Path::new("/s")), format!("{expected} has taken over /s"));
        }
        check(None, "another watchdog that I cannot see");
        let daemon = "another watchdog that I cannot see with pid 7 and configuration /w.yaml";
        check(Some(Mode::Daemon), daemon);
        check(Some(Mode::Once), "a tick that I cannot see with configuration /w.yaml");
    }
}

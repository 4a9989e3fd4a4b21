//! Everything that outlives the process: the state, the events and the lock file's sign of life. It must never write a
//! byte once another watchdog has taken over the folder, and a failing disk must never end the work.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
use crate::policy::{Mode, Policy};
use crate::store::events::{self, EventEntry, EventKind};
use crate::store::history::{Gap, GapReason};
use crate::store::lock::{HeldBy, HiddenHolder, Lock, TouchResult};
use crate::store::state::{Loaded, SavedState};
use crate::store::{self, BootClockReading, Error, Folder};
use crate::time::{BootTime, ClockReading, WallTime, millis};

/// How often the state is saved if no important change requests a save.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);
/// The minimum time from the end of one save to the next. Each may write 1 MiB and fsync twice (the file and its
/// folder): 20 a second leave the disk and most of a core to others.
const MIN_SAVE_GAP: Duration = Duration::from_millis(50);
/// How many events are kept in memory while they cannot be written; older ones are dropped.
const MAX_UNWRITTEN: usize = 1_000;
/// The longest time between two ticks that counts as watched: an hour, and a minute in which cron and the probe may be
/// late.
pub(super) const MAX_TICK_GAP: Duration = Duration::from_secs(3_660);
/// Ticks count as missed after three times their usual gap, but not before this.
const MIN_TICK_ABSENCE: Duration = Duration::from_secs(300);
/// A smaller difference between the two clocks is drift; a larger one means that somebody has set the wall clock.
const MIN_WALL_SHIFT_MS: u64 = 10_000;

/// What a save must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Durability {
    /// No fsync: only a reboot could lose the save, and a reboot makes it obsolete anyway.
    ProcessCrash,
    PowerLoss,
}

pub(super) struct Journal {
    mode: Mode,
    folder: Folder,
    lock: Lock,
    boot_id: Option<String>,
    /// The state, except the part that the policy owns.
    pub(super) saved: SavedState,
    /// Events about the watchdog itself, to be written with the next save.
    own_events: Vec<EventEntry>,
    /// Lines of events that are not in `events.jsonl` yet.
    unwritten: Vec<String>,
    /// Lines of events that are in `events.jsonl`, but perhaps not in the record of their incident yet.
    not_in_records: Vec<String>,
    /// The durability of the next save, if one is requested.
    requested: Option<Durability>,
    /// When the last save began and ended.
    last_save: Option<(BootTime, BootTime)>,
    /// Whether any save had to survive a loss of power; then the final one must too.
    has_saved_durably: bool,
    state_failed: bool,
    events_failed: bool,
    history_failed: bool,
    /// Why the lock file cannot be touched.
    touch_error: Option<String>,
    /// Another watchdog has taken over the folder: a description of it.
    displaced_by: Option<String>,
}

impl Journal {
    /// Loads the state of the previous watchdog. Also returns a warning if that state, and with it the latest attempts,
    /// is lost. Errors: the state cannot be read.
    pub(super) fn open(mode: Mode, folder: Folder, lock: Lock) -> Result<(Journal, Option<String>), String> {
        let boot_id = clock::boot_id();
        let reading = BootClockReading { at: clock::read(), boot_id: boot_id.clone() };
        let (saved, has_written_events, lost) = load(&folder, &reading)?;
        let (not_in_records, unwritten) =
            if has_written_events { (saved.pending.clone(), Vec::new()) } else { (Vec::new(), saved.pending.clone()) };
        let journal = Journal {
            mode,
            folder,
            lock,
            boot_id,
            saved,
            own_events: Vec::new(),
            unwritten,
            not_in_records,
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
                log::warn!("{error} (evidence and command output are not saved)");
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

    /// If another watchdog has taken over the folder, this one must do nothing more.
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

    pub(super) fn request_save(&mut self, durability: Durability) {
        self.requested = self.requested.max(Some(durability));
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
        let left = self.last_save.map_or(Duration::ZERO, |(_, ended)| (ended + MIN_SAVE_GAP).since(now));
        self.requested.map(|_| left)
    }

    /// Saves the state with these events and those about the watchdog itself. Returns the error if this save failed and
    /// the one before did not.
    pub(super) fn save(&mut self, policy: &Policy, entries: &[EventEntry]) -> Option<String> {
        self.touch();
        if self.is_displaced() {
            return None;
        }
        let durability = self.requested.take().unwrap_or(Durability::ProcessCrash);
        self.has_saved_durably |= durability == Durability::PowerLoss;
        let at = clock::read();
        self.detect_wall_clock_change(at);
        let own = std::mem::take(&mut self.own_events);
        self.queue_lines(own.iter().map(EventEntry::to_line));
        let pending = self.not_in_records.iter().chain(&self.unwritten).cloned();
        self.saved.pending = pending.chain(entries.iter().map(EventEntry::to_line)).collect();
        self.saved.last_seen = Some(at.wall);
        let reading = BootClockReading { at, boot_id: self.boot_id.clone() };
        let is_synced = durability == Durability::PowerLoss;
        let saved = store::state::save(&self.folder, &self.saved, &policy.state_ref(), &reading, is_synced);
        self.last_save = Some((at.now, clock::now()));
        let was_failing = std::mem::replace(&mut self.state_failed, saved.is_err());
        if saved.is_ok() {
            // Only now: a file with counts of which the state knows nothing yet would have them counted twice.
            self.flush_history(at.wall);
        }
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

    /// Writes these events, and all that wait, to `events.jsonl`: after the save of the state that contains them.
    pub(super) fn write_events(&mut self, entries: &[EventEntry]) {
        if self.is_displaced() {
            return;
        }
        self.queue_lines(entries.iter().map(EventEntry::to_line));
        let written = events::append(&self.folder, &self.unwritten);
        match (&written, self.events_failed) {
            (Err(error), false) => log::error!("{error} (the latest {MAX_UNWRITTEN} events are kept in memory)"),
            (Ok(()), true) => log::info!("events can be written again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        self.events_failed = written.is_err();
        if written.is_ok() {
            self.not_in_records.append(&mut self.unwritten);
            drop_oldest(&mut self.not_in_records);
        }
    }

    /// Called when all events are in the records of their incidents.
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

    /// Touches the lock file, the sign of life, and finds out whether another watchdog has taken over the folder.
    pub(super) fn touch(&mut self) {
        let error = match self.lock.touch() {
            Ok(TouchResult::StillHeld) => None,
            Ok(TouchResult::Recreated) => {
                log::warn!("{} was deleted; created again", self.folder.path().display());
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
        if error != self.touch_error {
            match &error {
                Some(error) => {
                    log::error!("{error} (no sign of life: another watchdog may take this one for dead and replace it)")
                }
                None => log::info!("the lock file can be touched again"),
            }
            self.touch_error = error;
        }
    }

    /// Notes the time since the last save as not watched, if it is longer than expected. `gap`: the longest time
    /// between two probes of a daemon that counts as watched. `usual_gap`: the usual time between ticks.
    pub(super) fn note_absence(&mut self, gap: Option<Duration>, usual_gap: Option<Duration>) {
        let at = clock::read();
        self.follow_wall_clock(self.saved.wall_step_ms, at);
        self.saved.first_start.get_or_insert(at.wall);
        let (age, usual_gap) = (self.saved.age(at.now).unwrap_or_default(), usual_gap.unwrap_or_default());
        let expected = match self.saved.mode {
            Some(Mode::Daemon) => gap,
            Some(Mode::Once) => Some(usual_gap.saturating_mul(3).clamp(MIN_TICK_ABSENCE, MAX_TICK_GAP)),
            None => None,
        };
        if expected.is_none_or(|expected| age <= expected) {
            return;
        }
        let why = match (self.saved.rebooted, self.saved.stopped) {
            (true, _) => GapReason::Rebooted,
            (false, true) => GapReason::Stopped,
            (false, false) => GapReason::Ended,
        };
        self.saved.gaps.note(Gap { from: at.wall.offset_by(-millis(age)), to: at.wall, why });
    }

    fn detect_wall_clock_change(&mut self, at: ClockReading) {
        if let Some(((boot, _), wall)) = self.last_save.zip(self.saved.last_seen) {
            let passed = |from: i64, to: i64| to.saturating_sub(from);
            let by_wall = passed(wall.as_ms(), at.wall.as_ms());
            self.follow_wall_clock(by_wall.saturating_sub(passed(boot.as_ms(), at.now.as_ms())), at);
        }
    }

    /// If somebody has set the wall clock, shifts the saved wall times since the boot by the same amount.
    fn follow_wall_clock(&mut self, moved: i64, at: ClockReading) {
        if moved.unsigned_abs() >= MIN_WALL_SHIFT_MS {
            let booted = at.wall_at(BootTime::from_ms(moved.saturating_neg()));
            self.saved.correct_wall_times(booted, moved);
        }
    }

    /// Once an hour the targets' history is moved from the state to its own file.
    fn flush_history(&mut self, wall: WallTime) {
        if !self.saved.history.is_flush_due(wall) {
            return;
        }
        let completed = self.complete_history();
        let shown = &self.saved.views;
        self.saved.history.retain(|name| shown.contains_key(name));
        let flushed = completed.and_then(|()| self.saved.history.flush(&self.folder, wall));
        match (&flushed, self.history_failed) {
            (Err(error), false) => log::warn!("{error} (it stays in the state file)"),
            (Ok(()), true) => log::info!("the history can be saved again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        self.history_failed = flushed.is_err();
    }

    /// Reads the history file, unless that was done before. A damaged file is lost.
    pub(super) fn complete_history(&mut self) -> Result<(), Error> {
        match self.saved.history.load_file(&self.folder) {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                log::error!("{error} (the uptime history before this hour is lost)");
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

/// The state, whether its latest events are in `events.jsonl`, and a warning if the state is lost.
fn load(folder: &Folder, reading: &BootClockReading) -> Result<(SavedState, bool, Option<String>), String> {
    match store::state::load(folder, reading).map_err(|error| error.to_string())? {
        Loaded::Fresh => Ok((new_state(folder), true, None)),
        Loaded::Read(saved) => {
            let appended = events::append_missing(folder, &saved.pending);
            if let Err(error) = &appended {
                log::warn!("{error} (the latest events are kept in memory)");
            }
            Ok((*saved, appended.is_ok(), None))
        }
        Loaded::SetAside { to, why } => {
            let kept = format!("it is kept as {}", to.display());
            let lost =
                format!("{why}; {kept}. The latest restarts are unknown: no restart before max_cooldown has passed");
            log::error!("{lost}");
            Ok((new_state(folder), true, Some(lost)))
        }
    }
}

/// Without a state, the events still say which ids were given to incidents whose folders are not there, or not yet.
fn new_state(folder: &Folder) -> SavedState {
    let mut saved = SavedState::default();
    // Events that cannot be read are no reason not to start: the folders of incidents show most ids too.
    for entry in events::read(folder, None).unwrap_or_default() {
        entry.kind.incident().into_iter().for_each(|id| saved.policy.incident_ids.remember(id.to_owned()));
    }
    saved
}

/// Names no pid of a tick: each tick has another one, and cron would mail each change of the text.
fn describe_takeover(held: &HeldBy, folder: &Path) -> String {
    let (visibility, note) = match held {
        HeldBy::Visible(holder) => ("", Some((holder.mode, holder.pid, holder.config.display().to_string()))),
        HeldBy::Hidden(HiddenHolder { note, .. }) => {
            (" that is not visible here", note.as_ref().map(|note| (note.mode, note.pid, note.config.clone())))
        }
    };
    let who = match note {
        Some((Mode::Daemon, pid, config)) => {
            format!("another watchdog{visibility} (pid {pid}, configuration {config})")
        }
        Some((Mode::Once, _, config)) => format!("a tick{visibility} (configuration {config})"),
        None => format!("another watchdog{visibility}"),
    };
    format!("{who} has taken over {}", folder.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::lock::LockNote;

    #[test]
    fn a_takeover_names_the_daemon_but_no_pid_of_a_tick() {
        #[track_caller]
        fn check(mode: Option<Mode>, expected: &str) {
            let note = mode.map(|mode| LockNote { pid: 7, started: 1, mode, config: "/w.yaml".into() });
            let held = HeldBy::Hidden(HiddenHolder { note, touched: Default::default() });
            assert_eq!(describe_takeover(&held, Path::new("/s")), format!("{expected} has taken over /s"));
        }
        check(None, "another watchdog that is not visible here");
        let daemon = "another watchdog that is not visible here (pid 7, configuration /w.yaml)";
        check(Some(Mode::Daemon), daemon);
        check(Some(Mode::Once), "a tick that is not visible here (configuration /w.yaml)");
    }
}

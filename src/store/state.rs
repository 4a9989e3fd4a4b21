//! Saves everything that must outlive the process in `state.json`, as a whole. Times in it are on the boot clock of
//! the boot in which they were written; reading converts them to the current one.
//! It must never guess at a damaged file, nor overwrite one before it was set aside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::history::{Gaps, History};
use super::{BootClockReading, Elapsed, Error, Folder, Stamp, files};
use crate::notify::Outbox;
use crate::outcome::{Class, FileTime, Pm2LogState};
use crate::policy::{Mode, State};
use crate::time::{BootTime, ClockReading, WallTime, Zone};

const STATE: &str = "state.json";
const SET_ASIDE_PREFIX: &str = "state.json.corrupt-";
const MAX_SET_ASIDE: usize = 3;
/// The format version that this code writes, and the newest that it reads.
const VERSION: u64 = 1;
/// A thousand targets with full histories and windows take about 6 MiB.
const MAX_SIZE: u64 = 32 << 20;
/// Smaller differences come from slewing (NTP), not from setting the clock.
const MAX_DRIFT: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedState {
    /// What the policy remembers. Filled only when the file is read: a running watchdog has this in its policy.
    #[serde(skip_serializing)]
    pub policy: State,
    pub history: History,
    /// By target: the span of failures that did not reach the threshold yet. It counts as down unless the target turns
    /// out to be deliberately stopped.
    pub undecided: BTreeMap<String, (WallTime, WallTime)>,
    /// By target: the file of its file probe when it was last seen.
    pub files: BTreeMap<String, FileTime>,
    pub counts: BTreeMap<String, Counts>,
    /// By PM2 home: how far its log was read. Saved together with what was counted in it.
    pub pm2_logs: BTreeMap<PathBuf, Pm2LogState>,
    pub gaps: Gaps,
    pub first_start: Option<WallTime>,
    /// Lines of events that may not be in `events.jsonl` yet; see [`super::events::append_missing`].
    pub pending: Vec<String>,
    pub mode: Option<Mode>,
    pub pid: Option<u32>,
    pub started: Option<WallTime>,
    /// When it last completed a pass of the loop.
    pub last_seen: Option<WallTime>,
    /// Whether it was ended by `stop`.
    pub stopped: bool,
    /// Whether the machine was rebooted since the state was written.
    #[serde(skip)]
    pub rebooted: bool,
    /// When it was written, on the current boot clock. Filled only when the file is read.
    #[serde(skip)]
    pub written_at: Option<BootTime>,
    /// By how many milliseconds the wall clock was set since then. Known only within one boot.
    #[serde(skip)]
    pub wall_step_ms: i64,
    /// The configuration, and the log that it names.
    pub config: Option<PathBuf>,
    /// The modification time of the configuration when it was read.
    #[serde(rename = "config_written")]
    pub config_modified: Option<WallTime>,
    pub log: Option<PathBuf>,
    /// Why log lines are being lost.
    pub log_trouble: Option<String>,
    /// When the executables of the restart commands were last searched for.
    #[serde(rename = "checked")]
    pub programs_checked: Option<WallTime>,
    pub outbox: Outbox,
    /// By target: the channels that were notified that it is flapping, so that not every outage is sent.
    #[serde(rename = "told_of_flapping")]
    pub flapping_notified: BTreeMap<String, BTreeSet<String>>,
    pub channels: usize,
    /// The notification settings that a missing `${NAME}` disables, as last reported to the operator.
    #[serde(rename = "off")]
    pub disabled_channels: Vec<String>,
    /// The part of each target's configuration that `status` shows.
    #[serde(rename = "shown")]
    pub views: BTreeMap<String, TargetView>,
}

/// Counted since a watchdog in this folder first watched the target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub healthy: u64,
    #[serde(rename = "bad")]
    pub failed: BTreeMap<Class, u64>,
    pub unknown: u64,
    pub attempts: u64,
    pub incidents: u64,
}

/// What `status` shows of a target in addition to what the policy remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetView {
    pub order: usize,
    pub threshold: u32,
    /// The span in which restarts are limited.
    pub window_ms: u64,
    #[serde(rename = "repairs")]
    pub has_restart_commands: bool,
    pub dry_run: bool,
    pub depends_on: Vec<String>,
    /// The limit above which a healthy answer is slow, in milliseconds.
    pub slow_ms: Option<u64>,
}

impl SavedState {
    /// Corrects the times of this boot after the wall clock was set by `moved` milliseconds, so that they stay as old
    /// as they are. `booted` is the time of the boot by the wall clock before it was set.
    pub fn correct_wall_times(&mut self, booted: WallTime, moved: i64) {
        self.gaps.correct_since_boot(booted, moved);
        for at in [&mut self.first_start, &mut self.programs_checked].into_iter().flatten() {
            *at = at.corrected_since(booted, moved);
        }
    }

    pub fn targets_in_order(&self) -> Vec<(&String, &TargetView)> {
        let mut targets: Vec<_> = self.views.iter().collect();
        targets.sort_by_key(|(_, shown)| shown.order);
        targets
    }

    /// Ticks with gaps up to this are still running: three times the usual gap, at least 5 min and at most 1 h.
    pub fn max_tick_gap(&self) -> Duration {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        self.policy.ticks.usual_gap().unwrap_or_default().saturating_mul(3).clamp(minutes(5), minutes(60))
    }

    /// Whether the watchdog that wrote this may still be in use: a daemon that was not stopped and saved within 120 s
    /// (it saves every minute), or ticks that still run.
    pub fn ran_recently(&self, now: BootTime) -> bool {
        let longest = match self.mode {
            Some(Mode::Daemon) if !self.stopped => Duration::from_secs(120),
            Some(Mode::Once) => self.max_tick_gap(),
            Some(Mode::Daemon) | None => return false,
        };
        self.age(now).is_some_and(|age| age <= longest)
    }

    pub fn age(&self, now: BootTime) -> Option<Duration> {
        self.written_at.map(|written| now.since(written))
    }

    /// How long ago the wall clock showed `then`. If the clock was set after the state was written, `then` may be from
    /// before or after that, and the state itself proves that the watchdog was alive when it was written: the shortest
    /// of the three ages counts.
    pub fn elapsed_since(&self, then: WallTime, at: ClockReading) -> Duration {
        let by_wall = |set_by: i64| {
            let ms = at.wall.as_ms().saturating_sub(then.as_ms()).saturating_sub(set_by);
            Duration::from_millis(ms.unsigned_abs())
        };
        let (Some(written), Some(seen), false) = (self.written_at, self.last_seen, self.rebooted) else {
            return by_wall(0);
        };
        let passed = at.now.as_ms().saturating_sub(written.as_ms());
        let set_by = at.wall.as_ms().saturating_sub(seen.as_ms()).saturating_sub(passed);
        match Duration::from_millis(set_by.unsigned_abs()) > MAX_DRIFT {
            true => by_wall(0).min(by_wall(set_by)).min(at.now.since(written)),
            false => by_wall(0),
        }
    }
}

#[derive(Debug)]
pub enum Loaded {
    /// There is no state: this is the first start here.
    Fresh,
    /// The state, with its times converted to the current boot clock.
    Read(Box<SavedState>),
    /// The state could not be read and was renamed. Its cooldowns and windows are lost.
    SetAside { to: PathBuf, why: Error },
}

#[derive(Serialize)]
struct StateFile<'a, P> {
    version: u64,
    written: Stamp,
    policy: &'a P,
    state: &'a SavedState,
}

#[derive(Deserialize)]
struct ParsedState {
    written: Stamp,
    policy: State,
    state: SavedState,
}

/// Writes the whole state. `durable`: synced, so that a power loss does not undo it; otherwise the file is still whole
/// after a crash of the watchdog. `policy` is what the policy remembers, in the form of a [`State`]. Only the holder
/// of the lock may call this.
/// Errors: it could not be written, and the old state is intact; or the new one is in place, but could not be synced.
pub fn save(
    folder: &Folder,
    saved: &SavedState,
    policy: &impl Serialize,
    reading: &BootClockReading,
    durable: bool,
) -> Result<(), Error> {
    folder.ensure()?;
    let path = folder.file(STATE);
    let written = Stamp::of(reading);
    let document = StateFile { version: VERSION, written, policy, state: saved };
    files::replace_with(&path, durable, |file| serde_json::to_writer(file, &document).map_err(io::Error::from))
        .map_err(|cause| Error::new("save", &path, cause))
}

/// Reads the state, and sets a damaged one aside. Only the holder of the lock may call this.
/// Errors: an I/O error prevents reading a file that may be intact, or setting a damaged one aside. Nothing was
/// changed.
pub fn load(folder: &Folder, reading: &BootClockReading) -> Result<Loaded, Error> {
    match peek(folder, reading) {
        Ok(Some(saved)) => Ok(Loaded::Read(saved)),
        Ok(None) => {
            // Set aside by a watchdog that ended before its first save: that state is still lost.
            let why = "it was set aside as damaged, and no new one has been saved since";
            let latest = list_set_aside(folder)?.pop();
            let why = Error::new("read", &folder.file(STATE), files::invalid_data(why));
            Ok(latest.map_or(Loaded::Fresh, |to| Loaded::SetAside { to, why }))
        }
        Err(why) if why.kind() == io::ErrorKind::InvalidData => {
            let to = set_aside(folder, reading.at.wall)?;
            Ok(Loaded::SetAside { to, why })
        }
        Err(error) => Err(error),
    }
}

/// Reads the state as [`load`] does, but changes nothing. `None`: there is no state.
/// Errors: it cannot be read; if it is damaged or of a newer version, the kind is `InvalidData`.
pub fn peek(folder: &Folder, reading: &BootClockReading) -> Result<Option<Box<SavedState>>, Error> {
    let path = folder.file(STATE);
    let read = files::read(&path, MAX_SIZE).and_then(|bytes| parse(&bytes));
    match read {
        Ok(parsed) => Ok(Some(Box::new(parsed.into_saved(reading)))),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::new("read", &path, cause)),
    }
}

fn parse(bytes: &[u8]) -> io::Result<ParsedState> {
    #[derive(Deserialize)]
    struct Header {
        version: u64,
    }
    // The version first: the rest of a newer format need not be readable here.
    let broken = |error: serde_json::Error| files::invalid_data(error.to_string());
    match serde_json::from_slice(bytes).map_err(broken)? {
        Header { version: VERSION } => serde_json::from_slice(bytes).map_err(broken),
        Header { version } => {
            Err(files::invalid_data(format!("it has format version {version}; this watchdog reads version {VERSION}")))
        }
    }
}

impl ParsedState {
    fn into_saved(self, reading: &BootClockReading) -> SavedState {
        let ParsedState { written, policy, state: mut saved } = self;
        saved.policy = policy;
        let Elapsed { ms, rebooted } = written.elapsed(reading);
        let boot_ms = reading.at.now.as_ms().saturating_sub(written.boot.as_ms());
        let shift = boot_ms.saturating_sub(ms);
        saved.policy.shift(shift);
        saved.outbox.shift(shift);
        saved.files.values_mut().for_each(|file| file.seen = file.seen.offset_by(shift));
        // What was written before this boot is at least as old as the boot, whatever the wall clock shows.
        let age = if rebooted { ms.max(reading.at.now.as_ms()) } else { ms };
        saved.written_at = Some(reading.at.now.offset_by(age.saturating_neg()));
        if rebooted {
            saved.policy.reboot();
            saved.rebooted = true;
        }
        let by_wall = reading.at.wall.as_ms().saturating_sub(written.wall.as_ms());
        saved.wall_step_ms = if rebooted { 0 } else { by_wall.saturating_sub(ms) };
        saved
    }
}

/// Renames the damaged state and removes the oldest ones.
fn set_aside(folder: &Folder, wall: WallTime) -> Result<PathBuf, Error> {
    let path = folder.file(STATE);
    let stamp = Zone::UTC.file_stamp(wall);
    let names = (1..).map(|n: u32| match n {
        1 => format!("{SET_ASIDE_PREFIX}{stamp}"),
        _ => format!("{SET_ASIDE_PREFIX}{stamp}-{n}"),
    });
    let free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
    let to = names.map(|name| folder.file(&name)).find(free).expect("there is always another number");
    fs::rename(&path, &to).map_err(|cause| Error::new("set aside", &path, cause))?;
    let mut others = list_set_aside(folder)?;
    others.retain(|path| *path != to);
    for old in others.iter().rev().skip(MAX_SET_ASIDE - 1) {
        // One too many does no harm; the next call tries again.
        let _ = fs::remove_file(old);
    }
    Ok(to)
}

/// The states that were set aside, the latest last.
fn list_set_aside(folder: &Folder) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(folder.path()) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|cause| Error::new("read", folder.path(), cause))?,
    };
    let set_aside_path =
        |entry: fs::DirEntry| entry.file_name().to_str()?.starts_with(SET_ASIDE_PREFIX).then(|| entry.path());
    let mut found: Vec<PathBuf> = entries.flatten().filter_map(set_aside_path).collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;

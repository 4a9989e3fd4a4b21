//! `state.json`: everything that must outlive the process, written whole. Points in time lie there on the boot clock
//! they were written on; reading moves them to the present one.
//! It must never guess at a damaged file, and never overwrite one before it was set aside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::history::{Gaps, History};
use super::{BootClockReading, Elapsed, Error, Folder, Stamp, files};
use crate::notify::Outbox;
use crate::outcome::{Class, FileTime};
use crate::policy::{Mode, State};
use crate::time::{BootTime, ClockReading, WallTime, Zone};

const STATE: &str = "state.json";
const CORRUPT: &str = "state.json.corrupt-";
const CORRUPT_KEPT: usize = 3;
/// The format that this code writes, and the newest that it reads.
const VERSION: u64 = 1;
/// A thousand targets with full histories and windows take about 6 MiB.
const MAX_SIZE: u64 = 32 << 20;
/// By less the wall clock is not set but steered.
const DRIFT: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedState {
    /// What the policy remembers. Only whoever reads the file has it here: a watchdog at work has it in its policy.
    #[serde(skip_serializing)]
    pub policy: State,
    pub history: History,
    /// By target: the span in which it failed and was not called down yet. It counts as down unless it turns out that
    /// the target is deliberately at rest.
    pub undecided: BTreeMap<String, (WallTime, WallTime)>,
    /// By target: its file as it was seen last.
    pub files: BTreeMap<String, FileTime>,
    pub counts: BTreeMap<String, Counts>,
    pub gaps: Gaps,
    pub first_start: Option<WallTime>,
    /// Lines of events that may not have reached `events.jsonl` yet; see [`super::events::append_missing`].
    pub pending: Vec<String>,
    pub mode: Option<Mode>,
    pub pid: Option<u32>,
    pub started: Option<WallTime>,
    /// When it last ended a round of work.
    pub last_seen: Option<WallTime>,
    /// Whether it ended by its `stop`.
    pub stopped: bool,
    /// Whether the machine was rebooted since it was written.
    #[serde(skip)]
    pub rebooted: bool,
    /// When it was written, on the present boot clock. Only whoever reads the file has it here.
    #[serde(skip)]
    pub written: Option<BootTime>,
    /// By how many milliseconds the wall clock was set since, as far as that can be known: within one boot.
    #[serde(skip)]
    pub wall_moved: i64,
    /// The configuration, and the log that it asks for.
    pub config: Option<PathBuf>,
    /// When the configuration's file was last written to before it was read.
    pub config_written: Option<WallTime>,
    pub log: Option<PathBuf>,
    /// Why lines of the log are being lost.
    pub log_trouble: Option<String>,
    /// When the executables of the restart commands were last looked up.
    pub checked: Option<WallTime>,
    pub outbox: Outbox,
    /// By target: the channels that know that it goes down again and again, and that not each time is told.
    pub told_of_flapping: BTreeMap<String, BTreeSet<String>>,
    pub channels: usize,
    /// What a missing `${NAME}` has switched off, as the operator was last told.
    pub off: Vec<String>,
    /// What the configuration says of the targets, as far as `status` tells it.
    pub shown: BTreeMap<String, TargetView>,
}

/// What was counted of a target since the first watchdog here began to watch it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub healthy: u64,
    pub bad: BTreeMap<Class, u64>,
    pub unknown: u64,
    pub attempts: u64,
    pub incidents: u64,
}

/// What `status` tells of a target beside what the policy remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetView {
    pub order: usize,
    pub threshold: u32,
    /// The span in which restarts are limited.
    pub window_ms: u64,
    pub repairs: bool,
    pub dry_run: bool,
    pub depends_on: Vec<String>,
}

impl SavedState {
    /// The wall clock was set by so many milliseconds within a boot that began at `booted`, by what it said before.
    /// Whatever it said since then is moved with it, so that it stays as old as it is.
    pub fn wall_was_set(&mut self, booted: WallTime, moved: i64) {
        self.gaps.move_since_boot(booted, moved);
        for at in [&mut self.first_start, &mut self.checked].into_iter().flatten() {
            *at = at.corrected_since(booted, moved);
        }
    }

    pub fn in_order(&self) -> Vec<(&String, &TargetView)> {
        let mut targets: Vec<_> = self.shown.iter().collect();
        targets.sort_by_key(|(_, shown)| shown.order);
        targets
    }

    /// Ticks that came within this come still: three times their usual distance, at least 5 min and at most 1 h.
    pub fn tick_patience(&self) -> Duration {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        self.policy.ticks.usual_gap().unwrap_or_default().saturating_mul(3).clamp(minutes(5), minutes(60))
    }

    /// Whether the watchdog that wrote this may still mean to work here: a daemon that was not stopped and saved within
    /// 120 s, as it does every minute, or ticks that come still.
    pub fn worked_lately(&self, now: BootTime) -> bool {
        let longest = match self.mode {
            Some(Mode::Daemon) if !self.stopped => Duration::from_secs(120),
            Some(Mode::Once) => self.tick_patience(),
            Some(Mode::Daemon) | None => return false,
        };
        self.age(now).is_some_and(|age| age <= longest)
    }

    pub fn age(&self, now: BootTime) -> Option<Duration> {
        self.written.map(|written| now.since(written))
    }

    /// How long ago the wall clock said `then`. Where it was set since the state was written, `then` may be of before
    /// or after that, or of a time at which the watchdog was alive for all that is known here: the shortest of these.
    pub fn since(&self, then: WallTime, at: ClockReading) -> Duration {
        let by_wall = |set_by: i64| {
            let ms = at.wall.as_ms().saturating_sub(then.as_ms()).saturating_sub(set_by);
            Duration::from_millis(ms.unsigned_abs())
        };
        let (Some(written), Some(seen), false) = (self.written, self.last_seen, self.rebooted) else {
            return by_wall(0);
        };
        let passed = at.now.as_ms().saturating_sub(written.as_ms());
        let set_by = at.wall.as_ms().saturating_sub(seen.as_ms()).saturating_sub(passed);
        match Duration::from_millis(set_by.unsigned_abs()) > DRIFT {
            true => by_wall(0).min(by_wall(set_by)).min(at.now.since(written)),
            false => by_wall(0),
        }
    }
}

#[derive(Debug)]
pub enum Loaded {
    /// No state: the first start here.
    Fresh,
    /// The state, its times moved to the present boot clock.
    Read(Box<SavedState>),
    /// A state that cannot be read, kept under another name. What it knew of cooldowns and windows is lost.
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
struct FoundState {
    written: Stamp,
    policy: State,
    state: SavedState,
}

/// Writes the state whole. `durable`: synced, so that a loss of power does not undo it; without, the file is whole
/// after a crash of the watchdog all the same. `policy` is what the policy remembers, in the form of a [`State`].
/// Only whoever holds the lock may call this.
/// Errors: it could not be written, and the old state is intact; or the new one is in place, but could not be synced.
pub fn save(
    folder: &Folder,
    saved: &SavedState,
    policy: &impl Serialize,
    moment: &BootClockReading,
    durable: bool,
) -> Result<(), Error> {
    folder.ensure()?;
    let path = folder.file(STATE);
    let written = Stamp::of(moment);
    let document = StateFile { version: VERSION, written, policy, state: saved };
    files::replace_by(&path, durable, |file| serde_json::to_writer(file, &document).map_err(io::Error::from))
        .map_err(|cause| Error::new("save", &path, cause))
}

/// Reads the state, and sets a damaged one aside. Only whoever holds the lock may call this.
/// Errors: the machine failed us: the file may be in order, but cannot be read, or a damaged one not be set aside.
/// Nothing was changed.
pub fn load(folder: &Folder, moment: &BootClockReading) -> Result<Loaded, Error> {
    match peek(folder, moment) {
        Ok(Some(saved)) => Ok(Loaded::Read(saved)),
        Ok(None) => {
            // Set aside by a watchdog that ended before it could save anew: what was lost then is lost still.
            let why = "it was set aside as damaged, and none was saved since";
            let latest = set_aside_before(folder)?.pop();
            let why = Error::new("read", &folder.file(STATE), files::damaged(why));
            Ok(latest.map_or(Loaded::Fresh, |to| Loaded::SetAside { to, why }))
        }
        Err(why) if why.kind() == io::ErrorKind::InvalidData => {
            let to = set_aside(folder, moment.at.wall)?;
            Ok(Loaded::SetAside { to, why })
        }
        Err(error) => Err(error),
    }
}

/// Reads the state as [`load`] does, but touches nothing: for those who only look. `None`: there is no state.
/// Errors: it cannot be read; when it is damaged or of a newer version, the kind is `InvalidData`.
pub fn peek(folder: &Folder, moment: &BootClockReading) -> Result<Option<Box<SavedState>>, Error> {
    let path = folder.file(STATE);
    let read = files::read(&path, MAX_SIZE).and_then(|bytes| parse(&bytes));
    match read {
        Ok(found) => Ok(Some(Box::new(found.at(moment)))),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::new("read", &path, cause)),
    }
}

fn parse(bytes: &[u8]) -> io::Result<FoundState> {
    #[derive(Deserialize)]
    struct Header {
        version: u64,
    }
    // The version first: what else a newer one holds need not make sense to us.
    let broken = |error: serde_json::Error| files::damaged(error.to_string());
    match serde_json::from_slice(bytes).map_err(broken)? {
        Header { version: VERSION } => serde_json::from_slice(bytes).map_err(broken),
        Header { version } => {
            Err(files::damaged(format!("it is of version {version}, and this watchdog reads version {VERSION}")))
        }
    }
}

impl FoundState {
    fn at(self, moment: &BootClockReading) -> SavedState {
        let FoundState { written, policy, state: mut saved } = self;
        saved.policy = policy;
        let Elapsed { ms, rebooted } = written.elapsed(moment);
        let by_boot = moment.at.now.as_ms().saturating_sub(written.boot.as_ms());
        let by = by_boot.saturating_sub(ms);
        saved.policy.shift(by);
        saved.outbox.shift(by);
        saved.files.values_mut().for_each(|file| file.seen = file.seen.offset_by(by));
        // What was written before this boot is at least as old as the boot, whatever the wall clock says.
        let age = if rebooted { ms.max(moment.at.now.as_ms()) } else { ms };
        saved.written = Some(moment.at.now.offset_by(age.saturating_neg()));
        if rebooted {
            saved.policy.reboot();
            saved.rebooted = true;
        }
        let by_wall = moment.at.wall.as_ms().saturating_sub(written.wall.as_ms());
        saved.wall_moved = if rebooted { 0 } else { by_wall.saturating_sub(ms) };
        saved
    }
}

/// Renames the damaged state and removes the oldest of its kind.
fn set_aside(folder: &Folder, wall: WallTime) -> Result<PathBuf, Error> {
    let path = folder.file(STATE);
    let stamp = Zone::UTC.file_stamp(wall);
    let names = (1..).map(|n: u32| match n {
        1 => format!("{CORRUPT}{stamp}"),
        _ => format!("{CORRUPT}{stamp}-{n}"),
    });
    let free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
    let to = names.map(|name| folder.file(&name)).find(free).expect("there is always another number");
    fs::rename(&path, &to).map_err(|cause| Error::new("set aside", &path, cause))?;
    let mut others = set_aside_before(folder)?;
    others.retain(|path| *path != to);
    for old in others.iter().rev().skip(CORRUPT_KEPT - 1) {
        // One too many does no harm, and is tried again at the next one.
        let _ = fs::remove_file(old);
    }
    Ok(to)
}

/// States that were set aside, the latest last.
fn set_aside_before(folder: &Folder) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(folder.path()) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|cause| Error::new("read", folder.path(), cause))?,
    };
    let ours = |entry: fs::DirEntry| entry.file_name().to_str()?.starts_with(CORRUPT).then(|| entry.path());
    let mut found: Vec<PathBuf> = entries.flatten().filter_map(ours).collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;

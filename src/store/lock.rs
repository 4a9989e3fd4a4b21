//! The lock that admits one watchdog to a state folder. The kernel holds it, so it goes with its process, however that
//! ends; the file says who holds it, and its modification time is the sign of life.
//! The file is never deleted: two processes could then hold two locks of one name.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW};
use serde::{Deserialize, Serialize};

use super::files::{self, Inode};
use super::{Error, Folder, descriptors};
use crate::process::{self, Process};
use crate::time::Wall;

const LOCK: &str = "watchdog.lock";
const STOPPED: &str = "stopped";
/// Far more than a pid, a path of the system's greatest length and what JSON makes of its characters.
const MAX_NOTE: u64 = 64 << 10;
/// Between two looks at a lock whose holder is just changing.
const PAUSE: Duration = Duration::from_millis(5);
/// Looks before a lock that is surely held has a holder who does not say who it is: 1 s.
const LOOKS_WHEN_HELD: u32 = 200;
/// Looks before nobody holds it, though somebody may just have locked it and not written yet: 50 ms.
const LOOKS_WHEN_NOT: u32 = 10;

/// How the holder works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Until it is stopped.
    Daemon,
    /// One tick.
    Once,
}

impl Mode {
    /// The contract's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Daemon => "daemon",
            Mode::Once => "once",
        }
    }
}

/// What the lock file says, on one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    pid: u32,
    /// In clock ticks after boot.
    started: u64,
    mode: Mode,
    config: String,
}

/// A process that holds the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its start time in clock ticks after boot.
    pub started: u64,
    /// How it works.
    pub mode: Mode,
    /// Its configuration.
    pub config: PathBuf,
    /// Its last sign of life.
    pub touched: Wall,
}

/// Why the lock could not be had.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it: this one, or one that does not say who it is (it may live in another container).
    Held(Option<Holder>),
    /// The machine failed us.
    Io(Error),
}

/// What [`Lock::touch`] found.
#[derive(Debug)]
pub enum Touched {
    /// The lock is ours and its sign of life is new.
    Ours,
    /// The file was deleted or replaced; it was made again, and the new one is ours.
    Remade,
    /// The file was deleted, and another watchdog has the new one. Whoever learns this must stop.
    Lost(Option<Holder>),
}

/// The lock, held until this is dropped or the process ends. Processes that this one starts do not inherit it.
#[derive(Debug)]
pub struct Lock {
    folder: Folder,
    file: File,
    note: Note,
    /// Whether the file says that we hold it: on a full disk it may not.
    announced: bool,
}

impl Lock {
    /// Takes the lock, or says who has it. Does not wait for it, but up to 1 s for its holder to say who it is.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn try_acquire(folder: &Folder, mode: Mode, config: &Path) -> Result<Lock, LockError> {
        let pid = std::process::id();
        let Process { started, .. } = process::living(pid).ok_or_else(|| {
            let stat = PathBuf::from(format!("/proc/{pid}/stat"));
            LockError::Io(Error::new("read", &stat, io::Error::other("it does not say when this process began")))
        })?;
        let config = config.to_string_lossy().into_owned();
        Lock::claim(folder, Note { pid, started, mode, config })
    }

    fn claim(folder: &Folder, note: Note) -> Result<Lock, LockError> {
        let path = folder.file(LOCK);
        let failed = |cause| LockError::Io(Error::new("lock", &path, cause));
        for _ in 0..LOOKS_WHEN_HELD {
            folder.ensure().map_err(LockError::Io)?;
            let file = files::open_or_create(&path).map_err(failed)?;
            match file.try_lock() {
                // Deleted or replaced since it was opened: that lock would be ours alone, and worth nothing.
                Ok(()) if !is_at(&file, &path) => {}
                Ok(()) => {
                    let mut lock = Lock { folder: folder.clone(), file, note, announced: false };
                    // A full disk must not keep the watchdog from its work. The next touch tries again, and tells.
                    let _ = lock.announce();
                    return Ok(lock);
                }
                Err(TryLockError::WouldBlock) => {
                    if let Some(holder) = look(folder) {
                        return Err(LockError::Held(Some(holder)));
                    }
                    thread::sleep(PAUSE);
                }
                Err(TryLockError::Error(cause)) => return Err(failed(cause)),
            }
        }
        Err(LockError::Held(None))
    }

    /// Gives the sign of life, and makes sure that the lock still is the one that others find.
    ///
    /// # Errors
    /// The lock is held still, but the sign could not be given, or a deleted file not be made again.
    pub fn touch(&mut self) -> Result<Touched, Error> {
        let path = self.folder.file(LOCK);
        if !is_at(&self.file, &path) {
            return match Lock::claim(&self.folder, self.note.clone()) {
                Ok(lock) => {
                    *self = lock;
                    Ok(Touched::Remade)
                }
                Err(LockError::Held(holder)) => Ok(Touched::Lost(holder)),
                Err(LockError::Io(error)) => Err(error),
            };
        }
        let failed = |cause: io::Error| Error::new("write", &path, cause);
        if !self.announced {
            self.announce().map_err(failed)?;
        }
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        rustix::fs::futimens(&self.file, &Timestamps { last_access: now, last_modification: now })
            .map_err(|cause| failed(cause.into()))?;
        Ok(Touched::Ours)
    }

    /// Written over what was there, the rest cut off afterwards: a disk that is full has room for that, and a reader,
    /// who reads one line, finds the old one or the new. Should he find a mixture, its holder cannot be found alive.
    fn announce(&mut self) -> io::Result<()> {
        let mut line = serde_json::to_string(&self.note).expect("numbers and text have a JSON form");
        line.push('\n');
        self.file.write_all_at(line.as_bytes(), 0)?;
        self.file.set_len(line.len() as u64)?;
        self.announced = true;
        Ok(())
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(found)) => Inode::of(&ours) == Inode::of(&found),
        _ => false,
    }
}

/// Who holds the lock, without taking it, for a lock taken even for an instant could turn a watchdog away.
/// A file left by one that is gone is nobody's, even when another process has its pid now.
pub fn read_holder(folder: &Folder) -> Option<Holder> {
    for _ in 0..LOOKS_WHEN_NOT {
        if !fs::exists(folder.file(LOCK)).is_ok_and(|there| there) {
            return None;
        }
        let holder = look(folder);
        if holder.is_some() {
            return holder;
        }
        thread::sleep(PAUSE);
    }
    None
}

/// Whether the pid is that holder's beyond doubt, now: for whoever is about to kill it.
pub fn prove(folder: &Folder, holder: &Holder) -> bool {
    let Ok(metadata) = fs::symlink_metadata(folder.file(LOCK)) else { return false };
    let lock = Inode::of(&metadata);
    process::is_ours(holder.pid)
        && has_open(holder.pid, lock).is_ok_and(|open| open)
        // Asked last: had the pid gone to another process meanwhile, its start time would be another.
        && process::is_alive(Process { pid: holder.pid, started: holder.started })
}

/// One look at the file and at the process that it names.
fn look(folder: &Folder) -> Option<Holder> {
    let path = folder.file(LOCK);
    let metadata = fs::symlink_metadata(&path).ok()?;
    let bytes = files::read(&path, MAX_NOTE).ok()?;
    let line = bytes.split(|&byte| byte == b'\n').next()?;
    let Note { pid, started, mode, config } = serde_json::from_slice(line).ok()?;
    // Of a process whose files we may not see, its start time must do.
    let holds = has_open(pid, Inode::of(&metadata)).unwrap_or(true) && process::is_alive(Process { pid, started });
    let touched = files::modified(&metadata);
    holds.then(|| Holder { pid, started, mode, config: PathBuf::from(config), touched })
}

fn has_open(pid: u32, lock: Inode) -> io::Result<bool> {
    Ok(descriptors::open_files(pid, |name| name == LOCK)?.contains(&lock))
}

/// Leaves the mark that the watchdog was stopped by hand, which `start --cron` respects.
///
/// # Errors
/// The mark cannot be written.
pub fn mark_stopped(folder: &Folder) -> Result<(), Error> {
    folder.ensure()?;
    let path = folder.file(STOPPED);
    files::replace(&path, b"", true).map_err(|cause| Error::new("write", &path, cause))
}

/// When the watchdog was stopped by hand, if nobody started one since.
pub fn stopped_by_hand(folder: &Folder) -> Option<Wall> {
    Some(files::modified(&fs::symlink_metadata(folder.file(STOPPED)).ok()?))
}

/// Takes the mark away, as every start by hand does.
///
/// # Errors
/// There is one and it cannot be removed.
pub fn clear_stopped(folder: &Folder) -> Result<(), Error> {
    let path = folder.file(STOPPED);
    files::remove(&path).map_err(|cause| Error::new("remove", &path, cause))
}

#[cfg(test)]
mod tests;

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
use crate::policy::Mode;
use crate::process::{self, Process};
use crate::time::WallTime;

pub(super) const LOCK: &str = "watchdog.lock";
/// Far more than a pid, a path of the system's greatest length and what JSON makes of its characters.
const MAX_NOTE: u64 = 64 << 10;
/// Between two looks at a lock whose holder is just changing.
const PAUSE: Duration = Duration::from_millis(5);
/// Looks before a lock that is surely held has a holder who does not say who it is: 1 s.
const LOOKS_WHEN_HELD: u32 = 200;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockNote {
    /// The holder's process id, as it is called where it runs.
    pub pid: u32,
    /// Its start time in clock ticks after boot.
    pub started: u64,
    pub mode: Mode,
    pub config: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldBy {
    /// A process that can be seen from here.
    Seen(Holder),
    /// One that cannot: it runs in another container or on another machine, or did not say who it is.
    Unseen(Unseen),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// What the file says, where it can be read. It may still be the note of a holder before this one.
    pub note: Option<LockNote>,
    /// Its last sign of life.
    pub touched: WallTime,
}

impl Unseen {
    /// What the file says of it, taken on trust: without a note, it is a daemon.
    pub fn into_holder_on_trust(self) -> Holder {
        let touched = self.touched;
        match self.note {
            Some(LockNote { pid, started, mode, config }) => {
                Holder { pid, started, mode, config: PathBuf::from(config), touched }
            }
            None => Holder { pid: 0, started: 0, mode: Mode::Daemon, config: PathBuf::new(), touched },
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    /// Its start time in clock ticks after boot.
    pub started: u64,
    pub mode: Mode,
    pub config: PathBuf,
    pub touched: WallTime,
}

#[derive(Debug)]
pub enum LockError {
    Held(HeldBy),
    Io(Error),
}

#[derive(Debug)]
pub enum TouchResult {
    /// The lock is ours and its sign of life is new.
    Ours,
    /// The file was deleted or replaced; it was made again, and the new one is ours.
    Remade,
    /// The file was deleted and another watchdog has the new one, or another one's note stands in it: both have the
    /// lock then, as on a network drive that has dropped ours. Whoever learns this must stop.
    Lost(HeldBy),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolderProof {
    /// It is alive and has the lock file open: the pid is its beyond doubt.
    Holds,
    /// It is alive, but what it has open cannot be seen: it belongs to another account.
    Hidden,
    /// It is gone, or has let go of the lock.
    Over,
}

/// The lock, held until this is dropped or the process ends. Processes that this one starts do not inherit it.
#[derive(Debug)]
pub struct Lock {
    folder: Folder,
    file: File,
    note: LockNote,
    /// Whether the file says that we hold it: on a full disk it may not.
    announced: bool,
}

impl Lock {
    /// Takes the lock, or says who has it. Does not wait for it, but up to 1 s for its holder to say who it is.
    pub fn try_acquire(folder: &Folder, mode: Mode, config: &Path) -> Result<Lock, LockError> {
        let pid = std::process::id();
        let Process { started, .. } = process::identify_living(pid).ok_or_else(|| {
            let stat = PathBuf::from(format!("/proc/{pid}/stat"));
            LockError::Io(Error::new(
                "read",
                &stat,
                io::Error::other("it does not say when this process began: is /proc mounted here?"),
            ))
        })?;
        let config = config.to_string_lossy().into_owned();
        Lock::claim(folder, LockNote { pid, started, mode, config })
    }

    fn claim(folder: &Folder, note: LockNote) -> Result<Lock, LockError> {
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
                    // Held by somebody who does not say who it is, or for an instant by one who only asks.
                    if let Some(holder) = look(folder) {
                        return Err(LockError::Held(HeldBy::Seen(holder)));
                    }
                    thread::sleep(PAUSE);
                }
                Err(TryLockError::Error(cause)) => return Err(failed(cause)),
            }
        }
        Err(LockError::Held(HeldBy::Unseen(unseen(folder))))
    }

    /// Gives the sign of life, and makes sure that the lock still is the one that others find.
    /// Errors: the lock is held still, but the sign could not be given, or a deleted file not be made again.
    pub fn touch(&mut self) -> Result<TouchResult, Error> {
        let path = self.folder.file(LOCK);
        if !is_at(&self.file, &path) {
            return match Lock::claim(&self.folder, self.note.clone()) {
                Ok(lock) => {
                    *self = lock;
                    Ok(TouchResult::Remade)
                }
                Err(LockError::Held(holder)) => Ok(TouchResult::Lost(holder)),
                Err(LockError::Io(error)) => Err(error),
            };
        }
        let read = if self.announced { self.read_back() } else { Ok(None) };
        match &read {
            Ok(Some(note)) if *note != self.note => return Ok(TouchResult::Lost(named(&self.folder))),
            Ok(Some(_)) => {}
            // Not written yet, or damaged or emptied by somebody who is no watchdog.
            Ok(None) => self.announced = false,
            // What cannot be read just now is no reason to give no sign of life.
            Err(_) => {}
        }
        let failed = |cause: io::Error| Error::new("write", &path, cause);
        if !self.announced {
            self.announce().map_err(failed)?;
        }
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        rustix::fs::futimens(&self.file, &Timestamps { last_access: now, last_modification: now })
            .map_err(|cause| failed(cause.into()))?;
        read.map(|_| TouchResult::Ours).map_err(|cause| Error::new("read", &path, cause))
    }

    /// What stands in the file by now. It is open already: without free descriptors this works still.
    fn read_back(&self) -> io::Result<Option<LockNote>> {
        let mut bytes = vec![0; MAX_NOTE as usize];
        let length = self.file.read_at(&mut bytes, 0)?;
        Ok(note_in(&bytes[..length]))
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

/// Who holds the lock, whether that one can be seen from here or not. Waits up to 1 s for a holder that does not say
/// who it is. A file left by one that is gone is nobody's, even when another process has its pid now.
/// Errors: whether somebody holds it cannot be known.
pub fn read_lock(folder: &Folder) -> Result<Option<HeldBy>, Error> {
    let path = folder.file(LOCK);
    for _ in 0..LOOKS_WHEN_HELD {
        if let Some(holder) = look(folder) {
            return Ok(Some(HeldBy::Seen(holder)));
        }
        if !is_locked(&path).map_err(|cause| Error::new("look at", &path, cause))? {
            return Ok(None);
        }
        thread::sleep(PAUSE);
    }
    Ok(Some(HeldBy::Unseen(unseen(folder))))
}

/// Who holds the lock, if that is a process that can be seen from here.
pub fn read_holder(folder: &Folder) -> Option<Holder> {
    match read_lock(folder) {
        Ok(Some(HeldBy::Seen(holder))) => Some(holder),
        Ok(Some(HeldBy::Unseen(_)) | None) | Err(_) => None,
    }
}

/// Whether somebody holds the lock. Only the kernel knows that of processes in other containers, and only whoever asks
/// for the lock is told. It is asked for in the way that all who ask can have it at once, and given back immediately;
/// who wants it for good meanwhile finds nobody behind it, and tries again.
fn is_locked(path: &Path) -> io::Result<bool> {
    let file = match files::open(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(cause)) => Err(cause),
    }
}

/// Whether locks are to be had where the folder is or would be made. Nothing is left behind: it is tried on the lock
/// file or, where there is none, on a file without a name, or on a folder where the file system has no such files.
pub fn can_lock(folder: &Folder) -> Result<(), Error> {
    let path = folder.file(LOCK);
    let Some(existing) = folder.path().ancestors().find(|path| path.is_dir()) else { return Ok(()) };
    let unnamed = || files::open_unnamed(existing).or_else(|_| File::open(existing));
    // What cannot be opened is told by those who need it.
    let Ok(file) = files::open(&path).or_else(|_| unnamed()) else { return Ok(()) };
    match file.try_lock_shared() {
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(cause)) => Err(Error::new("lock", &path, cause)),
    }
}

/// Whether the pid is that holder's beyond doubt, now: for whoever is about to signal it.
pub fn prove(folder: &Folder, holder: &Holder) -> HolderProof {
    let Ok(metadata) = fs::symlink_metadata(folder.file(LOCK)) else { return HolderProof::Over };
    let open = has_open(holder.pid, Inode::of(&metadata));
    // Asked last: had the pid gone to another process meanwhile, its start time would be another.
    let is_alive = process::is_alive(Process { pid: holder.pid, started: holder.started });
    match (is_alive, open) {
        (true, Ok(true)) => HolderProof::Holds,
        (true, Err(_)) => HolderProof::Hidden,
        (true, Ok(false)) | (false, _) => HolderProof::Over,
    }
}

/// Whether the process of that holder is no more. It lets go of its lock a moment before.
pub fn is_gone(holder: &Holder) -> bool {
    !process::is_alive(Process { pid: holder.pid, started: holder.started })
}

pub fn last_held(folder: &Folder) -> Option<(Mode, WallTime)> {
    let Unseen { note, touched } = unseen(folder);
    Some((note?.mode, touched))
}

fn look(folder: &Folder) -> Option<Holder> {
    let path = folder.file(LOCK);
    let metadata = fs::symlink_metadata(&path).ok()?;
    let LockNote { pid, started, mode, config } = read_note(&path).ok()??;
    // Of a process whose files we may not see, its start time must do.
    let holds = has_open(pid, Inode::of(&metadata)).unwrap_or(true) && process::is_alive(Process { pid, started });
    let touched = files::modified(&metadata);
    holds.then(|| Holder { pid, started, mode, config: PathBuf::from(config), touched })
}

fn named(folder: &Folder) -> HeldBy {
    look(folder).map_or_else(|| HeldBy::Unseen(unseen(folder)), HeldBy::Seen)
}

fn unseen(folder: &Folder) -> Unseen {
    let path = folder.file(LOCK);
    let touched = fs::symlink_metadata(&path).map(|metadata| files::modified(&metadata)).unwrap_or_default();
    Unseen { note: read_note(&path).ok().flatten(), touched }
}

/// What the file says; `None` where that is no note.
fn read_note(path: &Path) -> io::Result<Option<LockNote>> {
    let bytes = match files::read(path, MAX_NOTE) {
        Err(cause) if cause.kind() == io::ErrorKind::InvalidData => return Ok(None),
        read => read?,
    };
    Ok(note_in(&bytes))
}

fn note_in(bytes: &[u8]) -> Option<LockNote> {
    serde_json::from_slice(bytes.split(|&byte| byte == b'\n').next()?).ok()
}

fn has_open(pid: u32, lock: Inode) -> io::Result<bool> {
    Ok(descriptors::open_files(pid, |name| name == LOCK)?.contains(&lock))
}

#[cfg(test)]
mod tests;

//! The lock that admits one watchdog to a state folder. The kernel holds it, so it is released when that process ends,
//! however it ends; the file names the holder, and its modification time is the holder's sign of life.
//! The file must never be deleted: two processes could then hold two locks of one name.

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

pub(super) const LOCK_NAME: &str = "watchdog.lock";
/// Much more than a pid and a path of the maximum length escaped for JSON.
const MAX_NOTE_SIZE: u64 = 64 << 10;
/// Between two tries at a lock whose holder is just changing.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);
/// Tries before a held lock counts as held by a process that does not identify itself: 1 s in all.
const MAX_TRIES: u32 = 200;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockNote {
    /// The process id in the holder's own pid namespace.
    pub pid: u32,
    /// In clock ticks after boot.
    pub started: u64,
    pub mode: Mode,
    pub config: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldBy {
    /// A process that is visible from here.
    Visible(Holder),
    /// A process that is not visible: it runs in another container or on another machine, or has not identified
    /// itself.
    Hidden(HiddenHolder),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenHolder {
    /// The note in the file, if it can be read. It may still be that of the previous holder.
    pub note: Option<LockNote>,
    /// The last sign of life.
    pub touched: WallTime,
}

impl HiddenHolder {
    /// Takes the note at its word; without a note, a daemon is assumed.
    pub fn into_holder_from_note(self) -> Holder {
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
    /// In clock ticks after boot.
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
    /// The lock is still held, and its sign of life is renewed.
    StillHeld,
    /// The file was deleted or replaced; it was created again, and the new one is locked.
    Recreated,
    /// The file was deleted and another watchdog has locked the new one, or it contains the note of another watchdog.
    /// In the second case both hold the lock, as on a network drive that has dropped the first lock. This
    /// watchdog must stop.
    Lost(HeldBy),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolderProof {
    /// It is alive and has the lock file open: the pid is certainly the holder's.
    Holds,
    /// It is alive, but its open files are not readable because it belongs to another account.
    Unproven,
    /// It has exited or has released the lock.
    NotHolding,
}

/// The lock, held until this value is dropped or the process ends. Processes started by this one do not inherit it.
#[derive(Debug)]
pub struct Lock {
    folder: Folder,
    file: File,
    note: LockNote,
    /// Whether the note was written: a full disk may prevent it.
    is_note_written: bool,
}

impl Lock {
    /// Acquires the lock, or reports who holds it. Does not wait for the lock, but up to 1 s for its holder to
    /// identify itself.
    pub fn try_acquire(folder: &Folder, mode: Mode, config: &Path) -> Result<Lock, LockError> {
        let pid = std::process::id();
        let Process { started, .. } = process::identify_living(pid).ok_or_else(|| {
            let stat = PathBuf::from(format!("/proc/{pid}/stat"));
            LockError::Io(Error::new(
                "read",
                &stat,
                io::Error::other("it does not contain the start time of this process; is /proc mounted?"),
            ))
        })?;
        let config = config.to_string_lossy().into_owned();
        Lock::acquire(folder, LockNote { pid, started, mode, config })
    }

    fn acquire(folder: &Folder, note: LockNote) -> Result<Lock, LockError> {
        let path = folder.file(LOCK_NAME);
        let failed = |cause| LockError::Io(Error::new("lock", &path, cause));
        for _ in 0..MAX_TRIES {
            folder.ensure().map_err(LockError::Io)?;
            let file = files::open_or_create(&path).map_err(failed)?;
            match file.try_lock() {
                // Deleted or replaced since it was opened: others would lock a different file.
                Ok(()) if !is_file_at(&file, &path) => {}
                Ok(()) => {
                    let mut lock = Lock { folder: folder.clone(), file, note, is_note_written: false };
                    // A full disk must not stop the watchdog. The next touch tries again and reports the error.
                    let _ = lock.write_note();
                    return Ok(lock);
                }
                Err(TryLockError::WouldBlock) => {
                    // Held by a process without a note, or for an instant by one that only asks for the holder.
                    if let Some(holder) = find_holder(folder) {
                        return Err(LockError::Held(HeldBy::Visible(holder)));
                    }
                    thread::sleep(RETRY_INTERVAL);
                }
                Err(TryLockError::Error(cause)) => return Err(failed(cause)),
            }
        }
        Err(LockError::Held(HeldBy::Hidden(hidden_holder(folder))))
    }

    /// Renews the sign of life and checks that others still find this lock.
    /// Errors: the lock is still held, but the sign of life could not be renewed, or a deleted file not be created
    /// again.
    pub fn touch(&mut self) -> Result<TouchResult, Error> {
        let path = self.folder.file(LOCK_NAME);
        if !is_file_at(&self.file, &path) {
            return match Lock::acquire(&self.folder, self.note.clone()) {
                Ok(lock) => {
                    *self = lock;
                    Ok(TouchResult::Recreated)
                }
                Err(LockError::Held(holder)) => Ok(TouchResult::Lost(holder)),
                Err(LockError::Io(error)) => Err(error),
            };
        }
        let read = if self.is_note_written { self.read_back() } else { Ok(None) };
        match &read {
            Ok(Some(note)) if *note != self.note => return Ok(TouchResult::Lost(identify_holder(&self.folder))),
            Ok(Some(_)) => {}
            // Not written yet, or damaged or emptied by another program.
            Ok(None) => self.is_note_written = false,
            // A read error is no reason to withhold the sign of life.
            Err(_) => {}
        }
        let failed = |cause: io::Error| Error::new("write", &path, cause);
        if !self.is_note_written {
            self.write_note().map_err(failed)?;
        }
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        rustix::fs::futimens(&self.file, &Timestamps { last_access: now, last_modification: now })
            .map_err(|cause| failed(cause.into()))?;
        read.map(|_| TouchResult::StillHeld).map_err(|cause| Error::new("read", &path, cause))
    }

    /// Reads through the open file: this works even when no file descriptor is free.
    fn read_back(&self) -> io::Result<Option<LockNote>> {
        let mut bytes = vec![0; MAX_NOTE_SIZE as usize];
        let length = self.file.read_at(&mut bytes, 0)?;
        Ok(parse_note(&bytes[..length]))
    }

    /// Overwrites the old note and truncates the file afterwards, which works on a full disk, too. A reader reads one
    /// line and finds the old note or the new one. If it finds a mixture, no living process matches it.
    fn write_note(&mut self) -> io::Result<()> {
        let mut line = serde_json::to_string(&self.note).expect("numbers and text have a JSON form");
        line.push('\n');
        self.file.write_all_at(line.as_bytes(), 0)?;
        self.file.set_len(line.len() as u64)?;
        self.is_note_written = true;
        Ok(())
    }
}

fn is_file_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(found)) => Inode::of(&ours) == Inode::of(&found),
        _ => false,
    }
}

/// Who holds the lock, visible from here or not. Waits up to 1 s for a holder that does not identify itself. A file
/// left by a process that has exited belongs to nobody, even if its pid is in use again.
/// Errors: it cannot be determined whether the lock is held.
pub fn read_lock(folder: &Folder) -> Result<Option<HeldBy>, Error> {
    let path = folder.file(LOCK_NAME);
    for _ in 0..MAX_TRIES {
        if let Some(holder) = find_holder(folder) {
            return Ok(Some(HeldBy::Visible(holder)));
        }
        if !is_locked(&path).map_err(|cause| Error::new("check", &path, cause))? {
            return Ok(None);
        }
        thread::sleep(RETRY_INTERVAL);
    }
    Ok(Some(HeldBy::Hidden(hidden_holder(folder))))
}

/// The holder of the lock, if it is a process visible from here.
pub fn read_holder(folder: &Folder) -> Option<Holder> {
    match read_lock(folder) {
        Ok(Some(HeldBy::Visible(holder))) => Some(holder),
        Ok(Some(HeldBy::Hidden(_)) | None) | Err(_) => None,
    }
}

/// Whether the lock is held. For processes in other containers only the kernel knows this, and only a request for the
/// lock reveals it. The request is for a shared lock, which any number of processes can have at once, and is released
/// immediately. A process that wants to acquire the lock in that instant finds no holder and tries again.
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

/// Checks that the file system of the folder, existing or not, supports locks. Nothing is left behind: the check uses
/// the lock file or, if there is none, a file without a name, or a folder where the file system does not support such
/// files.
pub fn check_lock_support(folder: &Folder) -> Result<(), Error> {
    let path = folder.file(LOCK_NAME);
    let Some(existing) = folder.path().ancestors().find(|path| path.is_dir()) else { return Ok(()) };
    let unnamed = || files::open_unnamed(existing).or_else(|_| File::open(existing));
    // An open error is reported by those who need the file.
    let Ok(file) = files::open(&path).or_else(|_| unnamed()) else { return Ok(()) };
    match file.try_lock_shared() {
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(cause)) => Err(Error::new("lock", &path, cause)),
    }
}

/// Whether the pid is certainly that of `holder` at this moment: for a caller that is about to send it a signal.
pub fn prove_holder(folder: &Folder, holder: &Holder) -> HolderProof {
    let Ok(metadata) = fs::symlink_metadata(folder.file(LOCK_NAME)) else { return HolderProof::NotHolding };
    let open = has_lock_open(holder.pid, Inode::of(&metadata));
    // Checked last: if the pid had been reused meanwhile, the start time would differ.
    let is_alive = process::is_alive(Process { pid: holder.pid, started: holder.started });
    match (is_alive, open) {
        (true, Ok(true)) => HolderProof::Holds,
        (true, Err(_)) => HolderProof::Unproven,
        (true, Ok(false)) | (false, _) => HolderProof::NotHolding,
    }
}

/// Whether the process of `holder` has ended. Its lock is released a moment earlier.
pub fn has_exited(holder: &Holder) -> bool {
    !process::is_alive(Process { pid: holder.pid, started: holder.started })
}

pub fn read_last_holder(folder: &Folder) -> Option<(Mode, WallTime)> {
    let HiddenHolder { note, touched } = hidden_holder(folder);
    Some((note?.mode, touched))
}

fn find_holder(folder: &Folder) -> Option<Holder> {
    let path = folder.file(LOCK_NAME);
    let metadata = fs::symlink_metadata(&path).ok()?;
    let LockNote { pid, started, mode, config } = read_note(&path).ok()??;
    // If its open files are not readable, the start time must do.
    let holds = has_lock_open(pid, Inode::of(&metadata)).unwrap_or(true) && process::is_alive(Process { pid, started });
    let touched = files::modified_at(&metadata);
    holds.then(|| Holder { pid, started, mode, config: PathBuf::from(config), touched })
}

fn identify_holder(folder: &Folder) -> HeldBy {
    find_holder(folder).map_or_else(|| HeldBy::Hidden(hidden_holder(folder)), HeldBy::Visible)
}

fn hidden_holder(folder: &Folder) -> HiddenHolder {
    let path = folder.file(LOCK_NAME);
    let touched = fs::symlink_metadata(&path).map(|metadata| files::modified_at(&metadata)).unwrap_or_default();
    HiddenHolder { note: read_note(&path).ok().flatten(), touched }
}

/// `None` if the file contains no note.
fn read_note(path: &Path) -> io::Result<Option<LockNote>> {
    let bytes = match files::read(path, MAX_NOTE_SIZE) {
        Err(cause) if cause.kind() == io::ErrorKind::InvalidData => return Ok(None),
        read => read?,
    };
    Ok(parse_note(&bytes))
}

fn parse_note(bytes: &[u8]) -> Option<LockNote> {
    serde_json::from_slice(bytes.split(|&byte| byte == b'\n').next()?).ok()
}

fn has_lock_open(pid: u32, lock: Inode) -> io::Result<bool> {
    Ok(descriptors::open_files(pid, |name| name == LOCK_NAME)?.contains(&lock))
}

#[cfg(test)]
mod tests;

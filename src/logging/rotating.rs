//! The log file: whole lines are appended to it, and it is renamed when it is full, within a fixed total size.
//! It must never return an error, panic, split a line, or exceed the total.
//!
//! None of the crates for this can cope with the faults that a watchdog must survive. Tested in November 2026:
//! file-rotate panics if the folder is not writable or another process rotates too; rolling-file, logroller and
//! flexi_logger return errors, after which fern writes to standard error and panics if that is closed; all of them
//! continue to write to a deleted file, and most do not recover after the folder was removed.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use log::Level;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::clock;
use crate::config::{self, LogFormat};
use crate::outcome::describe_io_error;
use crate::time::Zone;

use super::line::{CUT_MARK, format_line};

#[cfg(test)]
mod tests;

/// A line that says how many lines were lost takes less.
const NOTE_ROOM: u64 = 1 << 10;

#[derive(Debug)]
pub(super) struct Rotating {
    settings: config::LogConfig,
    zone: Zone,
    /// May have been moved or deleted since the last line.
    file: Option<File>,
    /// Collects the parts that fern writes: with one `write` per record, lines stay whole next to other writers.
    record: Vec<u8>,
    /// `Some` while lines are being lost.
    loss: Option<Loss>,
}

#[derive(Debug)]
struct Loss {
    lines: u64,
    reason: String,
}

impl Rotating {
    pub(super) fn new(settings: &config::LogConfig, zone: Zone) -> Self {
        Rotating { settings: settings.clone(), zone, file: None, record: Vec::new(), loss: None }
    }

    pub(super) fn reconfigure(&mut self, settings: &config::LogConfig) {
        self.settings = settings.clone();
    }

    /// The form of a line, and how long it may be so that it fits into a file together with a note.
    pub(super) fn line_format(&self) -> (LogFormat, u64) {
        (self.settings.format, self.settings.max_size.saturating_sub(NOTE_ROOM))
    }

    pub(super) fn describe_loss(&self) -> Option<String> {
        let Loss { lines, reason } = self.loss.as_ref()?;
        let path = self.settings.file.display();
        Some(format!("cannot write to the log {path}: {reason} ({lines} {} lost so far)", plural(*lines)))
    }

    /// Writes the record, preceded by a line about lost ones.
    fn write_record(&mut self, record: &[u8]) {
        let note = match &self.loss {
            None => String::new(),
            Some(Loss { lines, reason }) => {
                self.format_note(format_args!("{lines} {} lost here: {reason}", plural(*lines)))
            }
        };
        match self.append([note.as_bytes(), record].concat()) {
            Ok(()) => self.loss = None,
            Err(error) => {
                let before = self.loss.take().map_or(0, |loss| loss.lines);
                self.loss = Some(Loss { lines: before + 1, reason: reason(&error) });
            }
        }
    }

    fn append(&mut self, mut lines: Vec<u8>) -> io::Result<()> {
        let (mut file, mut length) = reopen(&self.settings.file, self.file.take())?;
        if length > 0 && length + lines.len() as u64 > self.settings.max_size {
            if let Err(error) = self.rotate(&file) {
                // The total is a promise, so a file that cannot be renamed is emptied.
                let note = self.format_note(format_args!("older lines dropped, cannot rotate: {}", reason(&error)));
                lines.splice(0..0, note.into_bytes());
                file.set_len(0)?;
            }
            (file, length) = reopen(&self.settings.file, Some(file))?;
        }
        shorten(&mut lines, self.settings.max_size);
        let result = write_whole(&mut file, &lines, length);
        self.file = Some(file);
        result
    }

    /// Renames `file` to `.1`, that to `.2` and so on, and deletes the last.
    ///
    /// Another watchdog process may do so at the same time. The process that has locked the file and finds it still at
    /// its path renames it; the others continue with the file that is at the path afterwards. On a file system without
    /// locks no process waits.
    fn rotate(&self, file: &File) -> io::Result<()> {
        let config::LogConfig { file: path, keep, .. } = &self.settings;
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) || !is_at(path, &file.metadata()?) {
            return Ok(());
        }
        // Surplus files are left over if `keep` was larger before.
        let surplus = (keep.saturating_add(1)..).map(|number| numbered(path, number));
        surplus.map(fs::remove_file).take_while(Result::is_ok).for_each(drop);
        for number in (1..*keep).rev() {
            // A missing file does not matter, and one that cannot be renamed is overwritten by the one before it.
            let _ = fs::rename(numbered(path, number), numbered(path, number + 1));
        }
        let moved = if *keep == 0 { fs::remove_file(path) } else { fs::rename(path, numbered(path, 1)) };
        let _ = file.unlock(); // closing the file unlocks it too
        moved
    }

    fn format_note(&self, message: std::fmt::Arguments<'_>) -> String {
        let (format, max_length) = self.line_format();
        format_line(format, (self.zone, clock::wall()), Level::Warn, None, &message, max_length) + "\n"
    }
}

impl Write for Rotating {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.record.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// fern flushes after each record.
    fn flush(&mut self) -> io::Result<()> {
        let record = std::mem::take(&mut self.record);
        if !record.is_empty() {
            self.write_record(&record);
        }
        Ok(())
    }
}

pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

fn is_at(path: &Path, ours: &fs::Metadata) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()))
}

/// The file that is at the path now, and its length. It is opened again if `file` is no longer at the path.
fn reopen(path: &Path, file: Option<File>) -> io::Result<(File, u64)> {
    if let Some(file) = file {
        let ours = file.metadata()?;
        if is_at(path, &ours) {
            return Ok((file, ours.len()));
        }
    }
    open(path)
}

/// Opens the file for appending, creates it and its folder if they are missing, and returns its length. Accepts only a
/// regular file: a link may be a trap, and a pipe may block.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(flags);
    let file = match (options.open(path), path.parent()) {
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            options.open(path)?
        }
        (opened, _) => opened?,
    };
    let found = file.metadata()?;
    match found.is_file() {
        true => Ok((file, found.len())),
        false => Err(io::Error::other("not a regular file")),
    }
}

/// Appends all or nothing to the `length` bytes of the file: if the disk becomes full, a partial line is removed,
/// unless another process has appended to it.
fn write_whole(file: &mut File, lines: &[u8], length: u64) -> io::Result<()> {
    let mut written = 0;
    while written < lines.len() {
        match file.write(&lines[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                if written > 0 && file.metadata()?.len() == length + written as u64 {
                    file.set_len(length)?;
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Cuts lines that are longer than a whole file, between two characters.
fn shorten(lines: &mut Vec<u8>, max_size: u64) {
    let max_size = usize::try_from(max_size).unwrap_or(usize::MAX);
    if lines.len() <= max_size {
        return;
    }
    let mut end = max_size.saturating_sub(CUT_MARK.len() + 1);
    while end > 0 && lines[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    lines.truncate(end);
    lines.extend_from_slice(CUT_MARK.as_bytes());
    lines.push(b'\n');
}

fn reason(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::LOOP) => "is a symbolic link".into(),
        Some(Errno::NXIO) => "not a regular file".into(),
        _ => describe_io_error(error),
    }
}

fn plural(lines: u64) -> &'static str {
    if lines == 1 { "line" } else { "lines" }
}

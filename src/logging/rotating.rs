//! The log file: appended to a line at a time, renamed when full, under a hard total.
//! It must never return an error, never panic, never tear a line, and never grow beyond its total.
//!
//! It is our own because none of the crates for it bears what a watchdog has to bear. Tried in November 2026:
//! file-rotate panics when the folder is not writable or another process rotates too; rolling-file, logroller and
//! flexi_logger return errors, on which fern writes to standard error and panics if that is dead; all of them go on
//! writing to a deleted file, and most never find back to a folder that was removed.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use log::Level;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::config;
use crate::outcome::describe_io_error;
use crate::time::Zone;

use super::line;

#[cfg(test)]
mod tests;

/// Ends a line that was too long for a whole file.
const CUT: &str = " … (cut)\n";

#[derive(Debug)]
pub(super) struct Rotating {
    settings: config::LogConfig,
    zone: Zone,
    /// The file that lines were last written to; it may have been moved or deleted since.
    file: Option<File>,
    /// The record that fern is writing, in pieces; one `write` per record keeps lines whole beside other writers.
    record: Vec<u8>,
    /// Present while lines are being lost.
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

    pub(super) fn follow(&mut self, settings: &config::LogConfig) {
        self.settings = settings.clone();
    }

    pub(super) fn trouble(&self) -> Option<String> {
        let Loss { lines, reason } = self.loss.as_ref()?;
        let path = self.settings.file.display();
        Some(format!("cannot write to the log {path}: {reason} ({lines} {} lost so far)", plural(*lines)))
    }

    /// Writes the record, after a line about those that were lost before it.
    fn put(&mut self, record: &[u8]) {
        let note = match &self.loss {
            None => String::new(),
            Some(Loss { lines, reason }) => {
                self.own_line(format_args!("{lines} {} lost here: {reason}", plural(*lines)))
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
        let (mut file, mut length) = find(&self.settings.file, self.file.take())?;
        if length > 0 && length + lines.len() as u64 > self.settings.max_size {
            if let Err(error) = self.rotate(&file) {
                // The total is promised, so what cannot be moved aside is given up.
                let note = self.own_line(format_args!("older lines dropped, cannot rotate: {}", reason(&error)));
                lines.splice(0..0, note.into_bytes());
                file.set_len(0)?;
            }
            (file, length) = find(&self.settings.file, Some(file))?;
        }
        cut(&mut lines, self.settings.max_size);
        let result = write_whole(&mut file, &lines, length);
        self.file = Some(file);
        result
    }

    /// Moves `file` aside to `.1`, that to `.2` and so on, and the last out.
    ///
    /// Another process of ours may be at it too. Whoever has the file locked and finds it still at its path is the one
    /// to move it; the others go on with whatever is at the path afterwards. Where the disk knows no locks, nobody
    /// waits.
    fn rotate(&self, file: &File) -> io::Result<()> {
        let config::LogConfig { file: path, keep, .. } = &self.settings;
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) || !is_at(path, &file.metadata()?) {
            return Ok(());
        }
        // More may be left from a time when more were kept.
        let surplus = (keep.saturating_add(1)..).map(|number| numbered(path, number));
        surplus.map(fs::remove_file).take_while(Result::is_ok).for_each(drop);
        for number in (1..*keep).rev() {
            // A gap in the row is no harm, and one that cannot be moved is overwritten by the one before it.
            let _ = fs::rename(numbered(path, number), numbered(path, number + 1));
        }
        let moved = if *keep == 0 { fs::remove_file(path) } else { fs::rename(path, numbered(path, 1)) };
        let _ = file.unlock(); // closing it does so too
        moved
    }

    fn own_line(&self, message: std::fmt::Arguments<'_>) -> String {
        line(self.zone, Level::Warn, &message) + "\n"
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
            self.put(&record);
        }
        Ok(())
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

fn is_at(path: &Path, ours: &fs::Metadata) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()))
}

/// The file at the path, whatever happened to that since `file` was opened there, and its length.
fn find(path: &Path, file: Option<File>) -> io::Result<(File, u64)> {
    if let Some(file) = file {
        let ours = file.metadata()?;
        if is_at(path, &ours) {
            return Ok((file, ours.len()));
        }
    }
    open(path)
}

/// Opens the file for appending, makes it and its folder if they are missing, and answers its length. Only a regular
/// file will do: anything else in its place may be a trap (a link) or block us (a pipe).
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

/// Writes all or nothing behind the `length` bytes that are there: half a line, as a disk that fills up leaves it, is
/// taken back, unless another process has written behind it.
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

/// Shortens lines that would not fit into a file, between two characters.
fn cut(lines: &mut Vec<u8>, max_size: u64) {
    let max_size = usize::try_from(max_size).unwrap_or(usize::MAX);
    if lines.len() <= max_size {
        return;
    }
    let mut end = max_size.saturating_sub(CUT.len());
    while end > 0 && lines[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    lines.truncate(end);
    lines.extend_from_slice(CUT.as_bytes());
}

fn reason(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::LOOP) => "it is a symbolic link".into(),
        Some(Errno::NXIO) => "not a regular file".into(),
        _ => describe_io_error(error),
    }
}

fn plural(lines: u64) -> &'static str {
    if lines == 1 { "line" } else { "lines" }
}

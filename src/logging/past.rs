//! Reads the log through its rotated files: its last lines, and those that are appended meanwhile.
//! It must never write, read a large log whole to find its end, or block on what is no regular file.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::rotating::numbered;

/// As many rotated files as the configuration may keep.
const MAX_ROTATED: u32 = 100;
const BLOCK: u64 = 64 << 10;
/// How often the files are opened again because the log was rotated meanwhile.
const MAX_REPEATS: u32 = 100;
/// A longer line, which is none of ours, is read as several.
const MAX_LINE: usize = 1 << 20;

/// The lines of the log from some point on, through the files that follow it.
#[derive(Debug)]
pub struct PastLog {
    path: PathBuf,
    /// The file that is being read; none if there is none yet.
    current: Option<LogFile>,
    /// The newer ones, the oldest first.
    newer: VecDeque<LogFile>,
    /// Read from the current file; the first `returned` bytes of it were returned.
    buffer: Vec<u8>,
    returned: usize,
}

#[derive(Debug)]
struct LogFile {
    file: File,
    inode: (u64, u64),
    modified: (i64, i64),
    length: u64,
    /// How much of it has been read.
    offset: u64,
}

impl PastLog {
    /// Starts with the last `count` lines for which `is_wanted` holds, or with the first line if there are fewer.
    /// Errors: a file exists, but cannot be read.
    pub fn open(path: &Path, count: usize, is_wanted: &dyn Fn(&str) -> bool) -> io::Result<PastLog> {
        let (mut newer, mut left) = (VecDeque::new(), count);
        for mut file in files_after(path, None)? {
            let is_newest = newer.is_empty();
            let start = match left {
                0 if !is_newest => break,
                0 => Some(file.length),
                _ => file.find_last(&mut left, is_wanted)?,
            };
            file.offset = start.unwrap_or(0);
            newer.push_front(file);
            if left == 0 {
                break;
            }
        }
        let current = newer.pop_front();
        Ok(PastLog { path: path.to_owned(), current, newer, buffer: Vec::new(), returned: 0 })
    }

    pub fn is_missing(&self) -> bool {
        self.current.is_none()
    }

    /// The next complete line; none if there is none at present. Goes on with the file that is at the path after a
    /// rotation, a truncation or a deletion.
    pub fn next_line(&mut self) -> io::Result<Option<String>> {
        loop {
            let unread = &self.buffer[self.returned..];
            if let Some(end) = unread.iter().position(|&byte| byte == b'\n') {
                return Ok(Some(self.take(end + 1)));
            }
            if unread.len() > MAX_LINE {
                return Ok(self.take_rest());
            }
            self.buffer.drain(..std::mem::take(&mut self.returned));
            let Some(current) = &mut self.current else {
                self.newer = files_after(&self.path, None)?.into_iter().rev().collect();
                self.current = self.newer.pop_front();
                match self.current {
                    Some(_) => continue,
                    None => return Ok(None),
                }
            };
            if current.read_block(&mut self.buffer)? > 0 {
                continue;
            }
            if self.newer.is_empty() {
                if current.restart_if_truncated()? {
                    self.buffer.clear();
                    continue;
                }
                if is_at(&self.path, current.inode) || !self.path.exists() {
                    return Ok(None);
                }
                // Written after the last read, and before the file was renamed.
                if current.read_block(&mut self.buffer)? > 0 {
                    continue;
                }
                self.newer = files_after(&self.path, Some(current))?.into_iter().rev().collect();
            }
            let Some(next) = self.newer.pop_front() else { return Ok(None) };
            self.current = Some(next);
            if let Some(line) = self.take_rest() {
                return Ok(Some(line));
            }
        }
    }

    /// The beginning of a line that has no end yet.
    pub fn take_rest(&mut self) -> Option<String> {
        let length = self.buffer.len() - self.returned;
        (length > 0).then(|| self.take(length))
    }

    fn take(&mut self, length: usize) -> String {
        let start = self.returned;
        self.returned += length;
        text_of(&self.buffer[start..self.returned])
    }
}

impl LogFile {
    /// None if there is no file.
    fn open(path: &Path) -> io::Result<Option<LogFile>> {
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let (inode, modified) = ((found.dev(), found.ino()), (found.mtime(), found.mtime_nsec()));
        Ok(Some(LogFile { file, inode, modified, length: found.len(), offset: 0 }))
    }

    /// The start of the last `left` wanted lines, and 0 in `left`; or none, and in `left` how many are missing. Reads
    /// backwards, block by block.
    fn find_last(&self, left: &mut usize, is_wanted: &dyn Fn(&str) -> bool) -> io::Result<Option<u64>> {
        let (mut end, mut unended) = (self.length, Vec::new());
        while end > 0 {
            let start = end.saturating_sub(BLOCK);
            let mut block = vec![0; usize::try_from(end - start).unwrap_or_default()];
            self.file.read_exact_at(&mut block, start)?;
            block.append(&mut unended);
            let mut next = block.len();
            for at in (0..block.len()).rev() {
                let begins = if at == 0 { start == 0 } else { block[at - 1] == b'\n' };
                if !begins {
                    continue;
                }
                if is_wanted(&text_of(&block[at..next])) {
                    *left -= 1;
                    if *left == 0 {
                        return Ok(Some(start + at as u64));
                    }
                }
                next = at;
            }
            block.truncate(next.min(MAX_LINE));
            (unended, end) = (block, start);
        }
        Ok(None)
    }

    /// Appends what follows, up to one block. Returns its length; 0 at the end of the file.
    fn read_block(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        let mut block = vec![0; BLOCK as usize];
        let length = self.file.read_at(&mut block, self.offset)?;
        into.extend_from_slice(&block[..length]);
        self.offset += length as u64;
        Ok(length)
    }

    fn restart_if_truncated(&mut self) -> io::Result<bool> {
        let is_truncated = self.file.metadata()?.len() < self.offset;
        if is_truncated {
            self.offset = 0;
        }
        Ok(is_truncated)
    }

    fn modified_now(&self) -> (i64, i64) {
        self.file.metadata().map_or(self.modified, |found| (found.mtime(), found.mtime_nsec()))
    }
}

/// The file at the path and the rotated ones, the newest first; only those that are newer than `known`.
///
/// A rotation meanwhile makes no gap: it moves a file only to a number that is opened later, where it is skipped. Two
/// rotations may bring a newer file to such a number: then all are opened again.
fn files_after(path: &Path, known: Option<&LogFile>) -> io::Result<Vec<LogFile>> {
    let mut found = open_after(path, known)?;
    for _ in 0..MAX_REPEATS {
        if found.first().is_none_or(|newest| newest_inode(path) == Some(newest.inode)) {
            break;
        }
        found = open_after(path, known)?;
    }
    Ok(found)
}

/// If `known` is not among them, it was deleted; what was rotated before it was written last is older.
fn open_after(path: &Path, known: Option<&LogFile>) -> io::Result<Vec<LogFile>> {
    let known = known.map(|known| (known.inode, known.modified_now()));
    let mut found: Vec<LogFile> = Vec::new();
    for number in 0..=MAX_ROTATED {
        let path = if number == 0 { path.to_owned() } else { numbered(path, number) };
        let Some(file) = LogFile::open(&path)? else { continue };
        if found.iter().any(|other| other.inode == file.inode) {
            continue;
        }
        if known.is_some_and(|(inode, modified)| file.inode == inode || (number > 0 && file.modified < modified)) {
            break;
        }
        found.push(file);
    }
    Ok(found)
}

/// Between a rotation and the next line there is no file at the path.
fn newest_inode(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::symlink_metadata(path).or_else(|_| std::fs::symlink_metadata(numbered(path, 1)));
    found.ok().map(|found| (found.dev(), found.ino()))
}

fn is_at(path: &Path, inode: (u64, u64)) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == inode)
}

fn text_of(line: &[u8]) -> String {
    String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line)).into_owned()
}

#[cfg(test)]
mod tests;

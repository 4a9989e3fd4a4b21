//! `events.jsonl`: what happened, one JSON object a line, in two files of bounded size.
//! It must never glue a line to one that a crash or a full disk cut short, and never hold all that was ever written.

mod entry;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

pub use entry::{Entry, Kind, Outcome};

use super::files::{self, Inode};
use super::{Error, Folder};
use crate::time::Wall;

const EVENTS: &str = "events.jsonl";
const ROTATED: &str = "events.jsonl.1";
/// A file that would grow beyond it is rotated.
const MAX_SIZE: u64 = 4 << 20;
/// What is read of one file. It exceeds `MAX_SIZE` only by the lines of one single round that are longer than that.
const MAX_READ: u64 = 2 * MAX_SIZE;

/// Writes lines (without their newlines) at the end, all of them or none unless the process is killed meanwhile.
/// Only whoever holds the lock may call this.
///
/// # Errors
/// They could not be written, such as on a full disk. Those of a state's `pending` are tried again by
/// [`append_missing`].
pub fn append(folder: &Folder, lines: &[String]) -> Result<(), Error> {
    if lines.is_empty() {
        return Ok(());
    }
    folder.ensure()?;
    let failed = |cause| Error::new("write", &folder.file(EVENTS), cause);
    append_text(folder, &(lines.join("\n") + "\n")).map_err(failed)
}

/// Writes those of the lines that are not there yet: each exactly once, whenever the watchdog that saved them as
/// `pending` was killed. Only whoever holds the lock may call this, before anything else is appended.
///
/// # Errors
/// As [`append`].
pub fn append_missing(folder: &Folder, pending: &[String]) -> Result<(), Error> {
    if pending.is_empty() {
        return Ok(());
    }
    // They were to be the latest lines of all, but a rotation may have come between them.
    let mut found: HashMap<Vec<u8>, usize> = HashMap::new();
    for bytes in read_both(folder)? {
        for line in bytes.split(|&byte| byte == b'\n') {
            *found.entry(line.to_vec()).or_default() += 1;
        }
    }
    // Counted rather than looked up: the same thing can happen twice within a millisecond.
    let missing = pending.iter().filter(|line| match found.get_mut(line.as_bytes()) {
        Some(times) if *times > 0 => {
            *times -= 1;
            false
        }
        _ => true,
    });
    append(folder, &missing.cloned().collect::<Vec<String>>())
}

/// What is still known to have happened since then, oldest first; damaged lines are passed over. Whoever only looks
/// may call this at any time.
///
/// # Errors
/// A file is there and cannot be read.
pub fn read(folder: &Folder, since: Option<Wall>) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    for bytes in read_both(folder)? {
        let lines = bytes.split(|&byte| byte == b'\n');
        let parsed = lines.filter_map(|line| Entry::parse(str::from_utf8(line).ok()?));
        entries.extend(parsed.filter(|entry| since.is_none_or(|since| entry.at >= since)));
    }
    Ok(entries)
}

fn append_text(folder: &Folder, text: &str) -> io::Result<()> {
    let path = folder.file(EVENTS);
    let mut file = files::open_to_append(&path)?;
    let mut size = file.metadata()?.len();
    if size > 0 && size.saturating_add(text.len() as u64) > MAX_SIZE {
        fs::rename(&path, folder.file(ROTATED))?;
        file = files::open_to_append(&path)?;
        size = 0;
    }
    let torn = size > 0 && {
        let mut last = [0];
        file.read_exact_at(&mut last, size - 1)?;
        last != *b"\n"
    };
    let bytes = if torn { format!("\n{text}") } else { text.to_string() };
    // One write(2) for all, so that whoever follows the file sees whole lines; a second one only where the disk took
    // a part, to learn why.
    let written = file.write_all(bytes.as_bytes());
    if written.is_err() {
        // Takes a part back. Should that fail too, the next line begins with a newline.
        let _ = file.set_len(size);
    }
    written
}

/// The latest of both files, the older one first.
fn read_both(folder: &Folder) -> Result<Vec<Vec<u8>>, Error> {
    // The newer one is opened first: a rotation in between then shows one file twice, and hides none.
    let newer = open(folder, EVENTS)?;
    let older = open(folder, ROTATED)?;
    let inode = |file: &Option<File>| file.as_ref()?.metadata().ok().map(|metadata| Inode::of(&metadata));
    let older = if inode(&older) == inode(&newer) { None } else { older };
    let names = [(older, ROTATED), (newer, EVENTS)];
    let there = names.into_iter().filter_map(|(file, name)| Some((file?, name)));
    there
        .map(|(mut file, name)| {
            files::tail(&mut file, MAX_READ).map_err(|cause| Error::new("read", &folder.file(name), cause))
        })
        .collect()
}

fn open(folder: &Folder, name: &str) -> Result<Option<File>, Error> {
    match files::open(&folder.file(name)) {
        Ok(file) => Ok(Some(file)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::new("read", &folder.file(name), cause)),
    }
}

#[cfg(test)]
mod tests;

//! `events.jsonl`: one JSON object per line for each event, in two files of bounded size.
//! It must never lose an event or write one twice, whenever the watchdog is killed.

mod entry;

use std::collections::HashMap;

pub use entry::{CommandOutcome, EventEntry, EventKind};

use super::lines::LineFile;
use super::{Error, Folder};
use crate::time::WallTime;

const EVENTS: LineFile = LineFile { name: "events.jsonl", rotated: "events.jsonl.1", max_size: 4 << 20 };

/// Appends lines (without their newlines): all of them or none, unless the process is killed meanwhile. Only the
/// holder of the lock may call this.
/// Errors: they could not be written, as on a full disk. Those in a state's `pending` are written later by
/// [`append_missing`].
pub fn append(folder: &Folder, lines: &[String]) -> Result<(), Error> {
    EVENTS.append(folder, lines)
}

/// Appends those of the lines that are not in the files yet, so that each is there exactly once, whenever the watchdog
/// that saved them as `pending` was killed. Only the holder of the lock may call this, before it appends anything
/// else.
pub fn append_missing(folder: &Folder, pending: &[String]) -> Result<(), Error> {
    if pending.is_empty() {
        return Ok(());
    }
    // They are the latest lines, but a rotation may have moved some of them to the older file.
    let mut found: HashMap<Vec<u8>, usize> = HashMap::new();
    for bytes in EVENTS.read(folder)? {
        for line in bytes.split(|&byte| byte == b'\n') {
            *found.entry(line.to_vec()).or_default() += 1;
        }
    }
    // Counted, not just searched for: the same event can happen twice within a millisecond.
    let missing = pending.iter().filter(|line| match found.get_mut(line.as_bytes()) {
        Some(times) if *times > 0 => {
            *times -= 1;
            false
        }
        _ => true,
    });
    append(folder, &missing.cloned().collect::<Vec<String>>())
}

/// The events since then that are still in the files, oldest first; damaged lines are skipped. Readers may call this
/// at any time.
/// Errors: a file exists but cannot be read.
pub fn read(folder: &Folder, since: Option<WallTime>) -> Result<Vec<EventEntry>, Error> {
    let mut entries = Vec::new();
    for bytes in EVENTS.read(folder)? {
        let lines = bytes.split(|&byte| byte == b'\n');
        let parsed = lines.filter_map(|line| EventEntry::parse(str::from_utf8(line).ok()?));
        entries.extend(parsed.filter(|entry| since.is_none_or(|since| entry.at >= since)));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests;

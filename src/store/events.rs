//! `events.jsonl`: what happened, one JSON object a line, in two files of bounded size.
//! It must never lose an event, nor write one twice, whenever the watchdog is killed.

mod entry;

use std::collections::HashMap;

pub use entry::{CommandOutcome, EventEntry, EventKind};

use super::lines::Lines;
use super::{Error, Folder};
use crate::time::WallTime;

const EVENTS: Lines = Lines { name: "events.jsonl", rotated: "events.jsonl.1", max_size: 4 << 20 };

/// Writes lines (without their newlines) at the end, all of them or none unless the process is killed meanwhile.
/// Only whoever holds the lock may call this.
/// Errors: they could not be written, such as on a full disk. Those of a state's `pending` are tried again by
/// [`append_missing`].
pub fn append(folder: &Folder, lines: &[String]) -> Result<(), Error> {
    EVENTS.append(folder, lines)
}

/// Writes those of the lines that are not there yet: each exactly once, whenever the watchdog that saved them as
/// `pending` was killed. Only whoever holds the lock may call this, before anything else is appended.
pub fn append_missing(folder: &Folder, pending: &[String]) -> Result<(), Error> {
    if pending.is_empty() {
        return Ok(());
    }
    // They were to be the latest lines of all, but a rotation may have come between them.
    let mut found: HashMap<Vec<u8>, usize> = HashMap::new();
    for bytes in EVENTS.read(folder)? {
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
/// Errors: a file is there and cannot be read.
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

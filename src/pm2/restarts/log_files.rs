//! Reads PM2's own log from where the last read ended, over rotations and truncations. It must never read a line twice,
//! never more in one call than a limit, and never block on something that is not a regular file.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::outcome::{Pm2LogState, Pm2Restart};
use crate::pm2::saved::open_nonblocking;
use crate::pm2::{Home, SavedList};
use crate::time::{WallTime, Zone};

use super::{is_by_pm2, take_line};

const LOG: &str = "pm2.log";
/// Bytes read in one call. PM2 writes some 400 for each restart.
const MAX_READ: u64 = 4 << 20;
/// Bytes of an existing log that are read when it is seen for the first time.
const MAX_BACKLOG: u64 = 16 << 20;
/// Bytes of a line; the rest of a longer one is skipped.
const MAX_LINE: u64 = 16 << 10;
/// Bytes before the position that identify the file's content.
const CHECKED: u64 = 64;
/// The times in the log have whole seconds, and are written before the line is.
const SLACK_MS: i64 = 5_000;

/// What one read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRead {
    pub state: Pm2LogState,
    pub restarts: Vec<Pm2Restart>,
    /// The limit was reached before the end of the log.
    pub has_more: bool,
}

struct Candidate {
    path: PathBuf,
    inode: u64,
    size: u64,
    modified: WallTime,
}

impl Home {
    /// Reads on in PM2's log, and in rotated ones that are not compressed. Runs no program. A log that cannot be read
    /// is tried again at the next call.
    pub fn read_restarts(&self, mut state: Pm2LogState, now: WallTime, zone: Zone) -> LogRead {
        let files = self.log_files();
        let mut restarts = Vec::new();
        let mut budget = MAX_READ;
        let mut at = find_start(&files, &mut state);
        while let Some(index) = at.filter(|_| budget > 0) {
            let before = (state.clone(), restarts.len());
            let Ok(used) = read_file(&files[index], &mut state, budget, now, zone, &mut restarts) else {
                // An error is not the end of the file, and nothing of a file that changes meanwhile counts.
                state = before.0;
                restarts.truncate(before.1);
                break;
            };
            budget = budget.saturating_sub(used);
            let is_at_end = state.offset >= files[index].size || used == 0;
            at = is_at_end.then_some(index + 1).filter(|next| files.get(*next).is_some_and(|file| file.size > 0));
            if let Some(next) = at {
                move_to(&mut state, &files[next], 0);
            }
        }
        let has_more = budget == 0;
        if !has_more {
            state.read_at = Some(now);
        }
        let saved = match restarts.is_empty() {
            true => SavedList::Missing,
            false => self.saved(),
        };
        let saved = if let SavedList::Apps(apps) = saved { apps } else { Vec::new() };
        restarts.retain(|restart| is_by_pm2(restart, &saved));
        LogRead { state, restarts, has_more }
    }

    /// The rotated logs, oldest first, and the log itself.
    fn log_files(&self) -> Vec<Candidate> {
        let candidate = |path: PathBuf| {
            let found = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
            let modified = WallTime::from_ms(found.mtime().saturating_mul(1_000) + found.mtime_nsec() / 1_000_000);
            Some(Candidate { path, inode: found.ino(), size: found.len(), modified })
        };
        let entries = fs::read_dir(self.path()).into_iter().flatten().flatten();
        let rotated = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_rotated));
        let mut files: Vec<Candidate> = rotated.filter_map(|entry| candidate(entry.path())).collect();
        files.sort_by(|one, other| (one.modified, &one.path).cmp(&(other.modified, &other.path)));
        files.extend(candidate(self.path().join(LOG)));
        files
    }
}

/// pm2-logrotate makes `pm2__2026-11-29_00-00-00.log`, logrotate(8) `pm2.log.1` or `pm2.log-20261129`.
fn is_rotated(name: &str) -> bool {
    let is_packed = [".gz", ".xz", ".bz2", ".zst"].iter().any(|end| name.ends_with(end));
    let by_pm2 = name.starts_with("pm2__") && name.ends_with(".log");
    !is_packed && (by_pm2 || name.starts_with("pm2.log.") || name.starts_with("pm2.log-"))
}

/// Moves the position to where reading goes on, and returns the file's index; none if there is no log.
fn find_start(files: &[Candidate], state: &mut Pm2LogState) -> Option<usize> {
    let is_log = |file: &Candidate| file.path.file_name().is_some_and(|name| name == LOG);
    let rotated = files.len() - usize::from(files.last().is_some_and(is_log));
    if state.inode == 0 && !files.is_empty() {
        let index = first_of_backlog(files);
        let skipped = files[index].size.saturating_sub(MAX_BACKLOG);
        move_to(state, &files[index], skipped);
        return Some(index);
    }
    let known = files.iter().position(|file| file.inode == state.inode);
    let known = known.filter(|index| is_continued(&files[*index], state));
    let newer = files[..rotated].iter().position(|file| file.modified > state.modified && file.inode != state.inode);
    // An empty file has nothing that shows whether it was truncated since.
    if let Some(index) = known.filter(|_| state.offset > 0 || newer.is_none()) {
        return Some(index);
    }
    // It was truncated, or it is gone: a copy that was made since has what was not read.
    let index = newer.or((rotated < files.len()).then_some(rotated))?;
    let is_copy = index < rotated && is_continued(&files[index], state);
    let offset = if is_copy { state.offset } else { 0 };
    move_to(state, &files[index], offset);
    Some(index)
}

/// The oldest file such that it and all later ones are within the limit.
fn first_of_backlog(files: &[Candidate]) -> usize {
    let mut sum = 0;
    let within = |file: &&Candidate| {
        sum += file.size;
        sum <= MAX_BACKLOG
    };
    files.len() - files.iter().rev().take_while(within).count().max(1)
}

/// Whether the file still has what was read, up to the position.
fn is_continued(file: &Candidate, state: &Pm2LogState) -> bool {
    file.size >= state.offset && checksum_before(&file.path, state.offset).is_ok_and(|sum| sum == state.checksum)
}

fn move_to(state: &mut Pm2LogState, file: &Candidate, offset: u64) {
    (state.inode, state.offset, state.modified) = (file.inode, offset, file.modified);
}

/// FNV-1a of the bytes before this offset.
fn checksum_before(path: &Path, offset: u64) -> io::Result<u64> {
    let length = offset.min(CHECKED);
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    open_regular(path)?.read_exact_at(&mut bytes, offset - length)?;
    Ok(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
}

fn open_regular(path: &Path) -> io::Result<File> {
    let file = open_nonblocking(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a file")) }
}

/// Reads whole lines from the position on, and moves it. Returns how many bytes were read: 0 at the end.
fn read_file(
    from: &Candidate,
    state: &mut Pm2LogState,
    budget: u64,
    now: WallTime,
    zone: Zone,
    restarts: &mut Vec<Pm2Restart>,
) -> io::Result<u64> {
    let mut file = open_regular(&from.path)?;
    // After a first read that skips its beginning, the position is within a line.
    let mut is_within_line = state.offset > 0 && state.checksum == 0;
    file.seek(SeekFrom::Start(state.offset))?;
    let mut reader = BufReader::new(file);
    let (mut line, mut used) = (Vec::new(), 0);
    while used < budget {
        line.clear();
        let length = u64::try_from(reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?).unwrap_or(0);
        let is_whole = line.ends_with(b"\n");
        if length == 0 || !is_whole && length < MAX_LINE {
            // The end, or a line that is still being written.
            break;
        }
        used += length;
        state.offset += length;
        let is_start = !std::mem::replace(&mut is_within_line, !is_whole);
        if is_start && is_whole {
            let text = String::from_utf8_lossy(&line);
            restarts.extend(take(state, text.trim_end(), from, now, zone));
        }
    }
    state.checksum = checksum_before(&from.path, state.offset)?;
    state.modified = from.modified;
    Ok(used)
}

/// A line begins with its local time, unless PM2 was told otherwise: `2026-11-29T10:00:00: PM2 log: App [api:0] …`.
fn take(state: &mut Pm2LogState, line: &str, from: &Candidate, now: WallTime, zone: Zone) -> Option<Pm2Restart> {
    let (before, message) =
        [": PM2 log: ", ": PM2 error: "].iter().find_map(|mark| line.split_once(mark)).unwrap_or(("", line));
    // A line without a time is as old as the file, at the most as long unread as the log.
    let at = zone.parse_local(before).unwrap_or(from.modified);
    let earliest = state.read_at.map(|read| read.offset_by(-SLACK_MS)).filter(|earliest| *earliest <= now);
    let at = earliest.map_or(at, |earliest| at.max(earliest)).min(now);
    take_line(state, message, at)
}

//! Remembers which errors and warnings cron has printed, so that cron mails a repeated warning once a day and not at
//! every tick. A note is an empty file: its name identifies the warning, and its modification time is when it was
//! printed. An empty file fits even on a full disk.
//! It must never suppress a warning for longer than a day.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW};

use super::{BootClockReading, Folder, files, state};
use crate::time::{BootTime, ClockReading, WallTime, Zone, millis};

const NOTE_PREFIX: &str = "complaint-";
/// A repeated warning is printed again after this.
const REPEAT_AFTER: Duration = Duration::from_secs(86_400);
/// Without a note, a warning is printed in the first minutes of a day …
const FIRST_MINUTES: Duration = Duration::from_secs(300);
/// … and these must not fall between two ticks with a long gap.
const MAX_TICK_GAP: Duration = Duration::from_secs(3_600);
/// A warning that was over and returns is printed at once this many times a day. That is fewer than what counts as
/// flapping …
const MAX_ROUNDS: u32 = 3;
/// … and then again this long after it was last printed.
const ROUND_INTERVAL: Duration = Duration::from_secs(3_600);

/// The notes of one caller, separate from those of other callers: a caller without errors must not reset another's
/// notes.
#[derive(Clone, Debug)]
pub struct RepeatFilter {
    folders: Vec<Folder>,
    caller: u64,
    subject: Option<u64>,
    zone: Zone,
}

impl RepeatFilter {
    /// Notes go to the first of these folders that can be written to. `caller` distinguishes the lines of a crontab.
    pub fn new(folders: Vec<Folder>, caller: &impl Hash, zone: Zone) -> RepeatFilter {
        RepeatFilter { folders, caller: hash(caller), subject: None, zone }
    }

    /// The notes of one subject, which can be reset separately.
    pub fn for_subject(&self, subject: &impl Hash) -> RepeatFilter {
        RepeatFilter { subject: Some(hash(subject)), ..self.clone() }
    }

    /// Whether to print this at `wall`: it was not printed within a day. Notes that it is printed; if no note can be
    /// written, it is still printed about once a day.
    pub fn should_print(&self, about: &str, wall: WallTime) -> bool {
        if self.was_printed(about, wall) {
            return false;
        }
        self.mark_printed(about, wall) || self.is_beginning_of_day(wall)
    }

    pub fn was_printed(&self, about: &str, wall: WallTime) -> bool {
        let found = self.folders.iter().filter_map(|folder| fs::symlink_metadata(self.path(folder, about)).ok());
        let mut printed = found.filter(fs::Metadata::is_file).map(|metadata| files::modified_at(&metadata));
        printed.any(|printed| time_apart(wall, printed) < REPEAT_AFTER)
    }

    pub fn was_anything_printed(&self, wall: WallTime) -> bool {
        let prefix = self.prefix();
        let is_recent = |(entry, metadata): &(fs::DirEntry, fs::Metadata)| {
            let is_own = entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix));
            is_own && time_apart(wall, files::modified_at(metadata)) < REPEAT_AFTER
        };
        let mut entries = self.folders.iter().flat_map(|folder| files::list_folder(folder.path()).unwrap_or_default());
        entries.any(|entry| is_recent(&entry))
    }

    pub fn mark_printed(&self, about: &str, wall: WallTime) -> bool {
        self.folders.iter().any(|folder| {
            clear(folder, |name, printed| name.starts_with(NOTE_PREFIX) && wall.since(printed) > REPEAT_AFTER * 2);
            folder.ensure().is_ok() && touch(self.path(folder, about), None).is_ok()
        })
    }

    /// Whether this may be printed, for callers that note it only afterwards: creates a note that is too old to count
    /// and needs only to be touched later. If no note can be created, the beginning of a day decides.
    pub fn may_be_printed(&self, about: &str, wall: WallTime) -> bool {
        let old = wall.offset_by(-millis(REPEAT_AFTER));
        let mut folders = self.folders.iter();
        folders.any(|folder| folder.ensure().is_ok() && touch(self.path(folder, about), Some(old)).is_ok())
            || self.is_beginning_of_day(wall)
    }

    /// For a problem that is over: when it returns, it is printed again.
    pub fn reset(&self) {
        let prefix = self.prefix();
        self.folders.iter().for_each(|folder| clear(folder, |name, _| name.starts_with(&prefix)));
    }

    /// For a problem that is over but may return. It is printed again then; one that comes and goes all day is printed
    /// less often.
    pub fn reset_round(&self, wall: WallTime) {
        if !self.was_anything_printed(wall) {
            return;
        }
        let rounds = self.for_subject(&("rounds", self.subject));
        let round = (0..MAX_ROUNDS).map(|n| n.to_string()).find(|round| !rounds.was_printed(round, wall));
        let is_round_left = round.is_some_and(|round| rounds.mark_printed(&round, wall));
        let prefix = self.prefix();
        let is_over = |printed: WallTime| is_round_left || time_apart(wall, printed) >= ROUND_INTERVAL;
        self.folders
            .iter()
            .for_each(|folder| clear(folder, |name, printed| name.starts_with(&prefix) && is_over(printed)));
    }

    fn prefix(&self) -> String {
        let subject = self.subject.map_or_else(String::new, |subject| format!("{subject:016x}-"));
        format!("{NOTE_PREFIX}{:016x}-{subject}", self.caller)
    }

    fn path(&self, folder: &Folder, about: &str) -> PathBuf {
        folder.file(&format!("{}{:016x}", self.prefix(), hash(&about)))
    }

    fn is_beginning_of_day(&self, wall: WallTime) -> bool {
        // Only gaps are needed here, so any boot time will do.
        let reading = BootClockReading { at: ClockReading { now: BootTime::BOOT, wall }, boot_id: None };
        let usual_gap =
            |folder| state::peek(folder, &reading).ok().flatten().and_then(|saved| saved.policy.ticks.usual_gap());
        let gap = self.folders.iter().filter_map(usual_gap).max().unwrap_or_default();
        let minutes = FIRST_MINUTES.max(gap.min(MAX_TICK_GAP)).as_secs() / 60;
        u64::from(self.zone.minute_of_day(wall)) < minutes
    }
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// The distance in either direction: a note dated by a clock that was ahead must expire as well.
fn time_apart(wall: WallTime, printed: WallTime) -> Duration {
    wall.since(printed).max(printed.since(wall))
}

fn touch(path: PathBuf, at: Option<WallTime>) -> io::Result<()> {
    let at = match at.map(WallTime::as_ms) {
        Some(ms) => Timespec { tv_sec: ms.div_euclid(1_000), tv_nsec: ms.rem_euclid(1_000) * 1_000_000 },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
    };
    let file = files::open_or_create(&path)?;
    Ok(rustix::fs::futimens(&file, &Timestamps { last_access: at, last_modification: at })?)
}

fn clear(folder: &Folder, is_over: impl Fn(&str, WallTime) -> bool) {
    for (entry, metadata) in files::list_folder(folder.path()).unwrap_or_default() {
        let is_over = entry.file_name().to_str().is_some_and(|name| is_over(name, files::modified_at(&metadata)));
        if is_over {
            // A note that cannot be removed delays a repeated warning by a day at most.
            let _ = files::remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::store::state::SavedState;

    fn filter(folders: &[&Path], caller: &str) -> RepeatFilter {
        let folders = folders.iter().map(|path| Folder::at(path)).collect();
        RepeatFilter::new(folders, &caller, Zone(|_| 3_600))
    }

    #[test]
    fn the_same_warning_is_printed_once_a_day() {
        let scene = tempfile::tempdir().expect("a folder");
        let state = scene.path().join("state");
        let (one, other) = (filter(&[&state], "a"), filter(&[&state], "b"));
        let now = files::modified_at(&fs::metadata(scene.path()).expect("a folder"));
        let later = |ms: i64| now.offset_by(ms);
        assert!(one.should_print("one warning", now));
        assert!(!one.should_print("one warning", later(60_000)));
        assert!(one.should_print("another warning", later(60_000)));
        // Two warnings at once, and those of another caller.
        assert!(
            !one.should_print("one warning", later(120_000)) && !one.should_print("another warning", later(120_000))
        );
        assert!(other.should_print("one warning", later(120_000)));
        other.reset();
        assert!(!one.should_print("one warning", later(120_000)) && other.should_print("one warning", later(120_000)));
        assert!(
            one.should_print("one warning", later(86_500_000)) && one.should_print("one warning", later(-86_500_000))
        );
        one.reset();
        assert!(one.should_print("one warning", now));
        // Notes that expired long ago are removed.
        assert!(other.should_print("a third warning", later(3 * 86_400_000)));
        assert_eq!(fs::read_dir(&state).expect("the folder").count(), 1);
    }

    #[test]
    fn one_subject_is_reset_alone_three_times_a_day_and_then_once_an_hour() {
        let scene = tempfile::tempdir().expect("a folder");
        let all = filter(&[scene.path()], "a");
        let (one, other) = (all.for_subject(&"one"), all.for_subject(&"other"));
        let now = files::modified_at(&fs::metadata(scene.path()).expect("a folder"));
        // Nothing was printed yet, so nothing is reset and no round is used up; a note that only prepares for printing
        // does not count.
        assert!(
            one.may_be_printed("one warning", now)
                && !one.was_printed("one warning", now)
                && !one.was_anything_printed(now)
        );
        for _ in 0..5 {
            one.reset_round(now);
        }
        assert!(other.should_print("one warning", now) && all.should_print("one warning", now));
        for round in 0..5 {
            assert_eq!(one.should_print("one warning", now), round <= MAX_ROUNDS, "in round {round}");
            one.reset_round(now);
        }
        let later = now.offset_by(3_700_000);
        one.reset_round(later);
        assert!(one.should_print("one warning", later));
        assert!(!other.should_print("one warning", later) && !all.should_print("one warning", later));
        all.reset();
        assert_eq!(fs::read_dir(scene.path()).expect("the folder").count(), 0);
    }

    #[test]
    fn the_first_writable_folder_takes_the_note() {
        let scene = tempfile::tempdir().expect("a folder");
        let (nowhere, state) = (Path::new("/proc/nowhere"), scene.path().join("state"));
        let now = files::modified_at(&fs::metadata(scene.path()).expect("a folder"));
        let both = filter(&[nowhere, &state], "a");
        assert!(both.should_print("one warning", now) && !both.should_print("one warning", now));
        assert!(!filter(&[&state], "a").should_print("one warning", now));
    }

    /// 23:00Z is midnight in this zone, an hour east of Greenwich.
    #[test]
    fn without_a_note_a_warning_is_printed_in_the_first_minutes_of_a_day() {
        #[track_caller]
        fn check(gap_min: i64, minute: i64, expected: bool) {
            let scene = tempfile::tempdir().expect("a folder");
            let filter = filter(&[scene.path()], "a");
            let folder = Folder::at(scene.path());
            fs::create_dir(filter.path(&folder, "one warning")).expect("a folder in place of the note");
            let midnight = WallTime::parse_rfc3339("2026-11-22T23:00:00.000Z").expect("a time");
            let mut saved = SavedState::default();
            (0..3).for_each(|tick| saved.policy.ticks.note(BootTime::from_ms(tick * gap_min * 60_000)));
            let at = ClockReading { now: BootTime::BOOT, wall: midnight };
            let reading = BootClockReading { at, boot_id: None };
            state::save(&folder, &saved, &saved.policy, &reading, false).expect("saved");
            for _ in 0..2 {
                assert_eq!(filter.should_print("one warning", midnight.offset_by(minute * 60_000)), expected);
                assert_eq!(filter.may_be_printed("one warning", midnight.offset_by(minute * 60_000)), expected);
            }
        }
        for (minute, expected) in [(-1, false), (0, true), (4, true), (5, false), (720, false), (1_440, true)] {
            check(0, minute, expected);
            check(1, minute, expected);
        }
        // One tick an hour, at some minute.
        for (minute, expected) in [(43, true), (59, true), (60, false), (103, false)] {
            check(60, minute, expected);
            check(300, minute, expected);
        }
        check(15, 14, true);
        check(15, 15, false);
        assert!(filter(&[Path::new("/proc/nowhere")], "a").should_print("one warning", WallTime::from_ms(-3_600_000)));
    }
}

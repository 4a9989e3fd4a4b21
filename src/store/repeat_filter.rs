//! What cron was told already, so that it mails the same trouble once a day and not at every tick.
//! A note is an empty file whose name stands for the complaint and whose time is that of the telling: a disk that is
//! full takes that, too.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW};

use super::{BootClockReading, Folder, files, state};
use crate::time::{BootTime, ClockReading, WallTime, Zone, millis};

const NOTE: &str = "complaint-";
/// The same complaint is news again after this.
const NEWS_AFTER: Duration = Duration::from_secs(86_400);
/// Where no note can be kept, a complaint is news in the first minutes of a day …
const FIRST_MINUTES: Duration = Duration::from_secs(300);
/// … which must not pass between two ticks that come rarely.
const LONGEST_DISTANCE: Duration = Duration::from_secs(3_600);
/// So often a day what comes again is news at once. That is fewer times than what is called flapping …
const ROUNDS: u32 = 3;
/// … and after those it is news this long after it was told.
const NEXT_ROUND_AFTER: Duration = Duration::from_secs(3_600);

/// The notes of one caller, which are no other's: one that is well must not make another's complaint news again.
#[derive(Clone, Debug)]
pub struct RepeatFilter {
    folders: Vec<Folder>,
    caller: u64,
    subject: Option<u64>,
    zone: Zone,
}

impl RepeatFilter {
    /// Kept in the first of these folders that takes a note. `caller` tells one line of a crontab from another.
    pub fn new(folders: Vec<Folder>, caller: &impl Hash, zone: Zone) -> RepeatFilter {
        RepeatFilter { folders, caller: hash(caller), subject: None, zone }
    }

    /// Those of one subject, which can be forgotten alone.
    pub fn of(&self, subject: &impl Hash) -> RepeatFilter {
        RepeatFilter { subject: Some(hash(subject)), ..self.clone() }
    }

    /// Whether this is to be told at `wall`: it was not told within a day. That it is told now is noted; where it
    /// cannot be, it is told once a day all the same, or nearly so.
    pub fn is_news(&self, about: &str, wall: WallTime) -> bool {
        if self.was_printed(about, wall) {
            return false;
        }
        self.note(about, wall) || self.is_beginning_of_day(wall)
    }

    pub fn was_printed(&self, about: &str, wall: WallTime) -> bool {
        let found = self.folders.iter().filter_map(|folder| fs::symlink_metadata(self.path(folder, about)).ok());
        let mut told = found.filter(fs::Metadata::is_file).map(|metadata| files::modified(&metadata));
        told.any(|told| distance(wall, told) < NEWS_AFTER)
    }

    pub fn was_anything_printed(&self, wall: WallTime) -> bool {
        let own = self.prefix();
        let is_told = |(entry, metadata): &(fs::DirEntry, fs::Metadata)| {
            let is_own = entry.file_name().to_str().is_some_and(|name| name.starts_with(&own));
            is_own && distance(wall, files::modified(metadata)) < NEWS_AFTER
        };
        let mut entries = self.folders.iter().flat_map(|folder| files::entries(folder.path()).unwrap_or_default());
        entries.any(|entry| is_told(&entry))
    }

    pub fn note(&self, about: &str, wall: WallTime) -> bool {
        self.folders.iter().any(|folder| {
            clear(folder, |name, told| name.starts_with(NOTE) && wall.since(told) > NEWS_AFTER * 2);
            folder.ensure().is_ok() && touch(self.path(folder, about), None).is_ok()
        })
    }

    /// Whether this may be told, given that it is noted only once it was: a note that is already too old to count is
    /// made, and has only to be touched then. Where none can be kept, the beginning of a day decides.
    pub fn may_be_printed(&self, about: &str, wall: WallTime) -> bool {
        let old = wall.offset_by(-millis(NEWS_AFTER));
        let mut folders = self.folders.iter();
        folders.any(|folder| folder.ensure().is_ok() && touch(self.path(folder, about), Some(old)).is_ok())
            || self.is_beginning_of_day(wall)
    }

    /// The trouble is over: should it come again, it is news.
    pub fn forget(&self) {
        let own = self.prefix();
        self.folders.iter().for_each(|folder| clear(folder, |name, _| name.starts_with(&own)));
    }

    /// The trouble is over and may come again. It is news then; what comes and goes all day is so less often.
    pub fn forget_this_round(&self, wall: WallTime) {
        if !self.was_anything_printed(wall) {
            return;
        }
        let rounds = self.of(&("rounds", self.subject));
        let round = (0..ROUNDS).map(|n| n.to_string()).find(|round| !rounds.was_printed(round, wall));
        let is_free = round.is_some_and(|round| rounds.note(&round, wall));
        let own = self.prefix();
        let is_over = |told: WallTime| is_free || distance(wall, told) >= NEXT_ROUND_AFTER;
        self.folders.iter().for_each(|folder| clear(folder, |name, told| name.starts_with(&own) && is_over(told)));
    }

    fn prefix(&self) -> String {
        let subject = self.subject.map_or_else(String::new, |subject| format!("{subject:016x}-"));
        format!("{NOTE}{:016x}-{subject}", self.caller)
    }

    fn path(&self, folder: &Folder, about: &str) -> PathBuf {
        folder.file(&format!("{}{:016x}", self.prefix(), hash(&about)))
    }

    fn is_beginning_of_day(&self, wall: WallTime) -> bool {
        // For distances any moment is as good as another.
        let moment = BootClockReading { at: ClockReading { now: BootTime::BOOT, wall }, boot_id: None };
        let distance =
            |folder| state::peek(folder, &moment).ok().flatten().and_then(|saved| saved.policy.ticks.usual_gap());
        let distance = self.folders.iter().filter_map(distance).max().unwrap_or_default();
        let minutes = FIRST_MINUTES.max(distance.min(LONGEST_DISTANCE)).as_secs() / 60;
        u64::from(self.zone.minute_of_day(wall)) < minutes
    }
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// How far apart they are: what was noted under a clock that was ahead is no note for ever.
fn distance(wall: WallTime, told: WallTime) -> Duration {
    wall.since(told).max(told.since(wall))
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
    for (entry, metadata) in files::entries(folder.path()).unwrap_or_default() {
        let is_over = entry.file_name().to_str().is_some_and(|name| is_over(name, files::modified(&metadata)));
        if is_over {
            // One that stays has the same trouble told a day later: too rare to be worth a word.
            let _ = files::remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::store::state::SavedState;

    fn complaints(folders: &[&Path], caller: &str) -> RepeatFilter {
        let folders = folders.iter().map(|path| Folder::at(path)).collect();
        RepeatFilter::new(folders, &caller, Zone(|_| 3_600))
    }

    #[test]
    fn the_same_trouble_is_told_once_a_day() {
        let scene = tempfile::tempdir().expect("a folder");
        let state = scene.path().join("state");
        let (one, other) = (complaints(&[&state], "a"), complaints(&[&state], "b"));
        let now = files::modified(&fs::metadata(scene.path()).expect("a folder"));
        let later = |ms: i64| now.offset_by(ms);
        assert!(one.is_news("bad", now));
        assert!(!one.is_news("bad", later(60_000)));
        assert!(one.is_news("worse", later(60_000)));
        // Two troubles at once, and those of somebody else.
        assert!(!one.is_news("bad", later(120_000)) && !one.is_news("worse", later(120_000)));
        assert!(other.is_news("bad", later(120_000)));
        other.forget();
        assert!(!one.is_news("bad", later(120_000)) && other.is_news("bad", later(120_000)));
        assert!(one.is_news("bad", later(86_500_000)) && one.is_news("bad", later(-86_500_000)));
        one.forget();
        assert!(one.is_news("bad", now));
        // What is long over leaves nothing.
        assert!(other.is_news("new", later(3 * 86_400_000)));
        assert_eq!(fs::read_dir(&state).expect("the folder").count(), 1);
    }

    #[test]
    fn one_subject_is_forgotten_alone_three_times_a_day_and_then_once_an_hour() {
        let scene = tempfile::tempdir().expect("a folder");
        let all = complaints(&[scene.path()], "a");
        let (one, other) = (all.of(&"one"), all.of(&"other"));
        let now = files::modified(&fs::metadata(scene.path()).expect("a folder"));
        // What was not told needs no round, and what is not yet told is none.
        assert!(one.may_be_printed("bad", now) && !one.was_printed("bad", now) && !one.was_anything_printed(now));
        for _ in 0..5 {
            one.forget_this_round(now);
        }
        assert!(other.is_news("bad", now) && all.is_news("bad", now));
        for round in 0..5 {
            assert_eq!(one.is_news("bad", now), round <= ROUNDS, "in round {round}");
            one.forget_this_round(now);
        }
        let later = now.offset_by(3_700_000);
        one.forget_this_round(later);
        assert!(one.is_news("bad", later));
        assert!(!other.is_news("bad", later) && !all.is_news("bad", later));
        all.forget();
        assert_eq!(fs::read_dir(scene.path()).expect("the folder").count(), 0);
    }

    #[test]
    fn it_is_noted_wherever_it_can_be() {
        let scene = tempfile::tempdir().expect("a folder");
        let (nowhere, state) = (Path::new("/proc/nowhere"), scene.path().join("state"));
        let now = files::modified(&fs::metadata(scene.path()).expect("a folder"));
        let both = complaints(&[nowhere, &state], "a");
        assert!(both.is_news("bad", now) && !both.is_news("bad", now));
        assert!(!complaints(&[&state], "a").is_news("bad", now));
    }

    /// From 23:00Z on it is a new day there, an hour east of Greenwich.
    #[test]
    fn where_it_cannot_be_noted_it_is_told_in_the_first_minutes_of_a_day() {
        #[track_caller]
        fn check(distance_min: i64, minute: i64, expected: bool) {
            let scene = tempfile::tempdir().expect("a folder");
            let complaints = complaints(&[scene.path()], "a");
            let folder = Folder::at(scene.path());
            fs::create_dir(complaints.path(&folder, "bad")).expect("what takes the note's place");
            let midnight = WallTime::parse_rfc3339("2026-11-22T23:00:00.000Z").expect("a time");
            let mut saved = SavedState::default();
            (0..3).for_each(|tick| saved.policy.ticks.note(BootTime::from_ms(tick * distance_min * 60_000)));
            let at = ClockReading { now: BootTime::BOOT, wall: midnight };
            let moment = BootClockReading { at, boot_id: None };
            state::save(&folder, &saved, &saved.policy, &moment, false).expect("saved");
            for _ in 0..2 {
                assert_eq!(complaints.is_news("bad", midnight.offset_by(minute * 60_000)), expected);
                assert_eq!(complaints.may_be_printed("bad", midnight.offset_by(minute * 60_000)), expected);
            }
        }
        for (minute, expected) in [(-1, false), (0, true), (4, true), (5, false), (720, false), (1_440, true)] {
            check(0, minute, expected);
            check(1, minute, expected);
        }
        // A tick an hour, at some minute.
        for (minute, expected) in [(43, true), (59, true), (60, false), (103, false)] {
            check(60, minute, expected);
            check(300, minute, expected);
        }
        check(15, 14, true);
        check(15, 15, false);
        assert!(complaints(&[Path::new("/proc/nowhere")], "a").is_news("bad", WallTime::from_ms(-3_600_000)));
    }
}

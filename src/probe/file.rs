//! A look at a file: whether it was written to lately.
//! It must never wait for a file server that does not answer.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
use crate::outcome::{Class, FileTime, describe_io_error};
use crate::time::{BootTime, HumanDuration, WallTime, millis};

use super::bounded_task::{BoundedTask, TaskError};
use super::deadline::Deadline;
use super::failure::Failure;

const STACK: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct FileProbe {
    path: PathBuf,
    max_age: Duration,
    asking: BoundedTask,
}

impl FileProbe {
    pub(super) fn new(path: PathBuf, max_age: Duration) -> Self {
        FileProbe { path, max_age, asking: BoundedTask::new("file", STACK) }
    }

    /// `known` is the file as it was seen last; `seen` becomes the file as it is seen now.
    pub(super) fn probe(
        &self,
        deadline: Deadline,
        known: Option<FileTime>,
        seen: &mut Option<FileTime>,
    ) -> Result<String, Failure> {
        let path = self.path.clone();
        let late = |detail: String| Err(Failure::Target(Class::Timeout, detail));
        match self.asking.run(deadline, move || written(&path)) {
            Ok(Ok(written)) => {
                let (now, wall) = (clock::now(), clock::wall());
                let file = remember(written, known, now, wall);
                *seen = Some(file);
                judge(file, now, wall, self.max_age)
            }
            Ok(Err(error)) => Err(missing(&error)),
            Err(TaskError::Late) => {
                late(format!("its file system gave no answer in {}", HumanDuration(deadline.budget())))
            }
            Err(TaskError::Hanging) => late("its file system still hangs since an earlier look".into()),
            Err(TaskError::Ours(trouble)) => Err(Failure::Ours(format!("cannot look at the file: {trouble}"))),
        }
    }
}

fn written(path: &Path) -> io::Result<WallTime> {
    let found = path.metadata()?;
    Ok(WallTime::from_ms(found.mtime().saturating_mul(1_000).saturating_add(found.mtime_nsec() / 1_000_000)))
}

/// What is known of a file that was written at `written`. It was seen first now, unless it was known with that time.
fn remember(written: WallTime, known: Option<FileTime>, now: BootTime, wall: WallTime) -> FileTime {
    let first = FileTime { written, seen: now, age_ms: millis(wall.since(written)) };
    known.filter(|known| known.written == written).unwrap_or(first)
}

/// How old a file is. It cannot have been written after it was first seen with its time, so it is as old as that at the
/// least, by the boot clock. Beyond that only the wall clock knows, which may have been set since: of its two answers,
/// now and at first, the younger one is taken, since the age grows from then on whatever the clock does.
fn age(file: FileTime, now: BootTime, wall: WallTime) -> Duration {
    let known_for = now.since(file.seen);
    let at_first = Duration::from_millis(u64::try_from(file.age_ms).unwrap_or(0));
    wall.since(file.written).min(at_first + known_for).max(known_for)
}

fn judge(file: FileTime, now: BootTime, wall: WallTime, max_age: Duration) -> Result<String, Failure> {
    let age = age(file, now, wall);
    let ahead = file.written.since(wall);
    let what = match ahead.is_zero() {
        true => format!("written {} ago", HumanDuration(age)),
        false => format!("its time is {} ahead, and unchanged for {}", HumanDuration(ahead), HumanDuration(age)),
    };
    match age > max_age {
        true => Err(Failure::Target(Class::Stale, format!("{what}, at most {} allowed", HumanDuration(max_age)))),
        false => Ok(what),
    }
}

fn missing(error: &io::Error) -> Failure {
    let stale = |detail: &str| Failure::Target(Class::Stale, detail.into());
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => stale("no such file"),
        // Its server has another file in its place.
        ErrorKind::StaleNetworkFileHandle => stale("no such file any more"),
        _ => Failure::Ours(format!("cannot look at the file: {}", describe_io_error(error))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixListener;
    use std::time::SystemTime;

    use super::*;

    fn line(found: Result<String, Failure>) -> String {
        match found {
            Ok(detail) => format!("healthy: {detail}"),
            Err(Failure::Target(class, detail)) => format!("{class}: {detail}"),
            Err(Failure::Ours(detail)) => format!("unknown: {detail}"),
        }
    }

    /// Looks at a file again and again: the boot clock and the wall clock at each look and the file's time, in seconds.
    #[track_caller]
    fn check(looks: &[(i64, i64, i64)], expected: &str) {
        let (mut known, mut found) = (None, Err(Failure::Ours("no look".into())));
        for (now, wall, written) in looks {
            let (now, wall) = (BootTime::from_ms(now * 1_000), WallTime::from_ms(wall * 1_000));
            let file = remember(WallTime::from_ms(written * 1_000), known, now, wall);
            known = Some(file);
            found = judge(file, now, wall, Duration::from_secs(120));
        }
        assert_eq!(line(found), expected, "{looks:?}");
    }

    #[test]
    fn ages_are_judged() {
        check(&[(0, 5_000, 5_000)], "healthy: written 0 ms ago");
        check(&[(0, 5_000, 4_988)], "healthy: written 12 s ago");
        check(&[(0, 5_000, 4_880)], "healthy: written 2 min ago");
        check(&[(0, 5_000, 4_700)], "stale: written 5 min ago, at most 2 min allowed");
        check(&[(0, 5_000, 5_000), (300, 5_300, 5_000)], "stale: written 5 min ago, at most 2 min allowed");
        check(&[(0, 5_000, 4_700), (300, 5_300, 5_290)], "healthy: written 10 s ago");
    }

    #[test]
    fn a_time_ahead_is_as_old_as_it_is_known() {
        let hour_ahead = 3_600 + 5_000;
        check(&[(0, 5_000, hour_ahead)], "healthy: its time is 1 h ahead, and unchanged for 0 ms");
        let stale = "stale: its time is 55 min ahead, and unchanged for 5 min, at most 2 min allowed";
        check(&[(0, 5_000, hour_ahead), (300, 5_300, hour_ahead)], stale);
        check(
            &[(0, 5_000, hour_ahead), (300, 5_300, hour_ahead + 300)],
            "healthy: its time is 1 h ahead, and unchanged for 0 ms",
        );
    }

    #[test]
    fn a_clock_that_is_set_changes_no_age() {
        // It went ahead by an hour and comes back: the file was written in between, and never again.
        let stale = "stale: its time is 50 min ahead, and unchanged for 10 min, at most 2 min allowed";
        check(&[(0, 8_600, 8_600), (300, 5_300, 8_600), (600, 5_600, 8_600)], stale);
        // It goes back, and the file's time stays behind it.
        check(&[(0, 5_000, 1_000), (300, 1_300, 1_000)], "stale: written 5 min ago, at most 2 min allowed");
        // It goes ahead while the file is written to as ever.
        check(&[(0, 5_000, 4_990), (30, 8_630, 4_990)], "healthy: written 40 s ago");
        check(
            &[(0, 5_000, 4_990), (90, 8_690, 4_990), (150, 8_750, 4_990)],
            "stale: written 2 min 40 s ago, at most 2 min allowed",
        );
        // It was far ahead when the file was seen first, and comes back.
        check(&[(0, 9_000, 4_990), (30, 5_020, 4_990)], "healthy: written 30 s ago");
    }

    #[test]
    fn a_file_that_is_not_there_is_stale_and_one_that_cannot_be_seen_is_unknown() {
        let check = |error: io::Error, expected| assert_eq!(line(Err(missing(&error))), expected);
        check(ErrorKind::NotFound.into(), "stale: no such file");
        check(ErrorKind::NotADirectory.into(), "stale: no such file");
        check(ErrorKind::PermissionDenied.into(), "unknown: cannot look at the file: permission denied");
        check(io::Error::from_raw_os_error(24), "unknown: cannot look at the file: too many open files");
    }

    #[test]
    fn real_files_are_asked() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("heartbeat");
        let deadline = || Deadline::after(Duration::from_secs(20));
        let look = |max_age, known| {
            let mut seen = None;
            let found = FileProbe::new(path.clone(), max_age).probe(deadline(), known, &mut seen);
            (line(found), seen)
        };
        assert_eq!(look(Duration::MAX, None), ("stale: no such file".into(), None));

        let file = File::create(&path).expect("a file");
        assert!(look(Duration::from_secs(3600), None).0.starts_with("healthy: written "));

        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        file.set_modified(old).expect("another time");
        assert!(look(Duration::from_secs(3600), None).0.starts_with("stale: written "));

        let ahead = SystemTime::UNIX_EPOCH + Duration::from_secs(20_000_000_000);
        file.set_modified(ahead).expect("another time");
        let (found, seen) = look(Duration::ZERO, None);
        assert!(found.starts_with("healthy: its time is ") && found.ends_with("unchanged for 0 ms"), "{found}");
        let mut long_ago = seen.expect("it is there");
        long_ago.seen = long_ago.seen.offset_by(-60_000);
        let (found, seen) = look(Duration::from_secs(30), Some(long_ago));
        assert!(found.starts_with("stale: its time is "), "{found}");
        assert_eq!(seen, Some(long_ago));

        // It need not be a plain file.
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).expect("a socket");
        let probe = FileProbe::new(socket, Duration::from_secs(3600));
        assert!(probe.probe(deadline(), None, &mut None).is_ok());
    }
}

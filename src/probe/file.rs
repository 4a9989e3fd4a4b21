//! The file probe: healthy when the file was written to recently.
//! It must never wait beyond the deadline for a file server that does not answer.

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

const THREAD_STACK: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct FileProbe {
    path: PathBuf,
    max_age: Duration,
    task: BoundedTask,
}

impl FileProbe {
    pub(super) fn new(path: PathBuf, max_age: Duration) -> Self {
        FileProbe { path, max_age, task: BoundedTask::new("file", THREAD_STACK) }
    }

    /// `known` is what an earlier probe found; `observed` is set to what this one finds.
    pub(super) fn probe(
        &self,
        deadline: Deadline,
        known: Option<FileTime>,
        observed: &mut Option<FileTime>,
    ) -> Result<String, Failure> {
        let path = self.path.clone();
        let timeout = |detail: String| Err(Failure::Unhealthy(Class::Timeout, detail));
        match self.task.run(deadline, move || modification_time(&path)) {
            Ok(Ok(written)) => {
                let (now, wall) = (clock::now(), clock::wall());
                let file = file_time(written, known, now, wall);
                *observed = Some(file);
                evaluate(file, now, wall, self.max_age)
            }
            Ok(Err(error)) => Err(classify_error(&error)),
            Err(TaskError::TimedOut) => {
                timeout(format!("its file system did not answer within {}", HumanDuration(deadline.budget())))
            }
            Err(TaskError::StillRunning) => timeout("its file system still hangs from an earlier probe".into()),
            Err(TaskError::Failed(reason)) => Err(Failure::Unknown(format!("cannot check the file: {reason}"))),
        }
    }
}

fn modification_time(path: &Path) -> io::Result<WallTime> {
    let metadata = path.metadata()?;
    Ok(WallTime::from_ms(metadata.mtime().saturating_mul(1_000).saturating_add(metadata.mtime_nsec() / 1_000_000)))
}

/// Keeps what is known of a file whose modification time is unchanged; otherwise the file counts as first seen now.
fn file_time(written: WallTime, known: Option<FileTime>, now: BootTime, wall: WallTime) -> FileTime {
    let first = FileTime { written, seen: now, age_ms: millis(wall.since(written)) };
    known.filter(|known| known.written == written).unwrap_or(first)
}

/// The age of a file. By the boot clock it is at least the time since the file was first seen with this modification
/// time. Beyond that only the wall clock tells, and it may have been set in between: of its two values, now and at
/// first sight, the smaller one counts. From then on the age grows, whatever happens to the wall clock.
fn age(file: FileTime, now: BootTime, wall: WallTime) -> Duration {
    let known_for = now.since(file.seen);
    let at_first = Duration::from_millis(u64::try_from(file.age_ms).unwrap_or(0));
    wall.since(file.written).min(at_first + known_for).max(known_for)
}

fn evaluate(file: FileTime, now: BootTime, wall: WallTime, max_age: Duration) -> Result<String, Failure> {
    let age = age(file, now, wall);
    let ahead = file.written.since(wall);
    let state = match ahead.is_zero() {
        true => format!("written {} ago", HumanDuration(age)),
        false => format!("its time is {} in the future, unchanged for {}", HumanDuration(ahead), HumanDuration(age)),
    };
    match age > max_age {
        true => Err(Failure::Unhealthy(Class::Stale, format!("{state}, at most {} allowed", HumanDuration(max_age)))),
        false => Ok(state),
    }
}

fn classify_error(error: &io::Error) -> Failure {
    let stale = |detail: &str| Failure::Unhealthy(Class::Stale, detail.into());
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => stale("no such file"),
        // The file server has replaced or removed the file.
        ErrorKind::StaleNetworkFileHandle => stale("the file no longer exists"),
        _ => Failure::Unknown(format!("cannot check the file: {}", describe_io_error(error))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixListener;
    use std::time::SystemTime;

    use super::*;

    fn format_result(result: Result<String, Failure>) -> String {
        match result {
            Ok(detail) => format!("healthy: {detail}"),
            Err(Failure::Unhealthy(class, detail)) => format!("{class}: {detail}"),
            Err(Failure::Unknown(detail)) => format!("unknown: {detail}"),
        }
    }

    /// Probes a file several times. Each probe: the boot clock, the wall clock and the file's modification time, in
    /// seconds.
    #[track_caller]
    fn check(probes: &[(i64, i64, i64)], expected: &str) {
        let (mut known, mut result) = (None, Err(Failure::Unknown("no probe".into())));
        for (now, wall, written) in probes {
            let (now, wall) = (BootTime::from_ms(now * 1_000), WallTime::from_ms(wall * 1_000));
            let file = file_time(WallTime::from_ms(written * 1_000), known, now, wall);
            known = Some(file);
            result = evaluate(file, now, wall, Duration::from_secs(120));
        }
        assert_eq!(format_result(result), expected, "{probes:?}");
    }

    #[test]
    fn a_file_older_than_the_limit_is_stale() {
        check(&[(0, 5_000, 5_000)], "healthy: written 0 ms ago");
        check(&[(0, 5_000, 4_988)], "healthy: written 12 s ago");
        check(&[(0, 5_000, 4_880)], "healthy: written 2 min ago");
        check(&[(0, 5_000, 4_700)], "stale: written 5 min ago, at most 2 min allowed");
        check(&[(0, 5_000, 5_000), (300, 5_300, 5_000)], "stale: written 5 min ago, at most 2 min allowed");
        check(&[(0, 5_000, 4_700), (300, 5_300, 5_290)], "healthy: written 10 s ago");
    }

    #[test]
    fn a_time_in_the_future_ages_from_when_it_was_first_seen() {
        let in_an_hour = 3_600 + 5_000;
        check(&[(0, 5_000, in_an_hour)], "healthy: its time is 1 h in the future, unchanged for 0 ms");
        let stale = "stale: its time is 55 min in the future, unchanged for 5 min, at most 2 min allowed";
        check(&[(0, 5_000, in_an_hour), (300, 5_300, in_an_hour)], stale);
        check(
            &[(0, 5_000, in_an_hour), (300, 5_300, in_an_hour + 300)],
            "healthy: its time is 1 h in the future, unchanged for 0 ms",
        );
    }

    #[test]
    fn setting_the_clock_changes_no_age() {
        // The clock was an hour ahead and is set back. The file was written in between and not since.
        let stale = "stale: its time is 50 min in the future, unchanged for 10 min, at most 2 min allowed";
        check(&[(0, 8_600, 8_600), (300, 5_300, 8_600), (600, 5_600, 8_600)], stale);
        // The clock is set back, but not behind the file's time.
        check(&[(0, 5_000, 1_000), (300, 1_300, 1_000)], "stale: written 5 min ago, at most 2 min allowed");
        // The clock is set ahead.
        check(&[(0, 5_000, 4_990), (30, 8_630, 4_990)], "healthy: written 40 s ago");
        check(
            &[(0, 5_000, 4_990), (90, 8_690, 4_990), (150, 8_750, 4_990)],
            "stale: written 2 min 40 s ago, at most 2 min allowed",
        );
        // The clock was far ahead when the file was first seen, and is set back.
        check(&[(0, 9_000, 4_990), (30, 5_020, 4_990)], "healthy: written 30 s ago");
    }

    #[test]
    fn a_missing_file_is_stale_and_one_that_cannot_be_read_is_unknown() {
        let check = |error: io::Error, expected| assert_eq!(format_result(Err(classify_error(&error))), expected);
        check(ErrorKind::NotFound.into(), "stale: no such file");
        check(ErrorKind::NotADirectory.into(), "stale: no such file");
        check(ErrorKind::PermissionDenied.into(), "unknown: cannot check the file: permission denied");
        check(io::Error::from_raw_os_error(24), "unknown: cannot check the file: too many open files");
    }

    #[test]
    fn real_files_are_probed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("heartbeat");
        let deadline = || Deadline::after(Duration::from_secs(20));
        let probe = |max_age, known| {
            let mut observed = None;
            let result = FileProbe::new(path.clone(), max_age).probe(deadline(), known, &mut observed);
            (format_result(result), observed)
        };
        assert_eq!(probe(Duration::MAX, None), ("stale: no such file".into(), None));

        let file = File::create(&path).expect("a file");
        assert!(probe(Duration::from_secs(3600), None).0.starts_with("healthy: written "));

        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        file.set_modified(old).expect("another time");
        assert!(probe(Duration::from_secs(3600), None).0.starts_with("stale: written "));

        let ahead = SystemTime::UNIX_EPOCH + Duration::from_secs(20_000_000_000);
        file.set_modified(ahead).expect("another time");
        let (result, observed) = probe(Duration::ZERO, None);
        assert!(result.starts_with("healthy: its time is ") && result.ends_with("unchanged for 0 ms"), "{result}");
        let mut long_ago = observed.expect("it is there");
        long_ago.seen = long_ago.seen.offset_by(-60_000);
        let (result, observed) = probe(Duration::from_secs(30), Some(long_ago));
        assert!(result.starts_with("stale: its time is "), "{result}");
        assert_eq!(observed, Some(long_ago));

        // It need not be a regular file.
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).expect("a socket");
        let probe = FileProbe::new(socket, Duration::from_secs(3600));
        assert!(probe.probe(deadline(), None, &mut None).is_ok());
    }
}

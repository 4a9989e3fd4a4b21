//! A look at a file: whether it was written to lately.
//! It must never wait for a file server that does not answer.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::outcome::{Class, in_words};
use crate::time::Span;

use super::Failure;
use super::aside::{Aside, Missing};
use super::deadline::Deadline;

/// One call of the system fits into this.
const STACK: usize = 64 << 10;

/// A target that shows its life by writing to a file.
#[derive(Debug)]
pub(super) struct FileProbe {
    path: PathBuf,
    max_age: Duration,
    asking: Aside,
}

impl FileProbe {
    pub(super) fn new(path: PathBuf, max_age: Duration) -> Self {
        FileProbe { path, max_age, asking: Aside::new("file", STACK) }
    }

    pub(super) fn look(&self, deadline: Deadline) -> Result<String, Failure> {
        let path = self.path.clone();
        let late = |detail: String| Err(Failure::Target(Class::Timeout, detail));
        match self.asking.run(deadline, move || path.metadata().and_then(|found| found.modified())) {
            Ok(found) => judge(found.map(age), self.max_age),
            Err(Missing::Late) => late(format!("its file system gave no answer in {}", Span(deadline.budget()))),
            Err(Missing::Hanging) => late("its file system still hangs since an earlier look".into()),
            Err(Missing::Ours(trouble)) => Err(Failure::Ours(format!("cannot look at the file: {trouble}"))),
        }
    }
}

/// A time that is still to come, by a clock that was set back or another machine's, counts as now.
fn age(written: SystemTime) -> Duration {
    written.elapsed().unwrap_or_default()
}

fn judge(age: io::Result<Duration>, max_age: Duration) -> Result<String, Failure> {
    let stale = |detail: String| Err(Failure::Target(Class::Stale, detail));
    match age {
        Ok(age) if age > max_age => stale(format!("written {} ago, at most {} allowed", Span(age), Span(max_age))),
        Ok(age) => Ok(format!("written {} ago", Span(age))),
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => stale("no such file".into()),
            // Its server has another file in its place.
            ErrorKind::StaleNetworkFileHandle => stale("no such file any more".into()),
            _ => Err(Failure::Ours(format!("cannot look at the file: {}", in_words(&error)))),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[track_caller]
    fn check(age: io::Result<u64>, expected: &str) {
        let found = match judge(age.map(Duration::from_secs), Duration::from_secs(120)) {
            Ok(detail) => format!("healthy: {detail}"),
            Err(Failure::Target(class, detail)) => format!("{class}: {detail}"),
            Err(Failure::Ours(detail)) => format!("unknown: {detail}"),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn ages_are_judged() {
        check(Ok(0), "healthy: written 0 ms ago");
        check(Ok(12), "healthy: written 12 s ago");
        check(Ok(120), "healthy: written 2 min ago");
        check(Ok(300), "stale: written 5 min ago, at most 2 min allowed");
        check(Err(ErrorKind::NotFound.into()), "stale: no such file");
        check(Err(ErrorKind::NotADirectory.into()), "stale: no such file");
        check(Err(ErrorKind::PermissionDenied.into()), "unknown: cannot look at the file: permission denied");
        check(Err(io::Error::from_raw_os_error(24)), "unknown: cannot look at the file: too many open files");
    }

    #[test]
    fn real_files_are_asked() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("heartbeat");
        let look = |max_age| FileProbe::new(path.clone(), max_age).look(Deadline::after(Duration::from_secs(20)));
        assert!(matches!(look(Duration::MAX), Err(Failure::Target(Class::Stale, detail)) if detail == "no such file"));

        let file = File::create(&path).expect("a file");
        assert!(look(Duration::from_secs(3600)).is_ok());

        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        file.set_modified(old).expect("another time");
        assert!(matches!(look(Duration::from_secs(3600)), Err(Failure::Target(Class::Stale, _))));

        let ahead = SystemTime::UNIX_EPOCH + Duration::from_secs(20_000_000_000);
        file.set_modified(ahead).expect("another time");
        assert_eq!(look(Duration::ZERO).expect("fresh"), "written 0 ms ago");

        // It need not be a plain file.
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).expect("a socket");
        let probe = FileProbe::new(socket, Duration::from_secs(3600));
        assert!(probe.look(Deadline::after(Duration::from_secs(20))).is_ok());
    }
}

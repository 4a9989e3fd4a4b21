//! Describes a failed file operation, so that a sentence about its consequence can follow.
//! It must never lose the path.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::outcome::describe_io_error;

/// Prints as `cannot save /…/state.json: no space left on device`.
#[derive(Debug)]
pub struct Error {
    action: &'static str,
    path: PathBuf,
    cause: io::Error,
}

impl Error {
    pub(super) fn new(action: &'static str, path: &Path, cause: io::Error) -> Self {
        Error { action, path: path.to_path_buf(), cause }
    }

    /// The kind of the cause; `InvalidData` if the content is damaged or not of the expected type.
    pub fn kind(&self) -> io::ErrorKind {
        self.cause.kind()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.action, self.path.display(), describe_io_error(&self.cause))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[track_caller]
    fn check(cause: io::Error, expected: &str) {
        let error = Error::new("save", Path::new("/x/state.json"), cause);
        assert_eq!(error.to_string(), format!("cannot save /x/state.json: {expected}"));
    }

    #[test]
    fn errors_contain_path_and_reason() {
        check(Errno::NOSPC.into(), "no space left on device");
        check(Errno::ROFS.into(), "read-only file system");
        check(io::Error::other("it belongs to uid 7"), "it belongs to uid 7");
    }
}

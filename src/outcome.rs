//! What a look and a command can come to: the words that every other room shares.
//! Only values live here, no judgement and no I/O.

mod downtime;
mod evidence;
mod pm2;

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::{BootTime, WallTime};

pub use downtime::Downtime;
pub use evidence::{Evidence, Phases};
pub use pm2::{DaemonState, Inspection, Pm2Evidence, PriorEvidence, ProcessIdentity, RestReason};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Connection refused, unreachable, or no such socket.
    Refused,
    /// The deadline passed before the answer was complete.
    Timeout,
    Reset,
    /// The name does not resolve, or the resolver hangs.
    Dns,
    Tls,
    /// Not HTTP, closed without an answer, or cut short.
    Protocol,
    Status,
    /// Wrong text or JSON, not JSON, or too long.
    Body,
    /// A command probe ended otherwise than with 0.
    Exit,
    /// A file is missing or too old.
    Stale,
    /// PM2's daemon or process is not alive.
    Gone,
}

impl Class {
    /// Every class, in the order of the contract's table.
    pub const ALL: [Class; 11] = [
        Class::Refused,
        Class::Timeout,
        Class::Reset,
        Class::Dns,
        Class::Tls,
        Class::Protocol,
        Class::Status,
        Class::Body,
        Class::Exit,
        Class::Stale,
        Class::Gone,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Class::Refused => "refused",
            Class::Timeout => "timeout",
            Class::Reset => "reset",
            Class::Dns => "dns",
            Class::Tls => "tls",
            Class::Protocol => "protocol",
            Class::Status => "status",
            Class::Body => "body",
            Class::Exit => "exit",
            Class::Stale => "stale",
            Class::Gone => "gone",
        }
    }

    /// What was seen, for people: the class before its detail, unless the detail begins with that word itself.
    pub fn with_detail(self, detail: &str) -> String {
        match detail.strip_prefix(self.as_str()) {
            Some(_) => detail.to_owned(),
            None => format!("{self}; {detail}"),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Class {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Class::ALL
            .into_iter()
            .find(|class| class.as_str() == word)
            .ok_or_else(|| format!("unknown failure class `{word}`"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NotificationKind {
    Healed,
    Down,
    Up,
    Warn,
    Test,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// It answered as it should; `detail` says how, such as `200`.
    Healthy { detail: String },
    /// `detail`: in a few words, without control characters and without secrets.
    Unhealthy { class: Class, detail: String },
    /// Our own trouble, as `detail` says: nothing can be said of the target, and nothing is done.
    Unknown { detail: String },
}

impl Verdict {
    pub fn is_healthy(&self) -> bool {
        matches!(self, Verdict::Healthy { .. })
    }

    pub fn as_str(&self) -> &'static str {
        match self {
            Verdict::Healthy { .. } => "healthy",
            Verdict::Unhealthy { .. } => "unhealthy",
            Verdict::Unknown { .. } => "unknown",
        }
    }

    pub fn detail(&self) -> &str {
        match self {
            Verdict::Healthy { detail } | Verdict::Unhealthy { detail, .. } | Verdict::Unknown { detail } => detail,
        }
    }

    pub fn class(&self) -> Option<Class> {
        match self {
            Verdict::Unhealthy { class, .. } => Some(*class),
            Verdict::Healthy { .. } | Verdict::Unknown { .. } => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    pub verdict: Verdict,
    /// From the start of the look to its verdict.
    pub latency: Duration,
    /// What was seen of PM2 along with it; `None` for a target without PM2, or when nothing could be seen.
    pub pm2: Option<Pm2Evidence>,
    pub evidence: Option<Box<Evidence>>,
    /// What was seen of the target's file; `None` where it has none, or it could not be seen.
    pub file: Option<FileTime>,
}

/// When a file was written, as it was seen first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTime {
    /// The file's time. The clock that it is of may be another than ours, or ours before it was set.
    pub written: WallTime,
    /// When the file was first seen with that time.
    pub seen: BootTime,
    /// How old it was then by the wall clock, in milliseconds; 0 for a time ahead.
    pub age_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Exited(i32),
    /// A signal of this number, not ours, ended it.
    Killed(i32),
    TimedOut,
    /// It could not be started, for this reason. The shell's 126 and 127 are of this kind too.
    NotStarted(String),
    /// The watchdog that started it ended before it did, and nobody knows how it went.
    Lost,
}

/// What the system said to a call, as the end of a sentence: lower case, without the number.
pub fn describe_io_error(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        // "I/O error" keeps its capital.
        Some(first) if letters.as_str().starts_with(char::is_lowercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// The longest command that people are told, in characters.
const COMMAND_SHOWN: usize = 80;

/// A command as it is told to people: the first line that says anything, and not too much of it.
pub fn short_command(command: &str) -> String {
    let mut lines = command.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let is_whole = lines.next().is_none() && first.chars().count() <= COMMAND_SHOWN;
    if is_whole { first.to_owned() } else { first.chars().take(COMMAND_SHOWN - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_in_a_line() {
        #[track_caller]
        fn check(command: &str, expected: &str) {
            assert_eq!(short_command(command), expected);
        }
        check("pm2 restart api", "pm2 restart api");
        check("  pm2 restart api\n", "pm2 restart api");
        check("\n\nset -e\r\ncd /srv\npm2 restart api\n", "set -e…");
        check(&"ä".repeat(80), &"ä".repeat(80));
        check(&"ä".repeat(81), &("ä".repeat(79) + "…"));
        check(&format!("{}\nx", "ä".repeat(80)), &("ä".repeat(79) + "…"));
        check("", "");
    }

    #[test]
    fn a_class_is_not_said_twice() {
        assert_eq!(
            Class::Timeout.with_detail("connected in 1 ms, then no byte for 10 s").split(';').next(),
            Some("timeout")
        );
        assert_eq!(Class::Status.with_detail("status 503"), "status 503");
        assert_eq!(Class::Refused.with_detail("refused by [::1]:1"), "refused by [::1]:1");
    }

    #[test]
    fn errors_end_a_sentence() {
        #[track_caller]
        fn check(error: io::Error, expected: &str) {
            assert_eq!(describe_io_error(&error), expected);
        }
        check(io::Error::from_raw_os_error(2), "no such file or directory");
        check(io::Error::from_raw_os_error(28), "no space left on device");
        check(io::Error::other("I/O error"), "I/O error");
        check(io::Error::other(""), "");
    }
}

//! The results of probes and commands, as values that all rooms share.
//! It must never draw a conclusion from them and never do I/O.

mod address;
mod downtime;
mod evidence;
mod pm2;
mod pm2_log;

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::{BootTime, WallTime};

pub use address::AddressResult;
pub use downtime::Downtime;
pub use evidence::{Evidence, Phases};
pub use pm2::{DaemonState, Inspection, Pm2Evidence, PriorEvidence, ProcessIdentity, RestReason};
pub use pm2_log::{Pm2Instance, Pm2LogState, Pm2Restart, RestartReason};

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
    /// A command probe exited with another code than 0, or was killed.
    Exit,
    /// A file is missing or too old.
    Stale,
    /// PM2's daemon or the process is not alive.
    Gone,
}

impl Class {
    /// In the order of the contract's table.
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

    /// The class and its detail, for people: only the detail if that starts with the class, perhaps after an address.
    pub fn with_detail(self, detail: &str) -> String {
        let after_address = detail.split_once("://").and_then(|(_, rest)| rest.split_once(": ")).map(|(_, rest)| rest);
        match [Some(detail), after_address].into_iter().flatten().any(|text| text.starts_with(self.as_str())) {
            true => detail.to_owned(),
            false => format!("{self}; {detail}"),
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
    /// `detail`: for example `200`.
    Healthy { detail: String },
    /// `detail`: a few words without control characters and secrets.
    Unhealthy { class: Class, detail: String },
    /// The watchdog's own trouble, described in `detail`: it says nothing about the target and leads to no action.
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
    /// From the start of the probe to its verdict.
    pub latency: Duration,
    /// `None` for a target without PM2, or if nothing could be observed.
    pub pm2: Option<Pm2Evidence>,
    pub evidence: Option<Box<Evidence>>,
    /// `None` for a target without a file, or if the file could not be read.
    pub file: Option<FileTime>,
    /// In the order of the configuration; empty unless the target has several addresses.
    pub addresses: Vec<AddressResult>,
}

impl ProbeResult {
    /// A verdict without evidence.
    pub fn new(verdict: Verdict, latency: Duration) -> ProbeResult {
        ProbeResult { verdict, latency, pm2: None, evidence: None, file: None, addresses: Vec::new() }
    }
}

/// The modification time of a file, and when the watchdog first observed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTime {
    /// It may come from the clock of another machine, or from our clock before that was set.
    pub written: WallTime,
    /// When the file was first observed with that modification time.
    pub seen: BootTime,
    /// Its age then by the wall clock, in milliseconds; 0 for a modification time in the future.
    pub age_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Exited(i32),
    /// By a signal of this number that the watchdog did not send.
    Killed(i32),
    TimedOut,
    /// For this reason. It includes the shell's exit codes 126 and 127.
    NotStarted(String),
    /// The watchdog that started the command ended before it did, so its result is unknown.
    Lost,
}

/// A system error's text in lower case and without its number, for use at the end of a message.
pub fn describe_io_error(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        // An abbreviation such as "I/O error" keeps its capital.
        Some(first) if letters.as_str().starts_with(char::is_lowercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// In characters, as the contract says for messages.
const MAX_COMMAND_SHOWN: usize = 80;

/// The first line of a command that is not empty, shortened for people.
pub fn short_command(command: &str) -> String {
    let mut lines = command.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let is_whole = lines.next().is_none() && first.chars().count() <= MAX_COMMAND_SHOWN;
    if is_whole { first.to_owned() } else { first.chars().take(MAX_COMMAND_SHOWN - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shortened_to_one_line() {
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
    fn a_class_is_not_repeated_before_its_detail() {
        assert_eq!(
            Class::Timeout.with_detail("connected in 1 ms, then no byte for 10 s").split(';').next(),
            Some("timeout")
        );
        assert_eq!(Class::Status.with_detail("status 503"), "status 503");
        assert_eq!(Class::Refused.with_detail("refused by [::1]:1"), "refused by [::1]:1");
        let at_address = "http://localhost:1/health: refused by [::1]:1";
        assert_eq!(Class::Refused.with_detail(at_address), at_address);
        let at_address = "http://localhost:1/refused: no byte for 10 s";
        assert_eq!(Class::Timeout.with_detail(at_address), format!("timeout; {at_address}"));
        assert_eq!(
            Class::Refused.with_detail("http://h/: body is refused: x"),
            "refused; http://h/: body is refused: x"
        );
    }

    #[test]
    fn errors_are_lower_case_without_a_number() {
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

//! What was read in PM2's own log, as values: why PM2 restarted processes, and how far the log was read.
//! It must never draw a conclusion itself: the pm2 room does.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::WallTime;

/// Why PM2 started a process again by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub enum RestartReason {
    /// It exited with this code.
    Exit(i32),
    /// A signal ended it, such as `SIGKILL`.
    Signal(String),
    /// It used more memory than this many bytes (`max_memory_restart`).
    Memory(u64),
    /// A file changed (`watch`).
    Watch,
    /// One of many reasons.
    Other,
}

impl fmt::Display for RestartReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestartReason::Exit(code) => write!(f, "exit {code}"),
            RestartReason::Signal(name) => write!(f, "signal {name}"),
            RestartReason::Memory(limit) => write!(f, "memory {limit}"),
            RestartReason::Watch => f.write_str("watch"),
            RestartReason::Other => f.write_str("other"),
        }
    }
}

impl From<RestartReason> for String {
    fn from(reason: RestartReason) -> String {
        reason.to_string()
    }
}

/// What a later version may have written is kept as [`RestartReason::Other`].
impl From<String> for RestartReason {
    fn from(text: String) -> RestartReason {
        let known = match text.split_once(' ') {
            Some(("exit", code)) => code.parse().ok().map(RestartReason::Exit),
            Some(("signal", name)) => Some(RestartReason::Signal(name.to_owned())),
            Some(("memory", limit)) => limit.parse().ok().map(RestartReason::Memory),
            None if text == "watch" => Some(RestartReason::Watch),
            _ => None,
        };
        known.unwrap_or(RestartReason::Other)
    }
}

/// A restart that PM2 made by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pm2Restart {
    /// The process's name in PM2.
    pub process: String,
    pub reason: RestartReason,
    /// When it ended.
    pub ended: WallTime,
    /// When it was started again.
    pub at: WallTime,
}

/// How far PM2's log was read, and what the lines before that say about lines to come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pm2LogState {
    /// The file that was read last; 0 if none was.
    pub inode: u64,
    pub offset: u64,
    /// A checksum of the bytes before `offset`: with other bytes there, it is another file, or was truncated.
    pub checksum: u64,
    /// The modification time of that file when it was read.
    pub modified: WallTime,
    /// When the log was last read to its end.
    pub read_at: Option<WallTime>,
    /// By PM2's id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub instances: BTreeMap<u32, Pm2Instance>,
    /// The id of a process that is about to be restarted for its memory, before its name is known, and the limit.
    pub over_memory: Option<(u32, u64)>,
    /// The process that ended last.
    pub last_ended: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pm2Instance {
    pub name: String,
    /// Its end was ordered: by a person, by the watchdog, or by PM2 for a reason that was already counted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_stopping: bool,
    /// It ended by itself and was not started since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<(RestartReason, WallTime)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_read_as_it_was_written() {
        let reasons = [
            (RestartReason::Exit(1), "exit 1"),
            (RestartReason::Signal("SIGKILL".into()), "signal SIGKILL"),
            (RestartReason::Memory(524_288_000), "memory 524288000"),
            (RestartReason::Watch, "watch"),
            (RestartReason::Other, "other"),
        ];
        for (reason, text) in reasons {
            assert_eq!(reason.to_string(), text);
            assert_eq!(RestartReason::from(text.to_owned()), reason);
        }
        for unknown in ["", "exit", "exit x", "memory -1", "sorcery 7"] {
            assert_eq!(RestartReason::from(unknown.to_owned()), RestartReason::Other);
        }
    }
}

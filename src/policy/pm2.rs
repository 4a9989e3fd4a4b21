//! What is remembered of PM2 beside a target: how its daemon is, and which process is the target's.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::outcome::{Remembered, Seen};
use crate::time::Timestamp;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pm2State {
    /// The process of the last success: its number and its start.
    pub known: Option<(u32, Timestamp)>,
    /// A younger process had its start period since then.
    pub granted: bool,
    /// The daemon that kept the process when it was last seen.
    pub kept_by: Option<(u32, Timestamp)>,
    pub gone_since: Option<Timestamp>,
    /// Since when no pm2 command reaches the daemon, or it cannot be known whether one would.
    pub deaf_since: Option<Timestamp>,
    pub trouble: Option<String>,
    /// When another process was found healthy that no restart of ours had started.
    pub changes: VecDeque<Timestamp>,
    pub seen: Option<(u32, Timestamp)>,
}

impl Pm2State {
    pub fn remembered(&self) -> Remembered {
        let seen = |(pid, started)| Seen { pid, started };
        Remembered { process: self.known.map(seen), daemon: self.kept_by.map(seen), file: None }
    }
}

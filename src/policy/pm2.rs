//! What is remembered of PM2 beside a target: how its daemon is, and which process is the target's.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::outcome::{PriorEvidence, ProcessIdentity};
use crate::time::BootTime;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pm2State {
    /// The process of the last success: its number and its start.
    pub known: Option<(u32, BootTime)>,
    /// A younger process had its start period since then.
    pub granted: bool,
    /// The daemon that kept the process when it was last seen.
    pub kept_by: Option<(u32, BootTime)>,
    pub gone_since: Option<BootTime>,
    /// Since when no pm2 command reaches the daemon, or it cannot be known whether one would.
    pub deaf_since: Option<BootTime>,
    pub trouble: Option<String>,
    /// When another process was found healthy that no restart of ours had started.
    pub changes: VecDeque<BootTime>,
    pub seen: Option<(u32, BootTime)>,
}

impl Pm2State {
    pub fn remembered(&self) -> PriorEvidence {
        let seen = |(pid, started)| ProcessIdentity { pid, started };
        PriorEvidence { process: self.known.map(seen), daemon: self.kept_by.map(seen), file: None }
    }
}

//! The stored state of a target's PM2: the health of its daemon, and the target's process.
//! It holds data only and must never decide anything.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::outcome::{PriorEvidence, ProcessIdentity};
use crate::time::BootTime;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pm2State {
    /// The process of the last success: its pid and start.
    #[serde(rename = "known")]
    pub trusted: Option<(u32, BootTime)>,
    /// A younger process has had its start period since then.
    pub granted: bool,
    /// The daemon of the process when it was last observed.
    #[serde(rename = "kept_by")]
    pub daemon: Option<(u32, BootTime)>,
    pub gone_since: Option<BootTime>,
    /// Since when no pm2 command reaches the daemon, or this cannot be determined.
    pub deaf_since: Option<BootTime>,
    pub trouble: Option<String>,
    /// When a new process was found healthy that no attempt had started.
    pub changes: VecDeque<BootTime>,
    /// The process as last observed.
    #[serde(rename = "seen")]
    pub process: Option<(u32, BootTime)>,
}

impl Pm2State {
    pub fn prior_evidence(&self) -> PriorEvidence {
        PriorEvidence { process: self.trusted.map(identity), daemon: self.daemon.map(identity), file: None }
    }
}

fn identity((pid, started): (u32, BootTime)) -> ProcessIdentity {
    ProcessIdentity { pid, started }
}

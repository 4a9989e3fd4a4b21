//! The latest restart that the operator ordered, and what came of it: `watchdog restart` reads this from the state.
//! It holds data only and must never decide anything.

use serde::{Deserialize, Serialize};

use crate::outcome::Exit;
use crate::time::BootTime;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManualRestart {
    /// Identifies the order: the same one is carried out once.
    pub id: String,
    /// The rung that the attempt began with, counted from 0.
    pub first: usize,
    pub progress: ManualProgress,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "progress", rename_all = "snake_case")]
pub enum ManualProgress {
    /// A command is about to run or runs. `failed`: the one before it, if that failed. Rungs count from 0.
    Running {
        rung: usize,
        failed: Option<FailedCommand>,
    },
    /// The attempt has ended. Only a probe that begins after `since` shows whether it helped. `failure`: the latest of
    /// these that failed.
    Starting {
        rung: usize,
        exit: Exit,
        since: BootTime,
        failure: Option<String>,
    },
    /// No command could be started.
    NotStarted {
        why: String,
    },
    Healthy {
        rung: usize,
        exit: Exit,
        detail: String,
        latency_ms: u64,
    },
    /// The start period is over.
    NotHealthy {
        rung: usize,
        exit: Exit,
        detail: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailedCommand {
    pub rung: usize,
    pub exit: Exit,
}

/// The latest order that was not carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedRestart {
    pub id: String,
    pub why: RestartRefusal,
    /// When that reason ends, if known.
    pub until: Option<BootTime>,
}

/// Why a restart that the operator ordered is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartRefusal {
    WatchOnly,
    DryRun,
    /// The restart window is full.
    Limit,
    /// An attempt is being made, at this target or another.
    Busy,
    /// The only rung resets PM2, and the last reset is too recent.
    ResetTooRecent,
    /// The state cannot be saved.
    Unsaved,
    /// The watchdog is about to end.
    Stopping,
}

impl ManualRestart {
    pub fn is_decided(&self) -> bool {
        match self.progress {
            ManualProgress::Running { .. } | ManualProgress::Starting { .. } => false,
            ManualProgress::NotStarted { .. } => true,
            ManualProgress::Healthy { .. } | ManualProgress::NotHealthy { .. } => true,
        }
    }

    pub(super) fn since_mut(&mut self) -> Option<&mut BootTime> {
        match &mut self.progress {
            ManualProgress::Starting { since, .. } => Some(since),
            _ => None,
        }
    }
}

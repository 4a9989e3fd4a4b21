//! What a probe concludes of PM2. Only values live here; how they are concluded is the pm2 room's business.

use serde::{Deserialize, Serialize};

use super::FileTime;
use crate::time::BootTime;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pm2Evidence {
    pub daemon: DaemonState,
    /// The daemon's process, where one is proven.
    pub daemon_process: Option<ProcessIdentity>,
    /// What is wrong with PM2 and what mends it.
    pub trouble: Option<String>,
    /// The youngest living process of the target's name.
    pub process: Option<ProcessIdentity>,
    /// It outlived the daemon that started it, and no daemon keeps it.
    pub is_orphan: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonState {
    /// It takes connections.
    Alive,
    /// Its process runs, but no pm2 command can reach it.
    Deaf,
    /// No process can be it, and nobody listens on its socket.
    Dead,
    /// Something could not be read.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub pid: u32,
    /// When it was started. With the number it tells the process from all others of this boot.
    pub started: BootTime,
}

/// What earlier probes have left: who was there at the last success, and what was seen of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PriorEvidence {
    pub process: Option<ProcessIdentity>,
    pub daemon: Option<ProcessIdentity>,
    pub file: Option<FileTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestReason {
    Operator,
    /// The operator deleted it from the very daemon that had listed it.
    Deleted,
    /// It runs at certain times only, or did its work and ended with 0.
    Schedule,
    /// It ended with a code that is to stop it (`stop_exit_codes`).
    Exit,
}

impl RestReason {
    pub fn as_str(self) -> &'static str {
        match self {
            RestReason::Operator => "operator",
            RestReason::Deleted => "deleted",
            RestReason::Schedule => "schedule",
            RestReason::Exit => "exit",
        }
    }

    /// Whether somebody did it, who may have forgotten it since.
    pub fn is_by_operator(self) -> bool {
        matches!(self, RestReason::Operator | RestReason::Deleted)
    }
}

/// What was found of a process before anything is decided against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// Nothing speaks for leaving it alone. `is_deaf`: no pm2 command reaches the daemon, so that a reset, where
    /// allowed, is the first thing to try. `is_listed`: PM2's list was had: what was at rest is not any more. Else
    /// nothing is known of that.
    Failed { is_deaf: bool, is_listed: bool },
    /// It is deliberately at rest.
    AtRest(RestReason),
}

//! What a probe observes and concludes of PM2, as values.
//! It must never draw a conclusion itself: the pm2 room does.

use serde::{Deserialize, Serialize};

use super::FileTime;
use crate::time::BootTime;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pm2Evidence {
    pub daemon: DaemonState,
    /// `None` if no process is proven to be the daemon.
    pub daemon_process: Option<ProcessIdentity>,
    /// What is wrong with PM2, and how to fix it.
    pub trouble: Option<String>,
    /// The youngest living process with the target's name.
    pub process: Option<ProcessIdentity>,
    /// Whether the process outlived the daemon that started it and belongs to no other daemon.
    pub is_orphan: bool,
    /// The daemon is dead, and a pm2 command runs that may be about to start a new one.
    pub is_being_started: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonState {
    /// It takes connections.
    Alive,
    /// Its process runs, but no pm2 command can reach it.
    Deaf,
    /// No process can be the daemon, and nothing listens on its socket.
    Dead,
    /// Something could not be read.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub pid: u32,
    /// With the pid it identifies the process within this boot, because pids are reused.
    pub started: BootTime,
}

/// What earlier probes observed: the process and the daemon at the last success, and the file.
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
    /// The operator deleted it from the same daemon that had listed it before.
    Deleted,
    /// It runs only at certain times, or it finished and exited with 0.
    Schedule,
    /// It exited with one of its `stop_exit_codes`.
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

    /// Whether a person did it, who may have forgotten about it.
    pub fn is_by_operator(self) -> bool {
        matches!(self, RestReason::Operator | RestReason::Deleted)
    }
}

/// The result of inspecting a process before its target is called down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// There is no reason to leave it alone. `is_deaf`: no pm2 command reaches the daemon, so a reset comes first where
    /// it is allowed. `is_listed`: PM2's list was read, or systemd told the unit's state, so a process that was at rest
    /// is so no longer; otherwise that is unknown.
    Failed { is_deaf: bool, is_listed: bool },
    /// It is deliberately at rest.
    AtRest(RestReason),
}

//! The messages that signals and jobs send to the loop. They carry results only: each decision is the policy's.

use std::path::PathBuf;

use crate::notify::DeliveryOutcome;
use crate::outcome::ProbeResult;
use crate::pm2::{InspectionResult, LogRead, ManagedProcess, ResetReason};
use crate::policy::Event;
use crate::process::Machine;
use crate::signals::Signal;
use crate::systemd::UnitState;

pub enum Message {
    Signal(Signal),
    ProbeFinished {
        target: String,
        number: u64,
        result: ProbeResult,
    },
    /// A target was inspected before anything is decided against it. `findings`: what was found, and of which process;
    /// none if no inspection was needed, or if it failed.
    Pm2Inspected {
        target: String,
        findings: Option<Box<(InspectionResult, ManagedProcess)>>,
    },
    /// systemd was asked about a target's unit. `found`: the conclusion, and the finding as a sentence; none if the
    /// question failed.
    UnitInspected {
        target: String,
        found: Option<(UnitState, String)>,
    },
    /// `reason`: why PM2 may be reset, if it may.
    ResetChecked {
        target: String,
        reason: Option<ResetReason>,
    },
    /// PM2's logs were copied into the incident's folder, as far as they could be. `activity`: the pid of the target's
    /// process and what it was doing. `last_line`: the most telling line of its log.
    Pm2LogsSaved {
        target: String,
        incident: String,
        activity: Option<(u32, String)>,
        last_line: Option<String>,
    },
    /// PM2's log in this home was read; none if it could not be.
    Pm2LogRead {
        home: PathBuf,
        read: Option<Box<LogRead>>,
    },
    /// The programs of the restart commands were searched for; by target: which one is missing, if any.
    ExecutablesSearched(Vec<(String, Option<String>)>),
    SnapshotTaken(Box<Machine>),
    DeliveryFinished {
        channel: String,
        outcome: DeliveryOutcome,
    },
    /// The error says why the heartbeat did not arrive.
    HeartbeatSent(Result<(), String>),
    /// The page and the metrics were written, or not, with the reason.
    Published(Option<String>),
    /// For the policy, as it is.
    Event(Event),
}

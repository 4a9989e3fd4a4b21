//! What reaches the loop, from signals and jobs alike.

use crate::notify::DeliveryOutcome;
use crate::outcome::ProbeResult;
use crate::pm2::{InspectionResult, Managed, ResetReason};
use crate::policy::Event;
use crate::process::Machine;
use crate::signals::Signal;

pub enum Message {
    /// From outside.
    Signal(Signal),
    /// A look has ended.
    ProbeFinished { target: String, number: u64, result: ProbeResult },
    /// A target was inspected before anything is decided against it. `found`: what was found of which process; none
    /// where nobody had to be asked, or the inspection failed.
    Pm2Inspected { target: String, findings: Option<Box<(InspectionResult, Managed)>> },
    /// `reason`: what speaks for a reset of PM2.
    ResetChecked { target: String, reason: Option<ResetReason> },
    /// What PM2's logs say is kept, or cannot be. `doing`: its process, and what that was doing. `said`: the line of
    /// its log that tells most.
    Pm2LogsSaved { target: String, incident: String, activity: Option<(u32, String)>, last_line: Option<String> },
    /// Whether the programs of the restart commands are there: what is missing, by target.
    ExecutablesSearched(Vec<(String, Option<String>)>),
    /// What the machine is like.
    SnapshotTaken(Box<Machine>),
    /// A delivery has ended.
    DeliveryFinished { channel: String, outcome: DeliveryOutcome },
    /// The heartbeat was sent; why it did not arrive.
    HeartbeatSent(Result<(), String>),
    /// The page and the metrics were written; why not.
    Published(Option<String>),
    /// Anything else that the policy is to know as it is.
    Event(Event),
}

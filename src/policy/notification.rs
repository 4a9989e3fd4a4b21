//! The notifications about a target: the contents of the contract's four messages.
//! It holds data only and must never decide anything.

use crate::outcome::{Class, Downtime};
use crate::policy::state::{TriedCommand, Waiting};
use crate::policy::terms::WarningKind;
use crate::time::BootTime;

#[derive(Clone, Debug, PartialEq)]
pub enum Notification {
    /// The target was down, and a restart has cured it.
    Healed(IncidentSummary),
    /// The target is down, and no restart has helped or may be made. `waiting`: why no attempt is made now, and until
    /// when. `reminder`: for a reminder, the hours since the first message.
    Down { summary: IncidentSummary, waiting: Option<Waiting>, reminder: Option<u64> },
    /// The target is healthy again after a `Down`.
    Up(IncidentSummary),
    /// The target needs attention, but not at once.
    Warn { about: WarningKind, detail: String },
    /// While the target flaps, an incident has ended without a message of its own. This is news only for channels that
    /// never got the warning about flapping, such as one added later. `folded`: the number of such incidents since
    /// `since`, including this one.
    Folded { since: BootTime, folded: u32 },
    /// The target has stopped flapping. `folded`: the number of incidents since `since` without a message of their own.
    Calm { since: BootTime, folded: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentSummary {
    pub incident: String,
    pub began: BootTime,
    /// The start of the down time; `None` if the target was never healthy.
    pub down_since: Option<BootTime>,
    pub attempts: u32,
    /// The target became healthy during an attempt or the start period after it.
    pub cured: bool,
    pub tried: Option<TriedCommand>,
    /// During the incident, the result of the latest failed probe; after it, of the probe that reached the threshold.
    pub failure: Option<(Class, String)>,
}

impl IncidentSummary {
    pub fn downtime(&self, now: BootTime) -> Downtime {
        Downtime::between(self.down_since, self.began, now)
    }
}

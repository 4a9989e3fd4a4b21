//! What people are told of a target: the contract's four messages.

use crate::outcome::{Class, Downtime};
use crate::policy::state::{TriedCommand, Waiting};
use crate::policy::words::WarningKind;
use crate::time::BootTime;

#[derive(Clone, Debug, PartialEq)]
pub enum Notification {
    /// It was down, and a restart has cured it: told after the fact.
    Healed(IncidentSummary),
    /// It is down, and no restart has helped or may be made. `waiting`: what forbids an attempt now, and until when.
    /// `reminder`: the hours since the first message, where this is one.
    Down { story: IncidentSummary, waiting: Option<Waiting>, reminder: Option<u64> },
    /// It is healthy again after a message that it is down.
    Up(IncidentSummary),
    /// Something that needs a person some day.
    Warn { about: WarningKind, detail: String },
    /// An incident has ended of which nothing is told one by one: news only for those who were never told that it goes
    /// down again and again, since they came later or nothing was told then. `folded`: the incidents since `since` of
    /// which nothing was told, this one among them.
    Folded { since: BootTime, folded: u32 },
    /// It does not go down again and again any more. `folded`: the incidents since `since` of which nothing was told.
    Calm { since: BootTime, folded: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentSummary {
    pub incident: String,
    pub began: BootTime,
    /// Since when it counts as down; `None` where it was never seen healthy.
    pub down_since: Option<BootTime>,
    pub attempts: u32,
    /// A restart has ended it, as far as that can be said.
    pub cured: bool,
    pub tried: Option<TriedCommand>,
    /// What was found: while it is down, by the latest look; once it is over, by the one that it went down with.
    pub seen: Option<(Class, String)>,
}

impl IncidentSummary {
    pub fn downtime(&self, now: BootTime) -> Downtime {
        Downtime::between(self.down_since, self.began, now)
    }
}

//! What people were told of a target, as it is remembered.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// What was told of one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    /// That it is down.
    pub down: Option<ToldDown>,
    /// That it goes down again and again.
    pub flapping: Option<Flapping>,
}

/// The message that a target is down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToldDown {
    /// In this incident.
    pub incident: String,
    /// When it was told.
    pub at: Timestamp,
    /// When people are to be reminded.
    pub next: Timestamp,
}

/// The warning that a target goes down again and again: incidents are folded into it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flapping {
    /// When it was told.
    pub since: Timestamp,
    /// Incidents that ended since then and were not told.
    pub folded: u32,
}

impl Told {
    /// Moves every point in time by `ms`.
    pub(super) fn shift(&mut self, ms: i64) {
        if let Some(down) = &mut self.down {
            down.at = down.at.shifted(ms);
            down.next = down.next.shifted(ms);
        }
        if let Some(flapping) = &mut self.flapping {
            flapping.since = flapping.since.shifted(ms);
        }
    }
}

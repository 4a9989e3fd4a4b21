//! What people were told of a target, as it is remembered.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    pub down: Option<ToldDown>,
    pub flapping: Option<Flapping>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToldDown {
    pub incident: String,
    pub at: Timestamp,
    pub next: Timestamp,
}

/// The warning that a target goes down again and again: incidents are folded into it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flapping {
    pub since: Timestamp,
    /// Incidents that ended since then and were not told.
    pub folded: u32,
}

impl Told {
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

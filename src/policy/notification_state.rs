//! What people were told of a target, as it is remembered.

use serde::{Deserialize, Serialize};

use crate::time::BootTime;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NotificationState {
    pub down: Option<DownNotification>,
    pub flapping: Option<Flapping>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DownNotification {
    pub incident: String,
    pub at: BootTime,
    pub next: BootTime,
}

/// The warning that a target goes down again and again: incidents are folded into it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flapping {
    pub since: BootTime,
    /// Incidents that ended since then and were not told.
    pub folded: u32,
}

impl NotificationState {
    pub(super) fn shift(&mut self, ms: i64) {
        if let Some(down) = &mut self.down {
            down.at = down.at.offset_by(ms);
            down.next = down.next.offset_by(ms);
        }
        if let Some(flapping) = &mut self.flapping {
            flapping.since = flapping.since.offset_by(ms);
        }
    }
}

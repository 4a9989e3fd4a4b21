//! The stored state of a target's notifications: which were sent, and when reminders follow.
//! It holds data only and must never decide anything.

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

/// The target goes down again and again: after one warning, its incidents are folded into a count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flapping {
    pub since: BootTime,
    /// Incidents that have ended since then without a message of their own.
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

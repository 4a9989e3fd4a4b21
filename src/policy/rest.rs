//! The stored state of a target that is deliberately at rest.
//! It holds data only and must never decide anything.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::RestReason;
use crate::time::BootTime;

/// The contract's section 4b: the operator is reminded after a day, then weekly.
const REMINDED_AFTER: Duration = Duration::from_secs(86_400);
const REMINDED_EVERY: Duration = Duration::from_secs(7 * 86_400);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    pub why: RestReason,
    /// When it was found.
    pub since: BootTime,
    /// From then on, a failed probe leads to another inspection.
    pub ask_at: BootTime,
    /// How many inspections in a row have found it.
    pub times: u32,
    pub reminded: Option<BootTime>,
}

impl Rest {
    pub(super) fn reminder_at(&self) -> Option<BootTime> {
        let at = self.reminded.map_or(self.since + REMINDED_AFTER, |at| at + REMINDED_EVERY);
        self.why.is_by_operator().then_some(at)
    }
}

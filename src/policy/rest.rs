//! What is remembered of a target that is deliberately at rest.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::RestReason;
use crate::time::Timestamp;

/// Whoever stopped it is reminded after a day, then weekly.
const REMINDED_AFTER: Duration = Duration::from_secs(86_400);
const REMINDED_EVERY: Duration = Duration::from_secs(7 * 86_400);

/// A target that is deliberately at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    /// Why.
    pub why: RestReason,
    /// Since when that is known.
    pub since: Timestamp,
    /// When it is asked again.
    pub ask_at: Timestamp,
    /// How often in a row it was found so.
    pub times: u32,
    /// When people were last reminded of it.
    pub reminded: Option<Timestamp>,
}

impl Rest {
    /// When whoever stopped it is reminded.
    pub(super) fn reminder_at(&self) -> Option<Timestamp> {
        let at = self.reminded.map_or(self.since + REMINDED_AFTER, |at| at + REMINDED_EVERY);
        self.why.is_by_operator().then_some(at)
    }
}

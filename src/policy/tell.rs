//! What people are told of a target: the contract's four messages.

use crate::outcome::{Class, Downtime};
use crate::policy::state::{Tried, Waiting};
use crate::policy::words::About;
use crate::time::Timestamp;

/// One thing to tell.
#[derive(Clone, Debug, PartialEq)]
pub enum Tell {
    /// It was down, and a restart has cured it: told after the fact.
    Healed(Story),
    /// It is down, and no restart has helped or may be made.
    Down {
        /// How things stand.
        story: Story,
        /// Why no attempt is made now, as far as something forbids it, and until when.
        waiting: Option<Waiting>,
        /// The hours since the first message, where this is a reminder.
        reminder: Option<u64>,
    },
    /// It is healthy again after a message that it is down.
    Up(Story),
    /// Something that needs a person some day.
    Warn {
        /// What it is about.
        about: About,
        /// What was found, in words.
        detail: String,
    },
    /// An incident has ended of which nothing is told one by one: news only for those who were never told that it goes
    /// down again and again, since they came later or nothing was told then.
    Folded {
        /// Since when it does.
        since: Timestamp,
        /// The incidents since then of which nothing was told, this one among them.
        folded: u32,
    },
    /// It does not go down again and again any more.
    Calm {
        /// Since when it did.
        since: Timestamp,
        /// The incidents since then of which nothing was told.
        folded: u32,
    },
}

/// How an incident stands or stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// Its name.
    pub incident: String,
    /// The first failure.
    pub began: Timestamp,
    /// Since when it counts as down; `None` where it was never seen healthy.
    pub down_since: Option<Timestamp>,
    /// Attempts made in it.
    pub attempts: u32,
    /// A restart has ended it, as far as that can be said.
    pub cured: bool,
    /// The latest restart command.
    pub tried: Option<Tried>,
    /// What was found: while it is down, by the latest look; once it is over, by the one that it went down with.
    pub seen: Option<(Class, String)>,
}

impl Story {
    /// How long it lasts until `now`.
    pub fn downtime(&self, now: Timestamp) -> Downtime {
        Downtime::between(self.down_since, self.began, now)
    }
}

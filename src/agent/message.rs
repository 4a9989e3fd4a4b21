//! What reaches the loop, from signals and jobs alike.

use crate::notify::Outcome;
use crate::outcome::Look;
use crate::pm2::{Found, Managed, ResetReason};
use crate::policy::Event;
use crate::process::Machine;
use crate::signals::Signal;

/// What reaches the loop.
pub enum Message {
    /// From outside.
    Signal(Signal),
    /// A look has ended.
    Looked {
        /// The target looked at.
        target: String,
        /// The number of the look.
        number: u64,
        /// What was found.
        look: Look,
    },
    /// A target was inspected, before anything is decided against it.
    Inspected {
        /// Which.
        target: String,
        /// What was found of which process; none where nobody had to be asked, or the inspection failed.
        found: Option<Box<(Found, Managed)>>,
    },
    /// Whether PM2 may be reset is known; and why, where it may.
    ResetChecked {
        /// The target it was asked for.
        target: String,
        /// What speaks for it.
        reason: Option<ResetReason>,
    },
    /// What PM2's logs say is kept, or cannot be.
    Kept {
        /// The target that went down.
        target: String,
        /// Its incident.
        incident: String,
        /// Its process, and what that was doing.
        doing: Option<(u32, String)>,
        /// The line of its log that tells most.
        said: Option<String>,
    },
    /// Whether the programs of the restart commands are there: what is missing, by target.
    Searched(Vec<(String, Option<String>)>),
    /// What the machine is like.
    Snapshot(Box<Machine>),
    /// A delivery has ended.
    Sent {
        /// On this channel.
        channel: String,
        /// What became of it.
        outcome: Outcome,
    },
    /// The heartbeat was sent; why it did not arrive.
    Pinged(Result<(), String>),
    /// The page and the metrics were written; why not.
    Published(Option<String>),
    /// Anything else that the policy is to know as it is.
    Event(Event),
}

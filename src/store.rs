//! What outlives the process: the state, the lock, the events, the incidents' folders, and orders on their way in.
//! The only room that knows how they lie on the disk, and the only one where the boot clock and the wall clock meet.
//! It must never read a clock, never decide, and never follow a symbolic link inside its folder.

mod descriptors;
mod error;
mod files;
mod folder;
mod lines;

pub mod account;
pub mod complaints;
pub mod events;
pub mod history;
pub mod incidents;
pub mod lock;
pub mod orders;
pub mod past;
pub mod publish;
pub mod state;

#[cfg(test)]
mod child;

use std::time::Duration;

pub use error::Error;
pub use folder::Folder;

use crate::time::{Timestamp, Wall};

/// What is dated further ahead than this was dated by a clock that was wrong.
const AHEAD: Duration = Duration::from_secs(86_400);

/// Whether a date lies so far ahead of the wall clock that one of the two must be wrong. Nobody knows which: what is
/// dated so is kept, but counts as the oldest there is. Within a day, as after a wrong zone, it counts as any other.
fn is_ahead(at: Wall, now: Wall) -> bool {
    at.since(now) > AHEAD
}

/// Now, on both clocks, as `clock` reads it.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// On the boot clock.
    pub now: Timestamp,
    /// On the wall clock.
    pub wall: Wall,
    /// Which boot `now` counts from; `None` where the system does not say.
    pub boot_id: Option<&'a str>,
}

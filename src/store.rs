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

pub use error::Error;
pub use folder::Folder;

use crate::time::{Timestamp, Wall};

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

//! Stores what outlives the process: the state, the lock, the events, the incident folders and pending requests. Only
//! this room knows the format on disk, and only here are boot clock and wall clock converted into each other.
//! It must never read a clock, decide anything, or follow a symbolic link inside its folder.

mod descriptors;
mod error;
mod files;
mod folder;
mod lines;

pub mod closed_incidents;
pub mod events;
pub mod history;
pub mod incident_record;
pub mod incidents;
pub mod lock;
pub mod publish;
pub mod repeat_filter;
pub mod requests;
pub mod state;
pub mod stopped;

#[cfg(test)]
mod child;

use std::time::Duration;

pub use error::Error;
pub use folder::Folder;

use serde::{Deserialize, Serialize};

use crate::time::{BootTime, ClockReading, WallTime};

/// A date further ahead than this comes from a clock that was wrong. A wrong time zone is off by less than a day.
const MAX_AHEAD: Duration = Duration::from_secs(86_400);

/// Whether `at` is so far ahead of the wall clock that one of the two must be wrong. Nothing shows which one, so an
/// entry with such a date is kept but counts as the oldest.
fn is_ahead(at: WallTime, now: WallTime) -> bool {
    at.since(now) > MAX_AHEAD
}

#[derive(Clone, Debug)]
pub struct BootClockReading {
    pub at: ClockReading,
    /// Identifies the boot that the boot clock counts from; `None` where the system does not provide an id.
    pub boot_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    wall: WallTime,
    boot: BootTime,
    boot_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed {
    /// Milliseconds; never negative.
    pub ms: i64,
    /// Whether the machine was rebooted in between.
    pub rebooted: bool,
}

impl Stamp {
    pub fn of(reading: &BootClockReading) -> Stamp {
        Stamp { wall: reading.at.wall, boot: reading.at.now, boot_id: reading.boot_id.clone() }
    }

    /// How long before `reading` this was.
    ///
    /// Within one boot the boot clock decides, whatever happened to the wall clock. Across boots only the wall clock
    /// is left, and a wall clock that was set back counts as no time at all: cooldowns, windows and pauses then last
    /// longer, never shorter. Without a boot id nothing shows whether it is the same boot. The wall clock is used
    /// then, too, and the boot counts as the same, which is stricter because a reboot would end the cooldown. The
    /// exception is a boot clock that went back: only a reboot does that.
    pub fn elapsed(&self, reading: &BootClockReading) -> Elapsed {
        let by_wall = reading.at.wall.as_ms().saturating_sub(self.wall.as_ms());
        let by_boot = reading.at.now.as_ms().saturating_sub(self.boot.as_ms());
        let (ms, rebooted) = match (&self.boot_id, &reading.boot_id) {
            (Some(then), Some(now)) if then == now => (by_boot, false),
            (Some(_), Some(_)) => (by_wall, true),
            _ => (by_wall, by_boot < 0),
        };
        Elapsed { ms: ms.max(0), rebooted }
    }
}

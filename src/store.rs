//! What outlives the process: the state, the lock, the events, the incidents' folders, and orders on their way in.
//! The only room that knows how they lie on the disk, and the only one where the boot clock and the wall clock meet.
//! It must never read a clock, never decide, and never follow a symbolic link inside its folder.

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

/// What is dated further ahead than this was dated by a clock that was wrong.
const AHEAD: Duration = Duration::from_secs(86_400);

/// Whether a date lies so far ahead of the wall clock that one of the two must be wrong. Nobody knows which: what is
/// dated so is kept, but counts as the oldest there is. Within a day, as after a wrong zone, it counts as any other.
fn is_ahead(at: WallTime, now: WallTime) -> bool {
    at.since(now) > AHEAD
}

#[derive(Clone, Debug)]
pub struct BootClockReading {
    pub at: ClockReading,
    /// Which boot the boot clock counts from; `None` where the system does not say.
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
    /// In milliseconds; never negative.
    pub ms: i64,
    /// Whether the machine was rebooted since.
    pub rebooted: bool,
}

impl Stamp {
    pub fn of(moment: &BootClockReading) -> Stamp {
        Stamp { wall: moment.at.wall, boot: moment.at.now, boot_id: moment.boot_id.clone() }
    }

    /// How long before `moment` this was.
    ///
    /// Within one boot the boot clock says it, whatever the wall clock did. Across boots only the wall clock knows how
    /// long it was, and one that was set back counts as no time at all: cooldowns, windows and pauses then last longer,
    /// never shorter. Where a boot id is missing, nothing says whether it is the same boot. The wall clock is used,
    /// too, and it counts as the same boot, which is the stricter reading (a reboot would end the cooldown), unless the
    /// boot clock went back, which only a reboot does.
    pub fn elapsed(&self, moment: &BootClockReading) -> Elapsed {
        let by_wall = moment.at.wall.as_ms().saturating_sub(self.wall.as_ms());
        let by_boot = moment.at.now.as_ms().saturating_sub(self.boot.as_ms());
        let (ms, rebooted) = match (&self.boot_id, &moment.boot_id) {
            (Some(then), Some(now)) if then == now => (by_boot, false),
            (Some(_), Some(_)) => (by_wall, true),
            _ => (by_wall, by_boot < 0),
        };
        Elapsed { ms: ms.max(0), rebooted }
    }
}

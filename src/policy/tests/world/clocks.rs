//! The world's boot clock and wall clock, its reboots, and the state that a watchdog finds when it starts.
//! It must apply the same rules as the store when it loads a state.

use std::cmp::Reverse;

use super::{Disk, Upcoming, World};
use crate::policy::{Mode, Policy, State};

impl World {
    /// The wall clock, which people and programs set.
    pub(super) fn wall(&self) -> i64 {
        self.now + self.wall_ahead
    }

    pub(super) fn stamp(&self) -> String {
        format!("i{}", self.wall() / 60_000)
    }

    pub(super) fn start(&mut self) {
        self.mode = if self.scenario.ticks && self.rng.u8(0..4) > 0 { Mode::Once } else { Mode::Daemon };
        for (at, action) in std::mem::take(&mut self.pending) {
            self.oracle.observe(&action, at);
        }
        self.oracle.booted = self.booted;
        let state = self.disk.clone().map(|disk| self.load(disk)).unwrap_or_default();
        self.oracle.started(self.mode, self.now);
        let (policy, actions) = Policy::new(self.mode, self.limits.clone(), state, false, self.clock());
        self.policy = Some(policy);
        self.execute(actions);
        // A new watchdog records its start, and saves with it.
        self.save();
        self.apply_requests();
    }

    /// The store's rules: within one boot, the boot clock counts. Otherwise the wall clock counts, and if it was set
    /// back, no time has passed.
    fn load(&mut self, Disk { mut state, at, wall, booted }: Disk) -> State {
        let by_boot = (self.now - self.booted) - (at - booted);
        let by_wall = (self.wall() - wall).max(0);
        let (elapsed, rebooted) = match booted == self.booted {
            _ if self.scenario.without_boot_id => (by_wall, by_boot < 0),
            true => (by_boot, false),
            false => (by_wall, true),
        };
        if rebooted {
            self.oracle.rebooted();
        }
        if rebooted || self.scenario.without_boot_id {
            self.oracle.clock_corrected(elapsed - (self.now - at));
        }
        state.shift(by_boot - elapsed);
        if rebooted {
            state.reboot();
        }
        state
    }

    pub(super) fn end_tick(&mut self) {
        self.oracle.tick_ends(self.now);
        self.save();
        self.kill();
        let gap = match self.rng.u8(0..20) {
            0 => self.rng.i64(0..60_000),         // a manual tick
            1 => self.rng.i64(0..12) * 3_600_000, // a night without ticks
            _ => self.tick_interval + self.rng.i64(-2_000..2_000),
        };
        self.now += gap;
        self.start();
    }

    pub(super) fn set_clock(&mut self) {
        const YEARS: i64 = 100_000_000_000;
        self.wall_ahead = match self.rng.u8(0..6) {
            0 => 0,
            1 => self.rng.i64(-YEARS..YEARS),
            2 => self.wall_ahead - 3_600_000,
            _ => self.wall_ahead + self.rng.i64(-600_000..600_000),
        };
    }

    pub(super) fn reboot(&mut self) {
        self.kill();
        self.upcoming.retain(|Reverse((_, _, upcoming))| {
            matches!(upcoming, Upcoming::Trouble | Upcoming::TargetReturns { .. } | Upcoming::PauseCommandEnded { .. })
        });
        self.running.clear();
        self.lose_frozen();
        self.now += self.rng.i64(1_000..600_000);
        self.booted = self.now - self.rng.i64(500..60_000);
    }
}

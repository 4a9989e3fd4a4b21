//! The PM2 of the targets: its daemon, which dies with a backend at times, and their processes.
//! It must depend on nothing but the seed.

use super::World;
use crate::outcome::{Class, DaemonState, Pm2Evidence, ProcessIdentity};
use crate::time::BootTime;

impl World {
    pub(super) fn pm2(&mut self, target: &str) -> Option<Pm2Evidence> {
        let &(pid, started) = self.processes.get(target)?;
        let process = ProcessIdentity { pid, started: BootTime::from_ms(started - self.booted) };
        let died_with_pm2 = self.backends.get(target).is_some_and(|backend| {
            backend.class == Class::Refused && backend.up_at.is_none_or(|at| at > self.now) && self.rng.bool()
        });
        let (daemon, trouble) = match self.rng.u8(0..50) {
            _ if died_with_pm2 => (DaemonState::Dead, None),
            0 => (DaemonState::Dead, None),
            1 => (DaemonState::Deaf, Some("no socket".into())),
            2 => (DaemonState::Unknown, Some("root's".into())),
            _ => (DaemonState::Alive, None),
        };
        self.scenario.pm2.then_some(Pm2Evidence {
            daemon,
            daemon_process: None,
            trouble,
            process: Some(process).filter(|_| !died_with_pm2),
            is_orphan: false,
            is_being_started: false,
        })
    }
}

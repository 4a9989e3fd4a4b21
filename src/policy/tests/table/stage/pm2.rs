//! PM2 beside the target of a script: what looks observe of it, and what an inspection finds.

use super::{Stage, Token};
use crate::outcome::{DaemonState, Inspection, Pm2Evidence, ProcessIdentity};
use crate::policy::Event;

impl Stage {
    /// What looks observe of PM2 from now on: `app:7` a process with that number, which begins now, `app` none;
    /// `god:dead`, `god:deaf`, `god:unknown` and `god` a daemon that is so, or alive.
    pub(super) fn see(&mut self, token: &Token<'_>) {
        let started = self.clock();
        let alive = Pm2Evidence {
            daemon: DaemonState::Alive,
            daemon_process: None,
            trouble: None,
            process: None,
            is_orphan: false,
        };
        let pm2 = self.pm2.get_or_insert(alive);
        if token.verb == "god" {
            pm2.daemon = match token.detail {
                None => DaemonState::Alive,
                Some("dead") => DaemonState::Dead,
                Some("deaf") => DaemonState::Deaf,
                Some(_) => DaemonState::Unknown,
            };
            let is_trouble = matches!(pm2.daemon, DaemonState::Deaf | DaemonState::Unknown);
            pm2.trouble = is_trouble.then(|| "its socket is missing".into());
        } else {
            let seen = |pid: &str| ProcessIdentity { pid: pid.parse().expect("a number"), started };
            pm2.process = token.detail.map(seen);
        }
    }

    pub(super) fn inspected(&mut self, target: String, inspection: Inspection) {
        self.deliver(Event::Pm2Inspected { target, inspection, pm2: self.pm2.clone() });
    }
}

//! The PM2 of a script's targets: the evidence of probes, and the results of inspections.

use super::{Harness, Token};
use crate::outcome::{DaemonState, Inspection, Pm2Evidence, ProcessIdentity, RestReason};
use crate::policy::{Event, Precondition};

impl Harness {
    /// What probes observe of PM2 from now on. `app:7`: a process with that pid, started now; `app`: no process.
    /// `god:dead`, `god:deaf`, `god:unknown`: a daemon in that state; `god`: a daemon that is alive; `god:called`: it
    /// is dead, and a pm2 command runs.
    pub(super) fn set_pm2(&mut self, token: &Token<'_>) {
        let started = self.clock();
        let alive = Pm2Evidence {
            daemon: DaemonState::Alive,
            daemon_process: None,
            trouble: None,
            process: None,
            is_orphan: false,
            is_being_started: false,
        };
        let pm2 = self.pm2.get_or_insert(alive);
        if token.verb == "god" {
            pm2.daemon = match token.detail {
                None => DaemonState::Alive,
                Some("dead" | "called") => DaemonState::Dead,
                Some("deaf") => DaemonState::Deaf,
                Some(_) => DaemonState::Unknown,
            };
            pm2.is_being_started = token.detail == Some("called");
            let is_trouble = matches!(pm2.daemon, DaemonState::Deaf | DaemonState::Unknown);
            pm2.trouble = is_trouble.then(|| "its socket is missing".into());
        } else {
            let identity = |pid: &str| ProcessIdentity { pid: pid.parse().expect("a number"), started };
            pm2.process = token.detail.map(identity);
        }
    }

    /// Ends the latest check of a precondition.
    pub(super) fn finish_check(&mut self, target: String, holds: bool) {
        let precondition = self.precondition.unwrap_or(Precondition::OnlyIf);
        match (precondition, holds) {
            (Precondition::OnlyIf, _) => {
                self.deliver(Event::PreconditionChecked { target, precondition, holds });
            }
            (Precondition::Stopped, true) => {
                self.inspected(target, Inspection::Failed { is_deaf: false, is_listed: true });
            }
            (Precondition::Stopped, false) => self.inspected(target, Inspection::AtRest(RestReason::Operator)),
        }
    }

    pub(super) fn inspected(&mut self, target: String, inspection: Inspection) {
        self.deliver(Event::Inspected { target, inspection, pm2: self.pm2.clone() });
    }
}

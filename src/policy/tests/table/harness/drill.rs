//! Drills: the operator's orders, and processes that are proven, stopped and continued.

use std::time::Duration;

use super::{Harness, Token};
use crate::policy::{Action, DrillEvent, Event};

/// Within this time any repair of a script is over.
const REPAIR: Duration = Duration::from_secs(60);

impl Harness {
    /// `drill:2` and `cancel:2`: an order with that id; `proven:2`, `unproven:2`: its processes are proven or not.
    pub(super) fn drill(&mut self, token: &Token<'_>) {
        let id = token.detail.unwrap_or("1").to_owned();
        let event = match token.verb {
            "drill" => DrillEvent::Ordered { id },
            "cancel" => DrillEvent::Cancelled { id },
            "proven" => DrillEvent::Proven { id, processes: Ok(vec![(4821, 7)]), repair: REPAIR },
            _ => DrillEvent::Proven { id, processes: Err("PM2 does not list it".into()), repair: REPAIR },
        };
        self.deliver(Event::Drill { target: token.target.to_owned(), event });
    }

    pub(super) fn show_drill(&mut self, action: Action) {
        match action {
            Action::ProveProcesses { target, .. } => self.say(&target, "prove?"),
            Action::StopProcesses { target, id, .. } => {
                self.say(&target, "stop");
                self.stopping = Some((target, id));
            }
            _ => {}
        }
    }

    /// Tells the policy that the processes are stopped.
    pub(super) fn report_stop(&mut self) {
        if let Some((target, id)) = self.stopping.take()
            && self.policy.is_some()
        {
            self.deliver(Event::Drill { target, event: DrillEvent::Stopped { id, error: None } });
        }
    }

    /// Before the save, as the driver must.
    pub(super) fn continue_processes(&mut self, actions: &[Action]) {
        for action in actions {
            if let Action::ContinueProcesses { target, processes } = action {
                assert!(processes.iter().all(|process| *process == (4821, 7)), "only what was proven is continued");
                self.say(target, "continue");
            }
        }
    }
}

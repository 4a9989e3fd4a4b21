//! The operator's requests that wait for a watchdog, as `status` shows them. It must never change a saved state.

use crate::policy::{Pauses, Status};
use crate::store::BootClockReading;
use crate::store::requests::Request;
use crate::view::status::StatusReport;

impl StatusReport {
    /// Shows requests that no watchdog has carried out yet as if they were.
    pub fn apply(&mut self, requests: &[Request], clock: &BootClockReading) {
        for request in requests {
            let (targets, command) = match request {
                Request::Pause { targets, command, .. } => (targets.as_deref(), command.as_deref()),
                Request::CommandEnded { command } => (None, Some(command.as_str())),
                Request::Resume { targets, .. } => (targets.as_deref(), None),
                // Carried out or dropped soon.
                Request::Reload | Request::Restart { .. } => continue,
                Request::Drill { .. } | Request::CancelDrill { .. } => continue,
            };
            let until = request.pause_end(clock);
            let meant = |name: &String| targets.is_none_or(|targets| targets.contains(name));
            for (_, state) in self.saved.policy.targets.iter_mut().filter(|(name, _)| meant(name)) {
                match (request, until) {
                    (Request::Pause { .. }, Some(until)) => state.pauses.begin(until, command),
                    (Request::Pause { .. }, None) | (Request::Reload | Request::Restart { .. }, _) => {}
                    (Request::Drill { .. } | Request::CancelDrill { .. }, _) => {}
                    (Request::CommandEnded { command }, _) => state.pauses.end(command),
                    (Request::Resume { .. }, _) => state.pauses = Pauses::default(),
                }
                state.status = match state.status {
                    _ if state.pauses.until().is_some() => Status::Paused,
                    Status::Paused => Status::Starting,
                    status => status,
                };
            }
        }
    }
}

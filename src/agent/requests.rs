//! What the operator asks for by way of the state folder: pauses and their ends.

use crate::policy::Event;
use crate::store::requests::{self, PendingRequest, Request};

use super::Agent;
use super::journal::Durability;

#[derive(Default)]
pub(super) struct RequestProgress {
    /// Those that are not removed yet, for the state with them was not saved, or they could not be.
    applied: Vec<PendingRequest>,
    /// How many of them, the latest, were not tried to be removed yet.
    untried: usize,
}

impl Agent {
    /// What `pause` and `resume` have left for us. An order is removed once the state with it is saved; until then it
    /// waits for the watchdog after us, but is carried out by us only once.
    pub(super) fn apply_requests(&mut self) {
        // First: it removes those that were carried out.
        self.commit_now();
        let waiting = match requests::list(self.journal.folder()) {
            Ok(found) => {
                found.refused.iter().for_each(|error| log::warn!("{error} (set aside)"));
                found.waiting
            }
            Err(error) => {
                log::warn!("{error} (pause and resume have no effect)");
                return;
            }
        };
        if waiting.is_empty() && self.requests.applied.is_empty() {
            return;
        }
        // One that cannot be read just now is there still.
        self.requests.applied.retain(|order| !order.is_done());
        for order in waiting {
            if !self.requests.applied.contains(&order) {
                self.apply_request(&order.order);
                self.requests.applied.push(order);
                self.requests.untried += 1;
            }
        }
        if !self.requests.applied.is_empty() {
            self.journal.request_save(Durability::PowerLoss);
        }
    }

    pub(super) fn remove_applied_requests(&mut self) {
        let RequestProgress { applied: carried_out, untried: new } = &mut self.requests;
        let old = carried_out.len().saturating_sub(std::mem::take(new));
        for (index, order) in carried_out.iter().enumerate() {
            if let Err(error) = order.done()
                && index >= old
            {
                log::warn!("{error} (the next watchdog will carry it out again)");
            }
        }
        carried_out.retain(|order| !order.is_done());
    }

    fn apply_request(&mut self, order: &Request) {
        let until = order.pauses_until(&self.journal.clock_reading());
        match order.clone() {
            Request::Pause { targets, command, .. } => {
                if let Some(until) = until {
                    self.step(Event::Paused { targets, until, command });
                }
            }
            Request::Over { command } => self.step(Event::PauseCommandEnded { command }),
            Request::Resume { targets, clear_waits } => {
                if clear_waits {
                    let whom = targets.as_ref().map_or_else(|| "all targets".into(), |targets| targets.join(", "));
                    log::info!("{whom}: what had to be waited for is over, as the operator says");
                }
                self.step(Event::Resumed { targets, clear_waits });
            }
        }
    }
}

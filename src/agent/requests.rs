//! Applies the operator's requests that wait in the state folder: pause, resume, the end of a pause's command, reload,
//! restart, drill. A request must never be applied twice by one watchdog, nor be removed before the state with its
//! effect is saved.

use crate::clock;
use crate::logging::about;
use crate::policy::{DrillEvent, Event, Mode};
use crate::store::requests::{self, PendingRequest, Request};
use crate::view::log_line::RestartLimit;
use crate::view::ordered_restart::OrderedRestart;

use super::Agent;
use super::journal::Durability;

#[derive(Default)]
pub(super) struct RequestProgress {
    /// Applied, but still in the folder: the state was not saved since, or the file could not be removed.
    applied: Vec<PendingRequest>,
    /// How many of these, counted from the end, nobody has tried to remove yet.
    untried: usize,
    /// The restarts that were ordered and whose outcome was not logged yet: the target and the order's id.
    ordered: Vec<(String, String)>,
}

impl Agent {
    /// Applies the pending requests. Each file stays until the state is saved, so that the next watchdog applies the
    /// request if this one is killed before.
    pub(super) fn apply_requests(&mut self) {
        // A commit removes the requests that were applied.
        self.commit_now();
        let waiting = match requests::list(self.journal.folder()) {
            Ok(found) => {
                found.unreadable.iter().for_each(|error| log::warn!("{error} (set aside, not applied)"));
                found.pending
            }
            Err(error) => {
                log::warn!("{error} (pause, resume and reload have no effect)");
                return;
            }
        };
        if waiting.is_empty() && self.requests.applied.is_empty() {
            return;
        }
        // A request that is not listed because it cannot be read now may still be there.
        self.requests.applied.retain(|request| !request.is_handled());
        for request in waiting {
            if !self.requests.applied.contains(&request) {
                self.apply_request(&request);
                self.requests.applied.push(request);
                self.requests.untried += 1;
            }
        }
        if !self.requests.applied.is_empty() {
            self.journal.request_save(Durability::PowerLoss);
        }
    }

    pub(super) fn remove_applied_requests(&mut self) {
        let RequestProgress { applied, untried, .. } = &mut self.requests;
        let tried = applied.len().saturating_sub(std::mem::take(untried));
        for (index, request) in applied.iter().enumerate() {
            if let Err(error) = request.remove()
                && index >= tried
            {
                log::warn!("{error} (the next watchdog will apply it again)");
            }
        }
        applied.retain(|request| !request.is_handled());
    }

    fn apply_request(&mut self, pending: &PendingRequest) {
        let reading = self.journal.clock_reading();
        let until = pending.request.pause_end(&reading);
        match pending.request.clone() {
            Request::Pause { targets, command, .. } => {
                if let Some(until) = until {
                    self.step(Event::Paused { targets, until, command });
                }
            }
            Request::Restart { target, .. } if pending.request.is_outdated(&reading) => {
                log::warn!("{target}: a restart that was ordered over a minute ago is not made");
            }
            Request::Restart { target, id, .. } => {
                let stamp = self.zone.incident_id(reading.at.wall);
                self.requests.ordered.push((target.clone(), id.clone()));
                self.step(Event::RestartOrdered { target, id, stamp });
            }
            Request::Drill { target, .. } if pending.request.is_outdated(&reading) => {
                log::warn!("{target}: a drill that was ordered over a minute ago is not made");
            }
            Request::Drill { target, id, .. } => {
                self.step(Event::Drill { target, event: DrillEvent::Ordered { id } });
            }
            Request::CancelDrill { target, id } => {
                self.step(Event::Drill { target, event: DrillEvent::Cancelled { id } });
            }
            Request::CommandEnded { command } => self.step(Event::PauseCommandEnded { command }),
            Request::Resume { targets, clear_waits } => {
                if clear_waits {
                    for target in targets.iter().flatten() {
                        log::info!(target: &about(target), "cooldown and other waits cleared by the operator");
                    }
                }
                self.step(Event::Resumed { targets, clear_waits });
            }
            Request::Reload => self.reload_and_answer(pending),
        }
    }

    /// A tick has just read the configuration, so a request that no daemon has applied needs nothing from it.
    fn reload_and_answer(&mut self, pending: &PendingRequest) {
        if self.mode == Mode::Once {
            return;
        }
        let answer = self.reload();
        // Saved before the answer, so that the next command finds the new targets in the state.
        self.journal.request_save(Durability::PowerLoss);
        self.commit_now();
        if let Err(error) = pending.answer(&answer) {
            log::warn!("{error} (watchdog reload waits for it in vain)");
        }
    }

    /// Logs what came of the restarts that the operator ordered, once everything that led to it was logged.
    pub(super) fn log_ordered_restarts(&mut self) {
        if !self.is_settled() {
            return;
        }
        let (at, zone) = (clock::read(), self.zone);
        for (target, id) in std::mem::take(&mut self.requests.ordered) {
            let limit = self.target(&target).map(|target| RestartLimit::of(&target.limits));
            let Some(state) = self.policy.target(&target) else { continue };
            let restart = OrderedRestart { target: &target, id: &id, commands: &[], limit, at, zone };
            match restart.outcome(state) {
                Some((level, line)) => log::log!(level, "{line}"),
                None => self.requests.ordered.push((target, id)),
            }
        }
    }
}

//! Drills: processes that are stopped and continued, and the operator who orders and cancels that.
//! A process must never be stopped while no drill of it runs.

use super::requests::Request;
use super::{Upcoming, World};
use crate::policy::{Action, DrillEvent, Event};

impl World {
    pub(super) fn order_drill(&mut self, target: String) {
        let id = self.serial.to_string();
        self.request(Request::Drill { target, id });
    }

    pub(super) fn cancel_drill(&mut self, target: String) {
        let state = self.policy.as_ref().and_then(|policy| policy.target(&target));
        let id = state.and_then(|state| Some(state.drills.running.as_ref()?.id.clone()));
        let id = id.unwrap_or_else(|| "unknown".into());
        self.request(Request::CancelDrill { target, id });
    }

    pub(super) fn prove_processes(&mut self, target: String, id: String) {
        let (at, is_proven) = (self.now + self.rng.i64(0..20_000), self.rng.u8(0..8) > 0);
        self.schedule(at, Upcoming::Proven { target, id, is_proven });
    }

    pub(super) fn processes_proven(&mut self, target: String, id: String, is_proven: bool) {
        let processes = if is_proven { Ok(vec![(4821, 7)]) } else { Err("not listed".into()) };
        let repair = std::time::Duration::from_secs(300);
        self.deliver(Event::Drill { target, event: DrillEvent::Proven { id, processes, repair } });
    }

    /// The driver's duty: not if the drill has ended meanwhile.
    pub(super) fn stop_processes(&mut self, target: String, id: String) {
        let state = self.policy.as_ref().and_then(|policy| policy.target(&target));
        if state.and_then(|state| state.drills.running.as_ref()).is_none_or(|drill| drill.id != id) {
            return;
        }
        self.oracle.process_stops(&target, self.now);
        self.frozen.insert(target.clone());
        let error = (self.rng.u8(0..16) == 0).then(|| "it has ended".into());
        self.deliver(Event::Drill { target, event: DrillEvent::Stopped { id, error } });
    }

    /// The driver's duty: before the save.
    pub(super) fn continue_processes(&mut self, actions: &[Action]) {
        for action in actions {
            if let Action::ContinueProcesses { target, .. } = action {
                self.frozen.remove(target);
                self.oracle.process_continues(target, true, self.now);
            }
        }
    }

    /// Most restart commands end the stopped process and start another.
    pub(super) fn replace_frozen(&mut self, target: &str) {
        if self.frozen.contains(target) && self.rng.u8(0..4) > 0 {
            self.frozen.remove(target);
            self.oracle.process_continues(target, false, self.now);
        }
    }

    pub(super) fn check_frozen(&self) {
        let Some(policy) = &self.policy else { return };
        for target in &self.frozen {
            let drill = policy.target(target).and_then(|state| state.drills.running.as_ref());
            let is_watched = drill.is_some_and(|drill| drill.until > self.clock());
            assert!(is_watched, "{target} stays stopped without a drill: {}", self.oracle.report());
        }
    }

    /// No process survives a reboot.
    pub(super) fn lose_frozen(&mut self) {
        std::mem::take(&mut self.frozen).iter().for_each(|target| self.oracle.processes_lost(target));
    }
}

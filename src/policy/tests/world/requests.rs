//! The operator's requests: pauses that overlap, and changes of the configuration.
//! Each request must reach both the policy and the oracle.

use super::{Upcoming, World};
use crate::policy::{DrillEvent, Event, Limits};
use crate::time::BootTime;

/// `target`: `None` for all targets.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Pause { target: Option<String>, until: i64, command: Option<String> },
    EndCommand { command: String },
    Resume { target: Option<String>, clear_waits: bool },
    Restart { target: String, id: String },
    Drill { target: String, id: String },
    CancelDrill { target: String, id: String },
}

impl World {
    /// Applies the request at once if a watchdog is running, and again until it has been saved.
    pub(super) fn request(&mut self, request: Request) {
        self.requests.push(request);
        self.apply_requests();
    }

    pub(super) fn apply_requests(&mut self) {
        for request in self.requests.clone() {
            self.apply_request(request);
            if self.policy.is_none() {
                return;
            }
        }
        if !self.requests.is_empty() && self.save() {
            self.requests.clear();
        }
    }

    fn apply_request(&mut self, request: Request) {
        match request {
            Request::Pause { until, .. } if until <= self.now => {}
            Request::Pause { target, until, command } => {
                let names = self.target_names(target.as_deref());
                names.iter().for_each(|name| self.oracle.paused(name, command.as_deref(), until, self.now));
                if target.is_none() {
                    self.oracle.all_paused(command.as_deref(), until);
                }
                let until = BootTime::from_ms(until - self.booted);
                self.deliver(Event::Paused { targets: target.map(|name| vec![name]), until, command });
            }
            Request::Restart { target, id } => {
                if self.is_watched(&target) {
                    self.oracle.restart_ordered(&target, &id, self.now);
                }
                self.deliver(Event::RestartOrdered { target, id, stamp: self.stamp() });
            }
            Request::Drill { target, id } => {
                self.deliver(Event::Drill { target, event: DrillEvent::Ordered { id } });
            }
            Request::CancelDrill { target, id } => {
                self.deliver(Event::Drill { target, event: DrillEvent::Cancelled { id } });
            }
            Request::EndCommand { command } => {
                let names = self.target_names(None);
                names.iter().for_each(|name| self.oracle.pauses_ended(name, Some(&command), self.now));
                self.oracle.all_resumed(Some(&command));
                self.deliver(Event::PauseCommandEnded { command });
            }
            Request::Resume { target, clear_waits } => {
                let names = self.target_names(target.as_deref());
                names.iter().for_each(|name| self.oracle.pauses_ended(name, None, self.now));
                let mut cleared = names;
                cleared.retain(|name| clear_waits && self.is_watched(name));
                cleared.iter().for_each(|name| self.oracle.waits_cleared(name));
                if target.is_none() {
                    self.oracle.all_resumed(None);
                }
                self.deliver(Event::Resumed { targets: target.map(|name| vec![name]), clear_waits });
            }
        }
    }

    fn target_names(&self, target: Option<&str>) -> Vec<String> {
        match target {
            Some(name) => Some(name.to_owned()).filter(|name| self.is_watched(name)).into_iter().collect(),
            None => self.limits.keys().chain(self.removed.keys()).cloned().collect(),
        }
    }

    /// Whether a request reaches the target. A removed target is watched until its attempt has ended.
    fn is_watched(&self, name: &str) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.target(name).is_some())
    }

    /// The command of a pause may end before or after the pause. Two pauses may have the same command, whose second end
    /// is then a late event.
    pub(super) fn pause(&mut self, name: String) {
        let until = self.now + self.rng.i64(1..5_000_000);
        let target = (self.rng.u8(0..3) > 0).then_some(name);
        let command = self.rng.bool().then(|| format!("c{}", self.rng.u8(0..4)));
        if let Some(command) = command.clone() {
            let ends = self.now + self.rng.i64(1..6_000_000);
            self.schedule(ends, Upcoming::PauseCommandEnded { command });
        }
        self.request(Request::Pause { target, until, command });
    }

    pub(super) fn order_restart(&mut self, target: String) {
        let id = self.serial.to_string();
        self.request(Request::Restart { target, id });
    }

    /// Reloads the configuration: unchanged, with other limits, or without this target.
    pub(super) fn reload(&mut self, name: &str) {
        match self.rng.u8(0..8) {
            0 => {}
            1 if self.limits.len() > 1 => self.remove(name),
            _ => self.change(name),
        }
        self.deliver(Event::Reloaded { limits: self.limits.clone() });
        self.save();
    }

    fn change(&mut self, name: &str) {
        let names: Vec<String> = self.limits.keys().cloned().collect();
        let index = names.iter().position(|other| other == name).expect("it is in the configuration");
        let Limits { interval, .. } = self.limits[name];
        let fresh =
            (self.make_limits)(&mut self.rng, &names, index, (interval.as_millis() as f64 * 4.5).min(86_400_000.0));
        let kind = self.rng.u8(0..5);
        let limits = self.limits.get_mut(name).expect("it is in the configuration");
        let (probe_id, repair_id) = (limits.probe_id, limits.repair_id);
        match kind {
            0 => limits.dry_run = !limits.dry_run,
            1 => limits.probe_id += 1,
            // Another ladder and other preconditions.
            2 => {
                let Limits { rungs, reset, preconditions, .. } = fresh;
                (limits.rungs, limits.reset, limits.repair_id) = (rungs, reset, repair_id + 1);
                limits.preconditions = preconditions;
            }
            // Other figures for the same probe and ladder.
            3 => {
                let Limits { rungs, reset, preconditions, dry_run, .. } = limits.clone();
                *limits = Limits { rungs, reset, preconditions, dry_run, probe_id, repair_id, ..fresh };
            }
            _ => *limits = Limits { probe_id: probe_id + 1, repair_id: repair_id + 1, ..fresh },
        }
        self.oracle.reloaded(name, &self.limits[name], self.now);
    }

    fn remove(&mut self, name: &str) {
        let Some(limits) = self.limits.remove(name) else { return };
        self.removed.insert(name.to_owned(), limits);
        self.oracle.removed(name, self.now);
        let returns_at =
            self.now + if self.rng.bool() { self.rng.i64(1..100_000) } else { self.rng.i64(1..200_000_000) };
        self.schedule(returns_at, Upcoming::TargetReturns { target: name.to_owned() });
        let others: Vec<String> = self.limits.keys().cloned().collect();
        for other in others {
            let limits = self.limits.get_mut(&other).expect("the names are those of the limits");
            limits.depends_on.retain(|dependency| dependency != name);
            self.oracle.reloaded(&other, &self.limits[&other], self.now);
        }
    }

    pub(super) fn return_target(&mut self, name: &str) {
        let Some(mut limits) = self.removed.remove(name) else { return };
        limits.depends_on.retain(|dependency| self.limits.contains_key(dependency));
        self.limits.insert(name.to_owned(), limits.clone());
        let state = self.policy.as_ref().map(|policy| policy.state());
        let remembered = state.is_some_and(|state| state.targets.contains_key(name));
        // With a failing disk, the state may never have been saved.
        self.oracle.returned(name, (remembered, self.scenario.disk_fails), self.now);
        self.oracle.reloaded(name, &limits, self.now);
        if !remembered {
            // A pause of all targets applies to targets added later.
            self.oracle.inherit_pauses(name, self.now);
        }
        self.deliver(Event::Reloaded { limits: self.limits.clone() });
    }
}

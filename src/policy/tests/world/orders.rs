//! What the operator wants of the watchdog: pauses that overlap, and another configuration.

use super::{Coming, World};
use crate::policy::{Event, Limits};
use crate::time::BootTime;

/// What the operator wants; `None`: of all targets.
#[derive(Clone, Debug)]
pub(super) enum Order {
    Pause { target: Option<String>, until: i64, command: Option<String> },
    Over { command: String },
    Resume { target: Option<String>, clear_waits: bool },
}

impl World {
    /// Carried out at once where a watchdog is at work, and again until it was saved.
    pub(super) fn order(&mut self, order: Order) {
        self.orders.push(order);
        self.carry_out_orders();
    }

    pub(super) fn carry_out_orders(&mut self) {
        for order in self.orders.clone() {
            self.carry_out_order(order);
            if self.policy.is_none() {
                return;
            }
        }
        if !self.orders.is_empty() && self.save() {
            self.orders.clear();
        }
    }

    fn carry_out_order(&mut self, order: Order) {
        match order {
            Order::Pause { until, .. } if until <= self.now => {}
            Order::Pause { target, until, command } => {
                let names = self.meant(target.as_deref());
                names.iter().for_each(|name| self.oracle.paused(name, command.as_deref(), until, self.now));
                if target.is_none() {
                    self.oracle.all_paused(command.as_deref(), until);
                }
                let until = BootTime::from_ms(until - self.booted);
                self.deliver(Event::Paused { targets: target.map(|name| vec![name]), until, command });
            }
            Order::Over { command } => {
                let names = self.meant(None);
                names.iter().for_each(|name| self.oracle.pause_over(name, Some(&command), self.now));
                self.oracle.all_over(Some(&command));
                self.deliver(Event::PauseCommandEnded { command });
            }
            Order::Resume { target, clear_waits } => {
                let names = self.meant(target.as_deref());
                names.iter().for_each(|name| self.oracle.pause_over(name, None, self.now));
                let mut cleared = names;
                cleared.retain(|name| clear_waits && self.is_watched(name));
                cleared.iter().for_each(|name| self.oracle.waits_cleared(name));
                if target.is_none() {
                    self.oracle.all_over(None);
                }
                self.deliver(Event::Resumed { targets: target.map(|name| vec![name]), clear_waits });
            }
        }
    }

    fn meant(&self, target: Option<&str>) -> Vec<String> {
        match target {
            Some(name) => Some(name.to_owned()).filter(|name| self.is_watched(name)).into_iter().collect(),
            None => self.limits.keys().chain(self.removed.keys()).cloned().collect(),
        }
    }

    /// Whether an order reaches it; what has left the configuration is watched until its attempt has ended.
    fn is_watched(&self, name: &str) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.target(name).is_some())
    }

    /// One command lasts as long as its pause or not so long; where it is told to end twice, the second time is late.
    pub(super) fn pause(&mut self, name: String) {
        let until = self.now + self.rng.i64(1..5_000_000);
        let target = (self.rng.u8(0..3) > 0).then_some(name);
        let command = self.rng.bool().then(|| format!("c{}", self.rng.u8(0..4)));
        if let Some(command) = command.clone() {
            let ends = self.now + self.rng.i64(1..6_000_000);
            self.expect_at(ends, Coming::CommandOver { command });
        }
        self.order(Order::Pause { target, until, command });
    }

    /// The file is read again: as it was, changed, or with a target less.
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
        let fresh = (self.make)(&mut self.rng, &names, index, (interval.as_millis() as f64 * 4.5).min(86_400_000.0));
        let kind = self.rng.u8(0..5);
        let limits = self.limits.get_mut(name).expect("the same");
        let (probe_id, repair_id) = (limits.probe_id, limits.repair_id);
        match kind {
            0 => limits.dry_run = !limits.dry_run,
            1 => limits.probe_id += 1,
            // Another ladder, and what is asked before.
            2 => {
                let Limits { rungs, reset, preconditions: gates, .. } = fresh;
                (limits.rungs, limits.reset, limits.repair_id) = (rungs, reset, repair_id + 1);
                limits.preconditions = gates;
            }
            // Other numbers for the same.
            3 => {
                let Limits { rungs, reset, preconditions: gates, dry_run, .. } = limits.clone();
                *limits = Limits { rungs, reset, preconditions: gates, dry_run, probe_id, repair_id, ..fresh };
            }
            _ => *limits = Limits { probe_id: probe_id + 1, repair_id: repair_id + 1, ..fresh },
        }
        self.oracle.reloaded(name, &self.limits[name], self.now);
    }

    fn remove(&mut self, name: &str) {
        let Some(limits) = self.limits.remove(name) else { return };
        self.removed.insert(name.to_owned(), limits);
        self.oracle.removed(name, self.now);
        let comes_back =
            self.now + if self.rng.bool() { self.rng.i64(1..100_000) } else { self.rng.i64(1..200_000_000) };
        self.expect_at(comes_back, Coming::ComesBack { target: name.to_owned() });
        let others: Vec<String> = self.limits.keys().cloned().collect();
        for other in others {
            let limits = self.limits.get_mut(&other).expect("one of them");
            limits.depends_on.retain(|dependency| dependency != name);
            self.oracle.reloaded(&other, &self.limits[&other], self.now);
        }
    }

    pub(super) fn come_back(&mut self, name: &str) {
        let Some(mut limits) = self.removed.remove(name) else { return };
        limits.depends_on.retain(|dependency| self.limits.contains_key(dependency));
        self.limits.insert(name.to_owned(), limits.clone());
        let state = self.policy.as_ref().map(|policy| policy.state());
        let remembered = state.is_some_and(|state| state.targets.contains_key(name));
        // On a bad disk it may never have been saved.
        self.oracle.came_back(name, (remembered, self.rough.disk_fails), self.now);
        self.oracle.reloaded(name, &limits, self.now);
        if !remembered {
            // A pause of all is one of those, too, that are yet to come.
            self.oracle.paused_as_all(name, self.now);
        }
        self.deliver(Event::Reloaded { limits: self.limits.clone() });
    }
}

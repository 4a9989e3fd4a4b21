//! The faults that the world injects into the watchdog and its targets.
//! They are random, but must depend on nothing but the seed.

use super::requests::Request;
use super::{Backend, World};
use crate::outcome::Class;
use crate::policy::Event;

impl World {
    pub(super) fn trouble(&mut self) {
        self.plan_trouble();
        let names: Vec<String> = self.limits.keys().cloned().collect();
        let name = names[self.rng.usize(0..names.len())].clone();
        match self.rng.u8(0..if self.scenario.disturbed { 34 } else { 8 }) {
            0..6 => self.break_backend(&name),
            6 => self.start_process(&name),
            7 => {
                let flaky = self.rng.u32(0..60);
                self.backends.entry(name).and_modify(|backend| backend.flaky = flaky);
            }
            8..12 => self.kill(),
            12 => self.now += self.rng.i64(0..50_000_000), // suspended
            13 => self.reboot(),
            14 | 20 => self.pause(name),
            15 => {
                let (clear_waits, target) = (self.rng.bool(), (self.rng.u8(0..3) > 0).then_some(name));
                self.request(Request::Resume { target, clear_waits });
            }
            16 | 21 | 22 => self.reload(&name),
            23 | 24 => self.set_clock(),
            26 | 27 => self.order_restart(name),
            28..33 => self.order_drill(name),
            33 => self.cancel_drill(name),
            25 => names.iter().for_each(|name| self.break_backend(name)),
            17 => {
                self.deliver(Event::Stopping);
                self.save();
                self.kill();
            }
            _ => {
                let missing = self.rng.bool().then(|| "gone".into());
                self.deliver(Event::ExecutablesSearched { target: name, missing });
            }
        }
    }

    fn break_backend(&mut self, name: &str) {
        let rungs = self.limits[name].rungs;
        let class = self.rng.choice(Class::ALL).expect("there are classes");
        let by_itself = self.rng.bool().then(|| self.now + self.rng.i64(0..3_000_000));
        let cured_by = (rungs > 0 && self.rng.u8(0..4) > 0).then(|| self.rng.usize(0..rungs));
        let boot = self.rng.i64(0..40_000);
        self.backends.insert(name.to_string(), Backend { up_at: by_itself, class, cured_by, boot, flaky: 0 });
        if self.rng.bool() {
            self.start_process(name);
        }
        self.oracle.broken(name, self.now);
    }

    pub(super) fn start_process(&mut self, target: &str) {
        self.serial += 1;
        let pid = u32::try_from(self.serial).expect("in range");
        self.processes.insert(target.to_string(), (pid, self.now));
    }
}

//! What the world does to the watchdog and its targets.

use std::cmp::Reverse;
use std::time::Duration;

use super::{Backend, Coming, World};
use crate::outcome::Class;
use crate::policy::Event;

impl World {
    pub(super) fn trouble(&mut self) {
        self.plan_trouble();
        let names: Vec<String> = self.limits.keys().cloned().collect();
        let name = names[self.rng.usize(0..names.len())].clone();
        match self.rng.u8(0..if self.rough.disturbed { 20 } else { 8 }) {
            0..6 => self.break_backend(&name),
            6 => self.start_process(&name),
            7 => {
                let flaky = self.rng.u32(0..60);
                self.backends.entry(name).and_modify(|backend| backend.flaky = flaky);
            }
            8..12 => self.kill(),
            12 => self.now += self.rng.i64(0..50_000_000), // suspended
            13 => self.reboot(),
            14 => {
                let until = self.clock() + Duration::from_millis(self.rng.u64(1..5_000_000));
                self.oracle.paused(&name, self.now, until.as_ms() + self.booted);
                self.deliver(Event::Paused { targets: vec![name], until });
            }
            15 => {
                let clear_waits = self.rng.bool();
                self.oracle.resumed(&name, self.now, clear_waits);
                self.deliver(Event::Resumed { targets: vec![name], clear_waits });
            }
            16 => self.deliver(Event::Reloaded { limits: self.limits.clone() }),
            17 => {
                self.deliver(Event::Stopping);
                self.save();
                self.kill();
            }
            _ => {
                let missing = self.rng.bool().then(|| "gone".into());
                self.deliver(Event::Executables { target: name, missing });
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

    fn reboot(&mut self) {
        self.kill();
        self.oracle.rebooted();
        self.coming.retain(|Reverse((_, _, coming))| matches!(coming, Coming::Trouble));
        self.running.clear();
        self.now += self.rng.i64(1_000..600_000);
        self.booted = self.now - self.rng.i64(500..60_000);
    }
}

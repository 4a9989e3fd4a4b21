//! A look at PM2 by its socket, its files and `/proc`: beside another probe, or as the probe itself.
//! It must never start a process of PM2 or node, and never wait for a home on a file server that does not answer.

use std::io;
use std::time::Duration;

use crate::config;
use crate::outcome::{Class, Sight, in_words};
use crate::pm2::Home;
use crate::time::Span;

use super::Failure;
use super::aside::{Aside, Missing};
use super::deadline::Deadline;

/// Reading a few files fits into this, and the JSON in the environment of a cluster's worker.
const STACK: usize = 128 << 10;
/// What a sight beside another probe may take at most.
const BESIDE: Duration = Duration::from_secs(1);

/// A process of PM2's.
#[derive(Debug)]
pub(super) struct Pm2Probe {
    home: Home,
    process: String,
    looking: Aside,
}

impl Pm2Probe {
    pub(super) fn new(pm2: &config::Pm2) -> Self {
        let (home, process) = (Home::at(&pm2.home), pm2.process.clone());
        Pm2Probe { home, process, looking: Aside::new("pm2", STACK) }
    }

    /// As the probe itself: daemon and process must live.
    pub(super) fn look(&self, deadline: Deadline) -> (Result<String, Failure>, Option<Sight>) {
        let late = |detail: String| Err(Failure::Target(Class::Timeout, detail));
        match self.see(deadline) {
            Ok(Ok(sight)) => (self.judge(&sight), Some(sight)),
            Ok(Err(error)) => (Err(Failure::Ours(format!("cannot look at PM2: {}", in_words(&error)))), None),
            Err(Missing::Late) => (late(format!("PM2's home gave no answer in {}", Span(deadline.budget()))), None),
            Err(Missing::Hanging) => (late("PM2's home still hangs since an earlier look".into()), None),
            Err(Missing::Ours(trouble)) => (Err(Failure::Ours(format!("cannot look at PM2: {trouble}"))), None),
        }
    }

    /// Beside another look that is over. It takes half of that one's `timeout` at most, since a verdict after twice the
    /// timeout does not count; what cannot be seen in time is not seen.
    pub(super) fn glance(&self, timeout: Duration) -> Option<Sight> {
        self.see(Deadline::after(BESIDE.min(timeout / 2))).ok()?.ok()
    }

    fn see(&self, deadline: Deadline) -> Result<io::Result<Sight>, Missing> {
        let (home, process) = (self.home.clone(), self.process.clone());
        self.looking.run(deadline, move || home.sight(&process))
    }

    fn judge(&self, sight: &Sight) -> Result<String, Failure> {
        let gone = |detail: String| Err(Failure::Target(Class::Gone, detail));
        match (sight.daemon, sight.process) {
            (false, _) => gone(format!("PM2's daemon in {} is dead", self.home.path().display())),
            (true, None) => gone(format!("PM2 runs no {}", self.process)),
            (true, Some(seen)) => Ok(format!("pid {}", seen.pid)),
        }
    }
}

//! PM2 observed by its socket, its files and `/proc`: beside another probe, or as the probe itself.
//! It must never start a process of PM2 or node, and never wait for a home on a file server that does not answer.

use std::time::Duration;

use crate::config;
use crate::outcome::{Class, DaemonState, Pm2Evidence, PriorEvidence, ProcessIdentity};
use crate::pm2::Home;
use crate::time::HumanDuration;

use super::bounded_task::{BoundedTask, TaskError};
use super::deadline::Deadline;
use super::failure::Failure;

/// Reading a few files fits into this, and the JSON in the environment of a cluster's worker.
const STACK: usize = 128 << 10;
/// What an observation beside another probe may take at most.
const BESIDE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Pm2Probe {
    home: Home,
    process: String,
    looking: BoundedTask,
}

impl Pm2Probe {
    pub(super) fn new(pm2: &config::Pm2Config) -> Self {
        let (home, process) = (Home::at(&pm2.home), pm2.process.clone());
        Pm2Probe { home, process, looking: BoundedTask::new("pm2", STACK) }
    }

    /// As the probe itself: the process must live.
    pub(super) fn probe(
        &self,
        deadline: Deadline,
        known: PriorEvidence,
    ) -> (Result<String, Failure>, Option<Pm2Evidence>) {
        let late = |detail: String| Err(Failure::Target(Class::Timeout, detail));
        match self.see(deadline, known) {
            Ok(evidence) => (self.judge(&evidence), Some(evidence)),
            Err(TaskError::Late) => {
                (late(format!("PM2's home gave no answer in {}", HumanDuration(deadline.budget()))), None)
            }
            Err(TaskError::Hanging) => (late("PM2's home still hangs since an earlier look".into()), None),
            Err(TaskError::Ours(trouble)) => (Err(Failure::Ours(format!("cannot look at PM2: {trouble}"))), None),
        }
    }

    /// Beside another look that is over. It takes half of that one's `timeout` at most, since a verdict after twice the
    /// timeout does not count; what cannot be seen in time is not seen.
    pub(super) fn observe(&self, timeout: Duration, known: PriorEvidence) -> Option<Pm2Evidence> {
        self.see(Deadline::after(BESIDE.min(timeout / 2)), known).ok()
    }

    fn see(&self, deadline: Deadline, known: PriorEvidence) -> Result<Pm2Evidence, TaskError> {
        let (home, process) = (self.home.clone(), self.process.clone());
        self.looking.run(deadline, move || home.observe(&process, known))
    }

    /// A process that lives is healthy, whatever became of its daemon: that is told, and no reason to start another.
    fn judge(&self, evidence: &Pm2Evidence) -> Result<String, Failure> {
        let gone = |detail: String| Err(Failure::Target(Class::Gone, detail));
        match (evidence.process, evidence.daemon) {
            (Some(ProcessIdentity { pid, .. }), DaemonState::Dead) => Ok(format!("pid {pid}, without PM2's daemon")),
            (Some(ProcessIdentity { pid, .. }), _) => Ok(format!("pid {pid}")),
            (None, DaemonState::Dead) => gone(format!("PM2's daemon in {} is dead", self.home.path().display())),
            (None, DaemonState::Alive) if evidence.trouble.is_none() => gone(format!("PM2 runs no {}", self.process)),
            (None, DaemonState::Deaf) => gone(format!("PM2 runs no {}, and its daemon is deaf", self.process)),
            (None, DaemonState::Alive | DaemonState::Unknown) => {
                let why = evidence.trouble.clone().unwrap_or_else(|| "PM2 cannot be seen".into());
                Err(Failure::Ours(why))
            }
        }
    }
}

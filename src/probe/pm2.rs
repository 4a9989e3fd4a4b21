//! Observes PM2 through its socket, its files and `/proc`, after another probe or as the probe itself.
//! It must never start a process of PM2 or node, nor wait beyond the deadline for a home on a file server that does not
//! answer.

use std::time::Duration;

use crate::config;
use crate::outcome::{Class, DaemonState, Pm2Evidence, PriorEvidence, ProcessIdentity};
use crate::pm2::Home;
use crate::time::HumanDuration;

use super::bounded_task::{BoundedTask, TaskError};
use super::deadline::Deadline;
use super::failure::Failure;

/// Enough to read a few files and the JSON in the environment of a cluster worker. In bytes.
const THREAD_STACK: usize = 128 << 10;
/// How long an observation after another probe may take.
const MAX_OBSERVATION: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Pm2Probe {
    home: Home,
    process: String,
    task: BoundedTask,
}

impl Pm2Probe {
    pub(super) fn new(pm2: &config::Pm2Config) -> Self {
        let (home, process) = (Home::at(&pm2.home), pm2.process.clone());
        Pm2Probe { home, process, task: BoundedTask::new("pm2", THREAD_STACK) }
    }

    /// The probe itself: healthy when the process is alive.
    pub(super) fn probe(
        &self,
        deadline: Deadline,
        prior: PriorEvidence,
    ) -> (Result<String, Failure>, Option<Pm2Evidence>) {
        let timeout = |detail: String| Err(Failure::Unhealthy(Class::Timeout, detail));
        match self.observe_by(deadline, prior) {
            Ok(evidence) => (self.evaluate(&evidence), Some(evidence)),
            Err(TaskError::TimedOut) => {
                (timeout(format!("PM2's home did not answer within {}", HumanDuration(deadline.budget()))), None)
            }
            Err(TaskError::StillRunning) => (timeout("PM2's home still hangs from an earlier probe".into()), None),
            Err(TaskError::Failed(reason)) => (Err(Failure::Unknown(format!("cannot inspect PM2: {reason}"))), None),
        }
    }

    /// Observes PM2 after another probe has ended. It takes at most half of that probe's `timeout`, because a verdict
    /// later than twice the timeout does not count. `None` if the observation is not complete in time.
    pub(super) fn observe(&self, timeout: Duration, prior: PriorEvidence) -> Option<Pm2Evidence> {
        self.observe_by(Deadline::after(MAX_OBSERVATION.min(timeout / 2)), prior).ok()
    }

    fn observe_by(&self, deadline: Deadline, prior: PriorEvidence) -> Result<Pm2Evidence, TaskError> {
        let (home, process) = (self.home.clone(), self.process.clone());
        self.task.run(deadline, move || home.observe(&process, prior))
    }

    /// A living process is healthy whatever its daemon does. A dead daemon is reported (`pm2_gone`), but it is no
    /// reason to start a second process.
    fn evaluate(&self, evidence: &Pm2Evidence) -> Result<String, Failure> {
        let gone = |detail: String| Err(Failure::Unhealthy(Class::Gone, detail));
        match (evidence.process, evidence.daemon) {
            (Some(ProcessIdentity { pid, .. }), DaemonState::Dead) => {
                Ok(format!("pid {pid}, but PM2's daemon is dead"))
            }
            (Some(ProcessIdentity { pid, .. }), _) => Ok(format!("pid {pid}")),
            (None, DaemonState::Dead) => gone(format!("PM2's daemon in {} is dead", self.home.path().display())),
            (None, DaemonState::Alive) if evidence.trouble.is_none() => {
                gone(format!("PM2 does not run {}", self.process))
            }
            (None, DaemonState::Deaf) => {
                gone(format!("PM2 does not run {}, and no pm2 command reaches its daemon", self.process))
            }
            (None, DaemonState::Alive | DaemonState::Unknown) => {
                let reason = evidence.trouble.clone().unwrap_or_else(|| "the state of PM2 is unknown".into());
                Err(Failure::Unknown(reason))
            }
        }
    }
}

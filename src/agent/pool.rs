//! Runs jobs: each on its own thread with a deadline, and each posts exactly one message, however it ends. An idle
//! thread is reused; a new one is started only while all are busy.
//! A job that hangs in the kernel (on a dead file server, for example) must block nothing but its own thread: it is
//! abandoned at its deadline, its late result is ignored, and no second job of its kind starts until it has ended.

#[cfg(test)]
mod tests;
mod workers;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use crate::clock;
use crate::command::{self, Scope};
use crate::outcome::describe_io_error;
use crate::time::HumanDuration;

use super::message::Message;

pub(super) use workers::JobContext;

use workers::{PendingJob, Pool, STACK};

/// Threads count as available again once none was refused for this long: at a limit, refusals and successes alternate.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);
/// Added to a command's timeout: killing a command that ignores SIGTERM takes 5 s and more, on a slow machine longer.
pub(super) const KILL_GRACE: Duration = Duration::from_secs(20);

pub(super) struct JobSpec {
    pub(super) name: &'static str,
    /// What the job is for, usually a target. Empty if there is only one such job.
    pub(super) subject: String,
    /// Identifies how the job is done, if a reload can change that: a hanging job blocks only jobs of its own variant.
    pub(super) variant: String,
    pub(super) timeout: Duration,
    /// Whether its commands may outlive the watchdog. Nobody needs the result of a probe or a check by then.
    pub(super) outlives_watchdog: bool,
    /// Makes the message that is posted if the job yields no result.
    pub(super) on_failure: OnFailure,
}

pub(super) type OnFailure = Box<dyn FnOnce(JobFailure) -> Message + Send>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JobFailure {
    /// No thread could be started, with the system's reason.
    NoThread(String),
    Panicked,
    /// `is_running`: the job had started a command that has not ended.
    DeadlinePassed {
        after: Duration,
        is_running: bool,
    },
    /// An earlier job of the same name, subject and variant still hangs.
    PreviousHangs,
}

impl fmt::Display for JobFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobFailure::NoThread(why) => write!(f, "no thread could be started: {why}"),
            JobFailure::Panicked => f.write_str("a bug in the watchdog"),
            JobFailure::DeadlinePassed { after, .. } => write!(f, "no result after {}", HumanDuration(*after)),
            JobFailure::PreviousHangs => f.write_str("the previous one still hangs"),
        }
    }
}

struct Job {
    name: &'static str,
    subject: String,
    variant: String,
    outlives_watchdog: bool,
    scope: Scope,
    is_abandoned: bool,
}

impl Job {
    fn describe(&self) -> String {
        if self.subject.is_empty() { self.name.to_owned() } else { format!("{} of {}", self.name, self.subject) }
    }
}

pub(super) struct Jobs {
    post: Sender<Message>,
    pool: Arc<Pool>,
    last_number: u64,
    /// By number.
    running: BTreeMap<u64, Job>,
    /// By subject: the numbers of jobs whose deadline has passed.
    abandoned: BTreeMap<String, Vec<u64>>,
    /// Jobs that have ended; each stays here until its scope is empty, since its commands may have left children.
    ended: Vec<u64>,
    /// When a thread was last refused; `None` once threads are available again.
    refused_at: Option<Instant>,
}

impl Jobs {
    pub(super) fn new(post: Sender<Message>) -> Jobs {
        Jobs {
            post,
            pool: Arc::default(),
            last_number: 0,
            running: BTreeMap::new(),
            abandoned: BTreeMap::new(),
            ended: Vec::new(),
            refused_at: None,
        }
    }

    /// Runs `run` on a worker thread and posts the message it returns, or that of `on_failure`.
    pub(super) fn spawn(&mut self, spec: JobSpec, run: impl FnOnce(&JobContext) -> Message + Send + 'static) {
        let JobSpec { name, subject, variant, timeout, outlives_watchdog, on_failure } = spec;
        if self.is_hanging(name, &subject, &variant) {
            self.fail(on_failure, JobFailure::PreviousHangs);
            return;
        }
        let (now, scope) = (clock::monotonic(), Scope::default());
        self.last_number += 1;
        let number = self.last_number;
        self.pool.lock().insert(number, PendingJob::new(now, timeout, on_failure));
        let context = JobContext::new(number, Arc::clone(&self.pool), self.post.clone(), scope.clone());
        self.running.insert(number, Job { name, subject, variant, outlives_watchdog, scope, is_abandoned: false });
        if let Err(error) = self.pool.execute(context, Box::new(run)) {
            if self.refused_at.replace(now).is_none() {
                log::warn!("cannot start a thread for {name}: {error} (its result is unknown)");
            }
            let pending = self.pool.lock().remove(number);
            if let Some(pending) = pending {
                self.fail(pending.on_failure, JobFailure::NoThread(describe_io_error(&error)));
            }
        }
    }

    fn fail(&self, on_failure: OnFailure, why: JobFailure) {
        let _ = self.post.send(on_failure(why)); // fails only if the loop has ended
    }

    /// Whether this job was abandoned and has not ended since.
    pub(super) fn is_hanging(&self, name: &str, subject: &str, variant: &str) -> bool {
        let is_same = |number: &u64| {
            self.running.get(number).is_some_and(|job| (job.name, job.variant.as_str()) == (name, variant))
                && self.pool.lock().contains(*number)
        };
        self.abandoned.get(subject).is_some_and(|numbers| numbers.iter().any(is_same))
    }

    /// Abandons the jobs whose deadline has passed, and forgets those that have ended.
    pub(super) fn check_deadlines(&mut self) {
        self.check_deadlines_at(clock::monotonic());
    }

    fn check_deadlines_at(&mut self, now: Instant) {
        loop {
            let overdue = self.pool.lock().take_overdue(now);
            let Some((number, pending)) = overdue else { break };
            self.abandon(number, pending, now);
        }
        self.pool.lock().drain_ended(&mut self.ended);
        self.forget_ended();
        if self.refused_at.is_some_and(|at| now.duration_since(at) >= RECOVERED_AFTER) {
            self.refused_at = None;
            log::info!("threads can be started again");
        }
    }

    fn abandon(&mut self, number: u64, pending: PendingJob, now: Instant) {
        let Some(job) = self.running.get_mut(&number) else { return };
        job.is_abandoned = true;
        self.abandoned.entry(job.subject.clone()).or_default().push(number);
        // Before the failure is posted: a command that has not started by now must not start once the next job runs.
        job.scope.close();
        let after = now.duration_since(pending.since);
        let (name, what) = (job.name, job.describe());
        self.fail(pending.on_failure, JobFailure::DeadlinePassed { after, is_running: pending.command.is_some() });
        log::warn!("{what}: no result after {}; no longer waiting for it", HumanDuration(after));
        if let Some(command) = pending.command {
            // The job's own thread hangs, perhaps while it writes the output, so another thread ends the command.
            let end = move || command::adopt(command, Duration::ZERO);
            // If no thread can be started for this either, the command lives on.
            let _ = thread::Builder::new().name(name.into()).stack_size(STACK).spawn(end);
        }
    }

    fn forget_ended(&mut self) {
        let (running, abandoned) = (&mut self.running, &mut self.abandoned);
        self.ended.retain(|number| {
            if running.get(number).is_some_and(|job| !job.scope.is_empty()) {
                return true;
            }
            let Some(job) = running.remove(number).filter(|job| job.is_abandoned) else { return false };
            log::info!("{}: the job that hung has ended; its result is ignored", job.describe());
            if let Entry::Occupied(mut numbers) = abandoned.entry(job.subject) {
                numbers.get_mut().retain(|other| other != number);
                if numbers.get().is_empty() {
                    numbers.remove();
                }
            }
            false
        });
    }

    pub(super) fn until_deadline(&self) -> Option<Duration> {
        let next = self.pool.lock().next_deadline();
        next.map(|deadline| deadline.saturating_duration_since(clock::monotonic()))
    }

    /// The scopes of all jobs whose commands must not outlive the watchdog.
    pub(super) fn scopes(&self) -> impl Iterator<Item = &Scope> {
        self.running.values().filter(|job| !job.outlives_watchdog).map(|job| &job.scope)
    }
}

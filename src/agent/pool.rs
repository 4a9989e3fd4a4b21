//! How a job is run: on a thread of its own with a deadline, which posts exactly one message, whatever way it ends. The
//! thread is kept for the next job; another is started only while it is busy.
//! A job that hangs in the system, as on a file server that is gone, must hold up nothing but its own thread: nobody
//! waits for it after its deadline, nothing that it may still find is heeded, and no second one is begun beside it.

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

/// Threads can be had again once none was refused for so long: at a limit, one is refused and the next is not.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);
/// What the end of a command that does not want to end may take, and a slow machine.
pub(super) const KILL_GRACE: Duration = Duration::from_secs(20);

pub(super) struct JobSpec {
    pub(super) name: &'static str,
    /// What it is made for, such as a target. Empty where there is one only.
    pub(super) subject: String,
    /// By what it is done, where a reload may change that: one that hangs holds up none that is done by something else.
    pub(super) variant: String,
    pub(super) timeout: Duration,
    /// Whether what it runs may go on when we end. Probes and questions are of use to nobody then.
    pub(super) outlives_watchdog: bool,
    /// What is posted where it comes to nothing.
    pub(super) on_failure: OnFailure,
}

pub(super) type OnFailure = Box<dyn FnOnce(JobFailure) -> Message + Send>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JobFailure {
    /// There is no thread for it, for this reason.
    NoThread(String),
    /// A bug in the watchdog.
    Panicked,
    /// Its deadline passed; whether its command runs, as far as it has one.
    DeadlinePassed { after: Duration, is_running: bool },
    /// The one before it hangs still.
    PreviousHangs,
}

impl fmt::Display for JobFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobFailure::NoThread(why) => write!(f, "there is no thread for it: {why}"),
            JobFailure::Panicked => f.write_str("a bug in the watchdog"),
            JobFailure::DeadlinePassed { after, .. } => {
                write!(f, "the system gave no answer in {}", HumanDuration(*after))
            }
            JobFailure::PreviousHangs => f.write_str("the system still gives no answer to the one before it"),
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
        if self.subject.is_empty() {
            format!("the {}", self.name)
        } else {
            format!("the {} of {}", self.name, self.subject)
        }
    }
}

pub(super) struct Jobs {
    post: Sender<Message>,
    pool: Arc<Pool>,
    /// How many were begun, which numbers them.
    last_number: u64,
    /// By number.
    running: BTreeMap<u64, Job>,
    /// The numbers of those that are not waited for any more, by what they are made for.
    abandoned: BTreeMap<String, Vec<u64>>,
    /// Those that have ended, for as long as what their commands have left running is of their scope.
    ended: Vec<u64>,
    /// When a thread was refused last, until that is over.
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

    /// Runs `work` on a thread of its own and posts what it returns, or `otherwise` where it comes to nothing.
    pub(super) fn spawn(&mut self, job: JobSpec, work: impl FnOnce(&JobContext) -> Message + Send + 'static) {
        let JobSpec {
            name,
            subject: of,
            variant: by,
            timeout: within,
            outlives_watchdog: outlives_us,
            on_failure: otherwise,
        } = job;
        if self.is_hanging(name, &of, &by) {
            self.fail(otherwise, JobFailure::PreviousHangs);
            return;
        }
        let (now, scope) = (clock::monotonic(), Scope::default());
        self.last_number += 1;
        let number = self.last_number;
        self.pool.lock().insert(number, PendingJob::new(now, within, otherwise));
        let at_work = JobContext::new(number, Arc::clone(&self.pool), self.post.clone(), scope.clone());
        self.running.insert(
            number,
            Job { name, subject: of, variant: by, outlives_watchdog: outlives_us, scope, is_abandoned: false },
        );
        if let Err(error) = self.pool.execute(at_work, Box::new(work)) {
            if self.refused_at.replace(now).is_none() {
                log::warn!("no thread for a {name}: {error} (what cannot be found out is unknown)");
            }
            let waited = self.pool.lock().remove(number);
            waited
                .into_iter()
                .for_each(|waited| self.fail(waited.on_failure, JobFailure::NoThread(describe_io_error(&error))));
        }
    }

    fn fail(&self, otherwise: OnFailure, why: JobFailure) {
        let _ = self.post.send(otherwise(why)); // without a loop nobody needs to know
    }

    /// Whether this very job is not waited for any more and has not ended either.
    pub(super) fn is_hanging(&self, name: &str, of: &str, by: &str) -> bool {
        let is_it = |number: &u64| {
            self.running.get(number).is_some_and(|job| (job.name, job.variant.as_str()) == (name, by))
                && self.pool.lock().contains(*number)
        };
        self.abandoned.get(of).is_some_and(|numbers| numbers.iter().any(is_it))
    }

    /// Gives up the jobs whose deadline has passed, and forgets those that are over.
    pub(super) fn check_deadlines(&mut self) {
        self.check_deadlines_at(clock::monotonic());
    }

    fn check_deadlines_at(&mut self, now: Instant) {
        loop {
            let late = self.pool.lock().take_overdue(now);
            let Some((number, waited)) = late else { break };
            self.abandon(number, waited, now);
        }
        self.pool.lock().drain_ended(&mut self.ended);
        self.forget_ended();
        if self.refused_at.is_some_and(|at| now.duration_since(at) >= RECOVERED_AFTER) {
            self.refused_at = None;
            log::info!("threads can be had again");
        }
    }

    fn abandon(&mut self, number: u64, waited: PendingJob, now: Instant) {
        let Some(job) = self.running.get_mut(&number) else { return };
        job.is_abandoned = true;
        self.abandoned.entry(job.subject.clone()).or_default().push(number);
        // First: what has not begun by now must not begin once the next job has its turn.
        job.scope.close();
        let after = now.duration_since(waited.since);
        let (name, what) = (job.name, job.describe());
        self.fail(waited.on_failure, JobFailure::DeadlinePassed { after, is_running: waited.command.is_some() });
        log::warn!("{what} gives no answer after {} and is not waited for any more", HumanDuration(after));
        if let Some(command) = waited.command {
            // Its own thread hangs, in the output perhaps. Where there is no thread for this either, it lives on.
            let end = move || command::adopt(command, Duration::ZERO);
            let _ = thread::Builder::new().name(name.into()).stack_size(STACK).spawn(end);
        }
    }

    fn forget_ended(&mut self) {
        let (running, given_up) = (&mut self.running, &mut self.abandoned);
        self.ended.retain(|number| {
            if running.get(number).is_some_and(|job| !job.scope.is_empty()) {
                return true;
            }
            let Some(over) = running.remove(number).filter(|job| job.is_abandoned) else { return false };
            log::info!("{} that was not waited for any more has ended", over.describe());
            if let Entry::Occupied(mut numbers) = given_up.entry(over.subject) {
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
        next.map(|until| until.saturating_duration_since(clock::monotonic()))
    }

    pub(super) fn scopes(&self) -> impl Iterator<Item = &Scope> {
        self.running.values().filter(|job| !job.outlives_watchdog).map(|job| &job.scope)
    }
}

//! How a job is run: on a thread of its own with a deadline, which posts exactly one message, whatever way it ends. The
//! thread is kept for the next job; another is started only while it is busy.
//! A job that hangs in the system, as on a file server that is gone, must hold up nothing but its own thread: nobody
//! waits for it after its deadline, nothing that it may still find is heeded, and no second one is begun beside it.

mod running;
#[cfg(test)]
mod tests;

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

pub(super) use running::Work;

use running::{STACK, Shared, Waited};

/// Threads can be had again once none was refused for so long: at a limit, one is refused and the next is not.
const CALM: Duration = Duration::from_secs(60);
/// What the end of a command that does not want to end may take, and a slow machine.
pub(super) const ENDING: Duration = Duration::from_secs(20);

pub(super) struct JobSpec {
    pub(super) name: &'static str,
    /// What it is made for, such as a target. Empty where there is one only.
    pub(super) of: String,
    /// By what it is done, where a reload may change that: one that hangs holds up none that is done by something else.
    pub(super) by: String,
    pub(super) within: Duration,
    /// Whether what it runs may go on when we end. Probes and questions are of use to nobody then.
    pub(super) outlives_us: bool,
    /// What is posted where it comes to nothing.
    pub(super) otherwise: Otherwise,
}

pub(super) type Otherwise = Box<dyn FnOnce(JobFailure) -> Message + Send>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JobFailure {
    /// There is no thread for it, for this reason.
    NoThread(String),
    /// A bug in the watchdog.
    Bug,
    /// Its deadline passed; whether its command runs, as far as it has one.
    Late { after: Duration, is_running: bool },
    /// The one before it hangs still.
    Hanging,
}

impl fmt::Display for JobFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobFailure::NoThread(why) => write!(f, "there is no thread for it: {why}"),
            JobFailure::Bug => f.write_str("a bug in the watchdog"),
            JobFailure::Late { after, .. } => write!(f, "the system gave no answer in {}", HumanDuration(*after)),
            JobFailure::Hanging => f.write_str("the system still gives no answer to the one before it"),
        }
    }
}

struct RunningJob {
    name: &'static str,
    of: String,
    by: String,
    outlives_us: bool,
    scope: Scope,
    is_given_up: bool,
}

impl RunningJob {
    fn words(&self) -> String {
        if self.of.is_empty() { format!("the {}", self.name) } else { format!("the {} of {}", self.name, self.of) }
    }
}

pub(super) struct Jobs {
    post: Sender<Message>,
    shared: Arc<Shared>,
    /// How many were begun, which numbers them.
    begun: u64,
    /// By number.
    running: BTreeMap<u64, RunningJob>,
    /// The numbers of those that are not waited for any more, by what they are made for.
    given_up: BTreeMap<String, Vec<u64>>,
    /// Those that have ended, for as long as what their commands have left running is of their scope.
    ended: Vec<u64>,
    /// When a thread was refused last, until that is over.
    refused: Option<Instant>,
}

impl Jobs {
    pub(super) fn new(post: Sender<Message>) -> Jobs {
        Jobs {
            post,
            shared: Arc::default(),
            begun: 0,
            running: BTreeMap::new(),
            given_up: BTreeMap::new(),
            ended: Vec::new(),
            refused: None,
        }
    }

    /// Runs `work` on a thread of its own and posts what it returns, or `otherwise` where it comes to nothing.
    pub(super) fn spawn(&mut self, job: JobSpec, work: impl FnOnce(&Work) -> Message + Send + 'static) {
        let JobSpec { name, of, by, within, outlives_us, otherwise } = job;
        if self.hangs(name, &of, &by) {
            self.fail(otherwise, JobFailure::Hanging);
            return;
        }
        let (now, scope) = (clock::monotonic(), Scope::default());
        self.begun += 1;
        let number = self.begun;
        self.shared.lock().begin(number, Waited::new(now, within, otherwise));
        let at_work = Work::new(number, Arc::clone(&self.shared), self.post.clone(), scope.clone());
        self.running.insert(number, RunningJob { name, of, by, outlives_us, scope, is_given_up: false });
        if let Err(error) = self.shared.give(at_work, Box::new(work)) {
            if self.refused.replace(now).is_none() {
                log::warn!("no thread for a {name}: {error} (what cannot be found out is unknown)");
            }
            let waited = self.shared.lock().end(number);
            waited
                .into_iter()
                .for_each(|waited| self.fail(waited.otherwise, JobFailure::NoThread(describe_io_error(&error))));
        }
    }

    fn fail(&self, otherwise: Otherwise, why: JobFailure) {
        let _ = self.post.send(otherwise(why)); // without a loop nobody needs to know
    }

    /// Whether this very job is not waited for any more and has not ended either.
    pub(super) fn hangs(&self, name: &str, of: &str, by: &str) -> bool {
        let is_it = |number: &u64| {
            self.running.get(number).is_some_and(|job| (job.name, job.by.as_str()) == (name, by))
                && self.shared.lock().has(*number)
        };
        self.given_up.get(of).is_some_and(|numbers| numbers.iter().any(is_it))
    }

    /// Gives up the jobs whose deadline has passed, and forgets those that are over.
    pub(super) fn keep_up(&mut self) {
        self.keep_up_at(clock::monotonic());
    }

    fn keep_up_at(&mut self, now: Instant) {
        loop {
            let late = self.shared.lock().take_late(now);
            let Some((number, waited)) = late else { break };
            self.give_up(number, waited, now);
        }
        self.shared.lock().move_ended(&mut self.ended);
        self.forget_ended();
        if self.refused.is_some_and(|at| now.duration_since(at) >= CALM) {
            self.refused = None;
            log::info!("threads can be had again");
        }
    }

    fn give_up(&mut self, number: u64, waited: Waited, now: Instant) {
        let Some(job) = self.running.get_mut(&number) else { return };
        job.is_given_up = true;
        self.given_up.entry(job.of.clone()).or_default().push(number);
        // First: what has not begun by now must not begin once the next job has its turn.
        job.scope.close();
        let after = now.duration_since(waited.since);
        let (name, what) = (job.name, job.words());
        self.fail(waited.otherwise, JobFailure::Late { after, is_running: waited.command.is_some() });
        log::warn!("{what} gives no answer after {} and is not waited for any more", HumanDuration(after));
        if let Some(command) = waited.command {
            // Its own thread hangs, in the output perhaps. Where there is no thread for this either, it lives on.
            let end = move || command::adopt(command, Duration::ZERO);
            let _ = thread::Builder::new().name(name.into()).stack_size(STACK).spawn(end);
        }
    }

    fn forget_ended(&mut self) {
        let (running, given_up) = (&mut self.running, &mut self.given_up);
        self.ended.retain(|number| {
            if running.get(number).is_some_and(|job| !job.scope.is_empty()) {
                return true;
            }
            let Some(over) = running.remove(number).filter(|job| job.is_given_up) else { return false };
            log::info!("{} that was not waited for any more has ended", over.words());
            if let Entry::Occupied(mut numbers) = given_up.entry(over.of) {
                numbers.get_mut().retain(|other| other != number);
                if numbers.get().is_empty() {
                    numbers.remove();
                }
            }
            false
        });
    }

    pub(super) fn pause(&self) -> Option<Duration> {
        let next = self.shared.lock().next_deadline();
        next.map(|until| until.saturating_duration_since(clock::monotonic()))
    }

    pub(super) fn scopes(&self) -> impl Iterator<Item = &Scope> {
        self.running.values().filter(|job| !job.outlives_us).map(|job| &job.scope)
    }
}

//! The jobs whose threads are at work, until when each is waited for, and the one thread that waits for the next job.
//! It is shared by the loop and all these threads, so nothing may be done under its lock that can take time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::Message;
use crate::clock;
use crate::command::Scope;
use crate::probe;
use crate::process::Process;

use super::{JobFailure, OnFailure};

/// What a probe wants; the other jobs want less.
pub(super) const STACK: usize = probe::STACK;
/// A deadline that is noticed so late was not kept by us, who were stopped or busy: the job was, perhaps, too.
const LATE_CHECK: Duration = Duration::from_secs(5);
/// What it gets then, once.
const EXTENSION: Duration = Duration::from_secs(30);

pub(super) type JobFn = Box<dyn FnOnce(&JobContext) -> Message + Send>;

/// A job at work, as its own thread has it. Whatever way it ends, its message is posted.
pub(in crate::agent) struct JobContext {
    number: u64,
    pool: Arc<Pool>,
    post: Sender<Message>,
    scope: Scope,
}

impl JobContext {
    pub(super) fn new(number: u64, shared: Arc<Pool>, post: Sender<Message>, scope: Scope) -> JobContext {
        JobContext { number, pool: shared, post, scope }
    }

    /// In which its commands run: closed when nobody waits for the job any more.
    pub(in crate::agent) fn scope(&self) -> Scope {
        self.scope.clone()
    }

    pub(in crate::agent) fn extend_deadline(&self, within: Duration) {
        self.pool.lock().extend_deadline(self.number, within, None);
    }

    /// A command runs, and the job may take this long from now.
    pub(in crate::agent) fn command_started(&self, command: Process, within: Duration) {
        self.pool.lock().extend_deadline(self.number, within, Some(command));
    }

    /// Posts something beside the result, as long as somebody waits for that.
    pub(in crate::agent) fn post(&self, message: Message) {
        if self.pool.lock().is_pending(self.number) {
            let _ = self.post.send(message); // without a loop nobody needs to know
        }
    }
}

/// Posts the message of a job that panics. Its thread ends with it, so that the loop reaps what it has not reaped.
impl Drop for JobContext {
    fn drop(&mut self) {
        if thread::panicking() {
            let waited = self.pool.lock().remove(self.number);
            // Without a loop nobody needs to know.
            waited.into_iter().for_each(|waited| drop(self.post.send((waited.on_failure)(JobFailure::Panicked))));
        }
    }
}

pub(super) struct PendingJob {
    pub(super) since: Instant,
    deadline: Instant,
    pub(super) command: Option<Process>,
    /// It was granted more time because we were late ourselves.
    is_extended: bool,
    pub(super) on_failure: OnFailure,
}

impl PendingJob {
    pub(super) fn new(since: Instant, within: Duration, otherwise: OnFailure) -> PendingJob {
        PendingJob { since, deadline: since + within, command: None, is_extended: false, on_failure: otherwise }
    }
}

struct Task(JobContext, JobFn);

/// The thread that has nothing to do. There is one at most: others end with their jobs.
#[derive(Default)]
enum IdleWorker {
    #[default]
    Absent,
    Waiting,
    /// It is about to begin this.
    Assigned(Task),
}

#[derive(Default)]
pub(super) struct JobTable {
    /// By number. None for those that are not waited for any more.
    jobs: BTreeMap<u64, Option<PendingJob>>,
    /// Of those that are waited for.
    deadlines: BTreeSet<(Instant, u64)>,
    /// Those that have ended since this was asked for last.
    ended: Vec<u64>,
    idle_worker: IdleWorker,
}

impl JobTable {
    pub(super) fn insert(&mut self, number: u64, waited: PendingJob) {
        self.deadlines.insert((waited.deadline, number));
        self.jobs.insert(number, Some(waited));
    }

    /// Takes it out of the jobs at work. What is owed for it, if anybody waits for it.
    pub(super) fn remove(&mut self, number: u64) -> Option<PendingJob> {
        let waited = self.jobs.remove(&number)?;
        self.ended.push(number);
        let waited = waited?;
        self.deadlines.remove(&(waited.deadline, number));
        Some(waited)
    }

    fn extend_deadline(&mut self, number: u64, within: Duration, command: Option<Process>) {
        let Some(Some(waited)) = self.jobs.get_mut(&number) else { return };
        self.deadlines.remove(&(waited.deadline, number));
        waited.since = clock::monotonic();
        waited.deadline = waited.since + within;
        waited.command = command.or(waited.command);
        self.deadlines.insert((waited.deadline, number));
    }

    fn is_pending(&self, number: u64) -> bool {
        self.jobs.get(&number).is_some_and(Option::is_some)
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.jobs.contains_key(&number)
    }

    /// One whose deadline has passed; it is not waited for any more.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Option<(u64, PendingJob)> {
        while let Some(&(until, number)) = self.deadlines.first()
            && until <= now
        {
            self.deadlines.pop_first();
            let Some(job) = self.jobs.get_mut(&number) else { continue };
            match job {
                Some(waited) if !waited.is_extended && now.duration_since(until) > LATE_CHECK => {
                    waited.is_extended = true;
                    waited.deadline = now + EXTENSION;
                    self.deadlines.insert((waited.deadline, number));
                }
                _ => return job.take().map(|waited| (number, waited)),
            }
        }
        None
    }

    pub(super) fn drain_ended(&mut self, to: &mut Vec<u64>) {
        to.append(&mut self.ended);
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }
}

#[derive(Default)]
pub(super) struct Pool {
    table: Mutex<JobTable>,
    assigned: Condvar,
}

impl Pool {
    pub(super) fn lock(&self) -> MutexGuard<'_, JobTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a thread begin this job: the parked one, or a new one while that is busy.
    pub(super) fn execute(&self, work: JobContext, run: JobFn) -> io::Result<()> {
        let task = Task(work, run);
        let mut at_work = self.lock();
        if let IdleWorker::Waiting = at_work.idle_worker {
            at_work.idle_worker = IdleWorker::Assigned(task);
            drop(at_work);
            self.assigned.notify_one();
            return Ok(());
        }
        drop(at_work);
        thread::Builder::new().name("worker".into()).stack_size(STACK).spawn(|| run_worker(task)).map(drop)
    }

    /// Waits for the next job. It waits as long as the process lives.
    fn next_task(&self) -> Option<Task> {
        let waits = |at_work: &mut JobTable| matches!(at_work.idle_worker, IdleWorker::Waiting);
        let mut at_work = self.assigned.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        match mem::take(&mut at_work.idle_worker) {
            IdleWorker::Assigned(task) => Some(task),
            IdleWorker::Absent | IdleWorker::Waiting => None,
        }
    }
}

fn run_worker(first: Task) {
    let mut next = Some(first);
    while let Some(Task(work, run)) = next {
        let message = run(&work);
        let shared = Arc::clone(&work.pool);
        let mut at_work = shared.lock();
        let waited = at_work.remove(work.number);
        // Before the message is posted: whoever hears of it may have the next job for this very thread.
        let is_parked = matches!(at_work.idle_worker, IdleWorker::Absent);
        if is_parked {
            at_work.idle_worker = IdleWorker::Waiting;
        }
        drop(at_work);
        if waited.is_some() {
            let _ = work.post.send(message); // without a loop nobody needs to know
        }
        drop(work);
        next = if is_parked { shared.next_task() } else { None };
    }
}

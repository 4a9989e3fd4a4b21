//! The worker threads: which jobs they run, the deadline of each job, and the one idle thread that waits for the next.
//! The loop and all workers share this state, so nothing that can take time may be done under its lock.

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

/// Probes need the most of all jobs.
pub(super) const STACK: usize = probe::PROBE_STACK;
/// If a deadline is noticed this late, the whole process was stopped or busy, and the job perhaps made no progress.
const LATE_CHECK: Duration = Duration::from_secs(5);
/// The additional time that such a job gets, once.
const EXTENSION: Duration = Duration::from_secs(30);

pub(super) type JobFn = Box<dyn FnOnce(&JobContext) -> Message + Send>;

/// What a running job may use. If the job panics, dropping this posts its failure.
pub(in crate::agent) struct JobContext {
    number: u64,
    pool: Arc<Pool>,
    post: Sender<Message>,
    scope: Scope,
}

impl JobContext {
    pub(super) fn new(number: u64, pool: Arc<Pool>, post: Sender<Message>, scope: Scope) -> JobContext {
        JobContext { number, pool, post, scope }
    }

    /// The scope for the job's commands; it is closed when the job is abandoned.
    pub(in crate::agent) fn scope(&self) -> Scope {
        self.scope.clone()
    }

    pub(in crate::agent) fn extend_deadline(&self, timeout: Duration) {
        self.pool.lock().extend_deadline(self.number, timeout, None);
    }

    /// Notes that a command runs, and lets the job take this long from now.
    pub(in crate::agent) fn command_started(&self, command: Process, timeout: Duration) {
        self.pool.lock().extend_deadline(self.number, timeout, Some(command));
    }

    /// Posts a message before the job's result, unless the job was abandoned.
    pub(in crate::agent) fn post(&self, message: Message) {
        if self.pool.lock().is_pending(self.number) {
            let _ = self.post.send(message); // fails only if the loop has ended
        }
    }
}

/// A job that panics takes its thread with it; the loop then reaps the children that the thread has not reaped.
impl Drop for JobContext {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let pending = self.pool.lock().remove(self.number);
        if let Some(pending) = pending {
            let _ = self.post.send((pending.on_failure)(JobFailure::Panicked)); // fails only if the loop has ended
        }
    }
}

/// A job whose result is still awaited.
pub(super) struct PendingJob {
    /// When it started, or last extended its deadline.
    pub(super) since: Instant,
    deadline: Instant,
    pub(super) command: Option<Process>,
    /// Whether it got [`EXTENSION`].
    is_extended: bool,
    pub(super) on_failure: OnFailure,
}

impl PendingJob {
    pub(super) fn new(since: Instant, timeout: Duration, on_failure: OnFailure) -> PendingJob {
        PendingJob { since, deadline: since + timeout, command: None, is_extended: false, on_failure }
    }
}

struct Task(JobContext, JobFn);

/// There is at most one idle thread: the others end with their jobs.
#[derive(Default)]
enum IdleWorker {
    #[default]
    Absent,
    Waiting,
    /// The thread has not picked up the task yet.
    Assigned(Task),
}

#[derive(Default)]
pub(super) struct JobTable {
    /// By number: all jobs that have not ended. `None` for an abandoned one.
    jobs: BTreeMap<u64, Option<PendingJob>>,
    /// Of the pending jobs.
    deadlines: BTreeSet<(Instant, u64)>,
    /// Jobs that have ended since the last [`JobTable::drain_ended`].
    ended: Vec<u64>,
    idle_worker: IdleWorker,
}

impl JobTable {
    pub(super) fn insert(&mut self, number: u64, job: PendingJob) {
        self.deadlines.insert((job.deadline, number));
        self.jobs.insert(number, Some(job));
    }

    /// Notes that the job has ended. Returns it if its result is still awaited.
    pub(super) fn remove(&mut self, number: u64) -> Option<PendingJob> {
        let job = self.jobs.remove(&number)?;
        self.ended.push(number);
        let job = job?;
        self.deadlines.remove(&(job.deadline, number));
        Some(job)
    }

    fn extend_deadline(&mut self, number: u64, timeout: Duration, command: Option<Process>) {
        let Some(Some(job)) = self.jobs.get_mut(&number) else { return };
        self.deadlines.remove(&(job.deadline, number));
        job.since = clock::monotonic();
        job.deadline = job.since + timeout;
        job.command = command.or(job.command);
        self.deadlines.insert((job.deadline, number));
    }

    fn is_pending(&self, number: u64) -> bool {
        self.jobs.get(&number).is_some_and(Option::is_some)
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.jobs.contains_key(&number)
    }

    /// Takes one pending job whose deadline has passed; from then on its result is ignored.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Option<(u64, PendingJob)> {
        while let Some(&(deadline, number)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            let Some(entry) = self.jobs.get_mut(&number) else { continue };
            match entry {
                Some(job) if !job.is_extended && now.duration_since(deadline) > LATE_CHECK => {
                    job.is_extended = true;
                    job.deadline = now + EXTENSION;
                    self.deadlines.insert((job.deadline, number));
                }
                _ => return entry.take().map(|job| (number, job)),
            }
        }
        None
    }

    pub(super) fn drain_ended(&mut self, to: &mut Vec<u64>) {
        to.append(&mut self.ended);
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}

#[derive(Default)]
pub(super) struct Pool {
    table: Mutex<JobTable>,
    /// Wakes the idle thread.
    assigned: Condvar,
}

impl Pool {
    pub(super) fn lock(&self) -> MutexGuard<'_, JobTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Assigns the job to the idle thread, or starts a new thread for it.
    pub(super) fn execute(&self, context: JobContext, run: JobFn) -> io::Result<()> {
        let task = Task(context, run);
        let mut table = self.lock();
        if let IdleWorker::Waiting = table.idle_worker {
            table.idle_worker = IdleWorker::Assigned(task);
            drop(table);
            self.assigned.notify_one();
            return Ok(());
        }
        drop(table);
        thread::Builder::new().name("worker".into()).stack_size(STACK).spawn(|| run_worker(task)).map(drop)
    }

    /// Blocks the idle thread until a task is assigned to it, if need be for as long as the process lives.
    fn next_task(&self) -> Option<Task> {
        let is_waiting = |table: &mut JobTable| matches!(table.idle_worker, IdleWorker::Waiting);
        let mut table = self.assigned.wait_while(self.lock(), is_waiting).unwrap_or_else(PoisonError::into_inner);
        match mem::take(&mut table.idle_worker) {
            IdleWorker::Assigned(task) => Some(task),
            IdleWorker::Absent | IdleWorker::Waiting => None,
        }
    }
}

fn run_worker(first: Task) {
    let mut next = Some(first);
    while let Some(Task(context, run)) = next {
        let message = run(&context);
        let pool = Arc::clone(&context.pool);
        let mut table = pool.lock();
        let pending = table.remove(context.number);
        // Marked idle before the message is posted: its receiver may at once spawn the next job for this thread.
        let is_idle = matches!(table.idle_worker, IdleWorker::Absent);
        if is_idle {
            table.idle_worker = IdleWorker::Waiting;
        }
        drop(table);
        if pending.is_some() {
            let _ = context.post.send(message); // fails only if the loop has ended
        }
        drop(context);
        next = if is_idle { pool.next_task() } else { None };
    }
}

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

use super::{JobFailure, Otherwise};

/// What a probe wants; the other jobs want less.
pub(super) const STACK: usize = probe::STACK;
/// A deadline that is noticed so late was not kept by us, who were stopped or busy: the job was, perhaps, too.
const NOTICED_LATE: Duration = Duration::from_secs(5);
/// What it gets then, once.
const AGAIN: Duration = Duration::from_secs(30);

pub(super) type Run = Box<dyn FnOnce(&Work) -> Message + Send>;

/// A job at work, as its own thread has it. Whatever way it ends, its message is posted.
pub(in crate::agent) struct Work {
    number: u64,
    shared: Arc<Shared>,
    post: Sender<Message>,
    scope: Scope,
}

impl Work {
    pub(super) fn new(number: u64, shared: Arc<Shared>, post: Sender<Message>, scope: Scope) -> Work {
        Work { number, shared, post, scope }
    }

    /// In which its commands run: closed when nobody waits for the job any more.
    pub(in crate::agent) fn scope(&self) -> Scope {
        self.scope.clone()
    }

    pub(in crate::agent) fn goes_on(&self, within: Duration) {
        self.shared.lock().goes_on(self.number, within, None);
    }

    /// A command runs, and the job may take this long from now.
    pub(in crate::agent) fn runs(&self, command: Process, within: Duration) {
        self.shared.lock().goes_on(self.number, within, Some(command));
    }

    /// Posts something beside the result, as long as somebody waits for that.
    pub(in crate::agent) fn tell(&self, message: Message) {
        if self.shared.lock().is_waited_for(self.number) {
            let _ = self.post.send(message); // without a loop nobody needs to know
        }
    }
}

/// Posts the message of a job that panics. Its thread ends with it, so that the loop reaps what it has not reaped.
impl Drop for Work {
    fn drop(&mut self) {
        if thread::panicking() {
            let waited = self.shared.lock().end(self.number);
            // Without a loop nobody needs to know.
            waited.into_iter().for_each(|waited| drop(self.post.send((waited.otherwise)(JobFailure::Bug))));
        }
    }
}

pub(super) struct Waited {
    pub(super) since: Instant,
    until: Instant,
    pub(super) command: Option<Process>,
    /// It was granted more time because we were late ourselves.
    is_granted: bool,
    pub(super) otherwise: Otherwise,
}

impl Waited {
    pub(super) fn new(since: Instant, within: Duration, otherwise: Otherwise) -> Waited {
        Waited { since, until: since + within, command: None, is_granted: false, otherwise }
    }
}

struct Task(Work, Run);

/// The thread that has nothing to do. There is one at most: others end with their jobs.
#[derive(Default)]
enum Parked {
    #[default]
    Nobody,
    Waits,
    /// It is about to begin this.
    Given(Task),
}

#[derive(Default)]
pub(super) struct RunningJobs {
    /// By number. None for those that are not waited for any more.
    jobs: BTreeMap<u64, Option<Waited>>,
    /// Of those that are waited for.
    deadlines: BTreeSet<(Instant, u64)>,
    /// Those that have ended since this was asked for last.
    ended: Vec<u64>,
    parked: Parked,
}

impl RunningJobs {
    pub(super) fn begin(&mut self, number: u64, waited: Waited) {
        self.deadlines.insert((waited.until, number));
        self.jobs.insert(number, Some(waited));
    }

    /// Takes it out of the jobs at work. What is owed for it, if anybody waits for it.
    pub(super) fn end(&mut self, number: u64) -> Option<Waited> {
        let waited = self.jobs.remove(&number)?;
        self.ended.push(number);
        let waited = waited?;
        self.deadlines.remove(&(waited.until, number));
        Some(waited)
    }

    fn goes_on(&mut self, number: u64, within: Duration, command: Option<Process>) {
        let Some(Some(waited)) = self.jobs.get_mut(&number) else { return };
        self.deadlines.remove(&(waited.until, number));
        waited.since = clock::monotonic();
        waited.until = waited.since + within;
        waited.command = command.or(waited.command);
        self.deadlines.insert((waited.until, number));
    }

    fn is_waited_for(&self, number: u64) -> bool {
        self.jobs.get(&number).is_some_and(Option::is_some)
    }

    pub(super) fn has(&self, number: u64) -> bool {
        self.jobs.contains_key(&number)
    }

    /// One whose deadline has passed; it is not waited for any more.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<(u64, Waited)> {
        while let Some(&(until, number)) = self.deadlines.first()
            && until <= now
        {
            self.deadlines.pop_first();
            let Some(job) = self.jobs.get_mut(&number) else { continue };
            match job {
                Some(waited) if !waited.is_granted && now.duration_since(until) > NOTICED_LATE => {
                    waited.is_granted = true;
                    waited.until = now + AGAIN;
                    self.deadlines.insert((waited.until, number));
                }
                _ => return job.take().map(|waited| (number, waited)),
            }
        }
        None
    }

    pub(super) fn move_ended(&mut self, to: &mut Vec<u64>) {
        to.append(&mut self.ended);
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }
}

#[derive(Default)]
pub(super) struct Shared {
    at_work: Mutex<RunningJobs>,
    given: Condvar,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, RunningJobs> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a thread begin this job: the parked one, or a new one while that is busy.
    pub(super) fn give(&self, work: Work, run: Run) -> io::Result<()> {
        let task = Task(work, run);
        let mut at_work = self.lock();
        if let Parked::Waits = at_work.parked {
            at_work.parked = Parked::Given(task);
            drop(at_work);
            self.given.notify_one();
            return Ok(());
        }
        drop(at_work);
        thread::Builder::new().name("worker".into()).stack_size(STACK).spawn(|| work_off(task)).map(drop)
    }

    /// Waits for the next job. It waits as long as the process lives.
    fn next(&self) -> Option<Task> {
        let waits = |at_work: &mut RunningJobs| matches!(at_work.parked, Parked::Waits);
        let mut at_work = self.given.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        match mem::take(&mut at_work.parked) {
            Parked::Given(task) => Some(task),
            Parked::Nobody | Parked::Waits => None,
        }
    }
}

fn work_off(first: Task) {
    let mut next = Some(first);
    while let Some(Task(work, run)) = next {
        let message = run(&work);
        let shared = Arc::clone(&work.shared);
        let mut at_work = shared.lock();
        let waited = at_work.end(work.number);
        // Before the message is posted: whoever hears of it may have the next job for this very thread.
        let is_parked = matches!(at_work.parked, Parked::Nobody);
        if is_parked {
            at_work.parked = Parked::Waits;
        }
        drop(at_work);
        if waited.is_some() {
            let _ = work.post.send(message); // without a loop nobody needs to know
        }
        drop(work);
        next = if is_parked { shared.next() } else { None };
    }
}

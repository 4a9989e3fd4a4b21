//! How a job is run: on a short-lived thread with a deadline, which posts exactly one message, whatever way it ends.
//! A job that hangs in the system, as on a file server that is gone, must hold up nothing but its own thread: nobody
//! waits for it after its deadline, nothing that it may still find is heeded, and no second one is begun beside it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock;
use crate::command::{self, Scope};
use crate::outcome::in_words;
use crate::probe;
use crate::process::Process;
use crate::time::Span;

use super::Message;

/// What a probe wants; the other jobs want less.
const STACK: usize = probe::STACK;
/// A deadline that is noticed so late was not kept by us, who were stopped or busy: the job was, perhaps, too.
const NOTICED_LATE: Duration = Duration::from_secs(5);
/// What it gets then, once.
const AGAIN: Duration = Duration::from_secs(30);
/// Threads can be had again once none was refused for so long: at a limit, one is refused and the next is not.
const CALM: Duration = Duration::from_secs(60);

/// A job that is to be begun.
pub(super) struct Job {
    /// What it is, in a word or two; its thread is called so.
    pub(super) name: &'static str,
    /// What it is made for, such as a target. Empty where there is one only.
    pub(super) of: String,
    /// By what it is done, where a reload may change that: one that hangs holds up none that is done by something else.
    pub(super) by: String,
    /// For how long it is waited.
    pub(super) within: Duration,
    /// Whether what it runs may go on when we end. Probes and questions are of use to nobody then.
    pub(super) outlives_us: bool,
    /// What is posted where it comes to nothing.
    pub(super) otherwise: Otherwise,
}

/// Makes a message of why a job came to nothing.
pub(super) type Otherwise = Box<dyn FnOnce(Failed) -> Message + Send>;

/// Why a job came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// There is no thread for it, for this reason.
    NoThread(String),
    /// A bug in the watchdog.
    Bug,
    /// Its deadline passed; whether its command runs, as far as it has one.
    Late { after: Duration, is_running: bool },
    /// The one before it hangs still.
    Hanging,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::NoThread(why) => write!(f, "there is no thread for it: {why}"),
            Failed::Bug => f.write_str("a bug in the watchdog"),
            Failed::Late { after, .. } => write!(f, "the system gave no answer in {}", Span(*after)),
            Failed::Hanging => f.write_str("the system still gives no answer to the one before it"),
        }
    }
}

/// What a job at work shares with the loop.
pub(super) struct Work {
    post: Sender<Message>,
    /// Gone once the job's message is posted, by whoever was the first.
    otherwise: Mutex<Option<Otherwise>>,
    progress: Mutex<Progress>,
    scope: Scope,
}

struct Progress {
    /// The latest sign of life.
    since: Instant,
    until: Instant,
    /// The command that was started last.
    command: Option<Process>,
    /// It was granted more time because we were late ourselves.
    is_granted: bool,
}

impl Work {
    /// In which its commands run: closed when nobody waits for the job any more.
    pub(super) fn scope(&self) -> Scope {
        self.scope.clone()
    }

    /// It goes on, and may take this long from now.
    pub(super) fn goes_on(&self, within: Duration) {
        let mut progress = self.progress();
        progress.since = clock::monotonic();
        progress.until = progress.since + within;
    }

    /// A command runs, and the job may take this long from now.
    pub(super) fn runs(&self, command: Process, within: Duration) {
        self.goes_on(within);
        self.progress().command = Some(command);
    }

    /// Posts something beside the result, as long as somebody waits for that.
    pub(super) fn tell(&self, message: Message) {
        if self.promise().is_some() {
            let _ = self.post.send(message); // without a loop nobody needs to know
        }
    }

    /// Posts the one message, unless that was done.
    fn settle(&self, message: impl FnOnce(Otherwise) -> Message) -> bool {
        let Some(otherwise) = self.promise().take() else { return false };
        // The loop is gone: nobody waits for the report.
        let _ = self.post.send(message(otherwise));
        true
    }

    fn fail(&self, why: Failed) -> bool {
        self.settle(|otherwise| otherwise(why))
    }

    fn promise(&self) -> std::sync::MutexGuard<'_, Option<Otherwise>> {
        self.otherwise.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by the thread of a job: whatever way it ends, the message is posted.
struct Thread {
    work: Arc<Work>,
    is_over: Arc<AtomicBool>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.work.fail(Failed::Bug);
        self.is_over.store(true, Ordering::SeqCst);
    }
}

/// A job that the loop knows of.
struct Running {
    name: &'static str,
    of: String,
    by: String,
    outlives_us: bool,
    work: Arc<Work>,
    is_over: Arc<AtomicBool>,
    /// Nobody waits for it any more.
    is_given_up: bool,
}

impl Running {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Nobody waits for it any more, if its deadline has passed.
    fn give_up_if_late(&mut self, now: Instant) {
        if self.is_given_up || self.is_over() {
            return;
        }
        let mut progress = self.work.progress();
        if now < progress.until {
            return;
        }
        if !progress.is_granted && now.duration_since(progress.until) > NOTICED_LATE {
            progress.is_granted = true;
            progress.until = now + AGAIN;
            return;
        }
        let (after, command) = (now.duration_since(progress.since), progress.command);
        drop(progress);
        self.is_given_up = true;
        // First: what has not begun by now must not begin once the next job has its turn.
        self.work.scope.close();
        if self.work.fail(Failed::Late { after, is_running: command.is_some() }) {
            let (what, after) = (self.words(), Span(after));
            log::warn!("{what} gives no answer after {after} and is not waited for any more");
        }
        if let Some(command) = command {
            // Its own thread hangs, in the output perhaps. Where there is no thread for this either, it lives on.
            let end = move || command::adopt(command, Duration::ZERO);
            let _ = thread::Builder::new().name(self.name.into()).stack_size(STACK).spawn(end);
        }
    }

    fn words(&self) -> String {
        if self.of.is_empty() { format!("the {}", self.name) } else { format!("the {} of {}", self.name, self.of) }
    }
}

/// The jobs that are under way.
pub(super) struct Jobs {
    post: Sender<Message>,
    running: Vec<Running>,
    /// When a thread was refused last, until that is over.
    refused: Option<Instant>,
}

impl Jobs {
    pub(super) fn new(post: Sender<Message>) -> Jobs {
        Jobs { post, running: Vec::new(), refused: None }
    }

    /// Runs `work` on a thread of its own and posts what it returns, or `otherwise` where it comes to nothing.
    pub(super) fn spawn(&mut self, job: Job, work: impl FnOnce(&Work) -> Message + Send + 'static) {
        let Job { name, of, by, within, outlives_us, otherwise } = job;
        let now = clock::monotonic();
        let progress = Progress { since: now, until: now + within, command: None, is_granted: false };
        let shared = Arc::new(Work {
            post: self.post.clone(),
            otherwise: Mutex::new(Some(otherwise)),
            progress: Mutex::new(progress),
            scope: Scope::default(),
        });
        if self.hangs(name, &of, &by) {
            shared.fail(Failed::Hanging);
            return;
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let (theirs, flag) = (Arc::clone(&shared), Arc::clone(&is_over));
        let body = move || {
            let thread = Thread { work: theirs, is_over: flag };
            let message = work(&thread.work);
            thread.work.settle(|_| message);
        };
        match thread::Builder::new().name(name.into()).stack_size(STACK).spawn(body) {
            Ok(_) => {
                self.running.push(Running { name, of, by, outlives_us, work: shared, is_over, is_given_up: false })
            }
            Err(error) => {
                if self.refused.replace(now).is_none() {
                    log::warn!("no thread for a {name}: {error} (what cannot be found out is unknown)");
                }
                shared.fail(Failed::NoThread(in_words(&error)));
            }
        }
    }

    /// Whether this very job is not waited for any more and has not ended either.
    pub(super) fn hangs(&self, name: &str, of: &str, by: &str) -> bool {
        let is_it = |one: &Running| (one.name, one.of.as_str(), one.by.as_str()) == (name, of, by);
        self.running.iter().any(|one| one.is_given_up && !one.is_over() && is_it(one))
    }

    /// Gives up the jobs whose deadline has passed, and forgets those that are over.
    pub(super) fn keep_up(&mut self) {
        self.keep_up_at(clock::monotonic());
    }

    fn keep_up_at(&mut self, now: Instant) {
        self.running.iter_mut().for_each(|one| one.give_up_if_late(now));
        // What a command has left running is of its scope still.
        for over in self.running.extract_if(.., |one| one.is_over() && one.work.scope.is_empty()) {
            if over.is_given_up {
                log::info!("{} that was not waited for any more has ended", over.words());
            }
        }
        if self.refused.is_some_and(|at| now.duration_since(at) >= CALM) {
            self.refused = None;
            log::info!("threads can be had again");
        }
    }

    /// How long until the next deadline.
    pub(super) fn pause(&self) -> Option<Duration> {
        let now = clock::monotonic();
        let waited_for = self.running.iter().filter(|one| !one.is_given_up && !one.is_over());
        waited_for.map(|one| one.work.progress().until.saturating_duration_since(now)).min()
    }

    /// The scopes of what must not outlive us.
    pub(super) fn scopes(&self) -> impl Iterator<Item = &Scope> {
        self.running.iter().filter(|one| !one.outlives_us).map(|one| &one.work.scope)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const AMPLE: Duration = Duration::from_secs(60);

    fn job(within: Duration) -> Job {
        let otherwise: Otherwise = Box::new(|why| Message::Published(Some(why.to_string())));
        Job { name: "test", of: "it".into(), by: String::new(), within, outlives_us: false, otherwise }
    }

    /// What a job has posted.
    #[track_caller]
    fn posted(arrived: &Receiver<Message>) -> Option<String> {
        match arrived.recv_timeout(AMPLE) {
            Ok(Message::Published(said)) => said,
            _ => panic!("something else was posted, or nothing"),
        }
    }

    fn said(text: &str) -> Message {
        Message::Published(Some(text.into()))
    }

    #[test]
    fn whatever_way_it_ends_a_job_posts_one_message() {
        let (post, arrived) = channel();
        let mut jobs = Jobs::new(post);
        jobs.spawn(job(AMPLE), |_| said("done"));
        assert_eq!(posted(&arrived).as_deref(), Some("done"));
        jobs.spawn(job(AMPLE), |_| panic!("on purpose"));
        assert_eq!(posted(&arrived).as_deref(), Some("a bug in the watchdog"));
        while !jobs.running.is_empty() {
            jobs.keep_up();
            thread::yield_now();
        }
        assert!(arrived.try_recv().is_err());
    }

    #[test]
    fn one_that_hangs_is_not_waited_for_nor_doubled_nor_heeded_later() {
        let (post, arrived) = channel();
        let mut jobs = Jobs::new(post);
        let (release, hold) = channel::<()>();
        let (found, later) = channel();
        jobs.spawn(job(Duration::from_secs(10)), move |work| {
            let _ = hold.recv();
            work.tell(said("too late"));
            found.send(work.scope().is_closed()).expect("the test waits for it");
            said("later still")
        });
        let now = clock::monotonic();
        jobs.keep_up_at(now);
        assert!(arrived.try_recv().is_err() && jobs.pause().is_some_and(|pause| pause <= Duration::from_secs(10)));

        jobs.keep_up_at(now + Duration::from_secs(11));
        assert_eq!(posted(&arrived).as_deref(), Some("the system gave no answer in 11 s"));
        assert_eq!(jobs.pause(), None);
        jobs.spawn(job(AMPLE), |_| said("beside it"));
        assert_eq!(posted(&arrived).as_deref(), Some("the system still gives no answer to the one before it"));
        let other = Job { of: "another".into(), ..job(AMPLE) };
        jobs.spawn(other, |_| said("of another"));
        assert_eq!(posted(&arrived).as_deref(), Some("of another"));
        let replacement = Job { by: "what replaces it".into(), ..job(AMPLE) };
        jobs.spawn(replacement, |_| said("by another"));
        assert_eq!(posted(&arrived).as_deref(), Some("by another"));

        drop(release);
        assert_eq!(later.recv(), Ok(true), "its commands do not begin any more");
        while !jobs.running.is_empty() {
            jobs.keep_up();
            thread::yield_now();
        }
        assert!(arrived.try_recv().is_err(), "nothing of it is heeded");
        jobs.spawn(job(AMPLE), |_| said("again"));
        assert_eq!(posted(&arrived).as_deref(), Some("again"));
    }

    #[test]
    fn a_sign_of_life_and_our_own_absence_grant_more_time() {
        let (post, arrived) = channel();
        let mut jobs = Jobs::new(post);
        let (release, hold) = channel::<()>();
        let (began, has_begun) = channel();
        jobs.spawn(job(Duration::from_secs(10)), move |work| {
            work.goes_on(Duration::from_secs(100));
            began.send(()).expect("the test waits for it");
            let _ = hold.recv();
            said("done")
        });
        has_begun.recv().expect("it begins");
        let at = |seconds| clock::monotonic() + Duration::from_secs(seconds);
        jobs.keep_up_at(at(90));
        assert!(arrived.try_recv().is_err(), "it goes on");
        // A day later by this clock: it was we who were stopped.
        jobs.keep_up_at(at(86_400));
        assert!(arrived.try_recv().is_err(), "it may have been stopped, too");
        jobs.keep_up_at(at(86_400 + 31));
        assert!(posted(&arrived).is_some_and(|said| said.starts_with("the system gave no answer in ")));
        drop(release);
    }
}

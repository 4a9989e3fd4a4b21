//! Jobs as the loop sees them: one message each, and one thread for all unless one hangs.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, channel};
use std::thread::ThreadId;

use super::*;

const AMPLE: Duration = Duration::from_secs(60);

fn job(within: Duration) -> JobSpec {
    let otherwise: OnFailure = Box::new(|why| Message::Published(Some(why.to_string())));
    JobSpec {
        name: "test",
        subject: "it".into(),
        variant: String::new(),
        timeout: within,
        outlives_watchdog: false,
        on_failure: otherwise,
    }
}

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
        jobs.check_deadlines();
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
        work.post(said("too late"));
        found.send(work.scope().is_closed()).expect("the test waits for it");
        said("later still")
    });
    let now = clock::monotonic();
    jobs.check_deadlines_at(now);
    assert!(arrived.try_recv().is_err() && jobs.until_deadline().is_some_and(|pause| pause <= Duration::from_secs(10)));

    jobs.check_deadlines_at(now + Duration::from_secs(11));
    assert_eq!(posted(&arrived).as_deref(), Some("the system gave no answer in 11 s"));
    assert_eq!(jobs.until_deadline(), None);
    jobs.spawn(job(AMPLE), |_| said("beside it"));
    assert_eq!(posted(&arrived).as_deref(), Some("the system still gives no answer to the one before it"));
    let other = JobSpec { subject: "another".into(), ..job(AMPLE) };
    jobs.spawn(other, |_| said("of another"));
    assert_eq!(posted(&arrived).as_deref(), Some("of another"));
    let replacement = JobSpec { variant: "what replaces it".into(), ..job(AMPLE) };
    jobs.spawn(replacement, |_| said("by another"));
    assert_eq!(posted(&arrived).as_deref(), Some("by another"));

    drop(release);
    assert_eq!(later.recv(), Ok(true), "its commands do not begin any more");
    while !jobs.running.is_empty() {
        jobs.check_deadlines();
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
        work.extend_deadline(Duration::from_secs(100));
        began.send(()).expect("the test waits for it");
        let _ = hold.recv();
        said("done")
    });
    has_begun.recv().expect("it begins");
    let at = |seconds| clock::monotonic() + Duration::from_secs(seconds);
    jobs.check_deadlines_at(at(90));
    assert!(arrived.try_recv().is_err(), "it goes on");
    // A day later by this clock: it was we who were stopped.
    jobs.check_deadlines_at(at(86_400));
    assert!(arrived.try_recv().is_err(), "it may have been stopped, too");
    jobs.check_deadlines_at(at(86_400 + 31));
    assert!(posted(&arrived).is_some_and(|said| said.starts_with("the system gave no answer in ")));
    drop(release);
}

/// Told of the end of a thread, by the drop of what the thread has.
struct Gone(Sender<()>);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.send(()); // nobody may wait for it
    }
}

thread_local!(static GONE: RefCell<Option<Gone>> = const { RefCell::new(None) });

/// A job that says on which thread it is run, whose end is told, once `hold` lets it go on.
fn on_thread(
    gone: &Sender<()>,
    began: &Sender<ThreadId>,
    hold: Option<Receiver<()>>,
) -> impl FnOnce(&JobContext) -> Message + Send + 'static {
    let (gone, began) = (Gone(gone.clone()), began.clone());
    move |_| {
        GONE.set(Some(gone));
        began.send(thread::current().id()).expect("the test waits for it");
        let _ = hold.map(|hold| hold.recv());
        said("done")
    }
}

#[test]
fn one_thread_serves_all_jobs_unless_it_is_busy() {
    let (post, arrived) = channel();
    let (mut jobs, (gone, ended), (began, has_begun)) = (Jobs::new(post), channel(), channel());
    let next = || has_begun.recv_timeout(AMPLE).expect("it begins");
    let mut threads = BTreeSet::new();
    for _ in 0..100 {
        // None has to wait until the one before it is forgotten: that it has ended is enough.
        jobs.spawn(job(AMPLE), on_thread(&gone, &began, None));
        threads.insert(format!("{:?}", next()));
        assert_eq!(posted(&arrived).as_deref(), Some("done"));
    }
    assert_eq!(threads.len(), 1, "{threads:?}");

    let (release, hold) = channel();
    jobs.spawn(job(Duration::from_secs(10)), on_thread(&gone, &began, Some(hold)));
    let busy = next();
    jobs.check_deadlines_at(clock::monotonic() + Duration::from_secs(11));
    assert_eq!(posted(&arrived).as_deref(), Some("the system gave no answer in 11 s"));
    let other = || JobSpec { subject: "another".into(), ..job(AMPLE) };
    jobs.spawn(other(), on_thread(&gone, &began, None));
    let second = next();
    assert_ne!(second, busy, "one that hangs keeps its thread");
    assert_eq!(posted(&arrived).as_deref(), Some("done"));
    jobs.spawn(other(), on_thread(&gone, &began, None));
    assert_eq!(next(), second, "which stays, in place of the other");
    assert_eq!(posted(&arrived).as_deref(), Some("done"));

    while ended.try_recv().is_ok() {} // what each job has put in the place of what the one before it had put there
    drop(release);
    ended.recv_timeout(AMPLE).expect("one thread that waits is enough");
    jobs.spawn(other(), on_thread(&gone, &began, None));
    assert_eq!(next(), second);
}

#[test]
fn a_panic_ends_its_thread_and_the_next_job_has_another() {
    let (post, arrived) = channel();
    let (mut jobs, (gone, _ended), (began, has_begun)) = (Jobs::new(post), channel(), channel());
    jobs.spawn(job(AMPLE), on_thread(&gone, &began, None));
    assert_eq!(posted(&arrived).as_deref(), Some("done"));
    jobs.spawn(job(AMPLE), |_| panic!("on purpose"));
    assert_eq!(posted(&arrived).as_deref(), Some("a bug in the watchdog"));
    jobs.spawn(job(AMPLE), on_thread(&gone, &began, None));
    assert_eq!(posted(&arrived).as_deref(), Some("done"));
    assert_ne!(has_begun.recv().expect("the first"), has_begun.recv().expect("the third"));
}

#[test]
fn the_next_deadline_is_the_earliest_of_those_waited_for_whichever_way_it_moves() {
    let (post, arrived) = channel();
    let mut jobs = Jobs::new(post);
    let seconds = Duration::from_secs;
    let (moved, has_moved) = channel();
    let mut holds = Vec::new();
    for (of, first, then) in [("a", 50, 20), ("b", 10, 100), ("c", 30, 40)] {
        let (release, hold) = channel::<()>();
        holds.push(release);
        let moved = moved.clone();
        jobs.spawn(JobSpec { subject: of.into(), ..job(seconds(first)) }, move |work| {
            work.extend_deadline(seconds(then));
            moved.send(()).expect("the test waits for it");
            let _ = hold.recv();
            said("done")
        });
        has_moved.recv().expect("it moves");
    }
    let within = |jobs: &Jobs, most| {
        jobs.until_deadline().is_some_and(|pause| pause <= seconds(most) && pause > seconds(most - 9))
    };
    assert!(within(&jobs, 20), "{:?}", jobs.until_deadline());
    drop(holds.remove(0));
    assert_eq!(posted(&arrived).as_deref(), Some("done"));
    assert!(within(&jobs, 40), "{:?}", jobs.until_deadline());
    drop(holds.remove(1));
    assert_eq!(posted(&arrived).as_deref(), Some("done"));
    assert!(within(&jobs, 100), "{:?}", jobs.until_deadline());
    drop(holds);
    assert_eq!(posted(&arrived).as_deref(), Some("done"));
    assert_eq!(jobs.until_deadline(), None);
}

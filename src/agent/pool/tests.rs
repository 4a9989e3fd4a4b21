//! Jobs as the loop sees them: each posts one message, and one thread serves all unless a job hangs.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, channel};
use std::thread::ThreadId;

use super::*;

const AMPLE: Duration = Duration::from_secs(60);

fn job(timeout: Duration) -> JobSpec {
    JobSpec {
        name: "test",
        subject: "a".into(),
        variant: String::new(),
        timeout,
        outlives_watchdog: false,
        on_failure: Box::new(|why| Message::Published(Some(why.to_string()))),
    }
}

#[track_caller]
fn posted(arrived: &Receiver<Message>) -> Option<String> {
    match arrived.recv_timeout(AMPLE) {
        Ok(Message::Published(text)) => text,
        _ => panic!("expected a Published message"),
    }
}

fn message(text: &str) -> Message {
    Message::Published(Some(text.into()))
}

#[test]
fn a_job_posts_one_message_however_it_ends() {
    let (post, arrived) = channel();
    let mut jobs = Jobs::new(post);
    jobs.spawn(job(AMPLE), |_| message("done"));
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
fn a_hanging_job_is_abandoned_blocks_its_like_and_its_late_result_is_ignored() {
    let (post, arrived) = channel();
    let mut jobs = Jobs::new(post);
    let (release, released) = channel::<()>();
    let (send_closed, scope_was_closed) = channel();
    jobs.spawn(job(Duration::from_secs(10)), move |context| {
        let _ = released.recv();
        context.post(message("too late"));
        send_closed.send(context.scope().is_closed()).expect("the test waits for it");
        message("later still")
    });
    let now = clock::monotonic();
    jobs.check_deadlines_at(now);
    assert!(arrived.try_recv().is_err() && jobs.until_deadline().is_some_and(|left| left <= Duration::from_secs(10)));

    jobs.check_deadlines_at(now + Duration::from_secs(11));
    assert_eq!(posted(&arrived).as_deref(), Some("no result after 11 s"));
    assert_eq!(jobs.until_deadline(), None);
    jobs.spawn(job(AMPLE), |_| message("not run"));
    assert_eq!(posted(&arrived).as_deref(), Some("the previous one still hangs"));
    let other = JobSpec { subject: "b".into(), ..job(AMPLE) };
    jobs.spawn(other, |_| message("other subject"));
    assert_eq!(posted(&arrived).as_deref(), Some("other subject"));
    let replacement = JobSpec { variant: "new".into(), ..job(AMPLE) };
    jobs.spawn(replacement, |_| message("other variant"));
    assert_eq!(posted(&arrived).as_deref(), Some("other variant"));

    drop(release);
    assert_eq!(scope_was_closed.recv(), Ok(true), "it can start no more commands");
    while !jobs.running.is_empty() {
        jobs.check_deadlines();
        thread::yield_now();
    }
    assert!(arrived.try_recv().is_err(), "its messages are ignored");
    jobs.spawn(job(AMPLE), |_| message("again"));
    assert_eq!(posted(&arrived).as_deref(), Some("again"));
}

#[test]
fn a_job_that_extends_its_deadline_and_a_watchdog_that_was_stopped_give_more_time() {
    let (post, arrived) = channel();
    let mut jobs = Jobs::new(post);
    let (release, released) = channel::<()>();
    let (began, has_begun) = channel();
    jobs.spawn(job(Duration::from_secs(10)), move |context| {
        context.extend_deadline(Duration::from_secs(100));
        began.send(()).expect("the test waits for it");
        let _ = released.recv();
        message("done")
    });
    has_begun.recv().expect("it starts");
    let at = |seconds| clock::monotonic() + Duration::from_secs(seconds);
    jobs.check_deadlines_at(at(90));
    assert!(arrived.try_recv().is_err(), "its deadline was extended");
    // A day passes in one step: the watchdog itself was stopped.
    jobs.check_deadlines_at(at(86_400));
    assert!(arrived.try_recv().is_err(), "the job may have been stopped too");
    jobs.check_deadlines_at(at(86_400 + 31));
    assert!(posted(&arrived).is_some_and(|text| text.starts_with("no result after ")));
    drop(release);
}

/// A thread-local value: its drop signals the end of its thread.
struct ThreadEnd(Sender<()>);

impl Drop for ThreadEnd {
    fn drop(&mut self) {
        let _ = self.0.send(()); // the test may not wait for it
    }
}

thread_local!(static THREAD_END: RefCell<Option<ThreadEnd>> = const { RefCell::new(None) });

/// A job that reports its thread's id, waits for `released`, and lets its thread's end be signalled.
fn reporting_job(
    ended: &Sender<()>,
    began: &Sender<ThreadId>,
    released: Option<Receiver<()>>,
) -> impl FnOnce(&JobContext) -> Message + Send + 'static {
    let (thread_end, began) = (ThreadEnd(ended.clone()), began.clone());
    move |_| {
        THREAD_END.set(Some(thread_end));
        began.send(thread::current().id()).expect("the test waits for it");
        let _ = released.map(|released| released.recv());
        message("done")
    }
}

#[test]
fn one_thread_serves_all_jobs_unless_a_job_hangs() {
    let (post, arrived) = channel();
    let (mut jobs, (end, ended), (began, has_begun)) = (Jobs::new(post), channel(), channel());
    let next = || has_begun.recv_timeout(AMPLE).expect("it starts");
    let mut threads = BTreeSet::new();
    for _ in 0..100 {
        // Without check_deadlines: the thread is free as soon as the job before has ended.
        jobs.spawn(job(AMPLE), reporting_job(&end, &began, None));
        threads.insert(format!("{:?}", next()));
        assert_eq!(posted(&arrived).as_deref(), Some("done"));
    }
    assert_eq!(threads.len(), 1, "{threads:?}");

    let (release, released) = channel();
    jobs.spawn(job(Duration::from_secs(10)), reporting_job(&end, &began, Some(released)));
    let busy = next();
    jobs.check_deadlines_at(clock::monotonic() + Duration::from_secs(11));
    assert_eq!(posted(&arrived).as_deref(), Some("no result after 11 s"));
    let other = || JobSpec { subject: "b".into(), ..job(AMPLE) };
    jobs.spawn(other(), reporting_job(&end, &began, None));
    let second = next();
    assert_ne!(second, busy, "a hanging job keeps its thread");
    assert_eq!(posted(&arrived).as_deref(), Some("done"));
    jobs.spawn(other(), reporting_job(&end, &began, None));
    assert_eq!(next(), second, "the second thread is now the idle one");
    assert_eq!(posted(&arrived).as_deref(), Some("done"));

    while ended.try_recv().is_ok() {} // each job replaced the value of the job before it
    drop(release);
    ended.recv_timeout(AMPLE).expect("the pool keeps only one idle thread");
    jobs.spawn(other(), reporting_job(&end, &began, None));
    assert_eq!(next(), second);
}

#[test]
fn a_panic_ends_its_thread_and_the_next_job_gets_another() {
    let (post, arrived) = channel();
    let (mut jobs, (end, _ended), (began, has_begun)) = (Jobs::new(post), channel(), channel());
    jobs.spawn(job(AMPLE), reporting_job(&end, &began, None));
    assert_eq!(posted(&arrived).as_deref(), Some("done"));
    jobs.spawn(job(AMPLE), |_| panic!("on purpose"));
    assert_eq!(posted(&arrived).as_deref(), Some("a bug in the watchdog"));
    jobs.spawn(job(AMPLE), reporting_job(&end, &began, None));
    assert_eq!(posted(&arrived).as_deref(), Some("done"));
    assert_ne!(has_begun.recv().expect("the first"), has_begun.recv().expect("the third"));
}

#[test]
fn the_next_deadline_is_the_earliest_of_the_pending_jobs_after_each_change() {
    let (post, arrived) = channel();
    let mut jobs = Jobs::new(post);
    let seconds = Duration::from_secs;
    let (moved, has_moved) = channel();
    let mut releases = Vec::new();
    for (subject, first, then) in [("a", 50, 20), ("b", 10, 100), ("c", 30, 40)] {
        let (release, released) = channel::<()>();
        releases.push(release);
        let moved = moved.clone();
        jobs.spawn(JobSpec { subject: subject.into(), ..job(seconds(first)) }, move |context| {
            context.extend_deadline(seconds(then));
            moved.send(()).expect("the test waits for it");
            let _ = released.recv();
            message("done")
        });
        has_moved.recv().expect("it extends its deadline");
    }
    let within =
        |jobs: &Jobs, most| jobs.until_deadline().is_some_and(|left| left <= seconds(most) && left > seconds(most - 9));
    assert!(within(&jobs, 20), "{:?}", jobs.until_deadline());
    drop(releases.remove(0));
    assert_eq!(posted(&arrived).as_deref(), Some("done"));
    assert!(within(&jobs, 40), "{:?}", jobs.until_deadline());
    drop(releases.remove(1));
    assert_eq!(posted(&arrived).as_deref(), Some("done"));
    assert!(within(&jobs, 100), "{:?}", jobs.until_deadline());
    drop(releases);
    assert_eq!(posted(&arrived).as_deref(), Some("done"));
    assert_eq!(jobs.until_deadline(), None);
}

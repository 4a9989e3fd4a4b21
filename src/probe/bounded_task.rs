//! Runs what may hang beyond any deadline in a thread of its own: the resolver, a file on a dead server, a child stuck
//! in the kernel. One task must never have two such threads at once, so that hanging threads cannot accumulate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use crate::outcome::describe_io_error;

use super::deadline::Deadline;

#[derive(Debug)]
pub(super) struct BoundedTask {
    /// The thread's name in `/proc`.
    name: &'static str,
    /// In bytes.
    stack: usize,
    busy: Arc<AtomicBool>,
}

#[derive(Debug)]
pub(super) enum TaskError {
    /// The deadline passed; the thread still runs.
    TimedOut,
    /// The thread of an earlier probe still runs, so none was started.
    StillRunning,
    /// No thread could be started, or the work panicked; with the reason.
    Failed(String),
}

/// Held by the thread; clears the flag however the work ends.
struct BusyGuard(Arc<AtomicBool>);

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl BoundedTask {
    pub(super) fn new(name: &'static str, stack: usize) -> Self {
        BoundedTask { name, stack, busy: Arc::default() }
    }

    /// Runs `work` in a thread and waits for its result until the deadline.
    pub(super) fn run<T: Send + 'static>(
        &self,
        deadline: Deadline,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TaskError> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(TaskError::StillRunning);
        }
        let guard = BusyGuard(Arc::clone(&self.busy));
        let (sender, receiver) = mpsc::sync_channel(1);
        let body = move || {
            let result = work();
            // Before the result is sent, so that the next probe cannot find the flag still set.
            drop(guard);
            // Sending fails once the deadline has passed, and then nobody needs the result.
            let _ = sender.send(result);
        };
        let thread = thread::Builder::new().name(self.name.into()).stack_size(self.stack);
        thread
            .spawn(body)
            .map_err(|error| TaskError::Failed(format!("cannot start a thread: {}", describe_io_error(&error))))?;
        match receiver.recv_timeout(deadline.remaining().unwrap_or_default()) {
            Ok(result) => Ok(result),
            Err(RecvTimeoutError::Timeout) => Err(TaskError::TimedOut),
            Err(RecvTimeoutError::Disconnected) => Err(TaskError::Failed("its thread panicked".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_thread_starts_while_the_last_one_hangs() {
        let task = BoundedTask::new("test", 64 << 10);
        let (release, blocked) = mpsc::channel::<()>();
        let hung = task.run(Deadline::after(Duration::from_millis(20)), move || blocked.recv().is_ok());
        assert!(matches!(hung, Err(TaskError::TimedOut)), "{hung:?}");

        let second = task.run(Deadline::after(Duration::from_secs(20)), || true);
        assert!(matches!(second, Err(TaskError::StillRunning)), "{second:?}");

        drop(release);
        let limit = Deadline::after(Duration::from_secs(20));
        while task.busy.load(Ordering::Acquire) && limit.remaining().is_some() {
            thread::yield_now();
        }
        assert!(task.run(Deadline::after(Duration::from_secs(20)), || true).is_ok_and(|result| result));
    }

    #[test]
    fn a_panic_clears_the_busy_flag() {
        let task = BoundedTask::new("test", 256 << 10);
        let panicked = task.run(Deadline::after(Duration::from_secs(20)), || panic!("on purpose"));
        assert!(matches!(&panicked, Err(TaskError::Failed(reason)) if reason == "its thread panicked"), "{panicked:?}");
        assert!(!task.busy.load(Ordering::Acquire));
    }

    #[test]
    fn a_thread_that_cannot_be_started_is_an_error() {
        // No machine has enough address space for such a stack.
        let task = BoundedTask::new("test", 1 << 55);
        let none = task.run(Deadline::after(Duration::from_secs(20)), || true);
        assert!(
            matches!(&none, Err(TaskError::Failed(reason)) if reason.starts_with("cannot start a thread")),
            "{none:?}"
        );
        assert!(!task.busy.load(Ordering::Acquire));
    }
}

//! A thread of its own for what may hang beyond every deadline: the resolver, a file on a dead server, a child in the
//! kernel's hands. It must never have two such threads at once: what hangs must not pile up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use crate::outcome::describe_io_error;

use super::deadline::Deadline;

#[derive(Debug)]
pub(super) struct BoundedTask {
    /// The thread's name, for whoever looks at the process.
    name: &'static str,
    /// Bytes.
    stack: usize,
    busy: Arc<AtomicBool>,
}

#[derive(Debug)]
pub(super) enum TaskError {
    /// The deadline passed; the work goes on by itself.
    Late,
    /// The work from an earlier look still hangs, so none was started.
    Hanging,
    /// Our own trouble, in words: no thread could be made, or the work panicked.
    Ours(String),
}

/// Held by the thread that works; gives the place free in whatever way the work ends.
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

    /// Does `work` in a thread and waits for it until the deadline.
    pub(super) fn run<T: Send + 'static>(
        &self,
        deadline: Deadline,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TaskError> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(TaskError::Hanging);
        }
        let place = BusyGuard(Arc::clone(&self.busy));
        let (result, arrived) = mpsc::sync_channel(1);
        let body = move || {
            let done = work();
            // The place is free before the result is known, or the next look might still find it taken.
            drop(place);
            // Nobody waits any more when the deadline has passed: the result is of no use then.
            let _ = result.send(done);
        };
        let thread = thread::Builder::new().name(self.name.into()).stack_size(self.stack);
        thread
            .spawn(body)
            .map_err(|error| TaskError::Ours(format!("no thread can be started: {}", describe_io_error(&error))))?;
        match arrived.recv_timeout(deadline.left().unwrap_or_default()) {
            Ok(done) => Ok(done),
            Err(RecvTimeoutError::Timeout) => Err(TaskError::Late),
            Err(RecvTimeoutError::Disconnected) => Err(TaskError::Ours("its thread failed".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nothing_is_started_while_the_last_one_hangs() {
        let aside = BoundedTask::new("test", 64 << 10);
        let (release, hold) = mpsc::channel::<()>();
        let hung = aside.run(Deadline::after(Duration::from_millis(20)), move || hold.recv().is_ok());
        assert!(matches!(hung, Err(TaskError::Late)), "{hung:?}");

        let second = aside.run(Deadline::after(Duration::from_secs(20)), || true);
        assert!(matches!(second, Err(TaskError::Hanging)), "{second:?}");

        drop(release);
        let patience = Deadline::after(Duration::from_secs(20));
        while aside.busy.load(Ordering::Acquire) && patience.left().is_some() {
            thread::yield_now();
        }
        assert!(aside.run(Deadline::after(Duration::from_secs(20)), || true).is_ok_and(|done| done));
    }

    #[test]
    fn a_panic_gives_the_place_free() {
        let aside = BoundedTask::new("test", 256 << 10);
        let broken = aside.run(Deadline::after(Duration::from_secs(20)), || panic!("on purpose"));
        assert!(matches!(&broken, Err(TaskError::Ours(trouble)) if trouble == "its thread failed"), "{broken:?}");
        assert!(!aside.busy.load(Ordering::Acquire));
    }

    #[test]
    fn without_a_thread_the_trouble_is_ours() {
        // No machine has that much room for a stack.
        let aside = BoundedTask::new("test", 1 << 55);
        let none = aside.run(Deadline::after(Duration::from_secs(20)), || true);
        assert!(matches!(&none, Err(TaskError::Ours(trouble)) if trouble.starts_with("no thread")), "{none:?}");
        assert!(!aside.busy.load(Ordering::Acquire));
    }
}

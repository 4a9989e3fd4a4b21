//! Commands that must not outlive whoever asked for them. It must never touch what a restart command leaves running:
//! that is mostly the backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::clock;

/// A probe that leaves something behind each time has it ended at its deadline, but no more than so many at a time.
const MOST: usize = 4;
/// What the end of a command may take: SIGTERM, a second, SIGKILL, and a machine that is slow.
const ENDING: Duration = Duration::from_secs(3);
/// Between two checks whether the last command has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// A group of commands that end together with whoever asked for them: a probe, a job, a tick.
#[derive(Clone, Debug, Default)]
pub struct Scope(Arc<Inside>);

#[derive(Debug, Default)]
struct Inside {
    closed: AtomicBool,
    commands: AtomicUsize,
}

impl Scope {
    /// From now on no command is started in it, and those that run are ended: SIGTERM, and SIGKILL a second later.
    /// Returns at once.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
    }

    /// Whether nobody waits for its commands any more.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::SeqCst)
    }

    /// Closes all of these and waits until none of their commands runs any more; 3 s at most, for some may hang in the
    /// kernel.
    pub fn end_all(scopes: &[Scope]) {
        scopes.iter().for_each(Scope::close);
        let began = clock::monotonic();
        while !scopes.iter().all(Scope::is_empty) && clock::monotonic().duration_since(began) < ENDING {
            thread::sleep(PAUSE);
        }
    }

    /// The same for this one.
    pub fn end(&self) {
        Scope::end_all(std::slice::from_ref(self));
    }

    /// Whether nothing of its commands is left that is to be ended.
    pub fn is_empty(&self) -> bool {
        self.0.commands.load(Ordering::SeqCst) == 0
    }

    /// A place for one command; none when it is closed.
    pub(super) fn enter(&self) -> Option<Entry> {
        // Counted first: whoever closes it and then waits sees this command, or this command sees that it is closed.
        self.0.commands.fetch_add(1, Ordering::SeqCst);
        let entry = Entry(self.clone());
        (!self.is_closed()).then_some(entry)
    }
}

/// Held for as long as a command, or what it has left running, must be ended by us.
#[derive(Debug)]
pub(super) struct Entry(Scope);

impl Entry {
    pub(super) fn scope(&self) -> &Scope {
        &self.0
    }

    /// Whether so much is left running already that nothing more may stay until its deadline.
    pub(super) fn is_crowded(&self) -> bool {
        self.0.0.commands.load(Ordering::SeqCst) > MOST
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.0.commands.fetch_sub(1, Ordering::SeqCst);
    }
}

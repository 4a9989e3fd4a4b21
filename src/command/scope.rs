//! Commands that must not outlive whoever asked for them. It must never touch what a restart command leaves running:
//! that is mostly the backend.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::Pid;

use crate::clock;

/// A probe that leaves something behind each time has it ended at its deadline, but no more than so many at a time.
const MOST: usize = 4;
/// What the end of a command may take: SIGTERM, a second, SIGKILL, and a machine that is slow.
const ENDING: Duration = Duration::from_secs(3);
/// Between two checks whether the last command has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// A group of commands that end together with whoever asked for them: a probe, a job, a tick.
#[derive(Clone, Debug, Default)]
pub struct Scope(Arc<ScopeState>);

#[derive(Debug, Default)]
struct ScopeState {
    closed: AtomicBool,
    commands: AtomicUsize,
    groups: Mutex<Vec<Group>>,
}

/// The process group of a command that is there, or of what it has left.
#[derive(Debug)]
struct Group {
    number: Pid,
    /// Whether its command is reaped, so that others may have its number.
    is_reaped: bool,
}

impl Scope {
    /// No command is started in it any more; those that run get SIGTERM, and SIGKILL a second later. Returns at once.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
    }

    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::SeqCst)
    }

    /// Closes all of these, and waits until none of their commands runs any more; for 3 s at most, since some may hang
    /// in the kernel.
    pub fn end_all(scopes: &[Scope]) {
        scopes.iter().for_each(Scope::close);
        let began = clock::monotonic();
        while !scopes.iter().all(Scope::is_empty) && clock::monotonic().duration_since(began) < ENDING {
            thread::sleep(PAUSE);
        }
    }

    pub fn end(&self) {
        Scope::end_all(std::slice::from_ref(self));
    }

    /// Closes all of these and sends SIGKILL to what runs in them, for whoever is to end at once: waits for nothing.
    /// What is being started at this very moment escapes it.
    pub fn kill_all(scopes: &[Scope]) {
        scopes.iter().for_each(Scope::close);
        for scope in scopes {
            // Nothing is reaped meanwhile, so no number is given away.
            scope.groups().iter().for_each(|group| super::kill(group.number, group.is_reaped));
        }
    }

    fn groups(&self) -> MutexGuard<'_, Vec<Group>> {
        self.0.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing of its commands is left that is to be ended.
    pub fn is_empty(&self) -> bool {
        self.0.commands.load(Ordering::SeqCst) == 0
    }

    /// A place for one command; none when it is closed.
    pub(super) fn enter(&self) -> Option<ScopeEntry> {
        // Counted first: whoever closes it and then waits sees this command, or this command sees that it is closed.
        self.0.commands.fetch_add(1, Ordering::SeqCst);
        let entry = ScopeEntry { scope: self.clone(), group: None };
        (!self.is_closed()).then_some(entry)
    }
}

/// Held for as long as a command, or what it has left running, must be ended by us.
#[derive(Debug)]
pub(super) struct ScopeEntry {
    scope: Scope,
    group: Option<Pid>,
}

impl ScopeEntry {
    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(super) fn leads(&mut self, group: Pid) {
        self.group = Some(group);
        self.scope.groups().push(Group { number: group, is_reaped: false });
    }

    pub(super) fn reap<T>(&self, reap: impl FnOnce() -> T) -> T {
        let mut groups = self.scope.groups();
        let reaped = reap();
        groups.iter_mut().filter(|group| Some(group.number) == self.group).for_each(|group| group.is_reaped = true);
        reaped
    }

    /// Whether so much is left running already that nothing more may stay until its deadline.
    pub(super) fn is_crowded(&self) -> bool {
        self.scope.0.commands.load(Ordering::SeqCst) > MOST
    }
}

impl Drop for ScopeEntry {
    fn drop(&mut self) {
        self.scope.groups().retain(|group| Some(group.number) != self.group);
        self.scope.0.commands.fetch_sub(1, Ordering::SeqCst);
    }
}

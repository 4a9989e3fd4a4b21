//! Ends commands together with the probe, job or tick that started them. It must never touch what a restart command
//! leaves running, because that usually is the backend.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::Pid;

use crate::clock;

/// A scope with more commands, counting those with leftovers, kills leftovers at once and not only at the timeout, so
/// that a probe that leaves something running each time cannot accumulate processes.
const MAX_COMMANDS: usize = 4;
/// How long ending commands may take: SIGTERM, one second, SIGKILL, and some time for a slow machine.
const END_LIMIT: Duration = Duration::from_secs(3);
/// The interval between checks whether the last command has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The commands of one probe, job or tick, which end together with it.
#[derive(Clone, Debug, Default)]
pub struct Scope(Arc<ScopeState>);

#[derive(Debug, Default)]
struct ScopeState {
    closed: AtomicBool,
    commands: AtomicUsize,
    groups: Mutex<Vec<Group>>,
}

/// The process group of a running command, or of its leftovers.
#[derive(Debug)]
struct Group {
    pid: Pid,
    /// Whether the command was reaped, so that another process may have its pid.
    is_reaped: bool,
}

impl Scope {
    /// Prevents further commands; the running ones get SIGTERM, and SIGKILL a second later. Returns at once.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
    }

    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::SeqCst)
    }

    /// Closes the scopes and waits until all their commands have ended, but at most 3 s, because one may hang in the
    /// kernel.
    pub fn end_all(scopes: &[Scope]) {
        scopes.iter().for_each(Scope::close);
        let started = clock::monotonic();
        while !scopes.iter().all(Scope::is_empty) && clock::monotonic().duration_since(started) < END_LIMIT {
            thread::sleep(POLL_INTERVAL);
        }
    }

    pub fn end(&self) {
        Scope::end_all(std::slice::from_ref(self));
    }

    /// Closes the scopes, sends SIGKILL to everything in them and returns at once, for a caller that must exit
    /// immediately. It misses a command that is being started at this moment.
    pub fn kill_all(scopes: &[Scope]) {
        scopes.iter().for_each(Scope::close);
        for scope in scopes {
            // The lock keeps commands from being reaped meanwhile, so no pid is reused.
            scope.groups().iter().for_each(|group| super::kill_command(group.pid, group.is_reaped));
        }
    }

    fn groups(&self) -> MutexGuard<'_, Vec<Group>> {
        self.0.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no command is running, and no leftovers that must be ended.
    pub fn is_empty(&self) -> bool {
        self.0.commands.load(Ordering::SeqCst) == 0
    }

    /// Registers one command; `None` if the scope is closed.
    pub(super) fn enter(&self) -> Option<ScopeEntry> {
        // Counted before the check, so that either a caller of `end_all` sees this command, or this command sees that
        // the scope is closed.
        self.0.commands.fetch_add(1, Ordering::SeqCst);
        let entry = ScopeEntry { scope: self.clone(), group: None };
        (!self.is_closed()).then_some(entry)
    }
}

/// Held for as long as we must end a command or its leftovers.
#[derive(Debug)]
pub(super) struct ScopeEntry {
    scope: Scope,
    group: Option<Pid>,
}

impl ScopeEntry {
    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(super) fn set_group(&mut self, group: Pid) {
        self.group = Some(group);
        self.scope.groups().push(Group { pid: group, is_reaped: false });
    }

    pub(super) fn reap<T>(&self, reap: impl FnOnce() -> T) -> T {
        let mut groups = self.scope.groups();
        let reaped = reap();
        groups.iter_mut().filter(|group| Some(group.pid) == self.group).for_each(|group| group.is_reaped = true);
        reaped
    }

    /// Whether the scope has too many commands to keep further leftovers until the timeout.
    pub(super) fn is_crowded(&self) -> bool {
        self.scope.0.commands.load(Ordering::SeqCst) > MAX_COMMANDS
    }
}

impl Drop for ScopeEntry {
    fn drop(&mut self) {
        self.scope.groups().retain(|group| Some(group.pid) != self.group);
        self.scope.0.commands.fetch_sub(1, Ordering::SeqCst);
    }
}

//! Decides whether PM2 may be reset: a pure function of the evidence. It must never allow a reset if there is doubt, or
//! if the process could not be started again afterwards.

use std::fmt;

use crate::outcome::DaemonState;
use crate::process::Process;

use super::evidence::DaemonKind;
use super::observe::describe_proc_error;
use super::plan::RepairFacts;
use super::{App, Home, ManagedProcess, SavedList};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetReason {
    /// No pm2 command reaches the daemon.
    Deaf,
    /// This many daemons run at once.
    MultipleDaemons(usize),
    /// This process, which has lost its daemon, listens on the port.
    Orphan(Process),
}

impl fmt::Display for ResetReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResetReason::Deaf => f.write_str("no pm2 command reaches PM2's daemon"),
            ResetReason::MultipleDaemons(count) => write!(f, "{count} PM2 daemons are running at once"),
            ResetReason::Orphan(process) => {
                write!(f, "an orphan of PM2 (pid {}) is using the port", process.pid)
            }
        }
    }
}

/// Looks for a reason to reset PM2, given the facts of an inspection.
/// Errors: why there is no reason, or why PM2 must not be reset.
pub fn find_reset_reason(home: &Home, managed: &ManagedProcess, facts: &RepairFacts) -> Result<ResetReason, String> {
    let daemon = home.observe_all_daemons().inherit_silence(&facts.daemon);
    let mut orphans = Vec::new();
    for &port in &managed.ports {
        orphans.extend(home.find_orphans(port).map_err(|error| describe_proc_error(&error))?);
    }
    decide(managed, &RepairFacts { daemon, ..facts.clone() }, &orphans)
}

pub(super) fn decide(
    managed: &ManagedProcess,
    facts: &RepairFacts,
    orphans: &[Process],
) -> Result<ResetReason, String> {
    let RepairFacts { daemon, listed, .. } = facts;
    if let Some(foreground) = daemon.proven.iter().find(|daemon| daemon.kind == DaemonKind::Foreground) {
        let pid = foreground.process.pid;
        return Err(format!("PM2 (pid {pid}) runs in the foreground: no pm2 command could start it again"));
    }
    let recoverable = check_recoverable(managed, &facts.saved);
    if daemon.proven.len() > 1 {
        return recoverable.map(|()| ResetReason::MultipleDaemons(daemon.proven.len()));
    }
    let is_listed = |orphan: &&Process| listed.iter().flatten().any(|app| app.pid == Some(orphan.pid));
    let orphan = orphans.iter().find(|orphan| !is_listed(orphan));
    match (daemon.state(), orphan) {
        // The reset for a deaf daemon also ends an orphan on the port.
        (DaemonState::Deaf, _) if !daemon.proven.is_empty() => recoverable.map(|()| ResetReason::Deaf),
        // A living daemon can restart the process; without one, it must be startable from the disk.
        (DaemonState::Alive, Some(orphan)) => Ok(ResetReason::Orphan(*orphan)),
        (DaemonState::Dead, Some(orphan)) => recoverable.map(|()| ResetReason::Orphan(*orphan)),
        (state, _) => Err(explain_no_reason(managed, facts, state)),
    }
}

fn explain_no_reason(managed: &ManagedProcess, facts: &RepairFacts, state: DaemonState) -> String {
    let why = match state {
        DaemonState::Alive => "PM2 answers, with one daemon".to_owned(),
        DaemonState::Dead => "PM2 is not running".to_owned(),
        DaemonState::Deaf => "no process is proven to be PM2's daemon".to_owned(),
        DaemonState::Unknown => {
            return facts
                .daemon
                .trouble(&facts.home, &facts.pm2_command)
                .unwrap_or_else(|| "PM2's daemon is starting".into());
        }
    };
    let ports: Vec<String> = managed.ports.iter().map(u16::to_string).collect();
    match ports.as_slice() {
        [] => why,
        ports => format!("{why}, and no orphan is using port {}", ports.join(" or ")),
    }
}

fn check_recoverable(managed: &ManagedProcess, saved: &SavedList) -> Result<(), String> {
    let name = &managed.process;
    if managed.config.as_ref().is_some_and(|path| path.is_file()) {
        return Ok(());
    }
    let missing = match saved {
        SavedList::Apps(apps) => match apps.iter().find(|app| app.name == *name) {
            Some(app) => match describe_missing_program(app) {
                None => return Ok(()),
                Some(program) => program,
            },
            None => format!("{name} is not in the saved list"),
        },
        SavedList::Missing => "PM2 has no saved list (pm2 save)".into(),
        SavedList::Unreadable(reason) => reason.clone(),
    };
    let config = match &managed.config {
        Some(path) => format!("{} is missing", path.display()),
        None => "no config is set".into(),
    };
    Err(format!("{name} could not be started again: {missing}, and {config}"))
}

/// Says which program the app needs that no longer exists, as after an upgrade of node or a cleanup of old releases.
pub fn describe_missing_program(app: &App) -> Option<String> {
    let interpreter = app.interpreter.as_deref().filter(|program| program.starts_with('/')).map(std::path::Path::new);
    let programs = [Some(app.script.as_path()).filter(|path| path.is_absolute()), interpreter];
    let missing = programs.into_iter().flatten().find(|path| !path.exists())?;
    Some(format!("the saved list starts {} with {}, which does not exist", app.name, missing.display()))
}

//! Whether PM2 may be reset: a pure function from the evidence. It must never find a reason where there is doubt, nor
//! allow what could not be undone.

use std::fmt;
use std::io;

use crate::outcome::{DaemonState, describe_io_error};
use crate::process::Process;

use super::evidence::DaemonKind;
use super::plan::RepairFacts;
use super::{App, Home, Managed, SavedList};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetReason {
    /// No pm2 command reaches its daemon.
    Deaf,
    /// So many daemons run at once.
    Doubled(usize),
    /// This process, which was PM2's and has no daemon any more, holds the port.
    Orphan(Process),
}

impl fmt::Display for ResetReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResetReason::Deaf => f.write_str("no pm2 command reaches PM2's daemon"),
            ResetReason::Doubled(count) => write!(f, "{count} daemons of PM2 run at once"),
            ResetReason::Orphan(process) => {
                write!(f, "an orphan of PM2 (pid {}) holds the port", process.pid)
            }
        }
    }
}

/// Looks for a reason to reset PM2, with what an inspection found.
/// Errors: why there is none, or why it must not be, in words.
pub fn reset_reason(home: &Home, managed: &Managed, facts: &RepairFacts) -> Result<ResetReason, String> {
    let cannot = |error: io::Error| format!("cannot look for PM2's processes: {}", describe_io_error(&error));
    let daemon = home.all_daemons().silent_since(&facts.daemon);
    let orphans = managed.port.map_or(Ok(Vec::new()), |port| home.orphans_on(port)).map_err(cannot)?;
    judge(managed, &RepairFacts { daemon, ..facts.clone() }, &orphans)
}

pub(super) fn judge(managed: &Managed, facts: &RepairFacts, orphans: &[Process]) -> Result<ResetReason, String> {
    let RepairFacts { daemon, listed, .. } = facts;
    if let Some(foreground) = daemon.proven.iter().find(|daemon| daemon.kind == DaemonKind::Foreground) {
        let pid = foreground.process.pid;
        return Err(format!("PM2 (pid {pid}) runs in the foreground: nothing of PM2's would bring it back"));
    }
    let kept = can_be_brought_back(managed, &facts.saved);
    if daemon.proven.len() > 1 {
        return kept.map(|()| ResetReason::Doubled(daemon.proven.len()));
    }
    let is_listed = |orphan: &&Process| listed.iter().flatten().any(|app| app.pid == Some(orphan.pid));
    let orphan = orphans.iter().find(|orphan| !is_listed(orphan));
    match (daemon.state(), orphan) {
        // A deaf daemon is the larger trouble: an orphan that is on the port is ended along with it.
        (DaemonState::Deaf, _) if !daemon.proven.is_empty() => kept.map(|()| ResetReason::Deaf),
        // A daemon that lives knows its processes; without one only the disk does.
        (DaemonState::Alive, Some(orphan)) => Ok(ResetReason::Orphan(*orphan)),
        (DaemonState::Dead, Some(orphan)) => kept.map(|()| ResetReason::Orphan(*orphan)),
        (state, _) => Err(no_reason(managed, facts, state)),
    }
}

fn no_reason(managed: &Managed, facts: &RepairFacts, state: DaemonState) -> String {
    let why = match state {
        DaemonState::Alive => "PM2 answers and runs once".to_owned(),
        DaemonState::Dead => "PM2 does not run".to_owned(),
        DaemonState::Deaf => "PM2's daemon cannot be proven".to_owned(),
        DaemonState::Unknown => {
            return facts
                .daemon
                .trouble(&facts.home, &facts.pm2)
                .unwrap_or_else(|| "PM2's daemon is only just starting".into());
        }
    };
    match managed.port {
        Some(port) => format!("{why}, and no orphan holds port {port}"),
        None => why,
    }
}

fn can_be_brought_back(managed: &Managed, saved: &SavedList) -> Result<(), String> {
    let name = &managed.process;
    if managed.config.as_ref().is_some_and(|path| path.is_file()) {
        return Ok(());
    }
    let without = match saved {
        SavedList::Apps(apps) => match apps.iter().find(|app| app.name == *name) {
            Some(app) => match missing_program(app) {
                None => return Ok(()),
                Some(missing) => missing,
            },
            None => format!("the saved list has no {name}"),
        },
        SavedList::Missing => "PM2 has no saved list (pm2 save)".into(),
        SavedList::Unreadable(reason) => reason.clone(),
    };
    let config = match &managed.config {
        Some(path) => format!("{} is missing", path.display()),
        None => "no config is given".into(),
    };
    Err(format!("nothing could bring {name} back: {without}, and {config}"))
}

/// The program that the app needs and that is gone, in words; as after an upgrade of node or a clean-up of old
/// releases.
pub fn missing_program(app: &App) -> Option<String> {
    let interpreter = app.interpreter.as_deref().filter(|program| program.starts_with('/')).map(std::path::Path::new);
    let places = [Some(app.script.as_path()).filter(|path| path.is_absolute()), interpreter];
    let missing = places.into_iter().flatten().find(|path| !path.exists())?;
    Some(format!("the saved list starts {} with {}, which is not there", app.name, missing.display()))
}

//! Proves the running processes of a name, before a drill stops them. It must never prove a process by one sign alone:
//! PM2's living daemon lists it as online, and is its parent.

use crate::outcome::{DaemonState, Inspection};
use crate::process::{self, Process, Stat};

use super::App;
use super::identity::is_self_or_ancestor;
use super::plan::RepairFacts;
use super::{InspectionResult, ManagedProcess};

/// All running processes of the name; in cluster mode these are the workers, never the daemon.
/// Errors: why they cannot be proven, or not all of them.
pub fn prove_running(managed: &ManagedProcess, result: &InspectionResult) -> Result<Vec<Process>, String> {
    if let Inspection::AtRest(why) = result.inspection {
        return Err(format!("it is deliberately at rest ({})", why.as_str()));
    }
    let pids = find_online(&managed.process, &result.facts)?;
    pids.into_iter().map(|pid| prove(pid, &result.facts)).collect()
}

/// The pids that PM2 lists as online. An instance that is listed with another status does not run.
fn find_online(name: &str, facts: &RepairFacts) -> Result<Vec<u32>, String> {
    if facts.daemon.state() != DaemonState::Alive {
        let trouble = facts.daemon.trouble(&facts.home, &facts.pm2_command);
        return Err(trouble.unwrap_or_else(|| "PM2's daemon is not running".into()));
    }
    let Some(listed) = &facts.listed else {
        let why = facts.list_error.as_deref().unwrap_or("reason unknown");
        return Err(format!("PM2's list is not available: {why}"));
    };
    let named: Vec<&App> = listed.iter().filter(|app| app.name == name).collect();
    let online: Vec<&&App> = named.iter().filter(|app| app.status == "online").collect();
    match (named.first(), online.is_empty()) {
        (None, _) => Err(format!("PM2 does not list {name}")),
        (Some(app), true) => Err(format!("PM2 lists {name} as {}, not as online", app.status)),
        (Some(_), false) => {
            let pid = |app: &&&App| app.pid.ok_or_else(|| format!("PM2 lists {name} without a pid"));
            online.iter().map(pid).collect()
        }
    }
}

fn prove(pid: u32, facts: &RepairFacts) -> Result<Process, String> {
    let Some(stat) = process::stat(pid).filter(Stat::is_alive) else {
        return Err(format!("pid {pid}, which PM2 lists, is not running"));
    };
    let why = match stat.state {
        _ if !process::is_ours(pid) => "it belongs to another account",
        _ if facts.daemon.has_daemon(pid) => "it is PM2's daemon",
        _ if !facts.daemon.has_daemon(stat.parent) => "PM2's daemon is not its parent",
        _ if is_self_or_ancestor(pid) => "the watchdog itself runs in it",
        b'T' | b't' => "it is stopped by a signal already",
        _ => return Ok(Process { pid, started: stat.started }),
    };
    Err(format!("pid {pid}, which PM2 lists: {why}"))
}

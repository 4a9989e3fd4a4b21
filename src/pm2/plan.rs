//! Plans the steps of a repair: a pure function of the evidence and the lists. It must never plan a command that would
//! start a second daemon, or a second copy of a living process.

use std::path::PathBuf;
use std::time::Duration;

use crate::outcome::DaemonState;
use crate::process::Process;

use super::evidence::{DaemonEvidence, ProcessEvidence, ProcessState, Sign};
use super::{App, ManagedProcess, SavedList};

#[derive(Clone, Debug)]
pub struct RepairFacts {
    /// PM2's home, as shown in texts.
    pub home: String,
    /// The command that calls pm2 for this home in a shell.
    pub pm2_command: String,
    pub daemon: DaemonEvidence,
    /// PM2's list, if the daemon answered.
    pub listed: Option<Vec<App>>,
    /// Why the daemon, although alive, returned no list.
    pub list_error: Option<String>,
    /// The ids of the instances that are deliberately at rest.
    pub ids_at_rest: Vec<u32>,
    pub process: ProcessEvidence,
    /// Whether PM2 may leave one of them stopped after it ends, as far as its environment shows.
    pub may_stay_stopped: bool,
    pub saved: SavedList,
    /// Names of other saved processes that outlived the daemon; `pm2 resurrect` would start each a second time.
    pub survivors: Vec<String>,
}

/// One step of a repair. The next step follows only if this one fails or the process is still missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairStep {
    /// `pm2 restart` with these ids, because a name would also match a namespace of that name.
    Restart(Vec<u32>),
    /// `pm2 resurrect`, except for processes that are alive.
    Resurrect { except: Vec<String> },
    /// `pm2 start FILE --only NAME`, in the file's own folder.
    Start(PathBuf),
    /// Ends all living processes of the name, so that a daemon that no pm2 command reaches restarts them.
    End { processes: Vec<Process>, kill_timeout: Duration },
}

impl RepairStep {
    /// How long this step may wait, apart from its pm2 calls and a few seconds.
    pub fn wait_limit(&self) -> Duration {
        match self {
            RepairStep::End { kill_timeout, .. } => *kill_timeout,
            RepairStep::Restart(_) | RepairStep::Resurrect { .. } | RepairStep::Start(_) => Duration::ZERO,
        }
    }
}

/// Plans the repair of a process.
/// Errors: why nothing may be done, and the command that fixes it.
pub fn plan_repair(managed: &ManagedProcess, facts: &RepairFacts) -> Result<Vec<RepairStep>, String> {
    match facts.daemon.state() {
        DaemonState::Alive => plan_with_daemon(managed, facts),
        DaemonState::Dead => plan_without_daemon(managed, facts),
        DaemonState::Deaf if facts.daemon.lacks_socket() => plan_without_socket(managed, facts),
        DaemonState::Deaf | DaemonState::Unknown => Err(describe_trouble(facts)),
    }
}

fn plan_with_daemon(managed: &ManagedProcess, facts: &RepairFacts) -> Result<Vec<RepairStep>, String> {
    let ManagedProcess { process: name, .. } = managed;
    let Some(listed) = &facts.listed else { return plan_without_list(facts) };
    let mut ids: Vec<u32> = listed.iter().filter(|app| app.name == *name).filter_map(|app| app.id).collect();
    if !ids.is_empty() {
        // An instance that the operator stopped stays stopped when another one fails.
        ids.retain(|id| !facts.ids_at_rest.contains(id));
        if ids.is_empty() {
            return Err(format!("{name} is deliberately at rest"));
        }
        return Ok([RepairStep::Restart(ids)].into_iter().chain(start_step(managed)).collect());
    }
    if let ProcessState::Alive(process) = facts.process.state() {
        let (pid, pm2) = (process.pid, &facts.pm2_command);
        return Err(format!(
            "{name} (pid {pid}) is running but is not in PM2's list: it belongs to another daemon, or was left behind. \
             A repair would start a second copy. Fix: kill {pid}, then {pm2} resurrect"
        ));
    }
    plan_from_disk(managed, facts)
}

/// Without the list only the pid files show ids, and only those of living processes.
fn plan_without_list(facts: &RepairFacts) -> Result<Vec<RepairStep>, String> {
    if facts.process.ids.is_empty() {
        let why = facts.list_error.as_deref().unwrap_or("reason unknown");
        return Err(format!("PM2's list is not available: {why}"));
    }
    Ok(vec![RepairStep::Restart(facts.process.ids.clone())])
}

fn plan_without_daemon(managed: &ManagedProcess, facts: &RepairFacts) -> Result<Vec<RepairStep>, String> {
    if let Some(orphan) = facts.process.orphan() {
        let (name, pid, pm2) = (&managed.process, orphan.pid, &facts.pm2_command);
        return Err(format!(
            "PM2's daemon is dead, and {name} (pid {pid}) outlived it. A repair would start a second copy. Fix: \
             kill -9 {pid}, then {pm2} resurrect, or set reset: true to allow the watchdog to do it"
        ));
    }
    plan_from_disk(managed, facts)
}

/// Plans to start the process from the saved list, and then from its ecosystem file if it is still missing.
fn plan_from_disk(managed: &ManagedProcess, facts: &RepairFacts) -> Result<Vec<RepairStep>, String> {
    let apps = match &facts.saved {
        SavedList::Apps(apps) => &apps[..],
        SavedList::Missing | SavedList::Unreadable(_) => &[],
    };
    let is_saved = apps.iter().any(|app| app.name == managed.process);
    // Without a daemon the other saved processes have ended too, so `resurrect` is useful even if only for them.
    let is_dead = facts.daemon.state() == DaemonState::Dead;
    let resurrects = is_saved || is_dead && apps.iter().any(|app| !facts.survivors.contains(&app.name));
    let resurrect = resurrects.then(|| RepairStep::Resurrect { except: facts.survivors.clone() });
    let steps: Vec<RepairStep> = resurrect.into_iter().filter(|_| is_saved || managed.config.is_some()).collect();
    let steps: Vec<RepairStep> = steps.into_iter().chain(start_step(managed)).collect();
    if steps.is_empty() { Err(explain_no_source(managed, facts)) } else { Ok(steps) }
}

fn start_step(managed: &ManagedProcess) -> Option<RepairStep> {
    managed.config.clone().map(RepairStep::Start)
}

fn explain_no_source(managed: &ManagedProcess, facts: &RepairFacts) -> String {
    let (name, pm2) = (&managed.process, &facts.pm2_command);
    let missing = match &facts.saved {
        SavedList::Apps(_) => format!("{name} is not in PM2's saved list"),
        SavedList::Missing => "PM2 has no saved list".into(),
        SavedList::Unreadable(reason) => reason.clone(),
    };
    format!("{missing}, and no config is set, so how to start {name} is unknown. Fix: start it, then {pm2} save")
}

/// The daemon still runs without its socket, and restarts a process that ends.
fn plan_without_socket(managed: &ManagedProcess, facts: &RepairFacts) -> Result<Vec<RepairStep>, String> {
    let under_daemon = |sign: Sign| matches!(sign, Sign::PidFile | Sign::Environment | Sign::Known);
    let living = facts.process.living.iter().filter(|(_, sign)| under_daemon(*sign)).map(|(process, _)| *process);
    let processes: Vec<Process> = living.collect();
    let apps = match &facts.saved {
        SavedList::Apps(apps) => &apps[..],
        SavedList::Missing | SavedList::Unreadable(_) => &[],
    };
    let saved = apps.iter().find(|app| app.name == managed.process);
    let may_stay_stopped = facts.may_stay_stopped || saved.is_some_and(App::may_stay_stopped);
    if processes.is_empty() || may_stay_stopped {
        return Err(describe_trouble(facts));
    }
    let kill_timeout = saved.map_or(App::KILL_TIMEOUT, |app| app.kill_timeout);
    Ok(vec![RepairStep::End { processes, kill_timeout }])
}

fn describe_trouble(facts: &RepairFacts) -> String {
    let starting = || "PM2's daemon is starting".to_owned();
    facts.daemon.trouble(&facts.home, &facts.pm2_command).unwrap_or_else(starting)
}

impl RepairStep {
    /// A description without ids, because ids change.
    pub fn describe(&self, managed: &ManagedProcess) -> String {
        let name = &managed.process;
        match self {
            RepairStep::Restart(_) => format!("pm2 restart {name}"),
            RepairStep::Resurrect { except } if except.is_empty() => "pm2 resurrect".into(),
            RepairStep::Resurrect { except } => format!("pm2 resurrect, except {}", except.join(", ")),
            RepairStep::Start(file) => {
                let environment = managed.env.as_ref().map_or_else(String::new, |env| format!(" --env {env}"));
                format!("pm2 start {} --only {name}{environment}", file.display())
            }
            RepairStep::End { .. } => format!("end {name} so that PM2's daemon restarts it"),
        }
    }
}

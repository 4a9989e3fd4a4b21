//! What a repair by way of PM2 is to do: a pure function from the evidence and the lists to its steps. It must never
//! plan a command that would start a second daemon, or a process beside one that lives.

use std::path::PathBuf;
use std::time::Duration;

use crate::outcome::DaemonState;
use crate::process::Process;

use super::evidence::{DaemonEvidence, ProcessEvidence, ProcessState, Sign};
use super::{App, Managed, SavedList};

#[derive(Clone, Debug)]
pub struct RepairFacts {
    /// PM2's home, as people write it.
    pub home: String,
    /// How they call pm2 there.
    pub pm2: String,
    pub daemon: DaemonEvidence,
    /// What it lists, where it answered.
    pub listed: Option<Vec<App>>,
    /// Why it has no list for us, where it was asked.
    pub unlisted: Option<String>,
    /// The numbers of those of the name that are deliberately at rest.
    pub at_rest: Vec<u32>,
    pub process: ProcessEvidence,
    /// Whether one of them, once ended, may stay ended, as far as its own environment says.
    pub may_stay_ended: bool,
    pub saved: SavedList,
    /// Names of other saved processes that outlived the daemon: to resurrect them would start each a second time.
    pub outlived: Vec<String>,
}

/// One thing to do. The next one follows only where the process is still not there, or this one has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairStep {
    /// `pm2 restart` of these ids: a name may be that of a namespace, too.
    Restart(Vec<u32>),
    /// `pm2 resurrect`, without those that live.
    Resurrect { without: Vec<String> },
    /// `pm2 start FILE --only NAME`, in the file's own folder.
    Start(PathBuf),
    /// No pm2 command reaches the daemon, but it starts again whatever ends: all of the name that live.
    End { processes: Vec<Process>, kill_timeout: Duration },
}

impl RepairStep {
    /// What this step may wait for, beside its calls of pm2 and a few seconds.
    pub fn patience(&self) -> Duration {
        match self {
            RepairStep::End { kill_timeout, .. } => *kill_timeout,
            RepairStep::Restart(_) | RepairStep::Resurrect { .. } | RepairStep::Start(_) => Duration::ZERO,
        }
    }
}

/// Plans the repair of a process.
/// Errors: why nothing may be done, and which command mends it.
pub fn plan(managed: &Managed, facts: &RepairFacts) -> Result<Vec<RepairStep>, String> {
    match facts.daemon.state() {
        DaemonState::Alive => under_living_daemon(managed, facts),
        DaemonState::Dead => without_daemon(managed, facts),
        DaemonState::Deaf if facts.daemon.lacks_socket() => by_hand(managed, facts),
        DaemonState::Deaf | DaemonState::Unknown => Err(trouble(facts)),
    }
}

fn under_living_daemon(managed: &Managed, facts: &RepairFacts) -> Result<Vec<RepairStep>, String> {
    let Managed { process: name, .. } = managed;
    let Some(listed) = &facts.listed else { return without_list(facts) };
    let mut ids: Vec<u32> = listed.iter().filter(|app| app.name == *name).filter_map(|app| app.id).collect();
    if !ids.is_empty() {
        // An instance that somebody stopped stays stopped when another one fails.
        ids.retain(|id| !facts.at_rest.contains(id));
        if ids.is_empty() {
            return Err(format!("{name} is deliberately at rest"));
        }
        return Ok([RepairStep::Restart(ids)].into_iter().chain(file(managed)).collect());
    }
    if let ProcessState::Alive(process) = facts.process.state() {
        let (pid, pm2) = (process.pid, &facts.pm2);
        return Err(format!(
            "{name} (pid {pid}) runs, but PM2's list does not have it: another daemon keeps it, or it was left behind. \
             Another one would be started beside it. To mend it: kill {pid}, then {pm2} resurrect"
        ));
    }
    from_disk(managed, facts)
}

/// PM2's files tell the ids of what lives; of what does not, nothing is known.
fn without_list(facts: &RepairFacts) -> Result<Vec<RepairStep>, String> {
    if facts.process.ids.is_empty() {
        let why = facts.unlisted.as_deref().unwrap_or("no reason is known");
        return Err(format!("PM2's list cannot be had: {why}"));
    }
    Ok(vec![RepairStep::Restart(facts.process.ids.clone())])
}

fn without_daemon(managed: &Managed, facts: &RepairFacts) -> Result<Vec<RepairStep>, String> {
    if let Some(orphan) = facts.process.orphan() {
        let (name, pid, pm2) = (&managed.process, orphan.pid, &facts.pm2);
        return Err(format!(
            "PM2's daemon is dead, and {name} (pid {pid}) outlived it. Another one would be started beside it. To mend \
             it: kill -9 {pid}, then {pm2} resurrect, or allow that with reset: true"
        ));
    }
    from_disk(managed, facts)
}

/// From what was saved, and from the file where that does not bring it back.
fn from_disk(managed: &Managed, facts: &RepairFacts) -> Result<Vec<RepairStep>, String> {
    let apps = match &facts.saved {
        SavedList::Apps(apps) => &apps[..],
        SavedList::Missing | SavedList::Unreadable(_) => &[],
    };
    let is_saved = apps.iter().any(|app| app.name == managed.process);
    // Without a daemon the others that were saved are lost, too.
    let is_dead = facts.daemon.state() == DaemonState::Dead;
    let resurrects = is_saved || is_dead && apps.iter().any(|app| !facts.outlived.contains(&app.name));
    let resurrect = resurrects.then(|| RepairStep::Resurrect { without: facts.outlived.clone() });
    let steps: Vec<RepairStep> = resurrect.into_iter().filter(|_| is_saved || managed.config.is_some()).collect();
    let steps: Vec<RepairStep> = steps.into_iter().chain(file(managed)).collect();
    if steps.is_empty() { Err(not_kept(managed, facts)) } else { Ok(steps) }
}

fn file(managed: &Managed) -> Option<RepairStep> {
    managed.config.clone().map(RepairStep::Start)
}

fn not_kept(managed: &Managed, facts: &RepairFacts) -> String {
    let (name, pm2) = (&managed.process, &facts.pm2);
    let without = match &facts.saved {
        SavedList::Apps(_) => format!("PM2's saved list has no {name}"),
        SavedList::Missing => "PM2 has no saved list".into(),
        SavedList::Unreadable(reason) => reason.clone(),
    };
    format!(
        "{without}, and no config is given: nothing says how {name} is started. To mend it: start it, then {pm2} save"
    )
}

/// The daemon works without its socket: what ends, it starts again.
fn by_hand(managed: &Managed, facts: &RepairFacts) -> Result<Vec<RepairStep>, String> {
    let under_daemon = |sign: Sign| matches!(sign, Sign::PidFile | Sign::Environment | Sign::Known);
    let living = facts.process.living.iter().filter(|(_, sign)| under_daemon(*sign)).map(|(process, _)| *process);
    let processes: Vec<Process> = living.collect();
    let apps = match &facts.saved {
        SavedList::Apps(apps) => &apps[..],
        SavedList::Missing | SavedList::Unreadable(_) => &[],
    };
    let saved = apps.iter().find(|app| app.name == managed.process);
    let stays_ended = facts.may_stay_ended || saved.is_some_and(App::may_stay_ended);
    if processes.is_empty() || stays_ended {
        return Err(trouble(facts));
    }
    let kill_timeout = saved.map_or(App::KILL_TIMEOUT, |app| app.kill_timeout);
    Ok(vec![RepairStep::End { processes, kill_timeout }])
}

fn trouble(facts: &RepairFacts) -> String {
    let starting = || "PM2's daemon is only just starting".to_owned();
    facts.daemon.trouble(&facts.home, &facts.pm2).unwrap_or_else(starting)
}

impl RepairStep {
    /// As people read it, the same each time: ids change.
    pub fn shown(&self, managed: &Managed) -> String {
        let name = &managed.process;
        match self {
            RepairStep::Restart(_) => format!("pm2 restart {name}"),
            RepairStep::Resurrect { without } if without.is_empty() => "pm2 resurrect".into(),
            RepairStep::Resurrect { without } => format!("pm2 resurrect, without {}", without.join(", ")),
            RepairStep::Start(file) => {
                let environment = managed.env.as_ref().map_or_else(String::new, |env| format!(" --env {env}"));
                format!("pm2 start {} --only {name}{environment}", file.display())
            }
            RepairStep::End { .. } => format!("end {name}, for PM2's daemon to start it again"),
        }
    }
}

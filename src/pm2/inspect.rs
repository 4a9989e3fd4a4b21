//! Gathers everything that a decision about a process needs: the daemon, its list, the process and the saved list. It
//! must never request the list unless the daemon is alive, and never report a state that is still changing.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::outcome::{DaemonState, Inspection, Pm2Evidence, PriorEvidence, ProcessIdentity, RestReason};
use crate::process;

use super::evidence::{DaemonEvidence, ProcessEvidence, ProcessState, Sign};
use super::observe::identity_of;
use super::plan::RepairFacts;
use super::rest::{common_rest_reason, find_ids_at_rest};
use super::{Activity, App, Caller, Home, Listing, ManagedProcess, SavedList};

/// A state that may be a transition is observed again until it has lasted this long. Processes exit 1.5 to 2.3 s after
/// their daemon, and a daemon that ends closes its socket first.
const SETTLE_TIME: Duration = Duration::from_secs(4);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Clone, Debug)]
pub struct InspectionResult {
    pub facts: RepairFacts,
    pub inspection: Inspection,
    /// The same conclusion that a probe reports, with PM2's list taken into account.
    pub evidence: Pm2Evidence,
    pub summary: String,
    /// Measured here because a restart may follow at once and would end it.
    pub activity: Option<Activity>,
}

/// Inspects daemon and process. Takes up to 28 s: 4 s until the process has settled, 10 s for PM2's list, 10 s more if
/// `pm2` does not end, and 4 s for the survivors.
pub fn inspect(home: &Home, caller: &Caller, managed: &ManagedProcess, known: PriorEvidence) -> InspectionResult {
    let (mut daemon, mut process) = wait_until_settled(home, &managed.process, known.process);
    let activity = home.measure_activity(&managed.process);
    let mut list_error = None;
    let listed = match daemon.state() {
        DaemonState::Alive => match caller.list() {
            Listing::Apps(apps) => Some(apps),
            Listing::Silent => {
                daemon.is_silent = true;
                None
            }
            Listing::Failed(why) => {
                list_error = Some(why);
                None
            }
        },
        DaemonState::Deaf | DaemonState::Dead | DaemonState::Unknown => None,
    };
    let activity = activity.finish();
    let pids = listed.iter().flatten().filter(|app| app.name == managed.process).filter_map(|app| app.pid);
    process.living.extend(pids.filter_map(process::identify_living).map(|process| (process, Sign::List)));
    let saved = home.saved();
    let names = other_saved_names(&saved, managed, listed.as_deref());
    let survivors = home.find_survivors(names);
    let log = home.read_log_tail();
    let facts = RepairFacts {
        home: home.path().display().to_string(),
        pm2_command: home.pm2_command(),
        ids_at_rest: listed
            .as_deref()
            .map(|listed| find_ids_at_rest(listed, &managed.process, &log))
            .unwrap_or_default(),
        may_stay_stopped: process.living.iter().any(|(one, _)| home.may_stay_stopped(one.pid)),
        daemon,
        listed,
        list_error,
        process,
        saved,
        survivors,
    };
    let rest = find_rest_reason(managed, &facts, &log, known.daemon);
    let is_deaf = facts.daemon.state() == DaemonState::Deaf;
    let failed = Inspection::Failed { is_deaf, is_listed: facts.listed.is_some() };
    InspectionResult {
        inspection: rest.map_or(failed, Inspection::AtRest),
        evidence: home.conclude(&facts.daemon, &facts.process),
        summary: summarize(managed, &facts),
        activity,
        facts,
    }
}

/// Daemon and process, once neither seems to be starting or ending.
fn wait_until_settled(home: &Home, name: &str, known: Option<ProcessIdentity>) -> (DaemonEvidence, ProcessEvidence) {
    let began = clock::monotonic();
    loop {
        let daemon = home.observe_daemon();
        let process = home.observe_process(name, known, &daemon);
        let is_starting =
            daemon.state() == DaemonState::Unknown && daemon.proven.iter().any(|daemon| daemon.is_starting);
        let may_change = is_starting || daemon.lacks_socket() || process.orphan().is_some();
        if !may_change || clock::monotonic().duration_since(began) >= SETTLE_TIME {
            return (daemon, process);
        }
        thread::sleep(POLL_INTERVAL);
    }
}

fn other_saved_names(saved: &SavedList, managed: &ManagedProcess, listed: Option<&[App]>) -> Vec<String> {
    let SavedList::Apps(apps) = saved else { return Vec::new() };
    let is_listed = |name: &str| listed.is_some_and(|listed| listed.iter().any(|app| app.name == name));
    let mut names: Vec<String> = apps.iter().map(|app| app.name.clone()).collect();
    names.retain(|name| *name != managed.process && !is_listed(name));
    names.sort();
    names.dedup();
    names
}

impl Home {
    fn may_stay_stopped(&self, pid: u32) -> bool {
        self.read_marks(pid).iter().any(|mark| mark.may_stay_stopped)
    }

    /// The names of which a process has outlived its daemon by more than `SETTLE_TIME`.
    fn find_survivors(&self, mut names: Vec<String>) -> Vec<String> {
        let began = clock::monotonic();
        loop {
            names.retain(|name| self.find_orphan(name).is_some());
            if names.is_empty() || clock::monotonic().duration_since(began) >= SETTLE_TIME {
                return names;
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

fn find_rest_reason(
    managed: &ManagedProcess,
    facts: &RepairFacts,
    log: &str,
    known_daemon: Option<ProcessIdentity>,
) -> Option<RestReason> {
    let name = &managed.process;
    match (&facts.listed, &facts.saved) {
        (Some(listed), _) if listed.iter().any(|app| app.name == *name) => common_rest_reason(listed, name, log),
        (Some(_), _) => {
            let is_same_daemon = known_daemon.is_some_and(|known_daemon| {
                facts.daemon.proven.iter().any(|daemon| identity_of(daemon.process) == known_daemon)
            });
            let is_gone = facts.process.state() == ProcessState::Gone;
            (is_same_daemon && is_gone).then_some(RestReason::Deleted)
        }
        // A process saved as stopped by the operator is meant to stay stopped after a reboot. A scheduled one is not at
        // rest: without a daemon it would miss its schedule.
        (None, SavedList::Apps(apps)) if facts.daemon.state() == DaemonState::Dead => {
            common_rest_reason(apps, name, "").filter(|reason| *reason == RestReason::Operator)
        }
        (None, _) => None,
    }
}

/// For example `PM2's daemon (pid 812) is alive; its list has api: online, pid 4821, restarted 3 times`
fn summarize(managed: &ManagedProcess, facts: &RepairFacts) -> String {
    let name = &managed.process;
    let saved = match &facts.saved {
        SavedList::Apps(apps) if apps.iter().any(|app| app.name == *name) => format!("the saved list has {name}"),
        SavedList::Apps(_) => format!("the saved list has no {name}"),
        SavedList::Missing => "no list is saved".into(),
        SavedList::Unreadable(_) => "the saved list cannot be read".into(),
    };
    let pid = facts.daemon.latest().map_or_else(String::new, |daemon| format!(" (pid {})", daemon.process.pid));
    match (facts.daemon.state(), &facts.listed) {
        (DaemonState::Alive, Some(listed)) => {
            let mut summary = format!("PM2's daemon{pid} is alive");
            let named: Vec<&App> = listed.iter().filter(|app| app.name == *name).collect();
            if named.is_empty() {
                let _ = write!(summary, "; its list has no {name}, {saved}"); // writing to a String cannot fail
            }
            for (index, App { status, pid, restarts, .. }) in named.into_iter().enumerate() {
                let pid = pid.map_or_else(|| "no process".into(), |pid| format!("pid {pid}"));
                let before = if index == 0 { format!("its list has {name}: ") } else { String::new() };
                let _ = write!(summary, "; {before}{status}, {pid}, restarted {restarts} times"); // as above
            }
            summary
        }
        (DaemonState::Alive, None) => {
            format!(
                "PM2's daemon{pid} is alive, but its list is not available: {}",
                facts.list_error.as_deref().unwrap_or("reason unknown")
            )
        }
        (DaemonState::Dead, _) => format!("PM2's daemon is dead; {saved}"),
        (DaemonState::Deaf | DaemonState::Unknown, _) => facts
            .daemon
            .trouble(&facts.home, &facts.pm2_command)
            .unwrap_or_else(|| format!("PM2's daemon{pid} is starting")),
    }
}

//! Finds out all there is to know before anything is decided against a process: the daemon, its list, the process, what
//! was saved. It must never ask a daemon for its list that is not alive, nor take the moment in which things change for
//! how they are.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::outcome::{DaemonState, Inspection, Pm2Evidence, PriorEvidence, ProcessIdentity, RestReason};
use crate::process;

use super::evidence::{DaemonEvidence, ProcessEvidence, ProcessState, Sign};
use super::observe::seen;
use super::plan::RepairFacts;
use super::rest::{at_rest, ids_at_rest};
use super::{Activity, App, Caller, Home, Listing, Managed, SavedList};

/// Processes notice within 1.5 to 2.3 s that their daemon is gone, and end; a daemon that was told to end closes its
/// socket first. What looks like that is looked at again until it has looked so for this long.
const SETTLED: Duration = Duration::from_secs(4);
/// Between two looks at what changes.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone, Debug)]
pub struct InspectionResult {
    pub facts: RepairFacts,
    pub inspection: Inspection,
    /// As a probe concludes it, now that PM2's list is known.
    pub evidence: Pm2Evidence,
    pub words: String,
    /// What the process was doing meanwhile: a restart, which may follow at once, ends that.
    pub activity: Option<Activity>,
}

/// Inspects the process. Takes up to 28 s:
/// PM2 gets 10 s for its list, and as much to end.
pub fn inspect(home: &Home, caller: &Caller, managed: &Managed, known: PriorEvidence) -> InspectionResult {
    let (mut daemon, mut process) = settled(home, &managed.process, known.process);
    let activity = home.measure_activity(&managed.process);
    let mut unlisted = None;
    let listed = match daemon.state() {
        DaemonState::Alive => match caller.list() {
            Listing::Apps(apps) => Some(apps),
            Listing::Silent => {
                daemon.is_silent = true;
                None
            }
            Listing::Failed(why) => {
                unlisted = Some(why);
                None
            }
        },
        DaemonState::Deaf | DaemonState::Dead | DaemonState::Unknown => None,
    };
    let activity = activity.finish();
    let pids = listed.iter().flatten().filter(|app| app.name == managed.process).filter_map(|app| app.pid);
    process.living.extend(pids.filter_map(process::living).map(|process| (process, Sign::List)));
    let saved = home.saved();
    let names = saved_names(&saved, managed, listed.as_deref());
    let outlived = home.outlived(names);
    let log = home.log_tail();
    let facts = RepairFacts {
        home: home.path().display().to_string(),
        pm2: home.call(),
        at_rest: listed.as_deref().map(|listed| ids_at_rest(listed, &managed.process, &log)).unwrap_or_default(),
        may_stay_ended: process.living.iter().any(|(one, _)| home.may_stay_ended(one.pid)),
        daemon,
        listed,
        unlisted,
        process,
        saved,
        outlived,
    };
    let rest = resting(managed, &facts, &log, known.daemon);
    let is_deaf = facts.daemon.state() == DaemonState::Deaf;
    let failed = Inspection::Failed { is_deaf, is_listed: facts.listed.is_some() };
    InspectionResult {
        inspection: rest.map_or(failed, Inspection::AtRest),
        evidence: home.conclude(&facts.daemon, &facts.process),
        words: words(managed, &facts),
        activity,
        facts,
    }
}

/// Daemon and process once they do not look like something that is just ending or beginning.
fn settled(home: &Home, name: &str, known: Option<ProcessIdentity>) -> (DaemonEvidence, ProcessEvidence) {
    let began = clock::monotonic();
    loop {
        let daemon = home.daemon_evidence();
        let process = home.process_evidence(name, known, &daemon);
        let is_starting =
            daemon.state() == DaemonState::Unknown && daemon.proven.iter().any(|daemon| daemon.is_starting);
        let may_change = is_starting || daemon.lacks_socket() || process.orphan().is_some();
        if !may_change || clock::monotonic().duration_since(began) >= SETTLED {
            return (daemon, process);
        }
        thread::sleep(PAUSE);
    }
}

fn saved_names(saved: &SavedList, managed: &Managed, listed: Option<&[App]>) -> Vec<String> {
    let SavedList::Apps(apps) = saved else { return Vec::new() };
    let is_listed = |name: &str| listed.is_some_and(|listed| listed.iter().any(|app| app.name == name));
    let mut names: Vec<String> = apps.iter().map(|app| app.name.clone()).collect();
    names.retain(|name| *name != managed.process && !is_listed(name));
    names.sort();
    names.dedup();
    names
}

impl Home {
    /// Whether PM2 may not start this process again once it was ended.
    fn may_stay_ended(&self, pid: u32) -> bool {
        self.marks(pid).iter().any(|mark| mark.may_stay_ended)
    }

    /// Those of these names of which a process has outlived its daemon, and goes on to.
    fn outlived(&self, mut names: Vec<String>) -> Vec<String> {
        let began = clock::monotonic();
        loop {
            names.retain(|name| self.orphan_of(name).is_some());
            if names.is_empty() || clock::monotonic().duration_since(began) >= SETTLED {
                return names;
            }
            thread::sleep(PAUSE);
        }
    }
}

fn resting(managed: &Managed, facts: &RepairFacts, log: &str, kept_by: Option<ProcessIdentity>) -> Option<RestReason> {
    let name = &managed.process;
    match (&facts.listed, &facts.saved) {
        (Some(listed), _) if listed.iter().any(|app| app.name == *name) => at_rest(listed, name, log),
        (Some(_), _) => {
            let is_same_daemon =
                kept_by.is_some_and(|kept_by| facts.daemon.proven.iter().any(|daemon| seen(daemon.process) == kept_by));
            let is_gone = facts.process.state() == ProcessState::Gone;
            (is_same_daemon && is_gone).then_some(RestReason::Deleted)
        }
        // Whoever saves a stopped process wants it to be stopped after a reboot, too; that it does not run on a
        // schedule any more, as without a daemon it cannot, he does not.
        (None, SavedList::Apps(apps)) if facts.daemon.state() == DaemonState::Dead => {
            at_rest(apps, name, "").filter(|reason| *reason == RestReason::Operator)
        }
        (None, _) => None,
    }
}

/// `PM2's daemon (pid 812) is alive; its list has api: online, pid 4821, restarted 3 times`
fn words(managed: &Managed, facts: &RepairFacts) -> String {
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
            let mut said = format!("PM2's daemon{pid} is alive");
            let named: Vec<&App> = listed.iter().filter(|app| app.name == *name).collect();
            if named.is_empty() {
                let _ = write!(said, "; its list has no {name}, {saved}"); // writing to a String cannot fail
            }
            for (index, App { status, pid, restarts, .. }) in named.into_iter().enumerate() {
                let pid = pid.map_or_else(|| "no process".into(), |pid| format!("pid {pid}"));
                let before = if index == 0 { format!("its list has {name}: ") } else { String::new() };
                let _ = write!(said, "; {before}{status}, {pid}, restarted {restarts} times"); // as above
            }
            said
        }
        (DaemonState::Alive, None) => {
            format!(
                "PM2's daemon{pid} is alive, but its list cannot be had: {}",
                facts.unlisted.as_deref().unwrap_or("no reason is known")
            )
        }
        (DaemonState::Dead, _) => format!("PM2's daemon is dead; {saved}"),
        (DaemonState::Deaf | DaemonState::Unknown, _) => facts
            .daemon
            .trouble(&facts.home, &facts.pm2)
            .unwrap_or_else(|| format!("PM2's daemon{pid} is only just starting")),
    }
}

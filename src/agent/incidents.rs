//! What is kept of each incident: its account, written after each change, a few in each pass.
//! It must never hold up the loop: what cannot be kept is missing there and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock;
use crate::outcome::{Class, Evidence, ProbeResult};
use crate::policy::{Incident, Policy, Record, TargetState};
use crate::store::closed_incidents::{self, ClosedIncident};
use crate::store::events::{EventEntry, EventKind};
use crate::store::incident_record::{self, IncidentRecord};
use crate::time::{BootTime, ClockReading, Latency, WallTime, millis};

use super::journal::Journal;

/// A tick waits no longer than this for what is still being found out: a folder may be on a file server that hangs.
const JOB_WAIT: Duration = Duration::from_secs(5);
/// After this much time of a pass what is left to be written waits for the next one: an account takes a tenth of a
/// millisecond on a good disk, and when a network is gone a thousand change at once.
const WRITE_BUDGET: Duration = Duration::from_millis(10);
const DAY: Duration = Duration::from_secs(86_400);

/// The incidents that are open, and what is being found out about them.
#[derive(Default)]
pub(super) struct Incidents {
    /// By target.
    open: BTreeMap<String, IncidentRecord>,
    /// By target, of those: what is measured on the boot clock, since the account has the wall clock's times only.
    boot_times: BTreeMap<String, IncidentBootTimes>,
    /// The targets whose accounts have changed since they were written.
    unwritten: BTreeSet<String>,
    /// Those that are over and were written since it was asked for them.
    closed: Vec<ClosedIncident>,
    /// By target: what its latest look saw, while that was a bad one.
    evidence: BTreeMap<String, Evidence>,
    /// By target: the first failure of a streak that may become an incident.
    failing: BTreeMap<String, EventEntry>,
    /// Jobs that find something out, and until when a tick waits for them.
    jobs: Option<(u32, BootTime)>,
    /// Whether the latest account could not be written.
    has_failed: bool,
}

/// Points of an open incident on the boot clock.
#[derive(Clone, Copy)]
struct IncidentBootTimes {
    /// Since when it counts as down.
    down_since: BootTime,
    /// When its latest restart command was started, as far as this watchdog did it.
    last_run: Option<BootTime>,
}

pub(super) struct DecidedRecord {
    /// Of this target; empty: of the watchdog itself.
    pub(super) target: String,
    pub(super) record: Record,
    pub(super) entry: EventEntry,
    /// The restart command that it is about, as people read it.
    pub(super) run: String,
}

impl IncidentBootTimes {
    fn of(open: &Incident) -> IncidentBootTimes {
        IncidentBootTimes { down_since: open.down_since.unwrap_or(open.began), last_run: None }
    }
}

impl Incidents {
    pub(super) fn note_job_started(&mut self, now: BootTime) {
        let jobs = self.jobs.map_or(0, |(jobs, _)| jobs);
        self.jobs = Some((jobs + 1, now + JOB_WAIT));
    }

    pub(super) fn note_job_ended(&mut self) {
        self.jobs = self.jobs.filter(|(jobs, _)| *jobs > 1).map(|(jobs, until)| (jobs - 1, until));
    }

    pub(super) fn is_awaiting_jobs(&self, now: BootTime) -> bool {
        self.jobs.is_some_and(|(_, until)| until > now)
    }

    /// How long until something is to be done: nothing where something is to be written, else until a tick waits no
    /// longer.
    pub(super) fn until_due(&self, now: BootTime) -> Option<Duration> {
        if !self.unwritten.is_empty() {
            return Some(Duration::ZERO);
        }
        self.jobs.map(|(_, until)| until.since(now)).filter(|left| !left.is_zero())
    }

    pub(super) fn open(&self, target: &str) -> Option<&IncidentRecord> {
        self.open.get(target)
    }

    pub(super) fn note_probe(&mut self, target: &str, look: &mut ProbeResult) {
        match look.evidence.take() {
            Some(evidence) => {
                self.evidence.insert(target.to_owned(), *evidence);
            }
            None => {
                self.evidence.remove(target);
            }
        }
    }

    /// Forgets targets that are not watched any more, but for what is yet to be written and for incidents that are
    /// still open: they go on where the target comes back.
    pub(super) fn retain(&mut self, is_watched: impl Fn(&str) -> bool, open_incidents: &[&str]) {
        let unwritten = &self.unwritten;
        self.open.retain(|target, account| {
            is_watched(target) || unwritten.contains(target) || open_incidents.contains(&account.id.as_str())
        });
        self.boot_times.retain(|target, _| self.open.contains_key(target));
        self.evidence.retain(|target, _| is_watched(target));
        self.failing.retain(|target, _| is_watched(target));
    }

    pub(super) fn note_record(
        &mut self,
        recorded: &DecidedRecord,
        state: Option<&TargetState>,
        probe: impl FnOnce() -> String,
        journal: &mut Journal,
    ) {
        let DecidedRecord { target, record, entry, .. } = recorded;
        match record {
            Record::Stalled { .. } => {
                for account in self.open.values_mut() {
                    account.add(entry.clone());
                    self.unwritten.insert(account.target.clone());
                }
                return;
            }
            Record::Failing { .. } => {
                self.failing.insert(target.clone(), entry.clone());
                return;
            }
            Record::Down { failures, class, detail, incident, last_healthy } => {
                // One that is over and not written yet would be lost.
                self.write_one(target, journal);
                let at = clock::read();
                let open = state.and_then(|state| state.incident.as_ref());
                let began = open.map_or(at.wall, |open| at.wall_at(open.began));
                let last = (*failures, *class, detail.clone());
                let mut account = IncidentRecord::new(incident, target, began, at.wall, last);
                account.last_healthy = last_healthy.map(|healthy| at.wall_at(healthy));
                account.probe = probe();
                self.open_incident(account, open, at, journal);
            }
            _ => {}
        }
        self.update_incident(recorded, state);
    }

    fn open_incident(
        &mut self,
        mut account: IncidentRecord,
        open: Option<&Incident>,
        at: ClockReading,
        journal: &mut Journal,
    ) {
        let target = account.target.clone();
        account.down_since = open.and_then(|open| open.down_since).map(|since| at.wall_at(since));
        account.evidence = self.evidence.get(&target).cloned();
        // Of what cannot be read the incident says that nobody watched.
        let _ = journal.complete_history();
        let watched = journal.saved.history.get(&target).map(|history| history.watched(DAY, at.wall));
        account.watched_ms = u64::try_from(millis(watched.unwrap_or_default())).unwrap_or(0);
        if let Some(failing) = self.failing.remove(&target) {
            account.add(failing);
        }
        self.boot_times.extend(open.map(|open| (target.clone(), IncidentBootTimes::of(open))));
        self.open.insert(target, account);
    }

    fn update_incident(
        &mut self,
        DecidedRecord { target, record, entry, run }: &DecidedRecord,
        state: Option<&TargetState>,
    ) {
        let now = clock::now();
        let made = state.and_then(|state| state.incident.as_ref()).map(|open| open.attempts);
        let Some(account) = self.open.get_mut(target) else { return };
        let measured = self.boot_times.get_mut(target);
        match record {
            Record::Restart { .. } => {
                account.attempts = made.unwrap_or(account.attempts);
                *account.runs.entry(run.clone()).or_default() += 1;
                measured.into_iter().for_each(|measured| measured.last_run = Some(now));
            }
            Record::Up { attempts, cured, down, detail, latency, .. } => {
                account.attempts = *attempts;
                account.close(entry.at, down.span());
                account.back = Some(format!("{detail} in {}", Latency(*latency)));
                if *cured && let Some((run, at)) = last_restart(account) {
                    let ran = measured.and_then(|measured| measured.last_run);
                    let took = ran.map_or_else(|| entry.at.since(at), |ran| now.since(ran));
                    account.cured = Some(run);
                    account.heal_ms = u64::try_from(took.as_millis()).ok();
                }
            }
            Record::Rested { why, .. } => {
                account.rested = Some(*why);
                let by_wall = account.downtime(entry.at).span();
                account.close(entry.at, measured.map_or(by_wall, |measured| now.since(measured.down_since)));
            }
            _ => {}
        }
        account.add(entry.clone());
        self.unwritten.insert(target.clone());
    }

    /// Takes up the accounts of the incidents that an earlier watchdog has left open, and what it had saved last and
    /// may not have written into them.
    pub(super) fn restore(&mut self, policy: &Policy, journal: &Journal) {
        for (target, state) in policy.targets() {
            if let Some(incident) = &state.incident {
                self.restore_open(target, incident, journal);
            }
        }
        for entry in journal.saved.pending.iter().filter_map(|line| EventEntry::parse(line)) {
            let Some(target) = entry.target.clone() else { continue };
            let named = entry.kind.incident().map(str::to_owned);
            let is_of = |account: &IncidentRecord| named.as_ref().is_none_or(|id| *id == account.id);
            let is_present = self.open.get(&target).is_some_and(is_of);
            if let Some(account) = self.open.get_mut(&target).filter(|_| is_present) {
                replay(account, entry);
                self.unwritten.insert(target);
            } else if let Some(mut account) = named.and_then(|id| read_open(journal, &id)) {
                // Of one before the present one, or of one that has ended meanwhile.
                replay(&mut account, entry);
                self.save(&account, journal);
            }
        }
    }

    /// Where the account of an open incident is lost, it begins with what the state knows of it.
    fn restore_open(&mut self, target: &str, open: &Incident, journal: &Journal) {
        self.boot_times.insert(target.to_owned(), IncidentBootTimes::of(open));
        let mut account = read_open(journal, &open.id).unwrap_or_else(|| {
            let at = clock::read();
            let cause = open.cause.clone().or_else(|| open.last.clone());
            let (class, detail) = cause.unwrap_or((Class::Timeout, String::new()));
            let (began, down) = (at.wall_at(open.began), at.wall_at(open.down_at));
            let mut account = IncidentRecord::new(&open.id, target, began, down, (0, class, detail));
            account.down_since = open.down_since.map(|since| at.wall_at(since));
            account
        });
        // What was saved last may not have been written into it any more.
        account.attempts = open.attempts;
        self.open.insert(target.to_owned(), account);
    }

    /// Something more is known of an incident, even of one that is over already, as where a quick restart has cured it.
    pub(super) fn amend(
        &mut self,
        target: &str,
        incident: &str,
        journal: &Journal,
        change: impl FnOnce(&mut IncidentRecord),
    ) {
        if let Some(account) = self.open.get_mut(target).filter(|account| account.id == incident) {
            change(account);
            self.unwritten.insert(target.to_owned());
            return;
        }
        let Some(folder) = journal.incident_folder(incident) else { return };
        let Ok(Some(mut account)) = incident_record::read(&folder) else { return };
        change(&mut account);
        if let Err(error) = incident_record::save(&folder, &account) {
            log::warn!("{error} (the incident lacks what was found out)");
        }
    }

    /// Writes what has changed, as much as a pass has time for; those that are over are returned.
    pub(super) fn write(&mut self, journal: &mut Journal) -> Vec<ClosedIncident> {
        let began = clock::now();
        while let Some(target) = self.unwritten.first().cloned() {
            self.write_one(&target, journal);
            if clock::now().since(began) >= WRITE_BUDGET {
                break;
            }
        }
        if self.unwritten.is_empty() {
            journal.note_records_written();
        }
        std::mem::take(&mut self.closed)
    }

    pub(super) fn is_written(&self) -> bool {
        self.unwritten.is_empty()
    }

    fn write_one(&mut self, target: &str, journal: &Journal) {
        if !self.unwritten.remove(target) {
            return;
        }
        let Some(account) = self.open.remove(target) else { return };
        if self.save(&account, journal) {
            self.boot_times.remove(target);
        } else {
            self.open.insert(target.to_owned(), account);
        }
    }

    /// Whether the incident is over.
    fn save(&mut self, account: &IncidentRecord, journal: &Journal) -> bool {
        // First the line: a crash between the two must not lose it, and a second one is passed over.
        let closed = ClosedIncident::of(account);
        let kept = closed.as_ref().map_or(Ok(()), |closed| closed_incidents::append(journal.folder(), closed));
        let written = match journal.incident_folder(&account.id) {
            Some(folder) => incident_record::save(&folder, account).map_err(|error| error.to_string()),
            None => Ok(()), // said already
        };
        let outcome = written.and(kept.map_err(|error| error.to_string()));
        match (&outcome, self.has_failed) {
            (Err(error), false) => log::error!("{error} (what is known of incidents is not kept; the work goes on)"),
            (Ok(()), true) => log::info!("what is known of incidents can be kept again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        self.has_failed = outcome.is_err();
        self.closed.extend(closed);
        account.ended.is_some()
    }
}

/// Writes into an account what an earlier watchdog has recorded and may not have written there.
fn replay(account: &mut IncidentRecord, entry: EventEntry) {
    if account.timeline.contains(&entry) {
        return;
    }
    match &entry.kind {
        EventKind::Restart { run, .. } => *account.runs.entry(run.clone()).or_default() += 1,
        EventKind::Up { attempts, down_ms, .. } => {
            account.attempts = *attempts;
            account.close(entry.at, Duration::from_millis(*down_ms));
        }
        EventKind::Rested { why, .. } => {
            account.rested = Some(*why);
            account.close(entry.at, account.downtime(entry.at).span());
        }
        _ => {}
    }
    account.add(entry);
}

fn read_open(journal: &Journal, incident: &str) -> Option<IncidentRecord> {
    let folder = journal.incident_folder(incident)?;
    let read = incident_record::read(&folder).unwrap_or_else(|error| {
        log::warn!("{error} (the incident's account begins anew)");
        None
    });
    read.filter(|account| account.id == incident && account.ended.is_none())
}

fn last_restart(account: &IncidentRecord) -> Option<(String, WallTime)> {
    account.timeline.iter().rev().find_map(|entry| match &entry.kind {
        EventKind::Restart { run, .. } => Some((run.clone(), entry.at)),
        _ => None,
    })
}

//! The records of incidents (`incident.json`, and a line for each closed one), written after each change, a few per
//! pass. Writing them must never delay the loop for long nor stop the work: what cannot be written is missing there, no
//! more.

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

/// A tick waits this long at most for jobs that collect evidence: a folder may be on a file server that hangs.
const JOB_WAIT: Duration = Duration::from_secs(5);
/// Once a pass has spent this much time on writing records, the rest waits for the next pass: a record takes 0.1 ms on
/// a good disk, and when a network fails, 1,000 records change at once.
const WRITE_BUDGET: Duration = Duration::from_millis(10);
const DAY: Duration = Duration::from_secs(86_400);

/// The open incidents and the jobs that collect evidence about them.
#[derive(Default)]
pub(super) struct Incidents {
    /// By target.
    open: BTreeMap<String, IncidentRecord>,
    /// By target, for the open incidents: times on the boot clock, since the record has only those of the wall clock.
    boot_times: BTreeMap<String, IncidentBootTimes>,
    /// The targets whose record has changed since it was written.
    unwritten: BTreeSet<String>,
    /// Closed incidents that were written since the last call of [`Incidents::write`].
    closed: Vec<ClosedIncident>,
    /// By target: the evidence of its latest probe, if that failed.
    evidence: BTreeMap<String, Evidence>,
    /// By target: the first failure of a streak that may become an incident.
    failing: BTreeMap<String, EventEntry>,
    /// The number of jobs that collect evidence, and until when a tick waits for them.
    jobs: Option<(u32, BootTime)>,
    /// Whether the last write failed.
    has_failed: bool,
}

/// Times of an open incident on the boot clock.
#[derive(Clone, Copy)]
struct IncidentBootTimes {
    down_since: BootTime,
    /// When its latest restart command started, if this watchdog started it.
    last_run: Option<BootTime>,
}

pub(super) struct DecidedRecord {
    /// Empty for a record about the watchdog itself.
    pub(super) target: String,
    pub(super) record: Record,
    pub(super) entry: EventEntry,
    /// The restart command that the record is about, in the operator's terms.
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

    /// How long until a record is to be written, or else until a tick stops waiting for jobs.
    pub(super) fn until_due(&self, now: BootTime) -> Option<Duration> {
        if !self.unwritten.is_empty() {
            return Some(Duration::ZERO);
        }
        self.jobs.map(|(_, until)| until.since(now)).filter(|left| !left.is_zero())
    }

    pub(super) fn open(&self, target: &str) -> Option<&IncidentRecord> {
        self.open.get(target)
    }

    pub(super) fn note_probe(&mut self, target: &str, result: &mut ProbeResult) {
        match result.evidence.take() {
            Some(evidence) => {
                self.evidence.insert(target.to_owned(), *evidence);
            }
            None => {
                self.evidence.remove(target);
            }
        }
    }

    /// Forgets targets that were removed from the configuration, except records that are not written yet and incidents
    /// that are still open, which continue if the target is added again.
    pub(super) fn retain(&mut self, is_watched: impl Fn(&str) -> bool, open_incidents: &[&str]) {
        let unwritten = &self.unwritten;
        self.open.retain(|target, incident| {
            is_watched(target) || unwritten.contains(target) || open_incidents.contains(&incident.id.as_str())
        });
        self.boot_times.retain(|target, _| self.open.contains_key(target));
        self.evidence.retain(|target, _| is_watched(target));
        self.failing.retain(|target, _| is_watched(target));
    }

    pub(super) fn note_record(
        &mut self,
        decided: &DecidedRecord,
        state: Option<&TargetState>,
        probe: impl FnOnce() -> String,
        journal: &mut Journal,
    ) {
        let DecidedRecord { target, record, entry, .. } = decided;
        match record {
            Record::Stalled { .. } => {
                for incident in self.open.values_mut() {
                    incident.add(entry.clone());
                    self.unwritten.insert(incident.target.clone());
                }
                return;
            }
            Record::Failing { .. } => {
                self.failing.insert(target.clone(), entry.clone());
                return;
            }
            Record::Down { failures, class, detail, incident: id, last_healthy, by } => {
                // The target's previous incident would be lost if it was not written yet.
                self.write_one(target, journal);
                let at = clock::read();
                let open = state.and_then(|state| state.incident.as_ref());
                let began = open.map_or(at.wall, |open| at.wall_at(open.began));
                let last = (*failures, *class, detail.clone());
                let mut incident = IncidentRecord::new(id, target, began, at.wall, last);
                incident.last_healthy = last_healthy.map(|healthy| at.wall_at(healthy));
                incident.probe = probe();
                incident.by = *by;
                self.open_incident(incident, open, at, journal);
            }
            _ => {}
        }
        self.update_incident(decided, state);
    }

    fn open_incident(
        &mut self,
        mut incident: IncidentRecord,
        open: Option<&Incident>,
        at: ClockReading,
        journal: &mut Journal,
    ) {
        let target = incident.target.clone();
        incident.down_since = open.and_then(|open| open.down_since).map(|since| at.wall_at(since));
        incident.evidence = self.evidence.get(&target).cloned();
        // If the history cannot be read, the record says that the target was not watched.
        let _ = journal.complete_history();
        let watched = journal.saved.history.get(&target).map(|history| history.watched(DAY, at.wall));
        incident.watched_ms = u64::try_from(millis(watched.unwrap_or_default())).unwrap_or(0);
        if let Some(failing) = self.failing.remove(&target) {
            incident.add(failing);
        }
        self.boot_times.extend(open.map(|open| (target.clone(), IncidentBootTimes::of(open))));
        self.open.insert(target, incident);
    }

    fn update_incident(
        &mut self,
        DecidedRecord { target, record, entry, run }: &DecidedRecord,
        state: Option<&TargetState>,
    ) {
        let now = clock::now();
        let attempts_made = state.and_then(|state| state.incident.as_ref()).map(|open| open.attempts);
        let Some(incident) = self.open.get_mut(target) else { return };
        // A restart that the operator ordered may have begun before the incident, and that of a drill ends after it.
        if let Record::Restart { incident: of, .. }
        | Record::RestartDone { incident: of, .. }
        | Record::DrillEnded { incident: of, .. } = record
            && of.as_ref() != Some(&incident.id)
        {
            return;
        }
        let boot_times = self.boot_times.get_mut(target);
        match record {
            Record::Restart { .. } => {
                incident.attempts = attempts_made.unwrap_or(incident.attempts);
                *incident.runs.entry(run.clone()).or_default() += 1;
                boot_times.into_iter().for_each(|times| times.last_run = Some(now));
            }
            Record::Up { attempts, cured, down, detail, latency, .. } => {
                incident.attempts = *attempts;
                incident.close(entry.at, down.duration());
                incident.back = Some(format!("{detail} in {}", Latency(*latency)));
                if *cured && let Some((run, at)) = last_restart(incident) {
                    let last_run = boot_times.and_then(|times| times.last_run);
                    let healing = last_run.map_or_else(|| entry.at.since(at), |last_run| now.since(last_run));
                    incident.cured = Some(run);
                    incident.heal_ms = u64::try_from(healing.as_millis()).ok();
                }
            }
            Record::Rested { .. } | Record::DrillEnded { .. } => {
                if let Record::Rested { why, .. } = record {
                    incident.rested = Some(*why);
                }
                let by_wall = incident.downtime(entry.at).duration();
                incident.close(entry.at, boot_times.map_or(by_wall, |times| now.since(times.down_since)));
            }
            _ => {}
        }
        incident.add(entry.clone());
        self.unwritten.insert(target.clone());
    }

    /// Loads the records of the incidents that an earlier watchdog left open, and adds the events that it had saved but
    /// may not have written there.
    pub(super) fn restore(&mut self, policy: &Policy, journal: &Journal) {
        for (target, state) in policy.targets() {
            if let Some(open) = &state.incident {
                self.restore_open(target, open, journal);
            }
        }
        for entry in journal.saved.pending.iter().filter_map(|line| EventEntry::parse(line)) {
            let Some(target) = entry.target.clone() else { continue };
            let id = entry.kind.incident().map(str::to_owned);
            let is_same = |incident: &IncidentRecord| id.as_ref().is_none_or(|id| *id == incident.id);
            let is_open = self.open.get(&target).is_some_and(is_same);
            if let Some(incident) = self.open.get_mut(&target).filter(|_| is_open) {
                replay(incident, entry);
                self.unwritten.insert(target);
            } else if let Some(mut incident) = id.and_then(|id| read_open(journal, &id)) {
                // The event belongs to an earlier incident, or to one that has ended meanwhile.
                replay(&mut incident, entry);
                self.save(&incident, journal);
            }
        }
    }

    /// If the record of an open incident is lost, a new one starts from what the state contains.
    fn restore_open(&mut self, target: &str, open: &Incident, journal: &Journal) {
        self.boot_times.insert(target.to_owned(), IncidentBootTimes::of(open));
        let mut incident = read_open(journal, &open.id).unwrap_or_else(|| {
            let at = clock::read();
            let cause = open.cause.clone().or_else(|| open.last.clone());
            let (class, detail) = cause.unwrap_or((Class::Timeout, String::new()));
            let (began, down) = (at.wall_at(open.began), at.wall_at(open.down_at));
            let mut incident = IncidentRecord::new(&open.id, target, began, down, (0, class, detail));
            incident.down_since = open.down_since.map(|since| at.wall_at(since));
            incident
        });
        // The record may be older than the state.
        incident.attempts = open.attempts;
        self.open.insert(target.to_owned(), incident);
    }

    /// Adds evidence to an incident, even to one that a quick restart has ended already.
    pub(super) fn amend(
        &mut self,
        target: &str,
        id: &str,
        journal: &Journal,
        change: impl FnOnce(&mut IncidentRecord),
    ) {
        if let Some(incident) = self.open.get_mut(target).filter(|incident| incident.id == id) {
            change(incident);
            self.unwritten.insert(target.to_owned());
            return;
        }
        let Some(folder) = journal.incident_folder(id) else { return };
        let Ok(Some(mut incident)) = incident_record::read(&folder) else { return };
        change(&mut incident);
        if let Err(error) = incident_record::save(&folder, &incident) {
            log::warn!("{error} (its evidence is incomplete)");
        }
    }

    /// Writes changed records, as many as [`WRITE_BUDGET`] allows. Returns the incidents that were closed.
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
        let Some(incident) = self.open.remove(target) else { return };
        if self.save(&incident, journal) {
            self.boot_times.remove(target);
        } else {
            self.open.insert(target.to_owned(), incident);
        }
    }

    /// Returns whether the incident is closed.
    fn save(&mut self, incident: &IncidentRecord, journal: &Journal) -> bool {
        // The line first: a crash between the two must not lose it, and a duplicate is skipped when the lines are read.
        let closed = ClosedIncident::of(incident);
        let appended = closed.as_ref().map_or(Ok(()), |closed| closed_incidents::append(journal.folder(), closed));
        let written = match journal.incident_folder(&incident.id) {
            Some(folder) => incident_record::save(&folder, incident).map_err(|error| error.to_string()),
            None => Ok(()), // incident_folder has logged it
        };
        let outcome = written.and(appended.map_err(|error| error.to_string()));
        match (&outcome, self.has_failed) {
            (Err(error), false) => log::error!("{error} (records of incidents are incomplete; watching goes on)"),
            (Ok(()), true) => log::info!("records of incidents can be written again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        self.has_failed = outcome.is_err();
        self.closed.extend(closed);
        incident.ended.is_some()
    }
}

/// Adds an event that an earlier watchdog recorded but may not have written into the incident's record.
fn replay(incident: &mut IncidentRecord, entry: EventEntry) {
    if incident.timeline.contains(&entry) {
        return;
    }
    match &entry.kind {
        EventKind::Restart { run, .. } => *incident.runs.entry(run.clone()).or_default() += 1,
        EventKind::Up { attempts, down_ms, .. } => {
            incident.attempts = *attempts;
            incident.close(entry.at, Duration::from_millis(*down_ms));
        }
        EventKind::Rested { .. } | EventKind::DrillEnded { .. } => {
            if let EventKind::Rested { why, .. } = &entry.kind {
                incident.rested = Some(*why);
            }
            incident.close(entry.at, incident.downtime(entry.at).duration());
        }
        _ => {}
    }
    incident.add(entry);
}

fn read_open(journal: &Journal, id: &str) -> Option<IncidentRecord> {
    let folder = journal.incident_folder(id)?;
    let read = incident_record::read(&folder).unwrap_or_else(|error| {
        log::warn!("{error} (a new record of the incident begins)");
        None
    });
    read.filter(|incident| incident.id == id && incident.ended.is_none())
}

fn last_restart(incident: &IncidentRecord) -> Option<(String, WallTime)> {
    incident.timeline.iter().rev().find_map(|entry| match &entry.kind {
        EventKind::Restart { run, .. } => Some((run.clone(), entry.at)),
        _ => None,
    })
}

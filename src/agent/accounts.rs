//! What is kept of each incident: its account, written at each change, and what is found out when a target goes down.
//! It must never hold up the loop: what takes time is a job, and what cannot be kept is missing there and no more.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::clock;
use crate::command::{self, Remains};
use crate::config::CommandLine;
use crate::outcome::{Class, Ending, Evidence, Look};
use crate::policy::{Event, Incident, Record, TargetState};
use crate::process::Machine;
use crate::store::account::{self, Account};
use crate::store::events::{Entry, Kind};
use crate::store::history::{Absence, Gap};
use crate::store::past::{self, Closed};
use crate::time::{Span, Timestamp, Wall, millis};

use super::Agent;
use super::jobs::{Message, Order, strike};
use super::spawn::Job;

/// A tick waits no longer than this for what is still being found out: a folder may be on a file server that hangs.
const FINDING: Duration = Duration::from_secs(5);
/// What `diagnose` may take, all its commands together.
const DIAGNOSIS: Duration = Duration::from_secs(10);
/// What the end of a command that does not want to end may take, and a slow machine.
pub(super) const ENDING: Duration = Duration::from_secs(20);
/// A look at the machine takes a quarter of a second.
const SNAPSHOT: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);

/// The incidents that are open, and what is being found out about them.
#[derive(Default)]
pub(super) struct Accounts {
    /// By target.
    open: BTreeMap<String, Account>,
    /// By target, of those: what is measured on the boot clock, since the account has the wall clock's times only.
    measured: BTreeMap<String, Measured>,
    /// By target: what its latest look saw, while that was a bad one.
    evidence: BTreeMap<String, Evidence>,
    /// By target: the first failure of a streak that may become an incident.
    failing: BTreeMap<String, Entry>,
    /// The incidents that wait for the snapshot that is being taken.
    snapshot_for: Vec<(String, String)>,
    /// Jobs that find something out, and until when a tick waits for them.
    finding: Option<(u32, Timestamp)>,
    /// Whether the latest account could be written.
    trouble: bool,
}

/// Points of an open incident on the boot clock.
#[derive(Clone, Copy)]
struct Measured {
    /// Since when it counts as down.
    since: Timestamp,
    /// When its latest restart command was started, as far as this watchdog did it.
    ran: Option<Timestamp>,
}

impl Measured {
    fn of(open: &Incident) -> Measured {
        Measured { since: open.down_since.unwrap_or(open.began), ran: None }
    }
}

impl Accounts {
    /// A job begins that finds something out.
    pub(super) fn find(&mut self, now: Timestamp) {
        let jobs = self.finding.map_or(0, |(jobs, _)| jobs);
        self.finding = Some((jobs + 1, now + FINDING));
    }

    /// It has ended.
    pub(super) fn found(&mut self) {
        self.finding = self.finding.filter(|(jobs, _)| *jobs > 1).map(|(jobs, until)| (jobs - 1, until));
    }

    /// Whether a tick has to wait.
    pub(super) fn is_finding(&self, now: Timestamp) -> bool {
        self.finding.is_some_and(|(_, until)| until > now)
    }

    /// How long it has to at most.
    pub(super) fn pause(&self, now: Timestamp) -> Option<Duration> {
        self.finding.map(|(_, until)| until.since(now)).filter(|left| !left.is_zero())
    }

    /// The account of the target's open incident.
    pub(super) fn open(&self, target: &str) -> Option<&Account> {
        self.open.get(target)
    }

    /// Keeps what a bad look saw until the next look.
    pub(super) fn note_look(&mut self, target: &str, look: &mut Look) {
        match look.evidence.take() {
            Some(evidence) => {
                self.evidence.insert(target.to_owned(), *evidence);
            }
            None => {
                self.evidence.remove(target);
            }
        }
    }

    /// Forgets targets that are not watched any more, but for their incidents that are still open: they go on where
    /// the target comes back.
    pub(super) fn retain(&mut self, is_watched: impl Fn(&str) -> bool, open_incidents: &[&str]) {
        self.open.retain(|target, account| is_watched(target) || open_incidents.contains(&account.id.as_str()));
        self.measured.retain(|target, _| self.open.contains_key(target));
        self.evidence.retain(|target, _| is_watched(target));
        self.failing.retain(|target, _| is_watched(target));
    }
}

impl Agent {
    /// Writes into the accounts what has just been recorded.
    pub(super) fn account_for(&mut self, records: &[(String, Record)], entries: Vec<Entry>) {
        let mut changed = Vec::new();
        for ((target, record), entry) in records.iter().zip(entries) {
            match record {
                Record::Rested { .. } => {
                    self.saved.undecided.remove(target);
                    if self.go_on(target, entry, record) {
                        changed.push(target.clone());
                    }
                }
                Record::Stalled { gap } => {
                    let from = entry.at.shifted(-millis(*gap));
                    self.saved.gaps.note(Gap { from, to: entry.at, why: Absence::Stalled });
                    for account in self.accounts.open.values_mut() {
                        account.add(entry.clone());
                        changed.push(account.target.clone());
                    }
                }
                Record::Failing { .. } => {
                    self.accounts.failing.insert(target.clone(), entry);
                }
                Record::Down { failures, class, detail, incident, last_healthy } => {
                    self.count_undecided(target);
                    self.open_account(target, incident, (*failures, *class, detail.clone()), *last_healthy);
                    self.go_on(target, entry, record);
                    self.examine(target, incident);
                    changed.push(target.clone());
                }
                _ => {
                    if self.go_on(target, entry, record) {
                        changed.push(target.clone());
                    }
                }
            }
        }
        changed.sort();
        changed.dedup();
        changed.iter().for_each(|target| self.write_account(target));
    }

    fn open_account(
        &mut self,
        target: &str,
        incident: &str,
        last: (u32, Class, String),
        last_healthy: Option<Timestamp>,
    ) {
        let (now, wall) = (clock::now(), clock::wall());
        let on_wall = |at: Timestamp| wall.shifted(at.as_ms().saturating_sub(now.as_ms()));
        let open = self.policy.target(target).and_then(|state| state.incident.as_ref());
        let began = open.map_or(wall, |open| on_wall(open.began));
        let mut account = Account::new(incident, target, began, wall, last);
        account.down_since = open.and_then(|open| open.down_since).map(on_wall);
        self.accounts.measured.extend(open.map(|open| (target.to_owned(), Measured::of(open))));
        account.last_healthy = last_healthy.map(on_wall);
        account.probe = self.target(target).map_or_else(String::new, |target| target.probe.to_string());
        account.evidence = self.accounts.evidence.get(target).cloned();
        // Of what cannot be read the incident says that nobody watched.
        let _ = self.complete_history();
        let watched = self.saved.history.get(target).map(|history| history.watched(DAY, wall));
        account.watched_ms = u64::try_from(millis(watched.unwrap_or_default())).unwrap_or(0);
        if let Some(failing) = self.accounts.failing.remove(target) {
            account.add(failing);
        }
        self.accounts.open.insert(target.to_owned(), account);
    }

    /// Takes up the accounts of the incidents that an earlier watchdog has left open, and what it had saved last and
    /// may not have written into them.
    pub(super) fn take_accounts_up(&mut self) {
        let open = |(name, state): (&String, &TargetState)| Some((name.clone(), state.incident.clone()?));
        let open: Vec<(String, Incident)> = self.policy.state().targets.iter().filter_map(open).collect();
        open.into_iter().for_each(|(target, incident)| self.take_account_up(&target, incident));
        let pending: Vec<Entry> = self.saved.pending.iter().filter_map(|line| Entry::parse(line)).collect();
        for entry in pending {
            let Some(target) = entry.target.clone() else { continue };
            if let Kind::Up { incident, .. } | Kind::Rested { incident: Some(incident), .. } = &entry.kind
                && let Some(account) = self.read_account(incident)
            {
                self.accounts.open.insert(target.clone(), account);
            }
            let Some(account) = self.accounts.open.get_mut(&target) else { continue };
            if !account.timeline.contains(&entry) {
                match &entry.kind {
                    Kind::Restart { run, .. } => *account.runs.entry(run.clone()).or_default() += 1,
                    Kind::Up { attempts, down_ms, .. } => {
                        account.attempts = *attempts;
                        account.close(entry.at, Duration::from_millis(*down_ms));
                    }
                    Kind::Rested { why, .. } => {
                        account.rested = Some(*why);
                        account.close(entry.at, account.downtime(entry.at).span());
                    }
                    _ => {}
                }
                account.add(entry);
                self.write_account(&target);
            }
        }
    }

    /// The account of an incident, if it is one that is not over.
    fn read_account(&self, incident: &str) -> Option<Account> {
        let folder = self.incident_folder(incident)?;
        let read = account::read(&folder).unwrap_or_else(|error| {
            log::warn!("{error} (the incident's account begins anew)");
            None
        });
        read.filter(|account| account.id == incident && account.ended.is_none())
    }

    /// Where the account of an open incident is lost, it begins with what the state knows of it.
    fn take_account_up(&mut self, target: &str, open: Incident) {
        self.accounts.measured.insert(target.to_owned(), Measured::of(&open));
        let mut account = self.read_account(&open.id).unwrap_or_else(|| {
            let (now, wall) = (clock::now(), clock::wall());
            let on_wall = |at: Timestamp| wall.shifted(at.as_ms().saturating_sub(now.as_ms()));
            let (class, detail) = open.cause.or(open.last).unwrap_or((Class::Timeout, String::new()));
            let mut account =
                Account::new(&open.id, target, on_wall(open.began), on_wall(open.down_at), (0, class, detail));
            account.down_since = open.down_since.map(on_wall);
            account
        });
        // What was saved last may not have been written into it any more.
        account.attempts = open.attempts;
        self.accounts.open.insert(target.to_owned(), account);
    }

    /// Adds what happened to the open account of the target; whether it has one.
    fn go_on(&mut self, target: &str, entry: Entry, record: &Record) -> bool {
        let (now, command) = (clock::now(), self.command_of(target, record));
        let made = self.policy.target(target).and_then(|state| state.incident.as_ref()).map(|open| open.attempts);
        let Some(account) = self.accounts.open.get_mut(target) else { return false };
        let measured = self.accounts.measured.get_mut(target);
        match record {
            Record::Restart { .. } => {
                account.attempts = made.unwrap_or(account.attempts);
                *account.runs.entry(command).or_default() += 1;
                measured.into_iter().for_each(|measured| measured.ran = Some(now));
            }
            Record::Up { attempts, cured, down, detail, latency, .. } => {
                account.attempts = *attempts;
                account.close(entry.at, down.span());
                account.back = Some(format!("{detail} in {}", crate::time::Latency(*latency)));
                if *cured && let Some((run, at)) = last_run(account) {
                    let ran = measured.and_then(|measured| measured.ran);
                    let took = ran.map_or_else(|| entry.at.since(at), |ran| now.since(ran));
                    account.cured = Some(run);
                    account.heal_ms = u64::try_from(took.as_millis()).ok();
                }
            }
            Record::Rested { why, .. } => {
                account.rested = Some(*why);
                let by_wall = account.downtime(entry.at).span();
                account.close(entry.at, measured.map_or(by_wall, |measured| now.since(measured.since)));
            }
            _ => {}
        }
        account.add(entry);
        true
    }

    fn write_account(&mut self, target: &str) {
        let Some(account) = self.accounts.open.get(target) else { return };
        // First the line: a crash between the two must not lose it, and a second one is passed over.
        let closed = Closed::of(account);
        let kept = closed.as_ref().map_or(Ok(()), |closed| past::append(&self.folder, closed));
        let written = match self.incident_folder(&account.id) {
            Some(folder) => account::save(&folder, account).map_err(|error| error.to_string()),
            None => Ok(()), // said already
        };
        if let Some(closed) = &closed {
            self.publisher.note_end(closed);
            self.accounts.open.remove(target);
            self.accounts.measured.remove(target);
        }
        let outcome = written.and(kept.map_err(|error| error.to_string()));
        match (&outcome, self.accounts.trouble) {
            (Err(error), false) => log::error!("{error} (what is known of incidents is not kept; the work goes on)"),
            (Ok(()), true) => log::info!("what is known of incidents can be kept again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        self.accounts.trouble = outcome.is_err();
    }

    /// What is found out of a target that goes down, whatever is configured: the machine, and what PM2 knows.
    fn examine(&mut self, target: &str, incident: &str) {
        let is_under_way = !self.accounts.snapshot_for.is_empty();
        self.accounts.snapshot_for.push((target.to_owned(), incident.to_owned()));
        if !is_under_way {
            self.accounts.find(clock::now());
            let folder = self.folder.path().to_owned();
            let job = Job {
                name: "snapshot",
                of: String::new(),
                by: String::new(),
                within: SNAPSHOT,
                outlives_us: false,
                otherwise: Box::new(|_| Message::Snapshot(Box::default())),
            };
            self.jobs.spawn(job, move |_| Message::Snapshot(Box::new(Machine::now(&folder, clock::now()))));
        }
        self.keep_what_pm2_says(target, incident);
    }

    /// What the machine was like, for all incidents that wait for it.
    pub(super) fn snapshot(&mut self, machine: &Machine) {
        self.accounts.found();
        for (target, incident) in std::mem::take(&mut self.accounts.snapshot_for) {
            self.amend(&target, &incident, |account| account.machine = Some(machine.clone()));
        }
    }

    /// What PM2 knows is kept in the incident's folder.
    pub(super) fn kept(&mut self, target: &str, incident: &str, doing: Option<(u32, String)>, said: Option<String>) {
        self.accounts.found();
        let (pid, process) = doing.unzip();
        self.amend(target, incident, |account| (account.pid, account.process, account.said) = (pid, process, said));
    }

    pub(super) fn amend(&mut self, target: &str, incident: &str, change: impl FnOnce(&mut Account)) {
        let open = self.accounts.open.get_mut(target).filter(|account| account.id == incident);
        if let Some(account) = open {
            change(account);
            self.write_account(target);
            return;
        }
        // It is over already, as one that a quick restart has cured.
        let Some(folder) = self.incident_folder(incident) else { return };
        let Ok(Some(mut account)) = account::read(&folder) else { return };
        change(&mut account);
        if let Err(error) = account::save(&folder, &account) {
            log::warn!("{error} (the incident lacks what was found out)");
        }
    }

    /// Runs what the operator wants to know of a target that went down, one command after the other.
    pub(super) fn diagnose(&mut self, target: String, incident: String) {
        let diagnosed = |target, incident| Message::Event(Event::Diagnosed { target, incident });
        let commands = self.target(&target).map(|target| target.diagnose.clone()).unwrap_or_default();
        let folder = self.incident_folder(&incident);
        self.amend(&target, &incident, |account| {
            account.diagnosed = commands.iter().map(CommandLine::to_string).collect();
        });
        let failures = self.policy.target(&target).map_or(0, TargetState::failures);
        let order = Order { target: target.clone(), attempt: 0, rung: 0, incident: incident.clone(), failures };
        let spec = |(index, command): (usize, &CommandLine)| {
            let output = folder.as_deref().map(|folder| diagnosis(folder, index));
            (self.spec(command, DIAGNOSIS, &order, folder.as_deref(), output.as_deref()), output)
        };
        let secrets = self.config.secrets.clone();
        let specs: Vec<_> = commands.iter().enumerate().map(spec).collect();
        let (about, of) = (target.clone(), incident.clone());
        let job = Job {
            name: "diagnosis",
            of: target.clone(),
            by: String::new(),
            within: DIAGNOSIS + ENDING,
            outlives_us: false,
            otherwise: Box::new(move |why| {
                log::warn!("{about} could not be looked into (diagnose): {why}");
                diagnosed(about, of)
            }),
        };
        self.jobs.spawn(job, move |work| {
            let began = clock::now();
            let (count, mut good) = (specs.len(), 0);
            for (spec, output) in specs {
                let left = DIAGNOSIS.saturating_sub(clock::now().since(began));
                match spec {
                    _ if left.is_zero() => break,
                    Ok(spec) => {
                        let spec = command::Spec { timeout: left, scope: work.scope(), ..spec };
                        let ended = command::run(command::Spec { remains: Remains::End, ..spec }, |_| ());
                        strike(output.as_deref(), &secrets);
                        good += usize::from(ended.ending == Ending::Exited(0));
                    }
                    Err(error) => log::warn!("{target} cannot be looked into: no place for the output: {error}"),
                }
            }
            let took = Span(clock::now().since(began));
            log::info!("{target} looked into: {good} of {count} commands (diagnose) exited 0, in {took}");
            diagnosed(target, incident)
        });
    }
}

/// Where the output of a command of `diagnose` goes.
fn diagnosis(folder: &Path, index: usize) -> std::path::PathBuf {
    folder.join(format!("diagnose-{}.out", index + 1))
}

/// The restart command that was run last, and when.
fn last_run(account: &Account) -> Option<(String, Wall)> {
    account.timeline.iter().rev().find_map(|entry| match &entry.kind {
        Kind::Restart { run, .. } => Some((run.clone(), entry.at)),
        _ => None,
    })
}

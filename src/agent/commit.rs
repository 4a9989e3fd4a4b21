//! Carries out the actions of the policy: those of one pass are saved together, then logged, then carried out.
//! No action may be carried out before its save was tried, and none after another watchdog has taken over the folder.

use log::Level;

use crate::clock;
use crate::logging::about;
use crate::policy::{Action, Mode, OrderedBy, Record};
use crate::store::events::{CommandOutcome, EventEntry, EventKind};
use crate::store::history::{Gap, GapReason};
use crate::time::{ClockReading, millis};
use crate::view::log_line::{LogLine, RestartLimit};

use super::Agent;
use super::incidents::DecidedRecord;
use super::jobs::AttemptContext;
use super::journal::Durability;
use super::news::NewsKind;

impl Agent {
    /// Starts probes at once, since they change nothing, and continues the processes of a drill, since no crash may
    /// come between the save of its end and that; queues all other actions until the state is saved, and
    /// requests that save where the action needs it.
    pub(super) fn accept_actions(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Probe { target, number } => self.start_probe(target, number),
                Action::ContinueProcesses { target, processes } => self.continue_processes(&target, &processes),
                Action::Save => self.journal.request_save(Durability::ProcessCrash),
                action => {
                    if action.needs_save() {
                        self.journal.request_save(Durability::PowerLoss);
                    }
                    self.pending_actions.push(action);
                }
            }
        }
    }

    /// Saves and carries out the pending actions, unless the last save ended too short a time ago.
    pub(super) fn commit(&mut self) {
        if self.journal.until_save(clock::now()).is_none_or(|left| left.is_zero()) {
            self.commit_once();
        }
    }

    /// Commits without that delay, including the actions that follow: used before an event that could make the pending
    /// actions invalid. Each save that starts to fail, or to succeed again, can cause further actions; after 3 rounds
    /// the rest is left to the next pass.
    pub(super) fn commit_now(&mut self) {
        for _ in 0..3 {
            self.commit_once();
            if self.is_settled() {
                return;
            }
        }
    }

    /// Whether no action waits and no save is requested.
    pub(super) fn is_settled(&self) -> bool {
        self.pending_actions.is_empty() && !self.journal.is_save_requested()
    }

    /// Whether a tick has done its work.
    pub(super) fn is_done(&self) -> bool {
        self.policy.is_idle() && self.is_settled()
    }

    fn commit_once(&mut self) {
        let further = if self.journal.is_save_requested() { self.save_actions() } else { Vec::new() };
        if self.journal.is_displaced() {
            return;
        }
        for action in std::mem::take(&mut self.pending_actions) {
            self.carry_out(action);
        }
        self.accept_actions(further);
        self.write_incidents();
        self.start_deliveries();
    }

    /// Saves, logs and records the pending actions. Returns the policy's further actions, for the next save.
    fn save_actions(&mut self) -> Vec<Action> {
        let at = clock::read();
        let mut records = self.decided_records(at);
        // Saved together with the events, so that counters and events agree even after a crash.
        records.iter().for_each(|DecidedRecord { target, record, .. }| self.count_record(target, record));
        self.enqueue_messages(at);
        self.save(&entries_of(&records));
        if self.journal.is_displaced() {
            return Vec::new();
        }
        let is_saved = self.journal.is_saved();
        let further = self.policy.save_finished(is_saved, &mut self.pending_actions, clock::now());
        if !is_saved {
            // The policy has withdrawn attempts that must not be made without a save.
            let before = std::mem::replace(&mut records, self.decided_records(at));
            let is_left = |one: &DecidedRecord| records.iter().any(|left| left.entry == one.entry);
            before.iter().filter(|one| !is_left(one)).for_each(|one| self.uncount_attempt(&one.target));
        }
        self.journal.write_events(&entries_of(&records));
        for one in &records {
            self.announce(one, at);
            self.record_incident(one);
        }
        if is_saved {
            self.remove_applied_requests();
        }
        further
    }

    fn decided_records(&self, at: ClockReading) -> Vec<DecidedRecord> {
        let decided_record = |action: &Action| {
            let Action::Record { target, record } = action else { return None };
            let (target, record) = (target.clone().unwrap_or_default(), record.clone());
            let run = self.command_of_record(&target, &record);
            let entry = event_entry(&target, &record, &run, at);
            Some(DecidedRecord { target, record, entry, run })
        };
        self.pending_actions.iter().filter_map(decided_record).collect()
    }

    pub(super) fn save(&mut self, entries: &[EventEntry]) {
        self.journal.saved.log_trouble = self.logging.as_ref().and_then(crate::logging::Logging::describe_loss);
        if let Some(error) = self.journal.save(&self.policy, entries) {
            self.news.print_once_a_day(&error, &error);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::CheckPrecondition { target, precondition } => self.check_precondition(target, precondition),
            Action::Inspect { target } => self.inspect_target(target),
            Action::CheckReset { target } => self.check_reset(target),
            Action::Diagnose { target, incident } => self.diagnose(target, incident),
            Action::Run { target, attempt, rung, folder, failures, by } => {
                self.run_command(AttemptContext { target, number: attempt, rung, folder, failures, by });
            }
            Action::ProveProcesses { target, id } => self.prove_processes(target, id),
            Action::StopProcesses { target, id, processes } => self.stop_processes(target, id, &processes),
            Action::AdoptCommand { target, process, rung, since } => self.adopt_command(target, process, rung, since),
            // Handled by save_actions.
            Action::Record { .. } | Action::Notify { .. } => {}
            Action::Probe { .. } | Action::ContinueProcesses { .. } | Action::Save => {
                unreachable!("handled by accept_actions")
            }
        }
    }

    pub(super) fn command_of_record(&self, target: &str, record: &Record) -> String {
        let rung = match record {
            Record::Restart { rung, .. } | Record::RestartDone { rung, .. } | Record::WouldRestart { rung, .. } => {
                *rung
            }
            _ => return String::new(),
        };
        self.command_at(target, rung).unwrap_or_default()
    }

    /// Logs a record, and prints it if it is news.
    fn announce(&mut self, DecidedRecord { target, record, run, .. }: &DecidedRecord, at: ClockReading) {
        let configured = self.target(target);
        let last_line = match record {
            Record::RestartDone { folder, attempt, rung, .. } => self.last_output_line(folder, *attempt, *rung),
            _ => None,
        };
        let log_line = LogLine {
            target,
            command: run,
            output_line: last_line.as_deref(),
            depends_on: configured.map_or(&[][..], |target| &target.limits.depends_on),
            limit: configured.map(|target| RestartLimit::of(&target.limits)),
            attempt: self.policy.target(target).and_then(|state| state.real.episode).map(|episode| episode.attempts),
            interval: configured.map(|target| target.limits.interval).filter(|_| self.mode == Mode::Daemon),
            at,
            zone: self.zone,
        };
        let (level, line) = log_line.line(record);
        log::log!(target: &about(target), level, "{}", log_line.message(&line));
        let is_paused = self.policy.target(target).is_some_and(|state| state.pauses.until().is_some());
        if is_news(record, level) && !is_paused {
            self.news.print_if_new(target, NewsKind::of(record), &news_key(record), &line, self.journal.is_saved());
        }
    }

    /// Updates the history and the incident's record.
    fn record_incident(&mut self, one: &DecidedRecord) {
        let target = &one.target;
        match &one.record {
            Record::Rested { .. } | Record::Down { by: Some(OrderedBy::Drill), .. } => {
                self.journal.saved.undecided.remove(target);
            }
            Record::Stalled { gap } => {
                let (from, to) = (one.entry.at.offset_by(-millis(*gap)), one.entry.at);
                self.journal.saved.gaps.note(Gap { from, to, why: GapReason::Stalled });
            }
            Record::Down { .. } => self.count_undecided(target),
            _ => {}
        }
        let probe = self.target(target).map(|target| target.probe.clone());
        let probe = || probe.map_or_else(String::new, |probe| probe.to_string());
        self.incidents.note_record(one, self.policy.target(target), probe, &mut self.journal);
        if let Record::Down { incident, .. } = &one.record {
            self.collect_evidence(target, incident);
        }
    }

    pub(super) fn write_incidents(&mut self) {
        if self.journal.is_displaced() {
            return;
        }
        let closed = self.incidents.write(&mut self.journal);
        closed.iter().for_each(|closed| self.publisher.note_closed(closed));
    }
}

fn entries_of(records: &[DecidedRecord]) -> Vec<EventEntry> {
    records.iter().map(|record| record.entry.clone()).collect()
}

fn event_entry(target: &str, record: &Record, run: &str, at: ClockReading) -> EventEntry {
    let from_one = |rung: usize| u32::try_from(rung + 1).unwrap_or(u32::MAX);
    let ms = |span| u64::try_from(millis(span)).unwrap_or(0);
    let kind = match record.clone() {
        Record::Failing { class, detail, by, .. } => EventKind::Failing { class, detail, by },
        Record::Down { failures, class, detail, incident, by, .. } => {
            EventKind::Down { failures, class, detail, incident, by }
        }
        Record::Restart { attempt, rung, incident, by, .. } => {
            EventKind::Restart { attempt, rung: from_one(rung), run: run.to_owned(), incident, by }
        }
        Record::RestartDone { attempt, rung, exit: ending, duration: took, incident, by, .. } => {
            let (rung, outcome) = (from_one(rung), CommandOutcome::from(&ending));
            EventKind::RestartDone { attempt, rung, outcome, took_ms: ms(took), incident, by }
        }
        Record::WouldRestart { attempt, rung, incident } => {
            EventKind::WouldRestart { attempt, rung: from_one(rung), run: run.to_owned(), incident }
        }
        Record::HeldBack { why, until, by, .. } => {
            EventKind::HeldBack { why, until: until.map(|until| at.wall_at(until)), by }
        }
        Record::Up { incident, down, attempts, by, .. } => {
            EventKind::Up { incident, down_ms: down.as_ms(), attempts, by }
        }
        Record::Rested { why, incident } => EventKind::Rested { why, incident },
        Record::Woke { why } => EventKind::Woke { why },
        Record::Warn { about, detail } => EventKind::Warn { about, detail },
        Record::Paused { until, command } => EventKind::Paused { until: at.wall_at(until), command },
        Record::Resumed { until } => EventKind::Resumed { until: Some(at.wall_at(until)) },
        Record::Stalled { gap } => EventKind::Stalled { gap_ms: ms(gap) },
        Record::DrillBegan { pids, .. } => EventKind::DrillBegan { pids },
        Record::DrillEnded { outcome, incident } => EventKind::DrillEnded { outcome, incident },
    };
    EventEntry { at: at.wall, target: (!target.is_empty()).then(|| target.to_string()), kind }
}

/// Identifies news of one kind, whatever its details: a tick notes this key to avoid printing it again.
fn news_key(record: &Record) -> String {
    match record {
        Record::HeldBack { why, .. } => format!("held back: {}", why.as_str()),
        Record::Warn { about, .. } => format!("warned: {about:?}"),
        _ => format!("{:?}", std::mem::discriminant(record)),
    }
}

/// Whether cron should mail it: a target goes down, is restarted, recovers, or is held back for a new reason; warnings.
fn is_news(record: &Record, level: Level) -> bool {
    match record {
        Record::Failing { .. } | Record::Paused { .. } | Record::Resumed { .. } | Record::Stalled { .. } => false,
        // The operator who stopped it knows that; it is news only if it ends an outage.
        Record::Rested { incident, .. } => incident.is_some(),
        Record::Woke { .. } => false,
        // The operator who ordered it sees it.
        Record::DrillBegan { .. } | Record::DrillEnded { .. } => false,
        Record::Down { .. } | Record::Up { .. } | Record::HeldBack { .. } | Record::Warn { .. } => true,
        Record::Restart { .. } | Record::WouldRestart { .. } => true,
        Record::RestartDone { .. } => level < Level::Info,
    }
}

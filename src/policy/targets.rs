//! The targets by index, with indexes over all of them: queues of due attempts, running attempts, next wake-ups.
//! Each update of a target updates them, so no event costs more with more targets. It must never decide.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::time::Duration;

use crate::policy::Limits;
use crate::policy::limits::GAP_AT_LEAST;
use crate::policy::notify;
use crate::policy::schedule::Schedule;
use crate::policy::state::{Attempt, Phase, TargetState};
use crate::policy::target_context::Neighbours;
use crate::time::BootTime;

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) limits: Limits,
    pub(super) schedule: Schedule,
    pub(super) state: TargetState,
    /// The indices of the targets that this one depends on, and of those that depend on it.
    depends_on: Vec<usize>,
    dependents: Vec<usize>,
    /// The place in the queue of due attempts.
    ticket: Option<u64>,
    keys: QueueKeys,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct QueueKeys {
    wake: Option<BootTime>,
    ticket: Option<u64>,
    is_awaiting_answer: bool,
    is_attempting: bool,
    is_active: bool,
    counts_as_trouble: bool,
    dependency: DependencyState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct DependencyState {
    in_trouble: bool,
    is_being_probed: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Targets {
    /// In the order of their names. An index is valid until targets are added or removed.
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    wakes: BTreeSet<(BootTime, usize)>,
    /// The queue of due attempts: first come, first served.
    due: BTreeSet<(u64, usize)>,
    /// The due attempts that only wait for an answer.
    awaiting: BTreeSet<(u64, usize)>,
    last_ticket: u64,
    attempts: BTreeSet<usize>,
    active: usize,
    in_trouble: usize,
    /// Every due attempt must be decided again, because the reason for its wait may have changed.
    reconsider_all: bool,
    /// These due attempts must be decided again.
    reconsider: BTreeSet<usize>,
}

impl Entry {
    pub(super) fn new(name: String, limits: Limits, schedule: Schedule, state: TargetState) -> Entry {
        let (depends_on, dependents) = (Vec::new(), Vec::new());
        Entry { name, limits, schedule, state, depends_on, dependents, ticket: None, keys: QueueKeys::default() }
    }

    fn queue_keys(&self, now: BootTime) -> QueueKeys {
        let Entry { schedule, state, .. } = self;
        QueueKeys {
            wake: self.wake_at(now),
            ticket: self.ticket,
            is_awaiting_answer: schedule.awaits_answer,
            is_attempting: state.attempt.is_some(),
            is_active: schedule.has_pending_probe()
                || schedule.is_prechecking()
                || state.attempt.is_some()
                || state.is_diagnosing(),
            counts_as_trouble: !schedule.retired && state.status.is_trouble(),
            dependency: DependencyState {
                in_trouble: state.is_in_trouble(),
                is_being_probed: schedule.in_flight.is_some(),
            },
        }
    }

    /// When the target must be updated even if no event arrives.
    fn wake_at(&self, now: BootTime) -> Option<BootTime> {
        let next_probe = self.schedule.next.filter(|_| self.schedule.in_flight.is_none());
        let verifying = match self.state.phase() {
            Some(Phase::Verifying { until }) => Some(*until),
            Some(Phase::CheckingReset | Phase::Running { .. }) | None => None,
        };
        // A target at rest is inspected after its next failed probe, not at a time of its own.
        let waiting = self.state.waiting.filter(|_| self.state.rest.is_none()).and_then(|waiting| waiting.until);
        let start_period = self.state.start_period.map(|period| period.until);
        let diagnosing = self.state.incident.as_ref().and_then(|incident| incident.diagnosing);
        let inspected = self.schedule.inspection_deadline();
        // A notification that is not sent at its time, for example in a pause, is sent after the next probe.
        let notification =
            notify::notification_times(&self.state).chain(self.state.rest.and_then(|rest| rest.reminder_at()));
        let notification = notification.filter(|at| *at > now).min();
        let pauses = self.state.pauses.until();
        let drill = self.state.drills.running.as_ref().map(|drill| drill.until);
        [next_probe, drill, verifying, waiting, start_period, diagnosing, pauses, inspected, notification]
            .into_iter()
            .flatten()
            .min()
    }

    /// The delay of the due probe, or of the verdict of the probe in flight, that arose in a wait from `from` to `to`;
    /// `None` if it is too short to prove that the watchdog itself did not run.
    fn gap(&self, from: BootTime, to: BootTime) -> Option<Duration> {
        let due = match &self.schedule.in_flight {
            Some(probe) => probe.started + self.limits.timeout,
            None => self.schedule.next?,
        };
        let late = to.since(due.max(from));
        (late > self.limits.gap()).then_some(late)
    }
}

impl Targets {
    /// Replaces all entries. Their indices change; their places in the queue do not.
    pub(super) fn replace(&mut self, entries: impl IntoIterator<Item = Entry>, now: BootTime) {
        let mut entries: Vec<Entry> = entries.into_iter().collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let by_name = entries.iter().enumerate().map(|(index, entry)| (entry.name.clone(), index)).collect();
        *self = Targets { entries, by_name, last_ticket: self.last_ticket, reconsider_all: true, ..Targets::default() };
        for index in self.indices() {
            let names = &self.entries[index].limits.depends_on;
            let depends_on: Vec<usize> = names.iter().filter_map(|name| self.index_of(name)).collect();
            depends_on.iter().for_each(|on| self.entries[*on].dependents.push(index));
            let entry = &mut self.entries[index];
            (entry.depends_on, entry.keys) = (depends_on, QueueKeys::default());
        }
        self.indices().for_each(|index| self.reindex(index, now));
    }

    pub(super) fn take(&mut self) -> BTreeMap<String, Entry> {
        let entries = std::mem::take(&mut self.entries).into_iter();
        entries.map(|entry| (entry.name.clone(), Entry { dependents: Vec::new(), ..entry })).collect()
    }

    pub(super) fn indices(&self) -> Range<usize> {
        0..self.entries.len()
    }

    pub(super) fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(super) fn get(&self, name: &str) -> Option<&TargetState> {
        self.index_of(name).map(|index| &self.entries[index].state)
    }

    pub(super) fn states(&self) -> impl Iterator<Item = (&str, &TargetState)> {
        self.entries.iter().map(|entry| (entry.name.as_str(), &entry.state))
    }

    /// The target was removed from the configuration and has no running attempt.
    pub(super) fn can_be_released(&self, index: usize) -> bool {
        let Entry { schedule, state, .. } = &self.entries[index];
        schedule.retired && state.attempt.is_none()
    }

    /// The only way to change a target.
    pub(super) fn update(&mut self, index: usize, now: BootTime, act: impl FnOnce(&mut Entry)) {
        act(&mut self.entries[index]);
        self.reindex(index, now);
    }

    fn reindex(&mut self, index: usize, now: BootTime) {
        let entry = &mut self.entries[index];
        match (entry.schedule.is_due, entry.ticket) {
            (true, None) => {
                self.last_ticket += 1;
                entry.ticket = Some(self.last_ticket);
            }
            (false, Some(_)) => entry.ticket = None,
            (true, Some(_)) | (false, None) => {}
        }
        let new = entry.queue_keys(now);
        let old = std::mem::replace(&mut entry.keys, new.clone());
        if old == new {
            return;
        }
        requeue(&mut self.wakes, index, old.wake, new.wake);
        requeue(&mut self.due, index, old.ticket, new.ticket);
        let was_first = self.awaiting.first().is_some_and(|(_, first)| *first == index);
        requeue(
            &mut self.awaiting,
            index,
            old.ticket.filter(|_| old.is_awaiting_answer),
            new.ticket.filter(|_| new.is_awaiting_answer),
        );
        if old.is_attempting != new.is_attempting {
            if new.is_attempting {
                self.attempts.insert(index)
            } else {
                self.attempts.remove(&index)
            };
        }
        self.reconsider_all |= old.is_attempting != new.is_attempting || (was_first && !new.is_awaiting_answer);
        self.active = self.active + usize::from(new.is_active) - usize::from(old.is_active);
        self.in_trouble = self.in_trouble + usize::from(new.counts_as_trouble) - usize::from(old.counts_as_trouble);
        if old.dependency != new.dependency {
            self.reconsider.extend(&self.entries[index].dependents);
        }
    }

    pub(super) fn request_reconsideration(&mut self) {
        self.reconsider_all = true;
    }

    pub(super) fn must_reconsider_all(&self) -> bool {
        self.reconsider_all
    }

    /// The due attempts to decide about, in the order in which they became due: those at the targets in `touched`, and
    /// those whose reason to wait may have changed.
    pub(super) fn take_due(&mut self, touched: &BTreeSet<usize>) -> Vec<usize> {
        let reconsidered = std::mem::take(&mut self.reconsider);
        if std::mem::take(&mut self.reconsider_all) {
            return self.due.iter().map(|(_, index)| *index).collect();
        }
        let due = |index: &usize| Some((self.entries[*index].ticket?, *index));
        let mut due: Vec<_> = touched.union(&reconsidered).filter_map(due).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, index)| index).collect()
    }

    pub(super) fn neighbours(&self, index: usize) -> Neighbours {
        let ticket = self.entries[index].ticket;
        let dependencies = || self.entries[index].depends_on.iter().map(|on| self.entries[*on].keys.dependency);
        Neighbours {
            busy: self.attempts.iter().any(|other| *other != index),
            dependency_in_trouble: dependencies().any(|dependency| dependency.in_trouble),
            dependency_being_probed: dependencies().any(|dependency| dependency.is_being_probed),
            is_queued_behind: self
                .awaiting
                .first()
                .is_some_and(|(first, _)| ticket.is_some_and(|ticket| *first < ticket)),
        }
    }

    pub(super) fn due_wakes(&self, now: BootTime) -> impl Iterator<Item = usize> {
        self.wakes.range(..=(now, usize::MAX)).map(|(_, index)| *index)
    }

    pub(super) fn next_wake(&self) -> Option<BootTime> {
        self.wakes.first().map(|(at, _)| *at)
    }

    pub(super) fn active_count(&self) -> usize {
        self.active
    }

    pub(super) fn trouble_count(&self) -> usize {
        self.in_trouble
    }

    pub(super) fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter_map(|index| self.entries[*index].state.attempt.as_ref())
    }

    /// The longest time that the watchdog itself did not run in a wait from `from` to `to`, as the delays show it.
    pub(super) fn gap(&self, from: BootTime, to: BootTime) -> Option<Duration> {
        if to.since(from) <= GAP_AT_LEAST {
            return None;
        }
        self.entries.iter().filter_map(|entry| entry.gap(from, to)).max()
    }
}

/// Moves a target within a queue, or adds or removes it.
fn requeue<K: Ord + Copy>(queue: &mut BTreeSet<(K, usize)>, index: usize, old: Option<K>, new: Option<K>) {
    if old != new {
        old.map(|at| queue.remove(&(at, index)));
        new.map(|at| queue.insert((at, index)));
    }
}

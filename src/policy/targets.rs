//! The targets, each found by its index, and what holds across them: which attempts are due and which are made, when
//! the next target wakes up. It is kept with each change to a target, so that nobody has to ask all of them.
//! It must never decide.

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
    /// By index: what it depends on, and what depends on it.
    depends_on: Vec<usize>,
    dependents: Vec<usize>,
    /// Its place in the queue of those whose attempt is due.
    turn: Option<u64>,
    keys: QueueKeys,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct QueueKeys {
    wake: Option<BootTime>,
    turn: Option<u64>,
    /// Its due attempt only awaits an answer.
    awaits: bool,
    is_made: bool,
    is_active: bool,
    needs_care: bool,
    as_dependency: Dependency,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Dependency {
    in_trouble: bool,
    is_probed: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Targets {
    /// In the order of their names. An index holds until targets come or go.
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    wakes: BTreeSet<(BootTime, usize)>,
    /// Those whose attempt is due: first come, first served.
    due: BTreeSet<(u64, usize)>,
    /// Those of them that only await an answer.
    awaiting: BTreeSet<(u64, usize)>,
    turns: u64,
    attempts: BTreeSet<usize>,
    active: usize,
    in_trouble: usize,
    /// What the due attempts wait for has changed, for all of them.
    reconsider_all: bool,
    /// For these.
    reconsider: BTreeSet<usize>,
}

impl Entry {
    pub(super) fn new(name: String, limits: Limits, plan: Schedule, state: TargetState) -> Entry {
        let (depends_on, dependents) = (Vec::new(), Vec::new());
        Entry { name, limits, schedule: plan, state, depends_on, dependents, turn: None, keys: QueueKeys::default() }
    }

    fn queue_keys(&self, now: BootTime) -> QueueKeys {
        let Entry { schedule: plan, state, .. } = self;
        QueueKeys {
            wake: self.wake(now),
            turn: self.turn,
            awaits: plan.awaits_answer,
            is_made: state.attempt.is_some(),
            is_active: plan.has_probe_in_flight()
                || plan.is_prechecking()
                || state.attempt.is_some()
                || state.is_diagnosing(),
            needs_care: !plan.retired && state.status.is_trouble(),
            as_dependency: Dependency { in_trouble: state.is_in_trouble(), is_probed: plan.in_flight.is_some() },
        }
    }

    /// When something is to be decided about it though nothing happens.
    fn wake(&self, now: BootTime) -> Option<BootTime> {
        let next_look = self.schedule.next.filter(|_| self.schedule.in_flight.is_none());
        let verifying = match self.state.phase() {
            Some(Phase::Verifying { until }) => Some(*until),
            Some(Phase::CheckingReset | Phase::Running { .. }) | None => None,
        };
        // What is at rest is asked about when the next look finds it so.
        let waiting = self.state.waiting.filter(|_| self.state.rest.is_none()).and_then(|waiting| waiting.until);
        let start_period = self.state.start_period.map(|period| period.until);
        let diagnosing = self.state.incident.as_ref().and_then(|incident| incident.diagnosing);
        let inspected = self.schedule.inspected_until();
        // What is not told then, since something forbids that, is told with the next look.
        let told = notify::due_at(&self.state).chain(self.state.rest.and_then(|rest| rest.reminder_at()));
        let told = told.filter(|at| *at > now).min();
        let pauses = self.state.pauses.until();
        [next_look, verifying, waiting, start_period, diagnosing, pauses, inspected, told].into_iter().flatten().min()
    }

    /// How late the look that is due, or the verdict of the one that is made, has become in a wait between the two, if
    /// that is too late to be anything but a gap in our own running.
    fn gap(&self, from: BootTime, to: BootTime) -> Option<Duration> {
        let due = match &self.schedule.in_flight {
            Some(asked) => asked.at + self.limits.timeout,
            None => self.schedule.next?,
        };
        let late = to.since(due.max(from));
        (late > self.limits.gap()).then_some(late)
    }
}

impl Targets {
    /// Takes these instead of those that were there. Their indices change, their turns do not.
    pub(super) fn replace(&mut self, entries: impl IntoIterator<Item = Entry>, now: BootTime) {
        let mut entries: Vec<Entry> = entries.into_iter().collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let by_name = entries.iter().enumerate().map(|(index, entry)| (entry.name.clone(), index)).collect();
        *self = Targets { entries, by_name, turns: self.turns, reconsider_all: true, ..Targets::default() };
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

    pub(super) fn named(&self, name: &str) -> Option<&TargetState> {
        self.index_of(name).map(|index| &self.entries[index].state)
    }

    pub(super) fn states(&self) -> impl Iterator<Item = (&str, &TargetState)> {
        self.entries.iter().map(|entry| (entry.name.as_str(), &entry.state))
    }

    /// Whether it has left the configuration and nothing of it is under way any more.
    pub(super) fn is_to_leave(&self, index: usize) -> bool {
        let Entry { schedule: plan, state, .. } = &self.entries[index];
        plan.retired && state.attempt.is_none()
    }

    /// The only way to change a target.
    pub(super) fn change(&mut self, index: usize, now: BootTime, act: impl FnOnce(&mut Entry)) {
        act(&mut self.entries[index]);
        self.reindex(index, now);
    }

    fn reindex(&mut self, index: usize, now: BootTime) {
        let entry = &mut self.entries[index];
        match (entry.schedule.is_due, entry.turn) {
            (true, None) => {
                self.turns += 1;
                entry.turn = Some(self.turns);
            }
            (false, Some(_)) => entry.turn = None,
            (true, Some(_)) | (false, None) => {}
        }
        let new = entry.queue_keys(now);
        let old = std::mem::replace(&mut entry.keys, new.clone());
        if old == new {
            return;
        }
        moved(&mut self.wakes, index, old.wake, new.wake);
        moved(&mut self.due, index, old.turn, new.turn);
        let was_first = self.awaiting.first().is_some_and(|(_, first)| *first == index);
        moved(&mut self.awaiting, index, old.turn.filter(|_| old.awaits), new.turn.filter(|_| new.awaits));
        if old.is_made != new.is_made {
            if new.is_made {
                self.attempts.insert(index)
            } else {
                self.attempts.remove(&index)
            };
        }
        self.reconsider_all |= old.is_made != new.is_made || (was_first && !new.awaits);
        self.active = self.active + usize::from(new.is_active) - usize::from(old.is_active);
        self.in_trouble = self.in_trouble + usize::from(new.needs_care) - usize::from(old.needs_care);
        if old.as_dependency != new.as_dependency {
            self.reconsider.extend(&self.entries[index].dependents);
        }
    }

    pub(super) fn reconsider_all(&mut self) {
        self.reconsider_all = true;
    }

    pub(super) fn are_all_to_be_considered(&self) -> bool {
        self.reconsider_all
    }

    /// The due attempts that may have to wait no longer, or for something else, in the order in which they became due:
    /// those of the targets of these indices, and of those for which anything else has changed.
    pub(super) fn due_to_consider(&mut self, touched: &BTreeSet<usize>) -> Vec<usize> {
        let also = std::mem::take(&mut self.reconsider);
        if std::mem::take(&mut self.reconsider_all) {
            return self.due.iter().map(|(_, index)| *index).collect();
        }
        let due = |index: &usize| Some((self.entries[*index].turn?, *index));
        let mut due: Vec<_> = touched.union(&also).filter_map(due).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, index)| index).collect()
    }

    pub(super) fn neighbours(&self, index: usize) -> Neighbours {
        let turn = self.entries[index].turn;
        let dependencies = || self.entries[index].depends_on.iter().map(|on| self.entries[*on].keys.as_dependency);
        Neighbours {
            busy: self.attempts.iter().any(|other| *other != index),
            dependency_in_trouble: dependencies().any(|dependency| dependency.in_trouble),
            dependency_probed: dependencies().any(|dependency| dependency.is_probed),
            is_behind: self.awaiting.first().is_some_and(|(first, _)| turn.is_some_and(|turn| *first < turn)),
        }
    }

    pub(super) fn woken(&self, now: BootTime) -> impl Iterator<Item = usize> {
        self.wakes.range(..=(now, usize::MAX)).map(|(_, index)| *index)
    }

    pub(super) fn next_wake(&self) -> Option<BootTime> {
        self.wakes.first().map(|(at, _)| *at)
    }

    pub(super) fn active(&self) -> usize {
        self.active
    }

    pub(super) fn in_trouble(&self) -> usize {
        self.in_trouble
    }

    pub(super) fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter_map(|index| self.entries[*index].state.attempt.as_ref())
    }

    /// The longest gap in our own running that shows in a wait between the two. A short wait hides none.
    pub(super) fn gap(&self, from: BootTime, to: BootTime) -> Option<Duration> {
        if to.since(from) <= GAP_AT_LEAST {
            return None;
        }
        self.entries.iter().filter_map(|entry| entry.gap(from, to)).max()
    }
}

/// Moves a target in a queue, or puts it in or takes it out.
fn moved<K: Ord + Copy>(queue: &mut BTreeSet<(K, usize)>, index: usize, old: Option<K>, new: Option<K>) {
    if old != new {
        old.map(|at| queue.remove(&(at, index)));
        new.map(|at| queue.insert((at, index)));
    }
}

//! Adds, changes and removes targets, at the start of the watchdog and at each reload.
//! It must never forget the attempts made at a target that may return.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::time::Duration;

use crate::outcome::Exit;
use crate::policy::schedule::Schedule;
use crate::policy::state::{Attempt, Phase, StartPeriod, StartReason, TargetState};
use crate::policy::target_context::TargetContext;
use crate::policy::targets::Entry;
use crate::policy::ticks::max_streak_age;
use crate::policy::{Action, Limits, Mode, Policy};
use crate::time::BootTime;

/// The contract's rule 15.
const REMOVED_KEPT_FOR: Duration = Duration::from_secs(86_400);
/// The contract's rule 13: the probes of more targets than this are spread over their interval.
const SPREAD_ABOVE: usize = 10;

impl Policy {
    /// An earlier watchdog's attempt or drill is brought to its end even if its target has left the configuration.
    pub(super) fn restore_unfinished(&mut self, now: BootTime) {
        let unfinished: Vec<(String, TargetState)> =
            self.removed.extract_if(.., |_, state| state.attempt.is_some() || state.is_in_drill()).collect();
        if unfinished.is_empty() {
            return;
        }
        let mut entries = self.targets.take();
        entries.extend(unfinished.into_iter().map(|(name, state)| {
            let schedule = Schedule { retired: true, ..Schedule::default() };
            (name.clone(), Entry::new(name, Limits::default(), schedule, state))
        }));
        self.targets.replace(entries.into_values(), now);
    }

    /// Makes `all` the configured targets. `lost`: their earlier attempts are unknown.
    pub(super) fn set_limits(&mut self, all: BTreeMap<String, Limits>, lost: bool, now: BootTime) {
        // The indices change below.
        self.touched.clear();
        let mut entries = self.targets.take();
        for (name, entry) in &mut entries {
            entry.schedule.retired |= !all.contains_key(name);
        }
        let count = all.len();
        for (index, (name, limits)) in all.into_iter().enumerate() {
            let anchor = self.anchor(index, count, &limits, now);
            if let Some(entry) = entries.get_mut(&name) {
                entry.set_limits(limits, anchor, now);
                continue;
            }
            let paused = || TargetState { pauses: self.pauses.clone(), ..new_state(&limits, lost, now) };
            let state = self.removed.remove(&name).unwrap_or_else(paused);
            let schedule = Schedule { anchor, next: Some(anchor), ..Schedule::default() };
            let mut entry = Entry::new(name.clone(), limits, schedule, state);
            entry.begin_watch(max_streak_age(self.tick_gap), now);
            entries.insert(name, entry);
        }
        self.targets.replace(entries.into_values(), now);
    }

    /// The time of the first regular probe: now, or spread over the interval if there are many targets.
    fn anchor(&self, index: usize, count: usize, limits: &Limits, now: BootTime) -> BootTime {
        if self.mode == Mode::Once || count <= SPREAD_ABOVE {
            return now;
        }
        let share = |part: usize| u32::try_from(part).unwrap_or(u32::MAX);
        now + limits.interval / share(count) * share(index)
    }

    /// Moves removed targets whose attempt has ended to those that are remembered for a day. Only the targets with the
    /// indices in `touched` can have reached that point.
    pub(super) fn release_removed(&mut self, touched: &BTreeSet<usize>, now: BootTime) {
        self.removed.retain(|_, state| now.since(*state.removed_at.get_or_insert(now)) < REMOVED_KEPT_FOR);
        if !touched.iter().any(|index| self.targets.can_be_released(*index)) {
            return;
        }
        let mut entries = self.targets.take();
        let leave = entries.extract_if(.., |_, entry| entry.schedule.retired && entry.state.attempt.is_none());
        self.removed.extend(leave.map(|(name, entry)| (name, TargetState { removed_at: Some(now), ..entry.state })));
        self.targets.replace(entries.into_values(), now);
    }
}

fn new_state(limits: &Limits, lost: bool, now: BootTime) -> TargetState {
    let mut state = TargetState { probe_id: limits.probe_id, ..TargetState::default() };
    if lost {
        state.proven = true;
        state.real.cooldown_until = Some(now + limits.max_cooldown);
    }
    state
}

impl Entry {
    /// Prepares a target that this watchdog has not watched before.
    /// `max_streak_age`: how old the last failure of a streak that still counts may be.
    fn begin_watch(&mut self, max_streak_age: Duration, now: BootTime) {
        let state = &mut self.state;
        state.removed_at = None;
        if state.streak.is_some_and(|streak| now.since(streak.last) > max_streak_age) {
            state.streak = None;
        }
        let booted = BootTime::BOOT + self.limits.start_period;
        let was_healthy = state.last_healthy.is_some_and(|at| at >= BootTime::BOOT);
        if now < booted && !was_healthy && state.start_period.is_none() {
            state.start_period = Some(StartPeriod { until: booted, after: StartReason::Boot });
        }
        if state.start_period.is_some() {
            self.schedule.next = Some(now);
        }
        self.reset_what_changed(now);
    }

    /// New limits for a target that is watched, or was removed and returns while its last attempt still runs.
    fn set_limits(&mut self, limits: Limits, anchor: BootTime, now: BootTime) {
        let returns = take(&mut self.schedule.retired);
        if returns || self.limits.interval != limits.interval {
            self.schedule.anchor = anchor;
            self.schedule.next = Some(anchor);
        }
        if self.limits.repair_id != limits.repair_id {
            // The running check belongs to the previous configuration.
            self.schedule.outdated = self.schedule.is_prechecking();
            self.schedule.expire_precheck();
        }
        self.limits = limits;
        self.reset_what_changed(now);
    }

    fn reset_what_changed(&mut self, now: BootTime) {
        let Entry { limits, schedule, state, .. } = self;
        if state.probe_id != limits.probe_id {
            state.probe_id = limits.probe_id;
            state.proven = false;
            state.real.unproven = 0;
            state.dry.unproven = 0;
            state.streak = None;
            schedule.in_flight = None;
            schedule.next = Some(now);
        }
        if state.dry_run != limits.dry_run {
            state.dry_run = limits.dry_run;
            state.streak = None;
            state.stand_down = None;
            state.start_period = state.start_period.filter(|period| period.after != StartReason::Attempt);
        }
    }
}

impl Attempt {
    pub(super) fn may_continue(&self, limits: &Limits, schedule: &Schedule) -> bool {
        !schedule.retired && !limits.dry_run && self.repair_id == limits.repair_id
    }
}

impl TargetContext<'_> {
    /// Ends what an earlier watchdog left unfinished: waits for a command that may still run, and closes the rest.
    pub(super) fn recover_attempt(&mut self) {
        // The diagnosis ended with the watchdog that ran it.
        self.state.incident.iter_mut().for_each(|incident| incident.diagnosing = None);
        let Some(attempt) = &mut self.state.attempt else { return };
        attempt.over = true;
        attempt.ran = true;
        match attempt.phase {
            Phase::Running { since, process: Some(process) } => {
                let (target, rung) = (self.name.to_string(), attempt.rung);
                self.actions.push(Action::AdoptCommand { target, process, rung, since });
            }
            Phase::Running { process: None, .. } => self.command_ended(Exit::Lost, Duration::ZERO),
            Phase::CheckingReset | Phase::Verifying { .. } => self.end_attempt(),
        }
    }
}

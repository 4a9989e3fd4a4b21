//! How targets come and go: with the start of the watchdog and with every reload.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::time::Duration;

use crate::outcome::Exit;
use crate::policy::schedule::Schedule;
use crate::policy::state::{Attempt, Phase, StartPeriod, StartReason, TargetState};
use crate::policy::target_context::TargetContext;
use crate::policy::targets::Entry;
use crate::policy::ticks::streak_holds;
use crate::policy::{Action, Limits, Mode, Policy};
use crate::time::BootTime;

/// A removed target is remembered for this long, in case it comes back.
const REMEMBERED: Duration = Duration::from_secs(86_400);
/// More targets than this are spread over their interval.
const SPREAD_ABOVE: usize = 10;

impl Policy {
    /// An earlier watchdog's attempt at a target that is not in the configuration any more is still brought to its end.
    pub(super) fn keep_unfinished(&mut self, now: BootTime) {
        let unfinished: Vec<(String, TargetState)> =
            self.removed.extract_if(.., |_, state| state.attempt.is_some()).collect();
        if unfinished.is_empty() {
            return;
        }
        let mut entries = self.targets.take();
        entries.extend(unfinished.into_iter().map(|(name, state)| {
            let plan = Schedule { retired: true, ..Schedule::default() };
            (name.clone(), Entry::new(name, Limits::default(), plan, state))
        }));
        self.targets.replace(entries.into_values(), now);
    }

    /// Takes `all` as the configuration's targets. `lost`: nothing is known of the attempts made at them.
    pub(super) fn enter(&mut self, all: BTreeMap<String, Limits>, lost: bool, now: BootTime) {
        // Their indices change.
        self.touched.clear();
        let mut entries = self.targets.take();
        for (name, entry) in &mut entries {
            entry.schedule.retired |= !all.contains_key(name);
        }
        let count = all.len();
        for (index, (name, limits)) in all.into_iter().enumerate() {
            let anchor = self.anchor(index, count, &limits, now);
            if let Some(entry) = entries.get_mut(&name) {
                entry.limit(limits, anchor, now);
                continue;
            }
            let paused = || TargetState { pauses: self.pauses.clone(), ..unknown(&limits, lost, now) };
            let state = self.removed.remove(&name).unwrap_or_else(paused);
            let plan = Schedule { anchor, next: Some(anchor), ..Schedule::default() };
            let mut newcomer = Entry::new(name.clone(), limits, plan, state);
            newcomer.arrive(streak_holds(self.tick_gap), now);
            entries.insert(name, newcomer);
        }
        self.targets.replace(entries.into_values(), now);
    }

    /// The first regular look: at once, or spread over the interval where there are many.
    fn anchor(&self, index: usize, count: usize, limits: &Limits, now: BootTime) -> BootTime {
        if self.mode == Mode::Once || count <= SPREAD_ABOVE {
            return now;
        }
        let share = |part: usize| u32::try_from(part).unwrap_or(u32::MAX);
        now + limits.interval / share(count) * share(index)
    }

    /// Moves removed targets whose attempt is over to those that are remembered for a day. `touched`: where that may be
    /// so by now.
    pub(super) fn let_go(&mut self, touched: &BTreeSet<usize>, now: BootTime) {
        self.removed.retain(|_, state| now.since(*state.removed_at.get_or_insert(now)) < REMEMBERED);
        if !touched.iter().any(|index| self.targets.is_to_leave(*index)) {
            return;
        }
        let mut entries = self.targets.take();
        let leave = entries.extract_if(.., |_, entry| entry.schedule.retired && entry.state.attempt.is_none());
        self.removed.extend(leave.map(|(name, entry)| (name, TargetState { removed_at: Some(now), ..entry.state })));
        self.targets.replace(entries.into_values(), now);
    }
}

fn unknown(limits: &Limits, lost: bool, now: BootTime) -> TargetState {
    let mut state = TargetState { probe_id: limits.probe_id, ..TargetState::default() };
    if lost {
        state.proven = true;
        state.real.cooldown_until = Some(now + limits.max_cooldown);
    }
    state
}

impl Entry {
    /// What holds for a target that this watchdog did not watch until now.
    /// `streak_holds`: how old its last failure may be to count still.
    fn arrive(&mut self, streak_holds: Duration, now: BootTime) {
        let state = &mut self.state;
        state.removed_at = None;
        if state.streak.is_some_and(|streak| now.since(streak.last) > streak_holds) {
            state.streak = None;
        }
        let booted = BootTime::BOOT + self.limits.start_period;
        let seen_up = state.last_healthy.is_some_and(|at| at >= BootTime::BOOT);
        if now < booted && !seen_up && state.start_period.is_none() {
            state.start_period = Some(StartPeriod { until: booted, after: StartReason::Boot });
        }
        if state.start_period.is_some() {
            self.schedule.next = Some(now);
        }
        self.fit(now);
    }

    /// Other limits for a target that is watched already, or was until its last attempt began.
    fn limit(&mut self, limits: Limits, anchor: BootTime, now: BootTime) {
        let comes_back = take(&mut self.schedule.retired);
        if comes_back || self.limits.interval != limits.interval {
            self.schedule.anchor = anchor;
            self.schedule.next = Some(anchor);
        }
        if self.limits.repair_id != limits.repair_id {
            // What is being asked is asked under what was configured before.
            self.schedule.outdated = self.schedule.is_prechecking();
            self.schedule.pass_expires();
        }
        self.limits = limits;
        self.fit(now);
    }

    fn fit(&mut self, now: BootTime) {
        let Entry { limits, schedule: plan, state, .. } = self;
        if state.probe_id != limits.probe_id {
            state.probe_id = limits.probe_id;
            state.proven = false;
            state.real.unproven = 0;
            state.dry.unproven = 0;
            state.streak = None;
            plan.in_flight = None;
            plan.next = Some(now);
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
    pub(super) fn may_go_on(&self, limits: &Limits, plan: &Schedule) -> bool {
        !plan.retired && !limits.dry_run && self.repair_id == limits.repair_id
    }
}

impl TargetContext<'_> {
    /// What an earlier watchdog left unfinished: a command that may still run is waited for, the rest is closed.
    pub(super) fn take_up(&mut self) {
        // What was being found out has ended with whoever found it out.
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

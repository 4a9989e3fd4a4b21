//! How targets come and go: with the start of the watchdog and with every reload.

use std::collections::BTreeMap;
use std::mem::take;
use std::time::Duration;

use crate::outcome::Ending;
use crate::policy::case::Case;
use crate::policy::plan::Plan;
use crate::policy::state::{Attempt, Beginning, Phase, StartPeriod, TargetState};
use crate::policy::ticks::streak_holds;
use crate::policy::{Action, Limits, Mode, Policy, Watched};
use crate::time::Timestamp;

/// A removed target is remembered for this long, in case it comes back.
const REMEMBERED: Duration = Duration::from_secs(86_400);
/// More targets than this are spread over their interval.
const SPREAD_ABOVE: usize = 10;

impl Policy {
    /// An earlier watchdog's attempt at a target that is not in the configuration any more is still brought to its end.
    pub(super) fn keep_unfinished(&mut self) {
        let unfinished = self.gone.iter().filter(|(_, state)| state.attempt.is_some());
        let names: Vec<String> = unfinished.map(|(name, _)| name.clone()).collect();
        for (name, state) in names.into_iter().filter_map(|name| self.gone.remove_entry(&name)) {
            let plan = Plan { retired: true, ..Plan::default() };
            self.watched.insert(name, Watched { limits: Limits::default(), plan, state });
        }
    }

    /// Takes `all` as the configuration's targets. `lost`: nothing is known of the attempts made at them.
    pub(super) fn enter(&mut self, all: BTreeMap<String, Limits>, lost: bool, now: Timestamp) {
        for (name, watched) in &mut self.watched {
            watched.plan.retired |= !all.contains_key(name);
        }
        let count = all.len();
        for (index, (name, limits)) in all.into_iter().enumerate() {
            let anchor = self.anchor(index, count, &limits, now);
            if let Some(watched) = self.watched.get_mut(&name) {
                watched.change(limits, anchor, now);
                continue;
            }
            let paused = || TargetState { pauses: self.pauses.clone(), ..unknown(&limits, lost, now) };
            let state = self.gone.remove(&name).unwrap_or_else(paused);
            let plan = Plan { anchor, next: Some(anchor), ..Plan::default() };
            let mut newcomer = Watched { limits, plan, state };
            newcomer.arrive(streak_holds(self.tick_gap), now);
            self.watched.insert(name, newcomer);
        }
    }

    /// The first regular look: at once, or spread over the interval where there are many.
    fn anchor(&self, index: usize, count: usize, limits: &Limits, now: Timestamp) -> Timestamp {
        if self.mode == Mode::Tick || count <= SPREAD_ABOVE {
            return now;
        }
        let share = |part: usize| u32::try_from(part).unwrap_or(u32::MAX);
        now + limits.interval / share(count) * share(index)
    }

    /// Moves removed targets whose attempt is over to those that are remembered for a day.
    pub(super) fn let_go(&mut self, now: Timestamp) {
        self.watched.retain(|name, Watched { plan, state, .. }| {
            let leaves = plan.retired && state.attempt.is_none();
            if leaves {
                self.gone.insert(name.clone(), take(state));
            }
            !leaves
        });
        self.gone.retain(|_, state| now.since(*state.removed_at.get_or_insert(now)) < REMEMBERED);
    }
}

/// A target of which nothing is remembered.
fn unknown(limits: &Limits, lost: bool, now: Timestamp) -> TargetState {
    let mut state = TargetState { probe_id: limits.probe_id, ..TargetState::default() };
    if lost {
        state.proven = true;
        state.real.cooldown_until = Some(now + limits.max_cooldown);
    }
    state
}

impl Watched {
    /// What holds for a target that this watchdog did not watch until now.
    /// `streak_holds`: how old its last failure may be to count still.
    fn arrive(&mut self, streak_holds: Duration, now: Timestamp) {
        let state = &mut self.state;
        state.removed_at = None;
        if state.streak.is_some_and(|streak| now.since(streak.last) > streak_holds) {
            state.streak = None;
        }
        let booted = Timestamp::BOOT + self.limits.start_period;
        let seen_up = state.last_healthy.is_some_and(|at| at >= Timestamp::BOOT);
        if now < booted && !seen_up && state.start_period.is_none() {
            state.start_period = Some(StartPeriod { until: booted, after: Beginning::Boot });
        }
        if state.start_period.is_some() {
            self.plan.next = Some(now);
        }
        self.fit(now);
    }

    /// Other limits for a target that is watched already, or was until its last attempt began.
    fn change(&mut self, limits: Limits, anchor: Timestamp, now: Timestamp) {
        let comes_back = take(&mut self.plan.retired);
        if comes_back || self.limits.interval != limits.interval {
            self.plan.anchor = anchor;
            self.plan.next = Some(anchor);
        }
        if self.limits.repair_id != limits.repair_id {
            // What is being asked is asked under what was configured before.
            self.plan.outdated = self.plan.is_asking();
            self.plan.pass_expires();
        }
        self.limits = limits;
        self.fit(now);
    }

    /// What the limits make of what is remembered.
    fn fit(&mut self, now: Timestamp) {
        let Watched { limits, plan, state } = self;
        if state.probe_id != limits.probe_id {
            state.probe_id = limits.probe_id;
            state.proven = false;
            state.real.unproven = 0;
            state.dry.unproven = 0;
            state.streak = None;
            plan.asked = None;
            plan.next = Some(now);
        }
        if state.dry_run != limits.dry_run {
            state.dry_run = limits.dry_run;
            state.streak = None;
            state.stand_down = None;
            state.start_period = state.start_period.filter(|period| period.after != Beginning::Attempt);
        }
    }
}

impl Attempt {
    /// Whether a further rung may be begun under the configuration as it is now.
    pub(super) fn may_go_on(&self, limits: &Limits, plan: &Plan) -> bool {
        !plan.retired && !limits.dry_run && self.repair_id == limits.repair_id
    }
}

impl Case<'_> {
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
                self.actions.push(Action::Adopt { target, process, rung, since });
            }
            Phase::Running { process: None, .. } => self.ended(Ending::Lost, Duration::ZERO),
            Phase::Intended | Phase::Weighing | Phase::Verifying { .. } => self.end_attempt(),
        }
    }
}

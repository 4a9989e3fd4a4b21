//! Decides when targets are down, restarted and reported: a pure state machine from events and the time to actions.
//! It must never read a clock, do I/O, or panic on an event that is late, repeated or for an unknown target.
//!
//! [`Policy`] lists its calls and the order in which a driver makes them.

mod attempt;
mod backoff;
mod budget;
mod change;
mod drill;
mod drills;
mod event;
mod hold_reason;
mod ids;
mod limits;
mod manual_restart;
mod notification;
mod notification_state;
mod notify;
mod pause;
mod pauses;
mod pm2;
mod pm2_watch;
mod precheck;
mod quality;
mod rest;
mod restart_orders;
mod resting;
mod saving;
mod schedule;
mod state;
mod steadiness;
mod target_context;
mod targets;
mod terms;
mod ticks;
mod verdicts;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use budget::count_in_window;
pub use drill::{DrillEvent, DrillInterruption, DrillOutcome, DrillRefusal, DrillStep, FinishedDrill, RefusedDrill};
pub use drills::longest_drill;
pub use event::{Action, Event, Record};
pub use ids::IncidentIds;
pub use limits::{Limits, Precondition};
#[cfg(test)]
pub use manual_restart::ManualRestart;
pub use manual_restart::{FailedCommand, ManualProgress, RefusedRestart, RestartRefusal};
pub use notification::{IncidentSummary, Notification};
pub use pauses::Pauses;
#[cfg(test)]
pub use state::Streak;
pub use state::{Incident, LastProbe, Phase, State, StateRef, TargetState, TriedCommand, Waiting};
pub use terms::{HoldReason, OrderedBy, Status, WarningKind};
pub use ticks::Ticks;

use serde::{Deserialize, Serialize};

use crate::time::BootTime;
use target_context::{PolicyContext, TargetContext};
use targets::{Entry, Targets};

/// Work that takes longer counts as waiting. Ten times what a save to a busy disk takes.
const MAX_BUSY: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Daemon,
    /// One tick: probe each target once, repair what is due, exit.
    Once,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Daemon => "daemon",
            Mode::Once => "once",
        }
    }
}

/// All targets and the decisions about them.
///
/// Queries that cost the same with any number of targets: [`Policy::target`], [`Policy::next_wake`],
/// [`Policy::is_idle`], [`Policy::is_repairing`], [`Policy::trouble_count`]. Queries that cost more with more targets:
/// [`Policy::targets`], [`Policy::open_incidents`], [`Policy::state`], [`Policy::state_ref`].
///
/// Events in: [`Policy::wait_ended`], [`Policy::was_suspended`], [`Policy::step`], [`Policy::save_finished`].
/// Actions out: what [`Policy::new`], [`Policy::step`] and [`Policy::save_finished`] return.
///
/// In each pass, a driver:
/// 1. waits for an event, until [`Policy::next_wake`] at the latest, and reports the wait ([`Policy::wait_ended`]);
/// 2. steps the policy with each event that has arrived, or with [`Event::Wake`], and collects the actions;
/// 3. if one of the actions is an [`Action::Record`], [`Action::Notify`] or [`Action::Save`], saves the policy's state
///    once and reports the result ([`Policy::save_finished`]), which removes the actions that may not be executed
///    unsaved and returns further ones for the next pass;
/// 4. executes the actions in order.
///
/// Probes ([`Action::Probe`]) need not wait for the save, and [`Action::ContinueProcesses`] must not.
#[derive(Clone, Debug)]
pub struct Policy {
    mode: Mode,
    targets: Targets,
    removed: BTreeMap<String, TargetState>,
    incident_ids: IncidentIds,
    pauses: Pauses,
    ticks: Ticks,
    /// In a tick, the usual distance between ticks, if known.
    tick_gap: Option<Duration>,
    probe_count: u64,
    stopping: bool,
    unsaved: bool,
    last_wait: LoopWait,
    /// The indices of the targets that this step has updated.
    touched: BTreeSet<usize>,
}

#[derive(Clone, Copy, Debug)]
struct LoopWait {
    /// The start of the work that came before the wait.
    busy_since: BootTime,
    from: BootTime,
    to: BootTime,
    /// The wait has been checked for a gap.
    is_checked: bool,
}

impl Policy {
    /// Continues from the state that an earlier watchdog left; the actions bring its unfinished attempts to an end.
    /// `lost`: that state could not be read, so its attempts are unknown.
    pub fn new(
        mode: Mode,
        limits: BTreeMap<String, Limits>,
        state: State,
        lost: bool,
        now: BootTime,
    ) -> (Policy, Vec<Action>) {
        let mut ticks = state.ticks;
        if mode == Mode::Once {
            ticks.note(now);
        }
        let mut policy = Policy {
            mode,
            targets: Targets::default(),
            removed: state.targets,
            incident_ids: state.incident_ids,
            pauses: state.pauses,
            tick_gap: ticks.usual_gap().filter(|_| mode == Mode::Once),
            ticks,
            probe_count: 0,
            stopping: false,
            unsaved: false,
            last_wait: LoopWait { busy_since: now, from: now, to: now, is_checked: true },
            touched: BTreeSet::new(),
        };
        let mut actions = Vec::new();
        policy.set_limits(limits, lost, now);
        policy.restore_unfinished(now);
        policy.update_all(now, &mut actions, |target| {
            target.recover_drill();
            target.recover_attempt();
        });
        policy.advance(now, &mut actions);
        (policy, actions)
    }

    pub fn state(&self) -> State {
        State {
            targets: self.targets().map(|(name, state)| (name.to_owned(), state.clone())).collect(),
            incident_ids: self.incident_ids.clone(),
            pauses: self.pauses.clone(),
            ticks: self.ticks.clone(),
        }
    }

    /// The state for serialization, without copying it.
    pub fn state_ref(&self) -> StateRef<'_> {
        StateRef {
            targets: self.targets().collect(),
            incident_ids: &self.incident_ids,
            pauses: &self.pauses,
            ticks: &self.ticks,
        }
    }

    /// All targets with their states, including those removed from the configuration within the last day.
    pub fn targets(&self) -> impl Iterator<Item = (&str, &TargetState)> {
        self.targets.states().chain(self.removed.iter().map(|(name, state)| (name.as_str(), state)))
    }

    pub fn open_incidents(&self) -> Vec<&str> {
        self.targets().filter_map(|(_, state)| Some(state.incident.as_ref()?.id.as_str())).collect()
    }

    pub fn target(&self, name: &str) -> Option<&TargetState> {
        self.targets.get(name)
    }

    pub fn trouble_count(&self) -> usize {
        self.targets.trouble_count()
    }

    pub fn remember_incident(&mut self, id: String) {
        self.incident_ids.remember(id);
    }

    /// The driver waited for an event from `from` to `to`. Gaps are only looked for in waits: a watchdog that is late
    /// because of a slow disk was still running. Work of over 30 s counts as waiting, because the process may have been
    /// suspended during it.
    pub fn wait_ended(&mut self, from: BootTime, to: BootTime) {
        let busy_since = self.last_wait.to;
        let from = if from.since(busy_since) > MAX_BUSY { busy_since } else { from };
        self.last_wait = LoopWait { busy_since, from, to, is_checked: false };
    }

    /// The watchdog was stopped (SIGSTOP), while it worked or waited, and was continued at `until`.
    pub fn was_suspended(&mut self, until: BootTime) {
        self.last_wait = LoopWait { from: self.last_wait.busy_since, to: until, is_checked: false, ..self.last_wait };
    }

    pub fn step(&mut self, event: Event, now: BootTime) -> Vec<Action> {
        let mut actions = Vec::new();
        let out = &mut actions;
        self.check_for_gap(now, out);
        match event {
            Event::Wake => {}
            Event::ProbeFinished { target, number, result, stamp } => {
                self.update_target(&target, now, out, |target| target.probe_finished(number, result, &stamp));
            }
            Event::PreconditionChecked { target, precondition, holds } => {
                self.update_target(&target, now, out, |target| target.precondition_checked(precondition, holds));
            }
            Event::Inspected { target, inspection, pm2 } => {
                self.update_target(&target, now, out, |target| target.inspected(inspection, pm2.as_ref()));
            }
            Event::ResetChecked { target, is_warranted: warranted } => {
                self.update_target(&target, now, out, |target| target.reset_checked(warranted))
            }
            Event::DiagnosisFinished { target, incident } => {
                self.update_target(&target, now, out, |target| target.diagnosis_finished(&incident));
            }
            Event::CommandStarted { target, process } => {
                self.update_target(&target, now, out, |target| target.command_started(process))
            }
            Event::CommandEnded { target, exit, duration } => {
                self.update_target(&target, now, out, |target| target.command_ended(exit, duration));
            }
            Event::Paused { targets, until, command } => {
                let command = command.as_deref();
                if targets.is_none() {
                    self.unwatched_pauses().for_each(|pauses| pauses.begin(until, command));
                }
                self.update_targets(targets.as_deref(), now, out, |target| target.pause(until, command));
            }
            Event::PauseCommandEnded { command } => {
                self.unwatched_pauses().for_each(|pauses| pauses.mark_ended(Some(&command), now));
                self.update_all(now, out, |target| target.end_pauses(|pauses| pauses.end(&command)));
            }
            Event::Resumed { targets, clear_waits } => {
                if targets.is_none() {
                    self.unwatched_pauses().for_each(|pauses| pauses.mark_ended(None, now));
                }
                self.update_targets(targets.as_deref(), now, out, |target| target.resume(clear_waits));
            }
            Event::ExecutablesSearched { target, missing } => {
                self.update_target(&target, now, out, |target| target.executables_searched(missing));
            }
            Event::Reloaded { limits } => {
                self.set_limits(limits, false, now);
                self.update_all(now, out, |target| target.cut_drill_short(DrillInterruption::Reloaded));
            }
            Event::RestartOrdered { target, id, stamp } => self.order_restart(&target, id, &stamp, now, out),
            Event::Drill { target, event } => self.drill_event(&target, event, now, out),
            Event::Stopping => {
                self.stopping = true;
                self.update_all(now, out, |target| {
                    target.cut_drill_short(DrillInterruption::Stopping);
                    target.cut_attempt_short();
                });
            }
        }
        self.advance(now, out);
        actions
    }

    pub fn next_wake(&self) -> Option<BootTime> {
        self.targets.next_wake()
    }

    /// Nothing is running or planned that a tick would wait for.
    pub fn is_idle(&self) -> bool {
        self.targets.active_count() == 0
    }

    pub fn is_repairing(&self) -> bool {
        self.targets.attempts().any(|attempt| matches!(attempt.phase, Phase::Running { .. }))
    }

    /// Advances the time for the targets that were updated or whose wake-up is due, decides about due attempts, and
    /// starts due probes.
    fn advance(&mut self, now: BootTime, actions: &mut Vec<Action>) {
        self.pauses.expire(now);
        self.touched.extend(self.targets.due_wakes(now));
        for index in self.touched.clone() {
            self.update_at(index, now, actions, |target| target.advance_time());
        }
        self.decide_due_attempts(now, actions);
        let (touched, mut probe_count) = (std::mem::take(&mut self.touched), self.probe_count);
        for &index in &touched {
            self.update_at(index, now, actions, |target| {
                target.notify_down();
                target.remind_of_rest();
                target.start_due_probe(&mut probe_count);
            });
        }
        self.touched.clear();
        self.probe_count = probe_count;
        self.release_removed(&touched, now);
    }

    /// Decides about due attempts, first come, first served. An attempt that begins, or stops waiting for an answer,
    /// changes what the others wait for, hence more than one round. Three rounds bound the work of one step; what they
    /// leave over is decided in the next step.
    fn decide_due_attempts(&mut self, now: BootTime, actions: &mut Vec<Action>) {
        for _ in 0..3 {
            for index in self.targets.take_due(&self.touched) {
                let neighbours = self.targets.neighbours(index);
                self.update_at(index, now, actions, |target| target.decide_attempt(neighbours));
            }
            if !self.targets.must_reconsider_all() {
                return;
            }
        }
    }

    /// Rule 9: after a gap in a daemon's own running, earlier failures do not count.
    fn check_for_gap(&mut self, now: BootTime, actions: &mut Vec<Action>) {
        let wait = self.last_wait;
        self.last_wait.is_checked = true;
        if self.mode == Mode::Once || wait.is_checked {
            return;
        }
        let Some(gap) = self.targets.gap(wait.from, wait.to) else { return };
        actions.push(Action::Record { target: None, record: Record::Stalled { gap } });
        self.update_all(now, actions, |target| target.reset_after_gap());
    }

    fn update_all(&mut self, now: BootTime, actions: &mut Vec<Action>, mut act: impl FnMut(&mut TargetContext<'_>)) {
        for index in self.targets.indices() {
            self.update_at(index, now, actions, &mut act);
        }
    }

    /// The pauses of targets that are not watched now: new targets get the first ones, removed targets may return.
    fn unwatched_pauses(&mut self) -> impl Iterator<Item = &mut Pauses> {
        std::iter::once(&mut self.pauses).chain(self.removed.values_mut().map(|state| &mut state.pauses))
    }

    /// `names`: `None` for all targets.
    fn update_targets(
        &mut self,
        names: Option<&[String]>,
        now: BootTime,
        actions: &mut Vec<Action>,
        mut act: impl FnMut(&mut TargetContext<'_>),
    ) {
        match names {
            Some(names) => names.iter().for_each(|name| self.update_target(name, now, actions, &mut act)),
            None => self.update_all(now, actions, act),
        }
    }

    /// Does nothing if there is no such target: the event may be late.
    fn update_target(
        &mut self,
        name: &str,
        now: BootTime,
        actions: &mut Vec<Action>,
        act: impl FnOnce(&mut TargetContext<'_>),
    ) {
        if let Some(index) = self.targets.index_of(name) {
            self.update_at(index, now, actions, act);
        }
    }

    fn update_at(
        &mut self,
        index: usize,
        now: BootTime,
        actions: &mut Vec<Action>,
        act: impl FnOnce(&mut TargetContext<'_>),
    ) {
        let Policy { mode, stopping, unsaved, tick_gap, .. } = *self;
        let context = PolicyContext { mode, stopping, unsaved, tick_gap, now };
        self.touched.insert(index);
        self.targets.update(index, now, |Entry { name, limits, schedule, state, .. }| {
            act(&mut TargetContext { name, context, limits, schedule, state, ids: &mut self.incident_ids, actions });
        });
    }
}

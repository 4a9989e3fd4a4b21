//! Decides. A pure state machine that is given events and the time and answers with actions.
//! It must never read a clock, never do I/O, and never panic on an event that comes late, twice or for nobody.
//!
//! [`Policy`] says which calls there are, and in which order a driver makes them.

mod attempt;
mod backoff;
mod budget;
mod change;
mod event;
mod hold_reason;
mod ids;
mod limits;
mod notification;
mod notification_state;
mod notify;
mod pause;
mod pauses;
mod pm2;
mod pm2_watch;
mod rest;
mod resting;
mod schedule;
mod state;
mod target_context;
mod targets;
mod ticks;
mod verdicts;
mod words;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use budget::spent;
pub use event::{Action, Event, Record};
pub use ids::IncidentIds;
pub use limits::{Limits, Precondition};
pub use notification::{IncidentSummary, Notification};
pub use pauses::Pauses;
#[cfg(test)]
pub use state::Streak;
pub use state::{Incident, LastProbe, Phase, State, StateRef, TargetState, TriedCommand, Waiting};
pub use ticks::Ticks;
pub use words::{HoldReason, Status, WarningKind};

use serde::{Deserialize, Serialize};

use crate::time::BootTime;
use target_context::{PolicyContext, TargetContext};
use targets::{Entry, Targets};

/// Ten times what a busy disk may take for one save.
const LONGEST_WORK: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Daemon,
    /// One tick: one look at each target, repair what is due, end.
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

/// All targets, and what is decided about them.
///
/// Queries: [`Policy::target`], [`Policy::next_wake`], [`Policy::is_idle`], [`Policy::is_repairing`],
/// [`Policy::in_trouble`]; and of all targets [`Policy::targets`], [`Policy::open_incidents`], [`Policy::state`],
/// [`Policy::remembered`], which alone cost more with more of them.
///
/// Events in: [`Policy::waited`], [`Policy::was_stopped`], [`Policy::step`], [`Policy::saved`]. Actions out: what
/// [`Policy::new`], [`Policy::step`] and [`Policy::saved`] return.
///
/// A driver calls in this order, pass by pass:
/// 1. it waits for an event, until [`Policy::next_wake`] at the latest, and says so ([`Policy::waited`]);
/// 2. it steps the policy with each event that has come, or with [`Event::Wake`], and collects the actions;
/// 3. where one of them is a [`Action::Record`], [`Action::Tell`] or [`Action::Save`], it saves what the policy
///    remembers, once, and reports how that went ([`Policy::saved`]): this takes out of the actions what may not be
///    done unsaved, and returns further ones, for the next pass;
/// 4. it carries out the actions, in their order.
///
/// Looks ([`Action::Look`]) need not wait for the save.
#[derive(Clone, Debug)]
pub struct Policy {
    mode: Mode,
    targets: Targets,
    removed: BTreeMap<String, TargetState>,
    incident_ids: IncidentIds,
    pauses: Pauses,
    ticks: Ticks,
    /// In a tick: how far apart ticks usually are, where that is known.
    tick_gap: Option<Duration>,
    probes: u64,
    stopping: bool,
    unsaved: bool,
    waited: LoopWait,
    /// By index: the targets that something has happened to in this step.
    touched: BTreeSet<usize>,
}

#[derive(Clone, Copy, Debug)]
struct LoopWait {
    /// The work before it had begun then.
    worked_since: BootTime,
    from: BootTime,
    to: BootTime,
    /// Whether it was looked for a gap in it.
    is_judged: bool,
}

impl Policy {
    /// Takes up what an earlier watchdog left, and says what its unfinished business asks for.
    /// `lost`: its state could not be read, so that nothing is known of the attempts it made.
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
            probes: 0,
            stopping: false,
            unsaved: false,
            waited: LoopWait { worked_since: now, from: now, to: now, is_judged: true },
            touched: BTreeSet::new(),
        };
        let mut actions = Vec::new();
        policy.enter(limits, lost, now);
        policy.keep_unfinished(now);
        policy.on_all(now, &mut actions, |case| case.take_up());
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

    /// The same to be written, without a copy of it.
    pub fn remembered(&self) -> StateRef<'_> {
        StateRef {
            targets: self.targets().collect(),
            incident_ids: &self.incident_ids,
            pauses: &self.pauses,
            ticks: &self.ticks,
        }
    }

    /// What is remembered of all targets, of those too that have left the configuration lately.
    pub fn targets(&self) -> impl Iterator<Item = (&str, &TargetState)> {
        self.targets.states().chain(self.removed.iter().map(|(name, state)| (name.as_str(), state)))
    }

    pub fn open_incidents(&self) -> Vec<&str> {
        self.targets().filter_map(|(_, state)| Some(state.incident.as_ref()?.id.as_str())).collect()
    }

    pub fn target(&self, name: &str) -> Option<&TargetState> {
        self.targets.named(name)
    }

    pub fn in_trouble(&self) -> usize {
        self.targets.in_trouble()
    }

    pub fn remember_incident(&mut self, id: String) {
        self.incident_ids.remember(id);
    }

    /// From when to when there was nothing to do but to wait for the next event. Who works on a slow disk is late too,
    /// but was there: it is while waiting that it shows whether the watchdog was held up. Work of over 30 s counts as
    /// waiting, for the CPU may have been withheld in the middle of it.
    pub fn waited(&mut self, from: BootTime, to: BootTime) {
        let worked_since = self.waited.to;
        let from = if from.since(worked_since) > LONGEST_WORK { worked_since } else { from };
        self.waited = LoopWait { worked_since, from, to, is_judged: false };
    }

    /// It is known that the watchdog was stopped (SIGSTOP), in its work or waiting, and has only just gone on.
    pub fn was_stopped(&mut self, until: BootTime) {
        self.waited = LoopWait { from: self.waited.worked_since, to: until, is_judged: false, ..self.waited };
    }

    pub fn step(&mut self, event: Event, now: BootTime) -> Vec<Action> {
        let mut actions = Vec::new();
        let out = &mut actions;
        self.notice_gap(now, out);
        match event {
            Event::Wake => {}
            Event::ProbeFinished { target, number, look, stamp } => {
                self.on_target(&target, now, out, |case| case.probe_finished(number, look, &stamp));
            }
            Event::PreconditionChecked { target, gate, yes } => {
                self.on_target(&target, now, out, |case| case.precondition_checked(gate, yes));
            }
            Event::Pm2Inspected { target, inspection, pm2 } => {
                self.on_target(&target, now, out, |case| case.pm2_inspected(inspection, pm2.as_ref()));
            }
            Event::ResetChecked { target, warranted } => {
                self.on_target(&target, now, out, |case| case.reset_checked(warranted))
            }
            Event::DiagnosisFinished { target, incident } => {
                self.on_target(&target, now, out, |case| case.diagnosis_finished(&incident));
            }
            Event::CommandStarted { target, process } => {
                self.on_target(&target, now, out, |case| case.command_started(process))
            }
            Event::CommandEnded { target, ending, took } => {
                self.on_target(&target, now, out, |case| case.command_ended(ending, took));
            }
            Event::Paused { targets, until, command } => {
                let command = command.as_deref();
                if targets.is_none() {
                    self.pauses_elsewhere().for_each(|pauses| pauses.begin(until, command));
                }
                self.on_these(targets.as_deref(), now, out, |case| case.pause(until, command));
            }
            Event::PauseCommandEnded { command } => {
                self.pauses_elsewhere().for_each(|pauses| pauses.end_by(Some(&command), now));
                self.on_all(now, out, |case| case.end_pauses(|pauses| pauses.end(&command)));
            }
            Event::Resumed { targets, clear_waits } => {
                if targets.is_none() {
                    self.pauses_elsewhere().for_each(|pauses| pauses.end_by(None, now));
                }
                self.on_these(targets.as_deref(), now, out, |case| case.resume(clear_waits));
            }
            Event::ExecutablesSearched { target, missing } => {
                self.on_target(&target, now, out, |case| case.executables_searched(missing));
            }
            Event::Reloaded { limits } => {
                self.enter(limits, false, now);
                self.on_all(now, out, |_| ());
            }
            Event::Stopping => {
                self.stopping = true;
                self.on_all(now, out, |case| case.cut_attempt_short());
            }
        }
        self.advance(now, out);
        actions
    }

    /// The save that `actions` have waited for has gone well, or not: those that may not be carried out unsaved are
    /// taken out of them, and out of what is remembered. What follows from that is returned.
    pub fn saved(&mut self, ok: bool, actions: &mut Vec<Action>, now: BootTime) -> Vec<Action> {
        let mut further = Vec::new();
        let has_changed = std::mem::replace(&mut self.unsaved, !ok) == ok;
        let runs = |action: &Action| match action {
            Action::Run { target, .. } => Some(target.clone()),
            _ => None,
        };
        let mut withdrawn: BTreeSet<String> = actions.iter().filter(|_| !ok).filter_map(runs).collect();
        withdrawn.retain(|target| {
            let mut is_withdrawn = false;
            self.on_target(target, now, &mut further, |case| is_withdrawn = case.withdraw_unsaved());
            is_withdrawn
        });
        actions.retain(|action| match action {
            Action::Run { target, .. } | Action::Record { target: Some(target), record: Record::Restart { .. } } => {
                !withdrawn.contains(target)
            }
            _ => true,
        });
        if has_changed {
            self.targets.reconsider_all();
        }
        if has_changed || !withdrawn.is_empty() {
            self.advance(now, &mut further);
        }
        further
    }

    pub fn next_wake(&self) -> Option<BootTime> {
        self.targets.next_wake()
    }

    /// Whether nothing is under way and nothing is planned that a tick would stay for.
    pub fn is_idle(&self) -> bool {
        self.targets.active() == 0
    }

    pub fn is_repairing(&self) -> bool {
        self.targets.attempts().any(|attempt| matches!(attempt.phase, Phase::Running { .. }))
    }

    /// Lets time pass for the targets that something has happened to or whose time has come, makes the attempts that
    /// are due and plans the looks.
    fn advance(&mut self, now: BootTime, actions: &mut Vec<Action>) {
        self.pauses.expire(now);
        self.touched.extend(self.targets.woken(now));
        for index in self.touched.clone() {
            self.on_entry(index, now, actions, |case| case.pass_time());
        }
        self.consider(now, actions);
        let (touched, mut looks) = (std::mem::take(&mut self.touched), self.probes);
        for &index in &touched {
            self.on_entry(index, now, actions, |case| {
                case.notify_down();
                case.remind_of_rest();
                case.launch(&mut looks);
            });
        }
        self.touched.clear();
        self.probes = looks;
        self.let_go(&touched, now);
    }

    /// Makes due attempts, first come, first served. One that is made, or waits for an answer no longer, changes what
    /// the others wait for; more changes than these leave something for the next step.
    fn consider(&mut self, now: BootTime, actions: &mut Vec<Action>) {
        for _ in 0..3 {
            for index in self.targets.due_to_consider(&self.touched) {
                let neighbours = self.targets.neighbours(index);
                self.on_entry(index, now, actions, |case| case.consider(neighbours));
            }
            if !self.targets.are_all_to_be_considered() {
                return;
            }
        }
    }

    /// A daemon that was not there for a while trusts no streak that began before.
    fn notice_gap(&mut self, now: BootTime, actions: &mut Vec<Action>) {
        let waited = self.waited;
        self.waited.is_judged = true;
        if self.mode == Mode::Once || waited.is_judged {
            return;
        }
        let Some(gap) = self.targets.gap(waited.from, waited.to) else { return };
        actions.push(Action::Record { target: None, record: Record::Stalled { gap } });
        self.on_all(now, actions, |case| case.start_afresh());
    }

    fn on_all(&mut self, now: BootTime, actions: &mut Vec<Action>, mut act: impl FnMut(&mut TargetContext<'_>)) {
        for index in self.targets.indices() {
            self.on_entry(index, now, actions, &mut act);
        }
    }

    /// The pauses of targets that are yet to come, and of those that may come back.
    fn pauses_elsewhere(&mut self) -> impl Iterator<Item = &mut Pauses> {
        std::iter::once(&mut self.pauses).chain(self.removed.values_mut().map(|state| &mut state.pauses))
    }

    /// `None`: on all.
    fn on_these(
        &mut self,
        names: Option<&[String]>,
        now: BootTime,
        actions: &mut Vec<Action>,
        mut act: impl FnMut(&mut TargetContext<'_>),
    ) {
        match names {
            Some(names) => names.iter().for_each(|name| self.on_target(name, now, actions, &mut act)),
            None => self.on_all(now, actions, act),
        }
    }

    /// Does nothing where there is no such target: an event may come late.
    fn on_target(
        &mut self,
        name: &str,
        now: BootTime,
        actions: &mut Vec<Action>,
        act: impl FnOnce(&mut TargetContext<'_>),
    ) {
        if let Some(index) = self.targets.index_of(name) {
            self.on_entry(index, now, actions, act);
        }
    }

    fn on_entry(
        &mut self,
        index: usize,
        now: BootTime,
        actions: &mut Vec<Action>,
        act: impl FnOnce(&mut TargetContext<'_>),
    ) {
        let Policy { mode, stopping, unsaved, tick_gap, .. } = *self;
        let setting = PolicyContext { mode, stopping, unsaved, tick_gap, now };
        self.touched.insert(index);
        self.targets.change(index, now, |Entry { name, limits, schedule: plan, state, .. }| {
            act(&mut TargetContext {
                name,
                context: setting,
                limits,
                schedule: plan,
                state,
                ids: &mut self.incident_ids,
                actions,
            });
        });
    }
}

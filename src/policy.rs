//! Decides. A pure state machine that is given events and the time and answers with actions.
//! It must never read a clock, never do I/O, and never panic on an event that comes late, twice or for nobody.
//!
//! The driver's part: call [`Policy::step`] with each event, and with [`Event::Wake`] at [`Policy::next_wake`];
//! a wake-up too many is a no-op. Carry out the actions in their order, but save [`Policy::state`] first where one
//! of them is a [`Action::Record`] or a [`Action::Save`]: nothing is done that is not on disk.

mod attempt;
mod backoff;
mod budget;
mod case;
mod change;
mod event;
mod holds;
mod ids;
mod limits;
mod pauses;
mod plan;
mod pm2;
mod rest;
mod state;
mod tell;
mod ticks;
mod verdicts;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub use budget::spent;
pub use event::{Action, Event, Record};
pub use ids::IncidentIds;
pub use limits::{Gate, Limits};
pub use pauses::Pauses;
#[cfg(test)]
pub use state::Streak;
pub use state::{Incident, LastLook, Phase, Remembered, State, TargetState, Tried, Waiting};
pub use tell::{Story, Tell};
pub use ticks::Ticks;
pub use words::{About, Condition, Why};

use crate::time::Timestamp;
use case::{Around, Case, Setting};
use plan::Plan;

/// Ten times what a busy disk may take for one save.
const LONGEST_WORK: Duration = Duration::from_secs(30);

/// How the watchdog works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Until it is told to stop.
    Daemon,
    /// One look at each target, repair what is due, end.
    Tick,
}

/// All targets, and what is decided about them.
#[derive(Clone, Debug)]
pub struct Policy {
    mode: Mode,
    watched: BTreeMap<String, Watched>,
    /// Targets that left the configuration lately.
    gone: BTreeMap<String, TargetState>,
    incident_ids: IncidentIds,
    /// The pauses of all targets, those among them that are yet to come.
    pauses: Pauses,
    ticks: Ticks,
    /// In a tick: how far apart ticks usually are, where that is known.
    tick_gap: Option<Duration>,
    looks: u64,
    stopping: bool,
    unsaved: bool,
    waited: Waited,
}

/// When it was last waited for something to happen.
#[derive(Clone, Copy, Debug)]
struct Waited {
    /// The work before it had begun then.
    worked_since: Timestamp,
    from: Timestamp,
    to: Timestamp,
}

#[derive(Clone, Debug)]
struct Watched {
    limits: Limits,
    plan: Plan,
    state: TargetState,
}

impl Policy {
    /// Takes up what an earlier watchdog left, and says what its unfinished business asks for.
    /// `lost`: its state could not be read, so that nothing is known of the attempts it made.
    pub fn new(
        mode: Mode,
        limits: BTreeMap<String, Limits>,
        state: State,
        lost: bool,
        now: Timestamp,
    ) -> (Policy, Vec<Action>) {
        let mut ticks = state.ticks;
        if mode == Mode::Tick {
            ticks.note(now);
        }
        let mut policy = Policy {
            mode,
            watched: BTreeMap::new(),
            gone: state.targets,
            incident_ids: state.incident_ids,
            pauses: state.pauses,
            tick_gap: ticks.usual_gap().filter(|_| mode == Mode::Tick),
            ticks,
            looks: 0,
            stopping: false,
            unsaved: false,
            waited: Waited { worked_since: now, from: now, to: now },
        };
        let mut actions = Vec::new();
        policy.enter(limits, lost, now);
        policy.keep_unfinished();
        policy.on_all(now, &mut actions, |case| case.take_up());
        policy.advance(now, &mut actions);
        (policy, actions)
    }

    /// What is remembered, to be saved.
    pub fn state(&self) -> State {
        let watched = self.watched.iter().map(|(name, watched)| (name, &watched.state));
        let targets = watched.chain(&self.gone).map(|(name, state)| (name.clone(), state.clone()));
        State {
            targets: targets.collect(),
            incident_ids: self.incident_ids.clone(),
            pauses: self.pauses.clone(),
            ticks: self.ticks.clone(),
        }
    }

    /// The same to be written, without a copy of it.
    pub fn remembered(&self) -> Remembered<'_> {
        let watched = self.watched.iter().map(|(name, watched)| (name.as_str(), &watched.state));
        let gone = self.gone.iter().map(|(name, state)| (name.as_str(), state));
        Remembered {
            targets: watched.chain(gone).collect(),
            incident_ids: &self.incident_ids,
            pauses: &self.pauses,
            ticks: &self.ticks,
        }
    }

    /// The names of the incidents that are open.
    pub fn open_incidents(&self) -> Vec<&str> {
        let states = self.watched.values().map(|watched| &watched.state).chain(self.gone.values());
        states.filter_map(|state| Some(state.incident.as_ref()?.id.as_str())).collect()
    }

    /// What is remembered of one target.
    pub fn target(&self, name: &str) -> Option<&TargetState> {
        self.watched.get(name).map(|watched| &watched.state)
    }

    /// Keeps the id of an incident that is on disk from being given again.
    pub fn remember_incident(&mut self, id: String) {
        self.incident_ids.remember(id);
    }

    /// From when to when there was nothing to do but to wait for the next event. Who works on a slow disk is late too,
    /// but was there: it is while waiting that it shows whether the watchdog was held up. Work of over 30 s counts as
    /// waiting, for the CPU may have been withheld in the middle of it.
    pub fn waited(&mut self, from: Timestamp, to: Timestamp) {
        let worked_since = self.waited.to;
        let from = if from.since(worked_since) > LONGEST_WORK { worked_since } else { from };
        self.waited = Waited { worked_since, from, to };
    }

    /// It is known that the watchdog was stopped (SIGSTOP), in its work or waiting, and has only just gone on.
    pub fn was_stopped(&mut self, until: Timestamp) {
        (self.waited.from, self.waited.to) = (self.waited.worked_since, until);
    }

    /// Takes in what has happened and says what is to be done.
    pub fn step(&mut self, event: Event, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        let out = &mut actions;
        self.notice_gap(now, out);
        match event {
            Event::Wake => {}
            Event::Looked { target, number, look, stamp } => {
                self.on_case(&target, now, out, |case| case.looked(number, look, &stamp));
            }
            Event::Answered { target, gate, yes } => {
                self.on_case(&target, now, out, |case| case.answered(gate, yes));
            }
            Event::Inspected { target, inspection, pm2 } => {
                self.on_case(&target, now, out, |case| case.inspected(inspection, pm2.as_ref()));
            }
            Event::Weighed { target, warranted } => self.on_case(&target, now, out, |case| case.weighed(warranted)),
            Event::Diagnosed { target, incident } => {
                self.on_case(&target, now, out, |case| case.diagnosed(&incident));
            }
            Event::Saved { ok } => {
                self.unsaved = !ok;
                self.on_all(now, out, |case| case.saved(ok));
            }
            Event::Spawned { target, process } => self.on_case(&target, now, out, |case| case.spawned(process)),
            Event::Ended { target, ending, took } => {
                self.on_case(&target, now, out, |case| case.ended(ending, took));
            }
            Event::Paused { targets, until, command } => {
                let command = command.as_deref();
                if targets.is_none() {
                    self.pauses_elsewhere().for_each(|pauses| pauses.begin(until, command));
                }
                self.on_these(targets.as_deref(), now, out, |case| case.pause(until, command));
            }
            Event::CommandOver { command } => {
                self.pauses_elsewhere().for_each(|pauses| pauses.end_by(Some(&command), now));
                self.on_all(now, out, |case| case.end_pauses(|pauses| pauses.end(&command)));
            }
            Event::Resumed { targets, clear_waits } => {
                if targets.is_none() {
                    self.pauses_elsewhere().for_each(|pauses| pauses.end_by(None, now));
                }
                self.on_these(targets.as_deref(), now, out, |case| case.resume(clear_waits));
            }
            Event::Executables { target, missing } => {
                self.on_case(&target, now, out, |case| case.executables(missing));
            }
            Event::Reloaded { limits } => self.enter(limits, false, now),
            Event::Stopping => {
                self.stopping = true;
                self.on_all(now, out, |case| case.break_off());
            }
        }
        self.advance(now, out);
        actions
    }

    /// When something is to be decided though nothing happens.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.watched.values().filter_map(Watched::next_wake).min()
    }

    /// Whether nothing is under way and nothing is planned that a tick would stay for.
    pub fn is_idle(&self) -> bool {
        let is_busy = |Watched { plan, state, .. }: &Watched| {
            plan.has_look() || plan.is_asking() || state.attempt.is_some() || state.is_diagnosing()
        };
        !self.watched.values().any(is_busy)
    }

    /// Whether a restart command runs.
    pub fn is_repairing(&self) -> bool {
        self.watched.values().any(|watched| matches!(watched.state.phase(), Some(Phase::Running { .. })))
    }

    /// Lets time pass, makes the attempts that are due and plans the looks.
    fn advance(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.pauses.expire(now);
        self.on_all(now, actions, |case| case.pass_time());
        self.consider(now, actions);
        self.on_all(now, actions, |case| {
            case.tell_trouble();
            case.remind_of_rest();
        });
        let mut looks = self.looks;
        self.on_all(now, actions, |case| case.launch(&mut looks));
        self.looks = looks;
        self.let_go(now);
    }

    /// Makes due attempts, first come, first served.
    fn consider(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let due_since = |(name, watched): (&String, &Watched)| Some((watched.plan.due_since?, name.clone()));
        let mut due: Vec<(Timestamp, String)> = self.watched.iter().filter_map(due_since).collect();
        due.sort();
        let mut is_behind = false;
        for (_, name) in due {
            let around = Around { is_behind, ..self.around(&name) };
            self.on_case(&name, now, actions, |case| is_behind |= case.consider(around));
        }
    }

    /// What a target's due attempt must heed of the others.
    fn around(&self, name: &str) -> Around {
        let depends_on = self.watched.get(name).map_or(&[][..], |watched| &watched.limits.depends_on);
        let dependencies = || depends_on.iter().filter_map(|dependency| self.watched.get(dependency));
        Around {
            busy: self.watched.iter().any(|(other, watched)| other != name && watched.state.attempt.is_some()),
            dependency_in_trouble: dependencies().any(|dependency| dependency.state.is_in_trouble()),
            dependency_looked_at: dependencies().any(|dependency| dependency.plan.asked.is_some()),
            is_behind: false,
        }
    }

    /// A daemon that was not there for a while trusts no streak that began before.
    fn notice_gap(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.mode == Mode::Tick {
            return;
        }
        let Some(gap) = self.watched.values().filter_map(|watched| watched.gap(self.waited)).max() else { return };
        actions.push(Action::Record { target: None, record: Record::Stalled { gap } });
        self.on_all(now, actions, |case| case.start_afresh());
    }

    fn on_all(&mut self, now: Timestamp, actions: &mut Vec<Action>, mut act: impl FnMut(&mut Case<'_>)) {
        let setting = self.setting(now);
        for (name, Watched { limits, plan, state }) in &mut self.watched {
            let ids = &mut self.incident_ids;
            act(&mut Case { name, setting, limits, plan, state, ids, actions });
        }
    }

    /// The pauses of targets that are yet to come, and of those that may come back.
    fn pauses_elsewhere(&mut self) -> impl Iterator<Item = &mut Pauses> {
        std::iter::once(&mut self.pauses).chain(self.gone.values_mut().map(|state| &mut state.pauses))
    }

    /// `None`: on all.
    fn on_these(
        &mut self,
        names: Option<&[String]>,
        now: Timestamp,
        actions: &mut Vec<Action>,
        mut act: impl FnMut(&mut Case<'_>),
    ) {
        match names {
            Some(names) => names.iter().for_each(|name| self.on_case(name, now, actions, &mut act)),
            None => self.on_all(now, actions, act),
        }
    }

    /// Does nothing where there is no such target: an event may come late.
    fn on_case(&mut self, name: &str, now: Timestamp, actions: &mut Vec<Action>, act: impl FnOnce(&mut Case<'_>)) {
        let setting = self.setting(now);
        let Some(Watched { limits, plan, state }) = self.watched.get_mut(name) else { return };
        act(&mut Case { name, setting, limits, plan, state, ids: &mut self.incident_ids, actions });
    }

    fn setting(&self, now: Timestamp) -> Setting {
        let Policy { mode, stopping, unsaved, tick_gap, .. } = *self;
        Setting { mode, stopping, unsaved, tick_gap, now }
    }
}

impl Watched {
    fn next_wake(&self) -> Option<Timestamp> {
        let next_look = self.plan.next.filter(|_| self.plan.asked.is_none());
        let verifying = match self.state.phase() {
            Some(Phase::Verifying { until }) => Some(*until),
            Some(Phase::Intended | Phase::Weighing | Phase::Running { .. }) | None => None,
        };
        // What is at rest is asked about when the next look finds it so.
        let waiting = self.state.waiting.filter(|_| self.state.rest.is_none()).and_then(|waiting| waiting.until);
        let start_period = self.state.start_period.map(|period| period.until);
        let diagnosing = self.state.incident.as_ref().and_then(|incident| incident.diagnosing);
        let inspected = self.plan.inspected_until();
        let points = [next_look, verifying, waiting, start_period, diagnosing, self.state.pauses.until(), inspected];
        points.into_iter().flatten().min()
    }

    /// How late the look that is due, or the verdict of the one that is made, has become, if that is too late to be
    /// anything but a gap in our own running.
    fn gap(&self, waited: Waited) -> Option<Duration> {
        let due = match &self.plan.asked {
            Some(asked) => asked.at + self.limits.timeout,
            None => self.plan.next?,
        };
        let late = waited.to.since(due.max(waited.from));
        (late > self.limits.gap()).then_some(late)
    }
}

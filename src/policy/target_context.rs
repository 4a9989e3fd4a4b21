//! One target with everything that a decision about it needs: what it may, what is known, what is planned.
//! How time passes for it; what it is called on the screen.

use std::time::Duration;

use crate::policy::ids::IncidentIds;
use crate::policy::schedule::{Schedule, coming_up};
use crate::policy::state::{Phase, StartPeriod, StartReason, TargetState};
use crate::policy::ticks;
use crate::policy::words::Status;
use crate::policy::{Action, Limits, Mode, Record};
use crate::time::BootTime;

#[derive(Clone, Copy, Debug)]
pub(super) struct PolicyContext {
    pub(super) mode: Mode,
    pub(super) stopping: bool,
    pub(super) unsaved: bool,
    pub(super) tick_gap: Option<Duration>,
    pub(super) now: BootTime,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbours {
    pub(super) busy: bool,
    pub(super) dependency_in_trouble: bool,
    pub(super) dependency_probed: bool,
    /// Another attempt became due earlier and only awaits an answer.
    pub(super) is_behind: bool,
}

pub(super) struct TargetContext<'a> {
    pub(super) name: &'a str,
    pub(super) context: PolicyContext,
    pub(super) limits: &'a Limits,
    pub(super) schedule: &'a mut Schedule,
    pub(super) state: &'a mut TargetState,
    pub(super) ids: &'a mut IncidentIds,
    pub(super) actions: &'a mut Vec<Action>,
}

impl TargetContext<'_> {
    pub(super) fn record(&mut self, record: Record) {
        self.actions.push(Action::Record { target: Some(self.name.to_string()), record });
    }

    /// What happens by itself: pauses, start periods and verifications end, attempts become due.
    pub(super) fn pass_time(&mut self) {
        let now = self.context.now;
        self.end_pauses(|pauses| pauses.expire(now));
        if self.state.start_period.is_some_and(|period| period.until <= now) {
            self.state.start_period = None;
            if self.context.mode == Mode::Once && self.schedule.attempted {
                self.schedule.next = None;
            }
        }
        self.give_up_inspecting();
        if let Some(incident) = &mut self.state.incident {
            incident.diagnosing = incident.diagnosing.filter(|until| *until > now);
        }
        if let Some(Phase::Verifying { until }) = self.state.phase()
            && *until <= now
        {
            self.go_to_next_rung();
        }
        if self.is_due() {
            self.schedule.is_due = true;
        } else {
            self.schedule.end_due();
            self.schedule.pass_expires();
            self.state.waiting = self.rest_waits();
        }
    }

    fn is_due(&self) -> bool {
        let tick_is_over = self.context.mode == Mode::Once && self.schedule.attempted;
        self.state.incident.is_some()
            && self.state.failures() >= self.limits.failure_threshold
            && self.state.attempt.is_none()
            && self.limits.rungs > 0
            && self.state.start_period.is_none()
            && !self.context.stopping
            && !self.schedule.retired
            && !tick_is_over
    }

    /// Makes the look that its time has come for, and says what the target is now called.
    pub(super) fn launch(&mut self, looks: &mut u64) {
        let now = self.context.now;
        if self.context.stopping || self.schedule.retired {
            self.schedule.next = None;
        }
        if let Some(slot) = self.schedule.next
            && slot <= now
            && self.schedule.in_flight.is_none()
        {
            *looks += 1;
            self.schedule.begin_probe(slot, *looks, now);
            self.actions.push(Action::Probe { target: self.name.to_string(), number: *looks });
        }
        let condition = self.condition();
        if condition != self.state.status || self.state.since.is_none() {
            self.state.status = condition;
            self.state.since = Some(now);
        }
    }

    fn condition(&self) -> Status {
        let state = &self.state;
        match &state.incident {
            _ if state.pauses.until().is_some() => Status::Paused,
            Some(incident) if incident.recovering => Status::Recovering,
            Some(_) => Status::Down,
            None if state.rest.is_some() => Status::Stopped,
            None if state.last_class.is_some() && state.start_period.is_none() => Status::Failing,
            None if state.last_class.is_none() && state.last_healthy.is_some() => Status::Healthy,
            None => Status::Starting,
        }
    }

    /// Nothing counts against it any more. Saved at once: a crash must not bring old failures back.
    pub(super) fn end_streak(&mut self) {
        if self.state.streak.take().is_some() {
            self.actions.push(Action::Save);
        }
    }

    /// The watchdog was not there for a while: what it counted before says nothing now.
    pub(super) fn start_afresh(&mut self) {
        self.end_streak();
        for ledger in [&mut self.state.real, &mut self.state.dry] {
            if let Some(episode) = &mut ledger.episode {
                episode.healthy_since = None;
            }
        }
        match self.state.phase() {
            Some(Phase::Verifying { .. }) => self.verify(),
            // What is found out now may have been so before the gap only.
            Some(Phase::CheckingReset) => self.end_attempt(),
            Some(Phase::Running { .. }) | None => {}
        }
        self.schedule.spoil(self.context.now);
    }

    /// Failures do not count for `start_period` from now, and the target is looked at at once and then every second.
    pub(super) fn begin_start_period(&mut self, after: StartReason) {
        let until = self.context.now + self.limits.start_period;
        self.state.start_period = Some(StartPeriod { until, after });
        self.schedule.next = Some(self.context.now);
    }

    /// The operator's own exception to what limits restarts.
    pub(super) fn clear_waits(&mut self) {
        for ledger in [&mut self.state.real, &mut self.state.dry] {
            ledger.starts.clear();
            ledger.cooldown_until = None;
            ledger.last_reset = None;
            ledger.reset_interrupted = false;
            ledger.unproven = 0;
        }
        self.state.stand_down = None;
        self.actions.push(Action::Save);
    }

    pub(super) fn schedule_next_probe(&mut self) {
        let Limits { interval, retry_interval, .. } = *self.limits;
        let now = self.context.now;
        let coming_up_pace = self.schedule.paced_after(now, coming_up(interval));
        let verifying = matches!(self.state.phase(), Some(Phase::Verifying { .. }));
        let is_starting = self.state.start_period.is_some() || verifying;
        let failed = self.state.last_class.is_some() && self.state.rest.is_none();
        self.schedule.next = match self.context.mode {
            _ if is_starting => Some(coming_up_pace),
            Mode::Daemon if failed && retry_interval < interval => Some(self.schedule.paced_after(now, retry_interval)),
            Mode::Daemon => Some(self.schedule.regular_after(now, interval)),
            Mode::Once if self.tick_goes_on() => Some(self.schedule.paced_after(now, retry_interval)),
            Mode::Once => None,
        };
    }

    /// A tick whose look has failed goes on until the threshold, if the operator said at which pace, or if ticks are
    /// rare. `unknown` ends it: our own trouble may last, and other ticks wait for this one. So does a pause, in which
    /// nothing is decided.
    fn tick_goes_on(&self) -> bool {
        let Limits { failure_threshold, retry_interval, retry_in_tick, .. } = *self.limits;
        let failed = self.state.last_probe.as_ref().is_some_and(|look| look.verdict.class().is_some());
        let undecided = self.state.failures() < failure_threshold;
        let counts = self.state.rest.is_none() && !self.is_paused();
        let rare = || self.context.tick_gap.is_some_and(|gap| ticks::are_rare(gap, failure_threshold, retry_interval));
        failed && undecided && counts && !self.schedule.attempted && (retry_in_tick || rare())
    }
}

//! One target with everything that a decision about it needs; the passing of time, the next probe, and the status.
//! It must never see other targets, except through `Neighbours`.

use std::time::Duration;

use crate::policy::drill::DrillInterruption;
use crate::policy::ids::IncidentIds;
use crate::policy::schedule::{Schedule, fast_pace};
use crate::policy::state::{Phase, StartPeriod, StartReason, TargetState};
use crate::policy::terms::Status;
use crate::policy::ticks;
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
    pub(super) dependency_being_probed: bool,
    /// An attempt at another target became due earlier and only waits for an answer.
    pub(super) is_queued_behind: bool,
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

    /// Ends the pauses, start periods, diagnoses and verifications whose time is over, and determines whether an
    /// attempt is due.
    pub(super) fn advance_time(&mut self) {
        let now = self.context.now;
        self.end_pauses(|pauses| pauses.expire(now));
        if self.state.start_period.is_some_and(|period| period.until <= now) {
            self.state.start_period = None;
            self.end_manual_wait();
            let is_tick_over = self.schedule.attempted && !self.is_manual_verdict_awaited();
            if self.context.mode == Mode::Once && is_tick_over {
                self.schedule.next = None;
            }
        }
        self.expire_drill();
        self.expire_inspection();
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
            self.schedule.clear_due();
            self.schedule.expire_precheck();
            self.state.waiting = self.rest_waiting();
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

    /// Starts the probe that is due, if any, and updates the status.
    pub(super) fn start_due_probe(&mut self, probe_count: &mut u64) {
        let now = self.context.now;
        if self.context.stopping || self.schedule.retired {
            self.schedule.next = None;
        }
        if let Some(slot) = self.schedule.next
            && slot <= now
            && self.schedule.in_flight.is_none()
        {
            *probe_count += 1;
            self.schedule.begin_probe(slot, *probe_count, now);
            self.actions.push(Action::Probe { target: self.name.to_string(), number: *probe_count });
        }
        let status = self.current_status();
        if status != self.state.status || self.state.since.is_none() {
            // An outage may alternate between the two for hours; it began once.
            let is_same_outage = status.is_outage() && self.state.status.is_outage();
            self.state.status = status;
            self.state.since = self.state.since.filter(|_| is_same_outage).or(Some(now));
        }
    }

    fn current_status(&self) -> Status {
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

    /// Sets the streak to 0. This is saved at once, so that a crash does not bring old failures back.
    pub(super) fn end_streak(&mut self) {
        if self.state.streak.take().is_some() {
            self.actions.push(Action::Save);
        }
    }

    /// The watchdog itself did not run for a while, so what it has counted says nothing about the present.
    pub(super) fn reset_after_gap(&mut self) {
        self.cut_drill_short(DrillInterruption::Stalled);
        self.end_streak();
        for history in [&mut self.state.real, &mut self.state.dry] {
            if let Some(episode) = &mut history.episode {
                episode.healthy_since = None;
            }
        }
        match self.state.phase() {
            Some(Phase::Verifying { .. }) => self.begin_verification(),
            // The answer may describe the time before the gap.
            Some(Phase::CheckingReset) => self.end_attempt(),
            Some(Phase::Running { .. }) | None => {}
        }
        self.schedule.invalidate_probe(self.context.now);
    }

    /// For `start_period` from now, failures do not count, and the target is probed every second, beginning at once.
    pub(super) fn begin_start_period(&mut self, after: StartReason) {
        let until = self.context.now + self.limits.start_period;
        self.state.start_period = Some(StartPeriod { until, after });
        self.schedule.next = Some(self.context.now);
    }

    /// `resume TARGET`: the operator's own exception to the limits on restarts.
    pub(super) fn clear_waits(&mut self) {
        for history in [&mut self.state.real, &mut self.state.dry] {
            history.starts.clear();
            history.cooldown_until = None;
            history.last_reset = None;
            history.reset_interrupted = false;
            history.unproven = 0;
        }
        self.state.stand_down = None;
        self.actions.push(Action::Save);
    }

    pub(super) fn schedule_next_probe(&mut self) {
        let Limits { interval, retry_interval, .. } = *self.limits;
        let now = self.context.now;
        let start_pace = self.schedule.next_at_pace(now, fast_pace(interval));
        let verifying = matches!(self.state.phase(), Some(Phase::Verifying { .. }));
        let is_starting = self.state.start_period.is_some() || verifying;
        let has_failed = self.state.last_class.is_some() && self.state.rest.is_none();
        self.schedule.next = match self.context.mode {
            _ if is_starting => Some(start_pace),
            _ if self.is_confirming() => Some(self.schedule.next_at_pace(now, fast_pace(retry_interval))),
            Mode::Daemon if has_failed && retry_interval < interval => {
                Some(self.schedule.next_at_pace(now, retry_interval))
            }
            Mode::Daemon => Some(self.schedule.next_regular(now, interval)),
            Mode::Once if self.should_tick_retry() => Some(self.schedule.next_at_pace(now, retry_interval)),
            Mode::Once => None,
        };
    }

    /// The target is as dead as its PM2: waiting between the probes that are still needed would prove nothing more.
    fn is_confirming(&self) -> bool {
        let is_undecided = self.state.failures() < self.limits.failure_threshold;
        let counts = self.state.rest.is_none() && !self.is_paused();
        let may_act = self.context.mode == Mode::Daemon || !self.schedule.attempted;
        self.schedule.is_dead_with_pm2 && is_undecided && counts && may_act
    }

    /// A tick whose probe has failed continues until the threshold, if `retry_interval` is configured or ticks are
    /// rare. An `unknown` verdict ends the tick, because the watchdog's own trouble may last and other ticks wait for
    /// this one. A pause ends it too, because nothing is decided in a pause.
    fn should_tick_retry(&self) -> bool {
        let Limits { failure_threshold, retry_interval, retry_in_tick, .. } = *self.limits;
        let has_failed = self.state.last_probe.as_ref().is_some_and(|probe| probe.verdict.class().is_some());
        let is_undecided = self.state.failures() < failure_threshold;
        let counts = self.state.rest.is_none() && !self.is_paused();
        let are_ticks_rare =
            self.context.tick_gap.is_some_and(|gap| ticks::are_rare(gap, failure_threshold, retry_interval));
        has_failed && is_undecided && counts && !self.schedule.attempted && (retry_in_tick || are_ticks_rare)
    }
}

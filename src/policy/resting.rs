//! Handles targets that are deliberately at rest: stopped by the operator, deleted, or between two scheduled runs.
//! It must never let them be restarted, reported as down or counted as down, nor forget them.

use std::time::Duration;

use crate::outcome::{Class, Inspection, Pm2Evidence, RestReason};
use crate::policy::backoff::delay_after;
use crate::policy::drill::DrillInterruption;
use crate::policy::rest::Rest;
use crate::policy::schedule::{InspectionPurpose, Precheck};
use crate::policy::state::Waiting;
use crate::policy::target_context::TargetContext;
use crate::policy::terms::{HoldReason, WarningKind};
use crate::policy::{Action, Precondition, Record};
use crate::time::{BootTime, round_age};

/// Without a cooldown, it would be inspected on every failed probe of a target at rest.
const MIN_INSPECTION_INTERVAL: Duration = Duration::from_secs(1);

impl TargetContext<'_> {
    pub(super) fn can_inspect(&self) -> bool {
        self.limits.preconditions.contains(&Precondition::Stopped)
    }

    /// Starts an inspection, unless one is running: there is one at a time. Returns whether it was started.
    pub(super) fn inspect(&mut self, purpose: InspectionPurpose) -> bool {
        let is_free = self.schedule.inspection.is_none();
        if is_free {
            self.schedule.inspection = Some((purpose, self.context.now));
            self.actions.push(Action::Inspect { target: self.name.to_string() });
        }
        is_free
    }

    /// An inspection that hangs, for example on a dead file server, must not hide that the target is down.
    pub(super) fn expire_inspection(&mut self) {
        if self.schedule.inspection_deadline().is_some_and(|until| until <= self.context.now) {
            self.inspected(Inspection::Failed { is_deaf: false, is_listed: false }, None);
        }
    }

    /// An inspection has ended. Its result is ignored if its purpose no longer applies.
    pub(super) fn inspected(&mut self, inspection: Inspection, evidence: Option<&Pm2Evidence>) {
        let Some((purpose, _)) = self.schedule.inspection.take() else { return };
        self.update_pm2(evidence);
        match purpose {
            InspectionPurpose::BeforeDown { stamp } => self.inspected_before_down(inspection, &stamp),
            InspectionPurpose::AtRest => self.inspected_at_rest(inspection),
            InspectionPurpose::BeforeAttempt { index } => self.inspected_before_attempt(inspection, index),
        }
    }

    fn inspected_before_down(&mut self, inspection: Inspection, stamp: &str) {
        let is_reached = self.state.failures() >= self.limits.failure_threshold;
        let failure = self.state.last_probe.as_ref().and_then(|probe| {
            let class = probe.verdict.class()?;
            Some((class, probe.verdict.detail().to_owned()))
        });
        let Some((streak, (class, detail))) = self.state.streak.filter(|_| is_reached).zip(failure) else { return };
        if self.state.incident.is_some() {
            return;
        }
        match inspection {
            Inspection::AtRest(reason) => self.begin_rest(reason),
            // A pause has begun during the inspection.
            Inspection::Failed { .. } if self.is_paused() => {}
            Inspection::Failed { is_deaf, .. } if self.confirm_failure(is_deaf) => {
                self.go_down(streak, class, detail, stamp);
            }
            Inspection::Failed { .. } => {}
        }
    }

    fn inspected_at_rest(&mut self, inspection: Inspection) {
        let Some(rest) = self.state.rest else { return };
        let reason = match inspection {
            Inspection::AtRest(reason) => reason,
            Inspection::Failed { is_listed: true, .. } => return self.end_rest(),
            // No answer: that is no reason to start what the operator stopped.
            Inspection::Failed { is_listed: false, .. } => rest.why,
        };
        let times = rest.times.saturating_add(1);
        self.state.rest = Some(Rest { why: reason, times, ask_at: self.next_inspection(times), ..rest });
        self.actions.push(Action::Save);
    }

    fn inspected_before_attempt(&mut self, inspection: Inspection, index: usize) {
        self.schedule.precheck = Precheck::Idle;
        if self.take_outdated()
            || self.limits.preconditions.get(index) != Some(&Precondition::Stopped)
            || !self.schedule.is_due
        {
            return;
        }
        match inspection {
            Inspection::AtRest(reason) => self.begin_rest(reason),
            Inspection::Failed { is_deaf, .. } if self.confirm_failure(is_deaf) => self.start_precheck(index + 1),
            Inspection::Failed { .. } => {}
        }
    }

    /// Returns whether the failure still stands after the inspection: it does not if PM2 lists the process as running
    /// or the process has just started.
    fn confirm_failure(&mut self, is_deaf: bool) -> bool {
        if self.accept_listed_process() {
            return false;
        }
        if self.grant_start_period() {
            self.schedule.next = Some(self.context.now);
            return false;
        }
        self.schedule.inspected = Some((self.context.now, is_deaf));
        true
    }

    /// PM2 lists a running process although the probe found none, because its other signs are missing. Trusts that
    /// process from now on. Returns whether this was the case.
    fn accept_listed_process(&mut self) -> bool {
        let is_running = self.state.last_class == Some(Class::Gone) && self.state.pm2.process.is_some();
        if is_running {
            self.trust_process();
            self.end_streak();
            self.schedule.next = Some(self.context.now);
            self.actions.push(Action::Save);
        }
        is_running
    }

    /// The target is left alone from now on. An open incident ends.
    fn begin_rest(&mut self, reason: RestReason) {
        let now = self.context.now;
        self.cut_drill_short(DrillInterruption::Rested);
        let incident = self.state.incident.take().map(|incident| incident.id);
        self.end_streak();
        self.state.stand_down = None;
        self.state.notifications.down = None;
        self.state.pm2.changes.clear();
        self.state.steadiness.clear();
        let ask_at = self.next_inspection(1);
        self.state.rest = Some(Rest { why: reason, since: now, ask_at, times: 1, reminded: None });
        self.state.waiting = self.rest_waiting();
        self.schedule.clear_due();
        self.schedule.expire_precheck();
        self.record(Record::Rested { why: reason, incident });
    }

    /// The target runs again, or nothing says any longer that it is meant to rest.
    pub(super) fn end_rest(&mut self) {
        if let Some(Rest { why: reason, .. }) = self.state.rest.take() {
            self.state.excused_until = Some(self.context.now);
            self.state.warned.remove(&WarningKind::Stopped);
            self.record(Record::Woke { why: reason });
        }
    }

    /// An unhealthy verdict: returns whether the target is still at rest, in which case the verdict does not count.
    pub(super) fn check_rest(&mut self) -> bool {
        let Some(rest) = self.state.rest else { return false };
        if self.state.pm2.process.is_some() {
            self.end_rest();
            return false;
        }
        if !self.can_inspect() {
            // The configuration names neither its process nor its unit any more.
            self.end_rest();
            return false;
        }
        if rest.ask_at <= self.context.now && self.state.attempt.is_none() {
            self.inspect(InspectionPurpose::AtRest);
        }
        true
    }

    fn next_inspection(&self, times: u32) -> BootTime {
        let delay = delay_after(times, 1, self.limits.cooldown, self.limits.max_cooldown);
        self.context.now + delay.max(MIN_INSPECTION_INTERVAL)
    }

    /// The rest as `status` shows it.
    pub(super) fn rest_waiting(&self) -> Option<Waiting> {
        self.state.rest.map(|rest| Waiting { why: HoldReason::Stopped, until: Some(rest.ask_at) })
    }

    pub(super) fn remind_of_rest(&mut self) {
        let now = self.context.now;
        let Some(rest) = self.state.rest.filter(|rest| rest.reminder_at().is_some_and(|at| at <= now)) else { return };
        if self.is_paused() {
            return;
        }
        self.state.rest = Some(Rest { reminded: Some(now), ..rest });
        self.state.warned.remove(&WarningKind::Stopped);
        let what = if rest.why == RestReason::Deleted { "deleted from PM2 (pm2 delete)" } else { "stopped" };
        let age = round_age(now.since(rest.since));
        self.warn(
            WarningKind::Stopped,
            format!("{what} by the operator {age} ago and left alone since then. Is this still intended?"),
        );
    }
}

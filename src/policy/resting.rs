//! What is deliberately at rest: stopped by the operator, deleted, or between two runs. It must never be restarted,
//! told as down, or counted as down, and never be forgotten.

use std::time::Duration;

use crate::outcome::{Class, Inspection, Pm2Evidence, RestReason};
use crate::policy::backoff::pause_after;
use crate::policy::rest::Rest;
use crate::policy::schedule::{InspectionPurpose, Precheck};
use crate::policy::state::Waiting;
use crate::policy::target_context::TargetContext;
use crate::policy::words::{HoldReason, WarningKind};
use crate::policy::{Action, Precondition, Record};
use crate::time::{BootTime, rough};

/// It is not asked more often than this whether it is still at rest, even without a cooldown.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl TargetContext<'_> {
    pub(super) fn can_inspect(&self) -> bool {
        self.limits.preconditions.contains(&Precondition::Stopped)
    }

    /// Whether that could be asked now: one inspection is made at a time.
    pub(super) fn inspect(&mut self, purpose: InspectionPurpose) -> bool {
        let is_free = self.schedule.inspection.is_none();
        if is_free {
            self.schedule.inspection = Some((purpose, self.context.now));
            self.actions.push(Action::InspectPm2 { target: self.name.to_string() });
        }
        is_free
    }

    /// An inspection that hangs, as on a file server that does not answer, must not keep what is down from being told.
    pub(super) fn give_up_inspecting(&mut self) {
        if self.schedule.inspected_until().is_some_and(|until| until <= self.context.now) {
            self.pm2_inspected(Inspection::Failed { is_deaf: false, is_listed: false }, None);
        }
    }

    /// An inspection has ended. Where what it was made for is over, its answer is of no use.
    pub(super) fn pm2_inspected(&mut self, inspection: Inspection, evidence: Option<&Pm2Evidence>) {
        let Some((purpose, _)) = self.schedule.inspection.take() else { return };
        self.note_pm2(evidence);
        match purpose {
            InspectionPurpose::BeforeDown { stamp } => self.inspected_before_down(inspection, &stamp),
            InspectionPurpose::AtRest => self.inspected_at_rest(inspection),
            InspectionPurpose::BeforeAttempt { gate } => self.inspected_before_attempt(inspection, gate),
        }
    }

    fn inspected_before_down(&mut self, inspection: Inspection, stamp: &str) {
        let is_reached = self.state.failures() >= self.limits.failure_threshold;
        let failed = self.state.last_probe.as_ref().and_then(|look| {
            let class = look.verdict.class()?;
            Some((class, look.verdict.detail().to_owned()))
        });
        let Some((streak, (class, detail))) = self.state.streak.filter(|_| is_reached).zip(failed) else { return };
        if self.state.incident.is_some() {
            return;
        }
        match inspection {
            Inspection::AtRest(why) => self.rest(why),
            // A pause has begun meanwhile.
            Inspection::Failed { .. } if self.is_paused() => {}
            Inspection::Failed { is_deaf, .. } if self.is_confirmed(is_deaf) => {
                self.go_down(streak, class, detail, stamp);
            }
            Inspection::Failed { .. } => {}
        }
    }

    fn inspected_at_rest(&mut self, inspection: Inspection) {
        let Some(rest) = self.state.rest else { return };
        let why = match inspection {
            Inspection::AtRest(why) => why,
            Inspection::Failed { is_listed: true, .. } => return self.wake_up(),
            // Nobody could be asked: that is no reason to start what somebody stopped.
            Inspection::Failed { is_listed: false, .. } => rest.why,
        };
        let times = rest.times.saturating_add(1);
        self.state.rest = Some(Rest { why, times, ask_at: self.ask_at(times), ..rest });
        self.actions.push(Action::Save);
    }

    fn inspected_before_attempt(&mut self, inspection: Inspection, gate: usize) {
        self.schedule.precheck = Precheck::Nothing;
        if self.is_outdated()
            || self.limits.preconditions.get(gate) != Some(&Precondition::Stopped)
            || !self.schedule.is_due
        {
            return;
        }
        match inspection {
            Inspection::AtRest(why) => self.rest(why),
            Inspection::Failed { is_deaf, .. } if self.is_confirmed(is_deaf) => self.start_precheck(gate + 1),
            Inspection::Failed { .. } => {}
        }
    }

    /// Whether the failure stands once PM2 was asked: the process does not live after all, nor has it just started.
    fn is_confirmed(&mut self, is_deaf: bool) -> bool {
        if self.lives_after_all() {
            return false;
        }
        if self.grant_start_period() {
            self.schedule.next = Some(self.context.now);
            return false;
        }
        self.schedule.inspected = Some((self.context.now, is_deaf));
        true
    }

    /// PM2's list has a process that lives, though the probe found none: its other signs are gone, and it is not. From
    /// now on it is known.
    fn lives_after_all(&mut self) -> bool {
        let lives = self.state.last_class == Some(Class::Gone) && self.state.pm2.seen.is_some();
        if lives {
            self.know_our_own();
            self.end_streak();
            self.schedule.next = Some(self.context.now);
            self.actions.push(Action::Save);
        }
        lives
    }

    /// It is left alone from now on; an incident that was open is over.
    fn rest(&mut self, why: RestReason) {
        let now = self.context.now;
        let incident = self.state.incident.take().map(|incident| incident.id);
        self.end_streak();
        self.state.stand_down = None;
        self.state.notifications.down = None;
        self.state.pm2.changes.clear();
        self.state.rest = Some(Rest { why, since: now, ask_at: self.ask_at(1), times: 1, reminded: None });
        self.state.waiting = self.rest_waits();
        self.schedule.end_due();
        self.schedule.pass_expires();
        self.record(Record::Rested { why, incident });
    }

    /// It runs again, or is at least not meant to rest any more.
    pub(super) fn wake_up(&mut self) {
        if let Some(Rest { why, .. }) = self.state.rest.take() {
            self.state.excused_until = Some(self.context.now);
            self.state.warned.remove(&WarningKind::Stopped);
            self.record(Record::Woke { why });
        }
    }

    /// A bad verdict on what is at rest: nothing of it counts. Whether it still is.
    pub(super) fn is_still_at_rest(&mut self) -> bool {
        let Some(rest) = self.state.rest else { return false };
        if self.state.pm2.seen.is_some() {
            self.wake_up();
            return false;
        }
        if !self.can_inspect() {
            // The configuration does not have it any more: nobody is left to ask.
            self.wake_up();
            return false;
        }
        if rest.ask_at <= self.context.now {
            self.inspect(InspectionPurpose::AtRest);
        }
        true
    }

    fn ask_at(&self, times: u32) -> BootTime {
        let pause = pause_after(times, 1, self.limits.cooldown, self.limits.max_cooldown);
        self.context.now + pause.max(ASK_AGAIN)
    }

    /// What is to be seen of it in `status`.
    pub(super) fn rest_waits(&self) -> Option<Waiting> {
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
        let what = if rest.why == RestReason::Deleted { "deleted from PM2 (pm2 delete)" } else { "stopped (pm2 stop)" };
        let since = rough(now.since(rest.since));
        self.warn(
            WarningKind::Stopped,
            format!("{what} by the operator {since} ago, and left alone since. Is that still meant?"),
        );
    }
}

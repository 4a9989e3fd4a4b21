//! Checks what must hold before a due attempt begins: the preconditions, one after another, and the reset that the
//! attempt would begin with. A check that does not pass postpones the attempt. It must never begin one.

use std::mem::take;
use std::time::Duration;

use crate::policy::backoff::delay_after;
use crate::policy::schedule::{InspectionPurpose, Precheck};
use crate::policy::state::{StandDown, Waiting};
use crate::policy::target_context::TargetContext;
use crate::policy::terms::HoldReason;
use crate::policy::{Action, Limits, Precondition};

/// Without a cooldown, a precondition that does not hold would be checked again and again without a break.
const MIN_PRECHECK_INTERVAL: Duration = Duration::from_secs(1);

impl TargetContext<'_> {
    /// Starts the check of the precondition with this index; after the last one, the check of the reset, if the attempt
    /// would begin with one. Stands down if a reset is the only rung and the last reset is too recent.
    pub(super) fn start_precheck(&mut self, index: usize) {
        let target = self.name.to_string();
        match self.limits.preconditions.get(index) {
            // PM2 was inspected a moment ago, before the target went down.
            Some(Precondition::Stopped) if self.has_recent_inspection() => return self.start_precheck(index + 1),
            Some(Precondition::Stopped) => {
                if self.inspect(InspectionPurpose::BeforeAttempt { index }) {
                    self.schedule.precheck = Precheck::Precondition(index);
                }
                return;
            }
            Some(precondition) => {
                self.schedule.precheck = Precheck::Precondition(index);
                return self.actions.push(Action::CheckPrecondition { target, precondition: *precondition });
            }
            None => {}
        }
        let rung = self.rung_for(self.attempts_made().saturating_add(1));
        if (self.limits.reset == Some(rung) || self.should_reset_first()) && self.may_reset() {
            self.schedule.precheck = Precheck::CheckingReset;
            self.actions.push(Action::CheckReset { target });
        } else if self.limits.reset.is_some() && self.limits.rungs == 1 {
            self.schedule.precheck = Precheck::Idle;
            self.stand_down(HoldReason::Cooldown);
        } else {
            self.schedule.precheck = Precheck::Passed { reset: false };
        }
    }

    /// Records a stand-down that was decided in this step like any other reason to wait.
    pub(super) fn record_stand_down(&mut self) {
        let Some(StandDown { why: reason, until, .. }) = self.state.stand_down else { return };
        let waiting = Waiting { why: reason, until: Some(until) };
        self.state.waiting = Some(waiting);
        self.record_held_back(waiting);
    }

    /// A precondition was checked. The answer is ignored if the attempt is not due any more.
    pub(super) fn precondition_checked(&mut self, precondition: Precondition, holds: bool) {
        let Precheck::Precondition(index) = self.schedule.precheck else { return };
        self.schedule.precheck = Precheck::Idle;
        if self.take_outdated() || self.limits.preconditions.get(index) != Some(&precondition) || !self.schedule.is_due
        {
            return;
        }
        if holds {
            self.start_precheck(index + 1);
        } else {
            self.stand_down(HoldReason::OnlyIf);
        }
    }

    /// Whether the configuration has changed since the check began, so its answer must be ignored. Resets that mark.
    pub(super) fn take_outdated(&mut self) -> bool {
        take(&mut self.schedule.outdated)
    }

    /// The latest inspection is no older than a verdict may be.
    fn has_recent_inspection(&self) -> bool {
        self.schedule.inspected.is_some_and(|(at, _)| self.context.now.since(at) <= self.limits.timeout)
    }

    /// A warranted reset comes first, whatever the attempt's number: no other command reaches a deaf daemon, and after
    /// an interrupted reset there is nothing left that another command could repair.
    fn should_reset_first(&self) -> bool {
        let is_deaf = self.schedule.inspected.is_some_and(|(_, is_deaf)| is_deaf);
        self.limits.reset.is_some() && (is_deaf || self.state.real.reset_interrupted)
    }

    /// Postpones the attempt. The check is repeated after the cooldown, which doubles each time.
    pub(super) fn stand_down(&mut self, reason: HoldReason) {
        let Limits { cooldown, max_cooldown, .. } = *self.limits;
        let times = self.state.stand_down.map_or(0, |stand_down| stand_down.times).saturating_add(1);
        let delay = delay_after(times, 1, cooldown, max_cooldown).max(MIN_PRECHECK_INTERVAL);
        self.state.stand_down = Some(StandDown { why: reason, until: self.context.now + delay, times });
    }
}

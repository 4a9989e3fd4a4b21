//! Which rule forbids a due attempt, and until when: the contract's rule 3, in its order.

use std::time::Duration;

use crate::outcome::Class;
use crate::policy::state::Waiting;
use crate::policy::target_context::{Neighbours, TargetContext};
use crate::policy::words::HoldReason;
use crate::policy::{Limits, Mode, Record, budget};
use crate::time::BootTime;

/// A target that was never seen healthy is restarted no more often than this, once its ladder was climbed.
const NEVER_HEALTHY: Duration = Duration::from_secs(3_600);

impl TargetContext<'_> {
    pub(super) fn hold_reason(&self, neighbours: Neighbours) -> Option<Waiting> {
        let now = self.context.now;
        let wait = |why, until| Some(Waiting { why, until });
        if let Some(until) = self.state.pauses.until() {
            return wait(HoldReason::Paused, Some(until));
        }
        if let Some(until) = self.held_as_never_healthy() {
            return wait(HoldReason::NeverHealthy, until);
        }
        if let Some(class) = self.state.last_class
            && !self.limits.restart_on.contains(&class)
        {
            return wait(HoldReason::RestartOn, None);
        }
        let Limits { restart_window, max_restarts, .. } = *self.limits;
        if let Some(until) = budget::room_at(self.starts(), now, restart_window, max_restarts) {
            return wait(HoldReason::Limit, Some(until));
        }
        if let Some(until) = self.cooldown_until().filter(|until| *until > now) {
            return wait(HoldReason::Cooldown, Some(until));
        }
        if self.context.unsaved && self.context.mode == Mode::Once {
            return wait(HoldReason::Cooldown, None);
        }
        if neighbours.dependency_in_trouble {
            return wait(HoldReason::DependsOn, None);
        }
        if neighbours.busy {
            return wait(HoldReason::Busy, None);
        }
        let stand_down = self.state.stand_down.filter(|stand_down| stand_down.until > now)?;
        wait(stand_down.why, Some(stand_down.until))
    }

    /// Attempts made: real ones weigh on dry runs too, never the other way round.
    fn starts(&self) -> impl Iterator<Item = BootTime> {
        let dry = self.limits.dry_run.then_some(&self.state.dry.starts);
        self.state.real.starts.iter().chain(dry.into_iter().flatten()).copied()
    }

    fn cooldown_until(&self) -> Option<BootTime> {
        let dry = self.state.dry.cooldown_until.filter(|_| self.limits.dry_run);
        let unsaved = self.unsaved_until().filter(|_| self.context.unsaved);
        [self.state.real.cooldown_until, dry, unsaved].into_iter().flatten().max()
    }

    /// While the state cannot be saved, a crash would forget attempts: one per `max_cooldown` is all that is made.
    pub(super) fn unsaved_until(&self) -> Option<BootTime> {
        self.state.real.last_end.map(|end| end + self.limits.max_cooldown)
    }

    /// Rule 8: its address may be wrong, and then no restart helps.
    fn held_as_never_healthy(&self) -> Option<Option<BootTime>> {
        if self.state.proven {
            return None;
        }
        if let Some(Class::Status | Class::Body | Class::Protocol) = self.state.last_class {
            return Some(None);
        }
        let dry = if self.limits.dry_run { self.state.dry.unproven } else { 0 };
        let made = usize::try_from(self.state.real.unproven.saturating_add(dry)).unwrap_or(usize::MAX);
        let until = self.starts().max()? + NEVER_HEALTHY;
        (made >= self.limits.rungs && until > self.context.now).then_some(Some(until))
    }

    /// Tells why the attempt waits, where that is news.
    pub(super) fn record_hold(&mut self, Waiting { why, until }: Waiting) {
        self.schedule.pass_expires();
        let Some(incident) = &mut self.state.incident else { return };
        if incident.held == Some(why) {
            return;
        }
        incident.held = Some(why);
        let incident = incident.id.clone();
        self.record(Record::HeldBack { why, until, incident });
    }
}

//! Determines why a due attempt waits, and until when: the contract's rule 3, in its order.
//! It must never begin an attempt.

use std::time::Duration;

use crate::outcome::Class;
use crate::policy::state::Waiting;
use crate::policy::target_context::{Neighbours, TargetContext};
use crate::policy::terms::HoldReason;
use crate::policy::{Limits, Mode, Record, budget};
use crate::time::BootTime;

/// The contract's rule 8: the distance between attempts at a target that was never healthy, after one for each rung.
const NEVER_HEALTHY_INTERVAL: Duration = Duration::from_secs(3_600);

impl TargetContext<'_> {
    pub(super) fn hold_reason(&self, neighbours: Neighbours) -> Option<Waiting> {
        let now = self.context.now;
        if let Some(until) = self.state.pauses.until() {
            return hold(HoldReason::Paused, Some(until));
        }
        if let Some(until) = self.never_healthy_until() {
            return hold(HoldReason::NeverHealthy, until);
        }
        if let Some(class) = self.state.last_class
            && !self.limits.restart_on.contains(&class)
        {
            return hold(HoldReason::RestartOn, None);
        }
        let Limits { restart_window, max_restarts, .. } = *self.limits;
        if let Some(until) = budget::next_free_at(self.starts(), now, restart_window, max_restarts) {
            return hold(HoldReason::Limit, Some(until));
        }
        if let Some(until) = self.cooldown_until().filter(|until| *until > now) {
            return hold(HoldReason::Cooldown, Some(until));
        }
        if self.context.unsaved && self.context.mode == Mode::Once {
            return hold(HoldReason::Cooldown, None);
        }
        if neighbours.dependency_in_trouble {
            return hold(HoldReason::DependsOn, None);
        }
        if neighbours.busy {
            return hold(HoldReason::Busy, None);
        }
        let stand_down = self.state.stand_down.filter(|stand_down| stand_down.until > now)?;
        hold(stand_down.why, Some(stand_down.until))
    }

    /// The attempts that count: real ones count in dry runs too, but never the other way round.
    pub(super) fn starts(&self) -> impl Iterator<Item = BootTime> {
        let dry = self.limits.dry_run.then_some(&self.state.dry.starts);
        self.state.real.starts.iter().chain(dry.into_iter().flatten()).copied()
    }

    fn cooldown_until(&self) -> Option<BootTime> {
        let dry = self.state.dry.cooldown_until.filter(|_| self.limits.dry_run);
        let unsaved = self.unsaved_until().filter(|_| self.context.unsaved);
        [self.state.real.cooldown_until, dry, unsaved].into_iter().flatten().max()
    }

    /// While the state cannot be saved, a crash would lose the record of attempts, so there is one per `max_cooldown`.
    pub(super) fn unsaved_until(&self) -> Option<BootTime> {
        self.state.real.last_end.map(|end| end + self.limits.max_cooldown)
    }

    /// Rule 8: the address of a target that was never healthy may be wrong, and then no restart helps. Returns `None`
    /// if an attempt may be made, otherwise until when it waits, if known.
    fn never_healthy_until(&self) -> Option<Option<BootTime>> {
        if self.state.proven {
            return None;
        }
        if let Some(Class::Status | Class::Body | Class::Protocol) = self.state.last_class {
            return Some(None);
        }
        let dry = if self.limits.dry_run { self.state.dry.unproven } else { 0 };
        let made = usize::try_from(self.state.real.unproven.saturating_add(dry)).unwrap_or(usize::MAX);
        let until = self.starts().max()? + NEVER_HEALTHY_INTERVAL;
        (made >= self.limits.rungs && until > self.context.now).then_some(Some(until))
    }

    /// Records why the attempt waits, if that has changed.
    pub(super) fn record_held_back(&mut self, Waiting { why: reason, until }: Waiting) {
        self.schedule.expire_precheck();
        let Some(incident) = &mut self.state.incident else { return };
        if incident.held == Some(reason) {
            return;
        }
        incident.held = Some(reason);
        let incident = incident.id.clone();
        let by = self.drill_by();
        self.record(Record::HeldBack { why: reason, until, incident, by });
        self.hold_drill(reason, until);
    }
}

fn hold(reason: HoldReason, until: Option<BootTime>) -> Option<Waiting> {
    Some(Waiting { why: reason, until })
}

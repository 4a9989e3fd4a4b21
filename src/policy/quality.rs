//! Warns of a target that is not down but does not do well either: it is slow, or fails again and again.
//! It must never cause a restart.

use std::time::Duration;

use crate::policy::Action;
use crate::policy::steadiness::Steps;
use crate::policy::target_context::TargetContext;
use crate::policy::terms::WarningKind;
use crate::time::{HumanDuration, Latency, round_age};

impl TargetContext<'_> {
    /// A healthy verdict outside a start period: whether the target is slow changes after `failure_threshold` probes in
    /// a row that say otherwise, so that single probes change nothing.
    pub(super) fn check_speed(&mut self, detail: &str, latency: Duration) {
        let Some(limit) = self.limits.slow else {
            self.state.warned.remove(&WarningKind::Slow);
            return self.end_speed_streak();
        };
        let (was_slow, is_slow) = (self.state.warned.contains(&WarningKind::Slow), latency > limit);
        if was_slow == is_slow {
            return self.end_speed_streak();
        }
        self.state.speed_streak = self.state.speed_streak.saturating_add(1);
        let threshold = self.limits.failure_threshold;
        if self.state.speed_streak < threshold {
            return;
        }
        self.state.speed_streak = 0;
        if !is_slow {
            self.state.warned.remove(&WarningKind::Slow);
            return;
        }
        let probes = if threshold == 1 { "1 probe".into() } else { format!("{threshold} probes in a row") };
        let (latency, limit) = (Latency(latency), HumanDuration(limit));
        self.warn(WarningKind::Slow, format!("{detail} in {latency}; {probes} took longer than {limit}"));
    }

    /// This is saved at once, so that a crash does not bring the earlier probes back.
    pub(super) fn end_speed_streak(&mut self) {
        if std::mem::take(&mut self.state.speed_streak) > 0 {
            self.actions.push(Action::Save);
        }
    }

    /// A verdict that counts, outside incidents: warns of failures that are many but never enough in a row.
    pub(super) fn check_steadiness(&mut self, has_failed: bool) {
        if self.state.incident.is_some() {
            return;
        }
        let steps = self.state.steadiness.note(has_failed, self.context.now);
        if steps.is_unsteady() {
            let Steps { probes, failed, span } = steps;
            let (span, threshold) = (round_age(span), self.limits.failure_threshold);
            let detail = format!("{failed} of {probes} probes failed within {span}, but never {threshold} in a row");
            self.warn(WarningKind::Unsteady, detail);
        } else if steps.is_calm() {
            self.state.warned.remove(&WarningKind::Unsteady);
        }
    }
}

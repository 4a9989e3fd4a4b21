//! Warns of a target that is not down but does not do well either: it is healthy and slow.
//! It must never cause a restart.

use std::time::Duration;

use crate::policy::target_context::TargetContext;
use crate::policy::terms::WarningKind;
use crate::time::{HumanDuration, Latency};

impl TargetContext<'_> {
    /// A healthy verdict outside a start period: whether the target is slow changes after `failure_threshold` probes in
    /// a row that say otherwise, so that single probes change nothing.
    pub(super) fn check_speed(&mut self, detail: &str, latency: Duration) {
        let Some(limit) = self.limits.slow else {
            self.state.warned.remove(&WarningKind::Slow);
            self.state.speed_streak = 0;
            return;
        };
        let (was_slow, is_slow) = (self.state.warned.contains(&WarningKind::Slow), latency > limit);
        self.state.speed_streak = if was_slow == is_slow { 0 } else { self.state.speed_streak.saturating_add(1) };
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
}

//! When a target is probed next, and which answers a due attempt waits for.
//! It must never be stored: all of it belongs to this process only.

use std::time::Duration;

use crate::time::BootTime;

/// The contract's rule 5; also for the probes that confirm what is hardly in doubt.
const FAST_PACE: Duration = Duration::from_secs(1);
/// An inspection takes up to 28 s: 10 s for `pm2 jlist`, 10 s to end it, and the time for changing signs to settle.
const INSPECTION_TIMEOUT: Duration = Duration::from_secs(45);

#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    /// Regular probes start at this point and at every interval after it, so they never drift.
    pub(super) anchor: BootTime,
    pub(super) next: Option<BootTime>,
    /// When the latest probe was due.
    pub(super) slot: BootTime,
    pub(super) in_flight: Option<InFlightProbe>,
    pub(super) precheck: Precheck,
    /// The configuration has changed since the running check began, so its answer is ignored.
    pub(super) outdated: bool,
    /// The running inspection of PM2, and when it began.
    pub(super) inspection: Option<(InspectionPurpose, BootTime)>,
    /// When the latest inspection confirmed the failure, and whether PM2's daemon was deaf.
    pub(super) inspected: Option<(BootTime, bool)>,
    /// The latest probe found the target as dead as its PM2, so the probes that confirm it follow at once.
    pub(super) is_dead_with_pm2: bool,
    pub(super) is_due: bool,
    /// The due attempt only waits for an answer. Attempts that became due later wait for it too.
    pub(super) awaits_answer: bool,
    /// This process has made an attempt. A tick makes one at most.
    pub(super) attempted: bool,
    /// The target was removed from the configuration while its attempt was running.
    pub(super) retired: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct InFlightProbe {
    pub(super) number: u64,
    pub(super) started: BootTime,
    /// Why its result is worthless, if it is.
    pub(super) void: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InspectionPurpose {
    /// `stamp`: the start of the incident's id.
    BeforeDown { stamp: String },
    /// `index`: of the precondition.
    BeforeAttempt { index: usize },
    /// The target is at rest; the question is whether it still is.
    AtRest,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Precheck {
    #[default]
    Idle,
    /// The precondition of this index is being checked.
    Precondition(usize),
    /// All preconditions hold; the reset that the attempt would begin with is being checked.
    CheckingReset,
    /// `reset`: the attempt begins with a reset, which is warranted.
    Passed { reset: bool },
}

impl Schedule {
    /// An answer is awaited without which no attempt can begin.
    pub(super) fn is_prechecking(&self) -> bool {
        self.inspection.is_some() || matches!(self.precheck, Precheck::Precondition(_) | Precheck::CheckingReset)
    }

    pub(super) fn inspection_deadline(&self) -> Option<BootTime> {
        self.inspection.as_ref().map(|(_, since)| *since + INSPECTION_TIMEOUT)
    }

    pub(super) fn has_pending_probe(&self) -> bool {
        self.in_flight.is_some() || self.next.is_some()
    }

    pub(super) fn begin_probe(&mut self, slot: BootTime, number: u64, now: BootTime) {
        self.slot = slot;
        self.next = None;
        self.in_flight = Some(InFlightProbe { number, started: now, void: None });
    }

    /// A gap ends now: the result of the probe in flight is worthless.
    pub(super) fn invalidate_probe(&mut self, now: BootTime) {
        if let Some(probe) = &mut self.in_flight {
            probe.started = now;
            probe.void = Some("the watchdog itself was held up during the probe");
        }
    }

    /// The result of the probe in flight is worthless, for this reason.
    pub(super) fn void_probe(&mut self, why: &'static str) {
        self.in_flight.iter_mut().for_each(|probe| probe.void = Some(why));
    }

    pub(super) fn clear_due(&mut self) {
        (self.is_due, self.awaits_answer) = (false, false);
    }

    /// The checks that have passed must be made again.
    pub(super) fn expire_precheck(&mut self) {
        if let Precheck::Passed { .. } = self.precheck {
            self.precheck = Precheck::Idle;
        }
        self.inspected = None;
    }

    pub(super) fn next_regular(&self, now: BootTime, interval: Duration) -> BootTime {
        next_slot(self.anchor, interval, now)
    }

    /// The next slot after `now` at another pace than the regular one, counted from the slot of the latest probe.
    pub(super) fn next_at_pace(&self, now: BootTime, pace: Duration) -> BootTime {
        next_slot(self.slot, pace, now)
    }
}

/// Every second, or at the regular pace if that is faster.
pub(super) fn fast_pace(regular: Duration) -> Duration {
    FAST_PACE.min(regular)
}

/// The first point after `now` that is a whole number of `step`s after `from`. Missed slots are skipped.
fn next_slot(from: BootTime, step: Duration, now: BootTime) -> BootTime {
    let step_ms = step.as_millis().max(1);
    let steps = now.since(from).as_millis() / step_ms + 1;
    let ms = u64::try_from(steps.saturating_mul(step_ms)).unwrap_or(u64::MAX);
    from + Duration::from_millis(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(from: i64, step: u64, now: i64, expected: i64) {
        let slot = next_slot(BootTime::from_ms(from), Duration::from_millis(step), BootTime::from_ms(now));
        assert_eq!(slot.as_ms(), expected);
    }

    #[test]
    fn slots_stay_on_the_grid_and_missed_slots_are_skipped() {
        check(0, 30, 0, 30);
        check(0, 30, 29, 30);
        check(0, 30, 30, 60);
        check(0, 30, 95, 120);
        check(1_000, 30, 10, 1_030); // an anchor in the future, when targets are spread over the interval
        check(-50, 30, 0, 10);
    }
}

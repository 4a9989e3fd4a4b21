//! When to look at a target next. What stands here is of this process only and is never stored.

use std::time::Duration;

use crate::time::BootTime;

/// The pace while a target comes up: every second, as the contract has it.
const COMING_UP: Duration = Duration::from_secs(1);
/// An inspection takes up to 30 s: PM2 gets 10 s for its list, as much to end, and what changes gets its time.
const INSPECTION: Duration = Duration::from_secs(45);

#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    /// The regular looks are at this point and every interval after it, so that they never drift.
    pub(super) anchor: BootTime,
    pub(super) next: Option<BootTime>,
    /// The slot that the latest look was planned for.
    pub(super) slot: BootTime,
    pub(super) in_flight: Option<InFlightProbe>,
    pub(super) precheck: Precheck,
    /// The answer that is awaited is to a question that would not be asked so any more.
    pub(super) outdated: bool,
    /// What it is being inspected for, and since when.
    pub(super) inspection: Option<(InspectionPurpose, BootTime)>,
    /// When the latest inspection found nothing that speaks against a repair, and whether PM2's daemon is deaf.
    pub(super) inspected: Option<(BootTime, bool)>,
    pub(super) is_due: bool,
    /// The due attempt only awaits an answer: those that became due later wait for it, too.
    pub(super) awaits_answer: bool,
    /// In a tick: the attempt was made, and there is one at most.
    pub(super) attempted: bool,
    /// It left the configuration while its attempt was running.
    pub(super) retired: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct InFlightProbe {
    pub(super) number: u64,
    pub(super) at: BootTime,
    /// A gap lies within it, so it says nothing.
    pub(super) spoiled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InspectionPurpose {
    /// `stamp`: the name that its incident would have.
    BeforeDown { stamp: String },
    /// `gate`: the index of the one that asks.
    BeforeAttempt { gate: usize },
    /// It is at rest, as far as is known.
    AtRest,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Precheck {
    /// Nothing was asked.
    #[default]
    Nothing,
    /// The gate of this index is being asked.
    Precondition(usize),
    /// All said yes; whether the reset that the attempt would begin with is warranted is being found out.
    CheckingReset,
    /// `reset`: the one that the attempt would begin with is warranted.
    Passed { reset: bool },
}

impl Schedule {
    /// Whether an answer is awaited without which no attempt can be made.
    pub(super) fn is_prechecking(&self) -> bool {
        self.inspection.is_some() || matches!(self.precheck, Precheck::Precondition(_) | Precheck::CheckingReset)
    }

    pub(super) fn inspected_until(&self) -> Option<BootTime> {
        self.inspection.as_ref().map(|(_, since)| *since + INSPECTION)
    }

    pub(super) fn has_probe_in_flight(&self) -> bool {
        self.in_flight.is_some() || self.next.is_some()
    }

    pub(super) fn begin_probe(&mut self, slot: BootTime, number: u64, now: BootTime) {
        self.slot = slot;
        self.next = None;
        self.in_flight = Some(InFlightProbe { number, at: now, spoiled: false });
    }

    /// A gap ends now: whatever the look under way finds says nothing.
    pub(super) fn spoil(&mut self, now: BootTime) {
        if let Some(asked) = &mut self.in_flight {
            asked.at = now;
            asked.spoiled = true;
        }
    }

    pub(super) fn end_due(&mut self) {
        (self.is_due, self.awaits_answer) = (false, false);
    }

    /// What was answered with yes must be asked anew.
    pub(super) fn pass_expires(&mut self) {
        if let Precheck::Passed { .. } = self.precheck {
            self.precheck = Precheck::Nothing;
        }
        self.inspected = None;
    }

    pub(super) fn regular_after(&self, now: BootTime, interval: Duration) -> BootTime {
        next_slot(self.anchor, interval, now)
    }

    /// The next slot after `now` at another pace than the regular one, counted from the latest look's slot.
    pub(super) fn paced_after(&self, now: BootTime, pace: Duration) -> BootTime {
        next_slot(self.slot, pace, now)
    }
}

pub(super) fn coming_up(interval: Duration) -> Duration {
    COMING_UP.min(interval)
}

/// The first point after `now` that is a whole number of `step`s after `from`. Missed ones are skipped.
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
    fn slots_keep_to_the_grid_and_missed_ones_are_skipped() {
        check(0, 30, 0, 30);
        check(0, 30, 29, 30);
        check(0, 30, 30, 60);
        check(0, 30, 95, 120);
        check(1_000, 30, 10, 1_030); // an anchor that lies ahead: spread over the interval
        check(-50, 30, 0, 10);
    }
}

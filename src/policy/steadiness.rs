//! The stored counts of the last hour's probes outside incidents, in slices of ten minutes.
//! It must never grow with the number of probes.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::BootTime;

const HOUR: Duration = Duration::from_secs(3_600);
const SLICE: Duration = Duration::from_secs(600);
/// The contract's figures for `unsteady`.
const MIN_FAILED: u32 = 10;
const FAILED_SHARE: u32 = 3;
/// A target is steady again when half of that share fails, seen over half an hour.
const CALM_SHARE: u32 = 6;
const CALM_SPAN: Duration = Duration::from_secs(1_800);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Steadiness(VecDeque<Slice>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Slice {
    began: BootTime,
    probes: u32,
    failed: u32,
}

/// The sums over at most an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) probes: u32,
    pub(super) failed: u32,
    /// Since the first of these probes.
    pub(super) span: Duration,
}

impl Steadiness {
    pub(super) fn note(&mut self, has_failed: bool, now: BootTime) -> Steps {
        self.0.retain(|slice| now.since(slice.began) < HOUR);
        if self.0.back().is_none_or(|slice| now.since(slice.began) >= SLICE) {
            self.0.push_back(Slice { began: now, probes: 0, failed: 0 });
        }
        if let Some(slice) = self.0.back_mut() {
            slice.probes = slice.probes.saturating_add(1);
            slice.failed = slice.failed.saturating_add(u32::from(has_failed));
        }
        let sum = |count: fn(&Slice) -> u32| self.0.iter().fold(0_u32, |sum, slice| sum.saturating_add(count(slice)));
        let span = self.0.front().map_or(Duration::ZERO, |slice| now.since(slice.began));
        Steps { probes: sum(|slice| slice.probes), failed: sum(|slice| slice.failed), span }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn points_mut(&mut self) -> impl Iterator<Item = &mut BootTime> {
        self.0.iter_mut().map(|slice| &mut slice.began)
    }
}

impl Steps {
    pub(super) fn is_unsteady(self) -> bool {
        self.failed >= MIN_FAILED && self.failed.saturating_mul(FAILED_SHARE) >= self.probes
    }

    pub(super) fn is_calm(self) -> bool {
        self.span >= CALM_SPAN && self.failed.saturating_mul(CALM_SHARE) < self.probes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A probe each minute, of which each with a number in `failed` (from 0) fails.
    fn steps(count: i64, failed: impl Fn(i64) -> bool) -> (Steps, Steadiness) {
        let mut steadiness = Steadiness::default();
        let mut steps = Steps { probes: 0, failed: 0, span: Duration::ZERO };
        for minute in 0..count {
            steps = steadiness.note(failed(minute), BootTime::from_ms(minute * 60_000));
        }
        (steps, steadiness)
    }

    #[test]
    fn only_the_last_hour_counts_and_its_size_is_bounded() {
        let (last, steadiness) = steps(1_000, |minute| minute < 900);
        assert_eq!((last.probes, last.failed, steadiness.0.len()), (60, 0, 6));
        assert_eq!(last.span, Duration::from_secs(59 * 60));
        let (last, _) = steps(15, |minute| minute % 3 > 0);
        assert_eq!((last.probes, last.failed, last.is_unsteady()), (15, 10, true));
    }

    #[test]
    fn a_third_and_ten_at_least_are_unsteady() {
        let check = |probes, failed, minutes: u64, expected: (bool, bool)| {
            let steps = Steps { probes, failed, span: Duration::from_secs(60 * minutes) };
            assert_eq!((steps.is_unsteady(), steps.is_calm()), expected, "{steps:?}");
        };
        check(10, 10, 60, (true, false));
        check(9, 9, 60, (false, false));
        check(30, 10, 60, (true, false));
        check(31, 10, 60, (false, false));
        check(60, 10, 60, (false, false));
        check(61, 10, 60, (false, true));
        check(61, 10, 29, (false, false));
        check(u32::MAX, u32::MAX, 60, (true, false));
    }
}

//! How often cron calls, as far as the latest ticks show it, and what follows for a single tick.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::BootTime;

/// Five distances between ticks.
const KEPT: usize = 6;
/// Cron calls once a minute at most: what comes sooner after a tick was called by hand and says nothing of cron.
const SOONEST: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
/// Ticks that would need longer than this to reach the threshold are rare.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// A streak whose last failure is older than this says nothing to a new watchdog …
const STREAK_HOLDS: Duration = Duration::from_secs(30 * 60);
/// … nor to a tick, unless so few of their usual distances lie between.
const STREAK_HOLDS_TICKS: u32 = 3;

/// When the latest ticks began, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ticks(VecDeque<BootTime>);

impl Ticks {
    pub fn note(&mut self, at: BootTime) {
        match self.0.back() {
            // What was remembered is of no clock of ours.
            Some(last) if *last > at => self.0.clear(),
            Some(last) if at.since(*last) < SOONEST => return,
            Some(_) | None => {}
        }
        self.0.push_back(at);
        while self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    /// The usual distance: the median of the last five, so that neither a tick by hand nor a night without any moves
    /// it; of two the shorter one counts. `None` before there were two ticks.
    pub fn usual_gap(&self) -> Option<Duration> {
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        let mut gaps: Vec<Duration> = pairs.map(|(earlier, later)| later.since(*earlier)).collect();
        gaps.sort_unstable();
        gaps.get(gaps.len().saturating_sub(1) / 2).copied()
    }

    pub(super) fn shift(&mut self, ms: i64) {
        self.0.iter_mut().for_each(|at| *at = at.offset_by(ms));
    }
}

/// How old the last failure of a streak may be for a new watchdog. `tick_gap`: the usual distance, for a tick.
pub(super) fn streak_holds(tick_gap: Option<Duration>) -> Duration {
    tick_gap.unwrap_or_default().saturating_mul(STREAK_HOLDS_TICKS).max(STREAK_HOLDS)
}

/// Whether ticks come so rarely that a tick must decide by itself, probing at `pace`. Cron's distances are whole
/// minutes; a tick that began a second late makes no difference. A pace that is no quicker than cron is of no use.
pub(super) fn are_rare(tick_gap: Duration, threshold: u32, pace: Duration) -> bool {
    let minutes = (tick_gap + MINUTE / 2).as_secs() / MINUTE.as_secs();
    let minutes = u32::try_from(minutes).unwrap_or(u32::MAX);
    MINUTE.saturating_mul(minutes).saturating_mul(threshold) > LONGEST && pace < tick_gap
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks at these seconds; the usual distance in seconds.
    #[track_caller]
    fn check(ticks: &[i64], expected: Option<u64>) {
        let mut noted = Ticks::default();
        ticks.iter().for_each(|at| noted.note(BootTime::from_ms(at * 1000)));
        assert_eq!(noted.usual_gap().map(|gap| gap.as_secs()), expected);
        assert!(noted.0.len() <= KEPT);
    }

    #[test]
    fn what_is_usual_is_told_from_what_happens_once() {
        check(&[], None);
        check(&[7], None);
        check(&[0, 3_600], Some(3_600));
        check(&[0, 300, 29_100], Some(300)); // a night before the third
        check(&[0, 300, 600, 900, 29_700, 30_000], Some(300));
        check(&[0, 3_600, 7_200, 7_500, 10_800, 14_400], Some(3_600)); // one by hand
        check(&[0, 1, 2, 3, 25, 3_600, 7_200], Some(3_600)); // several in a row by hand
        check(&[9_000, 0, 60], Some(60));
        check(&[0, 60, 120, 180, 240, 300, 3_900, 7_500, 11_100], Some(3_600)); // cron was told otherwise
    }

    #[track_caller]
    fn check_rare(gap_s: f64, threshold: u32, pace_s: u64, expected: bool) {
        let gap = Duration::from_secs_f64(gap_s);
        assert_eq!(are_rare(gap, threshold, Duration::from_secs(pace_s)), expected, "{gap_s} {threshold} {pace_s}");
    }

    #[test]
    fn rare_is_what_would_take_over_15_min() {
        check_rare(60.0, 3, 30, false);
        check_rare(60.0, 15, 30, false);
        check_rare(60.0, 16, 30, true);
        check_rare(300.0, 3, 30, false);
        check_rare(312.5, 3, 30, false);
        check_rare(600.0, 3, 30, true);
        check_rare(600.0, 1, 30, false);
        check_rare(2_700.0, 3, 30, true);
        check_rare(3_599.2, 2, 1_800, true);
        check_rare(3_600.0, 3, 3_600, false);
        check_rare(1e9, 100, 86_400, true);
    }

    #[test]
    fn a_streak_holds_half_an_hour_or_three_ticks() {
        let holds = |gap: Option<u64>| streak_holds(gap.map(Duration::from_secs)).as_secs();
        assert_eq!(
            [None, Some(60), Some(600), Some(2_700), Some(3_600)].map(holds),
            [1_800, 1_800, 1_800, 8_100, 10_800]
        );
    }
}

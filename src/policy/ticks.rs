//! Estimates how often cron runs a tick, and derives how long a streak counts and whether one tick must decide.
//! It must never read cron's configuration: the observed ticks are all that counts.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::BootTime;

/// Six ticks give the five distances of the median.
const MAX_TICKS: usize = 6;
/// Cron runs at most once a minute: a tick sooner than this after another was started manually and shows nothing about
/// cron.
const MIN_GAP: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
/// The contract's section 6: ticks are rare if the threshold would take longer than this.
const MAX_TIME_TO_THRESHOLD: Duration = Duration::from_secs(15 * 60);
/// The contract's rule 9: an older streak does not count in a new watchdog …
const MAX_STREAK_AGE: Duration = Duration::from_secs(30 * 60);
/// … unless, in a tick, it is no older than this number of usual distances between ticks.
const MAX_STREAK_AGE_TICKS: u32 = 3;

/// When the latest ticks began, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ticks(VecDeque<BootTime>);

impl Ticks {
    pub fn note(&mut self, at: BootTime) {
        match self.0.back() {
            // A tick in the future was measured on another clock.
            Some(last) if *last > at => self.0.clear(),
            Some(last) if at.since(*last) < MIN_GAP => return,
            Some(_) | None => {}
        }
        self.0.push_back(at);
        while self.0.len() > MAX_TICKS {
            self.0.pop_front();
        }
    }

    /// The usual distance between ticks: the median of the last five, which neither a manual tick nor a night without
    /// ticks changes; of an even number, the lower of the middle two. `None` before there have been two ticks.
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

/// How old the last failure of a streak may be to count in a new watchdog. `tick_gap`: in a tick, the usual distance.
pub(super) fn max_streak_age(tick_gap: Option<Duration>) -> Duration {
    tick_gap.unwrap_or_default().saturating_mul(MAX_STREAK_AGE_TICKS).max(MAX_STREAK_AGE)
}

/// Whether ticks are so rare that a single one must decide, probing at `pace`. The distance is rounded to minutes, as
/// cron's are, so a tick that began a second late makes no difference. A pace no faster than cron would gain nothing.
pub(super) fn are_rare(tick_gap: Duration, threshold: u32, pace: Duration) -> bool {
    let minutes = (tick_gap + MINUTE / 2).as_secs() / MINUTE.as_secs();
    let minutes = u32::try_from(minutes).unwrap_or(u32::MAX);
    MINUTE.saturating_mul(minutes).saturating_mul(threshold) > MAX_TIME_TO_THRESHOLD && pace < tick_gap
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks at these seconds; the usual distance in seconds.
    #[track_caller]
    fn check(ticks: &[i64], expected: Option<u64>) {
        let mut ticks_seen = Ticks::default();
        ticks.iter().for_each(|at| ticks_seen.note(BootTime::from_ms(at * 1000)));
        assert_eq!(ticks_seen.usual_gap().map(|gap| gap.as_secs()), expected);
        assert!(ticks_seen.0.len() <= MAX_TICKS);
    }

    #[test]
    fn the_usual_distance_ignores_exceptions() {
        check(&[], None);
        check(&[7], None);
        check(&[0, 3_600], Some(3_600));
        check(&[0, 300, 29_100], Some(300)); // a night before the third
        check(&[0, 300, 600, 900, 29_700, 30_000], Some(300));
        check(&[0, 3_600, 7_200, 7_500, 10_800, 14_400], Some(3_600)); // one manual tick
        check(&[0, 1, 2, 3, 25, 3_600, 7_200], Some(3_600)); // several manual ticks in a row
        check(&[9_000, 0, 60], Some(60));
        check(&[0, 60, 120, 180, 240, 300, 3_900, 7_500, 11_100], Some(3_600)); // the crontab was changed
    }

    #[track_caller]
    fn check_rare(gap_s: f64, threshold: u32, pace_s: u64, expected: bool) {
        let gap = Duration::from_secs_f64(gap_s);
        assert_eq!(are_rare(gap, threshold, Duration::from_secs(pace_s)), expected, "{gap_s} {threshold} {pace_s}");
    }

    #[test]
    fn ticks_are_rare_if_the_threshold_takes_over_15_min() {
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
    fn a_streak_counts_for_half_an_hour_or_three_ticks() {
        let seconds = |gap: Option<u64>| max_streak_age(gap.map(Duration::from_secs)).as_secs();
        assert_eq!(
            [None, Some(60), Some(600), Some(2_700), Some(3_600)].map(seconds),
            [1_800, 1_800, 1_800, 8_100, 10_800]
        );
    }
}

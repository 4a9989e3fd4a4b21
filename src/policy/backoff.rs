//! How long to wait after the n-th try: escalate fast, repeat slowly.

use std::time::Duration;

/// `first` for the first `level` tries, then doubled with each further one, up to `last`. `number` counts from 1.
pub(super) fn pause_after(number: u32, level: usize, first: Duration, last: Duration) -> Duration {
    let level = u32::try_from(level).unwrap_or(u32::MAX);
    let factor = 2u32.saturating_pow(number.saturating_sub(level));
    first.saturating_mul(factor).min(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rungs: usize, first: u64, last: u64, expected: &[u64]) {
        let pauses = (1..)
            .take(expected.len())
            .map(|number| pause_after(number, rungs, Duration::from_secs(first), Duration::from_secs(last)).as_secs());
        assert_eq!(pauses.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_ladder_is_climbed_fast_and_repeated_slowly() {
        check(1, 60, 600, &[60, 120, 240, 480, 600, 600]);
        check(3, 60, 600, &[60, 60, 60, 120, 240, 480, 600]);
        check(2, 0, 600, &[0, 0, 0, 0]);
        check(1, 600, 600, &[600, 600]);
    }

    #[test]
    fn a_long_outage_overflows_nothing() {
        let day = Duration::from_secs(86_400);
        assert_eq!(pause_after(u32::MAX, 1, day, day), day);
    }
}

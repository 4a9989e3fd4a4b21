//! Computes the delay after the n-th try: escalate fast, repeat slowly.
//! It must never overflow, however long an outage lasts.

use std::time::Duration;

/// `min` after each of the first `flat` tries, then doubled with each further one, up to `max`. `number` counts from 1.
pub(super) fn delay_after(number: u32, flat: usize, min: Duration, max: Duration) -> Duration {
    let flat = u32::try_from(flat).unwrap_or(u32::MAX);
    let factor = 2u32.saturating_pow(number.saturating_sub(flat));
    min.saturating_mul(factor).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rungs: usize, min: u64, max: u64, expected: &[u64]) {
        let delays = (1..)
            .take(expected.len())
            .map(|number| delay_after(number, rungs, Duration::from_secs(min), Duration::from_secs(max)).as_secs());
        assert_eq!(delays.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn delays_double_once_every_rung_has_been_tried() {
        check(1, 60, 600, &[60, 120, 240, 480, 600, 600]);
        check(3, 60, 600, &[60, 60, 60, 120, 240, 480, 600]);
        check(2, 0, 600, &[0, 0, 0, 0]);
        check(1, 600, 600, &[600, 600]);
    }

    #[test]
    fn a_long_outage_does_not_overflow() {
        let day = Duration::from_secs(86_400);
        assert_eq!(delay_after(u32::MAX, 1, day, day), day);
    }
}

//! Counts the attempts in a restart window and determines when it has room for another.
//! It must never forget an attempt that could still lie in a window of a day, the longest allowed.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::BootTime;

/// The largest `max_restarts` that the configuration accepts: older attempts matter to no window.
const MAX_STARTS: usize = 100;

pub(super) fn add_start(starts: &mut VecDeque<BootTime>, now: BootTime) {
    starts.push_back(now);
    if starts.len() > MAX_STARTS {
        starts.pop_front();
    }
}

/// The number of `starts` in the `window` that ends at `now`.
pub fn count_in_window(starts: impl IntoIterator<Item = BootTime>, now: BootTime, window: Duration) -> usize {
    starts.into_iter().filter(|start| now.since(*start) < window).count()
}

/// When the window will have room for another attempt; `None` if it has now.
pub(super) fn next_free_at(
    starts: impl IntoIterator<Item = BootTime>,
    now: BootTime,
    window: Duration,
    max: u32,
) -> Option<BootTime> {
    let mut inside: Vec<BootTime> = starts.into_iter().filter(|start| now.since(*start) < window).collect();
    inside.sort_unstable();
    let excess = inside.len().checked_sub(usize::try_from(max).unwrap_or(usize::MAX))?;
    inside.get(excess).map(|last_to_leave| *last_to_leave + window)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `starts` and `now` in seconds, a window of 100 s, `max` attempts in it.
    #[track_caller]
    fn check(starts: &[i64], now: i64, max: u32, expected: Option<i64>) {
        let at = |s: &i64| BootTime::from_ms(s * 1000);
        let free_at = next_free_at(starts.iter().map(at), at(&now), Duration::from_secs(100), max);
        assert_eq!(free_at.map(|at| at.as_ms() / 1000), expected);
    }

    #[test]
    fn a_window_has_room_when_its_oldest_attempts_have_left_it() {
        check(&[], 0, 1, None);
        check(&[10], 50, 1, Some(110));
        check(&[10], 109, 1, Some(110));
        check(&[10], 110, 1, None);
        check(&[10, 20, 30], 50, 3, Some(110));
        check(&[10, 20, 30], 50, 4, None);
        check(&[10, 20, 30], 50, 1, Some(130));
        check(&[30, 10, 20], 50, 2, Some(120));
        check(&[60], 50, 1, Some(160)); // after a clock was set back, an attempt in the future still counts
    }

    #[test]
    fn an_attempt_leaves_the_window_at_its_end() {
        let at = |s: i64| BootTime::from_ms(s * 1000);
        let spent_at = |now| count_in_window([at(10), at(20)], at(now), Duration::from_secs(100));
        assert_eq!([20, 109, 110, 119, 120].map(spent_at), [2, 2, 1, 1, 0]);
    }

    #[test]
    fn the_number_of_stored_starts_is_bounded() {
        let mut starts = VecDeque::new();
        for second in 0..1_000 {
            add_start(&mut starts, BootTime::from_ms(second));
        }
        assert_eq!(starts.len(), MAX_STARTS);
        assert_eq!(count_in_window(starts, BootTime::from_ms(999), Duration::from_secs(1)), MAX_STARTS);
    }
}

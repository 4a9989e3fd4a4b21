//! The time budget of one probe: it starts once and all steps share it.
//! No step may extend or restart it.

use std::time::{Duration, Instant};

use crate::clock;

/// A point in time, kept as the start of the probe and the time it may take from there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    start: Instant,
    budget: Duration,
}

impl Deadline {
    pub(super) fn after(budget: Duration) -> Self {
        Deadline { start: clock::monotonic(), budget }
    }

    pub(super) fn elapsed(&self) -> Duration {
        clock::monotonic().duration_since(self.start)
    }

    /// `None` once it has passed: never zero, because many system calls take a timeout of zero for "wait forever".
    pub(super) fn remaining(&self) -> Option<Duration> {
        self.budget.checked_sub(self.elapsed()).filter(|remaining| !remaining.is_zero())
    }

    pub(super) fn budget(&self) -> Duration {
        self.budget
    }

    /// This deadline, or one `span` from now if that is earlier.
    pub(super) fn at_most(&self, span: Duration) -> Deadline {
        Deadline { start: self.start, budget: self.budget.min(self.elapsed() + span) }
    }

    /// An earlier deadline for the next of `parts` steps: it gets an equal share of the remaining time.
    pub(super) fn share(&self, parts: usize) -> Deadline {
        let parts = u32::try_from(parts.max(1)).unwrap_or(u32::MAX);
        let share = self.remaining().unwrap_or(Duration::ZERO) / parts;
        Deadline { start: self.start, budget: self.budget.min(self.elapsed() + share) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_part_of_the_remaining_time_and_never_exceeds_it() {
        let whole = Deadline::after(Duration::from_secs(100));
        let half = whole.share(2).budget();
        assert!((Duration::from_secs(49)..=Duration::from_secs(60)).contains(&half), "{half:?}");
        assert!(whole.share(1).budget() <= whole.budget());
        assert!(whole.share(0).budget() <= whole.budget());
    }

    #[test]
    fn a_deadline_that_has_passed_has_no_time_remaining() {
        assert_eq!(Deadline::after(Duration::ZERO).remaining(), None);
        assert_eq!(Deadline::after(Duration::ZERO).share(2).remaining(), None);
    }
}

//! The one budget of a look: started once, spent by every step, never restarted.
//! It must never be lengthened by a step that ignored it.

use std::time::{Duration, Instant};

use crate::clock;

/// A span that began when the look did.
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

    /// What is left; `None` once it has passed, so that nobody waits for zero, which many calls take for "for ever".
    pub(super) fn left(&self) -> Option<Duration> {
        self.budget.checked_sub(self.elapsed()).filter(|left| !left.is_zero())
    }

    pub(super) fn budget(&self) -> Duration {
        self.budget
    }

    pub(super) fn within(&self, span: Duration) -> Deadline {
        Deadline { start: self.start, budget: self.budget.min(self.elapsed() + span) }
    }

    /// An earlier deadline that spends an equal share of what is left on one of `parts` steps.
    pub(super) fn share(&self, parts: usize) -> Deadline {
        let parts = u32::try_from(parts.max(1)).unwrap_or(u32::MAX);
        let share = self.left().unwrap_or(Duration::ZERO) / parts;
        Deadline { start: self.start, budget: self.budget.min(self.elapsed() + share) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_what_is_left_and_never_longer_than_the_whole() {
        let whole = Deadline::after(Duration::from_secs(100));
        let half = whole.share(2).budget();
        assert!((Duration::from_secs(49)..=Duration::from_secs(60)).contains(&half), "{half:?}");
        assert!(whole.share(1).budget() <= whole.budget());
        assert!(whole.share(0).budget() <= whole.budget());
    }

    #[test]
    fn a_deadline_that_passed_leaves_nothing() {
        assert_eq!(Deadline::after(Duration::ZERO).left(), None);
        assert_eq!(Deadline::after(Duration::ZERO).share(2).left(), None);
    }
}

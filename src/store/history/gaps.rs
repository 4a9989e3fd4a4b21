//! When nobody watched, and why. How long that was is measured on the boot clock where that can be; where the wall
//! clock is set, what it said since the boot is moved with it. What it said before nobody can correct: a gap that lies
//! ahead of the present time, or in which somebody did watch, is one of a clock that was wrong, and readers pass it
//! over.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::WallTime;

const GAPS_KEPT: usize = 100;
/// Reports reach back no further.
const REACH: Duration = Duration::from_secs(90 * 86_400);

/// Spans in which nobody watched anything, in the order in which they were noted. Of more than a hundred, those that no
/// report reaches any more go first, then the shortest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Gaps(VecDeque<Gap>);

impl Gaps {
    /// Remembers a gap. One that ends before it begins is none: the wall clock was set back.
    pub fn note(&mut self, gap: Gap) {
        if gap.from < gap.to {
            self.0.push_back(gap);
        }
        while self.0.len() > GAPS_KEPT {
            let latest = self.0.iter().map(|gap| gap.to).max();
            let is_within_reach = |gap: &Gap| latest.is_none_or(|latest| latest.since(gap.to) <= REACH);
            let least = |(_, gap): &(usize, &Gap)| (is_within_reach(gap), gap.to.since(gap.from));
            let Some((at, _)) = self.0.iter().enumerate().min_by_key(least) else { return };
            self.0.remove(at);
        }
    }

    /// Whether there may have been more.
    pub fn is_full(&self) -> bool {
        self.0.len() == GAPS_KEPT
    }

    /// The wall clock was set by so many milliseconds: what it said since the boot, which was at `booted` by what
    /// it said before, is moved with it.
    pub fn move_since_boot(&mut self, booted: WallTime, moved: i64) {
        for Gap { from, to, .. } in &mut self.0 {
            [from, to].into_iter().for_each(|at| *at = at.corrected_since(booted, moved));
        }
        self.0.retain(|gap| gap.from < gap.to);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Gap> {
        self.0.iter()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub from: WallTime,
    pub to: WallTime,
    pub why: Absence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Absence {
    Stopped,
    /// It ended otherwise, or cron made no tick.
    Ended,
    /// The machine was off, or was rebooted.
    Rebooted,
    /// The machine slept, or gave the watchdog no CPU.
    Stalled,
}

impl Absence {
    pub fn as_str(self) -> &'static str {
        match self {
            Absence::Stopped => "stopped",
            Absence::Ended => "ended",
            Absence::Rebooted => "rebooted",
            Absence::Stalled => "stalled",
        }
    }

    pub fn describe(self) -> &'static str {
        match self {
            Absence::Stopped => "the watchdog was stopped",
            Absence::Ended => "the watchdog was killed, or no tick came",
            Absence::Rebooted => "the machine was off or was rebooted",
            Absence::Stalled => "the machine slept, or gave the watchdog no CPU",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_since_the_boot_is_moved_with_the_clock_and_back_again() {
        let at = |seconds: i64| WallTime::from_ms(1_795_313_530_000 + seconds * 1_000);
        let gap = |from: i64, to: i64| Gap { from: at(from), to: at(to), why: Absence::Ended };
        let mut gaps = Gaps::default();
        gaps.note(gap(9, 9));
        // One before the boot, one that ends with it, one since then.
        let noted = [gap(-500, -400), gap(-300, 10), gap(20, 30)];
        noted.iter().for_each(|one| gaps.note(one.clone()));
        let year = 365 * 86_400;
        gaps.move_since_boot(at(0), year * 1_000);
        let moved = [gap(-500, -400), gap(-300, 10 + year), gap(20 + year, 30 + year)];
        assert!(gaps.iter().eq(moved.iter()), "{gaps:?}");
        gaps.move_since_boot(at(year), -year * 1_000);
        assert!(gaps.iter().eq(noted.iter()), "{gaps:?}");
        // The year that the machine seemed to be off was none.
        let mut gaps = Gaps::default();
        gaps.note(gap(-300, year));
        gaps.move_since_boot(at(year), (-year - 400) * 1_000);
        assert_eq!(gaps, Gaps::default());
    }

    #[test]
    fn of_too_many_the_short_ones_go() {
        let at = |seconds: i64| WallTime::from_ms(1_795_313_530_000 + seconds * 1_000);
        let mut gaps = Gaps::default();
        let mut note = |from: i64, to: i64| gaps.note(Gap { from: at(from), to: at(to), why: Absence::Ended });
        note(-200 * 86_400, -100 * 86_400);
        note(0, 3_600);
        (1..=150).for_each(|n| note(4_000 * n, 4_000 * n + n));
        assert!(gaps.is_full());
        assert_eq!(gaps.iter().map(|gap| gap.to.since(gap.from).as_secs()).min(), Some(52));
        assert_eq!(gaps.iter().next().map(|gap| gap.to), Some(at(3_600)), "the one that is over is gone");
    }
}

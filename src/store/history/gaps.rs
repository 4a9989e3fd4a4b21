//! The spans in which nothing was watched, and why. Their length is measured on the boot clock where possible; when
//! the wall clock is set, times since the boot are corrected. Earlier times cannot be corrected, so readers ignore a
//! gap that lies in the future or in which probes were counted.
//! It must never grow beyond a fixed number of gaps.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::WallTime;

const MAX_GAPS: usize = 100;
/// The longest span of a report.
const MAX_REPORT_SPAN: Duration = Duration::from_secs(90 * 86_400);

/// In the order in which they were noted. Of more than a hundred, those that no report reaches any more are removed
/// first, then the shortest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Gaps(VecDeque<Gap>);

impl Gaps {
    /// A gap that ends before it begins is dropped: the wall clock was set back.
    pub fn note(&mut self, gap: Gap) {
        if gap.from < gap.to {
            self.0.push_back(gap);
        }
        while self.0.len() > MAX_GAPS {
            let latest = self.0.iter().map(|gap| gap.to).max();
            let is_within_reach = |gap: &Gap| latest.is_none_or(|latest| latest.since(gap.to) <= MAX_REPORT_SPAN);
            let priority = |(_, gap): &(usize, &Gap)| (is_within_reach(gap), gap.to.since(gap.from));
            let Some((at, _)) = self.0.iter().enumerate().min_by_key(priority) else { return };
            self.0.remove(at);
        }
    }

    /// Whether older gaps may have been removed.
    pub fn is_full(&self) -> bool {
        self.0.len() == MAX_GAPS
    }

    /// Corrects the times since the boot after the wall clock was set by `moved` milliseconds. `booted` is the time of
    /// the boot by the wall clock before it was set.
    pub fn correct_since_boot(&mut self, booted: WallTime, moved: i64) {
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
    pub why: GapReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GapReason {
    Stopped,
    /// It ended in another way, or cron started no tick.
    Ended,
    /// The machine was off or was rebooted.
    Rebooted,
    /// The machine was suspended, or the watchdog got no CPU time.
    Stalled,
}

impl GapReason {
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::Stopped => "stopped",
            GapReason::Ended => "ended",
            GapReason::Rebooted => "rebooted",
            GapReason::Stalled => "stalled",
        }
    }

    pub fn describe(self) -> &'static str {
        match self {
            GapReason::Stopped => "the watchdog was stopped",
            GapReason::Ended => "the watchdog was killed, or no tick ran",
            GapReason::Rebooted => "the machine was off or was rebooted",
            GapReason::Stalled => "the machine was suspended, or the watchdog got no CPU time",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_since_the_boot_follow_the_clock_there_and_back() {
        let at = |seconds: i64| WallTime::from_ms(1_795_313_530_000 + seconds * 1_000);
        let gap = |from: i64, to: i64| Gap { from: at(from), to: at(to), why: GapReason::Ended };
        let mut gaps = Gaps::default();
        gaps.note(gap(9, 9));
        // One before the boot, one that ends after it, one since then.
        let noted = [gap(-500, -400), gap(-300, 10), gap(20, 30)];
        noted.iter().for_each(|one| gaps.note(one.clone()));
        let year = 365 * 86_400;
        gaps.correct_since_boot(at(0), year * 1_000);
        let moved = [gap(-500, -400), gap(-300, 10 + year), gap(20 + year, 30 + year)];
        assert!(gaps.iter().eq(moved.iter()), "{gaps:?}");
        gaps.correct_since_boot(at(year), -year * 1_000);
        assert!(gaps.iter().eq(noted.iter()), "{gaps:?}");
        // The year in which the machine seemed to be off never happened.
        let mut gaps = Gaps::default();
        gaps.note(gap(-300, year));
        gaps.correct_since_boot(at(year), (-year - 400) * 1_000);
        assert_eq!(gaps, Gaps::default());
    }

    #[test]
    fn of_too_many_gaps_the_shortest_are_removed() {
        let at = |seconds: i64| WallTime::from_ms(1_795_313_530_000 + seconds * 1_000);
        let mut gaps = Gaps::default();
        let mut note = |from: i64, to: i64| gaps.note(Gap { from: at(from), to: at(to), why: GapReason::Ended });
        note(-200 * 86_400, -100 * 86_400);
        note(0, 3_600);
        (1..=150).for_each(|n| note(4_000 * n, 4_000 * n + n));
        assert!(gaps.is_full());
        assert_eq!(gaps.iter().map(|gap| gap.to.since(gap.from).as_secs()).min(), Some(52));
        assert_eq!(
            gaps.iter().next().map(|gap| gap.to),
            Some(at(3_600)),
            "the gap beyond the reach of reports is removed"
        );
    }
}

//! How much of the watched time a target was up, in buckets of an hour and of a day; time that nobody watched is in
//! neither. Days are those of UTC: they all have 24 hours, and no reader needs to know where the watchdog lived.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::{Wall, millis};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// 24 whole ones and the present one.
const HOURS_KEPT: i64 = 25;
/// 90 whole ones and the present one.
const DAYS_KEPT: i64 = 91;

/// Gaps that are remembered.
const GAPS_KEPT: usize = 100;

/// Spans in which nobody watched anything, oldest first; the latest hundred.
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
            self.0.pop_front();
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Gap> {
        self.0.iter()
    }
}

/// A span in which nobody watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The last sign of life before it.
    pub from: Wall,
    /// When somebody was there again.
    pub to: Wall,
    /// What it came from.
    pub why: Absence,
}

/// Why nobody watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Absence {
    /// The watchdog was told to stop.
    Stopped,
    /// It ended otherwise, or cron made no tick.
    Ended,
    /// The machine was off, or was rebooted.
    Rebooted,
    /// The machine slept, or gave the watchdog no CPU.
    Stalled,
}

impl Absence {
    /// For machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Absence::Stopped => "stopped",
            Absence::Ended => "ended",
            Absence::Rebooted => "rebooted",
            Absence::Stalled => "stalled",
        }
    }

    /// For people.
    pub fn in_words(self) -> &'static str {
        match self {
            Absence::Stopped => "the watchdog was stopped",
            Absence::Ended => "the watchdog was killed, or no tick came",
            Absence::Rebooted => "the machine was off or was rebooted",
            Absence::Stalled => "the machine slept, or gave the watchdog no CPU",
        }
    }
}

/// The watched time of one target, bounded at about 2 KiB.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Uptime {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hours: Vec<Bucket>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    days: Vec<Bucket>,
}

/// Which hour or day since 1970, and the milliseconds that were watched in it: up, down. Written as an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket(i64, u64, u64);

impl Uptime {
    /// Counts the span between two verdicts, which belongs to the earlier one's. A span that ends before it begins
    /// (the wall clock was set back) counts nothing, and what was counted beyond `to` is forgotten.
    pub fn record(&mut self, healthy: bool, from: Wall, to: Wall) {
        record(&mut self.hours, HOUR, HOURS_KEPT, healthy, from, to);
        record(&mut self.days, DAY, DAYS_KEPT, healthy, from, to);
    }

    /// The part of the watched time in the `last` span before `now` in which it was up, to the hour (over 24 h: to the
    /// day). Rounded down to four decimals: 1 only when it was never down. `None` when nothing was watched.
    pub fn uptime(&self, last: Duration, now: Wall) -> Option<f64> {
        let (up, down) = self.sums(last, now);
        let parts = (up * 10_000).checked_div(up + down)?;
        u32::try_from(parts).ok().map(|parts| f64::from(parts) / 10_000.0)
    }

    /// How much of the `last` span before `now` was watched.
    pub fn watched(&self, last: Duration, now: Wall) -> Duration {
        let (up, down) = self.sums(last, now);
        Duration::from_millis(u64::try_from(up + down).unwrap_or(u64::MAX))
    }

    /// The milliseconds up and down in the `last` span before `now`.
    fn sums(&self, last: Duration, now: Wall) -> (u128, u128) {
        let (buckets, unit) = match millis(last) <= (HOURS_KEPT - 1) * HOUR {
            true => (&self.hours, HOUR),
            false => (&self.days, DAY),
        };
        let first = now.as_ms().saturating_sub(millis(last)).div_euclid(unit);
        let within = first..=now.as_ms().div_euclid(unit);
        buckets
            .iter()
            .filter(|Bucket(index, ..)| within.contains(index))
            .fold((0, 0), |(up, down), bucket| (up + u128::from(bucket.1), down + u128::from(bucket.2)))
    }
}

fn record(buckets: &mut Vec<Bucket>, unit: i64, kept: i64, healthy: bool, from: Wall, to: Wall) {
    let newest = to.as_ms().div_euclid(unit);
    let oldest = newest.saturating_sub(kept - 1);
    let mut start = from.as_ms().max(oldest.saturating_mul(unit));
    while start < to.as_ms() {
        let index = start.div_euclid(unit);
        let end = index.saturating_add(1).saturating_mul(unit).min(to.as_ms());
        let at = buckets.binary_search_by_key(&index, |bucket| bucket.0).unwrap_or_else(|at| {
            buckets.insert(at, Bucket(index, 0, 0));
            at
        });
        let Bucket(_, up, down) = &mut buckets[at];
        let counted = if healthy { up } else { down };
        *counted = counted.saturating_add(end.abs_diff(start));
        start = end;
    }
    buckets.retain(|bucket| (oldest..=newest).contains(&bucket.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: u64 = 86_400;
    /// 2026-11-22T02:12:10Z
    const NOW: i64 = 1_795_313_530_000;

    /// Spans as (healthy, minutes from, minutes to), relative to now.
    #[track_caller]
    fn check(spans: &[(bool, i64, i64)], last_s: u64, expected: Option<f64>) {
        let mut uptime = Uptime::default();
        let at = |minute: i64| Wall::from_ms(NOW + minute * 60_000);
        for &(healthy, from, to) in spans {
            uptime.record(healthy, at(from), at(to));
        }
        assert_eq!(uptime.uptime(Duration::from_secs(last_s), at(0)), expected);
        let json = serde_json::to_string(&uptime).expect("numbers have a JSON form");
        assert_eq!(serde_json::from_str::<Uptime>(&json).expect("it was just written"), uptime);
    }

    #[test]
    fn what_was_not_watched_is_neither_up_nor_down() {
        let mut uptime = Uptime::default();
        let now = Wall::from_ms(1_795_313_530_123);
        uptime.record(true, now.shifted(-60_000), now.shifted(-30_000));
        uptime.record(false, now.shifted(-10_000), now);
        assert_eq!(uptime.watched(Duration::from_secs(DAY_S), now), Duration::from_secs(40));
        assert_eq!(Uptime::default().watched(Duration::from_secs(DAY_S), now), Duration::ZERO);
    }

    #[test]
    fn uptime_is_of_the_watched_time() {
        check(&[], DAY_S, None);
        check(&[(true, -60, 0)], DAY_S, Some(1.0));
        check(&[(false, -60, 0)], DAY_S, Some(0.0));
        check(&[(true, -60, -30), (false, -30, 0)], DAY_S, Some(0.5));
        check(&[(true, -600, -570), (false, -10, 0)], DAY_S, Some(0.75));
        check(&[(false, -27 * 60, -26 * 60), (true, -60, 0)], DAY_S, Some(1.0));
        check(&[(false, -27 * 60, -26 * 60), (true, -60, 0)], 30 * DAY_S, Some(0.5));
        check(&[(false, -40 * 1_440, -39 * 1_440), (true, -60, 0)], 30 * DAY_S, Some(1.0));
        check(&[(false, -40 * 1_440, -39 * 1_440), (true, -60, 0)], 90 * DAY_S, Some(0.04));
        check(&[(true, -50 * 1_440, -49 * 1_440)], 30 * DAY_S, None);
    }

    #[test]
    fn percentages_round_down() {
        // 3 s in 100,000: 99.997 % is not 100 %, nor 99.998.
        let mut uptime = Uptime::default();
        let at = |ms: i64| Wall::from_ms(NOW - 1_000_000 + ms);
        uptime.record(true, at(0), at(999_970));
        uptime.record(false, at(999_970), at(1_000_000));
        assert_eq!(uptime.uptime(Duration::from_secs(DAY_S), at(1_000_000)), Some(0.9999));
    }

    #[test]
    fn a_clock_set_back_counts_nothing_twice_and_forgets_the_future() {
        check(&[(true, 0, -60)], DAY_S, None);
        check(&[(false, 600_000, 600_060), (true, -60, 0)], DAY_S, Some(1.0));
        check(&[(false, 600_000, 600_060)], DAY_S, None);
    }

    #[test]
    fn it_never_grows_beyond_its_bound() {
        let mut uptime = Uptime::default();
        let extremes = [i64::MIN, -NOW, 0, NOW, i64::MAX - 1, i64::MAX].map(Wall::from_ms);
        for from in extremes {
            for to in extremes {
                uptime.record(true, from, to);
                uptime.record(false, from, to);
                uptime.uptime(Duration::MAX, to);
            }
        }
        for minute in 0..200 * 1_440 {
            let at = Wall::from_ms(NOW + minute * 60_000);
            uptime.record(minute % 3 == 0, at, at.shifted(60_000));
        }
        assert_eq!((uptime.hours.len(), uptime.days.len()), (25, 91));
        assert!(serde_json::to_string(&uptime).expect("numbers have a JSON form").len() < 3_500);
    }
}

//! How often PM2 restarted a target's process by itself, and why, by hour and by day. It must never grow with the
//! number of restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DAY, DAYS_SHOWN, HOUR, HOURS_SHOWN, HourRange};
use crate::outcome::RestartReason;
use crate::time::{WallTime, millis};

/// Reasons that an hour or a day tells apart.
const MAX_REASONS: usize = 4;

pub type RestartCounts = BTreeMap<RestartReason, u64>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restarts {
    /// The one that was added to last is at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hours: Vec<Bucket>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    days: Vec<Bucket>,
}

/// The index of an hour or day since 1970, and what happened in it. Written as an array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket(i64, RestartCounts);

impl Restarts {
    pub(super) fn is_empty(&self) -> bool {
        self.hours.is_empty() && self.days.is_empty()
    }

    /// The restarts in the `last` span before `now`; of more than 24 h in whole days, like the uptime.
    pub fn within(&self, last: Duration, now: WallTime) -> RestartCounts {
        let (buckets, unit) = if millis(last) <= DAY { (&self.hours, HOUR) } else { (&self.days, DAY) };
        let first = now.as_ms().saturating_sub(millis(last)).div_euclid(unit);
        let within = first..=now.as_ms().div_euclid(unit);
        let mut sums = RestartCounts::new();
        for Bucket(_, counts) in buckets.iter().filter(|bucket| within.contains(&bucket.0)) {
            counts.iter().for_each(|(reason, count)| *sums.entry(reason.clone()).or_default() += count);
        }
        sums
    }

    pub(super) fn record(&mut self, reason: &RestartReason, at: WallTime) {
        add(&mut self.hours, at.as_ms().div_euclid(HOUR), 2 * HOURS_SHOWN, reason);
        add(&mut self.days, at.as_ms().div_euclid(DAY), 2 * DAYS_SHOWN, reason);
    }

    pub(super) fn restricted_to(&self, HourRange { first, last }: HourRange) -> Restarts {
        let within = |buckets: &[Bucket], first: i64, last: i64| {
            buckets.iter().filter(|one| (first..=last).contains(&one.0)).cloned().collect()
        };
        Restarts {
            hours: within(&self.hours, first, last),
            days: within(&self.days, first.div_euclid(24), last.div_euclid(24)),
        }
    }

    pub(super) fn merge(&mut self, recent: Restarts) {
        for (buckets, recent) in [(&mut self.hours, recent.hours), (&mut self.days, recent.days)] {
            for bucket in recent {
                buckets.retain(|one| one.0 != bucket.0);
                buckets.push(bucket);
            }
        }
    }
}

fn add(buckets: &mut Vec<Bucket>, index: i64, max_count: usize, reason: &RestartReason) {
    let found = buckets.iter().rposition(|bucket| bucket.0 == index).map(|at| buckets.remove(at));
    let Bucket(_, mut counts) = found.unwrap_or(Bucket(index, RestartCounts::new()));
    let is_full = counts.len() >= MAX_REASONS && !counts.contains_key(reason);
    *counts.entry(if is_full { RestartReason::Other } else { reason.clone() }).or_default() += 1;
    buckets.push(Bucket(index, counts));
    buckets.drain(..buckets.len().saturating_sub(max_count));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> WallTime {
        WallTime::from_ms(hours * HOUR)
    }

    #[test]
    fn restarts_are_counted_by_reason_within_a_span() {
        let mut restarts = Restarts::default();
        let (memory, crash) = (RestartReason::Memory(7), RestartReason::Exit(1));
        for (reason, hours) in [(&memory, 0), (&memory, 30), (&crash, 30), (&memory, 31)] {
            restarts.record(reason, at(hours));
        }
        let within = |last: i64, now: i64| restarts.within(Duration::from_secs(3_600 * last.unsigned_abs()), at(now));
        assert_eq!(within(24, 31), RestartCounts::from([(memory.clone(), 2), (crash.clone(), 1)]));
        assert_eq!(within(48, 31), RestartCounts::from([(memory.clone(), 3), (crash, 1)]));
        assert_eq!(within(24, 100), RestartCounts::new());
        assert_eq!(within(24, 29), RestartCounts::from([]), "nothing ahead of the present time");
    }

    #[test]
    fn neither_many_reasons_nor_many_days_take_more_room() {
        let mut restarts = Restarts::default();
        for hour in 0..24 * 400 {
            for code in 0..20 {
                restarts.record(&RestartReason::Exit(code), at(hour));
            }
        }
        assert_eq!((restarts.hours.len(), restarts.days.len()), (2 * HOURS_SHOWN, 2 * DAYS_SHOWN));
        assert!(restarts.days.iter().all(|Bucket(_, counts)| counts.len() <= MAX_REASONS + 1));
        let last = restarts.within(Duration::ZERO, at(24 * 400 - 1));
        assert_eq!(last.values().sum::<u64>(), 20);
    }

    #[test]
    fn what_was_written_since_replaces_what_was_written_before() {
        let mut restarts = Restarts::default();
        restarts.record(&RestartReason::Watch, at(10));
        let mut whole = restarts.clone();
        restarts.record(&RestartReason::Watch, at(10));
        let recent = restarts.restricted_to(HourRange { first: 10, last: 12 });
        whole.merge(recent.clone());
        whole.merge(recent);
        assert_eq!(whole, restarts);
        assert!(restarts.restricted_to(HourRange { first: 40, last: 41 }).is_empty());
    }
}

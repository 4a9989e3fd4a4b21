//! What is remembered of each target for 90 days: how much of the watched time it was up, in buckets of an hour and of
//! a day, and how quickly it answered. Time that nobody watched is in none of them. Days are those of UTC: they all
//! have 24 hours, and no reader needs to know where the watchdog lived.
//!
//! A span is counted where the wall clock stands at that moment, and wall clocks are wrong: a year ahead until NTP
//! corrects them, or in 1970 on a board without a battery. Nothing says which of two times is the right one. So
//! nothing is forgotten because of what the clock says: readers take what lies in their span before the present time,
//! and pass over whatever lies ahead of it or far behind. Twice as many buckets are kept as are ever shown, and the
//! one that was counted in longest ago goes first, whatever its date. So a clock that is wrong, for as long as readers
//! reach back, pushes nothing out that they show once it is right again, and what it has left behind goes like all
//! else.
//!
//! The bulk lies in `history.json`, written once an hour; `state.json` has only what has changed since, so that it
//! stays small. A loss of either loses history and nothing else.

mod gaps;
mod latency;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use gaps::{Absence, Gap, Gaps};
pub use latency::{Latencies, Slot};

use super::{Error, Folder, files};
use crate::time::{WallTime, millis};

const HISTORY: &str = "history.json";
/// The format that this code writes, and the newest that it reads.
const VERSION: u64 = 1;
/// A thousand targets take about 10 MB.
const MAX_SIZE: u64 = 32 << 20;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// 24 whole ones and the present one.
const HOURS_SHOWN: usize = 25;
/// 90 whole ones and the present one.
const DAYS_SHOWN: usize = 91;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    targets: BTreeMap<String, Uptime>,
    /// The hours since 1970 outside of which nothing was counted since `history.json` was written, and their days.
    changed: Changed,
    /// What lies in `history.json` is in `targets` too.
    is_whole: bool,
}

/// The hours since 1970 from the first to the last; none at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Changed {
    first: i64,
    last: i64,
}

impl Default for Changed {
    fn default() -> Changed {
        Changed { first: i64::MAX, last: i64::MIN }
    }
}

impl Changed {
    fn contains(self, hour: i64) -> bool {
        (self.first..=self.last).contains(&hour)
    }

    fn extend(&mut self, hour: i64) {
        (self.first, self.last) = (self.first.min(hour), self.last.max(hour));
    }
}

/// What `state.json` has of it: what has changed since `history.json` was written.
#[derive(Serialize, Deserialize)]
#[serde(default)]
struct Recent {
    flushed: i64,
    until: i64,
    targets: BTreeMap<String, Uptime>,
}

impl Default for Recent {
    fn default() -> Recent {
        // What wrote no `until` wrote all that came after `flushed`.
        Recent { flushed: 0, until: i64::MAX, targets: BTreeMap::new() }
    }
}

impl Serialize for History {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let changed = |(name, uptime): (&String, &Uptime)| (name.clone(), uptime.within(self.changed));
        let targets = self.targets.iter().map(changed).collect();
        let Changed { first: flushed, last: until } = self.changed;
        Recent { flushed, until, targets }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for History {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<History, D::Error> {
        let Recent { flushed, until, targets } = Recent::deserialize(deserializer)?;
        Ok(History { targets, changed: Changed { first: flushed, last: until }, is_whole: false })
    }
}

#[derive(Serialize, Deserialize)]
struct HistoryFile<T> {
    version: u64,
    targets: T,
}

impl History {
    pub fn get(&self, name: &str) -> Option<&Uptime> {
        self.targets.get(name)
    }

    /// Whether what is counted then may have to be added to what lies in `history.json`: [`History::complete`] is to be
    /// called before.
    pub fn is_lacking(&self, at: WallTime) -> bool {
        !self.is_whole && !self.changed.contains(hour_of(at))
    }

    /// `healthy`: both verdicts around the span were. A span that ends before it begins counts nothing.
    pub fn record(&mut self, name: &str, healthy: bool, from: WallTime, to: WallTime) {
        self.entry(name, from).record(healthy, from, to);
        self.changed.extend(hour_of(to));
    }

    pub fn record_latency(&mut self, name: &str, latency: Duration, at: WallTime) {
        self.entry(name, at).latency.record(latency, at);
    }

    fn entry(&mut self, name: &str, at: WallTime) -> &mut Uptime {
        self.changed.extend(hour_of(at));
        self.targets.entry(name.to_owned()).or_default()
    }

    pub fn retain(&mut self, is_watched: impl Fn(&str) -> bool) {
        self.targets.retain(|name, _| is_watched(name));
    }

    /// Reads what `history.json` has, if that was not done yet. Whoever only looks may call this at any time.
    /// Errors: the file is there and cannot be read; it is tried again then. Or it is damaged or of a newer version
    /// (the kind is `InvalidData`): the next flush begins it anew. What is in `state.json` is known in any case.
    pub fn complete(&mut self, folder: &Folder) -> Result<(), Error> {
        if self.is_whole {
            return Ok(());
        }
        let read = self.read(folder);
        self.is_whole = read.as_ref().map_or_else(|error| error.kind() == io::ErrorKind::InvalidData, |()| true);
        read
    }

    fn read(&mut self, folder: &Folder) -> Result<(), Error> {
        let path = folder.file(HISTORY);
        let failed = |cause| Error::new("read", &path, cause);
        let bytes = match files::read(&path, MAX_SIZE) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(failed)?,
        };
        let broken = |error: serde_json::Error| failed(files::damaged(error.to_string()));
        let HistoryFile::<serde_json::Value> { version, targets } = serde_json::from_slice(&bytes).map_err(broken)?;
        if version > VERSION {
            return Err(failed(files::damaged(format!("it is of version {version}, newer than this program"))));
        }
        let mut whole: BTreeMap<String, Uptime> = serde_json::from_value(targets).map_err(broken)?;
        for (name, recent) in std::mem::take(&mut self.targets) {
            whole.entry(name).or_default().overlay(recent);
        }
        self.targets = whole;
        Ok(())
    }

    pub fn is_due(&self, now: WallTime) -> bool {
        self.changed != Changed { first: hour_of(now), last: hour_of(now) }
    }

    /// Writes `history.json` whole. Only whoever holds the lock may call this, after [`History::complete`].
    /// Errors: it cannot be written; `state.json` goes on to hold what it lacks.
    pub fn flush(&mut self, folder: &Folder, now: WallTime) -> Result<(), Error> {
        folder.ensure()?;
        let path = folder.file(HISTORY);
        let document = HistoryFile { version: VERSION, targets: &self.targets };
        files::replace_by(&path, false, |file| serde_json::to_writer(file, &document).map_err(io::Error::from))
            .map_err(|cause| Error::new("save", &path, cause))?;
        self.changed = Changed { first: hour_of(now), last: hour_of(now) };
        Ok(())
    }
}

fn hour_of(at: WallTime) -> i64 {
    at.as_ms().div_euclid(HOUR)
}

/// What is remembered of one target, bounded at about 10 KiB.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Uptime {
    /// The latest counted in stands last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hours: Vec<Bucket>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    days: Vec<Bucket>,
    #[serde(skip_serializing_if = "Latencies::is_empty")]
    latency: Latencies,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Day {
    /// Its beginning, in UTC.
    pub begins: WallTime,
    pub watched: Duration,
    /// The part of that in which it was up, rounded down to four decimals; `None` where nothing was watched.
    pub up: Option<f64>,
}

/// Which hour or day since 1970, and the milliseconds that were watched in it: up, down. Written as an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket(i64, u64, u64);

impl Uptime {
    fn record(&mut self, healthy: bool, from: WallTime, to: WallTime) {
        record(&mut self.hours, HOUR, 2 * HOURS_SHOWN, healthy, from, to);
        record(&mut self.days, DAY, 2 * DAYS_SHOWN, healthy, from, to);
    }

    pub fn latency(&self) -> &Latencies {
        &self.latency
    }

    /// When it was first watched in this span, to the hour or to the day.
    pub fn begins(&self, since: WallTime, now: WallTime) -> Option<WallTime> {
        let first = |buckets: &[Bucket], unit: i64| {
            let within = since.as_ms().div_euclid(unit)..=now.as_ms().div_euclid(unit);
            let found = buckets.iter().map(|bucket| bucket.0).filter(|index| within.contains(index));
            found.min().map(|index| index.saturating_mul(unit))
        };
        let (hour, day) = (first(&self.hours, HOUR), first(&self.days, DAY));
        // An hour says it more exactly, where it is of the first day.
        let hour = hour.filter(|hour| day.is_none_or(|day| hour.saturating_sub(day) < DAY));
        hour.or(day).map(WallTime::from_ms)
    }

    pub fn contradicts(&self, from: WallTime, to: WallTime) -> bool {
        let days = from.as_ms().div_euclid(DAY) + 1..to.as_ms().div_euclid(DAY);
        self.days.iter().any(|bucket| days.contains(&bucket.0))
    }

    /// The last days, today the last of them, whether anything was watched in them or not.
    pub fn days(&self, count: i64, now: WallTime) -> Vec<Day> {
        let today = now.as_ms().div_euclid(DAY);
        let day = |index: i64| {
            let found = self.days.iter().find(|bucket| bucket.0 == index);
            let Bucket(_, up, down) = found.copied().unwrap_or(Bucket(index, 0, 0));
            let watched = Duration::from_millis(up.saturating_add(down));
            Day { begins: WallTime::from_ms(index * DAY), watched, up: part(up.into(), down.into()) }
        };
        (today - count + 1..=today).map(day).collect()
    }

    /// What was counted in these hours, and on the days that they lie in.
    fn within(&self, Changed { first, last }: Changed) -> Uptime {
        let within = |buckets: &[Bucket], first: i64, last: i64| {
            buckets.iter().filter(|one| (first..=last).contains(&one.0)).copied().collect()
        };
        Uptime {
            hours: within(&self.hours, first, last),
            days: within(&self.days, first.div_euclid(24), last.div_euclid(24)),
            latency: self.latency.since(WallTime::from_ms(first.saturating_mul(HOUR))),
        }
    }

    fn overlay(&mut self, recent: Uptime) {
        for (buckets, recent) in [(&mut self.hours, recent.hours), (&mut self.days, recent.days)] {
            // What is as it was stays in its place.
            let changed: Vec<Bucket> = recent.into_iter().filter(|bucket| !buckets.contains(bucket)).collect();
            changed.into_iter().for_each(|bucket| *latest(buckets, bucket.0) = bucket);
        }
        self.latency.overlay(recent.latency);
    }

    /// The part of the watched time in the `last` span before `now` in which it was up, to the hour (over 24 h: to the
    /// day). Rounded down to four decimals: 1 only when it was never down. `None` when nothing was watched.
    pub fn uptime(&self, last: Duration, now: WallTime) -> Option<f64> {
        let (up, down) = self.sums(last, now);
        part(up, down)
    }

    pub fn watched(&self, last: Duration, now: WallTime) -> Duration {
        let (up, down) = self.sums(last, now);
        Duration::from_millis(u64::try_from(up + down).unwrap_or(u64::MAX))
    }

    /// The milliseconds up and down in the `last` span before `now`.
    fn sums(&self, last: Duration, now: WallTime) -> (u128, u128) {
        let (buckets, unit) = match millis(last) <= DAY {
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

/// The part of both that `up` is, rounded down to four decimals.
fn part(up: u128, down: u128) -> Option<f64> {
    let parts = (up * 10_000).checked_div(up + down)?;
    u32::try_from(parts).ok().map(|parts| f64::from(parts) / 10_000.0)
}

fn record(buckets: &mut Vec<Bucket>, unit: i64, kept: usize, healthy: bool, from: WallTime, to: WallTime) {
    let newest = to.as_ms().div_euclid(unit);
    let oldest = newest.saturating_sub(i64::try_from(kept).unwrap_or(i64::MAX));
    let mut start = from.as_ms().max(oldest.saturating_mul(unit));
    while start < to.as_ms() {
        let index = start.div_euclid(unit);
        let end = index.saturating_add(1).saturating_mul(unit).min(to.as_ms());
        let Bucket(_, up, down) = latest(buckets, index);
        let counted = if healthy { up } else { down };
        *counted = counted.saturating_add(end.abs_diff(start));
        start = end;
    }
    buckets.drain(..buckets.len().saturating_sub(kept));
}

/// The bucket of this hour or day, made the latest.
fn latest(buckets: &mut Vec<Bucket>, index: i64) -> &mut Bucket {
    let found = buckets.iter().rposition(|bucket| bucket.0 == index).map(|at| buckets.remove(at));
    buckets.push(found.unwrap_or(Bucket(index, 0, 0)));
    let last = buckets.len() - 1;
    &mut buckets[last]
}

#[cfg(test)]
mod tests;

//! Remembers 90 days of each target: how much of the watched time it was up, in buckets of an hour and of a day, how
//! quickly it answered, and how often PM2 restarted it. Unwatched time is in no bucket. Days are UTC days: they all
//! have 24 hours, and readers do not need the watchdog's time zone.
//!
//! A span is counted at the wall time of that moment, and wall clocks can be wrong: a year ahead until NTP corrects
//! them, or in 1970 on a board without a battery. Nothing shows which of two times is right, so the clock never
//! decides what is removed. Readers take the buckets in their span before the present time and ignore those ahead of
//! it or far behind. Twice as many buckets are kept as are ever shown, and the one that was least recently added to is
//! removed first, whatever its date. Therefore a clock that is wrong for less than the span that readers show removes
//! nothing that they show once the clock is right again, and what it has left behind is removed like everything else.
//!
//! Most of the history is in `history.json`, written once an hour; `state.json` contains only what has changed since,
//! so that it stays small. Losing either file loses history and nothing else. It must never forget a bucket because of
//! its date.

mod gaps;
mod latency;
mod restarts;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use gaps::{Gap, GapReason, Gaps};
pub use latency::{Latencies, Slot};
pub use restarts::{RestartCounts, Restarts};

use super::{Error, Folder, files};
use crate::outcome::RestartReason;
use crate::time::{WallTime, millis};

const HISTORY: &str = "history.json";
/// The format version that this code writes, and the newest that it reads.
const VERSION: u64 = 1;
/// A thousand targets take about 10 MB; if PM2 restarts each of them every hour for several reasons, 40 MB.
const MAX_SIZE: u64 = 64 << 20;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// 24 whole hours and the current one.
const HOURS_SHOWN: usize = 25;
/// 90 whole days and the current one.
const DAYS_SHOWN: usize = 91;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    targets: BTreeMap<String, Uptime>,
    /// Everything counted since `history.json` was written is in these hours and their days.
    changed: HourRange,
    /// Whether `targets` includes what is in `history.json`.
    is_loaded: bool,
}

/// Hours since 1970, from the first to the last; empty by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HourRange {
    first: i64,
    last: i64,
}

impl Default for HourRange {
    fn default() -> HourRange {
        HourRange { first: i64::MAX, last: i64::MIN }
    }
}

impl HourRange {
    fn contains(self, hour: i64) -> bool {
        (self.first..=self.last).contains(&hour)
    }

    fn extend(&mut self, hour: i64) {
        (self.first, self.last) = (self.first.min(hour), self.last.max(hour));
    }
}

/// The part in `state.json`: what has changed since `history.json` was written.
#[derive(Serialize, Deserialize)]
#[serde(default)]
struct Recent {
    flushed: i64,
    until: i64,
    targets: BTreeMap<String, Uptime>,
}

impl Default for Recent {
    fn default() -> Recent {
        // Versions that wrote no `until` wrote everything after `flushed`.
        Recent { flushed: 0, until: i64::MAX, targets: BTreeMap::new() }
    }
}

impl Serialize for History {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let changed = |(name, uptime): (&String, &Uptime)| (name.clone(), uptime.restricted_to(self.changed));
        let targets = self.targets.iter().map(changed).collect();
        let HourRange { first: flushed, last: until } = self.changed;
        Recent { flushed, until, targets }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for History {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<History, D::Error> {
        let Recent { flushed, until, targets } = Recent::deserialize(deserializer)?;
        Ok(History { targets, changed: HourRange { first: flushed, last: until }, is_loaded: false })
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

    /// Whether counting at this time may add to a bucket that is still only in `history.json`. If so,
    /// the file must be read first.
    pub fn needs_file(&self, at: WallTime) -> bool {
        !self.is_loaded && !self.changed.contains(hour_of(at))
    }

    /// `healthy`: the verdicts at both ends of the span were healthy. A span that ends before it begins is not
    /// counted.
    pub fn record(&mut self, name: &str, healthy: bool, from: WallTime, to: WallTime) {
        self.uptime_mut(name, from).record(healthy, from, to);
        self.changed.extend(hour_of(to));
    }

    pub fn record_latency(&mut self, name: &str, latency: Duration, at: WallTime) {
        self.uptime_mut(name, at).latency.record(latency, at);
    }

    /// Counts a restart that PM2 made by itself.
    pub fn record_restart(&mut self, name: &str, reason: &RestartReason, at: WallTime) {
        self.uptime_mut(name, at).restarts.record(reason, at);
    }

    fn uptime_mut(&mut self, name: &str, at: WallTime) -> &mut Uptime {
        self.changed.extend(hour_of(at));
        self.targets.entry(name.to_owned()).or_default()
    }

    pub fn retain(&mut self, is_watched: impl Fn(&str) -> bool) {
        self.targets.retain(|name, _| is_watched(name));
    }

    /// Reads `history.json` unless that was done already. Readers may call this at any time.
    /// Errors: the file cannot be read, and the next call tries again; or it is damaged or of a newer version (then
    /// the kind is `InvalidData`), and the next flush replaces it. What was in `state.json` is known in any case.
    pub fn load_file(&mut self, folder: &Folder) -> Result<(), Error> {
        if self.is_loaded {
            return Ok(());
        }
        let read = self.read(folder);
        self.is_loaded = read.as_ref().map_or_else(|error| error.kind() == io::ErrorKind::InvalidData, |()| true);
        read
    }

    fn read(&mut self, folder: &Folder) -> Result<(), Error> {
        let path = folder.file(HISTORY);
        let failed = |cause| Error::new("read", &path, cause);
        let bytes = match files::read(&path, MAX_SIZE) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(failed)?,
        };
        let broken = |error: serde_json::Error| failed(files::invalid_data(error.to_string()));
        let HistoryFile::<serde_json::Value> { version, targets } = serde_json::from_slice(&bytes).map_err(broken)?;
        if version > VERSION {
            return Err(failed(files::invalid_data(format!(
                "it has format version {version}, which is newer than this program"
            ))));
        }
        let mut whole: BTreeMap<String, Uptime> = serde_json::from_value(targets).map_err(broken)?;
        for (name, recent) in std::mem::take(&mut self.targets) {
            whole.entry(name).or_default().merge(recent);
        }
        self.targets = whole;
        Ok(())
    }

    pub fn is_flush_due(&self, now: WallTime) -> bool {
        self.changed != HourRange { first: hour_of(now), last: hour_of(now) }
    }

    /// Writes the whole of `history.json`. Only the holder of the lock may call this, after
    /// the file was read.
    /// Errors: it cannot be written; `state.json` continues to contain what it lacks.
    pub fn flush(&mut self, folder: &Folder, now: WallTime) -> Result<(), Error> {
        folder.ensure()?;
        let path = folder.file(HISTORY);
        let document = HistoryFile { version: VERSION, targets: &self.targets };
        files::replace_with(&path, false, |file| serde_json::to_writer(file, &document).map_err(io::Error::from))
            .map_err(|cause| Error::new("save", &path, cause))?;
        self.changed = HourRange { first: hour_of(now), last: hour_of(now) };
        Ok(())
    }
}

fn hour_of(at: WallTime) -> i64 {
    at.as_ms().div_euclid(HOUR)
}

/// The history of one target, about 10 KiB; at most 40 KiB, with many restarts by PM2.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Uptime {
    /// The one that was added to last is at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hours: Vec<Bucket>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    days: Vec<Bucket>,
    #[serde(skip_serializing_if = "Latencies::is_empty")]
    latency: Latencies,
    /// Restarts by PM2.
    #[serde(skip_serializing_if = "Restarts::is_empty")]
    restarts: Restarts,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Day {
    /// Its beginning, in UTC.
    pub start: WallTime,
    pub watched: Duration,
    /// The share of the watched time in which it was up, rounded down to four decimals; `None` if nothing was watched.
    pub up: Option<f64>,
}

/// The index of an hour or day since 1970, and the milliseconds in it that were up and down. Written as an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket(i64, u64, u64);

impl Uptime {
    fn record(&mut self, healthy: bool, from: WallTime, to: WallTime) {
        add_span(&mut self.hours, HOUR, 2 * HOURS_SHOWN, healthy, from, to);
        add_span(&mut self.days, DAY, 2 * DAYS_SHOWN, healthy, from, to);
    }

    pub fn latency(&self) -> &Latencies {
        &self.latency
    }

    pub fn restarts(&self) -> &Restarts {
        &self.restarts
    }

    /// When it was first watched within this span, to the hour or to the day.
    pub fn first_watched(&self, since: WallTime, now: WallTime) -> Option<WallTime> {
        let first = |buckets: &[Bucket], unit: i64| {
            let within = since.as_ms().div_euclid(unit)..=now.as_ms().div_euclid(unit);
            let found = buckets.iter().map(|bucket| bucket.0).filter(|index| within.contains(index));
            found.min().map(|index| index.saturating_mul(unit))
        };
        let (hour, day) = (first(&self.hours, HOUR), first(&self.days, DAY));
        // The hour is more exact, if it belongs to the first day.
        let hour = hour.filter(|hour| day.is_none_or(|day| hour.saturating_sub(day) < DAY));
        hour.or(day).map(WallTime::from_ms)
    }

    pub fn has_watched_day_between(&self, from: WallTime, to: WallTime) -> bool {
        let days = from.as_ms().div_euclid(DAY) + 1..to.as_ms().div_euclid(DAY);
        self.days.iter().any(|bucket| days.contains(&bucket.0))
    }

    /// The last `count` days up to today, including those without any watched time.
    pub fn days(&self, count: i64, now: WallTime) -> Vec<Day> {
        let today = now.as_ms().div_euclid(DAY);
        let day = |index: i64| {
            let found = self.days.iter().find(|bucket| bucket.0 == index);
            let Bucket(_, up, down) = found.copied().unwrap_or(Bucket(index, 0, 0));
            let watched = Duration::from_millis(up.saturating_add(down));
            Day { start: WallTime::from_ms(index * DAY), watched, up: up_share(up.into(), down.into()) }
        };
        (today - count + 1..=today).map(day).collect()
    }

    /// The buckets of these hours, and of the days that contain them.
    fn restricted_to(&self, HourRange { first, last }: HourRange) -> Uptime {
        let within = |buckets: &[Bucket], first: i64, last: i64| {
            buckets.iter().filter(|one| (first..=last).contains(&one.0)).copied().collect()
        };
        Uptime {
            hours: within(&self.hours, first, last),
            days: within(&self.days, first.div_euclid(24), last.div_euclid(24)),
            latency: self.latency.since(WallTime::from_ms(first.saturating_mul(HOUR))),
            restarts: self.restarts.restricted_to(HourRange { first, last }),
        }
    }

    fn merge(&mut self, recent: Uptime) {
        for (buckets, recent) in [(&mut self.hours, recent.hours), (&mut self.days, recent.days)] {
            // Unchanged buckets stay where they are.
            let changed: Vec<Bucket> = recent.into_iter().filter(|bucket| !buckets.contains(bucket)).collect();
            changed.into_iter().for_each(|bucket| *move_to_end(buckets, bucket.0) = bucket);
        }
        self.latency.merge(recent.latency);
        self.restarts.merge(recent.restarts);
    }

    /// The share of the watched time in the `last` span before `now` in which it was up; in whole hours, for more than
    /// 24 h in whole days. Rounded down to four decimals: 1 only if it was never down. `None` if nothing was watched.
    pub fn uptime(&self, last: Duration, now: WallTime) -> Option<f64> {
        let (up, down) = self.up_and_down_ms(last, now);
        up_share(up, down)
    }

    pub fn watched(&self, last: Duration, now: WallTime) -> Duration {
        let (up, down) = self.up_and_down_ms(last, now);
        Duration::from_millis(u64::try_from(up + down).unwrap_or(u64::MAX))
    }

    /// The milliseconds up and down in the `last` span before `now`.
    fn up_and_down_ms(&self, last: Duration, now: WallTime) -> (u128, u128) {
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

/// The share of `up` in the sum, rounded down to four decimals.
fn up_share(up: u128, down: u128) -> Option<f64> {
    let parts = (up * 10_000).checked_div(up + down)?;
    u32::try_from(parts).ok().map(|parts| f64::from(parts) / 10_000.0)
}

fn add_span(buckets: &mut Vec<Bucket>, unit: i64, max_count: usize, healthy: bool, from: WallTime, to: WallTime) {
    let newest = to.as_ms().div_euclid(unit);
    let oldest = newest.saturating_sub(i64::try_from(max_count).unwrap_or(i64::MAX));
    let mut start = from.as_ms().max(oldest.saturating_mul(unit));
    while start < to.as_ms() {
        let index = start.div_euclid(unit);
        let end = index.saturating_add(1).saturating_mul(unit).min(to.as_ms());
        let Bucket(_, up, down) = move_to_end(buckets, index);
        let counted = if healthy { up } else { down };
        *counted = counted.saturating_add(end.abs_diff(start));
        start = end;
    }
    buckets.drain(..buckets.len().saturating_sub(max_count));
}

/// The bucket of this hour or day, moved to the end of the list.
fn move_to_end(buckets: &mut Vec<Bucket>, index: i64) -> &mut Bucket {
    let found = buckets.iter().rposition(|bucket| bucket.0 == index).map(|at| buckets.remove(at));
    buckets.push(found.unwrap_or(Bucket(index, 0, 0)));
    let last = buckets.len() - 1;
    &mut buckets[last]
}

#[cfg(test)]
mod tests;

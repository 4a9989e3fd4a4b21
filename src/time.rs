//! Points in time and durations: arithmetic, parsing, printing.
//! It must never read a clock or the time zone; `clock` does.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, FixedOffset, TimeZone, Timelike};
use serde::{Deserialize, Serialize};

/// Milliseconds on the boot clock, which counts through suspend and never jumps. A negative value is before this boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootTime(i64);

impl BootTime {
    pub const BOOT: BootTime = BootTime(0);

    pub fn from_ms(ms: i64) -> Self {
        BootTime(ms)
    }

    pub fn as_ms(self) -> i64 {
        self.0
    }

    /// Zero if `earlier` is not earlier.
    pub fn since(self, earlier: BootTime) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// `ms` may be negative.
    pub fn offset_by(self, ms: i64) -> Self {
        BootTime(self.0.saturating_add(ms))
    }
}

/// Saturates.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Add<Duration> for BootTime {
    type Output = BootTime;

    fn add(self, duration: Duration) -> BootTime {
        BootTime(self.0.saturating_add(millis(duration)))
    }
}

impl Sub<Duration> for BootTime {
    type Output = BootTime;

    fn sub(self, duration: Duration) -> BootTime {
        BootTime(self.0.saturating_sub(millis(duration)))
    }
}

/// Milliseconds since 1970 on the wall clock, for people and for what must outlive a boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(i64);

impl WallTime {
    pub fn from_ms(ms: i64) -> Self {
        WallTime(ms)
    }

    pub fn as_ms(self) -> i64 {
        self.0
    }

    pub fn offset_by(self, ms: i64) -> Self {
        WallTime(self.0.saturating_add(ms))
    }

    /// Corrects a time that was read before the clock was set by `moved` milliseconds. A time before `first` stays: it
    /// was read in an earlier boot.
    pub fn corrected_since(self, first: WallTime, moved: i64) -> Self {
        if self >= first { self.offset_by(moved) } else { self }
    }

    pub fn since(self, earlier: WallTime) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 in UTC with milliseconds. A time before 1970 is printed as 1970.
    pub fn rfc3339(self) -> String {
        let ms = u64::try_from(self.0).unwrap_or(0).min(253_402_300_799_999); // the last one of the year 9999
        humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(ms)).to_string()
    }

    pub fn parse_rfc3339(text: &str) -> Option<WallTime> {
        let at = humantime::parse_rfc3339(text).ok()?;
        let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(WallTime(millis(since)))
    }
}

/// Both clocks read at the same moment. Only with such a reading can a boot time be converted into a wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    pub now: BootTime,
    pub wall: WallTime,
}

impl ClockReading {
    /// Converts by the wall clock as it was set at this reading.
    pub fn wall_at(self, at: BootTime) -> WallTime {
        self.wall.offset_by(at.0.saturating_sub(self.now.0))
    }
}

/// A date as in HTTP and mail: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn parse_http_date(text: &str) -> Option<WallTime> {
    DateTime::parse_from_rfc2822(text.trim()).ok().map(|at| WallTime(at.timestamp_millis()))
}

/// For serde's `with`: a wall time as RFC 3339.
pub mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::WallTime;

    pub fn serialize<S: Serializer>(at: &WallTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&at.rfc3339())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WallTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        WallTime::parse_rfc3339(&text).ok_or_else(|| de::Error::custom("not a time"))
    }

    /// The same for an unknown time, which is written as null.
    pub mod option {
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        use super::WallTime;

        pub fn serialize<S: Serializer>(at: &Option<WallTime>, serializer: S) -> Result<S::Ok, S::Error> {
            at.map(WallTime::rfc3339).serialize(serializer)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<WallTime>, D::Error> {
            #[derive(Deserialize)]
            struct Text(#[serde(with = "super")] WallTime);
            Ok(Option::<Text>::deserialize(deserializer)?.map(|Text(at)| at))
        }
    }
}

/// The local time zone: a function that returns the offset from UTC in seconds at a given time.
#[derive(Clone, Copy)]
pub struct Zone(pub fn(WallTime) -> i32);

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Zone")
    }
}

impl Zone {
    pub const UTC: Zone = Zone(|_| 0);

    fn at(self, wall: WallTime) -> DateTime<FixedOffset> {
        let utc = FixedOffset::east_opt(0).expect("zero is an offset");
        let zone = FixedOffset::east_opt((self.0)(wall)).unwrap_or(utc);
        let out_of_range = || zone.timestamp_millis_opt(0).single().expect("1970 is a date");
        zone.timestamp_millis_opt(wall.as_ms()).single().unwrap_or_else(out_of_range)
    }

    /// Parses a local time such as `2026-11-22T03:12:10`. Of two times that have this name when summer time ends, the
    /// later one.
    pub fn parse_local(self, text: &str) -> Option<WallTime> {
        let local = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S").ok()?;
        let local = WallTime::from_ms(local.and_utc().timestamp_millis());
        let utc_with_offset_at = |at: WallTime| local.offset_by(-1_000 * i64::from((self.0)(at)));
        Some(utc_with_offset_at(utc_with_offset_at(local)))
    }

    /// `2026-11-22 03:12:10+01:00`
    pub fn date_time(self, wall: WallTime) -> String {
        self.at(wall).format("%Y-%m-%d %H:%M:%S%:z").to_string()
    }

    /// `03:12:10`
    pub fn time_of_day(self, wall: WallTime) -> String {
        self.at(wall).format("%H:%M:%S").to_string()
    }

    /// `03:12`
    pub fn hour_minute(self, wall: WallTime) -> String {
        self.at(wall).format("%H:%M").to_string()
    }

    /// `22 Nov`
    pub fn day(self, wall: WallTime) -> String {
        self.at(wall).format("%-d %b").to_string()
    }

    /// `time`, preceded by the day of `at` if that is not today: `22 Nov 03:12`.
    pub fn with_day(self, time: String, at: WallTime, now: WallTime) -> String {
        if self.day(at) == self.day(now) { time } else { format!("{} {time}", self.day(at)) }
    }

    /// `Sun 22 Nov`
    pub fn weekday(self, wall: WallTime) -> String {
        self.at(wall).format("%a %-d %b").to_string()
    }

    /// Minutes since midnight.
    pub fn minute_of_day(self, wall: WallTime) -> u32 {
        let at = self.at(wall);
        at.hour() * 60 + at.minute()
    }

    /// Minutes since 1970 by the local clock.
    pub fn local_minutes(self, wall: WallTime) -> i64 {
        let local = wall.offset_by(1_000 * i64::from((self.0)(wall)));
        local.as_ms().div_euclid(60_000)
    }

    /// `1122-0313`, the id of an incident.
    pub fn incident_id(self, wall: WallTime) -> String {
        self.at(wall).format("%m%d-%H%M").to_string()
    }

    /// `20261122-031310`, for file names that sort by time.
    pub fn file_stamp(self, wall: WallTime) -> String {
        self.at(wall).format("%Y%m%d-%H%M%S").to_string()
    }
}

/// A duration for people, in at most two units: `350 ms`, `2.1 s`, `41 s`, `1 min 4 s`, `2 h 5 min`, `6 days`.
#[derive(Clone, Copy, Debug)]
pub struct HumanDuration(pub Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let seconds = self.0.as_secs();
        let pair = |f: &mut fmt::Formatter<'_>, big: u64, unit: &str, small: u64, rest: &str| match small {
            0 => write!(f, "{big} {unit}"),
            _ => write!(f, "{big} {unit} {small} {rest}"),
        };
        match seconds {
            _ if ms < 1000 => write!(f, "{ms} ms"),
            0..10 if ms % 1000 >= 50 && ms < 9_950 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            0..60 => write!(f, "{seconds} s"),
            60..3_600 => pair(f, seconds / 60, "min", seconds % 60, "s"),
            3_600..172_800 => pair(f, seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
            _ => write!(f, "{} days", seconds / 86_400),
        }
    }
}

/// An age for people: at least 1 s, and without seconds from one minute on.
pub fn round_age(age: Duration) -> HumanDuration {
    HumanDuration(match age.as_secs() {
        seconds @ 0..60 => Duration::from_secs(seconds.max(1)),
        seconds @ 60..3_600 => Duration::from_secs(seconds / 60 * 60),
        seconds => Duration::from_secs(seconds),
    })
}

/// `3 ms`, `under 1 ms`.
#[derive(Clone, Copy, Debug)]
pub struct Latency(pub Duration);

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            0 => f.write_str("under 1 ms"),
            _ => write!(f, "{}", HumanDuration(self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ms: u64, expected: &str) {
        assert_eq!(HumanDuration(Duration::from_millis(ms)).to_string(), expected);
    }

    #[test]
    fn durations_are_printed_for_people() {
        check(0, "0 ms");
        check(350, "350 ms");
        check(1_000, "1 s");
        check(2_100, "2.1 s");
        check(9_960, "9 s");
        check(41_900, "41 s");
        check(64_000, "1 min 4 s");
        check(600_000, "10 min");
        check(7_500_000, "2 h 5 min");
        check(6 * 86_400_000, "6 days");
    }

    #[test]
    fn a_wall_time_is_parsed_back_from_its_text() {
        let at = WallTime::from_ms(1_795_313_530_123);
        assert_eq!(at.rfc3339(), "2026-11-22T02:12:10.123Z");
        assert_eq!(WallTime::parse_rfc3339(&at.rfc3339()), Some(at));
        assert_eq!(Zone(|_| 3_600).date_time(at), "2026-11-22 03:12:10+01:00");
        assert_eq!(WallTime::parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn a_reading_converts_between_the_clocks_and_saturates() {
        #[track_caller]
        fn check(at: i64, expected: i64) {
            let reading = ClockReading { now: BootTime::from_ms(50_000), wall: WallTime::from_ms(1_000_000) };
            assert_eq!(reading.wall_at(BootTime::from_ms(at)), WallTime::from_ms(expected), "{at}");
        }
        check(50_000, 1_000_000);
        check(0, 950_000);
        check(-7_000, 943_000); // before this boot
        check(51_500, 1_001_500);
        check(i64::MAX, i64::MAX);
        check(i64::MIN, i64::MIN + 1_000_000);
    }

    #[test]
    fn boot_times_saturate_instead_of_wrapping() {
        assert_eq!(BootTime::BOOT.since(BootTime::from_ms(5)), Duration::ZERO);
        assert_eq!((BootTime::from_ms(i64::MAX) + Duration::MAX).as_ms(), i64::MAX);
        assert_eq!((BootTime::from_ms(1_000) - Duration::from_millis(1_500)).as_ms(), -500);
    }
}

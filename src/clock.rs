//! The only place that reads clocks, the boot's identity and the time zone.
//! It must never do arithmetic or judge: that is for those who ask.

use std::fs;
use std::time::{Instant, SystemTime};

use chrono::{Local, Offset, TimeZone};
use rustix::time::{ClockId, clock_gettime};

use crate::time::{Timestamp, Wall, Zone, millis};

/// Now on the boot clock, which counts through suspend and is never set.
pub fn now() -> Timestamp {
    let at = clock_gettime(ClockId::Boottime);
    Timestamp::from_ms(at.tv_sec.saturating_mul(1_000).saturating_add(at.tv_nsec / 1_000_000))
}

/// Now for measuring how long something takes, finer than a millisecond. It stands still during a suspend.
pub fn monotonic() -> Instant {
    Instant::now()
}

/// Now on the wall clock, which people may set at any moment.
pub fn wall() -> Wall {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Wall::from_ms(millis(since)),
        Err(before) => Wall::from_ms(-millis(before.duration())),
    }
}

/// What tells this boot from every other; none where the kernel does not say.
pub fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = text.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

/// The local time zone: `TZ`, else the system's; daylight saving as it is at the point asked for.
pub fn zone() -> Zone {
    Zone(|wall| match Local.timestamp_millis_opt(wall.as_ms()).earliest() {
        Some(at) => at.offset().fix().local_minus_utc(),
        None => 0, // beyond the calendar
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_runs_and_agrees_with_the_kernel() {
        let uptime = fs::read_to_string("/proc/uptime").expect("a kernel tells its uptime");
        let seconds: f64 = uptime.split(' ').next().and_then(|word| word.parse().ok()).expect("a number of seconds");
        let later = now();
        let behind_ms = later.as_ms() as f64 - seconds * 1_000.0;
        assert!((-50.0..60_000.0).contains(&behind_ms), "uptime {seconds} s, boot clock {later:?}");
        assert!(now() >= later);
    }

    #[test]
    fn the_wall_clock_is_of_this_century() {
        let (year_2024, year_2100) = (1_704_067_200_000, 4_102_444_800_000);
        assert!((year_2024..year_2100).contains(&wall().as_ms()));
    }

    #[test]
    fn a_boot_has_one_identity() {
        let id = boot_id().expect("Linux gives each boot an id");
        assert_eq!(id.len(), 36, "{id}");
        assert_eq!(boot_id(), Some(id));
    }

    #[test]
    fn every_point_has_an_offset() {
        let Zone(offset) = zone();
        for ms in [i64::MIN, 0, 1_795_313_530_123, i64::MAX] {
            assert!(offset(Wall::from_ms(ms)).abs() < 86_400, "{ms}");
        }
    }
}

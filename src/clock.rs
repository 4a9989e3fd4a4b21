//! Reads the clocks, the boot id and the time zone; no other room does.
//! It must never compute with what it reads: its callers do.

use std::cell::Cell;
use std::fs;
use std::time::{Instant, SystemTime};

use chrono::{Local, Offset, TimeZone};
use rustix::time::{ClockId, clock_gettime};

use crate::time::{BootTime, ClockReading, WallTime, Zone, millis};

/// The boot clock, which counts through suspend and is never set.
pub fn now() -> BootTime {
    let at = clock_gettime(ClockId::Boottime);
    BootTime::from_ms(at.tv_sec.saturating_mul(1_000).saturating_add(at.tv_nsec / 1_000_000))
}

/// For measuring durations more precisely than in milliseconds. It stops during a suspend.
pub fn monotonic() -> Instant {
    Instant::now()
}

/// [`monotonic`] in microseconds, as systemd expects it.
pub fn monotonic_usec() -> i64 {
    let at = clock_gettime(ClockId::Monotonic);
    at.tv_sec.saturating_mul(1_000_000).saturating_add(at.tv_nsec / 1_000)
}

/// The wall clock, which can be set at any moment.
pub fn wall() -> WallTime {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => WallTime::from_ms(millis(since)),
        Err(before) => WallTime::from_ms(-millis(before.duration())),
    }
}

/// Reads both clocks, one directly after the other.
pub fn read() -> ClockReading {
    ClockReading { now: now(), wall: wall() }
}

/// Identifies this boot; `None` if the kernel does not provide an id.
pub fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = text.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

/// The local time zone: `TZ`, else the system's, with daylight saving time as at the given time.
pub fn zone() -> Zone {
    Zone(|wall| {
        // Offsets change on full minutes, and a change of the system's zone takes effect at most a minute later.
        let minute = wall.as_ms().div_euclid(60_000);
        match LAST_OFFSET.get() {
            (last_minute, offset) if last_minute == minute => offset,
            _ => {
                let offset = offset(wall);
                LAST_OFFSET.set((minute, offset));
                offset
            }
        }
    })
}

thread_local! {
    /// The minute of the last call and its offset, because chrono makes a system call for each new one.
    static LAST_OFFSET: Cell<(i64, i32)> = const { Cell::new((i64::MIN, 0)) };
}

fn offset(wall: WallTime) -> i32 {
    match Local.timestamp_millis_opt(wall.as_ms()).earliest() {
        Some(at) => at.offset().fix().local_minus_utc(),
        None => 0, // outside the calendar
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{is_alone, run_alone};

    #[test]
    fn the_boot_clock_advances_by_real_milliseconds() {
        let (at, began) = (now(), monotonic());
        assert!(at > BootTime::BOOT);
        while now().since(at).as_millis() < 20 {
            std::thread::yield_now();
        }
        assert!(monotonic().duration_since(began).as_millis() >= 19, "the boot clock runs faster than real time");
    }

    #[test]
    fn the_wall_clock_shows_this_century() {
        let (year_2024, year_2100) = (1_704_067_200_000, 4_102_444_800_000);
        assert!((year_2024..year_2100).contains(&wall().as_ms()));
    }

    #[test]
    fn a_boot_has_one_id() {
        let id = boot_id().expect("Linux gives each boot an id");
        assert_eq!(id.len(), 36, "{id}");
        assert_eq!(boot_id(), Some(id));
    }

    #[test]
    fn the_zone_has_an_offset_for_every_time_and_knows_summer() {
        if !is_alone() {
            let through = ["env", "TZ=CET-1CEST,M3.5.0,M10.5.0/3"];
            run_alone("clock::tests::the_zone_has_an_offset_for_every_time_and_knows_summer", &through);
            return;
        }
        let Zone(offset) = zone();
        let at = |text| WallTime::parse_rfc3339(text).expect("a date");
        assert_eq!(offset(at("2026-11-22T02:12:10Z")), 3_600);
        assert_eq!(offset(at("2026-07-22T02:12:10Z")), 7_200);
        // The changes to and from summer time.
        assert_eq!((offset(at("2026-03-29T00:59:59Z")), offset(at("2026-03-29T01:00:00Z"))), (3_600, 7_200));
        assert_eq!((offset(at("2026-10-25T00:59:59Z")), offset(at("2026-10-25T01:00:00Z"))), (7_200, 3_600));
        for ms in [i64::MIN, 0, i64::MAX] {
            assert!(offset(WallTime::from_ms(ms)).abs() < 86_400, "{ms}");
        }
    }
}

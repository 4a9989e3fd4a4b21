//! How quickly a target answered in the last 24 hours: the median and the worst latency of each quarter of an hour.
//! It must never grow with the number of probes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::WallTime;

/// A quarter of an hour, in milliseconds.
const SLOT: i64 = 900_000;
/// 24 hours and the current slot.
const SLOTS_SHOWN: i64 = 97;
/// As with uptime, a wrong clock removes nothing that is shown once it is right.
const MAX_SLOTS: usize = 2 * 97;
/// At most this many samples determine a slot's median; of more probes, every second, fourth and so on is a sample.
const MAX_SAMPLES: usize = 32;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latencies {
    /// Closed slots; the one that was closed last is at the end.
    #[serde(rename = "past", skip_serializing_if = "Vec::is_empty")]
    closed: Vec<Slot>,
    /// The current slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<OpenSlot>,
}

/// The index of a quarter of an hour since 1970, its median and its worst latency in microseconds. Written as an
/// array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot(i64, u32, u32);

impl Slot {
    pub fn start(&self) -> WallTime {
        WallTime::from_ms(self.0.saturating_mul(SLOT))
    }

    /// Of an even number of samples, the smaller of the two in the middle.
    pub fn median(&self) -> Duration {
        Duration::from_micros(self.1.into())
    }

    pub fn worst(&self) -> Duration {
        Duration::from_micros(self.2.into())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OpenSlot {
    index: i64,
    worst: u32,
    /// Every `stride`-th probe is a sample.
    stride: u32,
    /// Probes since the last sample.
    passed: u32,
    samples: Vec<u32>,
}

impl OpenSlot {
    fn new(index: i64) -> OpenSlot {
        OpenSlot { index, worst: 0, stride: 1, passed: 0, samples: Vec::new() }
    }

    fn add(&mut self, us: u32) {
        self.worst = self.worst.max(us);
        if self.passed == 0 {
            if self.samples.len() == MAX_SAMPLES {
                let mut keep = false;
                self.samples.retain(|_| {
                    keep = !keep;
                    keep
                });
                self.stride = self.stride.saturating_mul(2);
            }
            self.samples.push(us);
        }
        self.passed = (self.passed + 1) % self.stride;
    }

    fn summarize(&self) -> Option<Slot> {
        let mut samples = self.samples.clone();
        samples.sort_unstable();
        let median = samples.get(samples.len().checked_sub(1)? / 2)?;
        Some(Slot(self.index, *median, self.worst))
    }
}

impl Latencies {
    pub(super) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.is_none()
    }

    /// All slots of the 24 hours before `now` with an answer, including the current one, oldest first.
    pub fn slots(&self, now: WallTime) -> Vec<Slot> {
        let newest = now.as_ms().div_euclid(SLOT);
        let shown = newest.saturating_sub(SLOTS_SHOWN - 1)..=newest;
        let open = self.open.iter().filter_map(OpenSlot::summarize);
        let others = self.closed.iter().filter(|slot| self.open.as_ref().is_none_or(|open| open.index != slot.0));
        let mut slots: Vec<Slot> = others.copied().chain(open).filter(|slot| shown.contains(&slot.0)).collect();
        slots.sort_unstable_by_key(|slot| slot.0);
        slots
    }

    pub(super) fn record(&mut self, latency: Duration, at: WallTime) {
        let index = at.as_ms().div_euclid(SLOT);
        match &self.open {
            Some(open) if open.index == index => {}
            _ => {
                self.close();
                self.open = Some(OpenSlot::new(index));
                self.closed.drain(..self.closed.len().saturating_sub(MAX_SLOTS));
            }
        }
        if let Some(open) = &mut self.open {
            open.add(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
        }
    }

    fn close(&mut self) {
        let Some(closed) = self.open.take().as_ref().and_then(OpenSlot::summarize) else { return };
        self.add_closed(closed);
    }

    /// For a slot that was current twice because the clock was set, the worst latency is that of both times.
    fn add_closed(&mut self, slot: Slot) {
        let before = self.closed.iter().rposition(|one| one.0 == slot.0).map(|at| self.closed.remove(at));
        self.closed.push(Slot(slot.0, slot.1, before.map_or(slot.2, |before| before.2.max(slot.2))));
    }

    pub(super) fn since(&self, at: WallTime) -> Latencies {
        let first = at.as_ms().div_euclid(SLOT);
        Latencies {
            closed: self.closed.iter().filter(|slot| slot.0 >= first).copied().collect(),
            open: self.open.clone(),
        }
    }

    pub(super) fn merge(&mut self, recent: Latencies) {
        if recent.is_empty() {
            return;
        }
        // It was the current slot when the rest was written.
        self.open = self.open.take().filter(|open| recent.open.as_ref().is_none_or(|newer| newer.index != open.index));
        self.close();
        recent.closed.into_iter().for_each(|slot| self.add_closed(slot));
        self.open = recent.open;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> WallTime {
        WallTime::from_ms(1_795_313_700_000 + minute * 60_000)
    }

    fn shown(latencies: &Latencies, now: WallTime) -> Vec<(u128, u128)> {
        let ms = |slot: &Slot| (slot.median().as_millis(), slot.worst().as_millis());
        latencies.slots(now).iter().map(ms).collect()
    }

    #[test]
    fn each_quarter_of_an_hour_has_its_median_and_its_worst_latency() {
        let mut latencies = Latencies::default();
        for (minute, ms) in [(0, 3), (1, 90), (2, 5), (15, 4), (45, 7)] {
            latencies.record(Duration::from_millis(ms), at(minute));
        }
        assert_eq!(shown(&latencies, at(45)), [(5, 90), (4, 4), (7, 7)]);
        // A day later the earlier slots are out of range.
        latencies.record(Duration::from_millis(1), at(45 + 1_440));
        assert_eq!(shown(&latencies, at(45 + 1_440)), [(7, 7), (1, 1)]);
        latencies.record(Duration::from_millis(2), at(60 + 1_440));
        assert_eq!(shown(&latencies, at(60 + 1_440)), [(1, 1), (2, 2)]);
    }

    #[test]
    fn many_probes_are_sampled_and_the_worst_is_never_lost() {
        let mut latencies = Latencies::default();
        for n in 0..9_000_u64 {
            latencies.record(Duration::from_millis(if n == 4_321 { 5_000 } else { n % 100 }), at(0));
        }
        let open = latencies.open.as_ref().expect("a slot");
        assert!(open.samples.len() <= MAX_SAMPLES && open.samples.len() > MAX_SAMPLES / 4, "{open:?}");
        let [(median, worst)] = shown(&latencies, at(0))[..] else { panic!("one slot") };
        assert!((30..70).contains(&median), "{median}");
        assert_eq!(worst, 5_000);
    }

    #[test]
    fn a_clock_that_was_wrong_for_a_day_hides_nothing_afterwards() {
        for wrong in [-400 * 1_440, -60, 60, 400 * 1_440] {
            let mut latencies = Latencies::default();
            let every_quarter = |latencies: &mut Latencies, from: i64, ms: u64| {
                (0..96).for_each(|n| latencies.record(Duration::from_millis(ms), at(from + 15 * n)));
            };
            every_quarter(&mut latencies, 0, 3);
            let before = shown(&latencies, at(1_425));
            latencies.record(Duration::from_millis(9), at(1_440 + wrong));
            assert_eq!(shown(&latencies, at(1_440 + wrong)).last(), Some(&(9, 9)));
            let json = serde_json::to_string(&latencies).expect("numbers have a JSON form");
            let mut read: Latencies = serde_json::from_str(&json).expect("it was just written");
            read.record(Duration::from_millis(4), at(1_440));
            let mut expected = before;
            // Slots that the wrong clock placed in the last day are shown as well.
            let slot = usize::try_from((1_440 + wrong) / 15).ok().filter(|slot| *slot < 96);
            slot.into_iter().for_each(|slot| expected[slot] = (9, 9));
            expected.push((4, 4));
            assert_eq!(shown(&read, at(1_440)), expected, "{wrong}");
            for day in 2..9 {
                every_quarter(&mut read, day * 1_440, 5);
            }
            assert!(
                read.closed.len() <= MAX_SLOTS
                    && read.closed.iter().all(|slot| slot.0.abs_diff(at(8 * 1_440).as_ms() / SLOT) < 200)
            );
        }
        let mut latencies = Latencies::default();
        for extreme in [i64::MIN, i64::MAX, 0] {
            latencies.record(Duration::MAX, WallTime::from_ms(extreme));
            assert_eq!(latencies.slots(WallTime::from_ms(extreme)).len(), 1);
        }
    }
}

//! How quickly a target answered over the last 24 hours: the median and the worst of each quarter of an hour.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Wall;

/// A quarter of an hour, in milliseconds.
const SLOT: i64 = 900_000;
/// Those of a day, and the present one.
const SLOTS_KEPT: i64 = 97;
/// Samples that the median of a slot is taken from; of more looks, every second, fourth and so on.
const SAMPLES: usize = 32;

/// The latencies of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latencies {
    /// Those that are over, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    past: Vec<Slot>,
    /// The present one.
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<Open>,
}

/// Which quarter of an hour since 1970, its median and its worst latency in microseconds. Written as an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot(i64, u32, u32);

impl Slot {
    /// Its beginning.
    pub fn begins(&self) -> Wall {
        Wall::from_ms(self.0.saturating_mul(SLOT))
    }

    /// The middle one; of two, the smaller.
    pub fn median(&self) -> Duration {
        Duration::from_micros(self.1.into())
    }

    /// The longest.
    pub fn worst(&self) -> Duration {
        Duration::from_micros(self.2.into())
    }
}

/// A slot that is not over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    index: i64,
    worst: u32,
    /// Every so manieth look is a sample.
    stride: u32,
    /// Looks since the last sample.
    passed: u32,
    samples: Vec<u32>,
}

impl Open {
    fn new(index: i64) -> Open {
        Open { index, worst: 0, stride: 1, passed: 0, samples: Vec::new() }
    }

    fn add(&mut self, us: u32) {
        self.worst = self.worst.max(us);
        if self.passed == 0 {
            if self.samples.len() == SAMPLES {
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

    fn closed(&self) -> Option<Slot> {
        let mut samples = self.samples.clone();
        samples.sort_unstable();
        let median = samples.get(samples.len().checked_sub(1)? / 2)?;
        Some(Slot(self.index, *median, self.worst))
    }
}

impl Latencies {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.past.is_empty() && self.open.is_none()
    }

    /// All slots of the last 24 hours in which it answered, the present one too, oldest first.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.past.iter().copied().chain(self.open.iter().filter_map(Open::closed))
    }

    pub(super) fn record(&mut self, latency: Duration, at: Wall) {
        let index = at.as_ms().div_euclid(SLOT);
        match &self.open {
            Some(open) if open.index == index => {}
            open => {
                let closed = open.as_ref().and_then(Open::closed);
                self.past.extend(closed);
                self.open = Some(Open::new(index));
                // Behind the present one: the wall clock was set back.
                self.past.retain(|slot| (index.saturating_sub(SLOTS_KEPT - 1)..index).contains(&slot.0));
            }
        }
        if let Some(open) = &mut self.open {
            open.add(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
        }
    }

    /// What has changed since then.
    pub(super) fn since(&self, at: Wall) -> Latencies {
        let first = at.as_ms().div_euclid(SLOT);
        Latencies { past: self.past.iter().filter(|slot| slot.0 >= first).copied().collect(), open: self.open.clone() }
    }

    /// Puts what has changed since in its place.
    pub(super) fn overlay(&mut self, recent: Latencies) {
        let Some(first) = recent.past.first().map(|slot| slot.0).or(recent.open.as_ref().map(|open| open.index)) else {
            return;
        };
        // It was the present one when the rest was written.
        self.past.extend(self.open.take().as_ref().and_then(Open::closed));
        self.past.retain(|slot| slot.0 < first);
        self.past.extend(recent.past);
        self.open = recent.open;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Wall {
        Wall::from_ms(1_795_313_700_000 + minute * 60_000)
    }

    fn shown(latencies: &Latencies) -> Vec<(u128, u128)> {
        latencies.slots().map(|slot| (slot.median().as_millis(), slot.worst().as_millis())).collect()
    }

    #[test]
    fn each_quarter_of_an_hour_has_its_median_and_its_worst() {
        let mut latencies = Latencies::default();
        for (minute, ms) in [(0, 3), (1, 90), (2, 5), (15, 4), (45, 7)] {
            latencies.record(Duration::from_millis(ms), at(minute));
        }
        assert_eq!(shown(&latencies), [(5, 90), (4, 4), (7, 7)]);
        // A day later all of that is over.
        latencies.record(Duration::from_millis(1), at(45 + 1_440));
        assert_eq!(shown(&latencies), [(7, 7), (1, 1)]);
        latencies.record(Duration::from_millis(2), at(60 + 1_440));
        assert_eq!(shown(&latencies), [(1, 1), (2, 2)]);
    }

    #[test]
    fn of_many_looks_some_are_samples_and_the_worst_is_never_lost() {
        let mut latencies = Latencies::default();
        for n in 0..9_000_u64 {
            latencies.record(Duration::from_millis(if n == 4_321 { 5_000 } else { n % 100 }), at(0));
        }
        let open = latencies.open.as_ref().expect("a slot");
        assert!(open.samples.len() <= SAMPLES && open.samples.len() > SAMPLES / 4, "{open:?}");
        let [(median, worst)] = shown(&latencies)[..] else { panic!("one slot") };
        assert!((30..70).contains(&median), "{median}");
        assert_eq!(worst, 5_000);
    }

    #[test]
    fn a_clock_set_back_forgets_the_future() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_millis(9), at(600));
        latencies.record(Duration::from_millis(3), at(0));
        assert_eq!(shown(&latencies), [(3, 3)]);
        for extreme in [i64::MIN, i64::MAX] {
            latencies.record(Duration::MAX, Wall::from_ms(extreme));
        }
        assert_eq!(latencies.slots().count(), 1);
    }
}

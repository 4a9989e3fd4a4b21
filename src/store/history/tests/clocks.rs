//! Wall clocks that are wrong for a while, through saves, crashes and restarts, compared with a model that forgets
//! nothing.

use std::collections::BTreeMap;

use fastrand::Rng;
use tempfile::TempDir;

use super::*;

type Model = BTreeMap<i64, Counted>;

#[derive(Clone, Copy, Default)]
struct Counted {
    up: u64,
    down: u64,
    /// When it was last added to, by the right clock.
    counted: i64,
}

struct Simulation {
    _folder: TempDir,
    folder: Folder,
    history: History,
    model: Model,
    /// `state.json`, and the model at that time.
    saved: (String, Model),
}

impl Simulation {
    fn new() -> Simulation {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place.path().join("state")).unwrap();
        let (history, model) = (History::default(), Model::new());
        let saved = (serde_json::to_string(&history).unwrap(), model.clone());
        Simulation { _folder: place, folder, history, model, saved }
    }

    /// The clock is wrong by `offset`.
    fn count(&mut self, up: bool, real: i64, span: i64, offset: i64) {
        let (from, to) = (real + offset - span, real + offset);
        for at in [from, to] {
            if self.history.needs_file(WallTime::from_ms(at)) {
                self.history.load_file(&self.folder).unwrap();
            }
        }
        self.history.record("a", up, WallTime::from_ms(from), WallTime::from_ms(to));
        let mut start = from;
        while start < to {
            let end = (start.div_euclid(HOUR) + 1) * HOUR;
            let end = end.min(to);
            let hour = self.model.entry(start.div_euclid(HOUR)).or_default();
            *(if up { &mut hour.up } else { &mut hour.down }) += end.abs_diff(start);
            hour.counted = real;
            start = end;
        }
    }

    /// As the agent does: what is due is flushed before the state is saved.
    fn save(&mut self, now: i64) {
        let now = WallTime::from_ms(now);
        if self.history.is_flush_due(now) {
            self.history.load_file(&self.folder).unwrap();
            self.history.flush(&self.folder, now).unwrap();
        }
        self.saved = (serde_json::to_string(&self.history).unwrap(), self.model.clone());
    }

    /// Everything after the last save is lost.
    fn restart(&mut self) {
        self.history = serde_json::from_str(&self.saved.0).unwrap();
        self.model = self.saved.1.clone();
    }

    #[track_caller]
    fn check(&self, real: i64, context: &str) {
        let now = real;
        let mut whole: History = serde_json::from_str(&serde_json::to_string(&self.history).unwrap()).unwrap();
        whole.load_file(&self.folder).unwrap();
        let none = Uptime::default();
        let uptime = whole.get("a").unwrap_or(&none);
        // What a wrong clock left behind long ago may or may not be forgotten by now.
        let sum = |first: i64, last: i64, lately: i64| {
            let hours = self.model.range(first..=last).map(|(_, hour)| hour);
            let hours = hours.filter(|hour| real - hour.counted <= lately);
            hours.fold([0, 0], |[up, down], hour| [up + u128::from(hour.up), down + u128::from(hour.down)])
        };
        let is_between = |[least_up, least_down]: [u128; 2], found: (u128, u128), [most_up, most_down]: [u128; 2]| {
            (least_up..=most_up).contains(&found.0) && (least_down..=most_down).contains(&found.1)
        };
        let hour = now.div_euclid(HOUR);
        let found = uptime.up_and_down_ms(Duration::from_millis(DAY.unsigned_abs()), WallTime::from_ms(now));
        let (least, most) = (sum(hour - 24, hour, 25 * HOUR), sum(hour - 24, hour, i64::MAX));
        assert!(is_between(least, found, most), "24 h: {least:?} <= {found:?} <= {most:?}; {context}");
        for day in now.div_euclid(DAY) - 90..=now.div_euclid(DAY) {
            let found = uptime.days.iter().find(|bucket| bucket.0 == day).map_or((0, 0), |one| (one.1, one.2));
            let found = (found.0.into(), found.1.into());
            let (least, most) = (sum(day * 24, day * 24 + 23, 91 * DAY), sum(day * 24, day * 24 + 23, i64::MAX));
            assert!(is_between(least, found, most), "day {day}: {least:?} <= {found:?} <= {most:?}; {context}");
        }
    }
}

/// Half a year of watching. Now and then the clock is wrong, for less than a day and at least two days apart, because
/// fewer hours are shown than days.
fn simulate_half_a_year(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut simulation = Simulation::new();
    let (mut real, mut right_again, mut wrong_from) = (NOW, 0, NOW + rng.i64(0..3 * DAY));
    let mut offset = 0;
    while real < NOW + 180 * DAY {
        let context = format!("seed {seed}, {} h, clock {} h off", (real - NOW) / HOUR, offset / HOUR);
        if offset == 0 && real >= wrong_from {
            // The wrong dates stay clear of those that the right clock reaches in half a year: the model does not know
            // what is forgotten.
            let (minutes, days) = ([5, -5, 60, -60, -30 * 60], [-20, 400, -400, 20_000, -20_000]);
            let far = rng.bool();
            offset = if far { days[rng.usize(0..5)] * DAY } else { minutes[rng.usize(0..5)] * 60_000 };
            right_again = real + rng.i64(0..20 * HOUR);
        } else if offset != 0 && real >= right_again {
            (offset, wrong_from) = (0, real + 2 * DAY + rng.i64(0..12 * DAY));
            simulation.check(real, &format!("right again; {context}"));
        }
        let span = rng.i64(0..HOUR);
        real += span;
        match rng.u8(0..20) {
            0 => real += rng.i64(0..2 * DAY),
            1 => simulation.restart(),
            up => simulation.count(up > 3, real, span, offset),
        }
        if rng.u8(0..3) > 0 {
            simulation.save(real + offset);
        }
        if rng.u8(0..20) == 0 && offset == 0 {
            simulation.check(real, &context);
        }
    }
    let uptime = simulation.history.get("a").unwrap();
    assert!(uptime.hours.len() <= 2 * HOURS_SHOWN && uptime.days.len() <= 2 * DAYS_SHOWN);
    // What a wrong clock left behind is removed eventually.
    let far = |bucket: &&Bucket| bucket.0.abs_diff(real / DAY) > 300;
    for day in 1..182 {
        simulation.count(true, real + day * DAY, 1_000, 0);
    }
    assert_eq!(simulation.history.get("a").unwrap().days.iter().filter(far).count(), 0, "seed {seed}");
}

#[test]
fn a_clock_that_is_wrong_for_a_while_loses_no_counts() {
    (1..=4).for_each(simulate_half_a_year);
}

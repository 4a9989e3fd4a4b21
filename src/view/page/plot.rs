//! The pictures of the page: a bar for each day, and how long answers took.

use std::fmt::Write as _;
use std::time::Duration;

use crate::store::history::{Day, Slot};
use crate::time::{HumanDuration, Latency, WallTime, Zone};
use crate::view::percent;

use super::html;

/// From one bar to the next, and how wide one is, in the picture's own units.
const STEP: usize = 4;
const BAR: usize = 3;
/// Less than this of a day is worse than a short outage.
const BAD: f64 = 0.99;
/// The height of the plot, and its width: a unit for each quarter of an hour.
const HEIGHT: f64 = 100.0;
const WIDTH: i64 = 96;
const SLOT: i64 = 900_000;
/// Where a latency of 100 µs and one of 100 s would be, on a scale of powers of ten.
const SCALE: std::ops::RangeInclusive<f64> = 2.0..=8.0;

/// A bar for each day, coloured by how much of it was up. `meaning` is for those who do not see it.
pub(super) fn bars(days: &[Day], zone: Zone, meaning: &str) -> String {
    let (width, meaning) = (days.len() * STEP, html(meaning));
    let mut svg = format!(
        "<svg class=\"days\" viewBox=\"0 0 {width} 10\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{meaning}\">\n"
    );
    let mut index = 0;
    // Days that are alike are one line: a page of a thousand targets would be many megabytes otherwise.
    for run in days.chunk_by(is_alike) {
        let (from, to) = (index * STEP, (index + run.len()) * STEP);
        let class = match run[0].up {
            None => "n",
            Some(up) if up >= 1.0 => "u",
            Some(up) if up >= BAD => "p",
            Some(_) => "d",
        };
        let title = html(&title(run, zone));
        let gap = STEP - BAR;
        writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{from}\" x2=\"{to}\" y1=\"5\" y2=\"5\" stroke-width=\"10\" \
             stroke-dasharray=\"{BAR} {gap}\"><title>{title}</title></line>"
        )
        .expect("a String takes all");
        index += run.len();
    }
    svg + "</svg>\n"
}

fn is_alike(one: &Day, other: &Day) -> bool {
    let plain = |day: &Day| day.up.is_none_or(|up| up >= 1.0);
    plain(one) && plain(other) && one.up.is_none() == other.up.is_none()
}

fn title(run: &[Day], zone: Zone) -> String {
    // Days are those of UTC; noon is on the same day nearly everywhere.
    let day = |day: &Day| zone.day(day.begins.offset_by(43_200_000));
    let [first, .., last] = run else {
        return match run[0].up {
            None => format!("{}: not watched", day(&run[0])),
            Some(_) => format!("{}: {} of {}", day(&run[0]), percent(run[0].up), HumanDuration(run[0].watched)),
        };
    };
    let what = if first.up.is_none() { "not watched" } else { "100 %" };
    format!("{} to {}: {what}", day(first), day(last))
}

pub(super) struct Plot {
    pub(super) picture: String,
    pub(super) median: Latency,
    pub(super) worst: Latency,
}

/// How long answers took; none where there was no answer.
pub(super) fn latency(slots: &[Slot], now: WallTime) -> Option<Plot> {
    let end = now.as_ms().div_euclid(SLOT) + 1;
    let x = |slot: &Slot| slot.begins().as_ms().div_euclid(SLOT) - end + WIDTH;
    let slots: Vec<&Slot> = slots.iter().filter(|slot| (0..WIDTH).contains(&x(slot))).collect();
    let mut medians: Vec<Duration> = slots.iter().map(|slot| slot.median()).collect();
    medians.sort_unstable();
    let median = *medians.get(medians.len().checked_sub(1)? / 2)?;
    let worst = slots.iter().map(|slot| slot.worst()).max()?;
    let (median, worst) = (Latency(median), Latency(worst));
    let mut svg = format!(
        "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"Latency over the last 24 hours: {median} in the middle, {worst} at worst\">\n"
    );
    let mut scale = String::new();
    for (power, name) in [(3, "1 ms"), (4, "10 ms"), (5, "100 ms"), (6, "1 s"), (7, "10 s")] {
        let y = height(Duration::from_micros(10_u64.pow(power)));
        writeln!(svg, "<line class=\"grid\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>")
            .expect("a String takes all");
        write!(scale, "<i style=\"top:{y:.1}%\">{name}</i>").expect("a String takes all");
    }
    // A quarter of an hour without an answer is a gap in the line.
    for run in slots.chunk_by(|one, next| x(next) - x(one) == 1) {
        for (class, value) in [("worst", Slot::worst as fn(&Slot) -> Duration), ("median", Slot::median)] {
            let point = |slot: &&Slot| {
                let (from, y) = (x(slot), height(value(slot)));
                format!("{from},{y:.1} {},{y:.1}", from + 1)
            };
            let points: Vec<String> = run.iter().map(point).collect();
            writeln!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", points.join(" ")).expect("a String takes all");
        }
    }
    // Words in a picture that is stretched to fit would be stretched too.
    let picture = format!("<div class=\"scaled\">\n{svg}</svg>\n<div aria-hidden=\"true\">{scale}</div>\n</div>\n");
    Some(Plot { picture, median, worst })
}

/// How high in the picture a latency is: on a scale of powers of ten, for a blip must not flatten all the rest.
fn height(latency: Duration) -> f64 {
    let us = latency.as_micros().max(1);
    let part = (log10(us).clamp(*SCALE.start(), *SCALE.end()) - SCALE.start()) / (SCALE.end() - SCALE.start());
    HEIGHT * (1.0 - part)
}

/// The logarithm to base 10, to a thousandth. `f64::log10` would load libm, 330 KiB of memory, for this alone.
fn log10(of: u128) -> f64 {
    let whole = of.ilog10();
    let (mut rest, mut log, mut digit) = (of as f64 / 10_u128.pow(whole) as f64, f64::from(whole), 1.0);
    for _ in 0..10 {
        (rest, digit) = (rest * rest, digit / 2.0);
        if rest >= 10.0 {
            (rest, log) = (rest / 10.0, log + digit);
        }
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_that_are_alike_are_one_line_and_outages_stand_out() {
        let begins = WallTime::parse_rfc3339("2026-11-01T00:00:00.000Z").expect("a time");
        let ups = [None, None, Some(1.0), Some(1.0), Some(0.995), Some(0.5), Some(0.5), Some(1.0)];
        let day = |(index, up): (usize, &Option<f64>)| Day {
            begins: begins.offset_by(i64::try_from(index).expect("small") * 86_400_000),
            watched: Duration::from_secs(86_400),
            up: *up,
        };
        let days: Vec<Day> = ups.iter().enumerate().map(day).collect();
        let svg = bars(&days, Zone::UTC, "\"<meaning>\"");
        let titles: Vec<&str> = svg.split("<title>").skip(1).filter_map(|rest| rest.split("</title>").next()).collect();
        let expected = [
            "1 Nov to 2 Nov: not watched",
            "3 Nov to 4 Nov: 100 %",
            "5 Nov: 99.5 % of 24 h",
            "6 Nov: 50 % of 24 h",
            "7 Nov: 50 % of 24 h",
            "8 Nov: 100 % of 24 h",
        ];
        assert_eq!(titles, expected, "{svg}");
        let classes: String = svg.split("line class=\"").skip(1).filter_map(|rest| rest.chars().next()).collect();
        assert_eq!(classes, "nupddu");
        assert!(svg.contains("aria-label=\"&quot;&lt;meaning&gt;&quot;\"") && svg.contains("viewBox=\"0 0 32 10\""));
    }

    #[test]
    fn a_quarter_of_an_hour_without_an_answer_is_a_gap() {
        let now = WallTime::parse_rfc3339("2026-11-22T12:07:00.000Z").expect("a time");
        let mut history = crate::store::history::History::default();
        for minutes in [90, 75, 45, 0] {
            history.record_latency("a", Duration::from_millis(10), now.offset_by(-minutes * 60_000));
        }
        let slots = history.get("a").expect("it was counted").latency().slots(now);
        let plot = latency(&slots, now).expect("answers");
        assert_eq!(plot.picture.matches("class=\"median\"").count(), 3, "{}", plot.picture);
        assert!(plot.picture.contains("points=\"89,66.7 90,66.7 90,66.7 91,66.7\""), "{}", plot.picture);
        assert!(plot.picture.contains("points=\"95,66.7 96,66.7\""), "{}", plot.picture);
        assert_eq!((plot.median.to_string(), plot.worst.to_string()), ("10 ms".into(), "10 ms".into()));
        assert!(latency(&slots, now.offset_by(2 * 86_400_000)).is_none());
        assert!(latency(&[], now).is_none());
    }

    #[test]
    fn every_latency_has_its_place_in_the_picture() {
        assert!((height(Duration::ZERO) - HEIGHT).abs() < 0.01);
        assert!(height(Duration::MAX / 2_000).abs() < 0.01);
        assert!(height(Duration::from_millis(1)) > height(Duration::from_millis(2)));
    }

    #[test]
    fn the_logarithm_is_right_to_a_thousandth() {
        for of in (1..10_000).chain([99_999, 100_000, 31_622_777, u128::MAX]) {
            assert!((log10(of) - (of as f64).log10()).abs() <= 0.001, "{of}");
        }
        assert_eq!([1, 1_000, 1_000_000].map(log10), [0.0, 3.0, 6.0]);
    }
}

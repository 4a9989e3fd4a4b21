//! The pictures of the page: a bar for each day, and a plot of the latency.
//! It must never stretch text, nor draw a line over a time without answers.

use std::fmt::Write as _;
use std::time::Duration;

use crate::store::history::{Day, Slot};
use crate::time::{HumanDuration, Latency, WallTime, Zone};
use crate::view::percent;

use super::html;

/// The distance between two bars and the width of one, in units of the picture.
const STEP: usize = 4;
const BAR: usize = 3;
/// A day with less uptime than this has more than 14 minutes of outage and is shown as down.
const SHORT_OUTAGE: f64 = 0.99;
/// The size of the plot: one unit of width for each quarter of an hour.
const HEIGHT: f64 = 100.0;
const WIDTH: i64 = 96;
const SLOT: i64 = 900_000;
/// The logarithms of 100 µs and of 100 s, in microseconds.
const SCALE: std::ops::RangeInclusive<f64> = 2.0..=8.0;

/// A bar for each day, coloured by its uptime. `meaning` is read out by screen readers.
pub(super) fn bars(days: &[Day], zone: Zone, meaning: &str) -> String {
    let (width, meaning) = (days.len() * STEP, html(meaning));
    let mut svg = format!(
        "<svg class=\"days\" viewBox=\"0 0 {width} 10\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{meaning}\">\n"
    );
    let mut index = 0;
    // Equal days share one line; otherwise a page of a thousand targets would take many megabytes.
    for run in days.chunk_by(is_equal) {
        let (from, to) = (index * STEP, (index + run.len()) * STEP);
        let class = match run[0].up {
            None => "n",
            Some(up) if up >= 1.0 => "u",
            Some(up) if up >= SHORT_OUTAGE => "p",
            Some(_) => "d",
        };
        let title = html(&title(run, zone));
        let gap = STEP - BAR;
        writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{from}\" x2=\"{to}\" y1=\"5\" y2=\"5\" stroke-width=\"10\" \
             stroke-dasharray=\"{BAR} {gap}\"><title>{title}</title></line>"
        )
        .expect("writing to a String cannot fail");
        index += run.len();
    }
    svg + "</svg>\n"
}

fn is_equal(one: &Day, other: &Day) -> bool {
    let plain = |day: &Day| day.up.is_none_or(|up| up >= 1.0);
    plain(one) && plain(other) && one.up.is_none() == other.up.is_none()
}

fn title(run: &[Day], zone: Zone) -> String {
    // Days begin at midnight UTC; noon UTC is on the same date in nearly every zone.
    let day = |day: &Day| zone.day(day.start.offset_by(43_200_000));
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

/// A plot of the latency; `None` where there were no answers.
pub(super) fn latency(slots: &[Slot], now: WallTime) -> Option<Plot> {
    let end = now.as_ms().div_euclid(SLOT) + 1;
    let x = |slot: &Slot| slot.start().as_ms().div_euclid(SLOT) - end + WIDTH;
    let slots: Vec<&Slot> = slots.iter().filter(|slot| (0..WIDTH).contains(&x(slot))).collect();
    let mut medians: Vec<Duration> = slots.iter().map(|slot| slot.median()).collect();
    medians.sort_unstable();
    let median = *medians.get(medians.len().checked_sub(1)? / 2)?;
    let worst = slots.iter().map(|slot| slot.worst()).max()?;
    let (median, worst) = (Latency(median), Latency(worst));
    let mut svg = format!(
        "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"Latency over the last 24 hours: median {median}, worst {worst}\">\n"
    );
    let mut scale = String::new();
    for (power, name) in [(3, "1 ms"), (4, "10 ms"), (5, "100 ms"), (6, "1 s"), (7, "10 s")] {
        let y = height(Duration::from_micros(10_u64.pow(power)));
        writeln!(svg, "<line class=\"grid\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>")
            .expect("writing to a String cannot fail");
        write!(scale, "<i style=\"top:{y:.1}%\">{name}</i>").expect("writing to a String cannot fail");
    }
    // A quarter of an hour without an answer is a gap in the line.
    for run in slots.chunk_by(|one, next| x(next) - x(one) == 1) {
        for (class, value) in [("worst", Slot::worst as fn(&Slot) -> Duration), ("median", Slot::median)] {
            let point = |slot: &&Slot| {
                let (from, y) = (x(slot), height(value(slot)));
                format!("{from},{y:.1} {},{y:.1}", from + 1)
            };
            let points: Vec<String> = run.iter().map(point).collect();
            writeln!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", points.join(" "))
                .expect("writing to a String cannot fail");
        }
    }
    // The picture is stretched to fit, and text in it would be stretched too.
    let picture = format!("<div class=\"scaled\">\n{svg}</svg>\n<div aria-hidden=\"true\">{scale}</div>\n</div>\n");
    Some(Plot { picture, median, worst })
}

/// The y coordinate of a latency. The scale is logarithmic, so that one peak does not flatten all the rest.
fn height(latency: Duration) -> f64 {
    let us = latency.as_micros().max(1);
    let part = (log10(us).clamp(*SCALE.start(), *SCALE.end()) - SCALE.start()) / (SCALE.end() - SCALE.start());
    HEIGHT * (1.0 - part)
}

/// The logarithm to base 10, to a thousandth. `f64::log10` alone would load libm, 330 KiB of memory.
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
    fn equal_days_share_a_line_and_outages_stand_out() {
        let begins = WallTime::parse_rfc3339("2026-11-01T00:00:00.000Z").expect("a time");
        let ups = [None, None, Some(1.0), Some(1.0), Some(0.995), Some(0.5), Some(0.5), Some(1.0)];
        let day = |(index, up): (usize, &Option<f64>)| Day {
            start: begins.offset_by(i64::try_from(index).expect("small") * 86_400_000),
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
    fn every_latency_lies_within_the_picture() {
        assert!((height(Duration::ZERO) - HEIGHT).abs() < 0.01);
        assert!(height(Duration::MAX / 2_000).abs() < 0.01);
        assert!(height(Duration::from_millis(1)) > height(Duration::from_millis(2)));
    }

    #[test]
    fn the_logarithm_is_exact_to_a_thousandth() {
        for of in (1..10_000).chain([99_999, 100_000, 31_622_777, u128::MAX]) {
            assert!((log10(of) - (of as f64).log10()).abs() <= 0.001, "{of}");
        }
        assert_eq!([1, 1_000, 1_000_000].map(log10), [0.0, 3.0, 6.0]);
    }
}

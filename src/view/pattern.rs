//! What incidents have in common: the time of day at which they happen, and the commands that cure them.
//! It must never show a pattern in fewer than three incidents.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::outcome::{Class, short_command};
use crate::store::closed_incidents::ClosedIncident;
use crate::terminal::escaped;
use crate::time::{HumanDuration, WallTime, Zone};

/// How far back incidents count as recurrences.
pub const RECURRENCE_SPAN: Duration = Duration::from_secs(30 * 86_400);
/// In minutes.
const DAY: u32 = 1_440;
/// Incidents that lie within this many minutes of the day happen at the same time of day.
const SAME_TIME: u32 = 60;
/// Two incidents at the same time of day may be chance.
const FEWEST: usize = 3;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TimeOfDay {
    pub count: usize,
    pub of: usize,
    /// A local time of day such as `03:10`.
    pub from: String,
    pub to: String,
}

impl TimeOfDay {
    /// A pattern: all of three incidents, or three quarters of four or more, lie within an hour of the day, and on
    /// three days at least: one bad night has its incidents at one time of day too.
    pub fn of(began: &[WallTime], zone: Zone) -> Option<TimeOfDay> {
        let mut minutes: Vec<u32> = began.iter().map(|at| zone.minute_of_day(*at)).collect();
        minutes.sort_unstable();
        let of = minutes.len();
        let most = (of * 3).div_ceil(4);
        let enough = if of > FEWEST { most } else { of };
        let found = (of >= FEWEST).then(|| (enough..=of).rev().find_map(|count| narrowest(&minutes, count)))?;
        let (count, from, to) = found.filter(|(_, from, to)| count_days(began, *from, *to, zone) >= FEWEST)?;
        let clock = |minute: u32| format!("{:02}:{:02}", minute % DAY / 60, minute % 60);
        Some(TimeOfDay { count, of, from: clock(from / 5 * 5), to: clock(to / 5 * 5 + 5) })
    }
}

/// On how many days incidents lie within this part of the day. A part that spans midnight belongs to the day on which
/// it begins.
fn count_days(began: &[WallTime], from: u32, to: u32, zone: Zone) -> usize {
    let minutes_since = |at: &WallTime| zone.local_minutes(*at) - i64::from(from);
    let within = began.iter().map(minutes_since).filter(|since| since.rem_euclid(DAY.into()) <= i64::from(to - from));
    within.map(|since| since.div_euclid(DAY.into())).collect::<BTreeSet<i64>>().len()
}

/// The narrowest part of the day, of an hour at most, that holds `count` incidents. It may span midnight.
fn narrowest(minutes: &[u32], count: usize) -> Option<(usize, u32, u32)> {
    let at = |index: usize| minutes[index % minutes.len()] + if index >= minutes.len() { DAY } else { 0 };
    let windows = (0..minutes.len()).map(|first| (at(first), at(first + count - 1)));
    let (from, to) = windows.min_by_key(|(from, to)| to - from)?;
    (to - from <= SAME_TIME).then_some((count, from, to))
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TimeOfDay { count, of, from, to } = self;
        match count == of {
            true => write!(f, "all between {from} and {to}"),
            false => write!(f, "{count} of {of} between {from} and {to}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Efficacy {
    pub run: String,
    pub class: Class,
    pub cured: u32,
    pub tried: u32,
    /// From the command's start to the first healthy probe, in milliseconds, over the runs that cured.
    pub median_ms: Option<u64>,
}

impl Efficacy {
    /// One entry for each command and failure class; the most frequent first.
    pub fn of<'a>(past: impl IntoIterator<Item = &'a ClosedIncident>) -> Vec<Efficacy> {
        let mut sums: BTreeMap<(&str, Class), (u32, Vec<u64>)> = BTreeMap::new();
        for closed in past {
            for (run, times) in &closed.runs {
                let (tried, healed) = sums.entry((run, closed.class)).or_default();
                *tried += times;
                if closed.cured.as_ref() == Some(run) {
                    healed.push(closed.heal_ms.unwrap_or(0));
                }
            }
        }
        let efficacy = |((run, class), (tried, healed)): ((&str, Class), (u32, Vec<u64>))| Efficacy {
            run: run.to_owned(),
            class,
            cured: u32::try_from(healed.len()).unwrap_or(u32::MAX),
            tried,
            median_ms: median(healed),
        };
        let mut all: Vec<Efficacy> = sums.into_iter().map(efficacy).collect();
        all.sort_by(|a, b| b.tried.cmp(&a.tried).then_with(|| a.run.cmp(&b.run)));
        all
    }

    /// `3 of 3 timeouts, median 8 s`
    pub fn score(&self) -> String {
        let Efficacy { class, cured, tried, median_ms, .. } = self;
        let healed = median_ms.map_or_else(String::new, |ms| {
            let median = HumanDuration(Duration::from_millis(ms));
            if *cured > 1 { format!(", median {median}") } else { format!(" in {median}") }
        });
        format!("{cured} of {tried} {}{healed}", plural(*class, *tried))
    }
}

/// The middle one; of two, the smaller.
pub fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

fn plural(class: Class, count: u32) -> &'static str {
    let (one, many) = match class {
        Class::Refused => ("refusal", "refusals"),
        Class::Timeout => ("timeout", "timeouts"),
        Class::Reset => ("reset", "resets"),
        Class::Dns => ("DNS failure", "DNS failures"),
        Class::Tls => ("TLS failure", "TLS failures"),
        Class::Protocol => ("protocol error", "protocol errors"),
        Class::Status => ("unexpected status", "unexpected statuses"),
        Class::Body => ("unexpected body", "unexpected bodies"),
        Class::Exit => ("failed command", "failed commands"),
        Class::Stale => ("stale file", "stale files"),
        Class::Gone => ("dead process", "dead processes"),
    };
    if count == 1 { one } else { many }
}

/// `1st`, `2nd`, `11th`
pub fn ordinal(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (1, rest) if rest != 11 => "st",
        (2, rest) if rest != 12 => "nd",
        (3, rest) if rest != 13 => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// `4th time in 30 days, all between 03:10 and 03:15`; `None` for the first time. `began` includes the latest incident.
pub fn recurrence(began: &[WallTime], zone: Zone) -> Option<String> {
    if began.len() < 2 {
        return None;
    }
    let pattern = TimeOfDay::of(began, zone).map_or_else(String::new, |pattern| format!(", {pattern}"));
    Some(format!("{} time in 30 days{pattern}", ordinal(began.len())))
}

pub fn track_record(efficacy: &[Efficacy], run: &str, class: Class) -> Option<String> {
    let found = efficacy.iter().find(|one| one.run == run && one.class == class)?;
    Some(format!("`{}` has cured {}", escaped(&short_command(run)), found.score()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Minutes since a midnight in UTC.
    fn at(minute: i64) -> WallTime {
        WallTime::from_ms((20_000 * 1_440 + minute) * 60_000)
    }

    #[test]
    fn incidents_at_the_same_time_of_day_are_a_pattern() {
        #[track_caller]
        fn check(minutes: &[i64], expected: Option<&str>) {
            let began: Vec<WallTime> = minutes.iter().map(|minute| at(*minute)).collect();
            assert_eq!(TimeOfDay::of(&began, Zone::UTC).map(|found| found.to_string()).as_deref(), expected);
        }
        check(&[], None);
        check(&[192, 1_440 + 193], None);
        check(&[192, 1_440 + 193, 2 * 1_440 + 191], Some("all between 03:10 and 03:15"));
        check(&[192, 1_440 + 193, 2 * 1_440 + 600], None);
        check(&[192, 1_440 + 193, 2 * 1_440 + 194, 600], Some("3 of 4 between 03:10 and 03:15"));
        check(&[192, 1_440 + 193, 2 * 1_440 + 194, 600, 900], None);
        // One bad night, or two, is no pattern; two incidents in one of three nights are.
        check(&[192, 193, 200], None);
        check(&[192, 193, 200, 1_440 + 192], None);
        check(&[192, 193, 1_440 + 192, 2 * 1_440 + 192], Some("all between 03:10 and 03:15"));
        check(&[1_430, 1_440 + 10, 2 * 1_440 - 10], None);
        // A pattern may span midnight, and no more than an hour.
        check(&[1_430, 2 * 1_440 + 10, 2 * 1_440 + 1_435], Some("all between 23:50 and 00:15"));
        check(&[0, 1_440 + 30, 2 * 1_440 + 60], Some("all between 00:00 and 01:05"));
        check(&[0, 1_440 + 30, 2 * 1_440 + 61], None);
    }

    fn closed(class: Class, runs: &[(&str, u32)], cured: Option<(&str, u64)>) -> ClosedIncident {
        ClosedIncident {
            id: "1122-0313".into(),
            target: "api".into(),
            began: at(0),
            down_ms: 1,
            found_ms: None,
            class,
            runs: runs.iter().map(|(run, times)| ((*run).to_owned(), *times)).collect(),
            cured: cured.map(|(run, _)| run.to_owned()),
            heal_ms: cured.map(|(_, ms)| ms),
        }
    }

    #[test]
    fn cures_are_counted_by_command_and_class() {
        let past = [
            closed(Class::Timeout, &[("a", 1)], Some(("a", 3_000))),
            closed(Class::Timeout, &[("a", 1), ("b", 1)], Some(("b", 9_000))),
            closed(Class::Timeout, &[("a", 3)], Some(("a", 5_000))),
            closed(Class::Refused, &[("a", 2)], None),
            closed(Class::Dns, &[], None),
        ];
        let efficacy = Efficacy::of(&past);
        let shown: Vec<String> = efficacy.iter().map(|one| format!("{}: {}", one.run, one.score())).collect();
        assert_eq!(shown, ["a: 2 of 5 timeouts, median 3 s", "a: 0 of 2 refusals", "b: 1 of 1 timeout in 9 s"]);
        let text = track_record(&efficacy, "b", Class::Timeout);
        assert_eq!(text.as_deref(), Some("`b` has cured 1 of 1 timeout in 9 s"));
        assert_eq!(track_record(&efficacy, "b", Class::Refused), None);
    }

    #[test]
    fn recurrences_are_numbered() {
        assert_eq!(recurrence(&[at(0)], Zone::UTC), None);
        assert_eq!(recurrence(&[at(0), at(700)], Zone::UTC).as_deref(), Some("2nd time in 30 days"));
        let nights: Vec<WallTime> = (0..4).map(|night| at(192 + night * 1_440)).collect();
        let expected = "4th time in 30 days, all between 03:10 and 03:15";
        assert_eq!(recurrence(&nights, Zone::UTC).as_deref(), Some(expected));
        let all = [1, 2, 3, 4, 11, 12, 13, 21, 22, 101, 111].map(ordinal).join(" ");
        assert_eq!(all, "1st 2nd 3rd 4th 11th 12th 13th 21st 22nd 101st 111th");
        assert_eq!(median(vec![]), None);
        assert_eq!((median(vec![3, 1]), median(vec![9, 1, 3])), (Some(1), Some(3)));
    }
}

//! How long a target was down, as far as probes can know it: the moment of the failure itself is not observed.
//! It must never show a down time shorter than it may have been.

use std::fmt;
use std::time::Duration;

use crate::time::{BootTime, HumanDuration};

/// Printed so that it stays true: `AtMost` is rounded up, `AtLeast` down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Downtime {
    /// Counted from the last healthy probe.
    AtMost(Duration),
    /// Counted from the first failure, because no probe was healthy before.
    AtLeast(Duration),
}

impl Downtime {
    /// Until `now`, from the last healthy probe or, if there is none, from the first failure.
    pub fn between(last_healthy: Option<BootTime>, first_failure: BootTime, now: BootTime) -> Downtime {
        match last_healthy {
            Some(healthy) => Downtime::AtMost(now.since(healthy)),
            None => Downtime::AtLeast(now.since(first_failure)),
        }
    }

    pub fn duration(self) -> Duration {
        match self {
            Downtime::AtMost(span) | Downtime::AtLeast(span) => span,
        }
    }

    pub fn as_ms(self) -> u64 {
        u64::try_from(self.duration().as_millis()).unwrap_or(u64::MAX)
    }

    /// `None` if they are of both kinds, because the sum is then of neither.
    pub fn sum(all: &[Downtime]) -> Option<Downtime> {
        let sum = all.iter().fold(Duration::ZERO, |sum, one| sum.saturating_add(one.duration()));
        let at_most = all.iter().filter(|one| matches!(one, Downtime::AtMost(_))).count();
        match at_most {
            _ if at_most == all.len() => Some(Downtime::AtMost(sum)),
            0 => Some(Downtime::AtLeast(sum)),
            _ => None,
        }
    }
}

impl fmt::Display for Downtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = match *self {
            Downtime::AtMost(span) => {
                f.write_str("at most ")?;
                rounded_up(span)
            }
            Downtime::AtLeast(span) => {
                f.write_str("at least ")?;
                span
            }
        };
        let hours = span.as_secs() / 3_600;
        match (hours / 24, hours % 24) {
            (2.., 1..) => write!(f, "{} d {} h", hours / 24, hours % 24),
            _ => write!(f, "{}", HumanDuration(span)),
        }
    }
}

/// Rounded up to the smallest unit that is shown.
fn rounded_up(span: Duration) -> Duration {
    let unit = match span.as_secs() {
        0 => 1,
        1..10 => 100,
        10..3_600 => 1_000,
        3_600..172_800 => 60_000,
        _ => 3_600_000,
    };
    let ms = span.as_micros().div_ceil(unit * 1_000).saturating_mul(unit);
    Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_down_time_is_never_shown_too_favourably() {
        #[track_caller]
        fn check(ms: u64, at_most: &str, at_least: &str) {
            let span = Duration::from_millis(ms);
            assert_eq!(Downtime::AtMost(span).to_string(), format!("at most {at_most}"));
            assert_eq!(Downtime::AtLeast(span).to_string(), format!("at least {at_least}"));
        }
        check(350, "350 ms", "350 ms");
        check(2_110, "2.2 s", "2.1 s");
        check(9_960, "10 s", "9 s");
        check(94_000, "1 min 34 s", "1 min 34 s");
        check(94_001, "1 min 35 s", "1 min 34 s");
        check(3_599_001, "1 h", "59 min 59 s");
        check(7_500_001, "2 h 6 min", "2 h 5 min");
        check(172_740_001, "2 days", "47 h 59 min");
        check(2 * 86_400_000 + 1, "2 d 1 h", "2 days");
    }

    #[test]
    fn it_is_counted_from_the_last_healthy_probe_if_there_is_one() {
        let at = |seconds: i64| BootTime::from_ms(seconds * 1_000);
        let seconds = Duration::from_secs;
        assert_eq!(Downtime::between(Some(at(10)), at(40), at(100)), Downtime::AtMost(seconds(90)));
        assert_eq!(Downtime::between(None, at(40), at(100)), Downtime::AtLeast(seconds(60)));
        let (most, least) = (Downtime::AtMost(seconds(1)), Downtime::AtLeast(seconds(2)));
        assert_eq!(Downtime::sum(&[most, most]), Some(Downtime::AtMost(seconds(2))));
        assert_eq!(Downtime::sum(&[least]), Some(least));
        assert_eq!(Downtime::sum(&[most, least]), None);
    }
}

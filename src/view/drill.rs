//! What happens in a drill, line by line, and what came of it: for `watchdog drill`, the log, `check` and `report`.
//! It must never call a drill a success that did not end with a healthy target after a restart.

use std::time::Duration;

use crate::outcome::Exit;
use crate::policy::{
    DrillInterruption, DrillOutcome, DrillRefusal, DrillStep, FinishedDrill, HoldReason, RefusedDrill,
};
use crate::terminal::escaped;
use crate::time::{BootTime, ClockReading, HumanDuration, Latency, Zone};
use crate::view::log_line::{RestartLimit, describe_drill, describe_hold, describe_interruption, list_pids};
use crate::view::ordered_restart::describe_exit;

#[derive(Clone, Copy, Debug)]
pub struct DrillView<'a> {
    pub target: &'a str,
    /// Those of the ladder.
    pub commands: &'a [String],
    pub depends_on: &'a [String],
    pub limit: RestartLimit,
    pub at: ClockReading,
    pub zone: Zone,
}

impl DrillView<'_> {
    /// A line for each step, with the seconds since the processes were stopped. A later state has the same lines and
    /// more.
    pub fn lines(&self, began: BootTime, processes: &[(u32, u64)], steps: &[(BootTime, DrillStep)]) -> Vec<String> {
        let pids: Vec<u32> = processes.iter().map(|(pid, _)| *pid).collect();
        let first = line(Duration::ZERO, "stopped", &format!("{} of {} (SIGSTOP)", list_pids(&pids), self.target));
        let step = |(at, step): &(BootTime, DrillStep)| {
            let (word, text) = self.step(step);
            line(at.since(began), word, &text)
        };
        [first].into_iter().chain(steps.iter().map(step)).collect()
    }

    fn step(&self, step: &DrillStep) -> (&'static str, String) {
        match step {
            DrillStep::Failing { failures, threshold, detail } => {
                let noun = if *threshold == 1 { "failure" } else { "failures" };
                ("failing", format!("{failures} of {threshold} {noun}: {}", escaped(detail)))
            }
            DrillStep::Down { failures: 1 } => ("down", "1 failure".into()),
            DrillStep::Down { failures } => ("down", format!("{failures} failures in a row")),
            DrillStep::Restart { attempt, rung } => {
                let command = self.commands.get(*rung).map_or("", String::as_str);
                ("restart", format!("{attempt}: {}", escaped(command)))
            }
            DrillStep::RestartDone { exit, duration_ms, start_period_ms, .. } => {
                let duration = HumanDuration(Duration::from_millis(*duration_ms));
                let period = HumanDuration(Duration::from_millis(*start_period_ms));
                let next = match (exit, start_period_ms) {
                    (Exit::Exited(0), 1..) => format!("; probing for up to {period}"),
                    _ => String::new(),
                };
                ("", format!("the restart command {} after {duration}{next}", describe_exit(exit)))
            }
            DrillStep::HeldBack { why, until } => {
                let until = until.map_or_else(String::new, |at| format!(" until {}", self.time_of_day(at)));
                ("waiting", format!("not restarted{until}: {}", self.hold(*why)))
            }
            DrillStep::Healthy { detail, latency_ms } => {
                let latency = Latency(Duration::from_millis(*latency_ms));
                ("healthy", format!("{} in {latency}", escaped(detail)))
            }
        }
    }

    /// The last line: what came of it, and what that means.
    pub fn conclusion(&self, drill: &FinishedDrill) -> String {
        let text = capitalized(&describe_drill(&drill.outcome));
        let target = self.target;
        match &drill.outcome {
            DrillOutcome::Healed { .. } => {
                format!("{text}. The repair of {target} works; a real freeze would take about as long.")
            }
            DrillOutcome::NotHealed { .. } => {
                format!("{text}. Its process was continued where it still runs. Details: watchdog incident last")
            }
            DrillOutcome::CutShort { why: DrillInterruption::Lost } => format!("{text}. Its process was continued."),
            _ => format!("{text}. Its process was continued; the repair was not tried."),
        }
    }

    pub fn refusal(&self, RefusedDrill { why, until, .. }: &RefusedDrill) -> String {
        let until = until.map_or_else(String::new, |at| format!(" before {}", self.time_of_day(at)));
        let why = match why {
            DrillRefusal::WatchOnly => "it has no restart command, so it is only watched".into(),
            DrillRefusal::DryRun => "dry_run is set, so nothing would be repaired".into(),
            DrillRefusal::Tick => "a tick (--once) does not stay to find and repair it".into(),
            DrillRefusal::Busy => "another drill is running".into(),
            DrillRefusal::NotHealthy => "it is not healthy now".into(),
            DrillRefusal::Hold { reason: HoldReason::Busy } => "a restart is being made".into(),
            DrillRefusal::Hold { reason } => self.hold(*reason),
            DrillRefusal::Limit => {
                let most = self.limit.max;
                format!("no restart would be left for a real failure (max_restarts: {most}, one is the drill's)")
            }
            DrillRefusal::Unsaved => "the state cannot be saved, so a crash would leave its process stopped".into(),
            DrillRefusal::Unproven { detail } => escaped(detail).into_owned(),
            DrillRefusal::Interrupted { why } => describe_interruption(*why).into(),
        };
        format!("{} is not drilled{until}: {why} (nothing was stopped)", self.target)
    }

    fn hold(&self, why: HoldReason) -> String {
        describe_hold(why, self.depends_on, Some(self.limit))
    }

    fn time_of_day(&self, at: BootTime) -> String {
        let wall = self.at.wall_at(at);
        self.zone.with_day(self.zone.time_of_day(wall), wall, self.at.wall)
    }
}

fn line(since: Duration, word: &str, text: &str) -> String {
    format!("{:>4} s  {word:<8}  {text}", since.as_secs())
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::WallTime;

    fn view(commands: &[String]) -> DrillView<'_> {
        let wall = WallTime::parse_rfc3339("2026-11-22T03:13:14.000Z").expect("a time");
        let at = ClockReading { now: BootTime::from_ms(0), wall };
        let limit = RestartLimit { max: 10, window: Duration::from_secs(3_600) };
        DrillView { target: "sav", commands, depends_on: &[], limit, at, zone: Zone::UTC }
    }

    #[test]
    fn each_step_is_a_line_with_its_second() {
        let at = |s: i64| BootTime::from_ms(s * 1_000);
        let commands = ["./a.sh".to_owned(), "./b.sh\u{1b}".to_owned()];
        let done = |rung, exit| DrillStep::RestartDone { rung, exit, duration_ms: 2_100, start_period_ms: 30_000 };
        let steps = [
            (at(31), DrillStep::Failing { failures: 1, threshold: 3, detail: "no byte\u{1b}".into() }),
            (at(92), DrillStep::Down { failures: 3 }),
            (at(92), DrillStep::Restart { attempt: 1, rung: 0 }),
            (at(94), done(0, Exit::Exited(3))),
            (at(99), DrillStep::Restart { attempt: 1, rung: 1 }),
            (at(101), done(1, Exit::Exited(0))),
            (at(102), DrillStep::Healthy { detail: "200".into(), latency_ms: 4 }),
        ];
        let expected = "   0 s  stopped   pids 7, 8 of sav (SIGSTOP)
  30 s  failing   1 of 3 failures: no byte\\u{1b}
  91 s  down      3 failures in a row
  91 s  restart   1: ./a.sh
  93 s            the restart command exited 3 after 2.1 s
  98 s  restart   1: ./b.sh\\u{1b}
 100 s            the restart command exited 0 after 2.1 s; probing for up to 30 s
 101 s  healthy   200 in 4 ms";
        assert_eq!(view(&commands).lines(at(1), &[(7, 1), (8, 1)], &steps).join("\n"), expected);
        let held = [(at(1), DrillStep::HeldBack { why: HoldReason::OnlyIf, until: Some(at(60)) })];
        assert_eq!(
            view(&[]).lines(at(0), &[(7, 1)], &held)[1],
            "   1 s  waiting   not restarted until 03:14:14: its only_if command did not allow it"
        );
    }

    #[test]
    fn the_last_line_says_what_came_of_it_and_what_that_means() {
        #[track_caller]
        fn check(outcome: DrillOutcome, expected: &str) {
            let at = BootTime::from_ms(0);
            let (id, processes, steps) = (String::new(), Vec::new(), Vec::new());
            let drill = FinishedDrill { id, processes, began: at, ended: at, steps, outcome };
            assert_eq!(view(&[]).conclusion(&drill), expected);
        }
        check(
            DrillOutcome::Healed { found_ms: 91_000, healed_ms: 3_000 },
            "Found in 1 min 31 s, healed 3 s later. The repair of sav works; a real freeze would take about as long.",
        );
        check(
            DrillOutcome::NotHealed { detail: "refused\n".into() },
            "The repair did not work: refused\\n. Its process was continued where it still runs. Details: watchdog \
             incident last",
        );
        check(
            DrillOutcome::CutShort { why: DrillInterruption::Cancelled },
            "Cut short: cancelled by the operator. Its process was continued; the repair was not tried.",
        );
        check(
            DrillOutcome::HeldBack { why: HoldReason::OnlyIf },
            "Found, but not restarted: its only_if command did not allow it. Its process was continued; the repair was \
             not tried.",
        );
    }

    #[test]
    fn a_refusal_has_its_reason_and_its_end() {
        #[track_caller]
        fn check(why: DrillRefusal, until: Option<i64>, expected: &str) {
            let refused = RefusedDrill { id: String::new(), why, until: until.map(BootTime::from_ms) };
            assert_eq!(view(&[]).refusal(&refused), format!("sav is not drilled{expected} (nothing was stopped)"));
        }
        check(DrillRefusal::NotHealthy, None, ": it is not healthy now");
        check(
            DrillRefusal::Limit,
            Some(60_000),
            " before 03:14:14: no restart would be left for a real failure (max_restarts: 10, one is the drill's)",
        );
        let cooldown = DrillRefusal::Hold { reason: HoldReason::Cooldown };
        check(cooldown, Some(60_000), " before 03:14:14: cooldown between restarts");
        check(DrillRefusal::Unproven { detail: "x\u{1b}".into() }, None, ": x\\u{1b}");
    }
}

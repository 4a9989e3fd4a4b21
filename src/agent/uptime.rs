//! Counts the time between two verdicts as up, down or unknown, for the history and the metrics.
//! It must never count as up what no probe has seen.

use std::time::Duration;

use crate::clock;
use crate::logging::about;
use crate::outcome::{ProbeResult, Verdict};
use crate::policy::{Action, Event, LastProbe, Mode, OrderedBy, Record, TargetState};
use crate::time::{BootTime, WallTime, millis};
use crate::view;

use super::Agent;
use super::journal::MAX_TICK_GAP;

/// Two spans with a gap of up to this many milliseconds between them count as one.
const CONTIGUOUS_MS: u64 = 2_000;

/// Whether the span between two verdicts was up; `None` if that is unknown.
fn was_up(earlier: &Verdict, later: &Verdict) -> Option<bool> {
    match (earlier, later) {
        (Verdict::Unknown { .. }, _) | (_, Verdict::Unknown { .. }) => None,
        (Verdict::Healthy { .. }, Verdict::Healthy { .. }) => Some(true),
        (Verdict::Unhealthy { .. }, _) | (_, Verdict::Unhealthy { .. }) => Some(false),
    }
}

/// The time from which the span until `end` counts. `None` if it does not count: it is longer than the gap that counts
/// as watched, it began before this boot, or the target is paused. The part in a pause or rest that has ended is left
/// out.
fn counted_from(state: &TargetState, last: &LastProbe, longest: Duration, end: BootTime) -> Option<BootTime> {
    let is_watched = end.since(last.at) <= longest && last.at >= BootTime::BOOT;
    let from = state.excused_until.map_or(last.at, |excused| excused.max(last.at));
    (is_watched && state.pauses.until().is_none()).then_some(from)
}

fn log_probe(target: &str, result: &ProbeResult) {
    if !log::log_enabled!(log::Level::Debug) {
        return;
    }
    let (verdict, latency) = (&result.verdict, result.latency.as_millis());
    let each: String = view::addresses::list(&result.addresses).iter().map(|line| format!("; {line}")).collect();
    log::debug!(target: &about(target), "{}: {} in {latency} ms{each}", verdict.as_str(), verdict.detail());
}

/// Whether a drill runs, or ran after the verdict `before`.
fn is_in_drill(state: &TargetState, before: &LastProbe) -> bool {
    state.is_in_drill() || state.drills.last.as_ref().is_some_and(|drill| drill.ended > before.at)
}

impl Agent {
    pub(super) fn probe_finished(&mut self, target: String, number: u64, mut result: ProbeResult) {
        // A restart that was decided earlier must start before this result, not after it: the target may be healthy
        // again.
        if self.pending_actions.iter().any(|action| matches!(action, Action::Run { target: run, .. } if *run == target))
        {
            self.commit_now();
        }
        self.count_verdict(&target, &result);
        self.note_file(&target, &result);
        self.incidents.note_probe(&target, &mut result);
        self.heartbeat.note_probe();
        log_probe(&target, &result);
        // Only a failed probe can begin an incident, whose id contains the time.
        let stamp = result.verdict.class().map(|_| self.zone.incident_id(clock::wall())).unwrap_or_default();
        let before = self.policy.target(&target).map(|state| (state.status, state.last_probe.clone()));
        let warned = self.policy.target(&target).map(|state| state.warned.clone());
        self.step(Event::ProbeFinished { target: target.clone(), number, result, stamp });
        // The end of a warning has no event of its own.
        if self.policy.target(&target).map(|state| &state.warned) != warned.as_ref() {
            self.publisher.note_change(true);
        }
        let Some((status, last)) = before else { return };
        self.note_span(&target, last.as_ref());
        self.publisher.note_change(self.policy.target(&target).is_none_or(|state| state.status != status));
    }

    /// Remembers a target's file across probes that cannot see it, since it may return unchanged.
    fn note_file(&mut self, name: &str, result: &ProbeResult) {
        if let Some(file) = result.file.filter(|_| self.journal.saved.views.contains_key(name)) {
            self.journal.saved.files.insert(name.to_owned(), file);
        }
    }

    fn note_span(&mut self, name: &str, before: Option<&LastProbe>) {
        let (Some(target), Some(state)) = (self.target(name), self.policy.target(name)) else { return };
        let (Some(before), Some(latest)) = (before, state.last_probe.as_ref()) else { return };
        if latest == before {
            // The policy has ignored this result: it no longer expected it.
            return;
        }
        if state.rest.is_some() || is_in_drill(state, before) {
            // A target that is deliberately at rest, or stopped for a drill, is neither up nor down.
            self.journal.saved.undecided.remove(name);
            return;
        }
        let longest = match self.mode {
            Mode::Daemon => target.limits.gap(),
            Mode::Once => MAX_TICK_GAP,
        };
        let from = counted_from(state, before, longest, latest.at);
        let Some((from, was_up)) = from.zip(was_up(&before.verdict, &latest.verdict)) else {
            return self.count_undecided(name);
        };
        // Until a failing target is called down, it may turn out to be deliberately at rest.
        let is_decided = latest.verdict.is_healthy() || state.incident.is_some();
        let at = clock::read();
        let (from, to) = (at.wall_at(from), at.wall_at(latest.at));
        if is_decided {
            self.count_undecided(name);
            self.count_span(name, was_up, from, to);
        } else {
            self.extend_undecided(name, from, to);
        }
    }

    fn extend_undecided(&mut self, name: &str, from: WallTime, to: WallTime) {
        let follows = |(_, end): &(WallTime, WallTime)| end.as_ms().abs_diff(from.as_ms()) <= CONTIGUOUS_MS;
        if !self.journal.saved.undecided.get(name).is_some_and(follows) {
            self.count_undecided(name);
        }
        self.journal.saved.undecided.entry(name.to_owned()).or_insert((from, to)).1 = to;
    }

    /// Counts the undecided span of a target as down.
    pub(super) fn count_undecided(&mut self, name: &str) {
        let Some((from, to)) = self.journal.saved.undecided.remove(name) else { return };
        // The wall clock may have been set back since: the span must not lie in the future.
        let ahead = to.since(clock::wall());
        let corrected = |at: WallTime| at.offset_by(-millis(ahead));
        self.count_span(name, false, corrected(from), corrected(to));
    }

    fn count_span(&mut self, name: &str, up: bool, from: WallTime, to: WallTime) {
        self.load_history_for(from);
        self.load_history_for(to);
        self.journal.saved.history.record(name, up, from, to);
    }

    /// Loads the history if this time needs it. If that fails, it is tried again at the next span.
    pub(super) fn load_history_for(&mut self, at: WallTime) {
        if self.journal.saved.history.needs_file(at)
            && let Err(error) = self.journal.complete_history()
        {
            log::debug!("{error}");
        }
    }

    fn count_verdict(&mut self, name: &str, result: &ProbeResult) {
        if !self.journal.saved.views.contains_key(name) {
            return;
        }
        let counts = self.journal.saved.counts.entry(name.to_owned()).or_default();
        match &result.verdict {
            Verdict::Healthy { .. } => {
                counts.healthy += 1;
                let wall = clock::wall();
                self.load_history_for(wall);
                self.journal.saved.history.record_latency(name, result.latency, wall);
            }
            Verdict::Unhealthy { class, .. } => *counts.failed.entry(*class).or_default() += 1,
            Verdict::Unknown { .. } => counts.unknown += 1,
        }
    }

    /// Updates the counters of the metrics, and notes the change for the page.
    pub(super) fn count_record(&mut self, target: &str, record: &Record) {
        self.publisher.note_change(true);
        let Some(counts) =
            self.journal.saved.views.contains_key(target).then(|| self.journal.saved.counts.entry(target.to_owned()))
        else {
            return;
        };
        let attempt = self.policy.target(target).and_then(|state| state.attempt.as_ref());
        match record {
            Record::Down { by: Some(OrderedBy::Drill), .. } => {}
            Record::Down { .. } => counts.or_default().incidents += 1,
            // Only the first command of an attempt counts.
            Record::Restart { rung, .. } if attempt.is_none_or(|attempt| attempt.first == *rung) => {
                counts.or_default().attempts += 1;
            }
            _ => {}
        }
    }

    /// Called for an attempt that was counted and then withdrawn.
    pub(super) fn uncount_attempt(&mut self, target: &str) {
        if let Some(counts) = self.journal.saved.counts.get_mut(target) {
            counts.attempts = counts.attempts.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Class;

    #[test]
    fn only_the_span_between_two_healthy_verdicts_is_up() {
        let healthy = Verdict::Healthy { detail: String::new() };
        let unhealthy = Verdict::Unhealthy { class: Class::Timeout, detail: String::new() };
        let unknown = Verdict::Unknown { detail: String::new() };
        let all = [&healthy, &unhealthy, &unknown];
        let results = all.map(|earlier| all.map(|later| was_up(earlier, later)));
        assert_eq!(results, [[Some(true), Some(false), None], [Some(false), Some(false), None], [None; 3]]);
    }

    #[test]
    fn a_span_does_not_count_if_too_long_or_from_another_boot_or_paused_or_excused() {
        #[track_caller]
        fn check(last_s: i64, end_s: i64, excused_s: Option<i64>, is_paused: bool, expected_s: Option<i64>) {
            let at = |seconds: i64| BootTime::from_ms(seconds * 1_000);
            let verdict = Verdict::Unknown { detail: String::new() };
            let last = LastProbe { at: at(last_s), verdict, latency_ms: 0, addresses: Vec::new() };
            let mut state = TargetState { excused_until: excused_s.map(at), ..TargetState::default() };
            if is_paused {
                state.pauses.begin(at(1_000_000), None);
            }
            assert_eq!(counted_from(&state, &last, Duration::from_secs(70), at(end_s)), expected_s.map(at));
        }
        check(100, 130, None, false, Some(100));
        check(100, 170, None, false, Some(100));
        check(100, 171, None, false, None);
        check(-10, 20, None, false, None);
        check(100, 130, None, true, None);
        check(100, 130, Some(50), false, Some(100));
        check(100, 130, Some(120), false, Some(120));
    }
}

//! Applies verdicts: streaks, incidents, episodes and warnings change here.
//! It must never let an `unknown` verdict change a counter.

use std::collections::VecDeque;
use std::time::Duration;

use crate::outcome::{Class, ProbeResult, Verdict};
use crate::policy::drill::DrillStep;
use crate::policy::pm2_watch::is_dead_with_pm2;
use crate::policy::schedule::InspectionPurpose;
use crate::policy::state::{Incident, LastProbe, StartReason, Streak};
use crate::policy::target_context::TargetContext;
use crate::policy::terms::WarningKind;
use crate::policy::{Action, Record};
use crate::time::{BootTime, HumanDuration, millis};

// The figures of the contract's tables of events and messages.
const BLIND_AFTER: Duration = Duration::from_secs(600);
const MAX_DOWNS_PER_HOUR: usize = 3;
const MAX_DOWNS_PER_DAY: usize = 8;
const RECURRENT_CURES: usize = 3;
const RECURRENT_WINDOW: Duration = Duration::from_secs(7 * 86_400);
/// The first attempt of an incident waits for the diagnosis no longer than this: the contract's time for `diagnose`.
const DIAGNOSIS_TIMEOUT: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

impl TargetContext<'_> {
    /// Applies the result of probe `number`. A result that no probe in flight waits for is ignored.
    pub(super) fn probe_finished(&mut self, number: u64, result: ProbeResult, stamp: &str) {
        let Some(in_flight) = self.schedule.in_flight.filter(|in_flight| in_flight.number == number) else { return };
        let now = self.context.now;
        let duration = now.since(in_flight.started);
        let own_trouble = if let Some(why) = in_flight.void {
            Some(why.to_owned())
        } else if duration > self.limits.timeout * 2 {
            let (duration, timeout) = (HumanDuration(duration), HumanDuration(self.limits.timeout));
            Some(format!("the probe took {duration} with a timeout of {timeout}: this machine is overloaded"))
        } else {
            None
        };
        let (verdict, addresses) = match own_trouble {
            Some(detail) => (Verdict::Unknown { detail }, Vec::new()),
            None => (result.verdict, result.addresses),
        };
        self.schedule.in_flight = None;
        let latency_ms = u64::try_from(millis(result.latency)).unwrap_or(0);
        self.update_pm2(result.pm2.as_ref());
        self.schedule.is_dead_with_pm2 = is_dead_with_pm2(&verdict, result.pm2.as_ref());
        self.state.last_probe = Some(LastProbe { at: now, verdict: verdict.clone(), latency_ms, addresses });
        let start_period = self.state.start_period.filter(|_| self.precedes_manual_end(in_flight.started));
        match verdict {
            Verdict::Healthy { detail } => {
                self.apply_healthy(detail, result.latency);
                self.check_pm2(result.pm2.as_ref());
            }
            Verdict::Unhealthy { class, detail } => self.apply_unhealthy(class, detail, stamp),
            Verdict::Unknown { detail } => self.apply_unknown(&detail),
        }
        self.state.start_period = self.state.start_period.or(start_period);
        self.judge_manual(in_flight.started);
        self.schedule_next_probe();
        self.judge_drill(in_flight.started);
        if self.is_manual_verdict_awaited() && self.state.start_period.is_none() {
            self.schedule.next = Some(now);
        }
    }

    fn apply_healthy(&mut self, detail: String, latency: Duration) {
        let now = self.context.now;
        if self.state.start_period.is_some() || self.state.attempt.is_some() || self.is_paused() {
            self.end_speed_streak();
        } else {
            self.check_speed(&detail, latency);
            self.check_steadiness(false);
        }
        self.end_streak();
        self.end_rest();
        self.state.stand_down = None;
        self.state.unknown_since = None;
        self.state.warned.remove(&WarningKind::Blind);
        self.state.last_class = None;
        self.state.last_healthy = Some(now);
        self.state.rested_before_boot = false;
        self.state.proven = true;
        let repaired = self.state.attempt.is_some()
            || self.state.start_period.is_some_and(|period| period.after == StartReason::Attempt);
        self.state.start_period = None;
        self.update_episodes();
        self.end_flapping();
        if repaired {
            // An attempt has started this process, so its start is no sign of a crash loop.
            self.trust_process();
        }
        if let Some(incident) = self.state.incident.take() {
            let cured = repaired && incident.attempts > 0;
            let by = self.drill_by();
            if by.is_none() {
                self.notify_incident_end(&incident, cured);
            }
            if incident.attempts > 0 {
                // It may have been started by an attempt whose start period is over.
                self.trust_process();
            }
            let down = incident.downtime(now);
            let Incident { id: incident, attempts, .. } = incident;
            self.record(Record::Up { incident, down, attempts, cured, detail, latency, by });
            if cured && by.is_none() {
                self.check_recurrence();
            }
        }
        self.cut_attempt_short();
    }

    fn update_episodes(&mut self) {
        let now = self.context.now;
        for history in [&mut self.state.real, &mut self.state.dry] {
            if let Some(episode) = &mut history.episode {
                let since = *episode.healthy_since.get_or_insert(now);
                if now.since(since) >= self.limits.stable_after {
                    history.episode = None;
                }
            }
        }
    }

    fn apply_unhealthy(&mut self, class: Class, detail: String, stamp: &str) {
        let now = self.context.now;
        self.state.last_class = Some(class);
        self.state.unknown_since = None;
        self.state.warned.remove(&WarningKind::Blind);
        if self.check_rest() {
            return;
        }
        self.grant_start_period();
        self.end_speed_streak();
        if let Some(incident) = &mut self.state.incident {
            incident.last = Some((class, detail.clone()));
        }
        if self.state.attempt.is_some() || self.state.start_period.is_some() {
            return;
        }
        let streak = match self.state.streak {
            Some(Streak { count, first, .. }) => Streak { count: count.saturating_add(1), first, last: now },
            None => Streak { count: 1, first: now, last: now },
        };
        self.state.streak = Some(streak);
        let is_reached = streak.count >= self.limits.failure_threshold;
        if let Some(incident) = &mut self.state.incident {
            incident.recovering &= !is_reached;
            return;
        }
        if streak.count == 1 {
            let threshold = self.limits.failure_threshold;
            let by = self.drill_by();
            self.record(Record::Failing { class, detail: detail.clone(), threshold, by });
        }
        let (failures, threshold) = (streak.count, self.limits.failure_threshold);
        self.note_drill_step(DrillStep::Failing { failures, threshold, detail: detail.clone() });
        if !is_reached && !self.is_paused() && !self.state.is_in_drill() {
            self.check_steadiness(true);
        }
        if is_reached && self.is_paused() {
            // A planned outage is no incident. If it outlasts the pause, it becomes one soon after.
            return;
        }
        if is_reached && self.can_inspect() {
            self.inspect(InspectionPurpose::BeforeDown { stamp: stamp.to_owned() });
        } else if is_reached {
            self.go_down(streak, class, detail, stamp);
        }
    }

    pub(super) fn go_down(&mut self, streak: Streak, class: Class, detail: String, stamp: &str) {
        let now = self.context.now;
        let id = self.ids.name(stamp);
        self.state.pm2.changes.clear();
        self.state.steadiness.clear();
        self.state.incident = Some(Incident {
            id: id.clone(),
            began: streak.first,
            down_since: self.state.last_healthy.map(|at| at.max(self.state.excused_until.unwrap_or(at))),
            down_at: now,
            attempts: 0,
            recovering: false,
            diagnosing: self.limits.diagnose.then_some(now + DIAGNOSIS_TIMEOUT),
            held: None,
            tried: None,
            cause: Some((class, detail.clone())),
            last: Some((class, detail.clone())),
        });
        for history in [&mut self.state.real, &mut self.state.dry] {
            if let Some(episode) = &mut history.episode {
                episode.healthy_since = None;
            }
        }
        let last_healthy = self.state.last_healthy;
        let (target, incident) = (self.name.to_string(), id.clone());
        let (failures, by) = (streak.count, self.drill_by());
        self.record(Record::Down { failures, class, detail, incident: id, last_healthy, by });
        self.note_drill_step(DrillStep::Down { failures });
        if self.limits.diagnose {
            self.actions.push(Action::Diagnose { target, incident });
        }
        if by.is_none() {
            self.check_flapping();
        }
    }

    fn check_flapping(&mut self) {
        push_bounded(&mut self.state.downs, self.context.now, MAX_DOWNS_PER_DAY + 1);
        let (hour, day) = (self.downs_within(HOUR), self.downs_within(DAY));
        if hour > MAX_DOWNS_PER_HOUR || day > MAX_DOWNS_PER_DAY {
            let (count, span) = if hour > MAX_DOWNS_PER_HOUR { (hour, "hour") } else { (day, "day") };
            self.warn(WarningKind::Flapping, format!("went down {count} times within the last {span}"));
        }
    }

    /// Flapping ends once the target has not gone down for an hour. A shorter time would let a target that goes down
    /// every quarter of an hour end and begin its flapping each time.
    fn end_flapping(&mut self) {
        let is_calm = self.downs_within(HOUR) == 0 && self.downs_within(DAY) <= MAX_DOWNS_PER_DAY;
        if is_calm && self.state.warned.remove(&WarningKind::Flapping) {
            self.notify_calm();
        }
    }

    fn downs_within(&self, span: Duration) -> usize {
        self.state.downs.iter().filter(|at| self.context.now.since(**at) < span).count()
    }

    fn check_recurrence(&mut self) {
        let now = self.context.now;
        push_bounded(&mut self.state.cures, now, RECURRENT_CURES);
        let lately = self.state.cures.iter().filter(|at| now.since(**at) < RECURRENT_WINDOW).count();
        if lately >= RECURRENT_CURES {
            self.warn(
                WarningKind::Recurrent,
                format!("healed by a restart {lately} times within 7 days: the cause is still there"),
            );
        } else {
            self.state.warned.remove(&WarningKind::Recurrent);
        }
    }

    fn apply_unknown(&mut self, detail: &str) {
        let now = self.context.now;
        let since = *self.state.unknown_since.get_or_insert(now);
        if now.since(since) >= BLIND_AFTER {
            self.warn(WarningKind::Blind, format!("health unknown for {}: {detail}", HumanDuration(now.since(since))));
        }
    }

    pub(super) fn diagnosis_finished(&mut self, incident: &str) {
        if let Some(open) = self.state.incident.as_mut().filter(|open| open.id == incident) {
            open.diagnosing = None;
        }
    }

    pub(super) fn executables_searched(&mut self, missing: Option<String>) {
        match missing {
            Some(detail) => self.warn(WarningKind::CannotRepair, detail),
            None => {
                self.state.warned.remove(&WarningKind::CannotRepair);
            }
        }
    }

    /// Warns once per change: not again while the warning still holds.
    pub(super) fn warn(&mut self, kind: WarningKind, detail: String) {
        if self.state.warned.insert(kind) {
            // The warning that no restart command could be started has reported the deaf daemon already.
            let is_reported = self.state.cannot_be_repaired() || !self.limits.reports_pm2;
            if kind != WarningKind::Pm2Deaf || !is_reported {
                self.notify_warning(kind, &detail);
            }
            self.record(Record::Warn { about: kind, detail });
        }
    }
}

fn push_bounded(points: &mut VecDeque<BootTime>, now: BootTime, max: usize) {
    points.push_back(now);
    while points.len() > max {
        points.pop_front();
    }
}

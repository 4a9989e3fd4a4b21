//! What a verdict changes: streaks, incidents, episodes, warnings.

use std::collections::VecDeque;
use std::time::Duration;

use crate::outcome::{Class, ProbeResult, Verdict};
use crate::policy::schedule::InspectionPurpose;
use crate::policy::state::{Incident, LastProbe, StartReason, Streak};
use crate::policy::target_context::TargetContext;
use crate::policy::words::WarningKind;
use crate::policy::{Action, Record};
use crate::time::{BootTime, HumanDuration, millis};

/// `unknown` for this long is worth a word.
const BLIND_AFTER: Duration = Duration::from_secs(600);
/// More incidents than this within an hour, or …
const FLAPS_AN_HOUR: usize = 3;
/// … than this within a day is flapping.
const FLAPS_A_DAY: usize = 8;
/// This many cures by restarts within …
const CURES: usize = 3;
/// … this time mean that a cause stays.
const CURES_WITHIN: Duration = Duration::from_secs(7 * 86_400);
/// What there is to find out when a target goes down holds up its first attempt no longer than this.
const DIAGNOSIS: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

impl TargetContext<'_> {
    /// Takes in what look `number` found. A look that nobody asked for any more says nothing.
    pub(super) fn probe_finished(&mut self, number: u64, look: ProbeResult, stamp: &str) {
        let Some(asked) = self.schedule.in_flight.filter(|asked| asked.number == number) else { return };
        let now = self.context.now;
        let took = now.since(asked.at);
        let verdict = match look.verdict {
            _ if asked.spoiled => Verdict::Unknown { detail: "the watchdog itself was held up meanwhile".into() },
            _ if took > self.limits.timeout * 2 => Verdict::Unknown {
                detail: format!(
                    "the look took {} of at most {}: this machine is starved",
                    HumanDuration(took),
                    HumanDuration(self.limits.timeout)
                ),
            },
            verdict => verdict,
        };
        self.schedule.in_flight = None;
        let latency_ms = u64::try_from(millis(look.latency)).unwrap_or(0);
        self.note_pm2(look.pm2.as_ref());
        self.state.last_probe = Some(LastProbe { at: now, verdict: verdict.clone(), latency_ms });
        match verdict {
            Verdict::Healthy { detail } => {
                self.found_healthy(detail, look.latency);
                self.judge_pm2(look.pm2.as_ref());
            }
            Verdict::Unhealthy { class, detail } => self.found_unhealthy(class, detail, stamp),
            Verdict::Unknown { detail } => self.found_unknown(&detail),
        }
        self.schedule_next_probe();
    }

    fn found_healthy(&mut self, detail: String, latency: Duration) {
        let now = self.context.now;
        self.end_streak();
        self.wake_up();
        self.state.stand_down = None;
        self.state.unknown_since = None;
        self.state.warned.remove(&WarningKind::Blind);
        self.state.last_class = None;
        self.state.last_healthy = Some(now);
        self.state.proven = true;
        let repaired = self.state.attempt.is_some()
            || self.state.start_period.is_some_and(|period| period.after == StartReason::Attempt);
        self.state.start_period = None;
        self.grow_stable();
        self.judge_flapping();
        if let Some(incident) = self.state.incident.take() {
            let cured = repaired && incident.attempts > 0;
            self.notify_incident_end(&incident, cured);
            if incident.attempts > 0 {
                self.know_our_own();
            }
            let down = incident.downtime(now);
            let Incident { id: incident, attempts, .. } = incident;
            self.record(Record::Up { incident, down, attempts, cured, detail, latency });
            if cured {
                self.note_cure();
            }
        }
        self.cut_attempt_short();
    }

    fn grow_stable(&mut self) {
        let now = self.context.now;
        for ledger in [&mut self.state.real, &mut self.state.dry] {
            if let Some(episode) = &mut ledger.episode {
                let since = *episode.healthy_since.get_or_insert(now);
                if now.since(since) >= self.limits.stable_after {
                    ledger.episode = None;
                }
            }
        }
    }

    fn found_unhealthy(&mut self, class: Class, detail: String, stamp: &str) {
        let now = self.context.now;
        self.state.last_class = Some(class);
        self.state.unknown_since = None;
        self.state.warned.remove(&WarningKind::Blind);
        if self.is_still_at_rest() {
            return;
        }
        self.grant_start_period();
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
            self.record(Record::Failing { class, detail: detail.clone(), threshold });
        }
        if is_reached && self.is_paused() {
            // What is planned is no incident: should it last, it is one soon after the pause.
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
        self.state.incident = Some(Incident {
            id: id.clone(),
            began: streak.first,
            down_since: self.state.last_healthy.map(|at| at.max(self.state.excused_until.unwrap_or(at))),
            down_at: now,
            attempts: 0,
            recovering: false,
            diagnosing: self.limits.diagnose.then_some(now + DIAGNOSIS),
            held: None,
            tried: None,
            cause: Some((class, detail.clone())),
            last: Some((class, detail.clone())),
        });
        for ledger in [&mut self.state.real, &mut self.state.dry] {
            if let Some(episode) = &mut ledger.episode {
                episode.healthy_since = None;
            }
        }
        let last_healthy = self.state.last_healthy;
        let (target, incident) = (self.name.to_string(), id.clone());
        self.record(Record::Down { failures: streak.count, class, detail, incident: id, last_healthy });
        if self.limits.diagnose {
            self.actions.push(Action::Diagnose { target, incident });
        }
        self.note_down();
    }

    fn note_down(&mut self) {
        push_bounded(&mut self.state.downs, self.context.now, FLAPS_A_DAY + 1);
        let (hour, day) = (self.downs_within(HOUR), self.downs_within(DAY));
        if hour > FLAPS_AN_HOUR || day > FLAPS_A_DAY {
            let (count, span) = if hour > FLAPS_AN_HOUR { (hour, "hour") } else { (day, "day") };
            self.warn(WarningKind::Flapping, format!("went down {count} times within the last {span}"));
        }
    }

    /// It does not flap any more once it was up for an hour, or one that goes down every quarter of an hour would end
    /// and begin to flap with each.
    fn judge_flapping(&mut self) {
        let is_calm = self.downs_within(HOUR) == 0 && self.downs_within(DAY) <= FLAPS_A_DAY;
        if is_calm && self.state.warned.remove(&WarningKind::Flapping) {
            self.notify_calm();
        }
    }

    fn downs_within(&self, span: Duration) -> usize {
        self.state.downs.iter().filter(|at| self.context.now.since(**at) < span).count()
    }

    fn note_cure(&mut self) {
        let now = self.context.now;
        push_bounded(&mut self.state.cures, now, CURES);
        let lately = self.state.cures.iter().filter(|at| now.since(**at) < CURES_WITHIN).count();
        if lately >= CURES {
            self.warn(
                WarningKind::Recurrent,
                format!("healed by a restart {lately} times within 7 days: the cause is still there"),
            );
        } else {
            self.state.warned.remove(&WarningKind::Recurrent);
        }
    }

    fn found_unknown(&mut self, detail: &str) {
        let now = self.context.now;
        let since = *self.state.unknown_since.get_or_insert(now);
        if now.since(since) >= BLIND_AFTER {
            self.warn(
                WarningKind::Blind,
                format!("nothing could be said of it for {}: {detail}", HumanDuration(now.since(since))),
            );
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

    /// Once per change: what the operator was told of and still holds is not told again.
    pub(super) fn warn(&mut self, about: WarningKind, detail: String) {
        if self.state.warned.insert(about) {
            // What kept a restart from being made was told with that.
            let is_told = self.state.cannot_be_repaired() || !self.limits.reports_pm2;
            if about != WarningKind::Pm2Deaf || !is_told {
                self.notify_warning(about, &detail);
            }
            self.record(Record::Warn { about, detail });
        }
    }
}

fn push_bounded(points: &mut VecDeque<BootTime>, now: BootTime, most: usize) {
    points.push_back(now);
    while points.len() > most {
        points.pop_front();
    }
}

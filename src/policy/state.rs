//! Everything the policy remembers between two events, in a form that outlives the process.
//! Limits are never stored here: they are the configuration's, and may change at any reload.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::outcome::{Class, Downtime, Exit, Verdict};
use crate::policy::ids::IncidentIds;
use crate::policy::notification_state::NotificationState;
use crate::policy::pauses::Pauses;
use crate::policy::pm2::Pm2State;
use crate::policy::rest::Rest;
use crate::policy::ticks::Ticks;
use crate::policy::words::{HoldReason, Status, WarningKind};
use crate::time::BootTime;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// By name. Targets that left the configuration stay for a day.
    pub targets: BTreeMap<String, TargetState>,
    pub incident_ids: IncidentIds,
    /// The pauses of all targets, those among them that are yet to come.
    pub pauses: Pauses,
    pub ticks: Ticks,
}

#[derive(Debug, Serialize)]
pub struct StateRef<'a> {
    pub(super) targets: BTreeMap<&'a str, &'a TargetState>,
    pub(super) incident_ids: &'a IncidentIds,
    pub(super) pauses: &'a Pauses,
    pub(super) ticks: &'a Ticks,
}

impl State {
    /// Moves every point in time by `ms`: the boot clock that they were written on began at another moment.
    pub fn shift(&mut self, ms: i64) {
        self.pauses.shift(ms);
        self.ticks.shift(ms);
        for target in self.targets.values_mut() {
            target.shift(ms);
        }
    }

    /// Another boot than the one this was written in: cooldowns, episodes and streaks are over, windows still count.
    pub fn reboot(&mut self) {
        self.pauses.reboot();
        for target in self.targets.values_mut() {
            target.pauses.reboot();
            target.streak = None;
            target.start_period = None;
            target.stand_down = None;
            target.waiting = None;
            target.pm2 = Pm2State::default();
            // PM2 starts what was saved; whether that is at rest too is asked anew.
            if target.rest.take().is_some() {
                target.excused_until = Some(BootTime::BOOT);
            }
            target.incident.iter_mut().for_each(|incident| incident.diagnosing = None);
            if let Some(Attempt { phase: Phase::Running { process, .. }, .. }) = &mut target.attempt {
                *process = None;
            }
            for ledger in [&mut target.real, &mut target.dry] {
                ledger.cooldown_until = None;
                ledger.episode = None;
            }
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetState {
    #[serde(rename = "condition")]
    pub status: Status,
    /// When `status` began.
    pub since: Option<BootTime>,
    /// The consecutive failures counted so far; `None` is a streak of 0.
    pub streak: Option<Streak>,
    #[serde(rename = "last_look")]
    pub last_probe: Option<LastProbe>,
    /// The class of the last verdict that was one; `None` where it was healthy. `unknown` leaves it as it is.
    pub last_class: Option<Class>,
    pub last_healthy: Option<BootTime>,
    /// When the last pause or rest ended: what lies before is no down time.
    pub excused_until: Option<BootTime>,
    pub incident: Option<Incident>,
    /// Attempts that ran commands.
    pub real: AttemptHistory,
    /// Attempts of dry runs, which never weigh on real ones.
    pub dry: AttemptHistory,
    pub attempt: Option<Attempt>,
    /// Failures do not count until then, or until the first success.
    pub start_period: Option<StartPeriod>,
    pub pauses: Pauses,
    pub stand_down: Option<StandDown>,
    pub waiting: Option<Waiting>,
    pub probe_id: u64,
    /// Whether it was ever healthy under that probe.
    pub proven: bool,
    pub unknown_since: Option<BootTime>,
    /// What the operator was warned of and still holds.
    pub warned: BTreeSet<WarningKind>,
    /// When it went down, as far back as flapping is judged.
    pub downs: VecDeque<BootTime>,
    /// When a restart cured it, as far back as recurrence is judged.
    pub cures: VecDeque<BootTime>,
    #[serde(alias = "beside")]
    pub pm2: Pm2State,
    pub rest: Option<Rest>,
    #[serde(rename = "told")]
    pub notifications: NotificationState,
    /// Whether the state was last written by a dry run.
    pub dry_run: bool,
    pub removed_at: Option<BootTime>,
}

impl TargetState {
    pub fn phase(&self) -> Option<&Phase> {
        self.attempt.as_ref().map(|attempt| &attempt.phase)
    }

    /// Whether what there is to find out is still being found out.
    pub fn is_diagnosing(&self) -> bool {
        self.incident.as_ref().is_some_and(|incident| incident.diagnosing.is_some())
    }

    /// The last verdict is bad, as it is in every incident that is not over: others that depend on it must wait.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.last_class.is_some()
    }

    pub fn cannot_be_repaired(&self) -> bool {
        self.warned.contains(&WarningKind::CannotRepair)
    }

    /// Whether the latest command of its incident could not be started.
    pub fn was_refused(&self) -> bool {
        let tried = self.incident.as_ref().and_then(|incident| incident.tried.as_ref());
        tried.is_some_and(|tried| matches!(tried.exit, Exit::NotStarted(_)))
    }

    pub fn failures(&self) -> u32 {
        self.streak.map_or(0, |streak| streak.count)
    }

    fn shift(&mut self, ms: i64) {
        let TargetState { since, last_healthy, excused_until, unknown_since, removed_at, .. } = self;
        let mut points: Vec<&mut BootTime> = Vec::new();
        points.extend([since, last_healthy, excused_until, unknown_since, removed_at].into_iter().flatten());
        self.notifications.shift(ms);
        self.pauses.shift(ms);
        points.extend(self.downs.iter_mut().chain(&mut self.cures));
        points.extend(self.streak.iter_mut().flat_map(|streak| [&mut streak.first, &mut streak.last]));
        points.extend(self.last_probe.iter_mut().map(|look| &mut look.at));
        points.extend(self.incident.iter_mut().flat_map(|incident| {
            let tried = incident.tried.as_mut().map(|tried| &mut tried.began);
            let points = [&mut incident.began, &mut incident.down_at];
            points.into_iter().chain(tried).chain(&mut incident.diagnosing).chain(&mut incident.down_since)
        }));
        points.extend(self.start_period.iter_mut().map(|period| &mut period.until));
        points.extend(self.stand_down.iter_mut().map(|stand_down| &mut stand_down.until));
        points.extend(
            self.rest
                .iter_mut()
                .flat_map(|rest| [&mut rest.since, &mut rest.ask_at].into_iter().chain(&mut rest.reminded)),
        );
        points.extend(self.waiting.iter_mut().flat_map(|waiting| &mut waiting.until));
        for ledger in [&mut self.real, &mut self.dry] {
            let AttemptHistory {
                starts,
                cooldown_until,
                last_end,
                last_reset,
                reset_interrupted: _,
                episode,
                unproven: _,
            } = ledger;
            points.extend(starts.iter_mut().chain(cooldown_until).chain(last_end).chain(last_reset));
            points.extend(episode.iter_mut().flat_map(|episode| &mut episode.healthy_since));
        }
        match self.attempt.as_mut().map(|attempt| &mut attempt.phase) {
            Some(Phase::Running { since, .. }) => points.push(since),
            Some(Phase::Verifying { until }) => points.push(until),
            Some(Phase::CheckingReset) | None => {}
        }
        for point in points {
            *point = point.offset_by(ms);
        }
    }
}

/// Consecutive failures since the last success, attempt, gap or pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streak {
    /// How many; never 0.
    pub count: u32,
    pub first: BootTime,
    pub last: BootTime,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastProbe {
    /// When its verdict came.
    pub at: BootTime,
    pub verdict: Verdict,
    pub latency_ms: u64,
}

/// From the first failure of a streak that reached the threshold until the target is healthy again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    pub id: String,
    /// The first failure.
    pub began: BootTime,
    /// Since when it counts as down: the last healthy probe before it, or the end of a pause or rest after that;
    /// `None` where it was never seen healthy.
    #[serde(default)]
    pub down_since: Option<BootTime>,
    /// When the threshold was reached.
    pub down_at: BootTime,
    pub attempts: u32,
    /// An attempt was made, and the threshold has not been reached again since.
    pub recovering: bool,
    /// What there is to find out is being found out: no attempt before that is done, or before then.
    #[serde(default)]
    pub diagnosing: Option<BootTime>,
    /// Why the latest due attempt was not made, as last recorded.
    pub held: Option<HoldReason>,
    #[serde(default)]
    pub tried: Option<TriedCommand>,
    /// What the verdict said that made it down.
    #[serde(default)]
    pub cause: Option<(Class, String)>,
    /// What the latest bad verdict said.
    #[serde(default)]
    pub last: Option<(Class, String)>,
}

impl Incident {
    pub fn downtime(&self, now: BootTime) -> Downtime {
        Downtime::between(self.down_since, self.began, now)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriedCommand {
    /// Its rung, counted from 0.
    pub rung: usize,
    #[serde(rename = "ending")]
    pub exit: Exit,
    pub began: BootTime,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttemptHistory {
    /// When the attempts of the window began, oldest first.
    pub starts: VecDeque<BootTime>,
    pub cooldown_until: Option<BootTime>,
    pub last_end: Option<BootTime>,
    /// When the last reset of PM2 for it had ended.
    pub last_reset: Option<BootTime>,
    /// A reset of PM2 was begun, and nobody knows that it was brought to its end.
    pub reset_interrupted: bool,
    pub episode: Option<Episode>,
    /// Attempts made while the target had never been healthy under its present probe.
    pub unproven: u32,
}

/// From the first attempt until the target has been healthy for `stable_after` without going down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    pub attempts: u32,
    /// Since when it has been healthy without going down.
    pub healthy_since: Option<BootTime>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number in the episode: 1, 2, 3 …
    pub number: u32,
    /// The rung it stands on, counted from 0.
    pub rung: usize,
    /// The rung it began with.
    #[serde(default)]
    pub first: usize,
    pub incident: String,
    /// The failures that led to it.
    pub failures: u32,
    /// Whether any command of it could be started.
    pub ran: bool,
    /// No further rung: it was seen healthy, or paused, or the watchdog is told to stop.
    pub over: bool,
    /// The `repair_id` that it was begun under.
    #[serde(default)]
    pub repair_id: u64,
    #[serde(default)]
    pub resets: bool,
    pub phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase")]
pub enum Phase {
    /// The rung's command runs, or ran when the watchdog ended. `process`: its id and its start time in clock ticks
    /// after boot, as soon as there is one.
    Running { since: BootTime, process: Option<(u32, u64)> },
    /// Its next rung is a reset, and it waits to know whether that is warranted. A version of before has left the other
    /// word where it had not yet begun to run anything.
    #[serde(rename = "weighing", alias = "intended")]
    CheckingReset,
    /// The command failed; a healthy look before `until` would still end the attempt well. Then the next rung is due.
    Verifying { until: BootTime },
}

/// Time to come up, in which failures do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartPeriod {
    pub until: BootTime,
    pub after: StartReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartReason {
    Boot,
    Attempt,
    /// The start of the process, by PM2 or by whoever told it to.
    Process,
    Pause,
}

/// A gate said no and is asked again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandDown {
    pub why: HoldReason,
    /// When it is asked again.
    pub until: BootTime,
    pub times: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The first rule that forbids it.
    pub why: HoldReason,
    /// When that rule will allow it, where that is known.
    pub until: Option<BootTime>,
}

#[cfg(test)]
mod tests;

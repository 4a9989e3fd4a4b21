//! Everything that the policy stores between two events, in a form that outlives the process.
//! It must never hold limits: they belong to the configuration and may change at any reload.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::outcome::{AddressResult, Class, Downtime, Exit, Verdict};
use crate::policy::drill::Drills;
use crate::policy::ids::IncidentIds;
use crate::policy::manual_restart::{ManualRestart, RefusedRestart};
use crate::policy::notification_state::NotificationState;
use crate::policy::pauses::Pauses;
use crate::policy::pm2::Pm2State;
use crate::policy::rest::Rest;
use crate::policy::steadiness::Steadiness;
use crate::policy::terms::{HoldReason, OrderedBy, Status, WarningKind};
use crate::policy::ticks::Ticks;
use crate::time::BootTime;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// By name. Targets removed from the configuration stay for a day.
    pub targets: BTreeMap<String, TargetState>,
    pub incident_ids: IncidentIds,
    /// The pauses that apply to all targets, including targets added later.
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
    /// Moves every point in time by `ms`, because the boot clock that they were measured on had another beginning.
    pub fn shift(&mut self, ms: i64) {
        self.pauses.shift(ms);
        self.ticks.shift(ms);
        for target in self.targets.values_mut() {
            target.shift(ms);
        }
    }

    /// The state was written in an earlier boot: rule 10 ends cooldowns, episodes and streaks; windows still count.
    pub fn reboot(&mut self) {
        self.pauses.reboot();
        for target in self.targets.values_mut() {
            target.pauses.reboot();
            target.streak = None;
            target.start_period = None;
            target.stand_down = None;
            target.waiting = None;
            target.pm2 = Pm2State::default();
            target.drills.reboot();
            // After a boot, PM2 starts the saved processes, so only a new inspection shows whether the target rests.
            if let Some(rest) = target.rest.take() {
                target.rested_before_boot = rest.why.is_by_operator();
                target.excused_until = Some(BootTime::BOOT);
            }
            target.incident.iter_mut().for_each(|incident| incident.diagnosing = None);
            if let Some(Attempt { phase: Phase::Running { process, .. }, .. }) = &mut target.attempt {
                *process = None;
            }
            for history in [&mut target.real, &mut target.dry] {
                history.cooldown_until = None;
                history.episode = None;
            }
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetState {
    #[serde(rename = "condition")]
    pub status: Status,
    /// When `status` began; of an outage, when it was first called down.
    pub since: Option<BootTime>,
    /// The consecutive failures counted so far; `None` is a streak of 0.
    pub streak: Option<Streak>,
    #[serde(rename = "last_look")]
    pub last_probe: Option<LastProbe>,
    /// The class of the last verdict; `None` if it was healthy. An `unknown` verdict leaves the class as it is.
    pub last_class: Option<Class>,
    pub last_healthy: Option<BootTime>,
    /// When the last pause or rest ended. No down time is counted before this point.
    pub excused_until: Option<BootTime>,
    pub incident: Option<Incident>,
    /// Attempts that ran commands.
    pub real: AttemptHistory,
    /// Attempts of dry runs, which never count in a real run.
    pub dry: AttemptHistory,
    pub attempt: Option<Attempt>,
    /// The latest restart that the operator ordered, and the latest such order that was refused.
    pub manual: Option<ManualRestart>,
    pub refused: Option<RefusedRestart>,
    pub drills: Drills,
    /// Failures do not count until then, or until the first success.
    pub start_period: Option<StartPeriod>,
    pub pauses: Pauses,
    pub stand_down: Option<StandDown>,
    pub waiting: Option<Waiting>,
    pub probe_id: u64,
    /// The target has been healthy under that probe at least once.
    pub proven: bool,
    pub unknown_since: Option<BootTime>,
    /// The warnings that were given and still hold.
    pub warned: BTreeSet<WarningKind>,
    /// The latest healthy probes in a row that contradict what `warned` says about `slow`.
    pub speed_streak: u32,
    /// The last hour's probes since the latest incident.
    pub steadiness: Steadiness,
    /// When the target went down, as far back as the detection of flapping needs.
    pub downs: VecDeque<BootTime>,
    /// When a restart cured the target, as far back as the detection of recurrence needs.
    pub cures: VecDeque<BootTime>,
    #[serde(alias = "beside")]
    pub pm2: Pm2State,
    pub rest: Option<Rest>,
    /// It was at rest by the operator before the boot, and has not been healthy since.
    pub rested_before_boot: bool,
    #[serde(rename = "told")]
    pub notifications: NotificationState,
    /// The state was last written by a dry run.
    pub dry_run: bool,
    pub removed_at: Option<BootTime>,
}

impl TargetState {
    pub fn phase(&self) -> Option<&Phase> {
        self.attempt.as_ref().map(|attempt| &attempt.phase)
    }

    pub fn is_diagnosing(&self) -> bool {
        self.incident.as_ref().is_some_and(|incident| incident.diagnosing.is_some())
    }

    pub fn is_in_drill(&self) -> bool {
        self.drills.running.is_some()
    }

    /// The last verdict was unhealthy, as it is in every open incident: targets that depend on this one must wait.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.last_class.is_some()
    }

    pub fn cannot_be_repaired(&self) -> bool {
        self.warned.contains(&WarningKind::CannotRepair)
    }

    /// The latest restart command of the open incident could not be started.
    pub fn could_not_start(&self) -> bool {
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
        points.extend(self.steadiness.points_mut());
        points.extend(self.downs.iter_mut().chain(&mut self.cures));
        points.extend(self.streak.iter_mut().flat_map(|streak| [&mut streak.first, &mut streak.last]));
        points.extend(self.last_probe.iter_mut().map(|probe| &mut probe.at));
        points.extend(self.incident.iter_mut().flat_map(|incident| {
            let tried = incident.tried.as_mut().map(|tried| &mut tried.began);
            let points = [&mut incident.began, &mut incident.down_at];
            points.into_iter().chain(tried).chain(&mut incident.diagnosing).chain(&mut incident.down_since)
        }));
        points.extend(self.start_period.iter_mut().map(|period| &mut period.until));
        points.extend(self.manual.iter_mut().filter_map(ManualRestart::since_mut));
        points.extend(self.drills.points_mut());
        points.extend(self.refused.iter_mut().flat_map(|refused| &mut refused.until));
        points.extend(self.stand_down.iter_mut().map(|stand_down| &mut stand_down.until));
        points.extend(
            self.rest
                .iter_mut()
                .flat_map(|rest| [&mut rest.since, &mut rest.ask_at].into_iter().chain(&mut rest.reminded)),
        );
        points.extend(self.waiting.iter_mut().flat_map(|waiting| &mut waiting.until));
        for history in [&mut self.real, &mut self.dry] {
            let AttemptHistory {
                starts,
                cooldown_until,
                last_end,
                last_reset,
                reset_interrupted: _,
                episode,
                unproven: _,
            } = history;
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
    /// Never 0.
    pub count: u32,
    pub first: BootTime,
    pub last: BootTime,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastProbe {
    /// The time of its verdict.
    pub at: BootTime,
    pub verdict: Verdict,
    /// Of several addresses, that of the slowest.
    pub latency_ms: u64,
    /// Empty unless the target has several addresses, and if the watchdog was held up during the probe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AddressResult>,
}

/// From the first failure of a streak that reached the threshold until the target is healthy again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    pub id: String,
    /// The first failure.
    pub began: BootTime,
    /// The start of the down time: the last healthy probe, or the end of a later pause or rest; `None` if the target
    /// was never healthy.
    #[serde(default)]
    pub down_since: Option<BootTime>,
    /// When the threshold was reached.
    pub down_at: BootTime,
    pub attempts: u32,
    /// An attempt was made, and the threshold has not been reached again since.
    pub recovering: bool,
    /// A diagnosis runs. No attempt is made before its end, or before this time.
    #[serde(default)]
    pub diagnosing: Option<BootTime>,
    /// The reason to wait that was last recorded.
    pub held: Option<HoldReason>,
    #[serde(default)]
    pub tried: Option<TriedCommand>,
    /// The failure that reached the threshold.
    #[serde(default)]
    pub cause: Option<(Class, String)>,
    /// The latest failure.
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
    /// Counted from 0.
    pub rung: usize,
    #[serde(rename = "ending")]
    pub exit: Exit,
    pub began: BootTime,
    #[serde(default)]
    pub by: Option<OrderedBy>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttemptHistory {
    /// When the attempts began, oldest first.
    pub starts: VecDeque<BootTime>,
    pub cooldown_until: Option<BootTime>,
    pub last_end: Option<BootTime>,
    /// When the last reset of PM2 for this target ended.
    pub last_reset: Option<BootTime>,
    /// A reset of PM2 began, but its end is unknown.
    pub reset_interrupted: bool,
    pub episode: Option<Episode>,
    /// Attempts made while the target had never been healthy under its present probe.
    pub unproven: u32,
}

/// From the first attempt until the target has been healthy for `stable_after` without going down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    pub attempts: u32,
    /// The start of the time in which the target has been healthy without going down.
    pub healthy_since: Option<BootTime>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counted from 1 within the episode.
    pub number: u32,
    /// The present rung, counted from 0.
    pub rung: usize,
    /// The rung that the attempt began with.
    #[serde(default)]
    pub first: usize,
    /// `None` if the operator ordered it while the target was not down.
    #[serde(default)]
    pub incident: Option<String>,
    /// The folder of incidents that keeps its output. Earlier versions did not store the incident's own.
    #[serde(default)]
    pub folder: String,
    /// Who ordered it, if it was not the watchdog's own decision.
    #[serde(default)]
    pub by: Option<OrderedBy>,
    /// The number of failures that led to the attempt.
    pub failures: u32,
    /// At least one of its commands was started.
    pub ran: bool,
    /// No further rung is run: the target was healthy or paused, or the watchdog is about to stop.
    pub over: bool,
    /// The `repair_id` of the limits when the attempt began.
    #[serde(default)]
    pub repair_id: u64,
    /// The present rung resets PM2.
    #[serde(default)]
    pub resets: bool,
    pub phase: Phase,
}

impl Attempt {
    pub fn folder(&self) -> &str {
        match &self.incident {
            Some(incident) if self.folder.is_empty() => incident,
            _ => &self.folder,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase")]
pub enum Phase {
    /// The rung's command runs, or ran when the watchdog ended. `process`: its pid and its start time in clock ticks
    /// since boot, once it has been started.
    Running { since: BootTime, process: Option<(u32, u64)> },
    /// The next rung is a reset, and its check is running. Earlier versions wrote `intended` for an attempt that had
    /// not yet started a command.
    #[serde(rename = "weighing", alias = "intended")]
    CheckingReset,
    /// The command failed. A healthy probe before `until` proves the repair; otherwise the next rung follows.
    Verifying { until: BootTime },
}

/// The time that a target has to start, in which failures do not count.
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
    /// A new process was started, by PM2 or anyone else.
    Process,
    Pause,
}

/// A check before an attempt did not pass and is repeated later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandDown {
    pub why: HoldReason,
    /// When the check is repeated.
    pub until: BootTime,
    /// How many checks in a row did not pass.
    pub times: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The first rule that forbids the due attempt.
    pub why: HoldReason,
    /// When that rule will allow it, if known.
    pub until: Option<BootTime>,
}

#[cfg(test)]
mod tests;

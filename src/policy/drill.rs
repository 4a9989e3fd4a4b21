//! The stored state of a target's drills: `watchdog drill`, `check` and `report` read from it what happened.
//! It holds data only and must never decide anything.

use serde::{Deserialize, Serialize};

use crate::outcome::Exit;
use crate::policy::terms::HoldReason;
use crate::time::BootTime;

/// More steps than a drill with the highest threshold has.
const MAX_STEPS: usize = 200;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drills {
    /// The id of the accepted order whose processes are being proven.
    pub ordered: Option<String>,
    pub running: Option<Drill>,
    /// The latest drill that has ended, and the latest order that was refused.
    pub last: Option<FinishedDrill>,
    pub refused: Option<RefusedDrill>,
}

/// A drill that is running. Whatever ends it continues the processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drill {
    /// Identifies the order.
    pub id: String,
    /// The processes that are stopped, each with its pid and its start time in clock ticks since boot.
    pub processes: Vec<(u32, u64)>,
    /// When they were stopped; until that is confirmed, when this was decided.
    pub began: BootTime,
    /// It ends at this time at the latest.
    pub until: BootTime,
    pub is_stopped: bool,
    /// When the threshold was reached.
    pub down_at: Option<BootTime>,
    /// When its attempt ended.
    pub attempted_at: Option<BootTime>,
    /// The latest failure of a probe that began after that.
    pub failure: Option<String>,
    pub steps: Vec<(BootTime, DrillStep)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum DrillStep {
    Failing { failures: u32, threshold: u32, detail: String },
    Down { failures: u32 },
    Restart { attempt: u32, rung: usize },
    RestartDone { rung: usize, exit: Exit, duration_ms: u64, start_period_ms: u64 },
    HeldBack { why: HoldReason, until: Option<BootTime> },
    Healthy { detail: String, latency_ms: u64 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinishedDrill {
    pub id: String,
    pub processes: Vec<(u32, u64)>,
    pub began: BootTime,
    pub ended: BootTime,
    pub steps: Vec<(BootTime, DrillStep)>,
    pub outcome: DrillOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum DrillOutcome {
    /// `found_ms`: from the stop of the processes to the threshold. `healed_ms`: from there to the healthy probe.
    Healed {
        found_ms: u64,
        healed_ms: u64,
    },
    /// The attempt's start period is over. `detail`: the latest failure.
    NotHealed {
        detail: String,
    },
    /// It was healthy although no restart was made. `was_failing`: after a failed probe.
    WithoutRestart {
        was_failing: bool,
    },
    /// The attempt had to wait.
    HeldBack {
        why: HoldReason,
    },
    TimedOut,
    NotStopped {
        why: String,
    },
    CutShort {
        why: DrillInterruption,
    },
}

/// What ended a drill early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillInterruption {
    /// The operator cancelled it.
    Cancelled,
    /// The operator ordered a restart.
    Restart,
    Paused,
    /// The target was found deliberately at rest.
    Rested,
    Reloaded,
    /// The watchdog itself did not run for a while.
    Stalled,
    /// The watchdog was about to end.
    Stopping,
    /// The watchdog had ended.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedDrill {
    pub id: String,
    pub why: DrillRefusal,
    /// When that reason ends, if known.
    pub until: Option<BootTime>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DrillRefusal {
    WatchOnly,
    DryRun,
    /// Only ticks run, and none stays long enough.
    Tick,
    /// Another drill runs.
    Busy,
    NotHealthy,
    /// An attempt would have to wait.
    Hold {
        reason: HoldReason,
    },
    /// The restart window must have room for another attempt after that of the drill.
    Limit,
    Unsaved,
    /// Why the processes cannot be proven.
    Unproven {
        detail: String,
    },
    Interrupted {
        why: DrillInterruption,
    },
}

/// What happens to a drill from outside. `id`: of its order.
#[derive(Clone, Debug, PartialEq)]
pub enum DrillEvent {
    Ordered {
        id: String,
    },
    /// Answers [`super::Action::ProveProcesses`] with the processes, or with the reason why they cannot be stopped.
    /// `repair`: how long a repair may take at most.
    Proven {
        id: String,
        processes: Result<Vec<(u32, u64)>, String>,
        repair: std::time::Duration,
    },
    /// Answers [`super::Action::StopProcesses`].
    Stopped {
        id: String,
        error: Option<String>,
    },
    Cancelled {
        id: String,
    },
}

impl Drills {
    /// After a reboot a stored pid may belong to any process.
    pub(super) fn reboot(&mut self) {
        self.running.iter_mut().for_each(|drill| drill.processes.clear());
        self.last.iter_mut().for_each(|drill| drill.processes.clear());
    }

    pub(super) fn points_mut(&mut self) -> impl Iterator<Item = &mut BootTime> {
        let of_running = self.running.iter_mut().flat_map(|drill| {
            let points = [&mut drill.began, &mut drill.until].into_iter();
            points.chain(&mut drill.down_at).chain(&mut drill.attempted_at).chain(step_points(&mut drill.steps))
        });
        let of_last = self
            .last
            .iter_mut()
            .flat_map(|drill| [&mut drill.began, &mut drill.ended].into_iter().chain(step_points(&mut drill.steps)));
        of_running.chain(of_last).chain(self.refused.iter_mut().flat_map(|refused| &mut refused.until))
    }
}

impl Drill {
    pub(super) fn add(&mut self, at: BootTime, step: DrillStep) {
        if self.steps.len() < MAX_STEPS {
            self.steps.push((at, step));
        }
    }
}

fn step_points(steps: &mut [(BootTime, DrillStep)]) -> impl Iterator<Item = &mut BootTime> {
    steps.iter_mut().flat_map(|(at, step)| {
        let until = if let DrillStep::HeldBack { until, .. } = step { until.as_mut() } else { None };
        [at].into_iter().chain(until)
    })
}

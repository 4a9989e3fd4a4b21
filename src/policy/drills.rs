//! Conducts drills (`watchdog drill`), the contract's rule 17: processes of a healthy target are stopped, and the
//! ordinary rules must find and repair that.
//! It must never stop a process before that is saved, nor save that a drill has ended before its processes continue:
//! [`Action::ContinueProcesses`] does not wait for the save.

use std::time::Duration;

use crate::outcome::{Exit, Verdict};
use crate::policy::drill::{
    Drill, DrillEvent, DrillInterruption, DrillOutcome, DrillRefusal, DrillStep, FinishedDrill, RefusedDrill,
};
use crate::policy::state::{LastProbe, TargetState};
use crate::policy::target_context::{Neighbours, TargetContext};
use crate::policy::terms::{HoldReason, OrderedBy, Status};
use crate::policy::{Action, Limits, Mode, Policy, Record, budget};
use crate::time::{BootTime, millis};

/// A probe that begins so soon after the stop may still get an answer that was on its way.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// In addition to what the limits and the restart commands take, for a machine that is slow.
const MARGIN: Duration = Duration::from_secs(30);

/// How long a drill may take at most. `repair`: how long a repair may take.
pub fn longest_drill(limits: &Limits, repair: Duration) -> Duration {
    limits.detection_bound() + repair + limits.start_period + limits.interval + limits.timeout + MARGIN
}

impl Policy {
    pub(super) fn drill_event(&mut self, target: &str, event: DrillEvent, now: BootTime, actions: &mut Vec<Action>) {
        let Some(index) = self.targets.index_of(target) else { return };
        let neighbours = self.targets.neighbours(index);
        let is_other_drilled = self.targets.states().any(|(name, state)| name != target && state.is_in_drill());
        self.update_at(index, now, actions, |target| match event {
            DrillEvent::Ordered { id } => target.drill_ordered(id, neighbours, is_other_drilled),
            DrillEvent::Proven { id, processes, repair } => {
                target.processes_proven(&id, processes, repair, neighbours, is_other_drilled);
            }
            DrillEvent::Stopped { id, error } => target.processes_stopped(&id, error),
            DrillEvent::Cancelled { id } => target.cancel_drill(&id),
        });
    }
}

impl TargetContext<'_> {
    pub(super) fn drill_by(&self) -> Option<OrderedBy> {
        self.state.is_in_drill().then_some(OrderedBy::Drill)
    }

    fn drill_ordered(&mut self, id: String, neighbours: Neighbours, is_other_drilled: bool) {
        let drills = &self.state.drills;
        let running = drills.running.as_ref().map(|drill| &drill.id);
        let last = drills.last.as_ref().map(|drill| &drill.id);
        let refused = drills.refused.as_ref().map(|refused| &refused.id);
        if self.schedule.retired || [drills.ordered.as_ref(), running, last, refused].contains(&Some(&id)) {
            return;
        }
        self.actions.push(Action::Save);
        let is_other_ordered = drills.ordered.is_some() || drills.running.is_some();
        match self.drill_refusal(neighbours, is_other_drilled || is_other_ordered) {
            Some((why, until)) => self.state.drills.refused = Some(RefusedDrill { id, why, until }),
            None => {
                self.actions.push(Action::ProveProcesses { target: self.name.to_string(), id: id.clone() });
                self.state.drills.ordered = Some(id);
            }
        }
    }

    /// The processes are proven or not. The reasons to refuse are checked again: this took seconds.
    fn processes_proven(
        &mut self,
        id: &str,
        processes: Result<Vec<(u32, u64)>, String>,
        repair: Duration,
        neighbours: Neighbours,
        is_other_drilled: bool,
    ) {
        let now = self.context.now;
        let Some(id) = self.state.drills.ordered.take_if(|ordered| ordered == id) else { return };
        self.actions.push(Action::Save);
        let refusal = self.drill_refusal(neighbours, is_other_drilled);
        let (processes, why, until) = match (processes, refusal) {
            (_, Some((why, until))) => (Vec::new(), Some(why), until),
            (Err(detail), None) => (Vec::new(), Some(DrillRefusal::Unproven { detail }), None),
            (Ok(processes), None) => (processes, None, None),
        };
        if let Some(why) = why {
            self.state.drills.refused = Some(RefusedDrill { id, why, until });
            return;
        }
        let until = now + longest_drill(self.limits, repair);
        let pids = processes.iter().map(|(pid, _)| *pid).collect();
        let target = self.name.to_string();
        self.state.drills.running = Some(Drill {
            id: id.clone(),
            processes: processes.clone(),
            began: now,
            until,
            is_stopped: false,
            down_at: None,
            attempted_at: None,
            failure: None,
            steps: Vec::new(),
        });
        self.record(Record::DrillBegan { pids, until });
        self.actions.push(Action::StopProcesses { target, id, processes });
    }

    fn processes_stopped(&mut self, id: &str, error: Option<String>) {
        let now = self.context.now;
        let Some(drill) = self.state.drills.running.as_mut().filter(|drill| drill.id == id) else { return };
        if let Some(why) = error {
            return self.end_drill(DrillOutcome::NotStopped { why });
        }
        (drill.began, drill.is_stopped) = (now, true);
        self.actions.push(Action::Save);
    }

    fn cancel_drill(&mut self, id: &str) {
        if let Some(id) = self.state.drills.ordered.take_if(|ordered| ordered == id) {
            let why = DrillRefusal::Interrupted { why: DrillInterruption::Cancelled };
            self.state.drills.refused = Some(RefusedDrill { id, why, until: None });
            self.actions.push(Action::Save);
        }
        if self.state.drills.running.as_ref().is_some_and(|drill| drill.id == id) {
            self.cut_drill_short(DrillInterruption::Cancelled);
        }
    }

    fn drill_refusal(
        &self,
        neighbours: Neighbours,
        is_other_drilled: bool,
    ) -> Option<(DrillRefusal, Option<BootTime>)> {
        let now = self.context.now;
        let Limits { rungs, restart_window, max_restarts, .. } = *self.limits;
        let refuse = |why| Some((why, None));
        if rungs == 0 {
            return refuse(DrillRefusal::WatchOnly);
        }
        if self.context.mode == Mode::Once {
            return refuse(DrillRefusal::Tick);
        }
        if self.context.stopping || self.schedule.retired {
            return refuse(DrillRefusal::Interrupted { why: DrillInterruption::Stopping });
        }
        if self.limits.dry_run {
            return refuse(DrillRefusal::DryRun);
        }
        if self.context.unsaved {
            return refuse(DrillRefusal::Unsaved);
        }
        if is_other_drilled {
            return refuse(DrillRefusal::Busy);
        }
        if let Some(until) = self.state.pauses.until() {
            return Some((DrillRefusal::Hold { reason: HoldReason::Paused }, Some(until)));
        }
        if self.state.attempt.is_some() {
            return refuse(DrillRefusal::Hold { reason: HoldReason::Busy });
        }
        if !self.is_surely_healthy() {
            return refuse(DrillRefusal::NotHealthy);
        }
        if let Some(waiting) = self.hold_reason(neighbours) {
            return Some((DrillRefusal::Hold { reason: waiting.why }, waiting.until));
        }
        // One attempt of the window is for the drill, another must be left for a failure.
        let least = max_restarts.saturating_sub(1);
        let free_at = budget::next_free_at(self.starts(), now, restart_window, least);
        if least == 0 || free_at.is_some() {
            return Some((DrillRefusal::Limit, free_at.filter(|_| least > 0)));
        }
        None
    }

    /// By a recent verdict: that of an earlier watchdog may be about another process.
    fn is_surely_healthy(&self) -> bool {
        let TargetState { status, streak, start_period, last_probe, .. } = &*self.state;
        let is_recent = |at: BootTime| at >= BootTime::BOOT && self.context.now.since(at) <= self.limits.gap();
        let is_steady = streak.is_none() && start_period.is_none();
        let has_answered = |probe: &LastProbe| probe.verdict.is_healthy() && is_recent(probe.at);
        *status == Status::Healthy && is_steady && last_probe.as_ref().is_some_and(has_answered)
    }

    pub(super) fn note_drill_step(&mut self, step: DrillStep) {
        let now = self.context.now;
        if let Some(drill) = &mut self.state.drills.running {
            if let DrillStep::Down { .. } = step {
                drill.down_at = Some(now);
            }
            drill.add(now, step);
            self.actions.push(Action::Save);
        }
    }

    pub(super) fn note_drill_exit(&mut self, rung: usize, exit: Exit, duration: Duration) {
        let ms = |span| u64::try_from(millis(span)).unwrap_or(0);
        let (duration_ms, start_period_ms) = (ms(duration), ms(self.limits.start_period));
        self.note_drill_step(DrillStep::RestartDone { rung, exit, duration_ms, start_period_ms });
    }

    /// An attempt has ended.
    pub(super) fn note_drill_attempt(&mut self) {
        if let Some(drill) = &mut self.state.drills.running {
            drill.attempted_at = Some(self.context.now);
        }
    }

    /// The attempt that is due has to wait.
    pub(super) fn hold_drill(&mut self, why: HoldReason, until: Option<BootTime>) {
        if self.state.is_in_drill() {
            self.note_drill_step(DrillStep::HeldBack { why, until });
            self.end_drill(DrillOutcome::HeldBack { why });
        }
    }

    /// A probe that began at `started` has ended: determines what came of the drill.
    pub(super) fn judge_drill(&mut self, started: BootTime) {
        let now = self.context.now;
        let Some(probe) = self.state.last_probe.clone() else { return };
        let Some(drill) = &mut self.state.drills.running else { return };
        match probe.verdict {
            Verdict::Healthy { detail } => {
                let has_restarted = drill.steps.iter().any(|(_, step)| matches!(step, DrillStep::Restart { .. }));
                if !has_restarted && (!drill.is_stopped || started < drill.began + STOP_GRACE) {
                    return;
                }
                let ms = |span| u64::try_from(millis(span)).unwrap_or(0);
                let down_at = drill.down_at.unwrap_or(now);
                let (found_ms, healed_ms) = (ms(down_at.since(drill.began)), ms(now.since(down_at)));
                let was_failing = !drill.steps.is_empty();
                drill.add(now, DrillStep::Healthy { detail, latency_ms: probe.latency_ms });
                self.end_drill(match has_restarted {
                    true => DrillOutcome::Healed { found_ms, healed_ms },
                    false => DrillOutcome::WithoutRestart { was_failing },
                });
            }
            Verdict::Unhealthy { detail, .. } => {
                if drill.attempted_at.is_some_and(|at| started >= at) {
                    drill.failure = Some(detail);
                }
                self.expire_drill();
            }
            Verdict::Unknown { .. } => {}
        }
    }

    /// Ends a drill whose attempt did not help, or whose time is over.
    pub(super) fn expire_drill(&mut self) {
        let is_attempting = self.state.attempt.is_some() || self.state.start_period.is_some();
        let Some(drill) = &self.state.drills.running else { return };
        match &drill.failure {
            Some(detail) if !is_attempting => {
                let detail = detail.clone();
                self.end_drill(DrillOutcome::NotHealed { detail });
            }
            _ if drill.until <= self.context.now => self.end_drill(DrillOutcome::TimedOut),
            _ => {}
        }
    }

    pub(super) fn cut_drill_short(&mut self, why: DrillInterruption) {
        self.end_drill(DrillOutcome::CutShort { why });
    }

    /// Ends what an earlier watchdog left of a drill.
    pub(super) fn recover_drill(&mut self) {
        if let Some(id) = self.state.drills.ordered.take() {
            let why = DrillRefusal::Interrupted { why: DrillInterruption::Lost };
            self.state.drills.refused = Some(RefusedDrill { id, why, until: None });
        }
        self.cut_drill_short(DrillInterruption::Lost);
    }

    /// Continues the processes. An incident that is still open belongs to the drill and ends with it: what is not
    /// healthy from now on is no drill any more.
    pub(super) fn end_drill(&mut self, outcome: DrillOutcome) {
        let now = self.context.now;
        let Some(Drill { id, processes, began, steps, .. }) = self.state.drills.running.take() else { return };
        self.actions.push(Action::ContinueProcesses { target: self.name.to_string(), processes: processes.clone() });
        let incident = self.state.incident.take().map(|incident| incident.id);
        self.state.excused_until = Some(now);
        self.state.waiting = self.rest_waiting();
        self.schedule.clear_due();
        self.schedule.expire_precheck();
        self.state.stand_down = None;
        self.end_streak();
        self.cut_attempt_short();
        self.schedule.void_probe("its process was stopped for a drill during the probe");
        if !matches!(outcome, DrillOutcome::Healed { .. } | DrillOutcome::WithoutRestart { .. }) {
            self.schedule.next = Some(now);
        }
        self.record(Record::DrillEnded { outcome: outcome.clone(), incident });
        self.state.drills.last = Some(FinishedDrill { id, processes, began, ended: now, steps, outcome });
    }
}

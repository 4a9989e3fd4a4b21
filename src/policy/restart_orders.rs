//! Restarts that the operator orders (`watchdog restart`): the contract's rule 16. The window and an attempt that runs
//! refuse the order; cooldown and all other waits do not.
//! It must never begin an attempt beyond the window, or the same order twice.

use crate::outcome::{Exit, Verdict};
use crate::policy::drill::DrillInterruption;
use crate::policy::manual_restart::{FailedCommand, ManualProgress, ManualRestart, RefusedRestart, RestartRefusal};
use crate::policy::state::TargetState;
use crate::policy::target_context::{Neighbours, TargetContext};
use crate::policy::terms::OrderedBy;
use crate::policy::{Action, Limits, Mode, Policy, budget};
use crate::time::BootTime;

impl Policy {
    pub(super) fn order_restart(
        &mut self,
        target: &str,
        id: String,
        stamp: &str,
        now: BootTime,
        actions: &mut Vec<Action>,
    ) {
        if let Some(index) = self.targets.index_of(target) {
            let neighbours = self.targets.neighbours(index);
            self.update_at(index, now, actions, |target| target.restart_ordered(id, stamp, neighbours));
        }
    }
}

impl TargetContext<'_> {
    /// Begins the attempt at once, or refuses it. `stamp`: the start of the id under which the output is kept if the
    /// target has no open incident.
    fn restart_ordered(&mut self, id: String, stamp: &str, neighbours: Neighbours) {
        let TargetState { manual, refused, .. } = &*self.state;
        let is_known = manual.as_ref().map(|manual| &manual.id) == Some(&id)
            || refused.as_ref().map(|refused| &refused.id) == Some(&id);
        if self.schedule.retired || is_known {
            return;
        }
        self.actions.push(Action::Save);
        if let Some((why, until)) = self.refusal(neighbours) {
            self.state.refused = Some(RefusedRestart { id, why, until });
            return;
        }
        self.cut_drill_short(DrillInterruption::Restart);
        let progress = ManualProgress::Running { rung: 0, failed: None };
        self.state.manual = Some(ManualRestart { id, first: 0, progress });
        let folder = match &self.state.incident {
            Some(incident) => incident.id.clone(),
            None => self.ids.name(stamp),
        };
        self.begin_attempt(false, Some(OrderedBy::Operator), folder);
        self.end_streak();
    }

    fn refusal(&self, neighbours: Neighbours) -> Option<(RestartRefusal, Option<BootTime>)> {
        let now = self.context.now;
        let Limits { rungs, restart_window, max_restarts, .. } = *self.limits;
        let refuse = |why| Some((why, None));
        if rungs == 0 {
            return refuse(RestartRefusal::WatchOnly);
        }
        if self.context.stopping {
            return refuse(RestartRefusal::Stopping);
        }
        if self.limits.dry_run {
            return refuse(RestartRefusal::DryRun);
        }
        if let Some(until) = budget::next_free_at(self.starts(), now, restart_window, max_restarts) {
            return Some((RestartRefusal::Limit, Some(until)));
        }
        if self.state.attempt.is_some() || neighbours.busy {
            return refuse(RestartRefusal::Busy);
        }
        let unsaved_until = self.unsaved_until().filter(|until| *until > now);
        if self.context.unsaved && (self.context.mode == Mode::Once || unsaved_until.is_some()) {
            return Some((RestartRefusal::Unsaved, unsaved_until));
        }
        if rungs == 1 && self.limits.reset == Some(0) && !self.may_reset() {
            return refuse(RestartRefusal::ResetTooRecent);
        }
        None
    }

    /// The attempt's next command is about to run. Only the operator's own attempts are followed.
    pub(super) fn note_manual_command(&mut self, rung: usize) {
        let is_ordered = self.state.attempt.as_ref().is_some_and(|attempt| attempt.by == Some(OrderedBy::Operator));
        if let Some(manual) = self.state.manual.as_mut().filter(|_| is_ordered)
            && let ManualProgress::Running { rung: present, failed } = &mut manual.progress
        {
            *present = rung;
            if failed.is_none() {
                manual.first = rung;
            }
        }
    }

    pub(super) fn note_manual_exit(&mut self, rung: usize, exit: &Exit) {
        if let Some(ManualRestart { progress: ManualProgress::Running { failed, .. }, .. }) = &mut self.state.manual {
            *failed = Some(FailedCommand { rung, exit: exit.clone() });
        }
    }

    /// The attempt has ended, for whatever reason.
    pub(super) fn note_manual_end(&mut self, ran: bool) {
        let since = self.context.now;
        let Some(manual) = &mut self.state.manual else { return };
        let ManualProgress::Running { failed, .. } = &mut manual.progress else { return };
        manual.progress = match failed.take() {
            Some(FailedCommand { rung, exit }) if ran => ManualProgress::Starting { rung, exit, since, failure: None },
            Some(FailedCommand { exit: Exit::NotStarted(why), .. }) => ManualProgress::NotStarted { why },
            Some(_) | None => ManualProgress::NotStarted { why: "PM2 needs no reset".into() },
        };
        self.actions.push(Action::Save);
    }

    /// The attempt was withdrawn because it could not be saved.
    pub(super) fn withdraw_manual(&mut self) {
        if let Some(ManualRestart { id, .. }) = self.state.manual.take_if(|manual| !manual.is_decided()) {
            self.state.refused = Some(RefusedRestart { id, why: RestartRefusal::Unsaved, until: None });
        }
    }

    /// Whether the operator waits for a probe that began later than this one: it says nothing about the restart.
    pub(super) fn precedes_manual_end(&self, started: BootTime) -> bool {
        self.awaited_since().is_some_and(|since| started < since)
    }

    /// Whether the operator still waits for a verdict after the attempt.
    pub(super) fn is_manual_verdict_awaited(&self) -> bool {
        self.awaited_since().is_some()
    }

    fn awaited_since(&self) -> Option<BootTime> {
        match self.state.manual.as_ref()?.progress {
            ManualProgress::Starting { since, .. } => Some(since),
            _ => None,
        }
    }

    /// A probe that began at `started` has ended: determines what came of the operator's restart. A start period that
    /// still runs leaves it open after a failure.
    pub(super) fn judge_manual(&mut self, started: BootTime) {
        let Some(probe) = self.state.last_probe.clone().filter(|_| !self.precedes_manual_end(started)) else { return };
        let Some(manual) = &mut self.state.manual else { return };
        let ManualProgress::Starting { rung, exit, failure, .. } = &mut manual.progress else { return };
        match probe.verdict {
            Verdict::Healthy { detail } => {
                let (rung, exit, latency_ms) = (*rung, exit.clone(), probe.latency_ms);
                manual.progress = ManualProgress::Healthy { rung, exit, detail, latency_ms };
                self.actions.push(Action::Save);
            }
            Verdict::Unhealthy { detail, .. } | Verdict::Unknown { detail } => *failure = Some(detail),
        }
        if self.state.start_period.is_none() {
            self.end_manual_wait();
        }
    }

    /// The start period is over: a failure since the attempt's end decides. Without one, the next probe does.
    pub(super) fn end_manual_wait(&mut self) {
        let Some(manual) = &mut self.state.manual else { return };
        if let ManualProgress::Starting { rung, exit, failure: Some(detail), .. } = &manual.progress {
            let (rung, exit, detail) = (*rung, exit.clone(), detail.clone());
            manual.progress = ManualProgress::NotHealthy { rung, exit, detail };
            self.actions.push(Action::Save);
        }
    }
}

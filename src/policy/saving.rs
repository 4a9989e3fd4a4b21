//! Withdraws what may not be done without a save: attempts, and drills.
//! It must never withdraw what has begun already.

use std::collections::BTreeSet;

use crate::policy::{Action, DrillOutcome, Policy, Record};
use crate::time::BootTime;

impl Policy {
    /// The save before `actions` has succeeded (`ok`) or failed. Actions that may not be executed unsaved are removed
    /// from `actions`, and the attempts behind them from the state. Returns the actions that follow from this.
    pub fn save_finished(&mut self, ok: bool, actions: &mut Vec<Action>, now: BootTime) -> Vec<Action> {
        let mut further = Vec::new();
        let has_changed = std::mem::replace(&mut self.unsaved, !ok) == ok;
        let mut withdrawn: BTreeSet<String> =
            actions.iter().filter(|_| !ok).filter_map(target_of_run).map(str::to_owned).collect();
        withdrawn.retain(|target| {
            let mut is_withdrawn = false;
            self.update_target(target, now, &mut further, |target| is_withdrawn = target.withdraw_unsaved());
            is_withdrawn
        });
        let stops: BTreeSet<String> =
            actions.iter().filter(|_| !ok).filter_map(target_of_stop).map(str::to_owned).collect();
        for target in &stops {
            let why = "the state cannot be saved".to_owned();
            self.update_target(target, now, &mut further, |target| {
                target.end_drill(DrillOutcome::NotStopped { why });
            });
        }
        actions.retain(|action| match action {
            Action::StopProcesses { .. } => ok,
            Action::Run { target, .. } | Action::Record { target: Some(target), record: Record::Restart { .. } } => {
                !withdrawn.contains(target)
            }
            _ => true,
        });
        if has_changed {
            self.targets.request_reconsideration();
        }
        if has_changed || !withdrawn.is_empty() || !stops.is_empty() {
            self.advance(now, &mut further);
        }
        further
    }
}

fn target_of_run(action: &Action) -> Option<&str> {
    match action {
        Action::Run { target, .. } => Some(target),
        _ => None,
    }
}

fn target_of_stop(action: &Action) -> Option<&str> {
    match action {
        Action::StopProcesses { target, .. } => Some(target),
        _ => None,
    }
}

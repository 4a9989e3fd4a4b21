//! Rule 17: a drill stops a process only where that is safe, and always continues it.
//! It must never use the policy's internals.

use super::Oracle;
use crate::policy::{OrderedBy, Record};
use crate::time::millis;

impl Oracle {
    pub(super) fn drill_begins(&mut self, target: &str, at: i64) {
        let limits = &self.limits[target];
        let model = &self.models[target];
        let is_healthy = model.last_class.is_none() && model.healthy_at.is_some() && model.down.is_none();
        let (window, most) = (millis(limits.restart_window), limits.max_restarts as usize);
        let spent = model.starts.iter().filter(|start| at - **start < window).count();
        let is_free = !model.is_paused(at) && !model.command_runs && !model.at_rest && model.removed.is_none();
        let may_repair = limits.rungs > 0 && !limits.dry_run;
        let others = self.models.iter().filter(|(name, _)| *name != target);
        let is_only_one = others.filter(|(_, model)| model.in_drill).count() == 0;
        self.require(is_healthy, "a drill of a target that is not healthy");
        self.require(is_free && may_repair, "a drill that could not be repaired now");
        self.require(spent + 2 <= most, "a drill must leave a restart for a failure");
        self.require(is_only_one, "a second drill");
        self.model(target).in_drill = true;
        self.model(target).broke_at = None;
    }

    pub(in crate::policy::tests) fn process_stops(&mut self, target: &str, at: i64) {
        self.note(at, format!("{target}: its process is stopped"));
        let in_drill = self.models[target].in_drill;
        self.require(in_drill && self.saved, "a process is stopped before that is recorded and saved");
        self.model(target).is_stopped = true;
    }

    /// A drill has ended, or the process was replaced.
    pub(in crate::policy::tests) fn process_continues(&mut self, target: &str, is_end: bool, at: i64) {
        self.note(at, format!("{target}: its process continues, at the end of its drill: {is_end}"));
        self.model(target).is_stopped = false;
        if is_end && let Some((number, _)) = self.in_flight.get(target) {
            self.void.insert(target.to_owned(), *number);
        }
    }

    pub(super) fn drill_ends(&mut self, target: &str, incident: Option<&String>, at: i64) {
        let is_stopped = self.models[target].is_stopped;
        self.require(!is_stopped, "the end of a drill is recorded before its process continues");
        let model = self.model(target);
        model.in_drill = false;
        (model.failures, model.diagnosis) = (0, None);
        (model.broke_at, model.healthy_at) = (None, model.healthy_at.map(|healthy| healthy.max(at)));
        let open = model.down.take();
        self.require(open.as_ref() == incident, "`drill_ended` names the incident that it ends");
    }

    /// A record is a drill's if, and only if, it was made during one. An attempt may outlast its drill.
    pub(super) fn check_drill_mark(&self, target: &str, record: &Record) {
        let is_marked = record.by() == Some(OrderedBy::Drill);
        let in_drill = self.models[target].in_drill;
        let is_right = match record {
            Record::Failing { .. } | Record::Down { .. } | Record::Up { .. } | Record::HeldBack { .. } => {
                is_marked == in_drill
            }
            Record::Restart { .. } => is_marked == in_drill || !is_marked,
            _ => true,
        };
        self.require(is_right, "rule 17: each record says whether it is a drill's");
    }

    pub(in crate::policy::tests) fn processes_lost(&mut self, target: &str) {
        self.model(target).is_stopped = false;
    }
}

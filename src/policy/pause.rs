//! Begins and ends the operator's pauses of a target.
//! During a pause the target is probed, but it must never be restarted or notified about, and no incident opens.

use crate::policy::Record;
use crate::policy::drill::DrillInterruption;
use crate::policy::pauses::{Pauses, command_text};
use crate::policy::state::StartReason;
use crate::policy::target_context::TargetContext;
use crate::time::BootTime;

impl TargetContext<'_> {
    pub(super) fn is_paused(&self) -> bool {
        self.state.pauses.until().is_some()
    }

    pub(super) fn pause(&mut self, until: BootTime, command: Option<&str>) {
        self.state.pauses.begin(until, command);
        let last = self.state.pauses.until().unwrap_or(until);
        self.record(Record::Paused { until: last, command: command.and_then(command_text).map(str::to_owned) });
        self.cut_drill_short(DrillInterruption::Paused);
        self.cut_attempt_short();
    }

    pub(super) fn resume(&mut self, clear_waits: bool) {
        if clear_waits {
            self.clear_waits();
        }
        self.end_pauses(|pauses| *pauses = Pauses::default());
    }

    /// When the last pause ends, the streak is 0 and a start period begins.
    pub(super) fn end_pauses(&mut self, end: impl FnOnce(&mut Pauses)) {
        let before = self.state.pauses.until();
        end(&mut self.state.pauses);
        if let Some(until) = before
            && self.state.pauses.until().is_none()
        {
            self.state.excused_until = Some(self.context.now);
            self.end_streak();
            self.record(Record::Resumed { until });
            self.begin_start_period(StartReason::Pause);
        }
    }
}

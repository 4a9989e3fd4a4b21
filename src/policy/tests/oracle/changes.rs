//! Applies the contract's rules to changes from outside: starts, reboots, clocks that are set, reloads, pauses, ticks.
//! It must never use the policy's internals.

use super::{Model, Oracle, TickProgress};
use crate::policy::{Limits, Mode, Precondition};
use crate::time::{BootTime, millis};

const MINUTE: i64 = 60_000;
/// Six ticks give the five distances of the median.
const TICKS: usize = 6;

impl Oracle {
    /// Rule 9: failures that a new watchdog finds too old do not count.
    pub(in crate::policy::tests) fn started(&mut self, mode: Mode, at: i64) {
        self.note(at, format!("a watchdog starts: {mode:?}"));
        self.tick_gap = None;
        (self.ticks, self.ticks_missing) = self.saved_ticks.clone();
        if mode == Mode::Once {
            self.note_tick(at);
        }
        let max_age = self.tick_gap.map_or(0, |gap| 3 * gap).max(30 * MINUTE);
        let is_known = mode == Mode::Daemon || self.ticks_missing == 0;
        for model in self.models.values_mut() {
            model.tick = TickProgress::default();
            model.failures = model.failures.max(model.saved_failures);
            if is_known && at - model.failed_at > max_age {
                model.saved_failures = std::mem::take(&mut model.failures);
            }
        }
    }

    pub(in crate::policy::tests) fn state_saved(&mut self) {
        self.saved_ticks = (self.ticks.clone(), self.ticks_missing);
        self.models.values_mut().for_each(|model| model.saved_failures = 0);
    }

    /// The usual distance is the median of the last five; manual ticks (within 30 s of another) do not count.
    fn note_tick(&mut self, at: i64) {
        if self.ticks.last().is_none_or(|last| at - last >= 30_000) {
            self.ticks.push(at);
            self.ticks_missing = self.ticks_missing.saturating_sub(1);
        }
        let excess = self.ticks.len().saturating_sub(TICKS);
        self.ticks.drain(..excess);
        let mut gaps: Vec<i64> = self.ticks.windows(2).map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_unstable();
        self.tick_gap = gaps.get(gaps.len().saturating_sub(1) / 2).copied();
    }

    /// Section 6: a tick that must decide by itself does not end after a failed probe before the threshold.
    pub(in crate::policy::tests) fn tick_ends(&mut self, at: i64) {
        let Some(gap) = self.tick_gap.filter(|_| self.ticks_missing == 0) else { return };
        for (target, model) in &self.models {
            let limits = &self.limits[target];
            let (threshold, pace) = (limits.failure_threshold, millis(limits.retry_interval));
            let minutes = (gap + MINUTE / 2) / MINUTE;
            let is_rare = minutes * i64::from(threshold) > 15 && pace < gap;
            let TickProgress { failed, attempted, disturbed } = model.tick;
            let is_free = !attempted && !disturbed && !model.at_rest && model.pauses.is_empty();
            let decides = (is_rare || limits.retry_in_tick) && model.removed.is_none();
            if failed && is_free && decides {
                let promise = format!("{target}: a tick ends at {} of {threshold} failures at {at}", model.failures);
                self.require(model.failures >= threshold, &promise);
                let is_inspected = limits.preconditions.contains(&Precondition::Stopped);
                self.require(model.down.is_some() || is_inspected, "a tick that decides records `down`");
            }
        }
    }

    pub(in crate::policy::tests) fn rebooted(&mut self) {
        self.all_paused.retain(|(command, _)| command.is_none());
        for model in self.models.values_mut() {
            model.ended = None;
            (model.failures, model.saved_failures) = (0, 0);
            model.last_attempt = None;
            model.at_rest = false;
            (model.healthy_at, model.down_since) = (None, None);
            (model.process, model.start_period_granted) = (None, false);
            // No command survives a reboot.
            model.pauses.iter_mut().filter(|(command, _)| command.is_some()).for_each(|(_, until)| *until = i64::MIN);
        }
    }

    /// Where only the wall clock shows how much time has passed, `ahead` is its error in ms. Time that it shows in
    /// excess is taken to have passed; time that it lacks makes limits last longer. The usual distance between ticks is
    /// unknown for a while.
    pub(in crate::policy::tests) fn clock_corrected(&mut self, ahead: i64) {
        self.saved_ticks.1 = TICKS;
        for model in self.models.values_mut() {
            model.failed_at -= ahead;
            [&mut model.healthy_at, &mut model.down_since].into_iter().flatten().for_each(|at| *at -= ahead);
        }
        let ahead = ahead.max(0);
        self.all_paused.iter_mut().for_each(|(_, until)| *until = until.saturating_sub(ahead));
        for model in self.models.values_mut() {
            model.starts.iter_mut().for_each(|at| *at -= ahead);
            let points = [&mut model.last_reset, &mut model.removed];
            points.into_iter().flatten().for_each(|at| *at -= ahead);
            model.pauses.iter_mut().for_each(|(_, until)| *until = until.saturating_sub(ahead));
            model.notified.iter_mut().for_each(|(_, at)| *at -= ahead);
            model.ended.iter_mut().for_each(|(at, _)| *at -= ahead);
            model.counts_from = model.counts_from.saturating_sub(ahead);
        }
    }

    /// Rule 15: targets keep their state by name, for a day after their removal.
    pub(in crate::policy::tests) fn reloaded(&mut self, target: &str, limits: &Limits, at: i64) {
        let before = self.limits.insert(target.to_owned(), limits.clone()).unwrap_or_default();
        let probe_changed = before.probe_id != limits.probe_id;
        let repair_changed = before.repair_id != limits.repair_id;
        let dry_run_changed = before.dry_run != limits.dry_run;
        let changes = format!("probe {probe_changed}, repair {repair_changed}, dry run {dry_run_changed}");
        self.note(at, format!("{target}: reloaded; changed: {changes}"));
        if probe_changed {
            self.in_flight.remove(target);
        }
        let model = self.model(target);
        model.tick.disturbed = true;
        if probe_changed {
            (model.proven, model.unproven, model.failures) = (false, 0, 0);
        }
        if repair_changed {
            (model.reset_warranted, model.only_if_holds) = (false, false);
        }
        if dry_run_changed {
            // The failures and the start period of a dry run do not count in a real run, nor the other way round.
            (model.failures, model.counts_from) = (0, i64::MIN);
        }
        // The cooldown of a running attempt is the one that is configured at its end.
        if let (Some((_, cooldown)), Some(number)) = (&mut model.ended, model.last_attempt) {
            *cooldown = (*cooldown).min(cooldown_after(limits, number));
        }
    }

    pub(in crate::policy::tests) fn removed(&mut self, target: &str, at: i64) {
        self.note(at, format!("{target}: removed from the configuration"));
        self.model(target).removed = Some(at);
    }

    pub(in crate::policy::tests) fn released(&mut self, target: &str) {
        self.in_flight.remove(target);
    }

    /// `remembered`: the policy still has the target's state. `may_forget`: the state may never have been saved.
    pub(in crate::policy::tests) fn returned(&mut self, target: &str, (remembered, may_forget): (bool, bool), at: i64) {
        self.note(at, format!("{target}: returns to the configuration; remembered: {remembered}"));
        let absence = self.models[target].removed.map_or(0, |removed| at - removed);
        self.require(
            remembered || may_forget || absence >= 24 * 60 * MINUTE,
            "rule 15: a removed target is remembered for a day",
        );
        let model = self.model(target);
        model.removed = None;
        model.tick.disturbed = true;
        if !remembered {
            *model = Model::default();
        }
    }

    pub(in crate::policy::tests) fn paused(&mut self, target: &str, command: Option<&str>, until: i64, at: i64) {
        self.note(at, format!("{target}: paused until {until}, command {command:?}"));
        let model = self.model(target);
        model.tick.disturbed = true;
        model.pauses.retain(|(of, _)| command.is_none() || of.as_deref() != command);
        model.pauses.push((command.map(str::to_owned), until));
    }

    /// Pauses of all targets apply to a target that is added while they last.
    pub(in crate::policy::tests) fn inherit_pauses(&mut self, target: &str, at: i64) {
        let pauses = self.all_paused.iter().filter(|(_, until)| *until > at).cloned().collect();
        self.model(target).pauses = pauses;
    }

    pub(in crate::policy::tests) fn all_paused(&mut self, command: Option<&str>, until: i64) {
        self.all_paused.retain(|(of, _)| command.is_none() || of.as_deref() != command);
        self.all_paused.push((command.map(str::to_owned), until));
    }

    /// `command`: only its pauses end; `None`: all pauses end.
    pub(in crate::policy::tests) fn all_resumed(&mut self, command: Option<&str>) {
        self.all_paused.retain(|(of, _)| command.is_some() && of.as_deref() != command);
    }

    pub(in crate::policy::tests) fn pauses_ended(&mut self, target: &str, command: Option<&str>, at: i64) {
        self.note(at, format!("{target}: pauses end, command {command:?}"));
        let model = self.model(target);
        let ends = |of: &Option<String>| command.is_none() || of.as_deref() == command;
        model.pauses.iter_mut().filter(|(of, _)| ends(of)).for_each(|(_, until)| *until = (*until).min(at));
    }

    pub(in crate::policy::tests) fn waits_cleared(&mut self, target: &str) {
        let model = self.model(target);
        model.starts.clear();
        model.ended = None;
        model.unproven = 0;
        model.last_reset = None;
    }

    /// Rule 14: `paused` names the last end.
    pub(super) fn paused_is_said(&mut self, target: &str, until: BootTime) {
        let until = until.as_ms() + self.booted;
        let last = self.models[target].pauses.iter().map(|(_, until)| *until).max();
        // Pauses last longer if the clock was set back meanwhile.
        self.require(last.is_some_and(|last| last <= until), "rule 14: `paused` has the last end");
    }

    /// Rule 14: `resumed` is recorded once, when the last pause has ended.
    pub(super) fn resumed_is_said(&mut self, target: &str, at: i64) {
        let model = &self.models[target];
        let (is_paused, was_paused) = (model.is_paused(at), !model.pauses.is_empty());
        self.require(!is_paused, "rule 14: the last end counts");
        self.require(was_paused, "rule 14: `resumed` once");
        let start_period = millis(self.limits[target].start_period);
        let model = self.model(target);
        model.pauses.clear();
        model.failures = 0;
        model.counts_from = at + start_period;
        (model.broke_at, model.healthy_at) = (None, model.healthy_at.map(|healthy| healthy.max(at)));
    }

    pub(in crate::policy::tests) fn precondition_check_begins(&mut self, target: &str) {
        let present = self.limits[target].repair_id;
        self.model(target).precondition_checked_under = present;
    }

    pub(in crate::policy::tests) fn precondition_checked(
        &mut self,
        target: &str,
        precondition: Precondition,
        yes: bool,
    ) {
        let present = self.limits[target].repair_id;
        let model = self.model(target);
        if precondition == Precondition::OnlyIf {
            model.only_if_holds = yes && model.precondition_checked_under == present;
        }
    }

    pub(in crate::policy::tests) fn reset_check_begins(&mut self, target: &str) {
        let present = self.limits[target].repair_id;
        self.model(target).reset_checked_under = present;
    }
}

/// Rule 4.
pub(super) fn cooldown_after(limits: &Limits, attempt: u32) -> i64 {
    let doublings = (attempt as usize).saturating_sub(limits.rungs).min(40);
    millis(limits.cooldown).saturating_mul(1 << doublings).min(millis(limits.max_cooldown))
}

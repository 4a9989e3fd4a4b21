//! What is done to the watchdog from outside: starts and reboots, clocks that are set, reloads, pauses, ticks; and
//! what the contract makes of it.

use super::{InTick, Known, Oracle};
use crate::policy::{Limits, Mode, Precondition};
use crate::time::{BootTime, millis};

const MINUTE: i64 = 60_000;
/// Five distances of ticks.
const TICKS: usize = 6;

impl Oracle {
    /// Rule 9: what a new watchdog finds too old does not count.
    pub(in crate::policy::tests) fn started(&mut self, mode: Mode, at: i64) {
        self.note(at, format!("a watchdog starts: {mode:?}"));
        self.tick_gap = None;
        (self.ticks, self.ticks_missing) = self.ticks_kept.clone();
        if mode == Mode::Once {
            self.note_tick(at);
        }
        let holds = self.tick_gap.map_or(0, |gap| 3 * gap).max(30 * MINUTE);
        let is_known = mode == Mode::Daemon || self.ticks_missing == 0;
        for known in self.known.values_mut() {
            known.in_tick = InTick::default();
            known.failures = known.failures.max(known.failures_kept);
            if is_known && at - known.failed_at > holds {
                known.failures_kept = std::mem::take(&mut known.failures);
            }
        }
    }

    pub(in crate::policy::tests) fn kept(&mut self) {
        self.ticks_kept = (self.ticks.clone(), self.ticks_missing);
        self.known.values_mut().for_each(|known| known.failures_kept = 0);
    }

    /// Ticks come at their usual distance: the median of the last five, those by hand (within 30 s) left out.
    fn note_tick(&mut self, at: i64) {
        if self.ticks.last().is_none_or(|last| at - last >= 30_000) {
            self.ticks.push(at);
            self.ticks_missing = self.ticks_missing.saturating_sub(1);
        }
        let late = self.ticks.len().saturating_sub(TICKS);
        self.ticks.drain(..late);
        let mut gaps: Vec<i64> = self.ticks.windows(2).map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_unstable();
        self.tick_gap = gaps.get(gaps.len().saturating_sub(1) / 2).copied();
    }

    /// Section 6: a tick whose last probe failed has counted to the threshold, where it is to decide by itself.
    pub(in crate::policy::tests) fn tick_ends(&mut self, at: i64) {
        let Some(gap) = self.tick_gap.filter(|_| self.ticks_missing == 0) else { return };
        for (target, known) in &self.known {
            let limits = &self.limits[target];
            let (threshold, pace) = (limits.failure_threshold, millis(limits.retry_interval));
            let minutes = (gap + MINUTE / 2) / MINUTE;
            let is_rare = minutes * i64::from(threshold) > 15 && pace < gap;
            let InTick { failed, attempted, disturbed } = known.in_tick;
            let is_free = !attempted && !disturbed && !known.at_rest && known.pauses.is_empty();
            let decides = (is_rare || limits.retry_in_tick) && known.removed.is_none();
            if failed && is_free && decides {
                let promise = format!("{target}: a tick ends at {} of {threshold} failures at {at}", known.failures);
                self.demand(known.failures >= threshold, &promise);
                let is_asked = limits.preconditions.contains(&Precondition::Stopped);
                self.demand(known.down.is_some() || is_asked, "a tick that decides says that it is down");
            }
        }
    }

    pub(in crate::policy::tests) fn rebooted(&mut self) {
        self.all_paused.retain(|(command, _)| command.is_none());
        for known in self.known.values_mut() {
            known.ended = None;
            (known.failures, known.failures_kept) = (0, 0);
            known.last_attempt = None;
            known.at_rest = false;
            (known.well_at, known.down_since) = (None, None);
            (known.process, known.granted) = (None, false);
            // No command has outlived it.
            known.pauses.iter_mut().filter(|(command, _)| command.is_some()).for_each(|(_, until)| *until = i64::MIN);
        }
    }

    /// Where only the wall clock knows how long it was, what it shows too much is taken to have passed, and what it
    /// shows too little makes limits last longer; what is measured in ticks is not known for a while.
    pub(in crate::policy::tests) fn clock_is_trusted(&mut self, ahead: i64) {
        self.ticks_kept.1 = TICKS;
        for known in self.known.values_mut() {
            known.failed_at -= ahead;
            [&mut known.well_at, &mut known.down_since].into_iter().flatten().for_each(|at| *at -= ahead);
        }
        let ahead = ahead.max(0);
        self.all_paused.iter_mut().for_each(|(_, until)| *until = until.saturating_sub(ahead));
        for known in self.known.values_mut() {
            known.starts.iter_mut().for_each(|at| *at -= ahead);
            let points = [&mut known.last_reset, &mut known.removed];
            points.into_iter().flatten().for_each(|at| *at -= ahead);
            known.pauses.iter_mut().for_each(|(_, until)| *until = until.saturating_sub(ahead));
            known.told.iter_mut().for_each(|(_, at)| *at -= ahead);
            known.ended.iter_mut().for_each(|(at, _)| *at -= ahead);
            known.counts_from = known.counts_from.saturating_sub(ahead);
        }
    }

    /// Rule 15: targets keep their state by name, for a day after they left.
    pub(in crate::policy::tests) fn reloaded(&mut self, target: &str, limits: &Limits, at: i64) {
        let before = self.limits.insert(target.to_owned(), limits.clone()).unwrap_or_default();
        let (has_other_probe, has_other_way) =
            (before.probe_id != limits.probe_id, before.repair_id != limits.repair_id);
        let turns = before.dry_run != limits.dry_run;
        self.note(at, format!("{target} reloaded: probe {has_other_probe} ladder {has_other_way} dry run {turns}"));
        if has_other_probe {
            self.asked.remove(target);
        }
        let known = self.known(target);
        known.in_tick.disturbed = true;
        if has_other_probe {
            (known.proven, known.unproven, known.failures) = (false, 0, 0);
        }
        if has_other_way {
            (known.warranted, known.allowed) = (false, false);
        }
        if turns {
            // What a dry run counted says nothing, nor does its start period.
            (known.failures, known.counts_from) = (0, i64::MIN);
        }
        // An attempt that has not ended yet has the cooldown of whatever is configured then.
        if let (Some((_, cooldown)), Some(number)) = (&mut known.ended, known.last_attempt) {
            *cooldown = (*cooldown).min(cooldown_after(limits, number));
        }
    }

    pub(in crate::policy::tests) fn removed(&mut self, target: &str, at: i64) {
        self.note(at, format!("{target} leaves the configuration"));
        self.known(target).removed = Some(at);
    }

    pub(in crate::policy::tests) fn let_go(&mut self, target: &str) {
        self.asked.remove(target);
    }

    /// `remembered`: with what was known of it, which is kept for a day.
    pub(in crate::policy::tests) fn came_back(
        &mut self,
        target: &str,
        (remembered, may_forget): (bool, bool),
        at: i64,
    ) {
        self.note(at, format!("{target} comes back; remembered: {remembered}"));
        let gone = self.known[target].removed.map_or(0, |removed| at - removed);
        self.demand(
            remembered || may_forget || gone >= 24 * 60 * MINUTE,
            "rule 15: what is removed is remembered for a day",
        );
        let known = self.known(target);
        known.removed = None;
        known.in_tick.disturbed = true;
        if !remembered {
            *known = Known::default();
        }
    }

    pub(in crate::policy::tests) fn paused(&mut self, target: &str, command: Option<&str>, until: i64, at: i64) {
        self.note(at, format!("{target} paused until {until} by {command:?}"));
        let known = self.known(target);
        known.in_tick.disturbed = true;
        known.pauses.retain(|(of, _)| command.is_none() || of.as_deref() != command);
        known.pauses.push((command.map(str::to_owned), until));
    }

    /// The pauses of all are of one, too, that comes while they last.
    pub(in crate::policy::tests) fn paused_as_all(&mut self, target: &str, at: i64) {
        let pauses = self.all_paused.iter().filter(|(_, until)| *until > at).cloned().collect();
        self.known(target).pauses = pauses;
    }

    pub(in crate::policy::tests) fn all_paused(&mut self, command: Option<&str>, until: i64) {
        self.all_paused.retain(|(of, _)| command.is_none() || of.as_deref() != command);
        self.all_paused.push((command.map(str::to_owned), until));
    }

    /// The pauses of this command end, or all.
    pub(in crate::policy::tests) fn all_over(&mut self, command: Option<&str>) {
        self.all_paused.retain(|(of, _)| command.is_some() && of.as_deref() != command);
    }

    pub(in crate::policy::tests) fn pause_over(&mut self, target: &str, command: Option<&str>, at: i64) {
        self.note(at, format!("{target} not paused any more by {command:?}"));
        let known = self.known(target);
        let ends = |of: &Option<String>| command.is_none() || of.as_deref() == command;
        known.pauses.iter_mut().filter(|(of, _)| ends(of)).for_each(|(_, until)| *until = (*until).min(at));
    }

    pub(in crate::policy::tests) fn waits_cleared(&mut self, target: &str) {
        let known = self.known(target);
        known.starts.clear();
        known.ended = None;
        known.unproven = 0;
        known.last_reset = None;
    }

    /// Rule 14: `paused` names the last end.
    pub(super) fn paused_is_said(&mut self, target: &str, until: BootTime) {
        let until = until.as_ms() + self.booted;
        let last = self.known[target].pauses.iter().map(|(_, until)| *until).max();
        // Across a clock that was set back they last longer.
        self.demand(last.is_some_and(|last| last <= until), "rule 14: `paused` tells the last end");
    }

    /// Rule 14: once, when the last one has ended.
    pub(super) fn resumed_is_said(&mut self, target: &str, at: i64) {
        let known = &self.known[target];
        let (is_paused, was_paused) = (known.is_paused(at), !known.pauses.is_empty());
        self.demand(!is_paused, "rule 14: the last end holds");
        self.demand(was_paused, "rule 14: `resumed` once");
        let start_period = millis(self.limits[target].start_period);
        let known = self.known(target);
        known.pauses.clear();
        known.failures = 0;
        known.counts_from = at + start_period;
        (known.broken_at, known.well_at) = (None, known.well_at.map(|well| well.max(at)));
    }

    pub(in crate::policy::tests) fn gate_is_asked(&mut self, target: &str) {
        let present = self.limits[target].repair_id;
        self.known(target).asked_under = present;
    }

    pub(in crate::policy::tests) fn gate_answers(&mut self, target: &str, gate: Precondition, yes: bool) {
        let present = self.limits[target].repair_id;
        let known = self.known(target);
        if gate == Precondition::OnlyIf {
            known.allowed = yes && known.asked_under == present;
        }
    }

    pub(in crate::policy::tests) fn weighing_begins(&mut self, target: &str) {
        let present = self.limits[target].repair_id;
        self.known(target).weighed_under = present;
    }
}

/// Rule 4.
pub(super) fn cooldown_after(limits: &Limits, attempt: u32) -> i64 {
    let doublings = (attempt as usize).saturating_sub(limits.rungs).min(40);
    millis(limits.cooldown).saturating_mul(1 << doublings).min(millis(limits.max_cooldown))
}

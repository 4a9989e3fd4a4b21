//! What the policy records and tells, judged: each word at its time, once, and true.

use super::Oracle;
use super::changes::cooldown_after;
use crate::outcome::{Downtime, Exit};
use crate::policy::{Action, Limits, Notification, Precondition, Record};
use crate::time::millis;

impl Oracle {
    pub(in crate::policy::tests) fn learns(&mut self, action: &Action, at: i64) {
        match action {
            Action::Record { target, record } => self.recorded(target.as_deref(), record, at),
            Action::Notify { target, tell } => self.told(target, tell, at),
            _ => {}
        }
    }

    fn recorded(&mut self, target: Option<&str>, record: &Record, at: i64) {
        self.note(at, (target, record));
        let Some(target) = target else {
            self.known.values_mut().for_each(|known| (known.failures, known.broken_at) = (0, None));
            return;
        };
        match record {
            Record::Failing { .. } => {
                let down = self.known[target].down.is_some();
                self.demand(!down, "`failing` only outside an incident");
            }
            Record::Down { incident, .. } => self.goes_down(target, incident, at),
            Record::Up { incident, cured, down, .. } => {
                let since = self.known(target).down_since.take();
                // A watchdog that was killed before it could save its first success knows of none.
                let is_most = matches!(down, Downtime::AtMost(_));
                let is_true = since.is_none_or(|since| !is_most || millis(down.span()) >= at - since);
                self.demand(is_true, "rule 19: down time is counted from the last healthy probe");
                self.known(target).diagnosis = None;
                let open = self.known(target).down.take();
                self.demand(open.as_ref() == Some(incident), "`up` ends the open incident");
                self.cures += u64::from(*cured);
            }
            Record::Rested { incident, .. } => {
                let known = self.known(target);
                known.failures = 0;
                (known.diagnosis, known.told, known.broken_at) = (None, None, None);
                let (open, before) = (known.down.take(), std::mem::replace(&mut known.at_rest, true));
                self.demand(open == *incident, "`rested` names the incident that it ends");
                self.demand(!before, "4b: `rested` once");
            }
            Record::Woke { .. } => {
                let before = std::mem::take(&mut self.known(target).at_rest);
                let known = self.known(target);
                (known.broken_at, known.well_at) = (None, known.well_at.map(|well| well.max(at)));
                self.demand(before, "`woke` comes after `rested`");
            }
            Record::Restart { .. } => self.known(target).restart_recorded = true,
            Record::RestartDone { attempt, rung, ending, .. } => {
                self.command_done(target, (*attempt, *rung), ending, at)
            }
            Record::HeldBack { incident, .. } => {
                let open = self.known[target].down.clone();
                self.demand(open.as_ref() == Some(incident), "`held_back` belongs to the open incident");
            }
            Record::Paused { until } => self.paused_is_said(target, *until),
            Record::Resumed { .. } => self.resumed_is_said(target, at),
            Record::WouldRestart { .. } => {
                let known = self.known(target);
                known.failures = 0;
                known.in_tick.attempted = true;
            }
            Record::Warn { .. } | Record::Stalled { .. } => {}
        }
    }

    /// Section 8: each message belongs to what is the case, and `down` is told once and repeated after half an hour at
    /// the earliest.
    fn told(&mut self, target: &str, tell: &Notification, at: i64) {
        self.note(at, (target, tell));
        let known = &self.known[target];
        let quiet = !known.is_paused(at) && !self.limits[target].dry_run;
        let of_this = |incident: &String| known.told.as_ref().filter(|(told, _)| told == incident).map(|(_, at)| *at);
        let is_right = match tell {
            Notification::Healed(story) => {
                known.down.as_ref() == Some(&story.incident) && of_this(&story.incident).is_none()
            }
            Notification::Up(story) => {
                known.down.as_ref() == Some(&story.incident) && of_this(&story.incident).is_some()
            }
            Notification::Down { story, reminder, .. } => {
                let before = of_this(&story.incident);
                let is_time = before.is_none_or(|before| at - before >= 1_800_000);
                known.down.as_ref() == Some(&story.incident) && before.is_some() == reminder.is_some() && is_time
            }
            Notification::Warn { .. } | Notification::Folded { .. } | Notification::Calm { .. } => true,
        };
        self.demand(quiet && is_right, "a message says what is the case, once");
        if let Notification::Down { story, .. } = tell {
            self.known(target).told = Some((story.incident.clone(), at));
        }
    }

    fn goes_down(&mut self, target: &str, incident: &str, at: i64) {
        let threshold = self.limits[target].failure_threshold;
        let known = &self.known[target];
        self.demand(known.down.is_none(), "promise 7: no second `down`");
        self.demand(known.failures >= threshold, "`down` at the threshold, not before");
        self.demand(!known.at_rest, "4b: what is deliberately at rest is not down");
        self.demand(!known.is_paused(at), "rule 14: a pause opens no incident");
        self.demand(known.removed.is_none(), "rule 15: what left the configuration does not go down");
        self.demand(!self.seen_ids.contains(incident), "incident ids are unique");
        if let Some(broken_at) = known.broken_at {
            let Limits { interval, timeout, .. } = self.limits[target];
            // PM2 is asked before, which takes 20 s at most.
            let asked = if self.limits[target].preconditions.contains(&Precondition::Stopped) { 20_000 } else { 0 };
            let bound = millis((interval + timeout) * threshold) + asked;
            let promise = format!("promise 4: found after {} ms, {bound} allowed", at - broken_at);
            self.demand(at - broken_at <= bound, &promise);
        }
        self.seen_ids.insert(incident.to_string());
        let known = self.known(target);
        (known.down, known.down_since) = (Some(incident.to_string()), known.well_at);
    }

    fn command_done(&mut self, target: &str, (attempt, rung): (u32, usize), ending: &Exit, at: i64) {
        let limits = &self.limits[target];
        let (cooldown, start_period) = (cooldown_after(limits, attempt), millis(limits.start_period));
        let known = &self.known[target];
        let is_reset = known.attempt.as_ref().is_some_and(|made| made.rung == rung && made.resets);
        let recorded = self.known[target].restart_recorded;
        self.demand(recorded, "`restart_done` comes after its `restart`");
        let known = self.known(target);
        known.restart_recorded = false;
        known.command_runs = false;
        known.failures = 0;
        known.counts_from = at + start_period;
        match ending {
            Exit::Lost => known.resets_first |= is_reset,
            Exit::NotStarted(_) => {}
            Exit::Exited(_) | Exit::Killed(_) | Exit::TimedOut if is_reset => known.last_reset = Some(at),
            Exit::Exited(_) | Exit::Killed(_) | Exit::TimedOut => {}
        }
        if !matches!(ending, Exit::NotStarted(_)) {
            known.ended = Some((at, cooldown));
        }
        if known.removed.is_some() {
            // What the configuration does not have is brought to its end, by limits that nobody has written.
            (known.ended, known.counts_from) = (None, at);
        }
    }
}

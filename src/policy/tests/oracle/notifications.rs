//! Checks the policy's records and notifications: each is true, and made once, at its time.
//! It must never use the policy's internals.

use super::Oracle;
use super::changes::cooldown_after;
use crate::outcome::{Downtime, Exit};
use crate::policy::{Action, Limits, Notification, OrderedBy, Precondition, Record, WarningKind};
use crate::time::millis;

impl Oracle {
    pub(in crate::policy::tests) fn observe(&mut self, action: &Action, at: i64) {
        match action {
            Action::Record { target, record } => self.observe_record(target.as_deref(), record, at),
            Action::Notify { target, notification } => self.observe_notification(target, notification, at),
            _ => {}
        }
    }

    fn observe_record(&mut self, target: Option<&str>, record: &Record, at: i64) {
        self.note(at, (target, record));
        let Some(target) = target else {
            self.models.values_mut().for_each(|model| (model.failures, model.broke_at) = (0, None));
            return;
        };
        self.check_drill_mark(target, record);
        match record {
            Record::Failing { .. } => {
                let down = self.models[target].down.is_some();
                self.require(!down, "`failing` only outside an incident");
            }
            Record::Down { incident, .. } => self.goes_down(target, incident, at),
            Record::DrillBegan { .. } => self.drill_begins(target, at),
            Record::DrillEnded { incident, .. } => self.drill_ends(target, incident.as_ref(), at),
            Record::Up { incident, cured, down, .. } => {
                let since = self.model(target).down_since.take();
                // A watchdog killed before it could save the first success does not know of it, and reports "at least".
                let is_upper_bound = matches!(down, Downtime::AtMost(_));
                let is_true = since.is_none_or(|since| !is_upper_bound || millis(down.duration()) >= at - since);
                self.require(is_true, "rule 19: down time is counted from the last healthy probe");
                self.model(target).diagnosis = None;
                let open = self.model(target).down.take();
                self.require(open.as_ref() == Some(incident), "`up` ends the open incident");
                self.cures += u64::from(*cured);
            }
            Record::Rested { incident, .. } => {
                let model = self.model(target);
                model.failures = 0;
                (model.diagnosis, model.notified, model.broke_at) = (None, None, None);
                let (open, before) = (model.down.take(), std::mem::replace(&mut model.at_rest, true));
                self.require(open == *incident, "`rested` names the incident that it ends");
                self.require(!before, "4b: `rested` once");
            }
            Record::Woke { .. } => {
                let before = std::mem::take(&mut self.model(target).at_rest);
                let model = self.model(target);
                (model.broke_at, model.healthy_at) = (None, model.healthy_at.map(|healthy| healthy.max(at)));
                self.require(before, "`woke` comes after `rested`");
            }
            Record::Restart { rung, by, incident, .. } => {
                let resets = self.limits[target].reset == Some(*rung);
                let model = self.model(target);
                let is_ordered = *by == Some(OrderedBy::Operator);
                (model.restart_recorded, model.resets, model.is_ordered) = (true, resets, is_ordered);
                let is_allowed = !is_ordered || !model.orders.is_empty() || model.attempt.is_some();
                self.require(is_allowed, "a restart is called the operator's only if it was ordered");
                self.require(by.is_some() || incident.is_some(), "an attempt without an incident was ordered");
            }
            Record::RestartDone { attempt, exit, .. } => self.command_ended(target, *attempt, exit, at),
            Record::HeldBack { incident, .. } => {
                let open = self.models[target].down.clone();
                self.require(open.as_ref() == Some(incident), "`held_back` belongs to the open incident");
            }
            Record::Paused { until, .. } => self.paused_is_said(target, *until),
            Record::Resumed { .. } => self.resumed_is_said(target, at),
            Record::WouldRestart { .. } => {
                let model = self.model(target);
                model.failures = 0;
                model.tick.attempted = true;
            }
            Record::Warn { about, .. } => self.check_warning(target, *about, at),
            Record::Stalled { .. } => {}
        }
    }

    fn check_warning(&self, target: &str, about: WarningKind, at: i64) {
        let model = &self.models[target];
        match about {
            WarningKind::Slow => {
                let is_slow = model.slow_probes >= self.limits[target].failure_threshold;
                self.require(is_slow, "`slow` after failure_threshold slow probes in a row");
            }
            WarningKind::Unsteady => {
                self.require(model.down.is_none(), "`unsteady` outside incidents only");
                let is_recent = model.lone_failures.front().is_some_and(|first| at - first < 3_600_000);
                // Where only the wall clock shows how much time has passed, it may show too little.
                let are_enough = model.lone_failures.len() >= 10 && (is_recent || self.ticks_missing > 0);
                self.require(are_enough, "`unsteady` after ten failures in an hour");
            }
            _ => {}
        }
    }

    /// Section 8: each message matches the state of the target, and `down` is sent once, with reminders at least half
    /// an hour apart.
    fn observe_notification(&mut self, target: &str, notification: &Notification, at: i64) {
        self.note(at, (target, notification));
        let model = &self.models[target];
        let is_allowed = !model.is_paused(at) && !self.limits[target].dry_run;
        let notified_at =
            |incident: &String| model.notified.as_ref().filter(|(notified, _)| notified == incident).map(|(_, at)| *at);
        let is_right = match notification {
            Notification::Healed(summary) => {
                model.down.as_ref() == Some(&summary.incident) && notified_at(&summary.incident).is_none()
            }
            Notification::Up(summary) => {
                model.down.as_ref() == Some(&summary.incident) && notified_at(&summary.incident).is_some()
            }
            Notification::Down { summary, reminder, .. } => {
                let before = notified_at(&summary.incident);
                let is_time = before.is_none_or(|before| at - before >= 1_800_000);
                model.down.as_ref() == Some(&summary.incident) && before.is_some() == reminder.is_some() && is_time
            }
            Notification::Warn { .. } | Notification::Folded { .. } | Notification::Calm { .. } => true,
        };
        let is_drill = model.in_drill && !matches!(notification, Notification::Warn { .. } | Notification::Calm { .. });
        self.require(!is_drill, "rule 17: a drill sends no message");
        self.require(is_allowed && is_right, "a message matches the state of the target, and is sent once");
        if let Notification::Down { summary, .. } = notification {
            self.model(target).notified = Some((summary.incident.clone(), at));
        }
    }

    fn goes_down(&mut self, target: &str, incident: &str, at: i64) {
        let threshold = self.limits[target].failure_threshold;
        let model = &self.models[target];
        self.require(model.down.is_none(), "promise 7: no second `down`");
        self.require(model.failures >= threshold, "`down` at the threshold, not before");
        self.require(!model.at_rest, "4b: a target that is deliberately at rest is not down");
        self.require(!model.is_paused(at), "rule 14: a pause opens no incident");
        self.require(model.removed.is_none(), "rule 15: a removed target does not go down");
        self.require(!self.seen_ids.contains(incident), "incident ids are unique");
        if let Some(broke_at) = model.broke_at {
            let Limits { interval, timeout, .. } = self.limits[target];
            // PM2 is inspected first, which takes at most 20 s in this world.
            let inspection =
                if self.limits[target].preconditions.contains(&Precondition::Stopped) { 20_000 } else { 0 };
            let bound = millis((interval + timeout) * threshold) + inspection;
            let promise = format!("promise 4: found after {} ms, {bound} allowed", at - broke_at);
            self.require(at - broke_at <= bound, &promise);
        }
        self.seen_ids.insert(incident.to_string());
        let model = self.model(target);
        model.lone_failures.clear();
        (model.down, model.down_since) = (Some(incident.to_string()), model.healthy_at);
    }

    fn command_ended(&mut self, target: &str, attempt: u32, exit: &Exit, at: i64) {
        let limits = &self.limits[target];
        let (cooldown, start_period) = (cooldown_after(limits, attempt), millis(limits.start_period));
        let model = &self.models[target];
        let (recorded, is_reset) = (model.restart_recorded, model.resets);
        self.require(recorded, "`restart_done` comes after its `restart`");
        let model = self.model(target);
        model.restart_recorded = false;
        model.command_runs = false;
        model.failures = 0;
        model.counts_from = at + start_period;
        match exit {
            Exit::Lost => model.reset_comes_first |= is_reset,
            Exit::NotStarted(_) => {}
            Exit::Exited(_) | Exit::Killed(_) | Exit::TimedOut if is_reset => model.last_reset = Some(at),
            Exit::Exited(_) | Exit::Killed(_) | Exit::TimedOut => {}
        }
        if !matches!(exit, Exit::NotStarted(_)) {
            model.ended = Some((at, cooldown));
        }
        if model.removed.is_some() {
            // An attempt at a removed target ends under default limits, so its cooldown and start period are unknown.
            (model.ended, model.counts_from) = (None, at);
        }
    }
}

//! Decides when to send notifications about a target.
//! It must never stay silent while a target is down, and never send one message per flap.

use std::time::Duration;

use crate::policy::Action;
use crate::policy::notification::{IncidentSummary, Notification};
use crate::policy::notification_state::{DownNotification, Flapping};
use crate::policy::state::{Incident, TargetState};
use crate::policy::target_context::TargetContext;
use crate::policy::terms::{HoldReason, WarningKind};
use crate::time::BootTime;

/// `down` is sent no sooner than this if the reason to wait may soon be over.
const SHORT_WAIT: Duration = Duration::from_secs(60);
/// The contract's section 8: a `down` that lasts longer than this is always sent, even if a restart may still help.
const DOWN_TOO_LONG: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3_600);
/// The contract's section 8: hours from the first message to its reminders, which are daily after the last of these.
const REMINDER_HOURS: [u32; 6] = [1, 2, 4, 8, 16, 24];

impl TargetContext<'_> {
    /// Pauses and dry runs send no notifications.
    fn notify(&mut self, notification: Notification) {
        if !self.is_paused() && !self.limits.dry_run {
            self.actions.push(Action::Notify { target: self.name.to_string(), notification });
        }
    }

    /// After a warning about flapping, incidents are folded into it.
    pub(super) fn notify_warning(&mut self, kind: WarningKind, detail: &str) {
        if kind == WarningKind::Flapping {
            self.state.notifications.flapping = Some(Flapping { since: self.context.now, folded: 0 });
        }
        self.notify(Notification::Warn { about: kind, detail: detail.to_owned() });
    }

    pub(super) fn notify_calm(&mut self) {
        if let Some(Flapping { since, folded }) = self.state.notifications.flapping.take() {
            self.notify(Notification::Calm { since, folded });
        }
    }

    pub(super) fn notify_incident_end(&mut self, incident: &Incident, cured: bool) {
        let summary = IncidentSummary { failure: incident.cause.clone(), ..summarize(incident, cured) };
        let was_notified = self.state.notifications.down.take().is_some_and(|down| down.incident == incident.id);
        match &mut self.state.notifications.flapping {
            _ if was_notified => self.notify(Notification::Up(summary)),
            Some(Flapping { since, folded }) => {
                *folded = folded.saturating_add(1);
                let notification = Notification::Folded { since: *since, folded: *folded };
                self.notify(notification);
            }
            None if cured => self.notify(Notification::Healed(summary)),
            None => {}
        }
    }

    /// Sends `down` once a restart has not helped or cannot be made, and later its reminders.
    pub(super) fn notify_down(&mut self) {
        let now = self.context.now;
        if self.context.stopping || self.schedule.retired || self.is_paused() || self.limits.dry_run {
            return;
        }
        if self.state.is_in_drill() {
            return;
        }
        let Some(incident) = &self.state.incident else { return };
        let (id, summary) = (incident.id.clone(), summarize(incident, false));
        let sent = self.state.notifications.down.as_ref().filter(|down| down.incident == id);
        let (at, reminder) = match sent {
            None if self.should_notify_down(incident) => (now, None),
            Some(down) if self.has_failed_since(down.next) => {
                (down.at, Some(now.since(down.at).as_secs() / HOUR.as_secs()))
            }
            None | Some(_) => return,
        };
        self.state.notifications.down = Some(DownNotification { incident: id, at, next: next_reminder(at, now) });
        let waiting = self.state.waiting;
        self.notify(Notification::Down { summary, waiting, reminder });
        self.actions.push(Action::Save);
    }

    fn should_notify_down(&self, incident: &Incident) -> bool {
        let duration = self.context.now.since(incident.down_at);
        if duration >= DOWN_TOO_LONG {
            return true;
        }
        if self.state.notifications.flapping.is_some() {
            return false;
        }
        if self.limits.rungs == 0 {
            return true;
        }
        // Only a recorded reason counts: the probe in flight may show that another one no longer holds.
        let waiting = self.state.waiting.filter(|waiting| incident.held == Some(waiting.why));
        let forbids = match waiting.map(|waiting| (waiting.why, waiting.until)) {
            Some((
                HoldReason::NeverHealthy
                | HoldReason::RestartOn
                | HoldReason::Limit
                | HoldReason::Stopped
                | HoldReason::OnlyIf,
                _,
            )) => true,
            // The state cannot be saved. The end is unknown, and the next tick will not know when the incident began.
            Some((HoldReason::Cooldown, None)) => true,
            Some((HoldReason::Cooldown | HoldReason::DependsOn | HoldReason::Busy, _)) => duration >= SHORT_WAIT,
            Some((HoldReason::Paused, _)) | None => false,
        };
        forbids || self.has_attempt_failed(incident)
    }

    /// An attempt was made, its start period is over, and a later probe has failed.
    fn has_attempt_failed(&self, incident: &Incident) -> bool {
        incident.attempts > 0
            && self.state.attempt.is_none()
            && self.state.real.last_end.is_some_and(|at| self.has_failed_since(at))
    }

    fn has_failed_since(&self, at: BootTime) -> bool {
        let failed = self.state.last_probe.as_ref().filter(|probe| probe.verdict.class().is_some());
        self.state.start_period.is_none() && failed.is_some_and(|probe| probe.at > at)
    }
}

pub(super) fn notification_times(state: &TargetState) -> impl Iterator<Item = BootTime> {
    let is_notified = |id: &str| state.notifications.down.as_ref().is_some_and(|down| down.incident == id);
    let pending = state.incident.as_ref().filter(|incident| !is_notified(&incident.id));
    pending.into_iter().flat_map(|incident| [incident.down_at + SHORT_WAIT, incident.down_at + DOWN_TOO_LONG])
}

fn summarize(incident: &Incident, cured: bool) -> IncidentSummary {
    let Incident { id, began, down_since, attempts, tried, last, .. } = incident.clone();
    IncidentSummary { incident: id, began, down_since, attempts, cured, tried, failure: last }
}

/// The time of the next reminder of a message sent at `at`. A reminder due within half an hour is skipped, since it
/// would directly follow one that was late.
fn next_reminder(at: BootTime, now: BootTime) -> BootTime {
    let soon = now + HOUR / 2;
    let hours = u32::try_from(soon.since(at).as_secs() / HOUR.as_secs()).unwrap_or(u32::MAX);
    let early = REMINDER_HOURS.into_iter().find(|after| *after > hours);
    at + HOUR * early.unwrap_or((hours / 24).saturating_add(1).saturating_mul(24))
}

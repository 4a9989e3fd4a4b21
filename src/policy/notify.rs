//! When people are told of a target.
//! It must never be silent while something is down, and never tell each of many flaps.

use std::time::Duration;

use crate::policy::Action;
use crate::policy::notification::{IncidentSummary, Notification};
use crate::policy::notification_state::{DownNotification, Flapping};
use crate::policy::state::{Incident, TargetState};
use crate::policy::target_context::TargetContext;
use crate::policy::words::{HoldReason, WarningKind};
use crate::time::BootTime;

/// A wait that may be over soon is told only after this long.
const SHORT_WAIT: Duration = Duration::from_secs(60);
/// What is down for so long is told in any case, whatever may still come of a restart.
const LONG: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3_600);
/// Hours after the message at which it is repeated; then daily.
const REMINDED_AFTER: [u32; 6] = [1, 2, 4, 8, 16, 24];

impl TargetContext<'_> {
    /// Nothing is told of what the operator wants hands off, and nothing in a dry run.
    fn notify(&mut self, tell: Notification) {
        if !self.is_paused() && !self.limits.dry_run {
            self.actions.push(Action::Notify { target: self.name.to_string(), tell });
        }
    }

    /// Tells of a warning; from one about flapping on, incidents are folded into it.
    pub(super) fn notify_warning(&mut self, about: WarningKind, detail: &str) {
        if about == WarningKind::Flapping {
            self.state.notifications.flapping = Some(Flapping { since: self.context.now, folded: 0 });
        }
        self.notify(Notification::Warn { about, detail: detail.to_owned() });
    }

    pub(super) fn notify_calm(&mut self) {
        if let Some(Flapping { since, folded }) = self.state.notifications.flapping.take() {
            self.notify(Notification::Calm { since, folded });
        }
    }

    pub(super) fn notify_incident_end(&mut self, incident: &Incident, cured: bool) {
        let story = IncidentSummary { seen: incident.cause.clone(), ..summarize(incident, cured) };
        let was_told = self.state.notifications.down.take().is_some_and(|down| down.incident == incident.id);
        match &mut self.state.notifications.flapping {
            _ if was_told => self.notify(Notification::Up(story)),
            Some(Flapping { since, folded }) => {
                *folded = folded.saturating_add(1);
                let tell = Notification::Folded { since: *since, folded: *folded };
                self.notify(tell);
            }
            None if cured => self.notify(Notification::Healed(story)),
            None => {}
        }
    }

    /// Tells that it is down as soon as a restart has not helped or cannot be made, and reminds of it.
    pub(super) fn notify_down(&mut self) {
        let now = self.context.now;
        if self.context.stopping || self.schedule.retired || self.is_paused() || self.limits.dry_run {
            return;
        }
        let Some(incident) = &self.state.incident else { return };
        let (id, story) = (incident.id.clone(), summarize(incident, false));
        let told = self.state.notifications.down.as_ref().filter(|down| down.incident == id);
        let (at, reminder) = match told {
            None if self.is_worth_notifying(incident) => (now, None),
            Some(down) if self.fails_since(down.next) => (down.at, Some(now.since(down.at).as_secs() / HOUR.as_secs())),
            None | Some(_) => return,
        };
        self.state.notifications.down = Some(DownNotification { incident: id, at, next: next_reminder(at, now) });
        let waiting = self.state.waiting;
        self.notify(Notification::Down { story, waiting, reminder });
        self.actions.push(Action::Save);
    }

    fn is_worth_notifying(&self, incident: &Incident) -> bool {
        let lasts = self.context.now.since(incident.down_at);
        if lasts >= LONG {
            return true;
        }
        if self.state.notifications.flapping.is_some() {
            return false;
        }
        if self.limits.rungs == 0 {
            return true;
        }
        // Told only once it is recorded, too: what seems to forbid an attempt may be over with the look that is made.
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
            // Nothing can be saved: nobody knows until when, and the next tick will not know since when.
            Some((HoldReason::Cooldown, None)) => true,
            Some((HoldReason::Cooldown | HoldReason::DependsOn | HoldReason::Busy, _)) => lasts >= SHORT_WAIT,
            Some((HoldReason::Paused, _)) | None => false,
        };
        forbids || self.has_not_helped(incident)
    }

    /// An attempt was made, its start period is over, and a look after it has failed.
    fn has_not_helped(&self, incident: &Incident) -> bool {
        incident.attempts > 0
            && self.state.attempt.is_none()
            && self.state.real.last_end.is_some_and(|at| self.fails_since(at))
    }

    fn fails_since(&self, at: BootTime) -> bool {
        let failed = self.state.last_probe.as_ref().filter(|look| look.verdict.class().is_some());
        self.state.start_period.is_none() && failed.is_some_and(|look| look.at > at)
    }
}

pub(super) fn due_at(state: &TargetState) -> impl Iterator<Item = BootTime> {
    let is_told = |id: &str| state.notifications.down.as_ref().is_some_and(|down| down.incident == id);
    let untold = state.incident.as_ref().filter(|incident| !is_told(&incident.id));
    untold.into_iter().flat_map(|incident| [incident.down_at + SHORT_WAIT, incident.down_at + LONG])
}

fn summarize(incident: &Incident, cured: bool) -> IncidentSummary {
    let Incident { id, began, down_since, attempts, tried, last, .. } = incident.clone();
    IncidentSummary { incident: id, began, down_since, attempts, cured, tried, seen: last }
}

/// The next point at which people are reminded of what they were told at `at`; one that comes at once after a reminder
/// that was late is passed over.
fn next_reminder(at: BootTime, now: BootTime) -> BootTime {
    let soon = now + HOUR / 2;
    let hours = u32::try_from(soon.since(at).as_secs() / HOUR.as_secs()).unwrap_or(u32::MAX);
    let early = REMINDED_AFTER.into_iter().find(|after| *after > hours);
    at + HOUR * early.unwrap_or((hours / 24).saturating_add(1).saturating_mul(24))
}

//! What people are told of a target, and when: the contract's four messages.
//! It must never be silent while something is down, and never tell each of many flaps.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::{Class, Downtime};
use crate::policy::Action;
use crate::policy::case::Case;
use crate::policy::state::{Incident, TargetState, Tried, Waiting};
use crate::policy::words::{About, Why};
use crate::time::Timestamp;

/// A wait that may be over soon is told only after this long.
const SHORT_WAIT: Duration = Duration::from_secs(60);
/// What is down for so long is told in any case, whatever may still come of a restart.
const LONG: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3_600);
/// Hours after the message at which it is repeated; then daily.
const REMINDED_AFTER: [u32; 6] = [1, 2, 4, 8, 16, 24];

/// One thing to tell.
#[derive(Clone, Debug, PartialEq)]
pub enum Tell {
    /// It was down, and a restart has cured it: told after the fact.
    Healed(Story),
    /// It is down, and no restart has helped or may be made.
    Down {
        /// How things stand.
        story: Story,
        /// Why no attempt is made now, as far as something forbids it, and until when.
        waiting: Option<Waiting>,
        /// The hours since the first message, where this is a reminder.
        reminder: Option<u64>,
    },
    /// It is healthy again after a message that it is down.
    Up(Story),
    /// Something that needs a person some day.
    Warn {
        /// What it is about.
        about: About,
        /// What was found, in words.
        detail: String,
    },
    /// An incident has ended of which nothing is told one by one: news only for those who were never told that it goes
    /// down again and again, since they came later or nothing was told then.
    Folded {
        /// Since when it does.
        since: Timestamp,
        /// The incidents since then of which nothing was told, this one among them.
        folded: u32,
    },
    /// It does not go down again and again any more.
    Calm {
        /// Since when it did.
        since: Timestamp,
        /// The incidents since then of which nothing was told.
        folded: u32,
    },
}

/// How an incident stands or stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// Its name.
    pub incident: String,
    /// The first failure.
    pub began: Timestamp,
    /// Since when it counts as down; `None` where it was never seen healthy.
    pub down_since: Option<Timestamp>,
    /// Attempts made in it.
    pub attempts: u32,
    /// A restart has ended it, as far as that can be said.
    pub cured: bool,
    /// The latest restart command.
    pub tried: Option<Tried>,
    /// What was found: while it is down, by the latest look; once it is over, by the one that it went down with.
    pub seen: Option<(Class, String)>,
}

impl Story {
    /// How long it lasts until `now`.
    pub fn downtime(&self, now: Timestamp) -> Downtime {
        Downtime::between(self.down_since, self.began, now)
    }
}

/// What was told of one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    /// That it is down.
    pub down: Option<ToldDown>,
    /// That it goes down again and again.
    pub flapping: Option<Flapping>,
}

/// The message that a target is down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToldDown {
    /// In this incident.
    pub incident: String,
    /// When it was told.
    pub at: Timestamp,
    /// When people are to be reminded.
    pub next: Timestamp,
}

/// The warning that a target goes down again and again: incidents are folded into it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flapping {
    /// When it was told.
    pub since: Timestamp,
    /// Incidents that ended since then and were not told.
    pub folded: u32,
}

impl Told {
    /// Moves every point in time by `ms`.
    pub(super) fn shift(&mut self, ms: i64) {
        if let Some(down) = &mut self.down {
            down.at = down.at.shifted(ms);
            down.next = down.next.shifted(ms);
        }
        if let Some(flapping) = &mut self.flapping {
            flapping.since = flapping.since.shifted(ms);
        }
    }
}

impl Case<'_> {
    /// Nothing is told of what the operator wants hands off, and nothing in a dry run.
    fn tell(&mut self, tell: Tell) {
        if !self.is_paused() && !self.limits.dry_run {
            self.actions.push(Action::Tell { target: self.name.to_string(), tell });
        }
    }

    /// Tells of a warning; from one about flapping on, incidents are folded into it.
    pub(super) fn tell_warning(&mut self, about: About, detail: &str) {
        if about == About::Flapping {
            self.state.told.flapping = Some(Flapping { since: self.setting.now, folded: 0 });
        }
        self.tell(Tell::Warn { about, detail: detail.to_owned() });
    }

    /// It does not flap any more.
    pub(super) fn tell_calm(&mut self) {
        if let Some(Flapping { since, folded }) = self.state.told.flapping.take() {
            self.tell(Tell::Calm { since, folded });
        }
    }

    /// An incident has ended well.
    pub(super) fn tell_end(&mut self, incident: &Incident, cured: bool) {
        let story = Story { seen: incident.cause.clone(), ..story(incident, cured) };
        let was_told = self.state.told.down.take().is_some_and(|down| down.incident == incident.id);
        match &mut self.state.told.flapping {
            _ if was_told => self.tell(Tell::Up(story)),
            Some(Flapping { since, folded }) => {
                *folded = folded.saturating_add(1);
                let tell = Tell::Folded { since: *since, folded: *folded };
                self.tell(tell);
            }
            None if cured => self.tell(Tell::Healed(story)),
            None => {}
        }
    }

    /// Tells that it is down as soon as a restart has not helped or cannot be made, and reminds of it.
    pub(super) fn tell_trouble(&mut self) {
        let now = self.setting.now;
        if self.setting.stopping || self.plan.retired || self.is_paused() || self.limits.dry_run {
            return;
        }
        let Some(incident) = &self.state.incident else { return };
        let (id, story) = (incident.id.clone(), story(incident, false));
        let told = self.state.told.down.as_ref().filter(|down| down.incident == id);
        let (at, reminder) = match told {
            None if self.is_worth_telling(incident) => (now, None),
            Some(down) if self.fails_since(down.next) => (down.at, Some(now.since(down.at).as_secs() / HOUR.as_secs())),
            None | Some(_) => return,
        };
        self.state.told.down = Some(ToldDown { incident: id, at, next: next_reminder(at, now) });
        let waiting = self.state.waiting;
        self.tell(Tell::Down { story, waiting, reminder });
        self.actions.push(Action::Save);
    }

    fn is_worth_telling(&self, incident: &Incident) -> bool {
        let lasts = self.setting.now.since(incident.down_at);
        if lasts >= LONG {
            return true;
        }
        if self.state.told.flapping.is_some() {
            return false;
        }
        if self.limits.rungs == 0 {
            return true;
        }
        // Told only once it is recorded, too: what seems to forbid an attempt may be over with the look that is made.
        let waiting = self.state.waiting.filter(|waiting| incident.held == Some(waiting.why));
        let forbids = match waiting.map(|waiting| (waiting.why, waiting.until)) {
            Some((Why::NeverHealthy | Why::RestartOn | Why::Limit | Why::Stopped | Why::OnlyIf, _)) => true,
            // Nothing can be saved: nobody knows until when, and the next tick will not know since when.
            Some((Why::Cooldown, None)) => true,
            Some((Why::Cooldown | Why::DependsOn | Why::Busy, _)) => lasts >= SHORT_WAIT,
            Some((Why::Paused, _)) | None => false,
        };
        forbids || self.has_not_helped(incident)
    }

    /// An attempt was made, its start period is over, and a look after it has failed.
    fn has_not_helped(&self, incident: &Incident) -> bool {
        incident.attempts > 0
            && self.state.attempt.is_none()
            && self.state.real.last_end.is_some_and(|at| self.fails_since(at))
    }

    /// The latest look was made after `at`, has failed, and counts.
    fn fails_since(&self, at: Timestamp) -> bool {
        let failed = self.state.last_look.as_ref().filter(|look| look.verdict.class().is_some());
        self.state.start_period.is_none() && failed.is_some_and(|look| look.at > at)
    }
}

/// When an incident that goes on becomes worth telling by that alone.
pub(super) fn due_at(state: &TargetState) -> impl Iterator<Item = Timestamp> {
    let is_told = |id: &str| state.told.down.as_ref().is_some_and(|down| down.incident == id);
    let untold = state.incident.as_ref().filter(|incident| !is_told(&incident.id));
    untold.into_iter().flat_map(|incident| [incident.down_at + SHORT_WAIT, incident.down_at + LONG])
}

fn story(incident: &Incident, cured: bool) -> Story {
    let Incident { id, began, down_since, attempts, tried, last, .. } = incident.clone();
    Story { incident: id, began, down_since, attempts, cured, tried, seen: last }
}

/// The next point at which people are reminded of what they were told at `at`; one that comes at once after a reminder
/// that was late is passed over.
fn next_reminder(at: Timestamp, now: Timestamp) -> Timestamp {
    let soon = now + HOUR / 2;
    let hours = u32::try_from(soon.since(at).as_secs() / HOUR.as_secs()).unwrap_or(u32::MAX);
    let early = REMINDED_AFTER.into_iter().find(|after| *after > hours);
    at + HOUR * early.unwrap_or((hours / 24).saturating_add(1).saturating_mul(24))
}

//! Messages to people: written down with the state, then delivered one after another on each channel by threads that
//! may take their time. A tick waits for them, but not for long.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock;
use crate::config::{Channel, Config};
use crate::notify::{self, Given, Means, Outcome};
use crate::policy::{Story, Tell};
use crate::store::events::Kind;
use crate::store::past;
use crate::time::{Timestamp, Wall, millis};
use crate::view::letter::{self, Facts, topic};
use crate::view::pattern::{LATELY, again};

use super::jobs::{Message, spawn};
use super::{Agent, Mode};

/// A tick sends for this long.
const TICK_SENDS_FOR: Duration = Duration::from_secs(10);
/// A ping is sent no more often than this.
const PING_EVERY: Duration = Duration::from_secs(60);

/// What is on its way.
#[derive(Default)]
pub(super) struct Messenger {
    host: String,
    /// By channel: the message that is being delivered.
    under_way: BTreeMap<String, String>,
    /// When this tick began to send.
    sending_since: Option<Timestamp>,
    /// Messages written in this run; makes their ids differ.
    written: u32,
    heartbeat: Heartbeat,
}

#[derive(Default)]
struct Heartbeat {
    /// A look has ended since the last ping.
    is_due: bool,
    is_under_way: bool,
    last: Option<Timestamp>,
    trouble: Option<String>,
}

impl Messenger {
    pub(super) fn new() -> Messenger {
        Messenger { host: notify::host(), ..Messenger::default() }
    }

    /// The machine.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// A look has ended: the work goes on.
    pub(super) fn note_work(&mut self) {
        self.heartbeat.is_due = true;
    }
}

impl Agent {
    /// Writes a message down. It is saved with the state that says it was told.
    pub(super) fn write_down(&mut self, target: &str, tell: &Tell, now: (Timestamp, Wall)) {
        if self.config.notify.is_empty() {
            return;
        }
        let (about, detail, story) = match tell {
            Tell::Healed(story) | Tell::Up(story) | Tell::Down { story, .. } => (None, None, Some(story)),
            Tell::Warn { about, detail } => (Some(*about), Some(detail.clone()), None),
            Tell::Calm { .. } => (Some(crate::policy::About::Flapping), None, None),
        };
        let text = self.text(target, tell, now);
        self.messenger.written += 1;
        let seen = story.and_then(|story| story.seen.clone());
        let down = story.map(|Story { began, .. }| now.0.since(*began));
        let message = notify::Message {
            id: format!("{:x}-{:x}-{}", now.1.as_ms(), std::process::id(), self.messenger.written),
            event: topic(tell),
            about,
            target: Some(target.to_owned()),
            host: self.messenger.host.clone(),
            at: now.1,
            text,
            class: seen.as_ref().map(|(class, _)| *class),
            detail: detail.or_else(|| seen.map(|(_, detail)| detail)),
            incident: story.map(|story| story.incident.clone()),
            attempts: story.map(|story| story.attempts),
            down_ms: down.and_then(|down| u64::try_from(down.as_millis()).ok()),
            late: false,
        };
        let wall = now.1;
        let is_sent = |channel: &&Channel| {
            self.told.as_ref().is_some_and(|told| told.was_told(&delivered(&message, &channel.id), wall))
        };
        let channels: Vec<Channel> = self.config.notify.iter().filter(|channel| !is_sent(channel)).cloned().collect();
        let given = self.saved.outbox.post(message, &channels);
        self.tell_given(&given, "too many messages wait");
    }

    fn text(&self, target: &str, tell: &Tell, now: (Timestamp, Wall)) -> String {
        let configured = self.target(target);
        let rungs = configured.map_or(0, |target| target.ladder.len());
        let commands: Vec<String> = (0..rungs).filter_map(|rung| self.command_at(target, rung)).collect();
        let said = match tell {
            Tell::Down { .. } => self.accounts.open(target).and_then(|account| account.said.clone()),
            _ => None,
        };
        let again = match tell {
            Tell::Healed(story) => self.again(target, story.began, now),
            _ => None,
        };
        let facts = Facts {
            target,
            host: &self.messenger.host,
            commands: &commands,
            depends_on: configured.map_or(&[][..], |target| &target.limits.depends_on),
            cooldown_until: self.policy.target(target).and_then(|state| state.real.cooldown_until),
            said: said.as_deref(),
            again: again.as_deref(),
            now,
            zone: self.zone,
        };
        self.config.secrets.strike(&facts.text(tell)).into_owned()
    }

    /// How often the target was down lately, the incident that has just ended among them. What cannot be read is not
    /// worth a word here.
    fn again(&self, target: &str, began: Timestamp, (now, wall): (Timestamp, Wall)) -> Option<String> {
        let past = past::read(&self.folder, wall.shifted(-millis(LATELY))).unwrap_or_default();
        let before = past.iter().filter(|closed| closed.target == target).map(|closed| closed.began);
        let own = wall.shifted(began.as_ms().saturating_sub(now.as_ms()));
        again(&before.chain([own]).collect::<Vec<Wall>>(), self.zone)
    }

    /// Delivers whatever is due, each channel on a thread of its own. Returns at once.
    pub(super) fn send(&mut self) {
        if self.is_displaced() || self.saved.outbox.waiting() == 0 {
            return;
        }
        let wall = clock::wall();
        let config = std::sync::Arc::clone(&self.config);
        let given = self.saved.outbox.tidy(&config.notify, wall);
        self.tell_given(&given, "it could not be delivered for three days, or its channel is gone");
        for channel in &config.notify {
            if self.messenger.under_way.contains_key(&channel.id) {
                continue;
            }
            let Some(mut message) = self.saved.outbox.due(&channel.id, wall) else { continue };
            if message.late {
                message.text = letter::late(&message.text, message.at, self.zone, wall.since(message.at));
            }
            self.messenger.under_way.insert(channel.id.clone(), message.id.clone());
            self.messenger.sending_since.get_or_insert(clock::now());
            self.spawn_delivery(channel.clone(), message);
        }
    }

    fn spawn_delivery(&self, channel: Channel, message: notify::Message) {
        let means = means(&self.config);
        let sent = |channel: String, outcome| Message::Sent { channel, outcome };
        let failed = Outcome::Failed("the delivery itself failed: no thread, or a bug in it".into(), None);
        spawn(&self.post, "messenger", sent(channel.id.clone(), failed), move |_| {
            let outcome = notify::deliver(&channel, &message, &means);
            sent(channel.id, outcome)
        });
    }

    /// What became of a delivery.
    pub(super) fn sent(&mut self, channel: &str, outcome: Outcome) {
        let Some(id) = self.messenger.under_way.remove(channel) else { return };
        match outcome {
            Outcome::Delivered => {
                log::debug!("message {id} is delivered to {channel}");
                self.note_delivered(channel, &id);
                self.saved.outbox.done(channel, &id);
            }
            Outcome::Refused(why) => {
                self.saved.outbox.done(channel, &id);
                self.notify_failed(format!("{channel} does not take the message: {why} (dropped)"));
            }
            Outcome::Failed(why, at_least) => {
                if self.saved.outbox.failed(channel, at_least, clock::wall()) {
                    log::warn!("no message gets to {channel}: {why} (tried again, later and later)");
                } else {
                    log::debug!("no message gets to {channel}: {why}");
                }
            }
        }
        self.save(true);
        self.send();
    }

    /// While the state cannot be saved, the next tick would write the same message anew.
    fn note_delivered(&self, channel: &str, id: &str) {
        if let (Some(told), Some(message), false) = (&self.told, self.saved.outbox.message(id), self.disk.is_ok()) {
            // Where it cannot be noted, twice is better than never.
            told.note(&delivered(message, channel), clock::wall());
        }
    }

    fn tell_given(&mut self, given: &[Given], why: &str) {
        for Given { channel, message } in given {
            self.notify_failed(format!("`{message}` does not reach {channel}: {why} (dropped)"));
        }
    }

    /// What a missing `${NAME}` has switched off: told loudly, but once and not at every tick.
    pub(super) fn tell_off(&mut self) {
        let off = self.config.off.clone();
        for line in &off {
            log::error!("{line}: switched off; nothing is told there");
            if !self.saved.off.contains(line) {
                self.say_once_a_day(line, &format!("{line}: switched off; nothing is told there"));
            }
        }
        self.saved.off = off;
    }

    fn notify_failed(&mut self, detail: String) {
        log::error!("{detail}");
        self.record_own(Kind::NotifyFailed { detail });
    }

    /// Whether a tick stays for messages that are on their way.
    pub(super) fn is_sending(&self, now: Timestamp) -> bool {
        let since = self.messenger.sending_since.unwrap_or(now);
        let is_under_way = !self.messenger.under_way.is_empty() || self.messenger.heartbeat.is_under_way;
        is_under_way && now.since(since) < TICK_SENDS_FOR
    }

    /// How long until something may have to be sent, or a tick stops waiting for it.
    pub(super) fn until_sending(&self, now: Timestamp) -> Option<Duration> {
        let wall = clock::wall();
        let next =
            self.saved.outbox.next(|channel| self.messenger.under_way.contains_key(channel)).map(|at| at.since(wall));
        let end = self.messenger.sending_since.filter(|_| self.mode == Mode::Tick);
        next.into_iter().chain(end.map(|since| (since + TICK_SENDS_FOR).since(now))).min()
    }

    /// Whether a ping is to be sent: work was done, and in a tick all of it.
    pub(super) fn owes_ping(&self, now: Timestamp) -> bool {
        let heartbeat = &self.messenger.heartbeat;
        let is_time = heartbeat.last.is_none_or(|at| now.since(at) >= PING_EVERY);
        let is_done = self.mode == Mode::Daemon || self.policy.is_idle();
        self.config.heartbeat.is_some() && heartbeat.is_due && !heartbeat.is_under_way && is_time && is_done
    }

    /// Whoever waits for the ping learns from its absence that nobody watches any more.
    pub(super) fn ping(&mut self) {
        let now = clock::now();
        let Some(webhook) = self.config.heartbeat.clone().filter(|_| self.owes_ping(now)) else { return };
        let heartbeat = &mut self.messenger.heartbeat;
        (heartbeat.is_due, heartbeat.is_under_way, heartbeat.last) = (false, true, Some(now));
        self.messenger.sending_since.get_or_insert(now);
        let means = means(&self.config);
        let failed = Message::Pinged(Err("no thread, or a bug in it".into()));
        spawn(&self.post, "messenger", failed, move |_| Message::Pinged(notify::ping(&webhook, &means)));
    }

    pub(super) fn pinged(&mut self, outcome: Result<(), String>) {
        let heartbeat = &mut self.messenger.heartbeat;
        heartbeat.is_under_way = false;
        let trouble = outcome.err();
        match (&trouble, &heartbeat.trouble) {
            (Some(why), None) => log::warn!("the heartbeat does not arrive: {why} (tried again each minute)"),
            (None, Some(_)) => log::info!("the heartbeat arrives again"),
            _ => {}
        }
        heartbeat.trouble = trouble;
    }
}

/// What is noted of a message that has arrived on a channel.
fn delivered(message: &notify::Message, channel: &str) -> String {
    let notify::Message { target, event, about, .. } = message;
    format!("message {target:?} {event:?} {about:?} {channel}")
}

/// What deliveries need of the configuration.
pub fn means(config: &Config) -> Means {
    let env = config.env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
    Means { folder: config.folder.clone(), env, secrets: config.secrets.clone() }
}

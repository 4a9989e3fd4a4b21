//! Messages to people: written down with the state, then delivered one after another on each channel by threads that
//! may take their time. A tick waits for them, but not for long.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock;
use crate::command::Scope;
use crate::config::{Channel, Config};
use crate::notify::{self, Due, Given, Means, Outbox, Outcome};
use crate::outcome::{Downtime, Topic, short_command};
use crate::policy::{About, Action, Tell};
use crate::store::complaints::Complaints;
use crate::store::events::Kind;
use crate::store::past;
use crate::store::state::Saved;
use crate::time::{ClockReading, Timestamp, Wall, Zone};
use crate::view::letter::{self, Facts, topic};
use crate::view::pattern::{LATELY, again};

use super::Agent;
use super::journal::{Against, Journal};
use super::message::Message;
use super::news::{Course, News};
use super::spawn::Job;

/// A tick, or a daemon that was told to stop, that has nothing else to do waits for deliveries for this long.
const SENDS_FOR: Duration = Duration::from_secs(10);
/// A delivery that takes so long hangs. A mail server that drips may take a while, and a message that was given up but
/// arrives all the same is sent twice.
pub(super) const DELIVERY: Duration = Duration::from_secs(600);

#[derive(Default)]
pub(super) struct Messenger {
    host: String,
    /// By channel: the message that is being delivered.
    under_way: BTreeMap<String, String>,
    /// Since when nothing but deliveries is left to do.
    rest_done: Option<Timestamp>,
    /// Messages written in this run; makes their ids differ.
    written: u32,
}

impl Messenger {
    pub(super) fn new() -> Messenger {
        Messenger { host: notify::host(), ..Messenger::default() }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Whether one that would end stays for what is on its way, given whether it has anything else to do.
    pub(super) fn keeps_us(&mut self, is_pinging: bool, has_other_work: bool, now: Timestamp) -> bool {
        self.rest_done = (!has_other_work).then(|| self.rest_done.unwrap_or(now));
        let is_patient = self.rest_done.is_none_or(|since| now.since(since) < SENDS_FOR);
        is_patient && (is_pinging || !self.under_way.is_empty())
    }

    /// How long until it stops waiting. While it has other work nothing hurries it.
    fn patience(&self, now: Timestamp) -> Option<Duration> {
        self.rest_done.map(|since| (since + SENDS_FOR).since(now))
    }

    /// Writes a message down. It is saved with the state that says it was told.
    fn write_down(
        &mut self,
        (target, tell): (&str, &Tell),
        text: String,
        mut channels: Vec<Channel>,
        (journal, news): (&mut Journal, &News),
        at: ClockReading,
    ) {
        let (about, detail, story) = match tell {
            Tell::Healed(story) | Tell::Up(story) | Tell::Down { story, .. } => (None, None, Some(story)),
            Tell::Warn { about, detail } => (Some(*about), Some(detail.clone()), None),
            Tell::Folded { .. } | Tell::Calm { .. } => (Some(About::Flapping), None, None),
        };
        self.written += 1;
        let seen = story.and_then(|story| story.seen.clone());
        let down = story.map(|story| story.downtime(at.now));
        let message = notify::Message {
            id: format!("{:x}-{:x}-{}", at.wall.as_ms(), std::process::id(), self.written),
            event: topic(tell),
            about,
            target: Some(target.to_owned()),
            host: self.host.clone(),
            at: at.wall,
            text,
            class: seen.as_ref().map(|(class, _)| *class),
            detail: detail.or_else(|| seen.map(|(_, detail)| detail)),
            incident: story.map(|story| story.incident.clone()),
            attempts: story.map(|story| story.attempts),
            down_ms: down.map(Downtime::as_ms),
            late: false,
        };
        let told = told_by(&message, news);
        channels.retain(|channel| {
            !told.as_ref().is_some_and(|told| told.was_told(&delivered(&message, &channel.id), at.wall))
        });
        let given = journal.saved.outbox.post(message, &channels, at.now);
        record_given(&given, journal);
    }

    /// What is due, at most one message on each channel: their deliveries begin now.
    fn begin_due(
        &mut self,
        config: &Config,
        (journal, news): (&mut Journal, &News),
        zone: Zone,
    ) -> Vec<(Channel, notify::Message)> {
        let now = clock::now();
        // A channel that only lacks its `${NAME}` (cron knows less than a shell) gets its messages once it has it.
        let is_off = |id: &str| config.off.iter().any(|line| line.starts_with(&format!("{id}: ")));
        let given = journal.saved.outbox.tidy(&config.notify, is_off);
        record_given(&given, journal);
        let mut due = Vec::new();
        for channel in &config.notify {
            if self.under_way.contains_key(&channel.id) {
                continue;
            }
            let Some(Due { mut message, age }) = next_untold(&channel.id, journal, news, now) else { continue };
            if message.late {
                message.text = letter::late(&message.text, message.at, zone, age);
            }
            self.under_way.insert(channel.id.clone(), message.id.clone());
            due.push((channel.clone(), message));
        }
        due
    }

    /// What became of a delivery.
    fn sent(&mut self, channel: &str, outcome: Outcome, journal: &mut Journal, news: &News) {
        let Some(id) = self.under_way.remove(channel) else { return };
        match outcome {
            Outcome::Delivered => {
                log::debug!("message {id} is delivered to {channel}");
                note_delivered(channel, &id, journal, news);
                journal.saved.outbox.delivered(channel, &id);
            }
            Outcome::Refused(why) => {
                journal.saved.outbox.refused(channel, &id, &why, clock::now());
                record_failed(format!("{channel} does not take the message: {why} (dropped)"), journal);
            }
            Outcome::Failed(why, at_least) => {
                if journal.saved.outbox.failed(channel, &id, &why, at_least, clock::now()) {
                    log::warn!("no message gets to {channel}: {why} (tried again, later and later)");
                } else {
                    log::debug!("no message gets to {channel}: {why}");
                }
            }
        }
        journal.want(Against::PowerLoss);
    }

    /// What is still on its way when we end may have arrived or not. It counts as a try that failed: else the next
    /// watchdog would send it at once, and so would each tick after that.
    pub(super) fn give_up(&mut self, journal: &mut Journal) {
        for (channel, id) in std::mem::take(&mut self.under_way) {
            journal.saved.outbox.failed(&channel, &id, "no answer before the watchdog ended", None, clock::now());
        }
    }

    /// How long until something is due on a channel that is free.
    fn until_due(&self, channels: &[Channel], outbox: &Outbox, now: Timestamp) -> Option<Duration> {
        outbox.next(channels, |channel| self.under_way.contains_key(channel)).map(|at| at.since(now))
    }
}

/// The channels that a message is for. Who was told that a target goes down again and again knows that its incidents
/// are folded; a channel that was not (it came later, or nothing was told then) is told with the first incident that
/// is, so that its silence is never taken for health.
fn channels_for(target: &str, tell: &Tell, configured: &[Channel], saved: &mut Saved) -> Vec<Channel> {
    let mut channels = configured.to_vec();
    channels.retain(|channel| channel.on.contains(&topic(tell)));
    let told = &mut saved.told_of_flapping;
    match tell {
        Tell::Warn { about: About::Flapping, .. } => {
            told.insert(target.to_owned(), BTreeSet::new());
        }
        Tell::Folded { .. } => {
            let told = told.entry(target.to_owned()).or_default();
            told.retain(|id| configured.iter().any(|channel| channel.id == *id));
            channels.retain(|channel| !told.contains(&channel.id));
        }
        Tell::Calm { .. } => {
            told.remove(target);
            return channels;
        }
        Tell::Healed(_) | Tell::Down { .. } | Tell::Up(_) | Tell::Warn { .. } => return channels,
    }
    told.entry(target.to_owned()).or_default().extend(channels.iter().map(|channel| channel.id.clone()));
    channels
}

/// What is due on a channel. While the state cannot be saved, it may hold what an earlier tick has delivered; and what
/// can be noted nowhere waits for the beginning of a day, as what is printed does.
fn next_untold(channel: &str, journal: &mut Journal, news: &News, now: Timestamp) -> Option<Due> {
    loop {
        let due = journal.saved.outbox.due(channel, now)?;
        let Some(told) = told_by(&due.message, news).filter(|_| !journal.is_ok()) else { return Some(due) };
        let (about, wall) = (delivered(&due.message, channel), clock::wall());
        if !told.was_told(&about, wall) {
            return told.may_be_told(&about, wall).then_some(due);
        }
        journal.saved.outbox.delivered(channel, &due.message.id);
    }
}

fn told_by(message: &notify::Message, news: &News) -> Option<Complaints> {
    let course = match message.event {
        Topic::Down => Course::Outage,
        Topic::Up | Topic::Healed => Course::Recovery,
        Topic::Warn | Topic::Test => Course::Other,
    };
    news.told_of(message.target.as_deref().unwrap_or_default(), course)
}

/// While the state cannot be saved, the next tick would write the same message anew.
fn note_delivered(channel: &str, id: &str, journal: &Journal, news: &News) {
    let message = journal.saved.outbox.message(id).filter(|_| !journal.is_ok());
    if let Some((message, told)) = message.and_then(|message| Some((message, told_by(message, news)?))) {
        // Where it cannot be noted, it is the beginning of a day.
        told.note(&delivered(message, channel), clock::wall());
    }
}

fn record_given(given: &[Given], journal: &mut Journal) {
    for Given { channel, message, why } in given {
        record_failed(format!("`{message}` does not reach {channel}: {why} (dropped)"), journal);
    }
}

fn record_failed(detail: String, journal: &mut Journal) {
    log::error!("{detail}");
    journal.note_own(Kind::NotifyFailed { detail });
}

impl Agent {
    /// Writes the messages down that are decided on.
    pub(super) fn write_messages(&mut self, at: ClockReading) {
        let tell = |action: &Action| match action {
            Action::Tell { target, tell } => Some((target.clone(), tell.clone())),
            _ => None,
        };
        let tells: Vec<(String, Tell)> = self.decided.iter().filter_map(tell).collect();
        for (target, tell) in &tells {
            let channels = channels_for(target, tell, &self.config.notify, &mut self.journal.saved);
            if !channels.is_empty() {
                let text = self.text(target, tell, at);
                self.messenger.write_down((target, tell), text, channels, (&mut self.journal, &self.news), at);
            }
        }
    }

    fn text(&self, target: &str, tell: &Tell, at: ClockReading) -> String {
        let configured = self.target(target);
        let rungs = configured.map_or(0, |target| target.ladder.len());
        let commands: Vec<String> =
            (0..rungs).filter_map(|rung| Some(short_command(&self.command_at(target, rung)?))).collect();
        let said = match tell {
            Tell::Down { .. } => self.incidents.open(target).and_then(|account| account.said.clone()),
            _ => None,
        };
        let again = match tell {
            Tell::Healed(story) => self.again(target, story.began, at),
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
            at,
            zone: self.zone,
        };
        self.config.secrets.strike(&facts.text(tell)).into_owned()
    }

    /// How often the target was down lately, the incident that has just ended among them. What cannot be read is not
    /// worth a word here.
    fn again(&self, target: &str, began: Timestamp, at: ClockReading) -> Option<String> {
        let past = past::read(self.journal.folder(), LATELY, at.wall).unwrap_or_default();
        let before = past.iter().filter(|closed| closed.target == target).map(|closed| closed.began);
        let own = at.wall_at(began);
        again(&before.chain([own]).collect::<Vec<Wall>>(), self.zone)
    }

    /// Delivers whatever is due, each channel on a thread of its own. Returns at once.
    pub(super) fn send(&mut self) {
        // Told to stop, it begins nothing that it may have to break off.
        if self.journal.is_displaced() || self.stopping || self.journal.saved.outbox.waiting() == 0 {
            return;
        }
        if self.news.is_noted() && !self.journal.is_tried() {
            // What cannot be noted in the state must not be sent at every tick.
            self.journal.want(Against::PowerLoss);
            return;
        }
        for (channel, message) in self.messenger.begin_due(&self.config, (&mut self.journal, &self.news), self.zone) {
            self.spawn_delivery(channel, message);
        }
    }

    fn spawn_delivery(&mut self, channel: Channel, message: notify::Message) {
        let means = means(&self.config);
        let sent = |channel: String, outcome| Message::Sent { channel, outcome };
        let to = channel.id.clone();
        let job = Job {
            name: "delivery",
            of: channel.shown.clone(),
            by: String::new(),
            within: DELIVERY,
            outlives_us: false,
            otherwise: Box::new(move |why| sent(to, Outcome::Failed(format!("it could not be sent: {why}"), None))),
        };
        self.jobs.spawn(job, move |work| {
            let outcome = notify::deliver(&channel, &message, &Means { scope: work.scope(), ..means });
            sent(channel.id, outcome)
        });
    }

    pub(super) fn sent(&mut self, channel: &str, outcome: Outcome) {
        self.messenger.sent(channel, outcome, &mut self.journal, &self.news);
        self.send();
    }

    /// What a missing `${NAME}` has switched off: told loudly, but once and not at every tick.
    pub(super) fn tell_off(&mut self) {
        let off = self.config.off.clone();
        for line in &off {
            log::error!("{line}: switched off; nothing is told there");
            if !self.journal.saved.off.contains(line) {
                self.news.say_once_a_day(line, &format!("{line}: switched off; nothing is told there"));
            }
        }
        self.journal.saved.off = off;
    }

    /// How long until something may have to be sent, or a tick stops waiting for it.
    pub(super) fn until_sending(&self, now: Timestamp) -> Option<Duration> {
        let next = self.messenger.until_due(&self.config.notify, &self.journal.saved.outbox, now);
        next.filter(|_| !self.stopping).into_iter().chain(self.messenger.patience(now)).min()
    }
}

fn delivered(message: &notify::Message, channel: &str) -> String {
    let notify::Message { event, about, .. } = message;
    format!("message {event:?} {about:?} {channel}")
}

pub fn means(config: &Config) -> Means {
    let env = config.env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
    Means { folder: config.folder.clone(), env, secrets: config.secrets.clone(), scope: Scope::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_ms(seconds * 1_000)
    }

    #[test]
    fn a_tick_waits_for_deliveries_after_its_other_work_and_without_spinning() {
        let mut messenger = Messenger::default();
        messenger.under_way.insert("x".into(), "1".into());
        // A restart and its start period: however long that takes, a message that hangs does not keep the loop awake.
        for second in [0, 9, 10, 11, 300] {
            assert!(messenger.keeps_us(false, true, at(second)));
            assert_eq!(messenger.patience(at(second)), None, "at {second}");
        }
        for (second, keeps, patience) in [(300, true, 10), (309, true, 1), (310, false, 0)] {
            assert_eq!(messenger.keeps_us(false, false, at(second)), keeps, "at {second}");
            assert_eq!(messenger.patience(at(second)), Some(Duration::from_secs(patience)));
        }
        assert!(messenger.keeps_us(false, true, at(320)), "there is something to do again");
        messenger.under_way.clear();
        assert!(!messenger.keeps_us(false, false, at(330)), "nothing is on its way");
        assert!(messenger.keeps_us(true, false, at(331)), "the heartbeat is");
    }
}

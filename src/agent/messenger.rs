//! Messages to people: written down with the state, then delivered one after another on each channel by threads that
//! may take their time. A tick waits for them, but not for long.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock;
use crate::command::Scope;
use crate::config::{Channel, Config};
use crate::notify::{self, Delivery, DeliveryOutcome, Dropped, Due, Outbox};
use crate::outcome::{Downtime, NotificationKind, short_command};
use crate::policy::{Action, Notification, WarningKind};
use crate::store::closed_incidents;
use crate::store::events::EventKind;
use crate::store::repeat_filter::RepeatFilter;
use crate::store::state::SavedState;
use crate::time::{BootTime, ClockReading, WallTime, Zone};
use crate::view::message::{self, MessageFacts, kind};
use crate::view::pattern::{LATELY, again};

use super::Agent;
use super::journal::{Durability, Journal};
use super::message::Message;
use super::news::{News, NewsKind};
use super::pool::JobSpec;

/// A tick, or a daemon that was told to stop, that has nothing else to do waits for deliveries for this long.
const DELIVERY_WAIT: Duration = Duration::from_secs(10);
/// A delivery that takes so long hangs. A mail server that drips may take a while, and a message that was given up but
/// arrives all the same is sent twice.
pub(super) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(600);

#[derive(Default)]
pub(super) struct Messenger {
    host: String,
    /// By channel: the message that is being delivered.
    under_way: BTreeMap<String, String>,
    /// Since when nothing but deliveries is left to do.
    idle_since: Option<BootTime>,
    /// Messages written in this run; makes their ids differ.
    enqueued: u32,
}

impl Messenger {
    pub(super) fn new() -> Messenger {
        Messenger { host: notify::host(), ..Messenger::default() }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Whether one that would end stays for what is on its way, given whether it has anything else to do.
    pub(super) fn must_wait(&mut self, is_pinging: bool, has_other_work: bool, now: BootTime) -> bool {
        self.idle_since = (!has_other_work).then(|| self.idle_since.unwrap_or(now));
        let is_patient = self.idle_since.is_none_or(|since| now.since(since) < DELIVERY_WAIT);
        is_patient && (is_pinging || !self.under_way.is_empty())
    }

    /// How long until it stops waiting. While it has other work nothing hurries it.
    fn until_wait_ends(&self, now: BootTime) -> Option<Duration> {
        self.idle_since.map(|since| (since + DELIVERY_WAIT).since(now))
    }

    /// Writes a message down. It is saved with the state that says it was told.
    fn enqueue(
        &mut self,
        (target, tell): (&str, &Notification),
        text: String,
        mut channels: Vec<Channel>,
        (journal, news): (&mut Journal, &News),
        at: ClockReading,
    ) {
        let (about, detail, story) = match tell {
            Notification::Healed(story) | Notification::Up(story) | Notification::Down { story, .. } => {
                (None, None, Some(story))
            }
            Notification::Warn { about, detail } => (Some(*about), Some(detail.clone()), None),
            Notification::Folded { .. } | Notification::Calm { .. } => (Some(WarningKind::Flapping), None, None),
        };
        self.enqueued += 1;
        let seen = story.and_then(|story| story.seen.clone());
        let down = story.map(|story| story.downtime(at.now));
        let message = notify::Message {
            id: format!("{:x}-{:x}-{}", at.wall.as_ms(), std::process::id(), self.enqueued),
            event: kind(tell),
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
        let told = repeat_filter_of(&message, news);
        channels.retain(|channel| {
            !told.as_ref().is_some_and(|told| told.was_printed(&delivery_key(&message, &channel.id), at.wall))
        });
        let given = journal.saved.outbox.post(message, &channels, at.now);
        record_dropped(&given, journal);
    }

    /// What is due, at most one message on each channel: their deliveries begin now.
    fn begin_due_deliveries(
        &mut self,
        config: &Config,
        (journal, news): (&mut Journal, &News),
        zone: Zone,
    ) -> Vec<(Channel, notify::Message)> {
        let now = clock::now();
        // A channel that only lacks its `${NAME}` (cron knows less than a shell) gets its messages once it has it.
        let is_off = |id: &str| config.off.iter().any(|line| line.starts_with(&format!("{id}: ")));
        let given = journal.saved.outbox.tidy(&config.notify, is_off);
        record_dropped(&given, journal);
        let mut due = Vec::new();
        for channel in &config.notify {
            if self.under_way.contains_key(&channel.id) {
                continue;
            }
            let Some(Due { mut message, age }) = next_due(&channel.id, journal, news, now) else { continue };
            if message.late {
                message.text = message::late(&message.text, message.at, zone, age);
            }
            self.under_way.insert(channel.id.clone(), message.id.clone());
            due.push((channel.clone(), message));
        }
        due
    }

    /// What became of a delivery.
    fn finish_delivery(&mut self, channel: &str, outcome: DeliveryOutcome, journal: &mut Journal, news: &News) {
        let Some(id) = self.under_way.remove(channel) else { return };
        match outcome {
            DeliveryOutcome::Delivered => {
                log::debug!("message {id} is delivered to {channel}");
                note_delivered(channel, &id, journal, news);
                journal.saved.outbox.delivered(channel, &id);
            }
            DeliveryOutcome::Refused(why) => {
                journal.saved.outbox.refused(channel, &id, &why, clock::now());
                record_failure(format!("{channel} does not take the message: {why} (dropped)"), journal);
            }
            DeliveryOutcome::Failed(why, at_least) => {
                if journal.saved.outbox.failed(channel, &id, &why, at_least, clock::now()) {
                    log::warn!("no message gets to {channel}: {why} (tried again, later and later)");
                } else {
                    log::debug!("no message gets to {channel}: {why}");
                }
            }
        }
        journal.request_save(Durability::PowerLoss);
    }

    /// What is still on its way when we end may have arrived or not. It counts as a try that failed: else the next
    /// watchdog would send it at once, and so would each tick after that.
    pub(super) fn abandon_deliveries(&mut self, journal: &mut Journal) {
        for (channel, id) in std::mem::take(&mut self.under_way) {
            journal.saved.outbox.failed(&channel, &id, "no answer before the watchdog ended", None, clock::now());
        }
    }

    /// How long until something is due on a channel that is free.
    fn until_due(&self, channels: &[Channel], outbox: &Outbox, now: BootTime) -> Option<Duration> {
        outbox.next(channels, |channel| self.under_way.contains_key(channel)).map(|at| at.since(now))
    }
}

/// The channels that a message is for. Who was told that a target goes down again and again knows that its incidents
/// are folded; a channel that was not (it came later, or nothing was told then) is told with the first incident that
/// is, so that its silence is never taken for health.
fn channels_for(target: &str, tell: &Notification, configured: &[Channel], saved: &mut SavedState) -> Vec<Channel> {
    let mut channels = configured.to_vec();
    channels.retain(|channel| channel.on.contains(&kind(tell)));
    let told = &mut saved.told_of_flapping;
    match tell {
        Notification::Warn { about: WarningKind::Flapping, .. } => {
            told.insert(target.to_owned(), BTreeSet::new());
        }
        Notification::Folded { .. } => {
            let told = told.entry(target.to_owned()).or_default();
            told.retain(|id| configured.iter().any(|channel| channel.id == *id));
            channels.retain(|channel| !told.contains(&channel.id));
        }
        Notification::Calm { .. } => {
            told.remove(target);
            return channels;
        }
        Notification::Healed(_) | Notification::Down { .. } | Notification::Up(_) | Notification::Warn { .. } => {
            return channels;
        }
    }
    told.entry(target.to_owned()).or_default().extend(channels.iter().map(|channel| channel.id.clone()));
    channels
}

/// What is due on a channel. While the state cannot be saved, it may hold what an earlier tick has delivered; and what
/// can be noted nowhere waits for the beginning of a day, as what is printed does.
fn next_due(channel: &str, journal: &mut Journal, news: &News, now: BootTime) -> Option<Due> {
    loop {
        let due = journal.saved.outbox.due(channel, now)?;
        let Some(told) = repeat_filter_of(&due.message, news).filter(|_| !journal.is_saved()) else { return Some(due) };
        let (about, wall) = (delivery_key(&due.message, channel), clock::wall());
        if !told.was_printed(&about, wall) {
            return told.may_be_printed(&about, wall).then_some(due);
        }
        journal.saved.outbox.delivered(channel, &due.message.id);
    }
}

fn repeat_filter_of(message: &notify::Message, news: &News) -> Option<RepeatFilter> {
    let course = match message.event {
        NotificationKind::Down => NewsKind::Outage,
        NotificationKind::Up | NotificationKind::Healed => NewsKind::Recovery,
        NotificationKind::Warn | NotificationKind::Test => NewsKind::Other,
    };
    news.filter_for(message.target.as_deref().unwrap_or_default(), course)
}

/// While the state cannot be saved, the next tick would write the same message anew.
fn note_delivered(channel: &str, id: &str, journal: &Journal, news: &News) {
    let message = journal.saved.outbox.message(id).filter(|_| !journal.is_saved());
    if let Some((message, told)) = message.and_then(|message| Some((message, repeat_filter_of(message, news)?))) {
        // Where it cannot be noted, it is the beginning of a day.
        told.note(&delivery_key(message, channel), clock::wall());
    }
}

fn record_dropped(given: &[Dropped], journal: &mut Journal) {
    for Dropped { channel, message, why } in given {
        record_failure(format!("`{message}` does not reach {channel}: {why} (dropped)"), journal);
    }
}

fn record_failure(detail: String, journal: &mut Journal) {
    log::error!("{detail}");
    journal.note_own_event(EventKind::NotifyFailed { detail });
}

impl Agent {
    /// Writes the messages down that are decided on.
    pub(super) fn enqueue_messages(&mut self, at: ClockReading) {
        let tell = |action: &Action| match action {
            Action::Notify { target, tell } => Some((target.clone(), tell.clone())),
            _ => None,
        };
        let tells: Vec<(String, Notification)> = self.pending_actions.iter().filter_map(tell).collect();
        for (target, tell) in &tells {
            let channels = channels_for(target, tell, &self.config.notify, &mut self.journal.saved);
            if !channels.is_empty() {
                let text = self.message_text(target, tell, at);
                self.messenger.enqueue((target, tell), text, channels, (&mut self.journal, &self.news), at);
            }
        }
    }

    fn message_text(&self, target: &str, tell: &Notification, at: ClockReading) -> String {
        let configured = self.target(target);
        let rungs = configured.map_or(0, |target| target.ladder.len());
        let commands: Vec<String> =
            (0..rungs).filter_map(|rung| Some(short_command(&self.command_at(target, rung)?))).collect();
        let said = match tell {
            Notification::Down { .. } => self.incidents.open(target).and_then(|account| account.said.clone()),
            _ => None,
        };
        let again = match tell {
            Notification::Healed(story) => self.recurrence(target, story.began, at),
            _ => None,
        };
        let facts = MessageFacts {
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
        self.config.secrets.redact(&facts.text(tell)).into_owned()
    }

    /// How often the target was down lately, the incident that has just ended among them. What cannot be read is not
    /// worth a word here.
    fn recurrence(&self, target: &str, began: BootTime, at: ClockReading) -> Option<String> {
        let past = closed_incidents::read(self.journal.folder(), LATELY, at.wall).unwrap_or_default();
        let before = past.iter().filter(|closed| closed.target == target).map(|closed| closed.began);
        let own = at.wall_at(began);
        again(&before.chain([own]).collect::<Vec<WallTime>>(), self.zone)
    }

    /// Delivers whatever is due, each channel on a thread of its own. Returns at once.
    pub(super) fn start_deliveries(&mut self) {
        // Told to stop, it begins nothing that it may have to break off.
        if self.journal.is_displaced() || self.stopping || self.journal.saved.outbox.waiting() == 0 {
            return;
        }
        if self.news.is_filtered() && !self.journal.has_tried_to_save() {
            // What cannot be noted in the state must not be sent at every tick.
            self.journal.request_save(Durability::PowerLoss);
            return;
        }
        for (channel, message) in
            self.messenger.begin_due_deliveries(&self.config, (&mut self.journal, &self.news), self.zone)
        {
            self.spawn_delivery(channel, message);
        }
    }

    fn spawn_delivery(&mut self, channel: Channel, message: notify::Message) {
        let delivery = delivery_of(&self.config);
        let sent = |channel: String, outcome| Message::DeliveryFinished { channel, outcome };
        let to = channel.id.clone();
        let job = JobSpec {
            name: "delivery",
            subject: channel.shown.clone(),
            variant: String::new(),
            timeout: DELIVERY_TIMEOUT,
            outlives_watchdog: false,
            on_failure: Box::new(move |why| {
                sent(to, DeliveryOutcome::Failed(format!("it could not be sent: {why}"), None))
            }),
        };
        self.jobs.spawn(job, move |work| {
            let outcome = notify::deliver(&channel, &message, &Delivery { scope: work.scope(), ..delivery });
            sent(channel.id, outcome)
        });
    }

    pub(super) fn delivery_finished(&mut self, channel: &str, outcome: DeliveryOutcome) {
        self.messenger.finish_delivery(channel, outcome, &mut self.journal, &self.news);
        self.start_deliveries();
    }

    /// What a missing `${NAME}` has switched off: told loudly, but once and not at every tick.
    pub(super) fn report_disabled_channels(&mut self) {
        let off = self.config.off.clone();
        for line in &off {
            log::error!("{line}: switched off; nothing is told there");
            if !self.journal.saved.off.contains(line) {
                self.news.print_once_a_day(line, &format!("{line}: switched off; nothing is told there"));
            }
        }
        self.journal.saved.off = off;
    }

    /// How long until something may have to be sent, or a tick stops waiting for it.
    pub(super) fn until_delivery(&self, now: BootTime) -> Option<Duration> {
        let next = self.messenger.until_due(&self.config.notify, &self.journal.saved.outbox, now);
        next.filter(|_| !self.stopping).into_iter().chain(self.messenger.until_wait_ends(now)).min()
    }
}

fn delivery_key(message: &notify::Message, channel: &str) -> String {
    let notify::Message { event, about, .. } = message;
    format!("message {event:?} {about:?} {channel}")
}

pub fn delivery_of(config: &Config) -> Delivery {
    let env = config.env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
    Delivery { folder: config.folder.clone(), env, secrets: config.secrets.clone(), scope: Scope::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> BootTime {
        BootTime::from_ms(seconds * 1_000)
    }

    #[test]
    fn a_tick_waits_for_deliveries_after_its_other_work_and_without_spinning() {
        let mut messenger = Messenger::default();
        messenger.under_way.insert("x".into(), "1".into());
        // A restart and its start period: however long that takes, a message that hangs does not keep the loop awake.
        for second in [0, 9, 10, 11, 300] {
            assert!(messenger.must_wait(false, true, at(second)));
            assert_eq!(messenger.until_wait_ends(at(second)), None, "at {second}");
        }
        for (second, keeps, patience) in [(300, true, 10), (309, true, 1), (310, false, 0)] {
            assert_eq!(messenger.must_wait(false, false, at(second)), keeps, "at {second}");
            assert_eq!(messenger.until_wait_ends(at(second)), Some(Duration::from_secs(patience)));
        }
        assert!(messenger.must_wait(false, true, at(320)), "there is something to do again");
        messenger.under_way.clear();
        assert!(!messenger.must_wait(false, false, at(330)), "nothing is on its way");
        assert!(messenger.must_wait(true, false, at(331)), "the heartbeat is");
    }
}

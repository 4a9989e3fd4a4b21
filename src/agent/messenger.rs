//! Notifications: queued in the outbox, saved with the state, then delivered by jobs, one message at a time per
//! channel. Sending must never delay a probe, and no message may be sent that is not saved; a tick waits 10 s at most.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock;
use crate::command::Scope;
use crate::config::{Channel, Config};
use crate::notify::{self, Delivery, DeliveryOutcome, DroppedMessage, DueMessage, Outbox};
use crate::outcome::{Downtime, NotificationKind, short_command};
use crate::policy::{Action, Notification, WarningKind};
use crate::store::closed_incidents;
use crate::store::events::EventKind;
use crate::store::repeat_filter::RepeatFilter;
use crate::store::state::SavedState;
use crate::time::{BootTime, ClockReading, WallTime, Zone};
use crate::view::log_line::RestartLimit;
use crate::view::message::{self, MessageFacts, kind};
use crate::view::pattern::{RECURRENCE_SPAN, recurrence};

use super::Agent;
use super::journal::{Durability, Journal};
use super::message::Message;
use super::news::{News, NewsKind};
use super::pool::JobSpec;

/// A tick, or a daemon that is stopping, waits this long at most for deliveries once it has nothing else to do.
const DELIVERY_WAIT: Duration = Duration::from_secs(10);
/// A delivery that takes longer hangs. The limit is generous: a mail server may answer slowly on purpose, and a message
/// that arrives after its delivery was abandoned is sent twice.
pub(super) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(600);

#[derive(Default)]
pub(super) struct Messenger {
    host: String,
    /// By channel: the id of the message that is being delivered.
    under_way: BTreeMap<String, String>,
    /// Since when only deliveries are left to do.
    idle_since: Option<BootTime>,
    /// Counts the messages of this run, which makes their ids unique.
    enqueued: u32,
}

impl Messenger {
    pub(super) fn new() -> Messenger {
        Messenger { host: notify::host_name(), ..Messenger::default() }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Whether a watchdog that could end must wait for deliveries or for the heartbeat.
    pub(super) fn must_wait(&mut self, is_pinging: bool, has_other_work: bool, now: BootTime) -> bool {
        self.idle_since = (!has_other_work).then(|| self.idle_since.unwrap_or(now));
        let has_time = self.idle_since.is_none_or(|since| now.since(since) < DELIVERY_WAIT);
        has_time && (is_pinging || !self.under_way.is_empty())
    }

    /// How long until [`Messenger::must_wait`] gives up waiting; `None` while there is other work.
    fn until_wait_ends(&self, now: BootTime) -> Option<Duration> {
        self.idle_since.map(|since| (since + DELIVERY_WAIT).since(now))
    }

    /// Puts a message into the outbox, to be saved together with the state that made it necessary.
    fn enqueue(
        &mut self,
        (target, notification): (&str, &Notification),
        text: String,
        mut channels: Vec<Channel>,
        (journal, news): (&mut Journal, &News),
        at: ClockReading,
    ) {
        let (about, detail, summary) = match notification {
            Notification::Healed(summary) | Notification::Up(summary) | Notification::Down { summary, .. } => {
                (None, None, Some(summary))
            }
            Notification::Warn { about, detail } => (Some(*about), Some(detail.clone()), None),
            Notification::Folded { .. } | Notification::Calm { .. } => (Some(WarningKind::Flapping), None, None),
        };
        self.enqueued += 1;
        let failure = summary.and_then(|summary| summary.failure.clone());
        let downtime = summary.map(|summary| summary.downtime(at.now));
        let message = notify::Message {
            id: format!("{:x}-{:x}-{}", at.wall.as_ms(), std::process::id(), self.enqueued),
            event: kind(notification),
            about,
            target: Some(target.to_owned()),
            host: self.host.clone(),
            at: at.wall,
            text,
            class: failure.as_ref().map(|(class, _)| *class),
            detail: detail.or_else(|| failure.map(|(_, detail)| detail)),
            incident: summary.map(|summary| summary.incident.clone()),
            attempts: summary.map(|summary| summary.attempts),
            down_ms: downtime.map(Downtime::as_ms),
            late: false,
        };
        let filter = repeat_filter_of(&message, news);
        channels.retain(|channel| {
            !filter.as_ref().is_some_and(|filter| filter.was_printed(&delivery_key(&message, &channel.id), at.wall))
        });
        let dropped = journal.saved.outbox.post(message, &channels, at.now);
        record_dropped(&dropped, journal);
    }

    /// Takes the messages that are due, at most one per channel, and marks them as being delivered.
    fn begin_due_deliveries(
        &mut self,
        config: &Config,
        (journal, news): (&mut Journal, &News),
        zone: Zone,
    ) -> Vec<(Channel, notify::Message)> {
        let now = clock::now();
        // A channel that only lacks its `${NAME}` (cron has fewer variables than a shell) keeps its messages until it
        // is set.
        let is_disabled = |id: &str| config.disabled_channels.iter().any(|line| line.starts_with(&format!("{id}: ")));
        let dropped = journal.saved.outbox.drop_expired(&config.notify, is_disabled);
        record_dropped(&dropped, journal);
        let mut due = Vec::new();
        for channel in &config.notify {
            if self.under_way.contains_key(&channel.id) {
                continue;
            }
            let Some(DueMessage { mut message, age }) = next_due(&channel.id, journal, news, now) else { continue };
            if message.late {
                message.text = message::mark_late(&message.text, message.at, zone, age);
            }
            self.under_way.insert(channel.id.clone(), message.id.clone());
            due.push((channel.clone(), message));
        }
        due
    }

    fn finish_delivery(&mut self, channel: &str, outcome: DeliveryOutcome, journal: &mut Journal, news: &News) {
        let Some(id) = self.under_way.remove(channel) else { return };
        match outcome {
            DeliveryOutcome::Delivered => {
                log::debug!("message {id} was delivered to {channel}");
                note_delivered(channel, &id, journal, news);
                journal.saved.outbox.mark_delivered(channel, &id);
            }
            DeliveryOutcome::Refused(why) => {
                journal.saved.outbox.mark_refused(channel, &id, &why, clock::now());
                record_failure(format!("{channel} refused the message: {why} (dropped)"), journal);
            }
            DeliveryOutcome::Failed(why, at_least) => {
                if journal.saved.outbox.mark_failed(channel, &id, &why, at_least, clock::now()) {
                    log::warn!("cannot send to {channel}: {why} (retried with growing pauses)");
                } else {
                    log::debug!("cannot send to {channel}: {why}");
                }
            }
        }
        journal.request_save(Durability::PowerLoss);
    }

    /// A delivery that has not ended when the watchdog ends may have succeeded or not. It counts as a failed try, or
    /// else the next watchdog, and each tick after it, would send the message at once.
    pub(super) fn abandon_deliveries(&mut self, journal: &mut Journal) {
        for (channel, id) in std::mem::take(&mut self.under_way) {
            journal.saved.outbox.mark_failed(&channel, &id, "no answer before the watchdog ended", None, clock::now());
        }
    }

    /// How long until a message is due on a channel on which none is being delivered.
    fn until_due(&self, channels: &[Channel], outbox: &Outbox, now: BootTime) -> Option<Duration> {
        outbox.next_retry_at(channels, |channel| self.under_way.contains_key(channel)).map(|at| at.since(now))
    }
}

/// The channels that a notification is for. Those that got the warning about flapping know that further incidents are
/// folded; any other channel (added later, or not configured for warnings) is notified of the first incident that is
/// folded, so that its silence is never taken for health.
fn channels_for(
    target: &str,
    notification: &Notification,
    configured: &[Channel],
    saved: &mut SavedState,
) -> Vec<Channel> {
    let mut channels = configured.to_vec();
    channels.retain(|channel| channel.on.contains(&kind(notification)));
    let notified = &mut saved.flapping_notified;
    match notification {
        Notification::Warn { about: WarningKind::Flapping, .. } => {
            notified.insert(target.to_owned(), BTreeSet::new());
        }
        Notification::Folded { .. } => {
            let ids = notified.entry(target.to_owned()).or_default();
            ids.retain(|id| configured.iter().any(|channel| channel.id == *id));
            channels.retain(|channel| !ids.contains(&channel.id));
        }
        Notification::Calm { .. } => {
            notified.remove(target);
            return channels;
        }
        Notification::Healed(_) | Notification::Down { .. } | Notification::Up(_) | Notification::Warn { .. } => {
            return channels;
        }
    }
    notified.entry(target.to_owned()).or_default().extend(channels.iter().map(|channel| channel.id.clone()));
    channels
}

/// The next message that is due on a channel. While the state cannot be saved, the outbox may contain messages that an
/// earlier tick has delivered: these are skipped. If the delivery cannot be noted either, the message waits for the
/// beginning of the next day, as printed news does.
fn next_due(channel: &str, journal: &mut Journal, news: &News, now: BootTime) -> Option<DueMessage> {
    loop {
        let due = journal.saved.outbox.next_due(channel, now)?;
        let Some(filter) = repeat_filter_of(&due.message, news).filter(|_| !journal.is_saved()) else {
            return Some(due);
        };
        let (key, wall) = (delivery_key(&due.message, channel), clock::wall());
        if !filter.was_printed(&key, wall) {
            return filter.may_be_printed(&key, wall).then_some(due);
        }
        journal.saved.outbox.mark_delivered(channel, &due.message.id);
    }
}

fn repeat_filter_of(message: &notify::Message, news: &News) -> Option<RepeatFilter> {
    let kind = match message.event {
        NotificationKind::Down => NewsKind::Outage,
        NotificationKind::Up | NotificationKind::Healed => NewsKind::Recovery,
        NotificationKind::Warn | NotificationKind::Test => NewsKind::Other,
    };
    news.filter_for(message.target.as_deref().unwrap_or_default(), kind)
}

/// While the state cannot be saved, the next tick would enqueue the same message again.
fn note_delivered(channel: &str, id: &str, journal: &Journal, news: &News) {
    let message = journal.saved.outbox.find_message(id).filter(|_| !journal.is_saved());
    if let Some((message, filter)) = message.and_then(|message| Some((message, repeat_filter_of(message, news)?))) {
        // If the note cannot be written, next_due has let the message pass only at the beginning of a day.
        filter.mark_printed(&delivery_key(message, channel), clock::wall());
    }
}

fn record_dropped(dropped: &[DroppedMessage], journal: &mut Journal) {
    for DroppedMessage { channel, message, why } in dropped {
        record_failure(format!("`{message}` was not delivered to {channel}: {why} (dropped)"), journal);
    }
}

fn record_failure(detail: String, journal: &mut Journal) {
    log::error!("{detail}");
    journal.note_own_event(EventKind::NotifyFailed { detail });
}

impl Agent {
    /// Enqueues the notifications among the pending actions.
    pub(super) fn enqueue_messages(&mut self, at: ClockReading) {
        let as_notification = |action: &Action| match action {
            Action::Notify { target, notification: tell } => Some((target.clone(), tell.clone())),
            _ => None,
        };
        let notifications: Vec<(String, Notification)> =
            self.pending_actions.iter().filter_map(as_notification).collect();
        for (target, notification) in &notifications {
            let channels = channels_for(target, notification, &self.config.notify, &mut self.journal.saved);
            if !channels.is_empty() {
                let text = self.message_text(target, notification, at);
                let stores = (&mut self.journal, &self.news);
                self.messenger.enqueue((target, notification), text, channels, stores, at);
            }
        }
    }

    fn message_text(&self, target: &str, notification: &Notification, at: ClockReading) -> String {
        let configured = self.target(target);
        let rungs = configured.map_or(0, |target| target.ladder.len());
        let commands: Vec<String> =
            (0..rungs).filter_map(|rung| Some(short_command(&self.command_at(target, rung)?))).collect();
        let last_line = match notification {
            Notification::Down { .. } => self.incidents.open(target).and_then(|incident| incident.log_line.clone()),
            _ => None,
        };
        let recurrence = match notification {
            Notification::Healed(summary) => self.recurrence(target, summary.began, at),
            _ => None,
        };
        let facts = MessageFacts {
            target,
            host: &self.messenger.host,
            commands: &commands,
            depends_on: configured.map_or(&[][..], |target| &target.limits.depends_on),
            limit: configured.map(|target| RestartLimit::of(&target.limits)),
            cooldown_until: self.policy.target(target).and_then(|state| state.real.cooldown_until),
            last_log_line: last_line.as_deref(),
            recurrence: recurrence.as_deref(),
            at,
            zone: self.zone,
        };
        self.config.secrets.redact(&facts.text(notification)).into_owned()
    }

    /// How often the target was down lately, including the incident that has just ended. Past incidents that cannot be
    /// read are left out: this line is not worth a warning.
    fn recurrence(&self, target: &str, began: BootTime, at: ClockReading) -> Option<String> {
        let closed = closed_incidents::read(self.journal.folder(), RECURRENCE_SPAN, at.wall).unwrap_or_default();
        let earlier = closed.iter().filter(|closed| closed.target == target).map(|closed| closed.began);
        let latest = at.wall_at(began);
        recurrence(&earlier.chain([latest]).collect::<Vec<WallTime>>(), self.zone)
    }

    /// Starts the deliveries that are due, one job per channel. Returns at once.
    pub(super) fn start_deliveries(&mut self) {
        // While stopping, no delivery is started that would have to be abandoned.
        if self.journal.is_displaced() || self.stopping || self.journal.saved.outbox.waiting_count() == 0 {
            return;
        }
        if self.news.is_filtered() && !self.journal.has_tried_to_save() {
            // Only once a save was tried is it known whether deliveries can be noted; else each tick might send again.
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
        let delivery = delivery_settings(&self.config);
        let finished = |channel: String, outcome| Message::DeliveryFinished { channel, outcome };
        let id = channel.id.clone();
        let job = JobSpec {
            name: "delivery",
            subject: channel.shown.clone(),
            variant: String::new(),
            timeout: DELIVERY_TIMEOUT,
            outlives_watchdog: false,
            on_failure: Box::new(move |why| {
                finished(id, DeliveryOutcome::Failed(format!("the delivery failed: {why}"), None))
            }),
        };
        self.jobs.spawn(job, move |context| {
            let outcome = notify::deliver(&channel, &message, &Delivery { scope: context.scope(), ..delivery });
            finished(channel.id, outcome)
        });
    }

    pub(super) fn delivery_finished(&mut self, channel: &str, outcome: DeliveryOutcome) {
        self.messenger.finish_delivery(channel, outcome, &mut self.journal, &self.news);
        self.start_deliveries();
    }

    /// Reports the channels that are disabled because a `${NAME}` is not set: loudly, but only once, not at every tick.
    pub(super) fn report_disabled_channels(&mut self) {
        let disabled = self.config.disabled_channels.clone();
        for line in &disabled {
            log::error!("{line}: disabled; no messages are sent there");
            if !self.journal.saved.disabled_channels.contains(line) {
                self.news.print_once_a_day(line, &format!("{line}: disabled; no messages are sent there"));
            }
        }
        self.journal.saved.disabled_channels = disabled;
    }

    /// How long until a message is due, or until a tick stops waiting for deliveries.
    pub(super) fn until_delivery(&self, now: BootTime) -> Option<Duration> {
        let next = self.messenger.until_due(&self.config.notify, &self.journal.saved.outbox, now);
        next.filter(|_| !self.stopping).into_iter().chain(self.messenger.until_wait_ends(now)).min()
    }
}

/// Identifies a delivery in the notes of a tick; the id would not, since each tick gives a message another id.
fn delivery_key(message: &notify::Message, channel: &str) -> String {
    let notify::Message { event, about, .. } = message;
    format!("message {event:?} {about:?} {channel}")
}

pub fn delivery_settings(config: &Config) -> Delivery {
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
    fn a_tick_waits_for_deliveries_only_after_its_other_work_and_does_not_spin() {
        let mut messenger = Messenger::default();
        messenger.under_way.insert("x".into(), "1".into());
        // During other work, such as a restart and its start period, a hanging delivery does not wake the loop.
        for second in [0, 9, 10, 11, 300] {
            assert!(messenger.must_wait(false, true, at(second)));
            assert_eq!(messenger.until_wait_ends(at(second)), None, "at {second}");
        }
        for (second, must_wait, left) in [(300, true, 10), (309, true, 1), (310, false, 0)] {
            assert_eq!(messenger.must_wait(false, false, at(second)), must_wait, "at {second}");
            assert_eq!(messenger.until_wait_ends(at(second)), Some(Duration::from_secs(left)));
        }
        assert!(messenger.must_wait(false, true, at(320)), "there is other work again");
        messenger.under_way.clear();
        assert!(!messenger.must_wait(false, false, at(330)), "nothing is being delivered");
        assert!(messenger.must_wait(true, false, at(331)), "the heartbeat is being sent");
    }
}

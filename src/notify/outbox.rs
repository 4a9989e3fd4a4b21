//! The messages that are not yet delivered to all their channels. It does no I/O; it is saved as part of the state. It
//! must never grow without bound, whatever the channels do, and never change the order of one target's messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Message;
use crate::config::Channel;
use crate::time::{BootTime, round_age};

/// The most messages that wait. The policy folds a storm of messages before it gets here.
const MAX_MESSAGES: usize = 100;
/// A message that was tried for this long is dropped.
const MAX_TRYING: Duration = Duration::from_secs(3 * 86_400);
/// A message that is delivered later than this is marked late.
const LATE_AFTER: Duration = Duration::from_secs(300);
/// The pause after the first failure; it doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause, whatever the receiver asks for.
const MAX_PAUSE: Duration = Duration::from_secs(3_600);

/// The waiting messages, oldest first. Its times are on the boot clock, so that no pause or age depends on the wall
/// clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outbox {
    #[serde(rename = "letters")]
    queue: VecDeque<Queued>,
    /// The channels whose last delivery failed.
    troubles: BTreeMap<String, ChannelTrouble>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Queued {
    message: Message,
    /// The ids of the channels that have not accepted it yet.
    to: Vec<String>,
    /// The age is computed from this; the wall time in the message is for people only.
    #[serde(default)]
    posted: BootTime,
    /// By channel.
    #[serde(default, rename = "tried")]
    attempts: BTreeMap<String, DeliveryAttempts>,
}

/// How often a message was tried on one channel, and for how long the channel failed while the message waited for it.
/// Time without tries (the machine was off, the watchdog was stopped) does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct DeliveryAttempts {
    times: u32,
    span_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ChannelTrouble {
    /// Failures in a row; 0 if the channel rejected one message for good and may accept the next.
    failures: u32,
    /// The time of the first of these failures.
    since: BootTime,
    /// The time of the last try.
    at: BootTime,
    /// The earliest time for the next try.
    until: BootTime,
    #[serde(rename = "said")]
    error: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DueMessage {
    /// With `late` set if it is late.
    pub message: Message,
    pub age: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedMessage {
    pub channel: String,
    /// The message's first line.
    pub message: String,
    pub why: String,
}

impl Outbox {
    /// Queues a message for all channels that are configured for its kind. Returns the messages dropped to make room.
    pub fn post(&mut self, message: Message, channels: &[Channel], now: BootTime) -> Vec<DroppedMessage> {
        let subscribed = channels.iter().filter(|channel| channel.on.contains(&message.event));
        let to: Vec<String> = subscribed.map(|channel| channel.id.clone()).collect();
        if to.is_empty() {
            return Vec::new();
        }
        self.queue.push_back(Queued { message, to, posted: now, attempts: BTreeMap::new() });
        let mut dropped = Vec::new();
        while self.queue.len() > MAX_MESSAGES {
            let Some(Queued { message, to, .. }) = self.queue.pop_front() else { break };
            let drop_for = |channel| DroppedMessage {
                channel,
                message: message.split_first_line().0.to_owned(),
                why: "too many messages are waiting".into(),
            };
            dropped.extend(to.into_iter().map(drop_for));
        }
        dropped
    }

    /// The next message to deliver on a channel now. Only the oldest message of each target qualifies, which keeps
    /// their order; among these the one with the fewest tries comes first, so that a message that is never accepted
    /// does not delay those of other targets.
    pub fn next_due(&self, channel: &str, now: BootTime) -> Option<DueMessage> {
        // A longer pause than the longest possible one was computed on another clock, so it does not count.
        let is_paused = |until: BootTime| now < until && until.since(now) <= MAX_PAUSE;
        if self.troubles.get(channel).is_some_and(|trouble| is_paused(trouble.until)) {
            return None;
        }
        let mut seen = BTreeSet::new();
        let waiting = self.queue.iter().filter(|queued| queued.to.iter().any(|to| to == channel));
        let firsts = waiting.filter(|queued| seen.insert(&queued.message.target));
        let queued = firsts.min_by_key(|queued| queued.attempts.get(channel).map_or(0, |attempts| attempts.times))?;
        let age = now.since(queued.posted);
        Some(DueMessage { message: Message { late: age > LATE_AFTER, ..queued.message.clone() }, age })
    }

    pub fn find_message(&self, id: &str) -> Option<&Message> {
        self.queue.iter().map(|queued| &queued.message).find(|message| message.id == id)
    }

    pub fn mark_delivered(&mut self, channel: &str, id: &str) {
        self.troubles.remove(channel);
        self.remove_recipient(channel, id);
    }

    /// The channel will never accept this message.
    pub fn mark_refused(&mut self, channel: &str, id: &str, error: &str, now: BootTime) {
        let trouble = ChannelTrouble { failures: 0, since: now, at: now, until: now, error: error.to_owned() };
        self.troubles.insert(channel.to_owned(), trouble);
        self.remove_recipient(channel, id);
    }

    fn remove_recipient(&mut self, channel: &str, id: &str) {
        for queued in self.queue.iter_mut().filter(|queued| queued.message.id == id) {
            queued.to.retain(|to| to != channel);
        }
        self.queue.retain(|queued| !queued.to.is_empty());
    }

    /// Notes a failed delivery. `at_least` is the pause that the receiver asked for. Returns whether this is the first
    /// failure in a row, which is worth a log line.
    pub fn mark_failed(
        &mut self,
        channel: &str,
        id: &str,
        error: &str,
        at_least: Option<Duration>,
        now: BootTime,
    ) -> bool {
        let before = self.troubles.get(channel).filter(|trouble| trouble.failures > 0);
        let failures = before.map_or(0, |trouble| trouble.failures).saturating_add(1);
        let since = before.map_or(now, |trouble| trouble.since);
        let spent = before.map_or(Duration::ZERO, |trouble| now.since(trouble.at).min(MAX_PAUSE));
        let pause = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(20));
        let until = now + pause.max(at_least.unwrap_or_default()).min(MAX_PAUSE);
        self.troubles
            .insert(channel.to_owned(), ChannelTrouble { failures, since, at: now, until, error: error.to_owned() });
        for queued in self.queue.iter_mut().filter(|queued| queued.to.iter().any(|to| to == channel)) {
            let attempts = queued.attempts.entry(channel.to_owned()).or_default();
            attempts.times = attempts.times.saturating_add(u32::from(queued.message.id == id));
            let spent = spent.min(now.since(queued.posted)).as_millis();
            attempts.span_ms = attempts.span_ms.saturating_add(u64::try_from(spent).unwrap_or(u64::MAX));
        }
        failures == 1
    }

    /// Drops messages that were tried for too long, and those for channels that are no longer configured. Messages for
    /// channels that are switched off (`is_off`) keep waiting.
    pub fn drop_expired(&mut self, channels: &[Channel], is_off: impl Fn(&str) -> bool) -> Vec<DroppedMessage> {
        let mut dropped = Vec::new();
        let is_known = |id: &str| channels.iter().any(|channel| channel.id == id) || is_off(id);
        for queued in &mut self.queue {
            let is_old = |id: &str| queued.attempts.get(id).is_some_and(|attempts| attempts.span() > MAX_TRYING);
            let (expired, kept): (Vec<_>, Vec<_>) = queued.to.drain(..).partition(|id| !is_known(id) || is_old(id));
            queued.to = kept;
            let message = queued.message.split_first_line().0;
            dropped.extend(expired.into_iter().map(|channel| {
                let why = match self.troubles.get(&channel).filter(|_| is_known(&channel)) {
                    Some(trouble) => format!("every try failed for three days; last error: {}", trouble.error),
                    None => "its channel is no longer configured".into(),
                };
                DroppedMessage { channel, message: message.to_owned(), why }
            }));
        }
        self.queue.retain(|queued| !queued.to.is_empty());
        self.troubles.retain(|id, _| is_known(id));
        dropped
    }

    pub fn waiting_count(&self) -> usize {
        self.queue.len()
    }

    /// When the next pause ends on one of `channels` that has a waiting message and is not `busy` with a delivery. The
    /// caller leaves out channels that are switched off, since they are no reason to wake up.
    pub fn next_retry_at(&self, channels: &[Channel], busy: impl Fn(&str) -> bool) -> Option<BootTime> {
        let waits = |id: &String| self.queue.iter().any(|queued| queued.to.contains(id));
        let usable = channels.iter().map(|channel| &channel.id).filter(|id| !busy(id) && waits(id));
        usable.filter_map(|id| Some(self.troubles.get(id)?.until)).min()
    }

    /// The id of each channel whose last delivery failed, and a description of the failure.
    pub fn describe_troubles(&self, now: BootTime) -> impl Iterator<Item = (&str, String)> {
        self.troubles.iter().map(move |(channel, trouble)| (channel.as_str(), trouble.describe(now)))
    }

    pub fn shift(&mut self, ms: i64) {
        let posted = self.queue.iter_mut().map(|queued| &mut queued.posted);
        let points = self.troubles.values_mut().flat_map(|ChannelTrouble { since, at, until, .. }| [since, at, until]);
        posted.chain(points).for_each(|point| *point = point.offset_by(ms));
    }
}

impl DeliveryAttempts {
    fn span(self) -> Duration {
        Duration::from_millis(self.span_ms)
    }
}

impl ChannelTrouble {
    fn describe(&self, now: BootTime) -> String {
        let (ago, error) = (round_age(now.since(self.at)), &self.error);
        let tries = match self.failures {
            0 => return format!("rejected the last message, which was dropped, {ago} ago: {error}"),
            1 => "1 try".to_owned(),
            count => format!("{count} tries in {}", round_age(now.since(self.since))),
        };
        format!("accepts no messages ({tries}); last error {ago} ago: {error}")
    }
}

#[cfg(test)]
mod tests;

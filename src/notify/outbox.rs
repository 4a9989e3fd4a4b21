//! Messages that have not arrived everywhere yet. It computes only; whoever saves it with the state loses none.
//! It must stay bounded whatever happens to those who should take them, and keep the messages of each target in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Message;
use crate::config::Channel;
use crate::time::{BootTime, rough};

/// Messages that wait at the most. A storm is folded before it gets here.
const MOST: usize = 100;
/// What was tried for so long is given up.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(3 * 86_400);
/// What arrives later than this says so.
const LATE_AFTER: Duration = Duration::from_secs(300);
/// The pause after the first failure; it doubles with each further one, up to …
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// … this, whatever the other side asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// What waits, oldest first. Its times are on the boot clock: no pause and no age depends on what the wall clock says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outbox {
    #[serde(rename = "letters")]
    queue: VecDeque<Queued>,
    /// Channels that did not take what they were given last.
    troubles: BTreeMap<String, ChannelTrouble>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Queued {
    message: Message,
    to: Vec<String>,
    /// When it was written. What the message itself says of that is for people.
    #[serde(default)]
    posted: BootTime,
    /// By channel: what was done to get it there.
    #[serde(default)]
    tried: BTreeMap<String, DeliveryAttempts>,
}

/// How often a message was tried on one channel, and for how long messages were while it waited there. Time in which
/// nobody tried (a machine that was off, a watchdog that was stopped) is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct DeliveryAttempts {
    times: u32,
    span_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ChannelTrouble {
    /// Failures in a row; 0 where the channel refused one message for good and may take the next.
    failures: u32,
    /// The first of them.
    since: BootTime,
    /// The last try.
    at: BootTime,
    /// No try before then.
    until: BootTime,
    said: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    /// With its mark, where it is late.
    pub message: Message,
    pub age: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub channel: String,
    /// The message's first line.
    pub message: String,
    pub why: String,
}

impl Outbox {
    /// Takes in a message for all channels that want its kind. What had to give way for it.
    pub fn post(&mut self, message: Message, channels: &[Channel], now: BootTime) -> Vec<Dropped> {
        let wanted = channels.iter().filter(|channel| channel.on.contains(&message.event));
        let to: Vec<String> = wanted.map(|channel| channel.id.clone()).collect();
        if to.is_empty() {
            return Vec::new();
        }
        self.queue.push_back(Queued { message, to, posted: now, tried: BTreeMap::new() });
        let mut given = Vec::new();
        while self.queue.len() > MOST {
            let Some(Queued { message, to, .. }) = self.queue.pop_front() else { break };
            let lost = |channel| Dropped {
                channel,
                message: message.parts().0.to_owned(),
                why: "too many messages wait".into(),
            };
            given.extend(to.into_iter().map(lost));
        }
        given
    }

    /// The message that is to be delivered on a channel now. Only the oldest one of each target, for their order; among
    /// the targets the one that was tried least, so that a message that is never taken holds up no other target's.
    pub fn due(&self, channel: &str, now: BootTime) -> Option<Due> {
        // A pause longer than any that is given is one from a clock that is not this one.
        let is_paused = |until: BootTime| now < until && until.since(now) <= LONGEST_PAUSE;
        if self.troubles.get(channel).is_some_and(|trouble| is_paused(trouble.until)) {
            return None;
        }
        let mut seen = BTreeSet::new();
        let waiting = self.queue.iter().filter(|letter| letter.to.iter().any(|to| to == channel));
        let firsts = waiting.filter(|letter| seen.insert(&letter.message.target));
        let letter = firsts.min_by_key(|letter| letter.tried.get(channel).map_or(0, |tried| tried.times))?;
        let age = now.since(letter.posted);
        Some(Due { message: Message { late: age > LATE_AFTER, ..letter.message.clone() }, age })
    }

    pub fn message(&self, id: &str) -> Option<&Message> {
        self.queue.iter().map(|letter| &letter.message).find(|message| message.id == id)
    }

    pub fn delivered(&mut self, channel: &str, id: &str) {
        self.troubles.remove(channel);
        self.done(channel, id);
    }

    /// The channel says that it will never take this message.
    pub fn refused(&mut self, channel: &str, id: &str, said: &str, now: BootTime) {
        let trouble = ChannelTrouble { failures: 0, since: now, at: now, until: now, said: said.to_owned() };
        self.troubles.insert(channel.to_owned(), trouble);
        self.done(channel, id);
    }

    fn done(&mut self, channel: &str, id: &str) {
        for letter in self.queue.iter_mut().filter(|letter| letter.message.id == id) {
            letter.to.retain(|to| to != channel);
        }
        self.queue.retain(|letter| !letter.to.is_empty());
    }

    /// It could not be delivered. `at_least`: how long whoever refused it wants to have peace.
    /// Whether that is the first failure in a row, and so is news.
    pub fn failed(&mut self, channel: &str, id: &str, said: &str, at_least: Option<Duration>, now: BootTime) -> bool {
        let before = self.troubles.get(channel).filter(|trouble| trouble.failures > 0);
        let failures = before.map_or(0, |trouble| trouble.failures).saturating_add(1);
        let since = before.map_or(now, |trouble| trouble.since);
        let spent = before.map_or(Duration::ZERO, |trouble| now.since(trouble.at).min(LONGEST_PAUSE));
        let pause = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(20));
        let until = now + pause.max(at_least.unwrap_or_default()).min(LONGEST_PAUSE);
        self.troubles
            .insert(channel.to_owned(), ChannelTrouble { failures, since, at: now, until, said: said.to_owned() });
        for letter in self.queue.iter_mut().filter(|letter| letter.to.iter().any(|to| to == channel)) {
            let tried = letter.tried.entry(channel.to_owned()).or_default();
            tried.times = tried.times.saturating_add(u32::from(letter.message.id == id));
            let spent = spent.min(now.since(letter.posted)).as_millis();
            tried.span_ms = tried.span_ms.saturating_add(u64::try_from(spent).unwrap_or(u64::MAX));
        }
        failures == 1
    }

    /// Gives up what was tried for too long, and what is for channels that are no more (those that `is_off` only wait).
    pub fn tidy(&mut self, channels: &[Channel], is_off: impl Fn(&str) -> bool) -> Vec<Dropped> {
        let mut given = Vec::new();
        let is_known = |id: &str| channels.iter().any(|channel| channel.id == id) || is_off(id);
        for letter in &mut self.queue {
            let is_old = |id: &str| letter.tried.get(id).is_some_and(|tried| tried.span() > GIVEN_UP_AFTER);
            let (go, stay): (Vec<_>, Vec<_>) = letter.to.drain(..).partition(|id| !is_known(id) || is_old(id));
            letter.to = stay;
            let message = letter.message.parts().0;
            given.extend(go.into_iter().map(|channel| {
                let why = match self.troubles.get(&channel).filter(|_| is_known(&channel)) {
                    Some(trouble) => format!("three days of trying were in vain, the last with: {}", trouble.said),
                    None => "its channel is not in the configuration any more".into(),
                };
                Dropped { channel, message: message.to_owned(), why }
            }));
        }
        self.queue.retain(|letter| !letter.to.is_empty());
        self.troubles.retain(|id, _| is_known(id));
        given
    }

    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// When a pause ends that something waits for, on one of the channels that can be used and are not `busy` already.
    /// What waits for a channel that is switched off is no reason to wake up: there is nothing to do about it.
    pub fn next(&self, channels: &[Channel], busy: impl Fn(&str) -> bool) -> Option<BootTime> {
        let waits = |id: &String| self.queue.iter().any(|letter| letter.to.contains(id));
        let usable = channels.iter().map(|channel| &channel.id).filter(|id| !busy(id) && waits(id));
        usable.filter_map(|id| Some(self.troubles.get(id)?.until)).min()
    }

    /// What each channel said last that did not take a message: the channel's id, and the rest in words.
    pub fn troubles(&self, now: BootTime) -> impl Iterator<Item = (&str, String)> {
        self.troubles.iter().map(move |(channel, trouble)| (channel.as_str(), trouble.in_words(now)))
    }

    pub fn shift(&mut self, ms: i64) {
        let posted = self.queue.iter_mut().map(|letter| &mut letter.posted);
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
    fn in_words(&self, now: BootTime) -> String {
        let (ago, said) = (rough(now.since(self.at)), &self.said);
        let tries = match self.failures {
            0 => return format!("dropped the last message, {ago} ago: {said}"),
            1 => "1 try".to_owned(),
            count => format!("{count} tries in {}", rough(now.since(self.since))),
        };
        format!("takes no message ({tries}); the last answer, {ago} ago: {said}")
    }
}

#[cfg(test)]
mod tests;

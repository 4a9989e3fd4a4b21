//! Messages that have not arrived everywhere yet. It computes only; whoever saves it with the state loses none.
//! It must stay bounded whatever happens to those who should take them, and keep their order on each channel.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Message;
use crate::config::Channel;
use crate::time::Wall;

/// Messages that wait at the most. A storm is folded before it gets here.
const MOST: usize = 100;
/// What could not be delivered for so long is given up.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(3 * 86_400);
/// What arrives later than this says so.
const LATE_AFTER: Duration = Duration::from_secs(300);
/// The pause after the first failure; it doubles with each further one, up to …
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// … this.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// What waits, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outbox {
    letters: VecDeque<Letter>,
    /// Channels whose last delivery failed.
    pauses: BTreeMap<String, Pause>,
}

/// A message and the channels that have not got it yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Letter {
    message: Message,
    to: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pause {
    failures: u32,
    since: Wall,
    until: Wall,
}

/// A message that will not arrive any more on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The channel's id.
    pub channel: String,
    /// The message's first line.
    pub message: String,
}

impl Outbox {
    /// Takes in a message for all channels that want its kind. What had to give way for it.
    pub fn post(&mut self, message: Message, channels: &[Channel]) -> Vec<Given> {
        let wanted = channels.iter().filter(|channel| channel.on.contains(&message.event));
        let to: Vec<String> = wanted.map(|channel| channel.id.clone()).collect();
        if to.is_empty() {
            return Vec::new();
        }
        self.letters.push_back(Letter { message, to });
        let mut given = Vec::new();
        while self.letters.len() > MOST {
            given.extend(self.letters.pop_front().into_iter().flat_map(Letter::given));
        }
        given
    }

    /// The message that is to be delivered on a channel now. Only the oldest one that waits there, for their order.
    pub fn due(&self, channel: &str, now: Wall) -> Option<Message> {
        // A pause from the future is one whose clock was set back since.
        if self.pauses.get(channel).is_some_and(|pause| pause.since <= now && now < pause.until) {
            return None;
        }
        let letter = self.letters.iter().find(|letter| letter.to.iter().any(|to| to == channel))?;
        let late = now.since(letter.message.at) > LATE_AFTER;
        Some(Message { late, ..letter.message.clone() })
    }

    /// A message that waits.
    pub fn message(&self, id: &str) -> Option<&Message> {
        self.letters.iter().map(|letter| &letter.message).find(|message| message.id == id)
    }

    /// It has arrived, or never will.
    pub fn done(&mut self, channel: &str, id: &str) {
        self.pauses.remove(channel);
        for letter in self.letters.iter_mut().filter(|letter| letter.message.id == id) {
            letter.to.retain(|to| to != channel);
        }
        self.letters.retain(|letter| !letter.to.is_empty());
    }

    /// It could not be delivered. `at_least`: how long whoever refused it wants to have peace.
    /// Whether that is the first failure in a row, and so is news.
    pub fn failed(&mut self, channel: &str, at_least: Option<Duration>, now: Wall) -> bool {
        let failures = self.pauses.get(channel).map_or(0, |pause| pause.failures).saturating_add(1);
        let pause = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(20)).min(LONGEST_PAUSE);
        let pause = pause.max(at_least.unwrap_or_default().min(LONGEST_PAUSE * 24));
        let until = now.shifted(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
        self.pauses.insert(channel.to_owned(), Pause { failures, since: now, until });
        failures == 1
    }

    /// Gives up what waits too long, and what is for channels that are no more.
    pub fn tidy(&mut self, channels: &[Channel], now: Wall) -> Vec<Given> {
        let mut given = Vec::new();
        for letter in &mut self.letters {
            let is_old = now.since(letter.message.at) > GIVEN_UP_AFTER;
            let is_known = |id: &String| channels.iter().any(|channel| channel.id == *id);
            let (stay, go): (Vec<_>, Vec<_>) = letter.to.drain(..).partition(|id| is_known(id) && !is_old);
            letter.to = go;
            given.extend(letter.clone().given());
            letter.to = stay;
        }
        self.letters.retain(|letter| !letter.to.is_empty());
        self.pauses.retain(|id, _| channels.iter().any(|channel| channel.id == *id));
        given
    }

    /// Messages that have not arrived everywhere.
    pub fn waiting(&self) -> usize {
        self.letters.len()
    }

    /// When a pause ends that something waits for, on a channel that is not `busy` already.
    pub fn next(&self, busy: impl Fn(&str) -> bool) -> Option<Wall> {
        let waits = |channel: &&String| !busy(channel) && self.letters.iter().any(|letter| letter.to.contains(channel));
        let ends = self.pauses.iter().filter(|(channel, _)| waits(channel)).map(|(_, pause)| pause.until);
        ends.min()
    }
}

impl Letter {
    fn given(self) -> impl Iterator<Item = Given> {
        let message = self.message.parts().0.to_owned();
        self.to.into_iter().map(move |channel| Given { channel, message: message.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CommandLine, Way};
    use crate::outcome::Topic;

    fn channel(id: &str, on: &[Topic]) -> Channel {
        let way = Way::Command(CommandLine::Shell("true".into()));
        Channel { id: id.into(), shown: id.into(), way, on: on.iter().copied().collect() }
    }

    fn message(id: &str, event: Topic, at: i64) -> Message {
        Message {
            id: id.into(),
            event,
            about: None,
            target: Some("a".into()),
            host: "h".into(),
            at: at_s(at),
            text: format!("[{id}] first\nmore"),
            class: None,
            detail: None,
            incident: None,
            attempts: None,
            down_ms: None,
            late: false,
        }
    }

    fn at_s(s: i64) -> Wall {
        Wall::from_ms(s * 1_000)
    }

    #[track_caller]
    fn due(outbox: &Outbox, channel: &str, at: i64, expected: &str) {
        let found = outbox.due(channel, at_s(at));
        let found = found.map_or("-".into(), |found| format!("{}{}", found.id, if found.late { " late" } else { "" }));
        assert_eq!(found, expected, "{channel} at {at}");
    }

    #[test]
    fn each_channel_gets_what_it_wants_in_order() {
        let all = [channel("x", &[Topic::Down, Topic::Up]), channel("y", &[Topic::Up])];
        let mut outbox = Outbox::default();
        assert_eq!(outbox.post(message("1", Topic::Down, 0), &all), []);
        outbox.post(message("2", Topic::Up, 1), &all);
        outbox.post(message("3", Topic::Warn, 2), &all);
        assert_eq!(outbox.waiting(), 2, "nobody wants to know of warnings");
        due(&outbox, "x", 3, "1");
        due(&outbox, "y", 3, "2");
        outbox.done("y", "2");
        due(&outbox, "y", 3, "-");
        due(&outbox, "x", 3, "1");
        outbox.done("x", "1");
        due(&outbox, "x", 400, "2 late");
        outbox.done("x", "2");
        assert_eq!((outbox.waiting(), outbox.next(|_| false)), (0, None));
    }

    #[test]
    fn pauses_grow_and_hold_up_one_channel_only() {
        let all = [channel("x", &[Topic::Down]), channel("y", &[Topic::Down])];
        let mut outbox = Outbox::default();
        outbox.post(message("1", Topic::Down, 0), &all);
        let mut at = 0;
        for (times, pause) in [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600].into_iter().enumerate() {
            assert_eq!(outbox.failed("x", None, at_s(at)), times == 0);
            assert_eq!(outbox.next(|_| false), Some(at_s(at + pause)));
            due(&outbox, "x", at + pause - 1, "-");
            at += pause;
            due(&outbox, "x", at, if at > 300 { "1 late" } else { "1" });
        }
        assert_eq!(outbox.next(|channel| channel == "x"), None, "what is delivered right now is not waited for");
        due(&outbox, "y", 1, "1");
        outbox.failed("y", Some(Duration::from_secs(100)), at_s(0));
        due(&outbox, "y", 99, "-");
        due(&outbox, "y", 100, "1");
        // A clock that was set back ends it: better too early than never.
        due(&outbox, "y", -1, "1");
        outbox.done("y", "1");
        assert!(outbox.failed("y", None, at_s(0)), "a success makes the next failure the first");
        assert_eq!(outbox.next(|_| false), Some(at_s(at)), "nothing waits for y");
    }

    #[test]
    fn what_can_never_arrive_is_given_up_and_told() {
        let all = [channel("x", &[Topic::Down]), channel("y", &[Topic::Down])];
        let mut outbox = Outbox::default();
        let given = |channel: &str, id: &str| Given { channel: channel.into(), message: format!("[{id}] first") };
        outbox.post(message("1", Topic::Down, 0), &all);
        outbox.post(message("2", Topic::Down, 100), &all);
        outbox.failed("x", None, at_s(100));
        assert_eq!(outbox.tidy(&all, at_s(3 * 86_400)), []);
        assert_eq!(outbox.tidy(&all, at_s(3 * 86_400 + 1)), [given("x", "1"), given("y", "1")]);
        assert_eq!(outbox.tidy(&all[1..], at_s(200)), [given("x", "2")]);
        assert_eq!(outbox, Outbox { letters: outbox.letters.clone(), pauses: BTreeMap::new() });
        for number in 3..102 {
            assert_eq!(outbox.post(message(&number.to_string(), Topic::Down, 200), &all[1..]), []);
        }
        assert_eq!(outbox.post(message("new", Topic::Down, 300), &all), [given("y", "2")]);
        assert_eq!(outbox.waiting(), MOST);
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let mut outbox = Outbox::default();
        outbox.post(message("1", Topic::Down, 0), &[channel("x", &[Topic::Down])]);
        outbox.failed("x", None, at_s(5));
        let text = serde_json::to_string(&outbox).expect("plain data");
        assert_eq!(serde_json::from_str::<Outbox>(&text).expect("what was written"), outbox);
    }
}

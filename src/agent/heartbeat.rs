//! The heartbeat: whoever waits for it learns from its absence that nobody watches any more. It has a schedule of its
//! own, which no interval and no hanging probe moves; but only the loop sends it, so that a loop that hangs does not.

use std::time::Duration;

use crate::clock;
use crate::notify;
use crate::time::Timestamp;

use super::jobs::Message;
use super::messenger::{DELIVERY, means};
use super::spawn::Job;
use super::{Agent, Mode};

/// A little under the minute that those who wait for it allow.
const EVERY: Duration = Duration::from_secs(55);

/// When it is sent.
#[derive(Default)]
pub(super) struct Heartbeat {
    /// A look has ended: a tick that looked at nothing has nothing to say.
    has_looked: bool,
    is_under_way: bool,
    /// The latest slot of the schedule that was used.
    slot: Option<Timestamp>,
    trouble: Option<String>,
}

impl Heartbeat {
    /// A look has ended.
    pub(super) fn note_look(&mut self) {
        self.has_looked = true;
    }

    /// Whether it is being sent.
    pub(super) fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    /// Whether it is to be sent now: by a daemon on its schedule, by a tick once all is done.
    fn is_due(&self, mode: Mode, is_done: bool, now: Timestamp) -> bool {
        match mode {
            Mode::Daemon => self.until_due(now) == Some(Duration::ZERO),
            Mode::Tick => self.slot.is_none() && self.has_looked && is_done && !self.is_under_way,
        }
    }

    /// How long until a daemon is to send it; nothing while it is being sent.
    fn until_due(&self, now: Timestamp) -> Option<Duration> {
        (!self.is_under_way).then(|| self.slot.map_or(Duration::ZERO, |slot| (slot + EVERY).since(now)))
    }

    fn begin(&mut self, now: Timestamp) {
        // What came a little late does not move the schedule; what was missed is not made up for.
        let next = self.slot.map(|slot| slot + EVERY).filter(|slot| now.since(*slot) < EVERY);
        (self.is_under_way, self.slot) = (true, Some(next.unwrap_or(now)));
    }
}

impl Agent {
    /// Whether a ping is to be sent now.
    pub(super) fn owes_ping(&self, now: Timestamp) -> bool {
        let is_wanted = self.config.heartbeat.is_some() && !self.is_displaced();
        is_wanted && self.heartbeat.is_due(self.mode, self.policy.is_idle(), now)
    }

    /// How long until a ping is to be sent.
    pub(super) fn until_ping(&self, now: Timestamp) -> Option<Duration> {
        let is_wanted = self.config.heartbeat.is_some() && self.mode == Mode::Daemon;
        self.heartbeat.until_due(now).filter(|_| is_wanted)
    }

    /// Sends a ping where one is due.
    pub(super) fn ping(&mut self) {
        let now = clock::now();
        let Some(webhook) = self.config.heartbeat.clone().filter(|_| self.owes_ping(now)) else { return };
        self.heartbeat.begin(now);
        let means = means(&self.config);
        let job = Job {
            name: "heartbeat",
            of: String::new(),
            within: DELIVERY,
            outlives_us: false,
            otherwise: Box::new(|why| Message::Pinged(Err(why.to_string()))),
        };
        self.jobs.spawn(job, move |_| Message::Pinged(notify::ping(&webhook, &means)));
    }

    /// What became of a ping.
    pub(super) fn pinged(&mut self, outcome: Result<(), String>) {
        self.heartbeat.is_under_way = false;
        let trouble = outcome.err();
        match (&trouble, &self.heartbeat.trouble) {
            (Some(why), None) => log::warn!("the heartbeat does not arrive: {why} (tried again each minute)"),
            (None, Some(_)) => log::info!("the heartbeat arrives again"),
            _ => {}
        }
        self.heartbeat.trouble = trouble;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_ms(seconds * 1_000)
    }

    /// A daemon whose loop wakes for nothing but the heartbeat; each ping takes so long.
    #[track_caller]
    fn check_daemon(took: i64, wakes_late: i64, expected: &[i64]) {
        let mut heartbeat = Heartbeat::default();
        let (mut now, mut sent) = (1_000_000, Vec::new());
        for _ in expected {
            let wait = heartbeat.until_due(at(now)).expect("nothing is under way");
            now += i64::try_from(wait.as_secs()).expect("a minute") + wakes_late;
            assert!(heartbeat.is_due(Mode::Daemon, false, at(now)), "{now}");
            heartbeat.begin(at(now));
            assert_eq!(heartbeat.until_due(at(now)), None, "one at a time");
            assert!(!heartbeat.is_due(Mode::Daemon, false, at(now + 100)));
            sent.push(now - 1_000_000);
            now += took;
            heartbeat.is_under_way = false;
        }
        assert_eq!(sent, expected);
    }

    #[test]
    fn a_daemon_pings_within_each_minute_whatever_else_it_does() {
        check_daemon(0, 0, &[0, 55, 110, 165]);
        check_daemon(10, 0, &[0, 55, 110, 165]);
        check_daemon(0, 3, &[3, 61, 116, 171]);
        check_daemon(200, 0, &[0, 200, 400]);
    }

    #[test]
    fn a_tick_pings_once_when_all_is_done() {
        let mut heartbeat = Heartbeat::default();
        assert!(!heartbeat.is_due(Mode::Tick, true, at(0)), "it has looked at nothing yet");
        heartbeat.note_look();
        assert!(!heartbeat.is_due(Mode::Tick, false, at(1)), "it is not done");
        assert!(heartbeat.is_due(Mode::Tick, true, at(2)));
        heartbeat.begin(at(2));
        heartbeat.is_under_way = false;
        assert!(!heartbeat.is_due(Mode::Tick, true, at(3_600)));
    }
}

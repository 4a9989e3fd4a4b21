//! The heartbeat: whoever waits for it learns from its absence that nobody watches any more. It has a schedule of its
//! own, which no interval and no hanging probe moves; but only the loop sends it, so that a loop that hangs does not.

use std::time::Duration;

use crate::clock;
use crate::notify;
use crate::policy::Mode;
use crate::time::BootTime;

use super::Agent;
use super::message::Message;
use super::messenger::{DELIVERY, delivery_of};
use super::spawn::JobSpec;

/// A little under the minute that those who wait for it allow.
const EVERY: Duration = Duration::from_secs(55);
/// One that did not arrive is sent again after this: the next one would be too late for those who wait.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Heartbeat {
    /// A look has ended: a tick that looked at nothing has nothing to say.
    has_probed: bool,
    is_under_way: bool,
    /// The latest slot of the schedule that was used.
    slot: Option<BootTime>,
    /// When one that did not arrive is sent again.
    again: Option<BootTime>,
    trouble: Option<String>,
}

impl Heartbeat {
    pub(super) fn note_probe(&mut self) {
        self.has_probed = true;
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    fn is_due(&self, mode: Mode, is_done: bool, now: BootTime) -> bool {
        match mode {
            Mode::Daemon => self.until_due(now) == Some(Duration::ZERO),
            Mode::Once => self.slot.is_none() && self.has_probed && is_done && !self.is_under_way,
        }
    }

    /// How long until a daemon is to send it; nothing while it is being sent.
    fn until_due(&self, now: BootTime) -> Option<Duration> {
        let scheduled = self.slot.map_or(Duration::ZERO, |slot| (slot + EVERY).since(now));
        let again = self.again.map(|at| at.since(now));
        (!self.is_under_way).then(|| again.map_or(scheduled, |again| again.min(scheduled)))
    }

    fn begin(&mut self, now: BootTime) {
        // Neither what came a little late nor what is sent again moves the schedule. What was missed is missed.
        self.slot = Some(match self.slot {
            Some(slot) if now < slot + EVERY => slot,
            Some(slot) if now.since(slot + EVERY) < EVERY => slot + EVERY,
            Some(_) | None => now,
        });
        (self.is_under_way, self.again) = (true, None);
    }

    fn ended(&mut self, has_arrived: bool, now: BootTime) {
        self.is_under_way = false;
        self.again = (!has_arrived).then(|| now + AGAIN_AFTER);
    }
}

impl Agent {
    pub(super) fn owes_ping(&self, now: BootTime) -> bool {
        let is_wanted = self.config.heartbeat.is_some() && !self.journal.is_displaced();
        is_wanted && self.heartbeat.is_due(self.mode, self.is_done(), now)
    }

    pub(super) fn until_ping(&self, now: BootTime) -> Option<Duration> {
        let is_wanted = self.config.heartbeat.is_some() && self.mode == Mode::Daemon;
        self.heartbeat.until_due(now).filter(|_| is_wanted)
    }

    pub(super) fn ping(&mut self) {
        let now = clock::now();
        let Some(webhook) = self.config.heartbeat.clone().filter(|_| self.owes_ping(now)) else { return };
        self.heartbeat.begin(now);
        let delivery = delivery_of(&self.config);
        let job = JobSpec {
            name: "heartbeat",
            of: String::new(),
            by: String::new(),
            within: DELIVERY,
            outlives_us: false,
            otherwise: Box::new(|why| Message::Pinged(Err(why.to_string()))),
        };
        self.jobs.spawn(job, move |_| Message::Pinged(notify::ping(&webhook, &delivery)));
    }

    pub(super) fn pinged(&mut self, outcome: Result<(), String>) {
        self.heartbeat.ended(outcome.is_ok(), clock::now());
        let trouble = outcome.err();
        match (&trouble, &self.heartbeat.trouble) {
            (Some(why), None) => log::warn!("the heartbeat does not arrive: {why} (tried again soon)"),
            (None, Some(_)) => log::info!("the heartbeat arrives again"),
            _ => {}
        }
        self.heartbeat.trouble = trouble;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> BootTime {
        BootTime::from_ms(seconds * 1_000)
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
            heartbeat.ended(true, at(now));
        }
        assert_eq!(sent, expected);
    }

    #[test]
    fn one_that_is_lost_is_sent_again_and_moves_no_other() {
        let mut heartbeat = Heartbeat::default();
        heartbeat.begin(at(0));
        heartbeat.ended(false, at(3));
        assert_eq!(heartbeat.until_due(at(3)), Some(Duration::from_secs(10)));
        heartbeat.begin(at(13));
        heartbeat.ended(true, at(14));
        assert_eq!(heartbeat.until_due(at(14)), Some(Duration::from_secs(41)));
        heartbeat.begin(at(55));
        heartbeat.ended(false, at(58));
        heartbeat.begin(at(68));
        heartbeat.ended(false, at(107));
        assert_eq!(heartbeat.until_due(at(107)), Some(Duration::from_secs(3)), "the next one is due sooner");
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
        assert!(!heartbeat.is_due(Mode::Once, true, at(0)), "it has looked at nothing yet");
        heartbeat.note_probe();
        assert!(!heartbeat.is_due(Mode::Once, false, at(1)), "it is not done");
        assert!(heartbeat.is_due(Mode::Once, true, at(2)));
        heartbeat.begin(at(2));
        heartbeat.is_under_way = false;
        assert!(!heartbeat.is_due(Mode::Once, true, at(3_600)));
    }
}

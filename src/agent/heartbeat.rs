//! Sends the heartbeat, whose absence shows that the watchdog or its host is dead. Only the loop may start it, so that
//! a hanging loop sends none; its schedule must not depend on any target's interval or probe.

use std::time::Duration;

use crate::clock;
use crate::notify;
use crate::policy::Mode;
use crate::time::BootTime;

use super::Agent;
use super::message::Message;
use super::messenger::{DELIVERY_TIMEOUT, delivery_settings};
use super::pool::JobSpec;

/// A little under the minute that the contract promises.
const INTERVAL: Duration = Duration::from_secs(55);
/// A heartbeat that did not arrive is sent again after this: the next regular one would be too late for the receiver.
const RETRY_AFTER: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Heartbeat {
    /// A tick that has made no probe sends no heartbeat.
    has_probed: bool,
    is_being_sent: bool,
    /// When the latest regular heartbeat was due.
    slot: Option<BootTime>,
    /// When a heartbeat that did not arrive is sent again.
    retry_at: Option<BootTime>,
    error: Option<String>,
}

impl Heartbeat {
    pub(super) fn note_probe(&mut self) {
        self.has_probed = true;
    }

    pub(super) fn is_being_sent(&self) -> bool {
        self.is_being_sent
    }

    fn is_due(&self, mode: Mode, is_done: bool, now: BootTime) -> bool {
        match mode {
            Mode::Daemon => self.until_due(now) == Some(Duration::ZERO),
            Mode::Once => self.slot.is_none() && self.has_probed && is_done && !self.is_being_sent,
        }
    }

    /// How long until a daemon must send it; `None` while it is being sent.
    fn until_due(&self, now: BootTime) -> Option<Duration> {
        let scheduled = self.slot.map_or(Duration::ZERO, |slot| (slot + INTERVAL).since(now));
        let retry = self.retry_at.map(|at| at.since(now));
        (!self.is_being_sent).then(|| retry.map_or(scheduled, |retry| retry.min(scheduled)))
    }

    fn begin_sending(&mut self, now: BootTime) {
        // Neither a short delay nor a retry moves the schedule. A missed slot is skipped.
        self.slot = Some(match self.slot {
            Some(slot) if now < slot + INTERVAL => slot,
            Some(slot) if now.since(slot + INTERVAL) < INTERVAL => slot + INTERVAL,
            Some(_) | None => now,
        });
        (self.is_being_sent, self.retry_at) = (true, None);
    }

    fn finish(&mut self, has_arrived: bool, now: BootTime) {
        self.is_being_sent = false;
        self.retry_at = (!has_arrived).then(|| now + RETRY_AFTER);
    }
}

impl Agent {
    pub(super) fn is_heartbeat_due(&self, now: BootTime) -> bool {
        let is_wanted = self.config.heartbeat.is_some() && !self.journal.is_displaced();
        is_wanted && self.heartbeat.is_due(self.mode, self.is_done(), now)
    }

    pub(super) fn until_heartbeat(&self, now: BootTime) -> Option<Duration> {
        let is_wanted = self.config.heartbeat.is_some() && self.mode == Mode::Daemon;
        self.heartbeat.until_due(now).filter(|_| is_wanted)
    }

    pub(super) fn send_heartbeat(&mut self) {
        let now = clock::now();
        let Some(webhook) = self.config.heartbeat.clone().filter(|_| self.is_heartbeat_due(now)) else { return };
        self.heartbeat.begin_sending(now);
        let delivery = delivery_settings(&self.config);
        let job = JobSpec {
            name: "heartbeat",
            subject: String::new(),
            variant: String::new(),
            timeout: DELIVERY_TIMEOUT,
            outlives_watchdog: false,
            on_failure: Box::new(|why| Message::HeartbeatSent(Err(why.to_string()))),
        };
        self.jobs.spawn(job, move |_| Message::HeartbeatSent(notify::ping(&webhook, &delivery)));
    }

    pub(super) fn heartbeat_sent(&mut self, outcome: Result<(), String>) {
        self.heartbeat.finish(outcome.is_ok(), clock::now());
        let error = outcome.err();
        match (&error, &self.heartbeat.error) {
            (Some(why), None) => {
                log::warn!("cannot send the heartbeat: {why} (retried; its receiver may report the watchdog as dead)")
            }
            (None, Some(_)) => log::info!("the heartbeat can be sent again"),
            _ => {}
        }
        self.heartbeat.error = error;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> BootTime {
        BootTime::from_ms(seconds * 1_000)
    }

    /// A daemon whose loop wakes for the heartbeat only, and `wakes_late` seconds late; each ping takes `ping_s`
    /// seconds.
    #[track_caller]
    fn check_daemon(ping_s: i64, wakes_late: i64, expected: &[i64]) {
        let mut heartbeat = Heartbeat::default();
        let (mut now, mut sent) = (1_000_000, Vec::new());
        for _ in expected {
            let wait = heartbeat.until_due(at(now)).expect("none is being sent");
            now += i64::try_from(wait.as_secs()).expect("a minute") + wakes_late;
            assert!(heartbeat.is_due(Mode::Daemon, false, at(now)), "{now}");
            heartbeat.begin_sending(at(now));
            assert_eq!(heartbeat.until_due(at(now)), None, "one at a time");
            assert!(!heartbeat.is_due(Mode::Daemon, false, at(now + 100)));
            sent.push(now - 1_000_000);
            now += ping_s;
            heartbeat.finish(true, at(now));
        }
        assert_eq!(sent, expected);
    }

    #[test]
    fn a_lost_heartbeat_is_sent_again_without_moving_the_schedule() {
        let mut heartbeat = Heartbeat::default();
        heartbeat.begin_sending(at(0));
        heartbeat.finish(false, at(3));
        assert_eq!(heartbeat.until_due(at(3)), Some(Duration::from_secs(10)));
        heartbeat.begin_sending(at(13));
        heartbeat.finish(true, at(14));
        assert_eq!(heartbeat.until_due(at(14)), Some(Duration::from_secs(41)));
        heartbeat.begin_sending(at(55));
        heartbeat.finish(false, at(58));
        heartbeat.begin_sending(at(68));
        heartbeat.finish(false, at(107));
        assert_eq!(heartbeat.until_due(at(107)), Some(Duration::from_secs(3)), "the next one is due sooner");
    }

    #[test]
    fn a_daemon_sends_a_heartbeat_each_minute() {
        check_daemon(0, 0, &[0, 55, 110, 165]);
        check_daemon(10, 0, &[0, 55, 110, 165]);
        check_daemon(0, 3, &[3, 61, 116, 171]);
        check_daemon(200, 0, &[0, 200, 400]);
    }

    #[test]
    fn a_tick_sends_one_heartbeat_when_its_work_is_done() {
        let mut heartbeat = Heartbeat::default();
        assert!(!heartbeat.is_due(Mode::Once, true, at(0)), "it has made no probe yet");
        heartbeat.note_probe();
        assert!(!heartbeat.is_due(Mode::Once, false, at(1)), "its work is not done");
        assert!(heartbeat.is_due(Mode::Once, true, at(2)));
        heartbeat.begin_sending(at(2));
        heartbeat.is_being_sent = false;
        assert!(!heartbeat.is_due(Mode::Once, true, at(3_600)));
    }
}

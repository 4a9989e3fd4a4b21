//! Reads PM2's own log once a minute, and counts the restarts in it that PM2 made by itself. The reading is a job,
//! since the home may be on a file server that does not respond. It must never count one restart twice: how far the log
//! was read is saved together with the counts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
use crate::outcome::Pm2Restart;
use crate::pm2::{Home, LogRead};
use crate::policy::TargetState;
use crate::time::{BootTime, ClockReading};

use super::Agent;
use super::journal::Durability;
use super::message::Message;
use super::pool::JobSpec;

const INTERVAL: Duration = Duration::from_secs(60);
/// Between two reads of a log of which one read takes only a part.
const PART_INTERVAL: Duration = Duration::from_secs(1);
/// A read of 4 MiB takes longer only if a file server does not respond.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a tick waits for its read. Without the result, the next tick reads the same lines.
const TICK_WAIT: Duration = Duration::from_secs(5);
/// What the watchdog's commands told to end may do so a moment later.
const AFTER_ATTEMPT: Duration = Duration::from_secs(1);
/// Of an attempt before the last one, only the beginning is known.
const EARLIER_ATTEMPT: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct LogReaders {
    /// The homes whose log is being read, and when the latest read began.
    reading: BTreeSet<PathBuf>,
    began: Option<BootTime>,
    /// When the logs are read next; none before the first time.
    next: Option<BootTime>,
}

impl LogReaders {
    /// Whether a tick should wait for a read.
    pub(super) fn is_awaited(&self, now: BootTime) -> bool {
        !self.reading.is_empty() && self.began.is_some_and(|began| now.since(began) < TICK_WAIT)
    }

    /// How long until the next read, or until a tick stops waiting for one.
    pub(super) fn until_due(&self, now: BootTime) -> Option<Duration> {
        let wait_end = self.began.filter(|_| self.is_awaited(now)).map(|began| began + TICK_WAIT);
        [self.next, wait_end].into_iter().flatten().map(|at| at.since(now)).min()
    }
}

impl Agent {
    /// Starts the reads that are due. A home whose last read has not ended is left out.
    pub(super) fn read_pm2_logs(&mut self, now: BootTime) {
        if self.log_readers.next.is_some_and(|next| next > now) {
            return;
        }
        self.log_readers.next = Some(now + INTERVAL);
        let homes = self.config.targets.iter().filter_map(|target| target.pm2.as_ref()).map(|pm2| pm2.home.clone());
        let homes: BTreeSet<PathBuf> = homes.collect();
        self.journal.saved.pm2_logs.retain(|home, _| homes.contains(home));
        for home in homes {
            if self.log_readers.reading.insert(home.clone()) {
                self.log_readers.began = Some(now);
                self.read_pm2_log(home);
            }
        }
    }

    fn read_pm2_log(&mut self, home: PathBuf) {
        let state = self.journal.saved.pm2_logs.get(&home).cloned().unwrap_or_default();
        let (zone, failed) = (self.zone, home.clone());
        let job = JobSpec {
            name: "reading of PM2's log",
            subject: home.display().to_string(),
            variant: String::new(),
            timeout: READ_TIMEOUT,
            outlives_watchdog: false,
            on_failure: Box::new(move |why| {
                log::debug!("PM2's log in {} was not read: {why}", failed.display());
                Message::Pm2LogRead { home: failed, read: None }
            }),
        };
        self.jobs.spawn(job, move |_| {
            let read = Home::at(&home).read_restarts(state, clock::wall(), zone);
            Message::Pm2LogRead { home, read: Some(Box::new(read)) }
        });
    }

    pub(super) fn pm2_log_read(&mut self, home: PathBuf, read: Option<LogRead>) {
        self.log_readers.reading.remove(&home);
        let Some(LogRead { state, restarts, has_more }) = read else { return };
        if has_more {
            self.log_readers.next = Some(clock::now() + PART_INTERVAL);
        }
        let at = clock::read();
        let restarts: Vec<(String, Pm2Restart)> = restarts
            .into_iter()
            .filter_map(|restart| Some((self.restarted_target(&home, &restart, at)?, restart)))
            .collect();
        for (target, restart) in &restarts {
            self.load_history_for(restart.at);
            self.journal.saved.history.record_restart(target, &restart.reason, restart.at);
        }
        self.journal.saved.pm2_logs.insert(home, state);
        if !restarts.is_empty() {
            self.journal.request_save(Durability::ProcessCrash);
            self.publisher.note_change(true);
        }
    }

    /// The target whose process PM2 restarted; none if it is not watched, or if one of its restart commands ended the
    /// process.
    fn restarted_target(&self, home: &Path, restart: &Pm2Restart, at: ClockReading) -> Option<String> {
        let is_watched = |pm2: &crate::config::Pm2Config| pm2.home == home && pm2.process == restart.process;
        let target = self.config.targets.iter().find(|target| target.pm2.as_ref().is_some_and(is_watched))?;
        let ended = at.now.offset_by(-crate::time::millis(at.wall.since(restart.ended)));
        let is_ordered = self.policy.target(&target.name).is_some_and(|state| was_in_attempt(state, ended));
        (!is_ordered).then(|| target.name.clone())
    }
}

/// Whether an attempt ran at this time, which was read from a text with whole seconds.
fn was_in_attempt(state: &TargetState, at: BootTime) -> bool {
    let history = &state.real;
    history.starts.iter().enumerate().any(|(index, start)| {
        let is_last = index + 1 == history.starts.len();
        let end = match history.last_end.filter(|end| is_last && end >= start) {
            Some(end) => end + AFTER_ATTEMPT,
            None if is_last && state.attempt.is_some() => return at + Duration::from_secs(1) >= *start,
            None => *start + EARLIER_ATTEMPT,
        };
        at + Duration::from_secs(1) >= *start && at <= end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_attempt_ended_is_not_a_restart_by_pm2() {
        let second = |seconds: i64| BootTime::from_ms(seconds * 1_000);
        let check = |starts: &[i64], last_end: Option<i64>, at: i64, expected: bool| {
            let mut state = TargetState::default();
            state.real.starts = starts.iter().map(|start| second(*start)).collect();
            state.real.last_end = last_end.map(second);
            assert_eq!(was_in_attempt(&state, second(at)), expected, "{at}");
        };
        check(&[], None, 5, false);
        check(&[100], Some(110), 98, false);
        check(&[100], Some(110), 99, true);
        check(&[100], Some(110), 111, true);
        check(&[100], Some(110), 112, false);
        check(&[100, 200], Some(210), 160, true);
        check(&[100, 200], Some(210), 161, false);
        check(&[100], None, 160, true);
    }
}

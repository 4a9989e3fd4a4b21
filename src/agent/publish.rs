//! The page and the metrics: written on each change and once a minute, by a thread, for they may lie on a file server
//! that hangs. A tick waits for them, but not for long.

use std::path::PathBuf;
use std::time::Duration;

use crate::clock;
use crate::policy::{Mode, Record, State};
use crate::store::past::{self, Closed};
use crate::store::publish::publish;
use crate::time::{ClockReading, Timestamp, Wall};
use crate::view::metrics::Metrics;
use crate::view::page::{self, Page};

use super::Agent;
use super::message::Message;
use super::spawn::Job;

/// Without a change they are written this often.
const EVERY: Duration = Duration::from_secs(60);
/// And with many changes no more often than this.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// Two small files that take longer than this lie on a file server that gives no answer.
const WRITING: Duration = Duration::from_secs(30);
/// A tick waits no longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is being published.
#[derive(Default)]
pub(super) struct Publisher {
    /// Something has changed since.
    has_changed: bool,
    last: Option<Timestamp>,
    under_way: Option<Timestamp>,
    /// The latest incidents that are over, oldest first, once they were read.
    latest: Option<Vec<Closed>>,
    trouble: Option<String>,
}

impl Publisher {
    /// Remembers whether what is shown has changed.
    pub(super) fn note(&mut self, has_changed: bool) {
        self.has_changed |= has_changed;
    }

    /// An incident is over.
    pub(super) fn note_end(&mut self, closed: &Closed) {
        if let Some(latest) = &mut self.latest {
            latest.push(closed.clone());
            let more = latest.len().saturating_sub(page::INCIDENTS);
            latest.drain(..more);
        }
    }

    /// Whether a tick has to wait.
    pub(super) fn is_at_work(&self, now: Timestamp) -> bool {
        self.under_way.is_some_and(|since| now.since(since) < PATIENCE)
    }
}

impl Agent {
    /// Counts for the metrics, and remembers that what is shown has changed.
    pub(super) fn count(&mut self, target: &str, record: &Record) {
        self.publisher.note(true);
        let Some(counts) =
            self.journal.saved.shown.contains_key(target).then(|| self.journal.saved.counts.entry(target.to_owned()))
        else {
            return;
        };
        let attempt = self.policy.target(target).and_then(|state| state.attempt.as_ref());
        match record {
            Record::Down { .. } => counts.or_default().incidents += 1,
            // Not each further command of an attempt.
            Record::Restart { rung, .. } if attempt.is_none_or(|attempt| attempt.first == *rung) => {
                counts.or_default().attempts += 1;
            }
            _ => {}
        }
    }

    /// An attempt that was counted is not made after all.
    pub(super) fn uncount(&mut self, target: &str) {
        if let Some(counts) = self.journal.saved.counts.get_mut(target) {
            counts.attempts = counts.attempts.saturating_sub(1);
        }
    }

    /// Whether something is to be written now.
    pub(super) fn owes_publication(&self, now: Timestamp) -> bool {
        let is_wanted = self.config.page.is_some() || self.config.metrics.is_some();
        let age = self.publisher.last.map(|at| now.since(at));
        let is_time = match self.mode {
            // A tick writes once, when all is done.
            Mode::Once => age.is_none() && self.policy.is_idle(),
            Mode::Daemon => age.is_none_or(|age| age >= EVERY || (self.publisher.has_changed && age >= AT_MOST_EVERY)),
        };
        is_wanted && is_time && self.publisher.under_way.is_none() && !self.journal.is_displaced()
    }

    /// How long until something is to be written, or a tick stops waiting for it.
    pub(super) fn until_publication(&self, now: Timestamp) -> Option<Duration> {
        if self.config.page.is_none() && self.config.metrics.is_none() {
            return None;
        }
        if let Some(since) = self.publisher.under_way {
            return Some((since + PATIENCE).since(now)).filter(|left| !left.is_zero());
        }
        let every = if self.publisher.has_changed { AT_MOST_EVERY } else { EVERY };
        let next = self.publisher.last.map_or(now, |at| at + every);
        (self.mode == Mode::Daemon).then(|| next.since(now))
    }

    /// Writes what is due, on a thread.
    pub(super) fn publish(&mut self) {
        let now = clock::now();
        if !self.owes_publication(now) {
            return;
        }
        let files = self.publications(false);
        (self.publisher.last, self.publisher.under_way) = (Some(now), Some(now));
        self.publisher.has_changed = false;
        let names = files.iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>().join(", ");
        let job = Job {
            name: "publisher",
            of: String::new(),
            by: String::new(),
            within: WRITING,
            outlives_us: false,
            otherwise: Box::new(move |why| Message::Published(Some(format!("cannot write {names}: {why}")))),
        };
        self.jobs.spawn(job, move |_| {
            let results = files.into_iter().map(|(path, text)| publish(&path, &text));
            let errors: Vec<String> = results.filter_map(Result::err).map(|error| error.to_string()).collect();
            Message::Published((!errors.is_empty()).then(|| errors.join("; ")))
        });
    }

    /// The last page of a daemon that was told to stop says so.
    pub(super) fn publish_end(&mut self) {
        for (path, text) in self.publications(true) {
            if let Err(error) = publish(&path, &text) {
                log::warn!("{error} (it still says that somebody watches)");
            }
        }
    }

    /// What was written, or why not.
    pub(super) fn published(&mut self, trouble: Option<String>) {
        self.publisher.under_way = None;
        match (&trouble, &self.publisher.trouble) {
            (Some(error), None) => log::warn!("{error} (tried again every minute)"),
            (None, Some(_)) => log::info!("the page and the metrics can be written again"),
            _ => {}
        }
        self.publisher.trouble = trouble;
    }

    fn publications(&mut self, is_over: bool) -> Vec<(PathBuf, String)> {
        let (now, wall) = (clock::now(), clock::wall());
        self.journal.saved.policy = self.policy.state();
        let files = self.texts(is_over, now, wall);
        self.journal.saved.policy = State::default();
        files
    }

    fn texts(&mut self, is_over: bool, now: Timestamp, wall: Wall) -> Vec<(PathBuf, String)> {
        let mut files = Vec::new();
        if let Some(metrics) = &self.config.metrics {
            files.push((metrics.clone(), Metrics { saved: &self.journal.saved, wall }.text()));
        }
        if let Some(page) = self.config.page.clone() {
            // What cannot be read is not on the page; whoever saves it has said so.
            let _ = self.journal.complete_history();
            let past = self.publisher.latest.get_or_insert_with(|| {
                let days = Duration::from_secs(86_400 * page::DAYS.unsigned_abs());
                let mut past = past::read(self.journal.folder(), days, wall).unwrap_or_default();
                past.drain(..past.len().saturating_sub(page::INCIDENTS));
                past
            });
            let shown = Page {
                saved: &self.journal.saved,
                past,
                host: self.messenger.host(),
                details: page.details,
                is_over,
                at: ClockReading { now, wall },
                zone: self.zone,
            };
            let html = shown.html();
            files.push((page.file, self.config.secrets.strike(&html).into_owned()));
        }
        files
    }
}

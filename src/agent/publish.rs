//! The page and the metrics: written on each change and once a minute, by a thread, for they may lie on a file server
//! that hangs. A tick waits for them, but not for long.

use std::path::PathBuf;
use std::time::Duration;

use crate::clock;
use crate::policy::{Mode, State};
use crate::store::Folder;
use crate::store::closed_incidents::{self, ClosedIncident};
use crate::store::publish::publish;
use crate::time::{BootTime, WallTime};
use crate::view::metrics::Metrics;
use crate::view::page::{self, Page};

use super::Agent;
use super::message::Message;
use super::pool::JobSpec;

/// Without a change they are written this often.
const INTERVAL: Duration = Duration::from_secs(60);
/// And with many changes no more often than this.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Two small files that take longer than this lie on a file server that gives no answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// A tick waits no longer than this.
const TICK_WAIT: Duration = Duration::from_secs(5);

/// What is being published.
#[derive(Default)]
pub(super) struct Publisher {
    /// Something has changed since.
    has_changed: bool,
    last_begun: Option<BootTime>,
    writing_since: Option<BootTime>,
    /// The latest incidents that are over, oldest first, once they were read.
    latest: Option<Vec<ClosedIncident>>,
    error: Option<String>,
}

/// A file's place and its new content.
type Publication = (PathBuf, String);

impl Publisher {
    /// Remembers whether what is shown has changed.
    pub(super) fn note_change(&mut self, has_changed: bool) {
        self.has_changed |= has_changed;
    }

    /// An incident is over.
    pub(super) fn note_closed(&mut self, closed: &ClosedIncident) {
        if let Some(latest) = &mut self.latest {
            latest.push(closed.clone());
            let more = latest.len().saturating_sub(page::INCIDENTS);
            latest.drain(..more);
        }
    }

    /// Whether a tick has to wait.
    pub(super) fn is_awaited(&self, now: BootTime) -> bool {
        self.writing_since.is_some_and(|since| now.since(since) < TICK_WAIT)
    }

    /// Whether something is to be written now. A tick writes once, when all is done.
    fn is_due(&self, mode: Mode, is_done: bool, now: BootTime) -> bool {
        let age = self.last_begun.map(|at| now.since(at));
        let is_time = match mode {
            Mode::Once => age.is_none() && is_done,
            Mode::Daemon => age.is_none_or(|age| age >= INTERVAL || (self.has_changed && age >= MIN_INTERVAL)),
        };
        is_time && self.writing_since.is_none()
    }

    /// How long until something is to be written, or a tick stops waiting for it.
    fn until_due(&self, mode: Mode, now: BootTime) -> Option<Duration> {
        if let Some(since) = self.writing_since {
            return Some((since + TICK_WAIT).since(now)).filter(|left| !left.is_zero());
        }
        let every = if self.has_changed { MIN_INTERVAL } else { INTERVAL };
        let next = self.last_begun.map_or(now, |at| at + every);
        (mode == Mode::Daemon).then(|| next.since(now))
    }

    fn begin_writing(&mut self, now: BootTime) {
        (self.last_begun, self.writing_since, self.has_changed) = (Some(now), Some(now), false);
    }

    /// What was written, or why not.
    pub(super) fn finish_writing(&mut self, trouble: Option<String>) {
        self.writing_since = None;
        match (&trouble, &self.error) {
            (Some(error), None) => log::warn!("{error} (tried again every minute)"),
            (None, Some(_)) => log::info!("the page and the metrics can be written again"),
            _ => {}
        }
        self.error = trouble;
    }

    /// The latest incidents that are over, as the page shows them.
    fn latest_incidents(&mut self, folder: &Folder, wall: WallTime) -> &[ClosedIncident] {
        self.latest.get_or_insert_with(|| {
            let days = Duration::from_secs(86_400 * page::DAYS.unsigned_abs());
            let mut past = closed_incidents::read(folder, days, wall).unwrap_or_default();
            past.drain(..past.len().saturating_sub(page::INCIDENTS));
            past
        })
    }
}

impl Agent {
    /// Whether something is to be written now.
    pub(super) fn is_publication_due(&self, now: BootTime) -> bool {
        let is_wanted = self.config.page.is_some() || self.config.metrics.is_some();
        is_wanted && !self.journal.is_displaced() && self.publisher.is_due(self.mode, self.is_done(), now)
    }

    /// How long until something is to be written, or a tick stops waiting for it.
    pub(super) fn until_publication(&self, now: BootTime) -> Option<Duration> {
        let is_wanted = self.config.page.is_some() || self.config.metrics.is_some();
        self.publisher.until_due(self.mode, now).filter(|_| is_wanted)
    }

    /// Writes what is due, on a thread.
    pub(super) fn start_publishing(&mut self) {
        let now = clock::now();
        if !self.is_publication_due(now) {
            return;
        }
        let files = self.publications(false);
        self.publisher.begin_writing(now);
        let names = files.iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>().join(", ");
        let job = JobSpec {
            name: "publisher",
            subject: String::new(),
            variant: String::new(),
            timeout: WRITE_TIMEOUT,
            outlives_watchdog: false,
            on_failure: Box::new(move |why| Message::Published(Some(format!("cannot write {names}: {why}")))),
        };
        self.jobs.spawn(job, move |_| {
            let results = files.into_iter().map(|(path, text)| publish(&path, &text));
            let errors: Vec<String> = results.filter_map(Result::err).map(|error| error.to_string()).collect();
            Message::Published((!errors.is_empty()).then(|| errors.join("; ")))
        });
    }

    /// The last page of a daemon that was told to stop says so.
    pub(super) fn publish_final_page(&mut self) {
        for (path, text) in self.publications(true) {
            if let Err(error) = publish(&path, &text) {
                log::warn!("{error} (it still says that somebody watches)");
            }
        }
    }

    fn publications(&mut self, is_over: bool) -> Vec<Publication> {
        let (at, mut files) = (clock::read(), Vec::new());
        if self.config.page.is_some() {
            // What cannot be read is not on the page; whoever saves it has said so.
            let _ = self.journal.complete_history();
        }
        self.journal.saved.policy = self.policy.state();
        let saved = &self.journal.saved;
        if let Some(metrics) = &self.config.metrics {
            files.push((metrics.clone(), Metrics { saved, wall: at.wall }.text()));
        }
        if let Some(page) = &self.config.page {
            let past = self.publisher.latest_incidents(self.journal.folder(), at.wall);
            let (host, details) = (self.messenger.host(), page.details);
            let shown = Page { saved, past, host, details, is_over, at, zone: self.zone };
            files.push((page.file.clone(), self.config.secrets.redact(&shown.html()).into_owned()));
        }
        self.journal.saved.policy = State::default();
        files
    }
}

//! Writes the page and the metrics, on each change and once a minute. They may be on a file server that hangs, so while
//! the loop runs only a job writes them, and a tick waits for it 5 s at most.

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

/// How often they are written without a change.
const INTERVAL: Duration = Duration::from_secs(60);
/// With many changes they are written this often at most.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Writing two small files takes longer only on a file server that does not respond.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// A tick waits this long at most.
const TICK_WAIT: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Publisher {
    /// Whether something has changed since the last write began.
    has_changed: bool,
    last_begun: Option<BootTime>,
    writing_since: Option<BootTime>,
    /// The latest closed incidents, oldest first, once they were read.
    latest: Option<Vec<ClosedIncident>>,
    error: Option<String>,
}

/// A file's path and its new content.
type Publication = (PathBuf, String);

impl Publisher {
    pub(super) fn note_change(&mut self, has_changed: bool) {
        self.has_changed |= has_changed;
    }

    pub(super) fn note_closed(&mut self, closed: &ClosedIncident) {
        if let Some(latest) = &mut self.latest {
            latest.push(closed.clone());
            let excess = latest.len().saturating_sub(page::INCIDENTS);
            latest.drain(..excess);
        }
    }

    /// Whether a tick must wait for a write to end.
    pub(super) fn is_awaited(&self, now: BootTime) -> bool {
        self.writing_since.is_some_and(|since| now.since(since) < TICK_WAIT)
    }

    /// A tick writes once, when its work is done.
    fn is_due(&self, mode: Mode, is_done: bool, now: BootTime) -> bool {
        let age = self.last_begun.map(|at| now.since(at));
        let is_time = match mode {
            Mode::Once => age.is_none() && is_done,
            Mode::Daemon => age.is_none_or(|age| age >= INTERVAL || (self.has_changed && age >= MIN_INTERVAL)),
        };
        is_time && self.writing_since.is_none()
    }

    /// How long until the next write is due, or until a tick stops waiting for one.
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

    pub(super) fn finish_writing(&mut self, error: Option<String>) {
        self.writing_since = None;
        match (&error, &self.error) {
            (Some(error), None) => log::warn!("{error} (retried every minute)"),
            (None, Some(_)) => log::info!("the page and the metrics can be written again"),
            _ => {}
        }
        self.error = error;
    }

    /// The closed incidents that the page shows.
    fn latest_incidents(&mut self, folder: &Folder, wall: WallTime) -> &[ClosedIncident] {
        self.latest.get_or_insert_with(|| {
            let days = Duration::from_secs(86_400 * page::DAYS.unsigned_abs());
            let mut closed = closed_incidents::read(folder, days, wall).unwrap_or_default();
            closed.drain(..closed.len().saturating_sub(page::INCIDENTS));
            closed
        })
    }
}

impl Agent {
    pub(super) fn is_publication_due(&self, now: BootTime) -> bool {
        let is_wanted = self.config.page.is_some() || self.config.metrics.is_some();
        is_wanted && !self.journal.is_displaced() && self.publisher.is_due(self.mode, self.is_done(), now)
    }

    pub(super) fn until_publication(&self, now: BootTime) -> Option<Duration> {
        let is_wanted = self.config.page.is_some() || self.config.metrics.is_some();
        self.publisher.until_due(self.mode, now).filter(|_| is_wanted)
    }

    /// Starts the job that writes the files, if they are due.
    pub(super) fn start_publishing(&mut self) {
        let now = clock::now();
        if !self.is_publication_due(now) {
            return;
        }
        let files = self.publications(false);
        self.publisher.begin_writing(now);
        let names = files.iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>().join(", ");
        let job = JobSpec {
            name: "writing of page and metrics",
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

    /// Writes the files a last time; the page says that the daemon was stopped.
    pub(super) fn publish_final_page(&mut self) {
        for (path, text) in self.publications(true) {
            if let Err(error) = publish(&path, &text) {
                log::warn!("{error} (it still shows a running watchdog)");
            }
        }
    }

    fn publications(&mut self, is_over: bool) -> Vec<Publication> {
        let (at, mut files) = (clock::read(), Vec::new());
        if self.config.page.is_some() {
            // If the history cannot be read, the page lacks it; the journal logs the error when it saves.
            let _ = self.journal.complete_history();
        }
        self.journal.saved.policy = self.policy.state();
        let saved = &self.journal.saved;
        if let Some(metrics) = &self.config.metrics {
            files.push((metrics.clone(), Metrics { saved, wall: at.wall }.text()));
        }
        if let Some(page) = &self.config.page {
            let closed = self.publisher.latest_incidents(self.journal.folder(), at.wall);
            let (host, details) = (self.messenger.host(), page.details);
            let page_view = Page { saved, closed, host, details, is_last: is_over, at, zone: self.zone };
            files.push((page.file.clone(), self.config.secrets.redact(&page_view.html()).into_owned()));
        }
        self.journal.saved.policy = State::default();
        files
    }
}

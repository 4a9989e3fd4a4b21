//! Reads the configuration again, on SIGHUP or on request. A configuration that is not valid must change nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Config;
use crate::policy::{Event, Limits};
use crate::store::events::EventKind;
use crate::store::requests::ReloadAnswer;

use super::{Agent, indexes, limits};

/// Why the new configuration was not accepted: in one line, and in full.
struct ReloadError {
    summary: String,
    text: String,
}

impl From<String> for ReloadError {
    fn from(text: String) -> ReloadError {
        ReloadError { summary: text.clone(), text }
    }
}

impl Agent {
    pub(super) fn reload(&mut self) -> ReloadAnswer {
        self.commit_now();
        self.systemd.reloading();
        let mut refused = None;
        let answer = match self.load_and_apply() {
            Ok(detail) => {
                log::info!("reloaded {}: {detail}", self.config.path.display());
                self.journal.note_own_event(EventKind::Reloaded { detail: detail.clone() });
                ReloadAnswer::Done { detail, notes: self.config.disabled_channels.clone() }
            }
            Err(ReloadError { summary, text }) => {
                text.lines().for_each(|line| log::error!("{line}"));
                let pid = std::process::id();
                log::error!("nothing changed; the running watchdog (pid {pid}) keeps its old configuration");
                self.journal.note_own_event(EventKind::ReloadFailed { detail: summary.clone() });
                refused = Some(summary);
                ReloadAnswer::Refused { reason: text }
            }
        };
        self.systemd.reloaded(refused);
        answer
    }

    fn load_and_apply(&mut self) -> Result<String, ReloadError> {
        let lookup = |name: &str| std::env::var(name).ok();
        let mut config = Config::load(&self.config.path, &lookup)
            .map_err(|errors| ReloadError { summary: errors.summary(), text: errors.to_string() })?;
        if self.dry_run {
            config.set_dry_run();
        }
        if config.state_dir != self.config.state_dir {
            return Err(ReloadError::from(format!(
                "state_dir cannot change from {} to {} while a watchdog runs: stop it and start it again",
                self.config.state_dir.display(),
                config.state_dir.display()
            )));
        }
        self.probers.reload(&config)?;
        if let Some(logging) = &self.logging {
            logging.reload(&config.log);
        }
        let all = limits(&config);
        let detail = self.describe_targets(&all);
        self.indexes = indexes(&config);
        self.config = Arc::new(config);
        self.note_configuration();
        self.report_disabled_channels();
        self.step(Event::Reloaded { limits: all });
        self.search_executables();
        Ok(detail)
    }
    /// How many targets there are, and which of them are new or gone.
    fn describe_targets(&self, targets: &BTreeMap<String, Limits>) -> String {
        let count = if targets.len() == 1 { "1 target".into() } else { format!("{} targets", targets.len()) };
        let new = targets.keys().filter(|name| !self.indexes.contains_key(*name)).cloned();
        let gone = self.config.targets.iter().map(|target| &target.name).filter(|name| !targets.contains_key(*name));
        let changes = [("new", new.collect::<Vec<String>>()), ("removed", gone.cloned().collect())];
        let changes = changes.into_iter().filter(|(_, names)| !names.is_empty());
        let changes: Vec<String> = changes.map(|(what, names)| format!("{what}: {}", names.join(", "))).collect();
        if changes.is_empty() { count } else { format!("{count} ({})", changes.join("; ")) }
    }
}

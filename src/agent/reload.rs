//! Reads the configuration again on SIGHUP. A configuration that is not valid must change nothing.

use std::sync::Arc;

use crate::config::Config;
use crate::policy::Event;
use crate::store::events::EventKind;

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
    pub(super) fn reload(&mut self) {
        self.commit_now();
        self.systemd.reloading();
        match self.load_and_apply() {
            Ok(detail) => {
                log::info!("reloaded {}: {detail}", self.config.path.display());
                self.journal.note_own_event(EventKind::Reloaded { detail });
            }
            Err(ReloadError { summary, text }) => {
                text.lines().for_each(|line| log::error!("{line}"));
                let pid = std::process::id();
                log::error!("nothing changed; the running watchdog (pid {pid}) keeps its old configuration");
                self.journal.note_own_event(EventKind::ReloadFailed { detail: summary });
            }
        }
        self.systemd.reloaded();
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
        let detail = if all.len() == 1 { "1 target".into() } else { format!("{} targets", all.len()) };
        self.indexes = indexes(&config);
        self.config = Arc::new(config);
        self.note_configuration();
        self.report_disabled_channels();
        self.step(Event::Reloaded { limits: all });
        self.search_executables();
        Ok(detail)
    }
}

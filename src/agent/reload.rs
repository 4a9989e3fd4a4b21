//! Reads the configuration again. One that is not valid changes nothing.

use std::sync::Arc;

use crate::config::Config;
use crate::policy::Event;
use crate::store::events::EventKind;

use super::{Agent, limits, places};

/// Why the configuration was not taken: in a line, and at length.
struct Refused {
    summary: String,
    complaint: String,
}

impl From<String> for Refused {
    fn from(complaint: String) -> Refused {
        Refused { summary: complaint.clone(), complaint }
    }
}

impl Agent {
    pub(super) fn reload(&mut self) {
        self.commit_now();
        self.systemd.reloading();
        match self.read_again() {
            Ok(detail) => {
                log::info!("read {} again: {detail}", self.config.path.display());
                self.journal.note_own(EventKind::Reloaded { detail });
            }
            Err(Refused { summary, complaint }) => {
                complaint.lines().for_each(|line| log::error!("{line}"));
                let pid = std::process::id();
                log::error!("nothing changed; the running watchdog (pid {pid}) keeps its old configuration");
                self.journal.note_own(EventKind::ReloadFailed { detail: summary });
            }
        }
        self.systemd.reloaded();
    }

    fn read_again(&mut self) -> Result<String, Refused> {
        let lookup = |name: &str| std::env::var(name).ok();
        let mut config = Config::load(&self.config.path, &lookup)
            .map_err(|errors| Refused { summary: errors.summary(), complaint: errors.to_string() })?;
        if self.dry_run {
            config.set_dry_run();
        }
        if config.state_dir != self.config.state_dir {
            return Err(Refused::from(format!(
                "state_dir cannot change from {} to {} while a watchdog is at work: stop it and start it again",
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
        self.places = places(&config);
        self.config = Arc::new(config);
        self.show();
        self.tell_off();
        self.step(Event::Reloaded { limits: all });
        self.look_up_executables();
        Ok(detail)
    }
}

//! What starts the watchdog again after a reboot or a crash: lines of the account's crontab, and enabled systemd units.
//! It must never run what it finds there, and never take a schedule that cannot be read for none.

mod crontab;
mod shell;
mod starter;
mod systemd;

use std::path::Path;

use crate::config::{self, Config};
use crate::terminal::escaped;

use super::program::path_for_crontab;
use super::read_env;

pub(super) use crontab::{Crontab, Job};
pub(super) use shell::{resolve, trim_quotes};
pub(super) use starter::{CRON_PATH, Starter, Way};

/// Everything found that starts a watchdog.
pub(super) struct Schedule {
    pub(super) crontab: Crontab,
    pub(super) starters: Vec<Starter>,
    /// The enabled systemd unit that runs the watchdog with this configuration.
    pub(super) unit: Option<systemd::Unit>,
}

impl Schedule {
    pub(super) fn read(config: &Config) -> Schedule {
        let own = path_for_crontab();
        let home = config::home(&read_env).unwrap_or_else(|| "/".into());
        let crontab = Crontab::read();
        let starters = crontab.jobs().iter().filter_map(|job| Starter::parse(job, &own, &home)).collect();
        let unit = systemd::find_unit(&systemd::Folders::of_account(&home), &own, &home, &config.path);
        Schedule { crontab, starters, unit }
    }

    /// The crontab lines that start a watchdog with this configuration.
    pub(super) fn own(&self, config: &Config) -> impl Iterator<Item = &Starter> {
        self.starters.iter().filter(|starter| starter.has_config(&config.path))
    }

    /// Why nothing is known to start the watchdog after a reboot; `None` if something does.
    pub(super) fn describe_no_boot_start(&self, config: &Config) -> Option<String> {
        const NEXT: &str = "watchdog check prints the line for crontab -e";
        if let Some(unit) = &self.unit {
            return unit.needs_login.then(|| {
                format!("{} starts it only when you log in. After a reboot too: loginctl enable-linger", unit.name)
            });
        }
        if self.own(config).any(Starter::can_start) {
            return None;
        }
        Some(match &self.crontab {
            Crontab::Lines(_) | Crontab::Empty => format!("Nothing starts it after a reboot: {NEXT}"),
            Crontab::Unreadable(why) => {
                format!("Whether cron starts it after a reboot is unknown ({}): {NEXT}", escaped(why))
            }
        })
    }
}

/// Whether two paths name one file; of files that do not exist, whether the paths are equal.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    one == other || real(one) == real(other)
}

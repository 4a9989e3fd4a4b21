//! Regular work that is not about one target: the sign of life, trimming of output, the search for missing executables.
//! Nothing here may block the loop: the search, which may hang on a file server, is a job.

use std::ffi::OsString;
use std::sync::mpsc::{SendError, sync_channel};
use std::time::Duration;

use crate::clock;
use crate::command::{self, find_program, first_program};
use crate::config::{CommandLine, Config, Remedy, Secrets, Target};
use crate::policy::{Event, Mode, TargetState};
use crate::process;
use crate::store::incidents;
use crate::time::BootTime;

use super::jobs::redact_file;
use super::message::Message;
use super::pm2::caller;
use super::pool::JobSpec;
use super::{Agent, MAX_SLEEP};

/// The lock file is touched this often at most.
const TOUCH_INTERVAL: Duration = Duration::from_secs(10);
/// How often output is cut that children go on printing after their command has ended.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);
/// A search that takes longer hangs on a file server that does not respond.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the loop itself waits for a search.
const SEARCH_WAIT: Duration = Duration::from_secs(1);
/// The contract promises a search once an hour.
const SEARCH_INTERVAL: Duration = Duration::from_secs(3_600);

#[derive(Default)]
pub(super) struct Maintenance {
    touched: Option<BootTime>,
    trimmed: Option<BootTime>,
    searched: Option<BootTime>,
    /// Of every configuration so far: a command that was started under an old one may still print the old secrets.
    secrets: Secrets,
}

impl Maintenance {
    pub(super) fn until_touch(&self, now: BootTime) -> Duration {
        self.touched.map_or(Duration::ZERO, |at| (at + MAX_SLEEP).since(now))
    }
}

/// Whether the interval has passed since `last`; if so, `last` is set to `now`.
fn take_due(last: &mut Option<BootTime>, now: BootTime, every: Duration) -> bool {
    let due = last.is_none_or(|at| now.since(at) >= every);
    if due {
        *last = Some(now);
    }
    due
}

impl Agent {
    /// Called in each pass; work that is not due costs nothing.
    pub(super) fn run_maintenance(&mut self) {
        self.jobs.check_deadlines();
        self.probers.forget_replaced();
        let now = clock::now();
        if take_due(&mut self.maintenance.touched, now, TOUCH_INTERVAL) {
            self.journal.touch();
            // Children of worker threads that have ended are the main thread's now; SIGCHLD announces other orphans.
            process::reap_orphans();
            self.apply_requests();
        }
        if take_due(&mut self.maintenance.searched, now, SEARCH_INTERVAL) {
            self.search_executables();
        }
        if take_due(&mut self.maintenance.trimmed, now, TRIM_INTERVAL) {
            self.trim_outputs();
        }
        self.read_pm2_logs(now);
        self.write_incidents();
        self.start_deliveries();
        self.send_heartbeat();
        self.start_publishing();
        if self.mode == Mode::Daemon {
            self.journal.request_save_if_old(now);
            self.report_to_systemd(now);
        }
    }

    /// Reports to systemd that the loop works, and the state of the targets.
    fn report_to_systemd(&mut self, now: BootTime) {
        if !self.systemd.is_present() {
            return;
        }
        let (total, failing) = (self.config.targets.len(), self.policy.trouble_count());
        let status = match failing {
            _ if self.stopping => "stopping after the running restart command".into(),
            0 => format!("{total} of {total} OK"),
            _ => format!("{failing} of {total} failing or down"),
        };
        self.systemd.report(now, &status, self.stopping);
    }

    /// A tick skips the search if one in the last hour, under the same configuration, found nothing missing.
    pub(super) fn reuse_recent_search(&mut self) {
        let (saved, config) = (&self.journal.saved, &self.config);
        let is_same_config = saved.config.as_ref() == Some(&config.path) && saved.config_modified == config.modified;
        let is_recent = saved.programs_checked.is_some_and(|at| clock::wall().since(at) < SEARCH_INTERVAL);
        let is_missing = |target: &Target| self.policy.target(&target.name).is_none_or(TargetState::cannot_be_repaired);
        if self.mode == Mode::Once && is_same_config && is_recent && !config.targets.iter().any(is_missing) {
            self.maintenance.searched = Some(clock::now());
        }
    }

    pub(super) fn search_executables(&mut self) {
        self.journal.saved.programs_checked = Some(clock::wall());
        let config = self.config.clone();
        let job = JobSpec {
            name: "search",
            subject: "restart commands".into(),
            variant: String::new(),
            timeout: SEARCH_TIMEOUT,
            outlives_watchdog: false,
            // Without a result, what was known before stays valid.
            on_failure: Box::new(|_| Message::ExecutablesSearched(Vec::new())),
        };
        let (send, receive) = sync_channel(0);
        self.jobs.spawn(job, move |_| {
            let with_ladder = config.targets.iter().filter(|target| !target.ladder.is_empty());
            let found: Vec<_> =
                with_ladder.map(|target| (target.name.clone(), missing_executable(&config, target))).collect();
            // Handed over at once while the loop waits for it, or else posted like any other message.
            Message::ExecutablesSearched(send.send(found).err().map(|SendError(found)| found).unwrap_or_default())
        });
        // A missing program is reported before anything runs; this takes no time unless a file server hangs.
        if let Ok(found) = receive.recv_timeout(SEARCH_WAIT) {
            self.executables_searched(found);
        }
    }

    pub(super) fn executables_searched(&mut self, found: Vec<(String, Option<String>)>) {
        for (target, missing) in found {
            // If the command could not be started for another reason, it is not repairable just because its program
            // exists.
            if missing.is_none() && self.policy.target(&target).is_some_and(TargetState::could_not_start) {
                continue;
            }
            self.step(Event::ExecutablesSearched { target, missing });
        }
    }

    /// Children that an ended command left running may go on printing: their output is cut, so that it cannot fill the
    /// disk, and redacted. The same goes for the commands of a watchdog that was killed.
    fn trim_outputs(&mut self) {
        self.maintenance.secrets.merge(&self.config.secrets);
        let outputs = incidents::list_outputs(self.journal.folder()).unwrap_or_else(|error| {
            log::warn!("{error} (output of commands is not trimmed)");
            Vec::new()
        });
        for path in outputs {
            if let Err(error) = command::trim_output(&path) {
                log::warn!("cannot trim {}: {error}", path.display());
            }
            redact_file(Some(&path), &self.maintenance.secrets);
        }
        if let Err(error) = incidents::prune(self.journal.folder(), &self.policy.open_incidents(), clock::wall()) {
            log::warn!("{error} (old incidents stay on the disk)");
        }
    }
}

/// Describes the first rung whose program cannot be found.
fn missing_executable(config: &Config, target: &Target) -> Option<String> {
    target.ladder.iter().enumerate().find_map(|(index, rung)| {
        let program = match &rung.remedy {
            Remedy::Command(CommandLine::Shell(text)) => first_program(text)?.to_string(),
            Remedy::Command(CommandLine::Exec(words)) => words.first()?.clone(),
            Remedy::Pm2Restart(pm2) | Remedy::Pm2Reset(pm2) => {
                let error = caller(config, pm2, rung.timeout).find_program().err()?;
                return Some(format!("restart command {} would not start: {error}", index + 1));
            }
        };
        let error = find_program(&program, &config.folder, path_of(config).as_deref()).err()?;
        Some(format!("restart command {} would not start: {error}", index + 1))
    })
}

fn path_of(config: &Config) -> Option<OsString> {
    let configured = config.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| OsString::from(&value.0));
    configured.or_else(|| std::env::var_os("PATH"))
}

//! What the agent does beside its targets: the sign of life, old output, missing executables.

use std::ffi::OsString;
use std::sync::mpsc::{SendError, sync_channel};
use std::time::Duration;

use crate::clock;
use crate::command::{self, find_program, first_word};
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

/// A sign of life is not given more often than this.
const TOUCH_INTERVAL: Duration = Duration::from_secs(10);
/// Output that goes on after its command ended is cut this often.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);
/// A search that takes longer hangs on a file server that gives no answer.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(30);
/// And one that takes longer than this is not waited for by the loop.
const SEARCH_WAIT: Duration = Duration::from_secs(1);
/// Executables are looked up this often.
const SEARCH_INTERVAL: Duration = Duration::from_secs(3_600);

#[derive(Default)]
pub(super) struct Maintenance {
    touched: Option<BootTime>,
    trimmed: Option<BootTime>,
    searched: Option<BootTime>,
    /// Those of every configuration so far: what was started under an old one may print the old ones still.
    secrets: Secrets,
}

impl Maintenance {
    pub(super) fn until_touch(&self, now: BootTime) -> Duration {
        self.touched.map_or(Duration::ZERO, |at| (at + MAX_SLEEP).since(now))
    }
}

fn take_due(last: &mut Option<BootTime>, now: BootTime, every: Duration) -> bool {
    let due = last.is_none_or(|at| now.since(at) >= every);
    if due {
        *last = Some(now);
    }
    due
}

impl Agent {
    /// A round of work beside the targets; whatever is not due costs nothing.
    pub(super) fn run_maintenance(&mut self) {
        self.jobs.check_deadlines();
        self.probers.forget_replaced();
        let now = clock::now();
        if take_due(&mut self.maintenance.touched, now, TOUCH_INTERVAL) {
            self.journal.touch();
            // Children of threads that have ended; of others we are told.
            process::reap_orphans();
            self.apply_requests();
        }
        if take_due(&mut self.maintenance.searched, now, SEARCH_INTERVAL) {
            self.search_executables();
        }
        if take_due(&mut self.maintenance.trimmed, now, TRIM_INTERVAL) {
            self.trim_outputs();
        }
        self.write_incidents();
        self.start_deliveries();
        self.send_heartbeat();
        self.start_publishing();
        if self.mode == Mode::Daemon {
            self.journal.request_save_if_old(now);
            self.report_to_systemd(now);
        }
    }

    /// The service manager, where there is one, learns that the loop does its job, and how the targets do.
    fn report_to_systemd(&mut self, now: BootTime) {
        if !self.systemd.is_present() {
            return;
        }
        let (all, bad) = (self.config.targets.len(), self.policy.in_trouble());
        let status = match bad {
            _ if self.stopping => "stopping: a restart command that runs is finished first".into(),
            0 => format!("{all} of {all} in order"),
            _ => format!("{bad} of {all} in trouble"),
        };
        self.systemd.report(now, &status, self.stopping);
    }

    /// A tick need not search for what one within the last hour has found, under the same configuration.
    pub(super) fn reuse_recent_search(&mut self) {
        let (saved, config) = (&self.journal.saved, &self.config);
        let is_known = saved.config.as_ref() == Some(&config.path) && saved.config_written == config.written;
        let is_fresh = saved.checked.is_some_and(|at| clock::wall().since(at) < SEARCH_INTERVAL);
        let is_missing = |target: &Target| self.policy.target(&target.name).is_none_or(TargetState::cannot_be_repaired);
        if self.mode == Mode::Once && is_known && is_fresh && !config.targets.iter().any(is_missing) {
            self.maintenance.searched = Some(clock::now());
        }
    }

    pub(super) fn search_executables(&mut self) {
        self.journal.saved.checked = Some(clock::wall());
        let config = self.config.clone();
        let job = JobSpec {
            name: "search",
            subject: "the restart commands' programs".into(),
            variant: String::new(),
            timeout: SEARCH_TIMEOUT,
            outlives_watchdog: false,
            // Nothing is known of them then.
            on_failure: Box::new(|_| Message::ExecutablesSearched(Vec::new())),
        };
        let (hand, prompt) = sync_channel(0);
        self.jobs.spawn(job, move |_| {
            let repaired = config.targets.iter().filter(|target| !target.ladder.is_empty());
            let found: Vec<_> =
                repaired.map(|target| (target.name.clone(), missing_executable(&config, target))).collect();
            // The loop takes it at once, or does not wait any more and gets it like any other message.
            Message::ExecutablesSearched(hand.send(found).err().map(|SendError(found)| found).unwrap_or_default())
        });
        // What is missing is told before anything is run: but for a file server that hangs, this takes no time.
        if let Ok(found) = prompt.recv_timeout(SEARCH_WAIT) {
            self.executables_searched(found);
        }
    }

    pub(super) fn executables_searched(&mut self, found: Vec<(String, Option<String>)>) {
        for (target, missing) in found {
            // What was refused for another reason is no better for its being there.
            if missing.is_none() && self.policy.target(&target).is_some_and(TargetState::was_refused) {
                continue;
            }
            self.step(Event::ExecutablesSearched { target, missing });
        }
    }

    /// What commands that ended left running may go on printing; it must not fill the disk, and no secret stays in it.
    /// So it is with what a watchdog has left that was killed.
    fn trim_outputs(&mut self) {
        self.maintenance.secrets.join(&self.config.secrets);
        let outputs = incidents::outputs(self.journal.folder()).unwrap_or_else(|error| {
            log::warn!("{error} (output of commands is not cut)");
            Vec::new()
        });
        for path in outputs {
            if let Err(error) = command::trim_output(&path) {
                log::warn!("cannot cut {}: {error}", path.display());
            }
            redact_file(Some(&path), &self.maintenance.secrets);
        }
        if let Err(error) = incidents::prune(self.journal.folder(), &self.policy.open_incidents(), clock::wall()) {
            log::warn!("{error} (old incidents stay on the disk)");
        }
    }
}

/// The first rung whose program is not to be found, in words.
fn missing_executable(config: &Config, target: &Target) -> Option<String> {
    target.ladder.iter().enumerate().find_map(|(index, rung)| {
        let program = match &rung.remedy {
            Remedy::Command(CommandLine::Shell(text)) => first_word(text)?.to_string(),
            Remedy::Command(CommandLine::Exec(words)) => words.first()?.clone(),
            Remedy::Pm2Restart(pm2) | Remedy::Pm2Reset(pm2) => {
                let error = caller(config, pm2, rung.timeout).program().err()?;
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

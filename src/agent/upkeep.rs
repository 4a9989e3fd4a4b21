//! What the agent does beside its targets: the sign of life, old output, missing executables, what the operator asks.

use std::ffi::OsString;
use std::path::Path;
use std::sync::mpsc::{SendError, sync_channel};
use std::time::Duration;

use crate::clock;
use crate::command::{self, find_program, first_word};
use crate::config::{CommandLine, Config, Remedy, Secrets, Target};
use crate::policy::{Event, TargetState};
use crate::process;
use crate::store::lock::{self, Held, Touched, Unseen};
use crate::store::orders::{Order, Waiting};
use crate::store::{Moment, incidents, orders};
use crate::time::Timestamp;

use super::jobs::{Message, strike};
use super::pm2::caller;
use super::spawn::Job;
use super::{Agent, Mode, ROUND};

/// A sign of life is not given more often than this.
const TOUCH_AFTER: Duration = Duration::from_secs(10);
/// Output that goes on after its command ended is cut this often.
const TRIM_EVERY: Duration = Duration::from_secs(60);
/// A search that takes longer hangs on a file server that gives no answer.
const SEARCH: Duration = Duration::from_secs(30);
/// And one that takes longer than this is not waited for by the loop.
const PROMPT: Duration = Duration::from_secs(1);
/// Executables are looked up this often.
const LOOK_UP_EVERY: Duration = Duration::from_secs(3_600);

/// When what was done last.
#[derive(Default)]
pub(super) struct Upkeep {
    touched: Option<Timestamp>,
    trimmed: Option<Timestamp>,
    looked_up: Option<Timestamp>,
    trouble: Option<String>,
    /// Orders that were carried out and could not be removed yet, for the state with them is not saved.
    carried_out: Vec<Waiting>,
    /// Those of every configuration so far: what was started under an old one may print the old ones still.
    secrets: Secrets,
}

impl Upkeep {
    /// How long until the next sign of life.
    pub(super) fn pause(&self, now: Timestamp) -> Duration {
        self.touched.map_or(Duration::ZERO, |at| (at + ROUND).since(now))
    }
}

fn is_due(last: &mut Option<Timestamp>, now: Timestamp, every: Duration) -> bool {
    let due = last.is_none_or(|at| now.since(at) >= every);
    if due {
        *last = Some(now);
    }
    due
}

impl Agent {
    /// A round of work beside the targets; whatever is not due costs nothing.
    pub(super) fn keep_up(&mut self) {
        process::reap_orphans();
        self.jobs.keep_up();
        self.forget_replaced();
        let now = clock::now();
        if is_due(&mut self.upkeep.touched, now, TOUCH_AFTER) {
            self.touch();
            self.carry_out_orders();
        }
        if is_due(&mut self.upkeep.looked_up, now, LOOK_UP_EVERY) {
            self.look_up_executables();
        }
        if is_due(&mut self.upkeep.trimmed, now, TRIM_EVERY) {
            self.trim_outputs();
        }
        self.send();
        self.ping();
        self.publish();
        if self.mode == Mode::Daemon {
            self.save_if_old(now);
            self.tell_systemd(now);
        }
    }

    /// Gives the sign of life. Where another watchdog has taken our place meanwhile, nothing is ours to do any more.
    pub(super) fn touch(&mut self) {
        let trouble = match self.lock.touch() {
            Ok(Touched::Ours) => None,
            Ok(Touched::Remade) => {
                log::warn!("{} was deleted; made again", self.folder.path().display());
                self.save(true);
                None
            }
            Ok(Touched::Lost(held)) => {
                let by = taken_over_by(&held, self.folder.path());
                log::error!("{by}: ending");
                self.displaced_by = Some(by);
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if trouble != self.upkeep.trouble {
            match &trouble {
                Some(error) => log::error!("{error} (others may take this watchdog for dead)"),
                None => log::info!("the sign of life can be given again"),
            }
            self.upkeep.trouble = trouble;
        }
    }

    /// The service manager learns that the loop does its job, and how the targets do.
    fn tell_systemd(&mut self, now: Timestamp) {
        let trouble =
            |target: &&Target| self.policy.target(&target.name).is_some_and(|state| state.condition.is_trouble());
        let (all, bad) = (self.config.targets.len(), self.config.targets.iter().filter(trouble).count());
        let status = match bad {
            _ if self.stopping => "stopping: a restart command that runs is finished first".into(),
            0 => format!("{all} of {all} in order"),
            _ => format!("{bad} of {all} in trouble"),
        };
        self.systemd.round(now, &status, self.stopping);
    }

    pub(super) fn look_up_executables(&mut self) {
        self.saved.checked = Some(clock::wall());
        let config = self.config.clone();
        let job = Job {
            name: "search",
            of: "the restart commands' programs".into(),
            by: String::new(),
            within: SEARCH,
            outlives_us: false,
            // Nothing is known of them then.
            otherwise: Box::new(|_| Message::Searched(Vec::new())),
        };
        let (hand, prompt) = sync_channel(0);
        self.jobs.spawn(job, move |_| {
            let repaired = config.targets.iter().filter(|target| !target.ladder.is_empty());
            let found: Vec<_> =
                repaired.map(|target| (target.name.clone(), missing_executable(&config, target))).collect();
            // The loop takes it at once, or does not wait any more and gets it like any other message.
            Message::Searched(hand.send(found).err().map(|SendError(found)| found).unwrap_or_default())
        });
        // What is missing is told before anything is run: but for a file server that hangs, this takes no time.
        if let Ok(found) = prompt.recv_timeout(PROMPT) {
            self.searched(found);
        }
    }

    /// What of the restart commands is missing, by target.
    pub(super) fn searched(&mut self, found: Vec<(String, Option<String>)>) {
        for (target, missing) in found {
            // What was refused for another reason is no better for its being there.
            if missing.is_none() && self.policy.target(&target).is_some_and(TargetState::was_refused) {
                continue;
            }
            self.step(Event::Executables { target, missing });
        }
    }

    /// What commands that ended left running may go on printing; it must not fill the disk, and no secret stays in it.
    /// So it is with what a watchdog has left that was killed.
    fn trim_outputs(&mut self) {
        self.upkeep.secrets.join(&self.config.secrets);
        let outputs = incidents::outputs(&self.folder).unwrap_or_else(|error| {
            log::warn!("{error} (output of commands is not cut)");
            Vec::new()
        });
        for path in outputs {
            if let Err(error) = command::trim_output(&path) {
                log::warn!("cannot cut {}: {error}", path.display());
            }
            strike(Some(&path), &self.upkeep.secrets);
        }
        if let Err(error) = incidents::prune(&self.folder, &self.policy.open_incidents(), clock::wall()) {
            log::warn!("{error} (old incidents stay on the disk)");
        }
    }

    /// What `pause` and `resume` have left for us. An order is removed once the state with it is saved; until then it
    /// waits for the watchdog after us, but is carried out by us only once.
    pub(super) fn carry_out_orders(&mut self) {
        let waiting = match orders::list(&self.folder) {
            Ok(found) => {
                found.refused.iter().for_each(|error| log::warn!("{error} (set aside)"));
                found.waiting
            }
            Err(error) => {
                log::warn!("{error} (pause and resume have no effect)");
                return;
            }
        };
        // One that cannot be read just now is there still.
        let mut known = std::mem::take(&mut self.upkeep.carried_out);
        known.retain(|order| !order.is_done());
        for order in waiting.iter().filter(|order| !known.contains(order)) {
            self.heed(&order.order);
        }
        if !waiting.is_empty() {
            self.save_and_say_how(true);
        }
        let is_saved = self.disk.is_ok();
        for order in waiting {
            let is_new = !known.contains(&order);
            if is_saved
                && let Err(error) = order.done()
                && is_new
            {
                log::warn!("{error} (the next watchdog will carry it out again)");
            }
            if is_new {
                known.push(order);
            }
        }
        self.upkeep.carried_out = known;
    }

    fn heed(&mut self, order: &Order) {
        let moment = Moment { at: clock::read(), boot_id: self.boot_id.clone() };
        let until = order.pauses_until(&moment);
        match order.clone() {
            Order::Pause { targets, command, .. } => {
                if let Some(until) = until {
                    self.step(Event::Paused { targets, until, command });
                }
            }
            Order::Over { command } => self.step(Event::CommandOver { command }),
            Order::Resume { targets, clear_waits } => {
                if clear_waits {
                    let whom = targets.as_ref().map_or_else(|| "all targets".into(), |targets| targets.join(", "));
                    log::info!("{whom}: what had to be waited for is over, as the operator says");
                }
                self.step(Event::Resumed { targets, clear_waits });
            }
        }
    }
}

/// Of a tick it names no pid: another one each minute, cron would mail each of them.
fn taken_over_by(held: &Held, folder: &Path) -> String {
    let (whose, note) = match held {
        Held::Seen(holder) => ("", Some((holder.mode, holder.pid, holder.config.display().to_string()))),
        Held::Unseen(Unseen { note, .. }) => {
            (" that I cannot see", note.as_ref().map(|note| (note.mode, note.pid, note.config.clone())))
        }
    };
    let who = match note {
        Some((lock::Mode::Daemon, pid, config)) => {
            format!("another watchdog{whose} with pid {pid} and configuration {config}")
        }
        Some((lock::Mode::Once, _, config)) => format!("a tick{whose} with configuration {config}"),
        None => format!("another watchdog{whose}"),
    };
    format!("{who} has taken over {}", folder.display())
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

/// The PATH that commands get.
fn path_of(config: &Config) -> Option<OsString> {
    let configured = config.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| OsString::from(&value.0));
    configured.or_else(|| std::env::var_os("PATH"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::lock::Note;

    #[test]
    fn whoever_has_taken_over_is_named_but_not_each_tick_anew() {
        #[track_caller]
        fn check(mode: Option<lock::Mode>, expected: &str) {
            let note = mode.map(|mode| Note { pid: 7, started: 1, mode, config: "/w.yaml".into() });
            let held = Held::Unseen(Unseen { note, touched: Default::default() });
            assert_eq!(taken_over_by(&held, Path::new("/s")), format!("{expected} has taken over /s"));
        }
        check(None, "another watchdog that I cannot see");
        let daemon = "another watchdog that I cannot see with pid 7 and configuration /w.yaml";
        check(Some(lock::Mode::Daemon), daemon);
        check(Some(lock::Mode::Once), "a tick that I cannot see with configuration /w.yaml");
    }
}

//! What takes time with PM2: asking whether the operator stopped a process, weighing a reset and making it, restarting,
//! and keeping what PM2's logs say when a target goes down. Each is a job; pm2 is called by one of them at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
use crate::command::Ended;
use crate::config::{Config, Pm2, Secrets};
use crate::outcome::Ending;
use crate::pm2::{self, Caller, Home, Listing, Managed, Warrant};
use crate::policy::{Event, Gate};
use crate::process::Process;
use crate::store::incidents;

use super::Agent;
use super::jobs::{Message, Order, open_output, output_path, spawn};

/// Bytes at the end of each of PM2's logs that an incident gets.
const TAIL: u64 = 16 << 10;

/// What is under way with PM2.
#[derive(Default)]
pub(super) struct Beside {
    /// Why PM2 may be reset, by the target that asked, until it is made use of.
    warrants: BTreeMap<String, Warrant>,
}

impl Beside {
    /// Remembers what speaks for a reset; whether anything does.
    pub(super) fn weighed(&mut self, target: &str, warrant: Option<Warrant>) -> bool {
        self.warrants.remove(target);
        let Some(warrant) = warrant else { return false };
        self.warrants.insert(target.to_string(), warrant);
        true
    }
}

/// How pm2 is called for a target with this `pm2`.
pub(super) fn caller(config: &Config, pm2: &Pm2, timeout: Duration) -> Caller {
    let env = config.env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
    Caller { home: pm2.home.clone(), folder: config.folder.clone(), env, timeout }
}

/// Everything that a repair by PM2 needs, apart from the agent.
struct Repair {
    target: String,
    home: Home,
    caller: Caller,
    managed: Managed,
    output: Option<PathBuf>,
}

impl Agent {
    /// A process that the operator stopped is left alone. No answer is no stop.
    pub(super) fn ask_pm2(&self, target: String) {
        let answer = |target, yes, pm2| Message::Event(Event::Answered { target, gate: Gate::Stopped, yes, pm2 });
        let Some(pm2) = self.target(&target).and_then(|target| target.pm2.clone()) else {
            // The configuration has changed meanwhile: nobody has to be asked any more.
            let _ = self.post.send(answer(target, true, None)); // the loop itself holds the other end
            return;
        };
        let caller = caller(&self.config, &pm2, crate::config::RUNG_TIMEOUT);
        spawn(&self.post, "question", answer(target.clone(), true, None), move |_| {
            let home = Home::at(&pm2.home);
            let stopped = is_stopped(&target, &home, &caller, &pm2.process);
            answer(target, !stopped, home.sight(&pm2.process).ok())
        });
    }

    /// Finds out whether PM2 may be reset.
    pub(super) fn weigh(&self, target: String) {
        let weighed = |target, warrant| Message::Weighed { target, warrant };
        let Some(Repair { home, caller, managed, .. }) = self.repair(&target, crate::config::RUNG_TIMEOUT, None) else {
            let _ = self.post.send(weighed(target, None)); // the loop itself holds the other end
            return;
        };
        spawn(&self.post, "question", weighed(target.clone(), None), move |_| {
            let warrant = match pm2::weigh(&home, &caller, &managed) {
                Ok(warrant) => {
                    log::warn!("{target} wants PM2 reset: {warrant}");
                    Some(warrant)
                }
                Err(why) => {
                    log::info!("{target} PM2 is not reset: {why}");
                    None
                }
            };
            weighed(target, warrant)
        });
    }

    pub(super) fn restart_by_pm2(&self, order: Order, timeout: Duration) {
        self.repair_by_pm2(order, timeout, |repair, output, on_start| {
            pm2::restart(&repair.home, &repair.caller, &repair.managed, output, on_start)
        });
    }

    pub(super) fn reset_pm2(&mut self, order: Order, timeout: Duration) {
        let warrant = self.beside.warrants.remove(&order.target);
        self.repair_by_pm2(order, timeout, move |Repair { target, home, caller, managed, .. }, output, on_start| {
            let say = |line: String| log::warn!("{target} {line}");
            // Without one, what spoke for it was found out for a configuration that has changed since.
            match warrant.map_or_else(|| pm2::weigh(home, caller, managed), Ok) {
                Ok(warrant) => pm2::reset(home, caller, managed, &warrant, &say, output, on_start),
                Err(why) => Ended { ending: Ending::NotStarted(why), took: Duration::ZERO, our_trouble: false },
            }
        });
    }

    /// Does `work` in a thread; the loop learns of each call of pm2 and of the end.
    fn repair_by_pm2(
        &self,
        order: Order,
        timeout: Duration,
        work: impl FnOnce(&Repair, &File, &mut dyn FnMut(Process)) -> Ended + Send + 'static,
    ) {
        let target = order.target.clone();
        let ended = |target, ending, took| Message::Event(Event::Ended { target, ending, took });
        let Some(repair) = self.repair(&target, timeout, Some(&order)) else {
            let gone = Ending::NotStarted("it is not in the configuration any more".into());
            let _ = self.post.send(ended(target, gone, Duration::ZERO)); // the loop itself holds the other end
            return;
        };
        spawn(&self.post, "restart", ended(target.clone(), Ending::Lost, Duration::ZERO), move |post| {
            let output = match open_output(repair.output.as_deref()) {
                Ok(output) => output,
                Err(error) => {
                    let reason = format!("no place for its output: {error}");
                    return ended(target, Ending::NotStarted(reason), Duration::ZERO);
                }
            };
            let mut on_start = |Process { pid, started }: Process| {
                let spawned = Event::Spawned { target: target.clone(), process: (pid, started) };
                let _ = post.send(Message::Event(spawned)); // without a loop nobody needs to know
            };
            let done = work(&repair, &output, &mut on_start);
            ended(repair.target, done.ending, done.took)
        });
    }

    /// None where the target or its `pm2` has left the configuration.
    fn repair(&self, target: &str, timeout: Duration, order: Option<&Order>) -> Option<Repair> {
        let configured = self.target(target)?;
        let pm2 = configured.pm2.as_ref()?;
        let folder = order.and_then(|order| self.incident_folder(&order.incident));
        Some(Repair {
            target: target.to_string(),
            home: Home::at(&pm2.home),
            caller: caller(&self.config, pm2, timeout),
            managed: Managed {
                process: pm2.process.clone(),
                config: pm2.config.clone(),
                port: configured.probe.local_port(),
            },
            output: order.zip(folder).map(|(order, folder)| output_path(&folder, order)),
        })
    }

    /// When a target goes down: what its process was doing, and the ends of PM2's logs, before a restart changes both.
    pub(super) fn keep_what_pm2_says(&mut self, target: &str, incident: &str) {
        let Some(pm2) = self.target(target).and_then(|target| target.pm2.clone()) else { return };
        let Some(folder) = self.incident_folder(incident) else { return };
        self.accounts.find(clock::now());
        let (target, incident, secrets) = (target.to_string(), incident.to_string(), self.config.secrets.clone());
        let nothing = Message::Kept { target: target.clone(), incident: incident.clone(), doing: None };
        spawn(&self.post, "keeper", nothing, move |_| {
            let home = Home::at(&pm2.home);
            let doing = home.doing(&pm2.process).map(|doing| (doing.pid, doing.to_string()));
            if let Some((_, doing)) = &doing {
                log::info!("{target} {doing}");
            }
            keep(&folder, doing.as_ref().map(|(_, doing)| doing.as_str()), &home.logs(&pm2.process), &secrets);
            Message::Kept { target, incident, doing }
        });
    }
}

fn is_stopped(target: &str, home: &Home, caller: &Caller, process: &str) -> bool {
    // Asking a dead one would start another.
    if !home.daemon_accepts().unwrap_or(false) {
        return false;
    }
    match caller.list() {
        Listing::Apps(apps) => pm2::is_stopped_by_hand(home, &apps, process),
        Listing::Silent => {
            log::warn!("{target} PM2's daemon does not answer: whether {process} was stopped by hand is not known");
            false
        }
        Listing::Failed(why) => {
            log::warn!("{target} PM2 cannot be asked whether {process} was stopped by hand: {why}");
            false
        }
    }
}

/// Writes what was seen into the incident's folder. What cannot be kept is missing there and hinders nothing.
fn keep(incident: &Path, doing: Option<&str>, logs: &[PathBuf], secrets: &Secrets) {
    let write = |name: &str, text: &str| {
        if let Err(error) = incidents::keep(incident, name, text.as_bytes()) {
            log::warn!("{error} (the incident lacks it)");
        }
    };
    if let Some(doing) = doing {
        write("process.txt", &format!("{doing}\n"));
    }
    for path in logs {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match incidents::tail_of(path, TAIL) {
            Ok(tail) => write(&name, &secrets.strike(&String::from_utf8_lossy(&tail))),
            Err(error) => log::warn!("{error} (the incident lacks it)"),
        }
    }
}

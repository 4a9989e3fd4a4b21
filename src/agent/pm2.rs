//! What takes time with PM2: inspecting a process before anything is decided against it, repairing it, resetting PM2,
//! and keeping what its logs say when a target goes down. Each is a job with a deadline, for PM2's home may lie on a
//! file server that gives no answer; pm2 is called by one of them at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use crate::clock;
use crate::command::{CommandResult, Scope, first_word};
use crate::config::{CommandLine, Config, Pm2Config, RUNG_TIMEOUT, Remedy, Secrets};
use crate::outcome::{DaemonState, Exit, Inspection, PriorEvidence};
use crate::pm2::{
    self, App, Caller, Calls, Home, InspectionResult, LogFile, Managed, RepairStep, ResetReason, SavedList,
};
use crate::policy::Event;
use crate::process::Process;
use crate::store::incidents;
use crate::time::BootTime;

use super::Agent;
use super::jobs::{AttemptContext, command_started, describe_hang, open_output, output_path, redact_file, repair_job};
use super::message::Message;
use super::pool::{JobContext, JobFailure, JobSpec as Spawned, OnFailure};

/// What was found longer ago than this is found out anew before it is acted on.
const MAX_AGE: Duration = Duration::from_secs(20);
/// An inspection takes up to 30 s.
const INSPECTION_TIMEOUT: Duration = Duration::from_secs(40);
/// The longest that a repair is at work between two calls of pm2, or two lines that it says: an inspection, and 30 s of
/// waiting for what was killed to be gone and started again.
const STEP_TIMEOUT: Duration = Duration::from_secs(75);
/// What is kept of PM2 are a few small files.
const LOGS_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Pm2Findings {
    found: BTreeMap<String, (BootTime, InspectionResult)>,
    /// The first step of the latest plan, as people read it.
    first_steps: BTreeMap<String, String>,
    /// Why PM2 may be reset, until it is made use of.
    reset_reasons: BTreeMap<String, ResetReason>,
}

impl Pm2Findings {
    fn note_found(&mut self, target: &str, found: InspectionResult, managed: &Managed) {
        let first =
            pm2::plan(managed, &found.facts).ok().and_then(|steps| steps.first().map(|step| step.shown(managed)));
        match first {
            Some(first) => self.first_steps.insert(target.to_owned(), first),
            None => self.first_steps.remove(target),
        };
        self.found.insert(target.to_owned(), (clock::now(), found));
    }

    /// What was found lately; asked for once, since acting on it makes it old.
    fn take_fresh(&mut self, target: &str) -> Option<InspectionResult> {
        let (at, found) = self.found.remove(target)?;
        (clock::now().since(at) <= MAX_AGE).then_some(found)
    }

    /// Remembers what speaks for a reset; whether anything does.
    pub(super) fn note_reset_reason(&mut self, target: &str, reason: Option<ResetReason>) -> bool {
        self.reset_reasons.remove(target);
        let Some(reason) = reason else { return false };
        self.reset_reasons.insert(target.to_string(), reason);
        true
    }
}

/// How pm2 is called for a target with this `pm2`, with a scope of its own.
pub(super) fn caller(config: &Config, pm2: &Pm2Config, timeout: Duration) -> Caller {
    let env = config.env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
    Caller { home: pm2.home.clone(), folder: config.folder.clone(), env, timeout, scope: Scope::default() }
}

/// Whether a rung calls pm2, as far as the first word of its command says.
pub fn calls_pm2(remedy: &Remedy) -> bool {
    let program = match remedy {
        Remedy::Pm2Restart(_) | Remedy::Pm2Reset(_) => return true,
        Remedy::Command(CommandLine::Shell(text)) => first_word(text),
        Remedy::Command(CommandLine::Exec(words)) => words.first().map(String::as_str),
    };
    program.is_some_and(|program| program.rsplit('/').next() == Some("pm2"))
}

struct Pm2Job {
    target: String,
    home: Home,
    caller: Caller,
    managed: Managed,
    known: PriorEvidence,
}

impl Pm2Job {
    fn with_scope_of(mut self, work: &JobContext) -> Pm2Job {
        self.caller.scope = work.scope();
        self
    }

    fn home_path(&self) -> String {
        self.home.path().display().to_string()
    }

    fn inspect(&self) -> InspectionResult {
        pm2::inspect(&self.home, &self.caller, &self.managed, self.known)
    }
}

impl Agent {
    /// None where the target or its `pm2` has left the configuration.
    fn pm2_job(&self, target: &str, timeout: Duration) -> Option<Pm2Job> {
        let configured = self.target(target)?;
        let pm2 = configured.pm2.as_ref()?;
        Some(Pm2Job {
            target: target.to_string(),
            home: Home::at(&pm2.home),
            caller: caller(&self.config, pm2, timeout),
            managed: Managed {
                process: pm2.process.clone(),
                config: pm2.config.clone(),
                env: pm2.env.clone(),
                port: configured.probe.local_port(),
            },
            known: self.policy.target(target).map(|state| state.pm2.remembered()).unwrap_or_default(),
        })
    }

    pub(super) fn inspect_pm2(&mut self, target: String) {
        let nothing = Message::Pm2Inspected { target: target.clone(), findings: None };
        let Some(job) = self.pm2_job(&target, RUNG_TIMEOUT) else {
            // The configuration has changed meanwhile: nobody has to be asked any more.
            let _ = self.post.send(nothing); // the loop itself holds the other end
            return;
        };
        let otherwise = Box::new(|_| nothing);
        self.jobs.spawn(pm2_job_spec("inspection", &job, INSPECTION_TIMEOUT, otherwise), move |work| {
            let job = job.with_scope_of(work);
            let found = job.inspect();
            Message::Pm2Inspected { target, findings: Some(Box::new((found, job.managed))) }
        });
    }

    pub(super) fn pm2_inspected(&mut self, target: String, found: Option<(InspectionResult, Managed)>) {
        let (inspection, pm2) = match &found {
            Some((found, _)) => (found.inspection, Some(found.evidence.clone())),
            // No answer is no rest.
            None => (Inspection::Failed { is_deaf: false, is_listed: false }, None),
        };
        if let Some((found, managed)) = found {
            log::info!("{target} {}", found.words);
            self.pm2.note_found(&target, found, &managed);
        }
        self.step(Event::Pm2Inspected { target, inspection, pm2 });
    }

    pub(super) fn check_reset(&mut self, target: String) {
        let checked = |target, reason| Message::ResetChecked { target, reason };
        let Some(job) = self.pm2_job(&target, RUNG_TIMEOUT) else {
            let _ = self.post.send(checked(target, None)); // the loop itself holds the other end
            return;
        };
        // What was found a moment ago holds still, and a daemon that is silent takes 10 s to be found so.
        let known = self.pm2.found.get(&target).filter(|(at, _)| clock::now().since(*at) <= MAX_AGE);
        let known = known.map(|(_, found)| found.facts.clone());
        let nothing = checked(target.clone(), None);
        let otherwise = Box::new(|_| nothing);
        self.jobs.spawn(pm2_job_spec("inspection", &job, INSPECTION_TIMEOUT, otherwise), move |work| {
            let job = job.with_scope_of(work);
            let facts = known.unwrap_or_else(|| job.inspect().facts);
            let usable = job.caller.program().map(|_| ());
            let reason = match usable.and_then(|()| pm2::reset_reason(&job.home, &job.managed, &facts)) {
                Ok(reason) => {
                    log::warn!("{target} PM2 is to be reset: {reason}");
                    Some(reason)
                }
                Err(why) => {
                    log::info!("{target} PM2 is not reset: {why}");
                    None
                }
            };
            checked(target, reason)
        });
    }

    pub(super) fn restart_with_pm2(&mut self, order: AttemptContext, timeout: Duration) {
        let found = self.pm2.take_fresh(&order.target);
        self.repair_with_pm2(order, timeout, |job, work, mut calls| {
            let found = found.unwrap_or_else(|| job.inspect());
            if let Inspection::AtRest(why) = found.inspection {
                return Err(format!("it is deliberately at rest ({})", why.as_str()));
            }
            let steps: Vec<RepairStep> = pm2::plan(&job.managed, &found.facts)?;
            work.extend_deadline(STEP_TIMEOUT + steps.iter().map(RepairStep::patience).sum());
            Ok(calls.carry_out(&steps))
        });
    }

    pub(super) fn reset_pm2(&mut self, order: AttemptContext, timeout: Duration) {
        let reason = self.pm2.reset_reasons.remove(&order.target);
        self.pm2.found.remove(&order.target);
        self.repair_with_pm2(order, timeout, move |job, _, calls| {
            // Without one, what spoke for it was found out for a configuration that has changed since.
            let reason = match reason {
                Some(reason) => reason,
                None => pm2::reset_reason(&job.home, &job.managed, &job.inspect().facts)?,
            };
            Ok(pm2::reset(&reason, calls))
        });
    }

    /// Repairs in a thread; the loop learns of each call of pm2 and of the end. An error of `carry_out` is why nothing
    /// was done.
    fn repair_with_pm2(
        &mut self,
        order: AttemptContext,
        timeout: Duration,
        carry_out: impl FnOnce(&Pm2Job, &JobContext, Calls<'_>) -> Result<CommandResult, String> + Send + 'static,
    ) {
        let target = order.target.clone();
        let ended = |target, ending, took| Message::Event(Event::CommandEnded { target, ending, took });
        let Some(job) = self.pm2_job(&target, timeout) else {
            let gone = Exit::NotStarted("it is not in the configuration any more".into());
            let _ = self.post.send(ended(target, gone, Duration::ZERO)); // the loop itself holds the other end
            return;
        };
        let places = format!("{}, {}", job.home_path(), self.journal.folder().path().display());
        if self.jobs.is_hanging("inspection", &target, &job.home_path()) {
            let hangs = Exit::NotStarted(describe_hang(&JobFailure::PreviousHangs, &places));
            let _ = self.post.send(ended(target, hangs, Duration::ZERO)); // as above
            return;
        }
        let folder = self.journal.incident_folder(&order.incident);
        let path = folder.map(|folder| output_path(&folder, &order));
        let secrets = self.config.secrets.clone();
        let by = self.repair_id(&target);
        self.jobs.spawn(repair_job(&target, order.rung, by, STEP_TIMEOUT, places), move |work| {
            let job = job.with_scope_of(work);
            let output: File = match open_output(path.as_deref()) {
                Ok(output) => output,
                Err(error) => {
                    let reason = format!("no place for its output: {error}");
                    return ended(target, Exit::NotStarted(reason), Duration::ZERO);
                }
            };
            let mut on_start = |process: Process| {
                work.command_started(process, timeout + STEP_TIMEOUT);
                work.post(command_started(&target, process));
            };
            let say = |line: &str| {
                work.extend_deadline(STEP_TIMEOUT);
                log::info!("{} {line}", job.target);
            };
            let calls = Calls {
                home: &job.home,
                caller: &job.caller,
                managed: &job.managed,
                say: &say,
                output: &output,
                on_start: &mut on_start,
            };
            let done = carry_out(&job, work, calls);
            redact_file(path.as_deref(), &secrets);
            match done {
                Ok(done) => ended(job.target, done.exit, done.duration),
                Err(why) => ended(job.target, Exit::NotStarted(why), Duration::ZERO),
            }
        });
    }

    /// The command of a rung as people read it; of a repair by way of PM2, what is planned or was done lately.
    pub(super) fn command_at(&self, target: &str, rung: usize) -> Option<String> {
        let remedy = &self.target(target)?.ladder.get(rung)?.remedy;
        let planned = self.pm2.first_steps.get(target).filter(|_| matches!(remedy, Remedy::Pm2Restart(_)));
        Some(planned.cloned().unwrap_or_else(|| remedy.to_string()))
    }

    /// Finds out, in a job, why a command that calls pm2 must not be run for this target: with a daemon that it does
    /// not reach, it would start a second one.
    pub(super) fn reason_against_pm2(
        &self,
        target: &str,
        remedy: &Remedy,
    ) -> impl FnOnce() -> Option<String> + Send + 'static {
        let is_command = matches!(remedy, Remedy::Command(_)) && calls_pm2(remedy);
        let pm2 = self.target(target).and_then(|target| target.pm2.as_ref());
        let home = pm2.filter(|_| is_command).map(|pm2| Home::at(&pm2.home));
        let before = self.pm2.found.get(target).map(|(_, found)| found.facts.daemon.clone());
        move || {
            let home = home?;
            // Seen anew, since an earlier rung may have made what was found old; that it is silent takes 10 s to find.
            let daemon = home.daemon_evidence();
            let daemon = before.map_or_else(|| daemon.clone(), |before| daemon.clone().silent_since(&before));
            let trouble = daemon.trouble(&home.path().display().to_string(), &home.call());
            trouble.filter(|_| daemon.state() == DaemonState::Deaf)
        }
    }

    /// When a target goes down: keeps what was found of PM2, what its process was doing, and the ends of its logs,
    /// before a restart changes all that.
    pub(super) fn save_pm2_logs(&mut self, target: &str, incident: &str) {
        let Some(job) = self.pm2_job(target, RUNG_TIMEOUT) else { return };
        let Some(folder) = self.journal.incident_folder(incident) else { return };
        let found = self.pm2.found.get(target).map(|(_, found)| found.clone());
        if let Some(words) = found.as_ref().map(|found| found.words.clone()) {
            self.incidents.amend(target, incident, &self.journal, |account| account.pm2 = Some(words));
        }
        self.incidents.note_job_started(clock::now());
        let (target, incident, secrets) = (target.to_string(), incident.to_string(), self.config.secrets.clone());
        let nothing = Message::Pm2LogsSaved {
            target: target.clone(),
            incident: incident.clone(),
            activity: None,
            last_line: None,
        };
        self.jobs.spawn(pm2_job_spec("keeper", &job, LOGS_TIMEOUT, Box::new(|_| nothing)), move |_| {
            let name = &job.managed.process;
            let activity = found.as_ref().map_or_else(|| job.home.activity(name), |found| found.activity);
            let doing = activity.map(|activity| (activity.pid, activity.to_string()));
            if let Some((_, doing)) = &doing {
                log::info!("{target} {doing}");
            }
            let logs = job.home.logs(name, &apps(found), job.known.process);
            let said = pm2::last_words(&logs).map(|line| secrets.redact(&line).into_owned());
            write_pm2_files(&folder, doing.as_ref().map(|(_, doing)| doing.as_str()), &logs, &secrets);
            Message::Pm2LogsSaved { target, incident, activity: doing, last_line: said }
        });
    }
}

fn pm2_job_spec(name: &'static str, job: &Pm2Job, within: Duration, otherwise: OnFailure) -> Spawned {
    let (of, by) = (job.target.clone(), job.home_path());
    Spawned { name, subject: of, variant: by, timeout: within, outlives_watchdog: false, on_failure: otherwise }
}

fn apps(found: Option<InspectionResult>) -> Vec<App> {
    let Some(InspectionResult { facts, .. }) = found else { return Vec::new() };
    match (facts.listed, facts.saved) {
        (Some(apps), _) | (None, SavedList::Apps(apps)) => apps,
        (None, SavedList::Missing | SavedList::Unreadable(_)) => Vec::new(),
    }
}

/// Writes what was seen into the incident's folder. What cannot be kept is missing there and hinders nothing.
fn write_pm2_files(incident: &Path, doing: Option<&str>, logs: &[LogFile], secrets: &Secrets) {
    let write = |name: &str, text: &str| {
        if let Err(error) = incidents::keep(incident, name, text.as_bytes()) {
            log::warn!("{error} (the incident lacks it)");
        }
    };
    if let Some(doing) = doing {
        write("process.txt", &format!("{doing}\n"));
    }
    for LogFile { name, tail, .. } in logs {
        write(name, &secrets.redact(tail));
    }
}

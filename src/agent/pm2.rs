//! The jobs that deal with PM2: inspecting a process before anything is decided against it, repairing it, resetting
//! PM2, and copying its logs when a target goes down. All file access in PM2's home is done in jobs with a deadline,
//! never in the loop, since the home may be on a file server that does not respond; only one job calls pm2 at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use crate::clock;
use crate::command::{CommandResult, Scope, first_program};
use crate::config::{CommandLine, Config, Pm2Config, RUNG_TIMEOUT, Remedy, Secrets};
use crate::logging::about;
use crate::outcome::{DaemonState, Exit, Inspection, PriorEvidence};
use crate::pm2::{
    self, App, Caller, Home, InspectionResult, LogFile, ManagedProcess, RepairContext, RepairStep, ResetReason,
    SavedList,
};
use crate::policy::{Event, OrderedBy};
use crate::process::Process;
use crate::store::incidents;
use crate::systemd::UnitState;
use crate::time::BootTime;

use super::Agent;
use super::jobs::{AttemptContext, command_started, describe_hang, open_output, output_path, redact_file, repair_job};
use super::message::Message;
use super::pool::{JobContext, JobFailure, JobSpec, OnFailure};
use super::unit::UnitQuestion;

/// Older findings are not acted on: the inspection is repeated first.
const MAX_AGE: Duration = Duration::from_secs(20);
/// An inspection takes up to 30 s.
pub(super) const INSPECTION_TIMEOUT: Duration = Duration::from_secs(40);
/// The longest time that a repair needs between two pm2 calls or two lines of its log: an inspection, and 30 s for a
/// killed process to end and start again.
const STEP_TIMEOUT: Duration = Duration::from_secs(75);
/// Copying a few small files takes this long only if a file server does not respond.
const LOGS_TIMEOUT: Duration = Duration::from_secs(30);

/// The job name of inspections: while one hangs, no repair of the same target with PM2 starts.
pub(super) const INSPECTION_JOB: &str = "PM2 inspection";

/// By target: what the latest inspections found.
#[derive(Default)]
pub(super) struct Pm2Findings {
    found: BTreeMap<String, (BootTime, InspectionResult)>,
    /// The first step of the latest plan, in the operator's terms.
    first_steps: BTreeMap<String, String>,
    /// Why PM2 may be reset, until a reset uses it.
    reset_reasons: BTreeMap<String, ResetReason>,
}

impl Pm2Findings {
    fn note_inspection(&mut self, target: &str, result: InspectionResult, managed: &ManagedProcess) {
        let first_step = pm2::plan_repair(managed, &result.facts)
            .ok()
            .and_then(|steps| steps.first().map(|step| step.describe(managed)));
        match first_step {
            Some(step) => self.first_steps.insert(target.to_owned(), step),
            None => self.first_steps.remove(target),
        };
        self.found.insert(target.to_owned(), (clock::now(), result));
    }

    /// Takes the findings if they are recent. They are removed, since acting on them makes them out of date.
    fn take_recent(&mut self, target: &str) -> Option<InspectionResult> {
        let (at, result) = self.found.remove(target)?;
        (clock::now().since(at) <= MAX_AGE).then_some(result)
    }

    /// Returns whether there is a reason for a reset.
    pub(super) fn note_reset_reason(&mut self, target: &str, reason: Option<ResetReason>) -> bool {
        self.reset_reasons.remove(target);
        let Some(reason) = reason else { return false };
        self.reset_reasons.insert(target.to_string(), reason);
        true
    }
}

/// How to call pm2 for a target with this `pm2` setting.
pub(super) fn caller(config: &Config, pm2: &Pm2Config, timeout: Duration) -> Caller {
    let env = config.env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
    Caller { home: pm2.home.clone(), folder: config.folder.clone(), env, timeout, scope: Scope::default() }
}

/// Whether a rung calls pm2, judged by the first word of its command.
pub fn calls_pm2(remedy: &Remedy) -> bool {
    let program = match remedy {
        Remedy::Pm2Restart(_) | Remedy::Pm2Reset(_) => return true,
        Remedy::Command(CommandLine::Shell(text)) => first_program(text),
        Remedy::Command(CommandLine::Exec(words)) => words.first().map(String::as_str),
    };
    program.is_some_and(|program| program.rsplit('/').next() == Some("pm2"))
}

pub(super) struct Pm2Job {
    target: String,
    home: Home,
    caller: Caller,
    pub(super) managed: ManagedProcess,
    known: PriorEvidence,
    /// About the unit of its daemon, if one is configured.
    unit: Option<UnitQuestion>,
}

impl Pm2Job {
    pub(super) fn with_scope_of(mut self, context: &JobContext) -> Pm2Job {
        self.caller.scope = context.scope();
        self.unit = self.unit.map(|unit| unit.with_scope_of(context));
        self
    }

    fn home_path(&self) -> String {
        self.home.path().display().to_string()
    }

    /// A daemon that answers knows best. Without one, its unit tells whether it was stopped on purpose.
    pub(super) fn inspect(&self) -> InspectionResult {
        let mut result = pm2::inspect(&self.home, &self.caller, &self.managed, self.known);
        if let Some(unit) = self.unit.as_ref().filter(|_| result.facts.daemon.state() != DaemonState::Alive) {
            let (state, text) = unit.ask();
            result.summary += &format!("; {text}");
            if let UnitState::AtRest(reason) = state {
                result.inspection = Inspection::AtRest(reason);
            }
        }
        result
    }
}

impl Agent {
    /// `None` if the target or its `pm2` is no longer in the configuration.
    pub(super) fn pm2_job(&self, target: &str, timeout: Duration) -> Option<Pm2Job> {
        let configured = self.target(target)?;
        let pm2 = configured.pm2.as_ref()?;
        Some(Pm2Job {
            target: target.to_string(),
            home: Home::at(&pm2.home),
            caller: caller(&self.config, pm2, timeout),
            managed: ManagedProcess {
                process: pm2.process.clone(),
                config: pm2.config.clone(),
                env: pm2.env.clone(),
                ports: configured.probe.local_ports(),
            },
            known: self.policy.target(target).map(|state| state.pm2.prior_evidence()).unwrap_or_default(),
            unit: self.unit_question(target),
        })
    }

    pub(super) fn inspect_pm2(&mut self, target: String) {
        let nothing = Message::Pm2Inspected { target: target.clone(), findings: None };
        let Some(job) = self.pm2_job(&target, RUNG_TIMEOUT) else {
            // The configuration has changed: there is nothing to inspect any more.
            let _ = self.post.send(nothing); // cannot fail: the loop holds the receiver
            return;
        };
        let on_failure = Box::new(|_| nothing);
        self.jobs.spawn(pm2_job_spec(INSPECTION_JOB, &job, INSPECTION_TIMEOUT, on_failure), move |context| {
            let job = job.with_scope_of(context);
            let result = job.inspect();
            Message::Pm2Inspected { target, findings: Some(Box::new((result, job.managed))) }
        });
    }

    pub(super) fn pm2_inspected(&mut self, target: String, findings: Option<Box<(InspectionResult, ManagedProcess)>>) {
        let (inspection, pm2) = match findings.as_deref() {
            Some((result, _)) => (result.inspection, Some(result.evidence.clone())),
            // A failed inspection does not mean that the target is deliberately at rest.
            None => (Inspection::Failed { is_deaf: false, is_listed: false }, None),
        };
        if let Some((result, managed)) = findings.map(|findings| *findings) {
            // While it is at rest, the same is found again and again.
            let was_at_rest = self.policy.target(&target).is_some_and(|state| state.rest.is_some());
            let is_known = was_at_rest && matches!(inspection, Inspection::AtRest(_));
            let level = if is_known { log::Level::Debug } else { log::Level::Info };
            log::log!(target: &about(&target), level, "{}", result.summary);
            self.pm2.note_inspection(&target, result, &managed);
        }
        self.step(Event::Inspected { target, inspection, pm2 });
    }

    pub(super) fn check_reset(&mut self, target: String) {
        let checked = |target, reason| Message::ResetChecked { target, reason };
        let Some(job) = self.pm2_job(&target, RUNG_TIMEOUT) else {
            let _ = self.post.send(checked(target, None)); // cannot fail: the loop holds the receiver
            return;
        };
        // Recent findings are reused: it takes 10 s to find out that a daemon does not answer.
        let known = self.pm2.found.get(&target).filter(|(at, _)| clock::now().since(*at) <= MAX_AGE);
        let known = known.map(|(_, result)| result.facts.clone());
        let nothing = checked(target.clone(), None);
        let on_failure = Box::new(|_| nothing);
        self.jobs.spawn(pm2_job_spec(INSPECTION_JOB, &job, INSPECTION_TIMEOUT, on_failure), move |context| {
            let job = job.with_scope_of(context);
            let facts = known.unwrap_or_else(|| job.inspect().facts);
            let has_pm2 = job.caller.find_program().map(|_| ());
            let reason = match has_pm2.and_then(|()| pm2::find_reset_reason(&job.home, &job.managed, &facts)) {
                Ok(reason) => {
                    log::warn!(target: &about(&target), "PM2 needs a reset: {reason}");
                    Some(reason)
                }
                Err(why) => {
                    log::info!(target: &about(&target), "PM2 is not reset: {why}");
                    None
                }
            };
            checked(target, reason)
        });
    }

    pub(super) fn restart_with_pm2(&mut self, attempt: AttemptContext, timeout: Duration) {
        let recent = self.pm2.take_recent(&attempt.target);
        let is_ordered = attempt.by == Some(OrderedBy::Operator);
        self.repair_with_pm2(attempt, timeout, move |job, context, mut calls| {
            let mut result = recent.unwrap_or_else(|| job.inspect());
            if let Inspection::AtRest(why) = result.inspection {
                if !is_ordered {
                    return Err(format!("it is deliberately at rest ({})", why.as_str()));
                }
                // The operator who stopped it has now ordered its restart.
                result.facts.ids_at_rest.clear();
            }
            let steps: Vec<RepairStep> = pm2::plan_repair(&job.managed, &result.facts)?;
            context.extend_deadline(STEP_TIMEOUT + steps.iter().map(RepairStep::wait_limit).sum());
            Ok(calls.execute(&steps))
        });
    }

    pub(super) fn reset_pm2(&mut self, attempt: AttemptContext, timeout: Duration) {
        let reason = self.pm2.reset_reasons.remove(&attempt.target);
        self.pm2.found.remove(&attempt.target);
        self.repair_with_pm2(attempt, timeout, move |job, _, calls| {
            // No reason is noted if the configuration has changed since the check.
            let reason = match reason {
                Some(reason) => reason,
                None => pm2::find_reset_reason(&job.home, &job.managed, &job.inspect().facts)?,
            };
            Ok(pm2::reset(&reason, calls))
        });
    }

    /// Runs a repair as a job; the loop is notified of each pm2 call and of the end. An error of `repair` says why
    /// nothing was done.
    fn repair_with_pm2(
        &mut self,
        attempt: AttemptContext,
        timeout: Duration,
        repair: impl FnOnce(&Pm2Job, &JobContext, RepairContext<'_>) -> Result<CommandResult, String> + Send + 'static,
    ) {
        let target = attempt.target.clone();
        let ended = |target, exit, duration| Message::Event(Event::CommandEnded { target, exit, duration });
        let Some(job) = self.pm2_job(&target, timeout) else {
            let removed = Exit::NotStarted("it is no longer in the configuration".into());
            let _ = self.post.send(ended(target, removed, Duration::ZERO)); // cannot fail: the loop holds the receiver
            return;
        };
        let paths = format!("{}, {}", job.home_path(), self.journal.folder().path().display());
        if self.jobs.is_hanging(INSPECTION_JOB, &target, &job.home_path()) {
            let hangs = Exit::NotStarted(describe_hang(&JobFailure::PreviousHangs, &paths));
            let _ = self.post.send(ended(target, hangs, Duration::ZERO)); // as above
            return;
        }
        let folder = self.journal.incident_folder(&attempt.folder);
        let path = folder.map(|folder| output_path(&folder, &attempt));
        let secrets = self.config.secrets.clone();
        let variant = self.repair_id(&target);
        self.jobs.spawn(repair_job(&target, attempt.rung, variant, STEP_TIMEOUT, paths), move |context| {
            let job = job.with_scope_of(context);
            let output: File = match open_output(path.as_deref()) {
                Ok(output) => output,
                Err(error) => {
                    let reason = format!("its output file cannot be opened: {error}");
                    return ended(target, Exit::NotStarted(reason), Duration::ZERO);
                }
            };
            let mut on_start = |process: Process| {
                context.command_started(process, timeout + STEP_TIMEOUT);
                context.post(command_started(&target, process));
            };
            let report = |line: &str| {
                context.extend_deadline(STEP_TIMEOUT);
                log::info!(target: &about(&job.target), "{line}");
            };
            let calls = RepairContext {
                home: &job.home,
                caller: &job.caller,
                managed: &job.managed,
                log_line: &report,
                output: &output,
                on_start: &mut on_start,
            };
            let result = repair(&job, context, calls);
            redact_file(path.as_deref(), &secrets);
            match result {
                Ok(result) => ended(job.target, result.exit, result.duration),
                Err(why) => ended(job.target, Exit::NotStarted(why), Duration::ZERO),
            }
        });
    }

    /// The command of a rung in the operator's terms; for a restart with PM2, the first step of the latest plan.
    pub(super) fn command_at(&self, target: &str, rung: usize) -> Option<String> {
        let remedy = &self.target(target)?.ladder.get(rung)?.remedy;
        let planned = self.pm2.first_steps.get(target).filter(|_| matches!(remedy, Remedy::Pm2Restart(_)));
        Some(planned.cloned().unwrap_or_else(|| remedy.to_string()))
    }

    /// The check, for use in a job, why a command that calls pm2 must not run for this target: if it cannot reach the
    /// running daemon, it would start a second one.
    pub(super) fn reason_against_pm2(
        &self,
        target: &str,
        remedy: &Remedy,
    ) -> impl FnOnce() -> Option<String> + Send + 'static {
        let is_command = matches!(remedy, Remedy::Command(_)) && calls_pm2(remedy);
        let pm2 = self.target(target).and_then(|target| target.pm2.as_ref());
        let home = pm2.filter(|_| is_command).map(|pm2| Home::at(&pm2.home));
        let earlier = self.pm2.found.get(target).map(|(_, result)| result.facts.daemon.clone());
        move || {
            let home = home?;
            // The evidence is collected again, since an earlier rung may have changed it; but that the daemon does not
            // answer takes 10 s to find out, so that part is taken from the earlier inspection.
            let daemon = home.observe_daemon();
            let daemon = earlier.map_or_else(|| daemon.clone(), |earlier| daemon.clone().inherit_silence(&earlier));
            let trouble = daemon.trouble(&home.path().display().to_string(), &home.pm2_command());
            trouble.filter(|_| daemon.state() == DaemonState::Deaf)
        }
    }

    /// When a target goes down: saves what was found about PM2, what its process was doing, and the tails of its logs,
    /// before a restart changes them.
    pub(super) fn save_pm2_logs(&mut self, target: &str, incident: &str) {
        let Some(job) = self.pm2_job(target, RUNG_TIMEOUT) else { return };
        let Some(folder) = self.journal.incident_folder(incident) else { return };
        let inspected = self.pm2.found.get(target).map(|(_, result)| result.clone());
        if let Some(words) = inspected.as_ref().map(|result| result.summary.clone()) {
            self.incidents.amend(target, incident, &self.journal, |incident| incident.pm2 = Some(words));
        }
        self.incidents.note_job_started(clock::now());
        let (target, incident, secrets) = (target.to_string(), incident.to_string(), self.config.secrets.clone());
        let nothing = Message::Pm2LogsSaved {
            target: target.clone(),
            incident: incident.clone(),
            activity: None,
            last_line: None,
        };
        self.jobs.spawn(pm2_job_spec("PM2 log copy", &job, LOGS_TIMEOUT, Box::new(|_| nothing)), move |_| {
            let name = &job.managed.process;
            let activity = inspected.as_ref().map_or_else(|| job.home.activity(name), |result| result.activity);
            let activity = activity.map(|activity| (activity.pid, activity.to_string()));
            let text = activity.as_ref().map(|(_, text)| text.as_str());
            if let Some(text) = text {
                log::info!(target: &about(&target), "{text}");
            }
            let logs = job.home.logs(name, &apps(inspected), job.known.process);
            let last_line = pm2::log_excerpt(&logs).map(|line| secrets.redact(&line).into_owned());
            write_pm2_files(&folder, text, &logs, &secrets);
            Message::Pm2LogsSaved { target, incident, activity, last_line }
        });
    }
}

pub(super) fn pm2_job_spec(name: &'static str, job: &Pm2Job, timeout: Duration, on_failure: OnFailure) -> JobSpec {
    let (subject, variant) = (job.target.clone(), job.home_path());
    JobSpec { name, subject, variant, timeout, outlives_watchdog: false, on_failure }
}

/// The apps that PM2 lists, or has saved if it was not asked for its list.
fn apps(inspected: Option<InspectionResult>) -> Vec<App> {
    let Some(InspectionResult { facts, .. }) = inspected else { return Vec::new() };
    match (facts.listed, facts.saved) {
        (Some(apps), _) | (None, SavedList::Apps(apps)) => apps,
        (None, SavedList::Missing | SavedList::Unreadable(_)) => Vec::new(),
    }
}

/// Writes the evidence into the incident's folder. What cannot be written is missing there, with a warning.
fn write_pm2_files(incident: &Path, activity: Option<&str>, logs: &[LogFile], secrets: &Secrets) {
    let write = |name: &str, text: &str| {
        if let Err(error) = incidents::save_file(incident, name, text.as_bytes()) {
            log::warn!("{error} (the incident lacks it)");
        }
    };
    if let Some(activity) = activity {
        write("process.txt", &format!("{activity}\n"));
    }
    for LogFile { name, tail, .. } in logs {
        write(name, &secrets.redact(tail));
    }
}

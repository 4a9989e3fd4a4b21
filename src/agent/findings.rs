//! Collects evidence when a target goes down, before a restart changes it: a snapshot of the machine, PM2's logs, and
//! the output of the operator's `diagnose` commands. Each is a job; none may delay the loop or a restart beyond its
//! timeout.

use std::path::Path;
use std::time::Duration;

use crate::clock;
use crate::command::{self, Leftovers};
use crate::config::CommandLine;
use crate::logging::about;
use crate::outcome::Exit;
use crate::policy::{Event, TargetState};
use crate::process::Machine;
use crate::time::HumanDuration;

use super::Agent;
use super::jobs::{AttemptContext, redact_file};
use super::message::Message;
use super::pool::{JobSpec, KILL_GRACE};

/// For all `diagnose` commands together.
const DIAGNOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// A snapshot of the machine takes 250 ms, unless the state folder is on a file server that does not respond.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);

impl Agent {
    /// Starts the jobs that need no configuration: the snapshot of the machine and the copy of PM2's logs.
    pub(super) fn collect_evidence(&mut self, target: &str, incident: &str) {
        let is_running = !self.awaiting_snapshot.is_empty();
        self.awaiting_snapshot.push((target.to_owned(), incident.to_owned()));
        if !is_running {
            self.incidents.note_job_started(clock::now());
            let folder = self.journal.folder().path().to_owned();
            let job = JobSpec {
                name: "snapshot",
                subject: String::new(),
                variant: String::new(),
                timeout: SNAPSHOT_TIMEOUT,
                outlives_watchdog: false,
                on_failure: Box::new(|_| Message::SnapshotTaken(Box::default())),
            };
            self.jobs.spawn(job, move |_| Message::SnapshotTaken(Box::new(Machine::read(&folder, clock::now()))));
        }
        self.save_pm2_logs(target, incident);
        self.save_unit_finding(target, incident);
    }

    /// Adds the snapshot to all incidents that wait for it.
    pub(super) fn snapshot_taken(&mut self, machine: &Machine) {
        self.incidents.note_job_ended();
        for (target, incident) in std::mem::take(&mut self.awaiting_snapshot) {
            self.incidents
                .amend(&target, &incident, &self.journal, |incident| incident.machine = Some(machine.clone()));
        }
    }

    pub(super) fn pm2_logs_saved(
        &mut self,
        target: &str,
        incident: &str,
        activity: Option<(u32, String)>,
        last_line: Option<String>,
    ) {
        self.incidents.note_job_ended();
        let (pid, process) = activity.unzip();
        self.incidents.amend(target, incident, &self.journal, |incident| {
            (incident.pid, incident.process, incident.log_line) = (pid, process, last_line);
        });
    }

    /// Runs the `diagnose` commands of a target that went down, one after the other.
    pub(super) fn diagnose(&mut self, target: String, incident: String) {
        let finished = |target, incident| Message::Event(Event::DiagnosisFinished { target, incident });
        let commands = self.target(&target).map(|target| target.diagnose.clone()).unwrap_or_default();
        let folder = self.journal.incident_folder(&incident);
        self.incidents.amend(&target, &incident, &self.journal, |incident| {
            incident.diagnosed = commands.iter().map(CommandLine::to_string).collect();
        });
        let failures = self.policy.target(&target).map_or(0, TargetState::failures);
        let attempt =
            AttemptContext { target: target.clone(), number: 0, rung: 0, folder: incident.clone(), failures, by: None };
        let spec = |(index, command): (usize, &CommandLine)| {
            let output = folder.as_deref().map(|folder| diagnose_output_path(folder, index));
            (self.command_spec(command, DIAGNOSE_TIMEOUT, &attempt, folder.as_deref(), output.as_deref()), output)
        };
        let secrets = self.config.secrets.clone();
        let specs: Vec<_> = commands.iter().enumerate().map(spec).collect();
        let (failed_target, failed_incident) = (target.clone(), incident.clone());
        let job = JobSpec {
            name: "diagnosis",
            subject: target.clone(),
            variant: String::new(),
            timeout: DIAGNOSE_TIMEOUT + KILL_GRACE,
            outlives_watchdog: false,
            on_failure: Box::new(move |why| {
                log::warn!(target: &about(&failed_target), "diagnose: {why} (its output may be incomplete)");
                finished(failed_target, failed_incident)
            }),
        };
        self.jobs.spawn(job, move |context| {
            let began = clock::now();
            let (count, mut succeeded) = (specs.len(), 0);
            for (spec, output) in specs {
                let left = DIAGNOSE_TIMEOUT.saturating_sub(clock::now().since(began));
                match spec {
                    _ if left.is_zero() => break,
                    Ok(spec) => {
                        let spec = command::CommandSpec { timeout: left, scope: context.scope(), ..spec };
                        let result = command::run(command::CommandSpec { leftovers: Leftovers::End, ..spec }, |_| ());
                        redact_file(output.as_deref(), &secrets);
                        succeeded += usize::from(result.exit == Exit::Exited(0));
                    }
                    Err(error) => log::warn!(
                        target: &about(&target),
                        "diagnose: an output file cannot be opened: {error} (a command was not run)"
                    ),
                }
            }
            let duration = HumanDuration(clock::now().since(began));
            log::info!(target: &about(&target), "diagnose: {succeeded} of {count} commands exited 0, in {duration}");
            finished(target, incident)
        });
    }
}

fn diagnose_output_path(folder: &Path, index: usize) -> std::path::PathBuf {
    folder.join(format!("diagnose-{}.out", index + 1))
}

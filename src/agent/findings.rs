//! What is found out when a target goes down, before a restart changes it: the machine, what PM2 knows, and what the
//! operator wants to know. Each is a job that holds up nothing.

use std::path::Path;
use std::time::Duration;

use crate::clock;
use crate::command::{self, Leftovers};
use crate::config::CommandLine;
use crate::outcome::Exit;
use crate::policy::{Event, TargetState};
use crate::process::Machine;
use crate::time::HumanDuration;

use super::Agent;
use super::jobs::{AttemptContext, redact_file};
use super::message::Message;
use super::pool::{JobSpec, KILL_GRACE};

/// What `diagnose` may take, all its commands together.
const DIAGNOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// A look at the machine takes a quarter of a second.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);

impl Agent {
    /// What is found out of a target that goes down, whatever is configured: the machine, and what PM2 knows.
    pub(super) fn collect_evidence(&mut self, target: &str, incident: &str) {
        let is_under_way = !self.awaiting_snapshot.is_empty();
        self.awaiting_snapshot.push((target.to_owned(), incident.to_owned()));
        if !is_under_way {
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
            self.jobs.spawn(job, move |_| Message::SnapshotTaken(Box::new(Machine::now(&folder, clock::now()))));
        }
        self.save_pm2_logs(target, incident);
    }

    /// What the machine was like, for all incidents that wait for it.
    pub(super) fn snapshot_taken(&mut self, machine: &Machine) {
        self.incidents.note_job_ended();
        for (target, incident) in std::mem::take(&mut self.awaiting_snapshot) {
            self.incidents.amend(&target, &incident, &self.journal, |account| account.machine = Some(machine.clone()));
        }
    }

    /// What PM2 knows is kept in the incident's folder.
    pub(super) fn pm2_logs_saved(
        &mut self,
        target: &str,
        incident: &str,
        doing: Option<(u32, String)>,
        said: Option<String>,
    ) {
        self.incidents.note_job_ended();
        let (pid, process) = doing.unzip();
        self.incidents.amend(target, incident, &self.journal, |account| {
            (account.pid, account.process, account.said) = (pid, process, said);
        });
    }

    /// Runs what the operator wants to know of a target that went down, one command after the other.
    pub(super) fn diagnose(&mut self, target: String, incident: String) {
        let diagnosed = |target, incident| Message::Event(Event::DiagnosisFinished { target, incident });
        let commands = self.target(&target).map(|target| target.diagnose.clone()).unwrap_or_default();
        let folder = self.journal.incident_folder(&incident);
        self.incidents.amend(&target, &incident, &self.journal, |account| {
            account.diagnosed = commands.iter().map(CommandLine::to_string).collect();
        });
        let failures = self.policy.target(&target).map_or(0, TargetState::failures);
        let order = AttemptContext { target: target.clone(), number: 0, rung: 0, incident: incident.clone(), failures };
        let spec = |(index, command): (usize, &CommandLine)| {
            let output = folder.as_deref().map(|folder| diagnose_output_path(folder, index));
            (self.command_spec(command, DIAGNOSE_TIMEOUT, &order, folder.as_deref(), output.as_deref()), output)
        };
        let secrets = self.config.secrets.clone();
        let specs: Vec<_> = commands.iter().enumerate().map(spec).collect();
        let (about, of) = (target.clone(), incident.clone());
        let job = JobSpec {
            name: "diagnosis",
            subject: target.clone(),
            variant: String::new(),
            timeout: DIAGNOSE_TIMEOUT + KILL_GRACE,
            outlives_watchdog: false,
            on_failure: Box::new(move |why| {
                log::warn!("{about} could not be looked into (diagnose): {why}");
                diagnosed(about, of)
            }),
        };
        self.jobs.spawn(job, move |work| {
            let began = clock::now();
            let (count, mut good) = (specs.len(), 0);
            for (spec, output) in specs {
                let left = DIAGNOSE_TIMEOUT.saturating_sub(clock::now().since(began));
                match spec {
                    _ if left.is_zero() => break,
                    Ok(spec) => {
                        let spec = command::CommandSpec { timeout: left, scope: work.scope(), ..spec };
                        let ended = command::run(command::CommandSpec { leftovers: Leftovers::End, ..spec }, |_| ());
                        redact_file(output.as_deref(), &secrets);
                        good += usize::from(ended.exit == Exit::Exited(0));
                    }
                    Err(error) => log::warn!("{target} cannot be looked into: no place for the output: {error}"),
                }
            }
            let took = HumanDuration(clock::now().since(began));
            log::info!("{target} looked into: {good} of {count} commands (diagnose) exited 0, in {took}");
            diagnosed(target, incident)
        });
    }
}

fn diagnose_output_path(folder: &Path, index: usize) -> std::path::PathBuf {
    folder.join(format!("diagnose-{}.out", index + 1))
}

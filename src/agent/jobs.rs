//! Probes, preconditions and restart commands: each is a job with a deadline that reports exactly once.
//! Nothing here may block the loop, and no command may run without its scope, its output file and its redaction.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::command::{self, CommandSpec, Leftovers, Scope};
use crate::config::{self, CommandLine, CutEnds, Remedy, Secrets};
use crate::logging::about;
use crate::outcome::{Exit, ProbeResult, Verdict};
use crate::policy::{Event, OrderedBy, Phase, Precondition, State};
use crate::process::{self, Process};
use crate::store::{self, Folder};
use crate::time::BootTime;

use super::Agent;
use super::message::Message;
use super::pool::{JobFailure, JobSpec, KILL_GRACE};

/// A command that has not started after this long is not going to: its program, its folder or its output file is on a
/// file server that does not respond.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// A probe may overrun its timeout on a slow machine. One that has no result this long after twice its timeout hangs.
const PROBE_GRACE: Duration = Duration::from_secs(30);
const ONLY_IF_TIMEOUT: Duration = Duration::from_secs(10);

/// Finds the processes of restart commands whose pid the previous watchdog could not note before it ended. Unless the
/// agent waits for them, the next attempt could run at the same time.
pub(super) fn find_unnoted_commands(folder: &Folder, state: &mut State) {
    for (target, state) in &mut state.targets {
        let Some(attempt) = &mut state.attempt else { continue };
        let output_folder = attempt.folder().to_owned();
        if let Phase::Running { process: process @ None, .. } = &mut attempt.phase
            && let Ok(incident) = store::incidents::create(folder, &output_folder)
        {
            let variables = identifying_variables(target, attempt.number, attempt.rung, Some(&incident));
            // A pm2 command has none of these variables, but its output goes to this file.
            let output = store::incidents::output_path(&incident, attempt.number, rung_from_one(attempt.rung));
            let found = process::find_by_environment(&variables).or_else(|| process::find_by_output(&output));
            *process = found.map(|Process { pid, started }| (pid, started));
        }
    }
}

/// The environment variables that together identify one command.
fn identifying_variables(target: &str, attempt: u32, rung: usize, incident: Option<&Path>) -> [(String, String); 4] {
    let incident = incident.map_or_else(String::new, |path| path.display().to_string());
    [
        ("WATCHDOG_TARGET".into(), target.into()),
        ("WATCHDOG_ATTEMPT".into(), attempt.to_string()),
        ("WATCHDOG_RUNG".into(), (rung + 1).to_string()),
        ("WATCHDOG_INCIDENT".into(), incident),
    ]
}

pub(super) struct AttemptContext {
    pub(super) target: String,
    pub(super) number: u32,
    /// From 0.
    pub(super) rung: usize,
    /// The folder of incidents for its output: that of its incident, if there is one.
    pub(super) folder: String,
    pub(super) failures: u32,
    /// Who ordered it, if anyone did.
    pub(super) by: Option<OrderedBy>,
}

impl Agent {
    pub(super) fn start_probe(&mut self, target: String, number: u64) {
        let Some((prober, timeout)) = self.probers.get(&target) else { return };
        let mut known = self.policy.target(&target).map(|state| state.pm2.prior_evidence()).unwrap_or_default();
        known.file = self.journal.saved.files.get(&target).copied();
        let probed = target.clone();
        let job = JobSpec {
            name: "probe",
            subject: target.clone(),
            // A hanging job keeps its prober alive, so no other prober can have the same address.
            variant: format!("{:p}", Arc::as_ptr(&prober)),
            timeout: timeout * 2 + PROBE_GRACE,
            outlives_watchdog: false,
            on_failure: Box::new(move |why| {
                let verdict = Verdict::Unknown { detail: format!("the probe could not be made: {why}") };
                let result = ProbeResult::new(verdict, Duration::ZERO);
                Message::ProbeFinished { target: probed, number, result }
            }),
        };
        let curable = self.target(&target).map(|target| target.limits.restart_on.clone()).unwrap_or_default();
        self.jobs.spawn(job, move |_| Message::ProbeFinished { target, number, result: prober.probe(known, &curable) });
    }

    pub(super) fn check_precondition(&mut self, target: String, precondition: Precondition) {
        match precondition {
            Precondition::Stopped => self.inspect_target(target),
            Precondition::OnlyIf => self.run_only_if(target),
        }
    }

    fn run_only_if(&mut self, target: String) {
        let checked = |target, yes| {
            Message::Event(Event::PreconditionChecked { target, precondition: Precondition::OnlyIf, holds: yes })
        };
        let configured = self.target(&target).and_then(|target| target.only_if.clone());
        let incident = self.policy.target(&target).and_then(|state| state.incident.as_ref());
        let Some((command, incident)) = configured.zip(incident) else {
            // The configuration has changed: there is no only_if left to run.
            let _ = self.post.send(checked(target, true)); // cannot fail: the loop holds the receiver
            return;
        };
        let attempt = AttemptContext {
            target: target.clone(),
            number: 0,
            rung: 0,
            folder: incident.id.clone(),
            failures: self.policy.target(&target).map_or(0, |state| state.failures()),
            by: None,
        };
        let folder = self.journal.incident_folder(&attempt.folder);
        let path = folder.as_ref().map(|folder| folder.join("only_if.out"));
        let spec = self.command_spec(&command, ONLY_IF_TIMEOUT, &attempt, folder.as_deref(), path.as_deref());
        let secrets = self.config.secrets.clone();
        let checked_target = target.clone();
        let job = JobSpec {
            name: "only_if",
            subject: target.clone(),
            variant: self.repair_id(&target),
            timeout: ONLY_IF_TIMEOUT + KILL_GRACE,
            outlives_watchdog: false,
            on_failure: Box::new(move |why| {
                log::warn!(target: &about(&checked_target), "may not be restarted: only_if could not run: {why}");
                checked(checked_target, false)
            }),
        };
        self.jobs.spawn(job, move |context| {
            let spec = spec.map(|spec| CommandSpec { scope: context.scope(), leftovers: Leftovers::End, ..spec });
            let exit = spec.map(|spec| command::run(spec, |_| ()).exit);
            redact_file(path.as_deref(), &secrets);
            let yes = matches!(exit, Ok(Exit::Exited(0)));
            let about = about(&target);
            match exit {
                Ok(Exit::Exited(0)) => log::info!(target: &about, "may be restarted: only_if exited 0"),
                Ok(exit) => log::info!(target: &about, "may not be restarted: only_if {}", describe_exit(&exit)),
                Err(error) => log::warn!(target: &about, "may not be restarted: only_if could not run: {error}"),
            }
            checked(target, yes)
        });
    }

    pub(super) fn run_command(&mut self, attempt: AttemptContext) {
        let target = attempt.target.clone();
        let ended = |target, exit, duration| Message::Event(Event::CommandEnded { target, exit, duration });
        let Some(rung) = self.target(&target).and_then(|target| target.ladder.get(attempt.rung)).cloned() else {
            let removed = Exit::NotStarted("it is no longer in the configuration".into());
            let _ = self.post.send(ended(target, removed, Duration::ZERO)); // cannot fail: the loop holds the receiver
            return;
        };
        let command = match &rung.remedy {
            Remedy::Command(command) => command,
            Remedy::Pm2Restart(_) => return self.restart_with_pm2(attempt, rung.timeout),
            Remedy::Pm2Reset(_) => return self.reset_pm2(attempt, rung.timeout),
        };
        let find_reason_against = self.reason_against_pm2(&target, &rung.remedy);
        let folder = self.journal.incident_folder(&attempt.folder);
        let path = folder.as_ref().map(|folder| output_path(folder, &attempt));
        let spec = self.command_spec(command, rung.timeout, &attempt, folder.as_deref(), path.as_deref());
        let secrets = self.config.secrets.clone();
        let paths =
            format!("its program, {}, {}", self.config.folder.display(), self.journal.folder().path().display());
        let job = repair_job(&target, attempt.rung, self.repair_id(&target), START_TIMEOUT, paths);
        self.jobs.spawn(job, move |context| {
            if let Some(why) = find_reason_against() {
                return ended(target, Exit::NotStarted(why), Duration::ZERO);
            }
            let spec = match spec {
                Ok(spec) => CommandSpec { scope: context.scope(), ..spec },
                Err(error) => {
                    let reason = format!("its output file cannot be opened: {error}");
                    return ended(target, Exit::NotStarted(reason), Duration::ZERO);
                }
            };
            let timeout = spec.timeout + KILL_GRACE;
            let on_start = |process: Process| {
                context.command_started(process, timeout);
                context.post(command_started(&target, process));
            };
            let result = command::run(spec, on_start);
            redact_file(path.as_deref(), &secrets);
            ended(target, result.exit, result.duration)
        });
    }

    /// Waits for a command that an earlier watchdog started, for the rest of its timeout.
    pub(super) fn adopt_command(&mut self, target: String, process: (u32, u64), rung: usize, since: BootTime) {
        let configured = self.target(&target).and_then(|target| target.ladder.get(rung));
        let timeout = configured.map_or(crate::config::RUNG_TIMEOUT, |rung| rung.timeout);
        let elapsed = clock::now().since(since);
        let lost = move |target| Message::Event(Event::CommandEnded { target, exit: Exit::Lost, duration: elapsed });
        let attempt = self.policy.target(&target).and_then(|state| state.attempt.as_ref());
        let path = attempt.and_then(|attempt| {
            let folder = self.journal.incident_folder(attempt.folder())?;
            Some(store::incidents::output_path(&folder, attempt.number, rung_from_one(rung)))
        });
        let secrets = self.config.secrets.clone();
        let pid = process.0;
        log::info!(target: &about(&target), "waiting for the restart command (pid {pid}) of an earlier watchdog");
        let adopting = target.clone();
        let left = timeout.saturating_sub(elapsed);
        let job = JobSpec {
            name: "restart",
            subject: target.clone(),
            variant: String::new(),
            timeout: left + KILL_GRACE,
            outlives_watchdog: true,
            on_failure: Box::new(move |_| lost(adopting)),
        };
        self.jobs.spawn(job, move |_| {
            let (pid, started) = process;
            let result = command::adopt(Process { pid, started }, left);
            redact_file(path.as_deref(), &secrets);
            if result.duration >= left && !left.is_zero() {
                let ended = "did not end within its timeout and was killed";
                log::warn!(target: &about(&target), "the restart command (pid {pid}) {ended}");
            }
            Message::Event(Event::CommandEnded { target, exit: result.exit, duration: elapsed + result.duration })
        });
    }

    /// Identifies how a target is repaired; changes when a reload changes that.
    pub(super) fn repair_id(&self, target: &str) -> String {
        self.target(target).map_or_else(String::new, |target| target.limits.repair_id.to_string())
    }

    /// The last line that a restart command printed, redacted, and cut to 200 characters for the log.
    pub(super) fn last_output_line(&self, folder: &str, attempt: u32, rung: usize) -> Option<String> {
        let folder = self.journal.incident_folder(folder)?;
        let path = store::incidents::output_path(&folder, attempt, rung_from_one(rung));
        let output = std::fs::read(path).ok()?;
        let output = String::from_utf8_lossy(&output);
        let line = output.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(shorten_redactions(&self.config.secrets.redact(line)).chars().take(200).collect())
    }

    /// A command with the environment, folder and output that every configured command gets.
    pub(super) fn command_spec(
        &self,
        command: &CommandLine,
        timeout: Duration,
        attempt: &AttemptContext,
        incident: Option<&Path>,
        output: Option<&Path>,
    ) -> io::Result<CommandSpec> {
        let state = self.policy.target(&attempt.target);
        let last = state.and_then(|state| state.last_probe.as_ref());
        let mut env: Vec<(String, String)> =
            self.config.env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
        let mut set = |name: &str, value: String| env.push((format!("WATCHDOG_{name}"), value));
        set("CLASS", state.and_then(|state| state.last_class).map_or_else(String::new, |class| class.to_string()));
        set("DETAIL", last.map_or_else(String::new, |probe| probe.verdict.detail().to_string()));
        set("FAILURES", attempt.failures.to_string());
        env.extend(identifying_variables(&attempt.target, attempt.number, attempt.rung, incident));
        let output = open_output(output)?;
        let (argv, folder) = (command.argv(), self.config.folder.clone());
        let (unset, keep, stdin) = (Vec::new(), command::MAX_OUTPUT, None);
        let (scope, leftovers) = (Scope::default(), Leftovers::Live);
        Ok(CommandSpec { argv, folder, unset, env, timeout, max_output: keep, stdin, output, scope, leftovers })
    }
}

pub(super) fn repair_job(target: &str, rung: usize, variant: String, timeout: Duration, paths: String) -> JobSpec {
    let repaired = target.to_owned();
    let on_failure = move |why: JobFailure| {
        let exit = match &why {
            JobFailure::Panicked => Exit::Lost,
            JobFailure::DeadlinePassed { is_running: true, .. } => Exit::TimedOut,
            JobFailure::NoThread(_) => Exit::NotStarted(why.to_string()),
            JobFailure::DeadlinePassed { .. } | JobFailure::PreviousHangs => {
                Exit::NotStarted(describe_hang(&why, &paths))
            }
        };
        let duration = if let JobFailure::DeadlinePassed { after, .. } = why { after } else { Duration::ZERO };
        Message::Event(Event::CommandEnded { target: repaired, exit, duration })
    };
    let subject = format!("{target} (command {})", rung + 1);
    let on_failure = Box::new(on_failure);
    JobSpec { name: "restart", subject, variant, timeout, outlives_watchdog: true, on_failure }
}

/// Why a repair did not start, given the paths it may hang on.
pub(super) fn describe_hang(why: &JobFailure, paths: &str) -> String {
    format!("{why}: is one of these on a file server that does not respond: {paths}?")
}

pub(super) fn command_started(target: &str, Process { pid, started }: Process) -> Message {
    Message::Event(Event::CommandStarted { target: target.to_owned(), process: (pid, started) })
}

pub(super) fn output_path(folder: &Path, attempt: &AttemptContext) -> PathBuf {
    store::incidents::output_path(folder, attempt.number, rung_from_one(attempt.rung))
}

/// Overwrites secrets in a command's output. Maintenance repeats this for children that go on printing.
pub(super) fn redact_file(output: Option<&Path>, secrets: &Secrets) {
    let Some(path) = output.filter(|_| !secrets.is_empty()) else { return };
    let find_secrets =
        |piece: &[u8], is_start_cut, is_end_cut| secrets.find_ranges(piece, CutEnds { is_start_cut, is_end_cut });
    match command::redact_output(path, find_secrets) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!("cannot redact secrets in {}: {error} (it may contain some)", path.display());
        }
        _ => {}
    }
}

/// Replaces each redaction in a line by `…`, as everywhere else, so that it does not reveal the secret's length.
fn shorten_redactions(line: &str) -> String {
    let mut text = String::new();
    for piece in line.split_inclusive(|char| char != char::from(command::REDACTION)) {
        let shown = piece.trim_start_matches(char::from(command::REDACTION));
        let redacted = piece.len() - shown.len();
        text += if redacted < config::SHORTEST_SECRET { &piece[..redacted] } else { "…" };
        text += shown;
    }
    text
}

fn rung_from_one(rung: usize) -> u32 {
    u32::try_from(rung + 1).unwrap_or(u32::MAX)
}

pub(super) fn open_output(path: Option<&Path>) -> io::Result<File> {
    match path.map(command::create_output) {
        Some(Ok(file)) => Ok(file),
        Some(Err(_)) | None => File::options().append(true).open("/dev/null"),
    }
}

fn describe_exit(exit: &Exit) -> String {
    match exit {
        Exit::Exited(code) => format!("exited {code}"),
        Exit::Killed(signal) => format!("was killed by signal {signal}"),
        Exit::TimedOut => "timed out".into(),
        Exit::NotStarted(reason) => format!("could not be started: {reason}"),
        Exit::Lost => "ended with an unknown result".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redaction_in_a_line_does_not_show_the_length_of_the_secret() {
        #[track_caller]
        fn check(line: &str, expected: &str) {
            assert_eq!(shorten_redactions(line), expected);
        }
        check("", "");
        check("denied: db://me:****************@h/****", "denied: db://me:…@h/…");
        check("***** ***x**", "… ***x**");
        check("ä****ö", "ä…ö");
    }
}

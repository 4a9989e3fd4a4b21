//! What takes time: looks, gates and restart commands, each a job with a deadline that reports exactly once.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::command::{self, CommandSpec, Leftovers, Scope};
use crate::config::{self, CommandLine, CutEnds, Remedy, Secrets};
use crate::outcome::{Exit, ProbeResult, Verdict};
use crate::policy::{Event, Phase, Precondition, State};
use crate::process::{self, Process};
use crate::store::{self, Folder};
use crate::time::BootTime;

use super::Agent;
use super::message::Message;
use super::pool::{JobFailure, JobSpec, KILL_GRACE};

/// A command that has not begun after this long will not: its program, its folder or the place for its output lies on a
/// file server that gives no answer.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// A look that answers this long after twice its timeout hangs.
const PROBE_GRACE: Duration = Duration::from_secs(30);
/// How long `only_if` may take.
const ONLY_IF_TIMEOUT: Duration = Duration::from_secs(10);

/// The restart commands that were started so shortly before an earlier watchdog ended that it could not note which
/// processes they are. Without this they would not be waited for, and the next attempt could overtake them.
pub(super) fn find_unnoted_commands(folder: &Folder, state: &mut State) {
    for (target, state) in &mut state.targets {
        let Some(attempt) = &mut state.attempt else { continue };
        if let Phase::Running { process: process @ None, .. } = &mut attempt.phase
            && let Ok(incident) = store::incidents::create(folder, &attempt.incident)
        {
            let variables = identifying_variables(target, attempt.number, attempt.rung, Some(&incident));
            // A command of PM2 has none of our variables, but our output.
            let output = store::incidents::output(&incident, attempt.number, rung_from_one(attempt.rung));
            let found = process::find(&variables).or_else(|| process::find_by_output(&output));
            *process = found.map(|Process { pid, started }| (pid, started));
        }
    }
}

/// The part of a command's environment that no other command has.
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
    pub(super) incident: String,
    pub(super) failures: u32,
}

impl Agent {
    pub(super) fn start_probe(&mut self, target: String, number: u64) {
        let Some((prober, timeout)) = self.probers.get(&target) else { return };
        let mut known = self.policy.target(&target).map(|state| state.pm2.remembered()).unwrap_or_default();
        known.file = self.journal.saved.files.get(&target).copied();
        let of = target.clone();
        let job = JobSpec {
            name: "look",
            subject: target.clone(),
            // No other prober can have its address while one that hangs holds on to it.
            variant: format!("{:p}", Arc::as_ptr(&prober)),
            timeout: timeout * 2 + PROBE_GRACE,
            outlives_watchdog: false,
            on_failure: Box::new(move |why| {
                let verdict = Verdict::Unknown { detail: format!("no look could be taken: {why}") };
                let look = ProbeResult { verdict, latency: Duration::ZERO, pm2: None, evidence: None, file: None };
                Message::ProbeFinished { target: of, number, result: look }
            }),
        };
        self.jobs.spawn(job, move |_| Message::ProbeFinished { target, number, result: prober.probe(known) });
    }

    pub(super) fn check_precondition(&mut self, target: String, gate: Precondition) {
        match gate {
            Precondition::Stopped => self.inspect_pm2(target),
            Precondition::OnlyIf => self.run_only_if(target),
        }
    }

    fn run_only_if(&mut self, target: String) {
        let answer =
            |target, yes| Message::Event(Event::PreconditionChecked { target, gate: Precondition::OnlyIf, yes });
        let configured = self.target(&target).and_then(|target| target.only_if.clone());
        let incident = self.policy.target(&target).and_then(|state| state.incident.as_ref());
        let Some((command, incident)) = configured.zip(incident) else {
            // The configuration has changed meanwhile: nobody has to be asked any more.
            let _ = self.post.send(answer(target, true)); // the loop itself holds the other end
            return;
        };
        let order = AttemptContext {
            target: target.clone(),
            number: 0,
            rung: 0,
            incident: incident.id.clone(),
            failures: self.policy.target(&target).map_or(0, |state| state.failures()),
        };
        let folder = self.journal.incident_folder(&order.incident);
        let path = folder.as_ref().map(|folder| folder.join("only_if.out"));
        let spec = self.command_spec(&command, ONLY_IF_TIMEOUT, &order, folder.as_deref(), path.as_deref());
        let secrets = self.config.secrets.clone();
        let of = target.clone();
        let job = JobSpec {
            name: "question",
            subject: target.clone(),
            variant: self.repair_id(&target),
            timeout: ONLY_IF_TIMEOUT + KILL_GRACE,
            outlives_watchdog: false,
            on_failure: Box::new(move |why| {
                log::warn!("{of} may not be restarted: only_if could not be asked: {why}");
                answer(of, false)
            }),
        };
        self.jobs.spawn(job, move |work| {
            let spec = spec.map(|spec| CommandSpec { scope: work.scope(), leftovers: Leftovers::End, ..spec });
            let ending = spec.map(|spec| command::run(spec, |_| ()).exit);
            redact_file(path.as_deref(), &secrets);
            let yes = matches!(ending, Ok(Exit::Exited(0)));
            match ending {
                Ok(Exit::Exited(0)) => log::info!("{target} may be restarted: only_if exited 0"),
                Ok(ending) => log::info!("{target} may not be restarted: only_if {}", describe_exit(&ending)),
                Err(error) => log::warn!("{target} may not be restarted: only_if could not be asked: {error}"),
            }
            answer(target, yes)
        });
    }

    pub(super) fn run_command(&mut self, order: AttemptContext) {
        let target = order.target.clone();
        let ended = |target, ending, took| Message::Event(Event::CommandEnded { target, ending, took });
        let Some(rung) = self.target(&target).and_then(|target| target.ladder.get(order.rung)).cloned() else {
            let gone = Exit::NotStarted("it is not in the configuration any more".into());
            let _ = self.post.send(ended(target, gone, Duration::ZERO)); // the loop itself holds the other end
            return;
        };
        let command = match &rung.remedy {
            Remedy::Command(command) => command,
            Remedy::Pm2Restart(_) => return self.restart_with_pm2(order, rung.timeout),
            Remedy::Pm2Reset(_) => return self.reset_pm2(order, rung.timeout),
        };
        let objection = self.reason_against_pm2(&target, &rung.remedy);
        let folder = self.journal.incident_folder(&order.incident);
        let path = folder.as_ref().map(|folder| output_path(folder, &order));
        let spec = self.command_spec(command, rung.timeout, &order, folder.as_deref(), path.as_deref());
        let secrets = self.config.secrets.clone();
        let places =
            format!("its program, {}, {}", self.config.folder.display(), self.journal.folder().path().display());
        let job = repair_job(&target, order.rung, self.repair_id(&target), START_TIMEOUT, places);
        self.jobs.spawn(job, move |work| {
            if let Some(why) = objection() {
                return ended(target, Exit::NotStarted(why), Duration::ZERO);
            }
            let spec = match spec {
                Ok(spec) => CommandSpec { scope: work.scope(), ..spec },
                Err(error) => {
                    let reason = format!("no place for its output: {error}");
                    return ended(target, Exit::NotStarted(reason), Duration::ZERO);
                }
            };
            let of = target.clone();
            let within = spec.timeout + KILL_GRACE;
            let on_start = |process: Process| {
                work.command_started(process, within);
                work.post(command_started(&of, process));
            };
            let done = command::run(spec, on_start);
            redact_file(path.as_deref(), &secrets);
            ended(target, done.exit, done.duration)
        });
    }

    /// Waits for a command that an earlier watchdog has started, until what is left of its time is over.
    pub(super) fn adopt_command(&mut self, target: String, process: (u32, u64), rung: usize, since: BootTime) {
        let configured = self.target(&target).and_then(|target| target.ladder.get(rung));
        let timeout = configured.map_or(crate::config::RUNG_TIMEOUT, |rung| rung.timeout);
        let elapsed = clock::now().since(since);
        let ended = move |target| Message::Event(Event::CommandEnded { target, ending: Exit::Lost, took: elapsed });
        let attempt = self.policy.target(&target).and_then(|state| state.attempt.as_ref());
        let path = attempt.and_then(|attempt| {
            let folder = self.journal.incident_folder(&attempt.incident)?;
            Some(store::incidents::output(&folder, attempt.number, rung_from_one(rung)))
        });
        let secrets = self.config.secrets.clone();
        log::info!("{target}: waiting for the restart command (pid {}) of a watchdog that ended", process.0);
        let of = target.clone();
        let left = timeout.saturating_sub(elapsed);
        let job = JobSpec {
            name: "restart",
            subject: target.clone(),
            variant: String::new(),
            timeout: left + KILL_GRACE,
            outlives_watchdog: true,
            on_failure: Box::new(move |_| ended(of)),
        };
        self.jobs.spawn(job, move |_| {
            let (pid, started) = process;
            let done = command::adopt(Process { pid, started }, left);
            redact_file(path.as_deref(), &secrets);
            if done.duration >= left && !left.is_zero() {
                log::warn!("{target}: that command (pid {pid}) did not end in time and was killed");
            }
            Message::Event(Event::CommandEnded { target, ending: done.exit, took: elapsed + done.duration })
        });
    }

    /// How a target is repaired, as long as no reload changes that.
    pub(super) fn repair_id(&self, target: &str) -> String {
        self.target(target).map_or_else(String::new, |target| target.limits.repair_id.to_string())
    }

    /// The last line that a restart command has printed, without secrets, cut to what a line of the log can bear.
    pub(super) fn last_output_line(&self, incident: &str, attempt: u32, rung: usize) -> Option<String> {
        let order =
            AttemptContext { target: String::new(), number: attempt, rung, incident: incident.into(), failures: 0 };
        let path = output_path(&self.journal.incident_folder(incident)?, &order);
        let output = std::fs::read(path).ok()?;
        let output = String::from_utf8_lossy(&output);
        let line = output.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(shorten_redactions(&self.config.secrets.redact(line)).chars().take(200).collect())
    }

    /// A command with the surroundings that the contract promises it.
    pub(super) fn command_spec(
        &self,
        command: &CommandLine,
        timeout: Duration,
        order: &AttemptContext,
        incident: Option<&Path>,
        output: Option<&Path>,
    ) -> io::Result<CommandSpec> {
        let state = self.policy.target(&order.target);
        let last = state.and_then(|state| state.last_probe.as_ref());
        let mut env: Vec<(String, String)> =
            self.config.env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
        let mut give = |name: &str, value: String| env.push((format!("WATCHDOG_{name}"), value));
        give("CLASS", state.and_then(|state| state.last_class).map_or_else(String::new, |class| class.to_string()));
        give("DETAIL", last.map_or_else(String::new, |look| look.verdict.detail().to_string()));
        give("FAILURES", order.failures.to_string());
        env.extend(identifying_variables(&order.target, order.number, order.rung, incident));
        let output = open_output(output)?;
        let (argv, folder) = (command.argv(), self.config.folder.clone());
        let (unset, keep, stdin) = (Vec::new(), command::MAX_KEPT, None);
        let (scope, remains) = (Scope::default(), Leftovers::Live);
        Ok(CommandSpec { argv, folder, unset, env, timeout, keep, stdin, output, scope, leftovers: remains })
    }
}

pub(super) fn repair_job(target: &str, rung: usize, by: String, within: Duration, places: String) -> JobSpec {
    let of = target.to_owned();
    let otherwise = move |why: JobFailure| {
        let ending = match &why {
            JobFailure::Panicked => Exit::Lost,
            JobFailure::DeadlinePassed { is_running: true, .. } => Exit::TimedOut,
            JobFailure::NoThread(_) => Exit::NotStarted(why.to_string()),
            JobFailure::DeadlinePassed { .. } | JobFailure::PreviousHangs => {
                Exit::NotStarted(describe_hang(&why, &places))
            }
        };
        let took = if let JobFailure::DeadlinePassed { after, .. } = why { after } else { Duration::ZERO };
        Message::Event(Event::CommandEnded { target: of, ending, took })
    };
    let of = format!("{target} (command {})", rung + 1);
    JobSpec {
        name: "restart",
        subject: of,
        variant: by,
        timeout: within,
        outlives_watchdog: true,
        on_failure: Box::new(otherwise),
    }
}

/// Why a repair that hangs in one of these places was not begun.
pub(super) fn describe_hang(why: &JobFailure, places: &str) -> String {
    format!("{why}: does one of these lie on a file server that is gone: {places}?")
}

pub(super) fn command_started(target: &str, Process { pid, started }: Process) -> Message {
    Message::Event(Event::CommandStarted { target: target.to_owned(), process: (pid, started) })
}

pub(super) fn output_path(folder: &Path, order: &AttemptContext) -> PathBuf {
    store::incidents::output(folder, order.number, rung_from_one(order.rung))
}

/// Overwrites secrets in what a command has printed. What it leaves running may go on printing: upkeep sees to that.
pub(super) fn redact_file(output: Option<&Path>, secrets: &Secrets) {
    let Some(path) = output.filter(|_| !secrets.is_empty()) else { return };
    let places = |piece: &[u8], is_start_cut, is_end_cut| secrets.places(piece, CutEnds { is_start_cut, is_end_cut });
    match command::redact_output(path, places) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!("cannot strike secrets out of {}: {error} (it may hold some)", path.display());
        }
        _ => {}
    }
}

/// What was struck out looks in a line as it does everywhere else, whatever its length.
fn shorten_redactions(line: &str) -> String {
    let mut text = String::new();
    for piece in line.split_inclusive(|char| char != char::from(command::REDACTION)) {
        let shown = piece.trim_start_matches(char::from(command::REDACTION));
        let blots = piece.len() - shown.len();
        text += if blots < config::SHORTEST_SECRET { &piece[..blots] } else { "…" };
        text += shown;
    }
    text
}

fn rung_from_one(rung: usize) -> u32 {
    u32::try_from(rung + 1).unwrap_or(u32::MAX)
}

pub(super) fn open_output(path: Option<&Path>) -> io::Result<File> {
    match path.map(command::open_output) {
        Some(Ok(file)) => Ok(file),
        Some(Err(_)) | None => File::options().append(true).open("/dev/null"),
    }
}

fn describe_exit(ending: &Exit) -> String {
    match ending {
        Exit::Exited(code) => format!("exited {code}"),
        Exit::Killed(signal) => format!("was killed by signal {signal}"),
        Exit::TimedOut => "did not end in time".into(),
        Exit::NotStarted(reason) => format!("could not be started: {reason}"),
        Exit::Lost => "was lost".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_struck_out_of_a_line_has_no_length() {
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

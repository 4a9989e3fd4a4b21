//! Executes the steps of a repair one after the other. It must never trust an exit code (a call that changed nothing
//! has failed), and never continue after its scope is closed, since another repair may have started by then.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::clock;
use crate::command::{self, CommandResult};
use crate::outcome::{Exit, describe_io_error};
use crate::process::{self, Process};
use crate::time::HumanDuration;

use super::plan::RepairStep;
use super::{Caller, Home, Listing, ManagedProcess};

const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long the old process may stay alive after a `pm2 restart` returned.
const OLD_PROCESS_EXIT: Duration = Duration::from_secs(1);
/// How long the daemon may take to restart a process that ended; it does so at once, or after `restart_delay`.
const DAEMON_RESTART: Duration = Duration::from_secs(10);
/// How long a process may stay alive after SIGKILL.
const KILL_EXIT: Duration = Duration::from_secs(10);

/// What the steps of a repair work with.
pub struct RepairContext<'a> {
    pub home: &'a Home,
    pub caller: &'a Caller,
    pub managed: &'a ManagedProcess,
    /// Logs one line for each action.
    pub log_line: &'a dyn Fn(&str),
    /// Receives the output of pm2; open for appending.
    pub output: &'a File,
    /// Called with each process as soon as it is started.
    pub on_start: &'a mut dyn FnMut(Process),
}

impl RepairContext<'_> {
    /// Executes the steps until one has started the process or is still starting it. The result's exit is that of the
    /// last step, with code 1 for a call that had no effect; its duration is that of all steps.
    pub fn execute(&mut self, steps: &[RepairStep]) -> CommandResult {
        let began = clock::monotonic();
        let mut result = failed_result();
        for step in steps {
            if self.is_cancelled() {
                break;
            }
            let before = self.living_processes();
            result = self.execute_step(step, &before);
            // PM2 completes a restart even after its command has timed out and was killed.
            let is_under_way =
                result.exit == Exit::TimedOut && self.living_processes().iter().any(|one| !before.contains(one));
            if result.exit == Exit::Exited(0) || is_under_way {
                break;
            }
        }
        CommandResult { duration: clock::monotonic().duration_since(began), ..result }
    }

    fn execute_step(&mut self, step: &RepairStep, before: &[Process]) -> CommandResult {
        match step {
            RepairStep::Restart(ids) => {
                let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
                let args: Vec<&str> = ["restart"].into_iter().chain(ids.iter().map(String::as_str)).collect();
                let result = self.call(self.caller, &args);
                wait_until(OLD_PROCESS_EXIT, || !before.iter().any(|process| process::is_alive(*process)));
                let same = before.iter().find(|process| process::is_alive(**process));
                let unchanged = same.map(|same| format!("{} still has pid {}", self.managed.process, same.pid));
                self.fail_if_ineffective(result, unchanged)
            }
            RepairStep::Resurrect { except } if except.is_empty() => {
                let result = self.call(self.caller, &["resurrect"]);
                self.fail_if_missing(result)
            }
            RepairStep::Resurrect { except } => {
                let result = self.resurrect_except(except);
                self.fail_if_missing(result)
            }
            RepairStep::Start(path) => {
                let file = path.to_string_lossy();
                let mut args = vec!["start", &file, "--only", &self.managed.process];
                args.extend(self.managed.env.iter().flat_map(|env| ["--env", env]));
                // PM2 resolves a relative `script` against its working directory, not against the file's folder.
                let folder = path.parent().unwrap_or(&self.caller.folder).to_owned();
                let caller = Caller { folder, ..self.caller.clone() };
                let result = self.call(&caller, &args);
                self.fail_if_missing(result)
            }
            RepairStep::End { processes, kill_timeout } => self.end_processes(processes, *kill_timeout),
        }
    }

    fn call(&mut self, caller: &Caller, args: &[&str]) -> CommandResult {
        let result = caller.call(args, self.output, self.on_start);
        let duration = HumanDuration(result.duration);
        let outcome = match &result.exit {
            Exit::Exited(code) => format!("exit {code} in {duration}"),
            Exit::Killed(signal) => format!("killed by signal {signal} after {duration}"),
            Exit::TimedOut => format!("timed out and killed after {duration}"),
            Exit::NotStarted(reason) => format!("not started: {reason}"),
            Exit::Lost => "result unknown".into(),
        };
        (self.log_line)(&format!("pm2 {}: {outcome}", args.join(" ")));
        result
    }

    /// Resurrects the saved processes except these, which are alive and would be started a second time. A separate call
    /// starts the daemon first: it keeps its starter's environment, and must not keep `PM2_DUMP_FILE_PATH`.
    fn resurrect_except(&mut self, names: &[String]) -> CommandResult {
        let not_started = |reason| CommandResult { exit: Exit::NotStarted(reason), duration: Duration::ZERO };
        let list = match self.home.saved_list_except(names) {
            Ok(list) => list,
            Err(reason) => return not_started(reason),
        };
        // In memory, not on disk: the list holds every variable of every process.
        let file = command::create_memory_output().and_then(|mut file| file.write_all(&list).map(|()| file));
        let file = match file {
            Ok(file) => file,
            Err(error) => {
                return not_started(format!(
                    "cannot write a list without the living processes: {}",
                    describe_io_error(&error)
                ));
            }
        };
        let started = self.call(self.caller, &["ping"]);
        if started.exit != Exit::Exited(0) {
            return started;
        }
        let mut caller = self.caller.clone();
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        caller.env.push(("PM2_DUMP_FILE_PATH".into(), path));
        self.call(&caller, &["resurrect"])
    }

    /// Ends processes and their descendants as PM2 does (SIGINT, then SIGKILL), and waits until their daemon has
    /// restarted them.
    fn end_processes(&mut self, processes: &[Process], kill_timeout: Duration) -> CommandResult {
        let began = clock::monotonic();
        let family = |process: &Process| process::process_tree(process.pid).unwrap_or_else(|_| vec![process.pid]);
        let living = processes.iter().filter(|process| process::is_alive(**process));
        let families: Vec<Process> = living.flat_map(family).filter_map(process::identify_living).collect();
        let send = |signal: Signal| {
            let signalled = families.iter().filter(|_| !self.is_cancelled());
            let refused = signalled.filter_map(|one| process::send_signal(*one, signal).err());
            refused.collect::<Vec<io::Error>>().into_iter().next()
        };
        let error = send(Signal::INT);
        let is_over = || !families.iter().any(|one| process::is_alive(*one));
        let error = if wait_until(kill_timeout, is_over) { error } else { send(Signal::KILL).or(error) };
        let pids: Vec<String> = processes.iter().map(|process| process.pid.to_string()).collect();
        let (name, pids) = (&self.managed.process, pids.join(", "));
        if !wait_until(KILL_EXIT, || !processes.iter().any(|process| process::is_alive(*process))) {
            let why = error.map_or_else(|| "it is still running".to_owned(), |error| describe_io_error(&error));
            self.record(&format!("{name} (pid {pids}) cannot be ended: {why}"));
            return failed_result();
        }
        let is_restarted = wait_until(DAEMON_RESTART, || self.living_processes().len() >= processes.len());
        let duration = clock::monotonic().duration_since(began);
        let then = if is_restarted { "PM2's daemon restarted it" } else { "PM2's daemon did not restart it" };
        self.record(&format!("{name} (pid {pids}) ended; {then}"));
        CommandResult { exit: Exit::Exited(i32::from(!is_restarted)), duration }
    }

    /// Exit code 0 is a failure if the process is neither alive nor in PM2's list.
    fn fail_if_missing(&mut self, result: CommandResult) -> CommandResult {
        if result.exit != Exit::Exited(0) || !self.living_processes().is_empty() {
            return result;
        }
        let name = &self.managed.process;
        let is_unlisted = match self.caller.list() {
            Listing::Apps(apps) => !apps.iter().any(|app| app.name == *name),
            Listing::Silent | Listing::Failed(_) => false,
        };
        let missing = is_unlisted.then(|| format!("{name} is still not in PM2's list"));
        self.fail_if_ineffective(result, missing)
    }

    /// Turns exit code 0 into 1 if there is a fact that shows that the call had no effect.
    fn fail_if_ineffective(&mut self, result: CommandResult, fact: Option<String>) -> CommandResult {
        match (&result.exit, fact) {
            (Exit::Exited(0), Some(fact)) => {
                self.record(&format!("pm2 exited 0 without effect: {fact}"));
                CommandResult { exit: Exit::Exited(1), ..result }
            }
            (_, _) => result,
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.caller.scope.is_closed()
    }

    pub(super) fn living_processes(&self) -> Vec<Process> {
        let evidence = self.home.observe_process(&self.managed.process, None, &self.home.observe_daemon());
        evidence.living.into_iter().map(|(process, _)| process).collect()
    }

    /// Logs a line and appends it to the output, whose last line the incident shows.
    pub(super) fn record(&self, line: &str) {
        (self.log_line)(line);
        let mut output = self.output;
        if let Err(error) = writeln!(output, "watchdog: {line}") {
            (self.log_line)(&format!(
                "cannot write this line to the command's output file: {}",
                describe_io_error(&error)
            ));
        }
    }
}

pub(super) fn failed_result() -> CommandResult {
    CommandResult { exit: Exit::Exited(1), duration: Duration::ZERO }
}

/// Polls until the condition holds or `limit` has passed; returns whether it held.
pub(super) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let began = clock::monotonic();
    while !condition() {
        if clock::monotonic().duration_since(began) >= limit {
            return false;
        }
        thread::sleep(POLL_INTERVAL);
    }
    true
}

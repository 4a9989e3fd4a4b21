//! Carries out the plan of a repair by way of PM2, one step after the other. It must never believe an exit code: a call
//! that changed nothing has failed. Nor may it go on once nobody waits for it: another repair may be under way then.

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
use super::{Caller, Home, Listing, Managed};

/// Between two looks at who is left.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a process that was ended may still be there.
const ENDED: Duration = Duration::from_secs(1);
/// How long a daemon may take to start again what has ended; it does so at once, or after `restart_delay`.
const STARTED_AGAIN: Duration = Duration::from_secs(10);
/// How long what was killed may take to be gone.
const GONE: Duration = Duration::from_secs(10);

pub struct Calls<'a> {
    pub home: &'a Home,
    pub caller: &'a Caller,
    pub managed: &'a Managed,
    /// Is told of each thing that is done, a line each.
    pub say: &'a dyn Fn(&str),
    /// Takes what is printed; opened for appending.
    pub output: &'a File,
    /// Is told of each process as soon as there is one.
    pub on_start: &'a mut dyn FnMut(Process),
}

impl Calls<'_> {
    /// Carries out the steps until one has brought the process back, or is about to. The ending is the last one's, 1
    /// where a call came to nothing; the time that of all.
    pub fn carry_out(&mut self, steps: &[RepairStep]) -> CommandResult {
        let began = clock::monotonic();
        let mut ended = came_to_nothing();
        for step in steps {
            if self.is_given_up() {
                break;
            }
            let before = self.living();
            ended = self.carry_out_one(step, &before);
            // PM2 goes on with what it has begun, though nobody waits for it any more.
            let is_under_way = ended.exit == Exit::TimedOut && self.living().iter().any(|one| !before.contains(one));
            if ended.exit == Exit::Exited(0) || is_under_way {
                break;
            }
        }
        CommandResult { duration: clock::monotonic().duration_since(began), ..ended }
    }

    fn carry_out_one(&mut self, step: &RepairStep, before: &[Process]) -> CommandResult {
        match step {
            RepairStep::Restart(ids) => {
                let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
                let words: Vec<&str> = ["restart"].into_iter().chain(ids.iter().map(String::as_str)).collect();
                let ended = self.call(self.caller, &words);
                wait(ENDED, || !before.iter().any(|process| process::is_alive(*process)));
                let same = before.iter().find(|process| process::is_alive(**process));
                let unchanged = same.map(|same| format!("{} still has pid {}", self.managed.process, same.pid));
                self.unless_in_vain(ended, unchanged)
            }
            RepairStep::Resurrect { without } if without.is_empty() => {
                let ended = self.call(self.caller, &["resurrect"]);
                self.if_there(ended)
            }
            RepairStep::Resurrect { without } => {
                let ended = self.resurrect_without(without);
                self.if_there(ended)
            }
            RepairStep::Start(path) => {
                let file = path.to_string_lossy();
                let mut words = vec!["start", &file, "--only", &self.managed.process];
                words.extend(self.managed.env.iter().flat_map(|env| ["--env", env]));
                // A script without a folder is looked for where pm2 is run.
                let folder = path.parent().unwrap_or(&self.caller.folder).to_owned();
                let caller = Caller { folder, ..self.caller.clone() };
                let ended = self.call(&caller, &words);
                self.if_there(ended)
            }
            RepairStep::End { processes, kill_timeout } => self.end(processes, *kill_timeout),
        }
    }

    fn call(&mut self, caller: &Caller, words: &[&str]) -> CommandResult {
        let ended = caller.call(words, self.output, self.on_start);
        let took = HumanDuration(ended.duration);
        let outcome = match &ended.exit {
            Exit::Exited(code) => format!("exit {code} in {took}"),
            Exit::Killed(signal) => format!("killed by signal {signal} after {took}"),
            Exit::TimedOut => format!("no end in {took}, and killed"),
            Exit::NotStarted(reason) => format!("not started: {reason}"),
            Exit::Lost => "nobody knows how it ended".into(),
        };
        (self.say)(&format!("pm2 {}: {outcome}", words.join(" ")));
        ended
    }

    /// Resurrects all that was saved but these, which live: PM2 would start each a second time. The daemon is started
    /// by a call of its own, for it keeps the environment that it is started with.
    fn resurrect_without(&mut self, without: &[String]) -> CommandResult {
        let not_started = |reason| CommandResult { exit: Exit::NotStarted(reason), duration: Duration::ZERO };
        let list = match self.home.saved_without(without) {
            Ok(list) => list,
            Err(reason) => return not_started(reason),
        };
        // In memory: it has every variable of every process in it.
        let file = command::memory_output().and_then(|mut file| file.write_all(&list).map(|()| file));
        let file = match file {
            Ok(file) => file,
            Err(error) => return not_started(format!("cannot leave out what lives: {}", describe_io_error(&error))),
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

    /// The way that PM2 does, with all that they started; waits for their daemon to start them again.
    fn end(&mut self, processes: &[Process], kill_timeout: Duration) -> CommandResult {
        let began = clock::monotonic();
        let family = |process: &Process| process::family(process.pid).unwrap_or_else(|_| vec![process.pid]);
        let living = processes.iter().filter(|process| process::is_alive(**process));
        let families: Vec<Process> = living.flat_map(family).filter_map(process::living).collect();
        let send = |signal: Signal| {
            let signalled = families.iter().filter(|_| !self.is_given_up());
            let refused = signalled.filter_map(|one| process::signal(*one, signal).err());
            refused.collect::<Vec<io::Error>>().into_iter().next()
        };
        let trouble = send(Signal::INT);
        let is_over = || !families.iter().any(|one| process::is_alive(*one));
        let trouble = if wait(kill_timeout, is_over) { trouble } else { send(Signal::KILL).or(trouble) };
        let pids: Vec<String> = processes.iter().map(|process| process.pid.to_string()).collect();
        let (name, pids) = (&self.managed.process, pids.join(", "));
        if !wait(GONE, || !processes.iter().any(|process| process::is_alive(*process))) {
            let why = trouble.map_or_else(|| "it does not go".to_owned(), |error| describe_io_error(&error));
            self.say(&format!("{name} (pid {pids}) cannot be ended: {why}"));
            return came_to_nothing();
        }
        let is_again = wait(STARTED_AGAIN, || self.living().len() >= processes.len());
        let took = clock::monotonic().duration_since(began);
        let then = if is_again { "PM2's daemon has started it again" } else { "PM2's daemon did not start it again" };
        self.say(&format!("{name} (pid {pids}) ended; {then}"));
        CommandResult { exit: Exit::Exited(i32::from(!is_again)), duration: took }
    }

    /// Exit code 0 with the process nowhere to be found is a failure.
    fn if_there(&mut self, ended: CommandResult) -> CommandResult {
        if ended.exit != Exit::Exited(0) || !self.living().is_empty() {
            return ended;
        }
        let name = &self.managed.process;
        let is_unlisted = match self.caller.list() {
            Listing::Apps(apps) => !apps.iter().any(|app| app.name == *name),
            Listing::Silent | Listing::Failed(_) => false,
        };
        let missing = is_unlisted.then(|| format!("PM2 still has no {name}"));
        self.unless_in_vain(ended, missing)
    }

    fn unless_in_vain(&mut self, ended: CommandResult, nothing: Option<String>) -> CommandResult {
        match (&ended.exit, nothing) {
            (Exit::Exited(0), Some(nothing)) => {
                self.say(&format!("pm2 exited 0, but {nothing}: it did nothing"));
                CommandResult { exit: Exit::Exited(1), ..ended }
            }
            (_, _) => ended,
        }
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.caller.scope.is_closed()
    }

    pub(super) fn living(&self) -> Vec<Process> {
        let evidence = self.home.process_evidence(&self.managed.process, None, &self.home.daemon_evidence());
        evidence.living.into_iter().map(|(process, _)| process).collect()
    }

    /// Says what was done, and leaves it in the output, where the last line is looked for.
    pub(super) fn say(&self, line: &str) {
        (self.say)(line);
        let mut output = self.output;
        if let Err(error) = writeln!(output, "watchdog: {line}") {
            (self.say)(&format!("that cannot be kept: {}", describe_io_error(&error)));
        }
    }
}

pub(super) fn came_to_nothing() -> CommandResult {
    CommandResult { exit: Exit::Exited(1), duration: Duration::ZERO }
}

/// Looks until it is so or `limit` is over; answers whether it is.
pub(super) fn wait(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let began = clock::monotonic();
    while !is_so() {
        if clock::monotonic().duration_since(began) >= limit {
            return false;
        }
        thread::sleep(PAUSE);
    }
    true
}

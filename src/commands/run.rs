//! `run`, `--once` and the detached half of `start`: one agent, three ways to begin and to end.

use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::panic;
use std::path::Path;
use std::time::Duration;

use rustix::process::setsid;

use crate::agent::{Agent, AgentSetup, Inbox, RunResult};
use crate::cli::Options;
use crate::clock;
use crate::config::Config;
use crate::logging::{self, Logging};
use crate::outcome::Verdict;
use crate::policy::{Mode, TargetState};
use crate::store::Folder;
use crate::store::lock::{HeldBy, Holder, Lock, LockError};
use crate::terminal::escaped;

use super::{
    Code, complain, complain_to_cron, complain_to_cron_of, complaints, forget_complaints, holder, stale_daemon,
};
use super::{load, load_for_cron, say, status, verbosity};

pub(super) const NOTHING_STARTED: &str = "nothing was started";
const NOTHING_DONE: &str = "nothing was done";
/// Between two tries for a lock that a tick holds.
const PAUSE: Duration = Duration::from_millis(100);
/// What a detached watchdog tells the one who started it.
pub(super) const READY: &str = "ready";
/// Another one was faster.
pub(super) const TAKEN: &str = "taken";

pub(super) fn foreground(options: &Options) -> Result<Code, Code> {
    let held = |folder: &Folder, held: &HeldBy| holder::held(folder, held).tell(NOTHING_STARTED);
    let (config, around) = prepare(options, io::stderr().is_terminal(), held, || Code::Done)?;
    work(config, options, around, || ())
}

/// The half of `start` that stays: leaves the terminal, and says on standard output when it is at work.
pub(super) fn detached(options: &Options) -> Result<Code, Code> {
    // A session leader already: then there is nothing to leave.
    let _ = setsid();
    let held = |_: &Folder, _: &HeldBy| {
        say(TAKEN);
        Code::Done
    };
    let stopped = || complain(&format!("told to stop while a tick was at work ({NOTHING_STARTED})"), Code::Machine);
    let (config, around) = prepare(options, false, held, stopped)?;
    // The folder that we were started in may be one that somebody wants to unmount.
    let _ = std::env::set_current_dir("/");
    work(config, options, around, || {
        say(READY);
        let_go_of_streams();
    })
}

/// Standard output and error belong to whoever started us, who waits for their end.
fn let_go_of_streams() {
    let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") else { return };
    // Where this fails they stay open, and writing to them fails later: neither matters to us.
    let _ = rustix::stdio::dup2_stdin(&null);
    let _ = rustix::stdio::dup2_stdout(&null);
    let _ = rustix::stdio::dup2_stderr(&null);
}

pub(super) fn once(options: &Options) -> Result<Code, Code> {
    let config = load_for_cron(options, NOTHING_DONE)?;
    let folder = Folder::at(&config.state_dir);
    let failed =
        |why: &str| complain_to_cron_of(Some(&folder), &format!("watchdog: {why} ({NOTHING_DONE})"), Code::Machine);
    Folder::open(&config.state_dir).map_err(|error| failed(&error.to_string()))?;
    let inbox = Inbox::open().map_err(|error| failed(&error))?;
    let refuse = |text: &str| complain_to_cron(&format!("watchdog: {text} ({NOTHING_DONE})"), Code::Held);
    let lock = match Lock::try_acquire(&folder, Mode::Once, &config.path) {
        Err(LockError::Held(HeldBy::Seen(holder))) => {
            if let Some(refusal) = holder::another(&folder, &holder, &config.path) {
                return Err(refuse(&refusal.text));
            }
            match (stale_daemon::is_hung(&folder, &holder), holder.mode) {
                (true, _) => {}
                (false, Mode::Daemon) => return leave_to_daemon(&folder, &holder),
                (false, Mode::Once) => return Ok(Code::Done),
            }
            if let Err(error) = stale_daemon::end(&folder, &holder) {
                return Err(complain_to_cron_of(Some(&folder), &format!("watchdog: {error}"), Code::Held));
            }
            let what = if holder.mode == Mode::Daemon { "The watchdog" } else { "A tick" };
            say(&format!("{what} (pid {}) was hung. I have ended it and do its work now.", holder.pid));
            Lock::try_acquire(&folder, Mode::Once, &config.path)
        }
        other => other,
    };
    let lock = match lock {
        Ok(lock) => lock,
        Err(LockError::Held(HeldBy::Seen(holder))) => {
            let other = holder::another(&folder, &holder, &config.path);
            return other.map_or(Ok(Code::Done), |refusal| Err(refuse(&refusal.text)));
        }
        Err(LockError::Held(unseen)) => return Err(refuse(&holder::held(&folder, &unseen).text)),
        Err(LockError::Io(error)) => return Err(failed(&error.to_string())),
    };
    if let Some(refusal) = holder::worked_lately(&folder, &config.path) {
        return Err(refuse(&refusal.text));
    }
    Ok(tick(config, options, inbox, folder, lock))
}

fn tick(config: Config, options: &Options, inbox: Inbox, folder: Folder, lock: Lock) -> Code {
    let on_terminal = io::stdout().is_terminal();
    let logging = start_log(&config, options, on_terminal);
    // On a terminal the log is read along, and tells the same.
    let silent = options.quiet || (on_terminal && logging.is_some());
    let news: Box<dyn FnMut(&str)> = if silent { Box::new(|_| ()) } else { Box::new(|line| say(&escaped(line))) };
    let told = complaints(Some(&folder));
    let around = AgentSetup { inbox, folder: folder.clone(), lock, logging, news, told: Some(told.clone()) };
    let ended = match Agent::new(Mode::Once, config, options.dry_run, around) {
        Ok(agent) => agent.run(),
        Err(error) => {
            let why = format!("watchdog: {error} ({NOTHING_DONE})");
            return complain_to_cron_of(Some(&folder), &why, Code::Machine);
        }
    };
    if let Some(by) = &ended.displaced_by {
        return complain_to_cron(&format!("watchdog: {by} (this tick was ended)"), Code::Held);
    }
    if on_terminal && !options.quiet {
        ended.targets.iter().filter(|(_, state)| state.status.is_trouble()).for_each(|(name, state)| {
            let detail = state.last_probe.as_ref().map_or("", |look| look.verdict.detail());
            say(&format!("{name} is {}: {detail}", state.status.as_str()));
        });
    }
    if !ended.unsaved {
        told.forget();
    }
    tick_code(&ended)
}

fn tick_code(ended: &RunResult) -> Code {
    let is_unknown = |state: &TargetState| {
        state.last_probe.as_ref().is_none_or(|look| matches!(look.verdict, Verdict::Unknown { .. }))
    };
    if ended.unsaved || ended.targets.iter().all(|(_, state)| is_unknown(state)) {
        return Code::Machine;
    }
    trouble(ended.targets.iter().map(|(_, state)| state))
}

fn trouble<'a>(mut states: impl Iterator<Item = &'a TargetState>) -> Code {
    if states.any(|state| state.status.is_trouble()) { Code::Trouble } else { Code::Done }
}

/// A daemon is at work: its state is the answer, if it can save one.
fn leave_to_daemon(folder: &Folder, holder: &Holder) -> Result<Code, Code> {
    if io::stdout().is_terminal() {
        say(&format!("a watchdog is at work already (pid {}): this tick is left to it", holder.pid));
    }
    let failed = |why: &str| complain_to_cron_of(Some(folder), &format!("watchdog: {why}"), Code::Machine);
    let status = status::read(folder).map_err(|error| failed(&error.to_string()))?;
    let watch = status.watch();
    if watch.is_at_work() && !watch.is_current() {
        let since = status.saved.last_seen.map_or_else(|| "it began".into(), |at| status.zone.date_time(at));
        let why = format!(
            "the one at work (pid {}) has saved nothing since {since} (how the targets are is not known \
             here; its log says why: see status)",
            holder.pid
        );
        return Err(failed(&why));
    }
    forget_complaints(Some(folder));
    Ok(if status.is_trouble() { Code::Trouble } else { Code::Done })
}

/// All that a daemon needs before it can begin, the lock among it. `held` says that another one has that, `stopped`
/// that we were told to stop before we had it.
fn prepare(
    options: &Options,
    logs_to_stderr: bool,
    held: impl Fn(&Folder, &HeldBy) -> Code,
    stopped: impl Fn() -> Code,
) -> Result<(Config, AgentSetup), Code> {
    let config = load(options, NOTHING_STARTED)?;
    let folder = Folder::open(&config.state_dir).map_err(not_started)?;
    let mut inbox = Inbox::open().map_err(not_started)?;
    let lock = match acquire_as_daemon(&folder, &config.path, &mut inbox) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Err(stopped()),
        Err(LockError::Held(by)) => return Err(held(&folder, &by)),
        Err(LockError::Io(error)) => return Err(not_started(error)),
    };
    let logging = start_log(&config, options, logs_to_stderr);
    Ok((config, AgentSetup { inbox, folder, lock, logging, news: Box::new(|_| ()), told: None }))
}

fn not_started(error: impl Display) -> Code {
    complain(&format!("{error} ({NOTHING_STARTED})"), Code::Machine)
}

/// The lock, once a tick with the same configuration that holds it is over; none when we are told to stop meanwhile.
fn acquire_as_daemon(folder: &Folder, config: &Path, inbox: &mut Inbox) -> Result<Option<Lock>, LockError> {
    loop {
        match Lock::try_acquire(folder, Mode::Daemon, config) {
            Err(LockError::Held(HeldBy::Seen(holder)))
                if holder.mode == Mode::Once && holder::another(folder, &holder, config).is_none() =>
            {
                if inbox.is_stop_requested(PAUSE) {
                    return Ok(None);
                }
                // One that cannot be ended is waited for.
                if stale_daemon::is_hung(folder, &holder)
                    && let Err(error) = stale_daemon::end(folder, &holder)
                {
                    log::warn!("{error}");
                }
            }
            other => return other.map(Some),
        }
    }
}

fn start_log(config: &Config, options: &Options, to_stderr: bool) -> Option<Logging> {
    let started = logging::start(&config.log, to_stderr, verbosity(options), clock::zone());
    panic::set_hook(Box::new(|bug| log::error!("a bug in the watchdog: {bug}")));
    started.ok()
}

fn work(config: Config, options: &Options, around: AgentSetup, at_work: impl FnOnce()) -> Result<Code, Code> {
    if let Err(error) = holder::clear_stopped(&around.folder, &config.path) {
        log::warn!("{error} (start --cron will not start it again)");
    }
    let (count, path) = (config.targets.len(), config.path.clone());
    let dry = if options.dry_run { ", in a dry run" } else { "" };
    let agent = Agent::new(Mode::Daemon, config, options.dry_run, around).map_err(not_started)?;
    let targets = if count == 1 { "1 target".into() } else { format!("{count} targets") };
    let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
    log::info!("watchdog {version} at work (pid {pid}): {targets} of {}{dry}", path.display());
    at_work();
    match agent.run() {
        RunResult { displaced_by: Some(by), .. } => Err(complain(&format!("{by} (this one was ended)"), Code::Held)),
        RunResult { displaced_by: None, .. } => Ok(Code::Done),
    }
}

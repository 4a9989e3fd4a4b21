//! `run`, `--once` and the detached half of `start`: they take the lock, run the agent, and turn its result into an
//! exit code. They must never run an agent without the lock.

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
use crate::logging::{self, Logging, Reader, is_journal};
use crate::outcome::Verdict;
use crate::policy::{Mode, TargetState};
use crate::store::Folder;
use crate::store::lock::{HeldBy, Holder, Lock, LockError};
use crate::terminal::escaped;

use super::{Code, daily_filter, forget_printed, holder, print_daily, print_daily_in, print_error, stale_daemon};
use super::{load, load_for_cron, print, print_machine_error, read_env, status, verbosity};

pub(super) const NOTHING_STARTED: &str = "nothing was started";
const NOTHING_DONE: &str = "nothing was done";
/// Between two tries for a lock that a tick holds.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The line that a detached watchdog prints for `start` once it runs.
pub(super) const READY: &str = "ready";
/// The line that it prints instead if another watchdog holds the lock.
pub(super) const ALREADY_HELD: &str = "taken";

pub(super) fn foreground(options: &Options) -> Result<Code, Code> {
    let on_held = |folder: &Folder, held: &HeldBy| holder::refuse_held(folder, held).print(NOTHING_STARTED);
    let (config, setup) = prepare(options, stderr_reader(), on_held, || Code::Done)?;
    run_agent(config, options, setup, || ())
}

/// The half of `start` that stays: leaves the terminal, and prints a line on standard output once it runs.
pub(super) fn detached(options: &Options) -> Result<Code, Code> {
    // This fails only for a session leader, which has no session to leave.
    let _ = setsid();
    let on_held = |_: &Folder, _: &HeldBy| {
        print(ALREADY_HELD);
        Code::Done
    };
    let on_stop =
        || print_error(&format!("received a stop signal while a tick was running ({NOTHING_STARTED})"), Code::Machine);
    let (config, setup) = prepare(options, None, on_held, on_stop)?;
    // Otherwise the file system of the present folder could not be unmounted. A failure has no other effect.
    let _ = std::env::set_current_dir("/");
    run_agent(config, options, setup, || {
        print(READY);
        detach_streams();
    })
}

/// Closes the pipes to `start`, which waits for their end.
fn detach_streams() {
    let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") else { return };
    // If this fails, the streams stay open and later writes to them fail; neither does harm.
    let _ = rustix::stdio::dup2_stdin(&null);
    let _ = rustix::stdio::dup2_stdout(&null);
    let _ = rustix::stdio::dup2_stderr(&null);
}

pub(super) fn once(options: &Options) -> Result<Code, Code> {
    let config = load_for_cron(options, NOTHING_DONE)?;
    let folder = Folder::at(&config.state_dir);
    let failed = |why: &str| print_daily_in(Some(&folder), &format!("watchdog: {why} ({NOTHING_DONE})"), Code::Machine);
    Folder::open(&config.state_dir).map_err(|error| failed(&error.to_string()))?;
    let inbox = Inbox::open().map_err(|error| failed(&error))?;
    let refuse = |text: &str| print_daily(&format!("watchdog: {text} ({NOTHING_DONE})"), Code::Held);
    let lock = match Lock::try_acquire(&folder, Mode::Once, &config.path) {
        Err(LockError::Held(HeldBy::Visible(holder))) => {
            if let Some(refusal) = holder::refuse_other_config(&folder, &holder, &config.path) {
                return Err(refuse(&refusal.text));
            }
            match (stale_daemon::is_hung(&folder, &holder), holder.mode) {
                (true, _) => {}
                (false, Mode::Daemon) => return report_daemon(&folder, &holder),
                (false, Mode::Once) => return Ok(Code::Done),
            }
            if let Err(error) = stale_daemon::terminate(&folder, &holder) {
                return Err(print_daily_in(Some(&folder), &format!("watchdog: {error}"), Code::Held));
            }
            let what = if holder.mode == Mode::Daemon { "The watchdog" } else { "A tick" };
            print(&format!("{what} (pid {}) was hung. It was killed, and this tick replaces it.", holder.pid));
            Lock::try_acquire(&folder, Mode::Once, &config.path)
        }
        other => other,
    };
    let lock = match lock {
        Ok(lock) => lock,
        Err(LockError::Held(HeldBy::Visible(holder))) => {
            let other = holder::refuse_other_config(&folder, &holder, &config.path);
            return other.map_or(Ok(Code::Done), |refusal| Err(refuse(&refusal.text)));
        }
        Err(LockError::Held(unseen)) => return Err(refuse(&holder::refuse_held(&folder, &unseen).text)),
        Err(LockError::Io(error)) => return Err(failed(&error.to_string())),
    };
    if let Some(refusal) = holder::refuse_recent_other(&folder, &config.path) {
        return Err(refuse(&refusal.text));
    }
    Ok(tick(config, options, inbox, folder, lock))
}

fn tick(config: Config, options: &Options, inbox: Inbox, folder: Folder, lock: Lock) -> Code {
    let on_terminal = io::stdout().is_terminal();
    let in_journal = is_journal(io::stdout(), read_env("JOURNAL_STREAM").as_deref());
    let reader = if on_terminal { Some(Reader::Person) } else { stderr_reader().filter(|_| in_journal) };
    let logging = start_log(&config, options, reader);
    // The log is printed too, to the same reader, and has the same lines.
    let silent = options.quiet || (reader.is_some() && logging.is_some());
    let news: Box<dyn FnMut(&str)> = if silent { Box::new(|_| ()) } else { Box::new(|line| print(&escaped(line))) };
    let filter = daily_filter(Some(&folder));
    let setup = AgentSetup { inbox, folder: folder.clone(), lock, logging, news, repeats: Some(filter.clone()) };
    let result = match Agent::new(Mode::Once, config, options.dry_run, setup) {
        Ok(agent) => agent.run(),
        Err(error) => {
            let why = format!("watchdog: {error} ({NOTHING_DONE})");
            return print_daily_in(Some(&folder), &why, Code::Machine);
        }
    };
    if let Some(by) = &result.displaced_by {
        return print_daily(&format!("watchdog: {by} (this tick was ended)"), Code::Held);
    }
    if on_terminal && !options.quiet {
        result.targets.iter().filter(|(_, state)| state.status.is_trouble()).for_each(|(name, state)| {
            let detail = state.last_probe.as_ref().map_or("", |probe| probe.verdict.detail());
            print(&format!("{name} is {}: {detail}", state.status.as_str()));
        });
    }
    if !result.unsaved {
        filter.reset();
    }
    tick_code(&result)
}

/// A tick for an order that waits in the folder. It prints its news, also on a terminal. Returns the final state of the
/// target; none at all if another watchdog has taken the lock meanwhile.
pub(super) fn ordered_tick(
    config: Config,
    options: &Options,
    folder: &Folder,
    target: &str,
) -> Result<Option<Option<TargetState>>, Code> {
    let inbox = Inbox::open().map_err(print_machine_error)?;
    let lock = match Lock::try_acquire(folder, Mode::Once, &config.path) {
        Ok(lock) => lock,
        Err(LockError::Held(HeldBy::Visible(_))) => return Ok(None),
        Err(LockError::Held(unseen)) => return Err(holder::refuse_held(folder, &unseen).print(NOTHING_DONE)),
        Err(LockError::Io(error)) => return Err(print_machine_error(error)),
    };
    let logging = start_log(&config, options, None);
    let news = Box::new(|line: &str| print(&escaped(line)));
    let repeats = Some(daily_filter(Some(folder)));
    let setup = AgentSetup { inbox, folder: folder.clone(), lock, logging, news, repeats };
    let result = Agent::new(Mode::Once, config, options.dry_run, setup).map_err(print_machine_error)?.run();
    if let Some(by) = &result.displaced_by {
        return Err(print_error(&format!("{by} (this tick was ended)"), Code::Held));
    }
    Ok(Some(result.targets.into_iter().find(|(name, _)| name == target).map(|(_, state)| state)))
}

fn tick_code(result: &RunResult) -> Code {
    let is_unknown = |state: &TargetState| {
        state.last_probe.as_ref().is_none_or(|probe| matches!(probe.verdict, Verdict::Unknown { .. }))
    };
    if result.unsaved || result.targets.iter().all(|(_, state)| is_unknown(state)) {
        return Code::Machine;
    }
    let is_trouble = result.targets.iter().any(|(_, state)| state.status.is_trouble());
    if is_trouble { Code::Trouble } else { Code::Done }
}

/// The result of a tick while a daemon runs: the exit code follows from the state that the daemon saves.
fn report_daemon(folder: &Folder, holder: &Holder) -> Result<Code, Code> {
    if io::stdout().is_terminal() {
        print(&format!("a watchdog is already running (pid {}); this tick does nothing", holder.pid));
    }
    let failed = |why: &str| print_daily_in(Some(folder), &format!("watchdog: {why}"), Code::Machine);
    let status = status::read(folder).map_err(|error| failed(&error.to_string()))?;
    let watch = status.presence();
    if watch.is_watching() && !watch.is_current() {
        let since = status.saved.last_seen.map_or_else(|| "it started".into(), |at| status.zone.date_time(at));
        let why = format!(
            "the running watchdog (pid {}) has not saved its state since {since} (the state of the targets is unknown; \
             the log says why, watchdog status names it)",
            holder.pid
        );
        return Err(failed(&why));
    }
    forget_printed(Some(folder));
    Ok(if status.is_trouble() { Code::Trouble } else { Code::Done })
}

/// Everything that a daemon needs before it starts, including the lock. `on_held` reports that another watchdog has the
/// lock, `on_stop` that a stop signal arrived while waiting for it.
fn prepare(
    options: &Options,
    stderr: Option<Reader>,
    on_held: impl Fn(&Folder, &HeldBy) -> Code,
    on_stop: impl Fn() -> Code,
) -> Result<(Config, AgentSetup), Code> {
    let config = load(options, NOTHING_STARTED)?;
    let folder = Folder::open(&config.state_dir).map_err(print_not_started)?;
    let mut inbox = Inbox::open().map_err(print_not_started)?;
    let lock = match acquire_as_daemon(&folder, &config.path, &mut inbox) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Err(on_stop()),
        Err(LockError::Held(by)) => return Err(on_held(&folder, &by)),
        Err(LockError::Io(error)) => return Err(print_not_started(error)),
    };
    let logging = start_log(&config, options, stderr);
    Ok((config, AgentSetup { inbox, folder, lock, logging, news: Box::new(|_| ()), repeats: None }))
}

fn print_not_started(error: impl Display) -> Code {
    print_error(&format!("{error} ({NOTHING_STARTED})"), Code::Machine)
}

/// Takes the lock, after waiting for a tick with the same configuration. None if a stop signal arrives meanwhile.
fn acquire_as_daemon(folder: &Folder, config: &Path, inbox: &mut Inbox) -> Result<Option<Lock>, LockError> {
    loop {
        match Lock::try_acquire(folder, Mode::Daemon, config) {
            Err(LockError::Held(HeldBy::Visible(holder)))
                if holder.mode == Mode::Once && holder::refuse_other_config(folder, &holder, config).is_none() =>
            {
                if inbox.is_stop_requested(LOCK_POLL_INTERVAL) {
                    return Ok(None);
                }
                // A hung tick that cannot be killed is waited for.
                if stale_daemon::is_hung(folder, &holder)
                    && let Err(error) = stale_daemon::terminate(folder, &holder)
                {
                    log::warn!("{error}");
                }
            }
            other => return other.map(Some),
        }
    }
}

/// Who reads the log on standard error: without a terminal or the journal, it goes to its file only.
fn stderr_reader() -> Option<Reader> {
    let is_journal = || is_journal(io::stderr(), read_env("JOURNAL_STREAM").as_deref());
    match io::stderr().is_terminal() {
        true => Some(Reader::Person),
        false => is_journal().then_some(Reader::Journal),
    }
}

fn start_log(config: &Config, options: &Options, stderr: Option<Reader>) -> Option<Logging> {
    let started = logging::start(&config.log, stderr, verbosity(options), clock::zone());
    panic::set_hook(Box::new(|bug| log::error!("a bug in the watchdog: {bug}")));
    started.ok()
}

fn run_agent(config: Config, options: &Options, setup: AgentSetup, on_start: impl FnOnce()) -> Result<Code, Code> {
    if let Err(error) = holder::clear_stopped(&setup.folder, &config.path) {
        log::warn!("{error} (start --cron will not start it again)");
    }
    let (count, path) = (config.targets.len(), config.path.clone());
    let dry = if options.dry_run { ", dry run" } else { "" };
    let agent = Agent::new(Mode::Daemon, config, options.dry_run, setup).map_err(print_not_started)?;
    let targets = if count == 1 { "1 target".into() } else { format!("{count} targets") };
    let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
    log::info!("watchdog {version} started (pid {pid}): {targets} of {}{dry}", path.display());
    on_start();
    match agent.run() {
        RunResult { displaced_by: Some(by), .. } => Err(print_error(&format!("{by} (this one was ended)"), Code::Held)),
        RunResult { displaced_by: None, .. } => Ok(Code::Done),
    }
}

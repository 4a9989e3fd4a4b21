//! `pause` and `resume`: requests to the running watchdog, or to the next one. They must never change its state
//! themselves.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::Options;
use crate::clock;
use crate::command::shell_quote;
use crate::config::Config;
use crate::outcome;
use crate::policy::Mode;
use crate::signals::{self, CommandSignal};
use crate::store::lock::{Holder, read_holder};
use crate::store::requests::{self, PendingRequest, Request};
use crate::store::state::peek;
use crate::store::{Folder, Stamp};
use crate::time::{HumanDuration, millis};

use super::holder::{self, Instance};
use super::{Code, print, print_error, read_boot_clock, stale_daemon, unknown_target};

/// A live watchdog carries out a request within this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// SIGCHLD reports the end of the command; this covers a lost one.
const CHILD_POLL_INTERVAL: Duration = Duration::from_secs(1);
const UNCHANGED: &str = "nothing was paused or resumed";

pub(super) fn pause(options: &Options, targets: Vec<String>, length: Duration, command: Vec<OsString>) -> ExitCode {
    if let Some((program, arguments)) = command.split_first() {
        return pause_during_command(options, targets, length, program, arguments);
    }
    match begin_pause(options, targets, length, None) {
        Ok(Paused { targets, acknowledgement, .. }) => {
            let until = clock::zone().hour_minute(clock::wall().offset_by(millis(length)));
            let (targets, length) = (describe_targets(targets.as_deref()), HumanDuration(length));
            print(&format!("paused {targets} until {until} ({length}){}", describe_acknowledgement(acknowledgement)));
            Code::Done.into()
        }
        Err(NotPaused { code, .. }) => code.into(),
    }
}

struct Paused {
    folder: Folder,
    targets: Option<Vec<String>>,
    request: PendingRequest,
    acknowledgement: Acknowledgement,
}

struct NotPaused {
    code: Code,
    /// The configuration is valid and has no target of a name on the command line.
    is_unknown_target: bool,
}

impl From<Code> for NotPaused {
    fn from(code: Code) -> NotPaused {
        NotPaused { code, is_unknown_target: false }
    }
}

fn begin_pause(
    options: &Options,
    targets: Vec<String>,
    length: Duration,
    command: Option<String>,
) -> Result<Paused, NotPaused> {
    let Instance { folder, config, holder, .. } = holder::find_writable_instance(options, UNCHANGED)?;
    let targets = resolve_targets(&folder, config.as_ref(), holder.as_ref(), targets, UNCHANGED)
        .map_err(|code| NotPaused { code, is_unknown_target: code == Code::Usage && config.is_some() })?;
    let length_ms = u64::try_from(millis(length)).unwrap_or(0);
    let given = Stamp::of(&read_boot_clock());
    let secrets = config.as_ref().map(|config| &config.secrets);
    let command =
        command.map(|name| secrets.map_or_else(|| name.clone(), |secrets| secrets.redact(&name).into_owned()));
    let request = Request::Pause { targets: targets.clone(), length_ms, requested_at: given, command };
    let (request, acknowledgement) = submit(&folder, request, UNCHANGED)?;
    Ok(Paused { folder, targets, request, acknowledgement })
}

/// Runs a command and pauses meanwhile. The command runs even if the pause fails. Only `kill -9` of this process leaves
/// the pause on until its time is over, because the command may still run then.
fn pause_during_command(
    options: &Options,
    targets: Vec<String>,
    length: Duration,
    program: &OsString,
    arguments: &[OsString],
) -> ExitCode {
    let (sender, signals) = channel();
    // Before the pause begins, so that no signal can end this process and leave the pause on.
    if let Err(error) = signals::listen_for_command(move |signal| {
        // This fails only after the command has ended.
        let _ = sender.send(signal);
    }) {
        let why = outcome::describe_io_error(&error);
        print_error(&format!("cannot handle signals: {why} (a signal leaves the pause on)"), Code::Machine);
    }
    let name = format!("{}-{} {}", std::process::id(), clock::now().as_ms(), describe_command(program, arguments));
    let paused = begin_pause(options, targets, length, Some(name));
    match &paused {
        Ok(_) => {}
        // A misspelt name is the operator's error and easily corrected, so the command does not run unpaused.
        Err(NotPaused { code, is_unknown_target: true }) => return (*code).into(),
        Err(_) => {
            print_error("nothing is paused; running the command anyway", Code::Machine);
        }
    }
    let code = run_command(&signals, program, arguments);
    if let Ok(paused) = paused {
        end_pause(&paused, length);
    }
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// The command as a person would type it, shortened.
fn describe_command(program: &OsString, arguments: &[OsString]) -> String {
    let words = [program].into_iter().chain(arguments).map(|word| shell_quote(&word.to_string_lossy()));
    outcome::short_command(&words.collect::<Vec<_>>().join(" "))
}

/// Ends the pause of the command. If no watchdog runs, the request is withdrawn instead.
fn end_pause(Paused { folder, request, .. }: &Paused, length: Duration) {
    let Request::Pause { command: Some(name), .. } = &request.request else { return };
    // The second check is for a watchdog that started, and may have read the request, while it was withdrawn.
    let is_idle = || read_holder(folder).is_none();
    if is_idle() && request.withdraw().unwrap_or(false) && is_idle() {
        return;
    }
    let consequence = format!("the pause ends {} after it began", HumanDuration(length));
    // `submit` has printed its error.
    let _ = submit(folder, Request::CommandEnded { command: name.clone() }, &consequence);
}

pub(super) fn resume(options: &Options, targets: Vec<String>) -> Result<Code, Code> {
    let clear_waits = !targets.is_empty();
    let Instance { folder, config, holder, .. } = holder::find_writable_instance(options, UNCHANGED)?;
    let targets = resolve_targets(&folder, config.as_ref(), holder.as_ref(), targets, UNCHANGED)?;
    let request = Request::Resume { targets: targets.clone(), clear_waits };
    let (_, acknowledgement) = submit(&folder, request, UNCHANGED)?;
    let waits = if clear_waits { "; its waits are cleared" } else { "" };
    let targets = describe_targets(targets.as_deref());
    print(&format!("resumed {targets}{waits}{}", describe_acknowledgement(acknowledgement)));
    Ok(Code::Done)
}

fn describe_targets(targets: Option<&[String]>) -> String {
    targets.map_or_else(|| "all targets".into(), |targets| targets.join(", "))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Acknowledgement {
    Applied,
    /// The running watchdog has not answered in time.
    Pending,
    NoWatchdog,
}

fn describe_acknowledgement(acknowledgement: Acknowledgement) -> &'static str {
    match acknowledgement {
        Acknowledgement::Applied => "",
        Acknowledgement::Pending => "; the running watchdog has not confirmed it yet",
        Acknowledgement::NoWatchdog => "; no watchdog is running, the next one applies it",
    }
}

/// Writes the request, and waits until a live watchdog has carried it out. An error is printed with `consequence`.
fn submit(folder: &Folder, request: Request, consequence: &str) -> Result<(PendingRequest, Acknowledgement), Code> {
    let print_failure = |error| print_error(&format!("{error} ({consequence})"), Code::Machine);
    let folder = Folder::open(folder.path()).map_err(print_failure)?;
    let pending = requests::submit(&folder, request).map_err(print_failure)?;
    let Some(holder) = read_holder(&folder) else { return Ok((pending, Acknowledgement::NoWatchdog)) };
    // A tick gets the signal too: it may be about to restart a target that is to be paused.
    stale_daemon::send_signal(&folder, &holder, Signal::USR1);
    let acknowledgement = match stale_daemon::wait_until(REQUEST_TIMEOUT, || pending.is_handled()) {
        true => Acknowledgement::Applied,
        false => Acknowledgement::Pending,
    };
    Ok((pending, acknowledgement))
}

/// Checks the names of targets; `None` stands for all targets. The error is `Usage` for an unknown name, and `Trouble`
/// for one that the configuration has but the running watchdog has not read yet.
pub(super) fn resolve_targets(
    folder: &Folder,
    config: Option<&Config>,
    holder: Option<&Holder>,
    targets: Vec<String>,
    consequence: &str,
) -> Result<Option<Vec<String>>, Code> {
    if targets.is_empty() {
        return Ok(None);
    }
    let saved = peek(folder, &read_boot_clock()).ok().flatten();
    let pid = saved.as_ref().and_then(|saved| saved.pid);
    let watched: Vec<String> = saved.into_iter().flat_map(|saved| saved.views.into_keys()).collect();
    let mut names = watched.clone();
    names.extend(config.iter().flat_map(|config| &config.targets).map(|target| target.name.clone()));
    match targets.iter().find(|target| !names.contains(target)) {
        None => {
            let unread = targets.iter().find(|target| !watched.contains(target));
            // A watchdog that has just started may not have saved its targets yet.
            let daemon = holder.filter(|holder| holder.mode == Mode::Daemon && pid == Some(holder.pid));
            let Some((unread, Holder { pid, .. })) = unread.zip(daemon) else { return Ok(Some(targets)) };
            let why = format!("the running watchdog (pid {pid}) has not read `{unread}` yet. Load it: watchdog reload");
            Err(print_error(&format!("{why} ({consequence})"), Code::Trouble))
        }
        Some(unknown) => Err(unknown_target(unknown, names)),
    }
}

/// Runs the command, unless a signal to end has already arrived. Returns its exit code, or 128 + the number of the
/// signal that killed it, as shells do.
fn run_command(signals: &Receiver<CommandSignal>, program: &OsString, arguments: &[OsString]) -> i32 {
    let received = signals.try_iter().find_map(|what| match what {
        CommandSignal::Received { signal, .. } => Some(signal),
        CommandSignal::Child => None,
    });
    if let Some(signal) = received {
        print_error(&format!("received signal {signal} before the start of {}", program.display()), Code::Machine);
        return 128 + signal;
    }
    let child = Command::new(program).args(arguments).spawn();
    match child.and_then(|mut child| wait_for_command(&mut child, signals)) {
        Ok(status) => status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        Err(error) => {
            print_error(
                &format!("cannot run {}: {}", program.display(), outcome::describe_io_error(&error)),
                Code::Usage,
            );
            if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
        }
    }
}

/// Waits for the command, and forwards the signals that only this process received. The command shares the terminal and
/// the process group, as if the shell had started it, so signals of the terminal reach it anyway.
fn wait_for_command(child: &mut Child, signals: &Receiver<CommandSignal>) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        match signals.recv_timeout(CHILD_POLL_INTERVAL) {
            Ok(CommandSignal::Received { signal, by_terminal: false }) => {
                // The kernel does not reuse the pid of a child that was not waited for.
                if let Some(signal) = Signal::from_named_raw(signal)
                    && let Err(error) = kill_process(Pid::from_child(child), signal)
                {
                    let why = outcome::describe_io_error(&error.into());
                    print_error(&format!("cannot forward the signal to the command: {why}"), Code::Machine);
                }
            }
            Ok(CommandSignal::Received { by_terminal: true, .. } | CommandSignal::Child)
            | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return child.wait(),
        }
    }
}

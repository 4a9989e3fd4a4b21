//! `pause` and `resume`: orders to whoever is at work, now or at the next tick.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::Options;
use crate::clock;
use crate::config::Config;
use crate::outcome;
use crate::policy::Mode;
use crate::signals::{self, Heard};
use crate::store::lock::{Holder, read_holder};
use crate::store::requests::{self, PendingRequest, Request};
use crate::store::state::peek;
use crate::store::{Folder, Stamp};
use crate::time::{HumanDuration, millis};

use super::holder::{self, Commanded};
use super::{Code, complain, now, say, stale_daemon};

/// A live watchdog carries an order out within this.
const PATIENCE: Duration = Duration::from_secs(5);
/// Whether the command has ended is asked so often, should nothing say so.
const ASK_EVERY: Duration = Duration::from_secs(1);
const UNCHANGED: &str = "nothing was paused or resumed";

pub(super) fn pause(options: &Options, targets: Vec<String>, length: Duration, command: Vec<OsString>) -> ExitCode {
    if let Some((program, arguments)) = command.split_first() {
        return during(options, targets, length, program, arguments);
    }
    match begin(options, targets, length, None) {
        Ok(Paused { targets, how, .. }) => {
            let until = clock::zone().hour_minute(clock::wall().offset_by(millis(length)));
            let whom = whom(targets.as_deref());
            say(&format!("paused {whom} until {until} ({}){}", HumanDuration(length), in_words(how)));
            Code::Done.into()
        }
        Err(NotPaused { code, .. }) => code.into(),
    }
}

struct Paused {
    folder: Folder,
    targets: Option<Vec<String>>,
    order: PendingRequest,
    how: Taken,
}

struct NotPaused {
    code: Code,
    /// No target is called as the command line says.
    is_misspelt: bool,
}

impl From<Code> for NotPaused {
    fn from(code: Code) -> NotPaused {
        NotPaused { code, is_misspelt: false }
    }
}

fn begin(
    options: &Options,
    targets: Vec<String>,
    length: Duration,
    command: Option<String>,
) -> Result<Paused, NotPaused> {
    let Commanded { folder, config, holder, .. } = holder::to_order(options, UNCHANGED)?;
    let targets = known(&folder, config.as_ref(), holder.as_ref(), targets)
        .map_err(|code| NotPaused { code, is_misspelt: code == Code::Usage && config.is_some() })?;
    let length_ms = u64::try_from(millis(length)).unwrap_or(0);
    let given = Stamp::of(&now());
    let order = Request::Pause { targets: targets.clone(), length_ms, given, command };
    let (order, how) = give(&folder, order, UNCHANGED)?;
    Ok(Paused { folder, targets, order, how })
}

/// A pause for as long as a command runs, whatever becomes of the command, of us, or of the pause. Only `kill -9` of
/// this process leaves the pause on, until its time is over: the command may still run then.
fn during(
    options: &Options,
    targets: Vec<String>,
    length: Duration,
    program: &OsString,
    arguments: &[OsString],
) -> ExitCode {
    let (sender, heard) = channel();
    // Before anything is paused: whoever ends us then must not leave the pause behind.
    if let Err(error) = signals::listen_for_command(move |what| {
        // Nobody listens any more: the command has ended.
        let _ = sender.send(what);
    }) {
        let why = outcome::describe_io_error(&error);
        complain(&format!("cannot listen to signals: {why} (one that ends this leaves the pause on)"), Code::Machine);
    }
    let name = format!("{}-{}", std::process::id(), clock::now().as_ms());
    let paused = begin(options, targets, length, Some(name.clone()));
    match &paused {
        Ok(_) => {}
        // A slip of the pen, and no trouble of the watchdog's: better nothing is done than without the pause.
        Err(NotPaused { code, is_misspelt: true }) => return (*code).into(),
        Err(_) => {
            complain("nothing is paused; running the command all the same", Code::Machine);
        }
    }
    let code = run(&heard, program, arguments);
    if let Ok(paused) = paused {
        end(&paused, name, length);
    }
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Ends the pause of the command of this name. Where nobody is at work who could have begun it, it is taken back.
fn end(Paused { folder, order, .. }: &Paused, name: String, length: Duration) {
    let is_nobody_at_work = || read_holder(folder).is_none();
    if is_nobody_at_work() && order.take_back().unwrap_or(false) && is_nobody_at_work() {
        return;
    }
    let otherwise = format!("the pause ends by itself, {} after it began", HumanDuration(length));
    // Its trouble was told.
    let _ = give(folder, Request::Over { command: name }, &otherwise);
}

pub(super) fn resume(options: &Options, targets: Vec<String>) -> Result<Code, Code> {
    let clear_waits = !targets.is_empty();
    let Commanded { folder, config, holder, .. } = holder::to_order(options, UNCHANGED)?;
    let targets = known(&folder, config.as_ref(), holder.as_ref(), targets)?;
    let (_, how) = give(&folder, Request::Resume { targets: targets.clone(), clear_waits }, UNCHANGED)?;
    let waits = if clear_waits { "; its waits are over too" } else { "" };
    say(&format!("resumed {}{waits}{}", whom(targets.as_deref()), in_words(how)));
    Ok(Code::Done)
}

fn whom(targets: Option<&[String]>) -> String {
    targets.map_or_else(|| "all targets".into(), |targets| targets.join(", "))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    Now,
    /// By a watchdog that does not answer.
    Slowly,
    /// Nobody is at work.
    Later,
}

fn in_words(how: Taken) -> &'static str {
    match how {
        Taken::Now => "",
        Taken::Slowly => " (the watchdog at work has not said yet that it heeds it)",
        Taken::Later => " (no watchdog is at work now; the next one heeds it)",
    }
}

/// Leaves the order, and waits until a live watchdog has carried it out. `otherwise`: what follows where that fails.
fn give(folder: &Folder, order: Request, otherwise: &str) -> Result<(PendingRequest, Taken), Code> {
    let failed = |error| complain(&format!("{error} ({otherwise})"), Code::Machine);
    let folder = Folder::open(folder.path()).map_err(failed)?;
    let waiting = requests::put(&folder, order).map_err(failed)?;
    let Some(holder) = read_holder(&folder) else { return Ok((waiting, Taken::Later)) };
    // A tick heeds it at once, too: it may be about to restart what is to be left alone.
    stale_daemon::send(&folder, &holder, Signal::USR1);
    let how = if stale_daemon::wait(PATIENCE, || waiting.is_done()) { Taken::Now } else { Taken::Slowly };
    Ok((waiting, how))
}

/// The targets by name, all of which must be known: to the watchdog at work, if there is one. `None`: all.
/// Errors: `Usage` where none is called so, and `Trouble` where the watchdog at work does not know it yet.
fn known(
    folder: &Folder,
    config: Option<&Config>,
    holder: Option<&Holder>,
    targets: Vec<String>,
) -> Result<Option<Vec<String>>, Code> {
    if targets.is_empty() {
        return Ok(None);
    }
    let saved = peek(folder, &now()).ok().flatten();
    let pid = saved.as_ref().and_then(|saved| saved.pid);
    let watched: Vec<String> = saved.into_iter().flat_map(|saved| saved.shown.into_keys()).collect();
    let mut names = watched.clone();
    names.extend(config.iter().flat_map(|config| &config.targets).map(|target| target.name.clone()));
    names.sort();
    names.dedup();
    match targets.iter().find(|target| !names.contains(target)) {
        None => {
            let unread = targets.iter().find(|target| !watched.contains(target));
            // One that has just begun may not have said yet what it watches.
            let daemon = holder.filter(|holder| holder.mode == Mode::Daemon && pid == Some(holder.pid));
            let Some((unread, Holder { pid, .. })) = unread.zip(daemon) else { return Ok(Some(targets)) };
            let why =
                format!("the watchdog at work (pid {pid}) has not read `{unread}` yet; it does at: kill -HUP {pid}");
            Err(complain(&format!("{why} ({UNCHANGED})"), Code::Trouble))
        }
        Some(unknown) => {
            let there_are = if names.is_empty() { "no targets are known".into() } else { names.join(", ") };
            Err(complain(&format!("no target is called `{unknown}`; there are: {there_are}"), Code::Usage))
        }
    }
}

/// Runs the command to its end, unless we are told to end before; its exit code, or 128 and the signal that ended it.
fn run(heard: &Receiver<Heard>, program: &OsString, arguments: &[OsString]) -> i32 {
    let told = heard.try_iter().find_map(|what| match what {
        Heard::Told { signal, .. } => Some(signal),
        Heard::Child => None,
    });
    if let Some(signal) = told {
        complain(&format!("told to end: {} is not run", program.display()), Code::Machine);
        return 128 + signal;
    }
    let ended = Command::new(program).args(arguments).spawn().and_then(|mut child| wait(&mut child, heard));
    match ended {
        Ok(status) => status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        Err(error) => {
            complain(&format!("cannot run {}: {}", program.display(), outcome::describe_io_error(&error)), Code::Usage);
            if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
        }
    }
}

/// Waits for the command, and hands on to it what it has not been sent itself. It shares our terminal and our group,
/// like one that a shell would run in our place.
fn wait(child: &mut Child, heard: &Receiver<Heard>) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        match heard.recv_timeout(ASK_EVERY) {
            Ok(Heard::Told { signal, by_terminal: false }) => {
                // Until it was waited for, nobody else has its number.
                if let Some(signal) = Signal::from_named_raw(signal)
                    && let Err(error) = kill_process(Pid::from_child(child), signal)
                {
                    let why = outcome::describe_io_error(&error.into());
                    complain(&format!("cannot hand the signal on to the command: {why}"), Code::Machine);
                }
            }
            Ok(Heard::Told { by_terminal: true, .. } | Heard::Child) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return child.wait(),
        }
    }
}

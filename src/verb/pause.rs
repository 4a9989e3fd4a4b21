//! `pause` and `resume`: orders to whoever is at work, now or at the next tick.

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::process::Signal;

use crate::cli::Options;
use crate::clock;
use crate::config::Config;
use crate::signals;
use crate::store::lock::{Mode, read_holder};
use crate::store::orders::{self, Order};
use crate::store::state::peek;
use crate::store::{Folder, Moment};
use crate::time::{Span, millis};

use super::{Code, complain, holder, hung, say};

const NOTHING: &str = "nothing was paused or resumed";
/// A live watchdog carries an order out within this.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn pause(options: &Options, targets: Vec<String>, length: Duration, command: Vec<OsString>) -> ExitCode {
    let until = clock::wall().shifted(millis(length));
    let paused = holder::to_command(options, NOTHING).and_then(|(folder, config, _)| {
        let targets = known(&folder, config.as_ref(), targets)?;
        give(&folder, Order::Pause { targets: targets.clone(), until }).map(|how| (folder, targets, how))
    });
    match (paused, command.split_first()) {
        (Ok((_, targets, how)), None) => {
            let (whom, until) = (whom(targets.as_deref()), clock::zone().hour_minute(until));
            say(&format!("paused {whom} until {until} ({}){}", Span(length), in_words(how)));
            Code::Done.into()
        }
        (Err(code), None) => code.into(),
        (paused, Some((program, arguments))) => {
            if paused.is_err() {
                complain("nothing is paused; running the command all the same", Code::Machine);
            }
            let code = run_meanwhile(program, arguments);
            if let Ok((folder, targets, _)) = paused {
                // Its trouble was told. The pause ends by itself at its time.
                let _ = give(&folder, Order::Resume { targets, clear_waits: false });
            }
            code
        }
    }
}

pub(super) fn resume(options: &Options, targets: Vec<String>) -> Code {
    let clear_waits = !targets.is_empty();
    let resumed = holder::to_command(options, NOTHING).and_then(|(folder, config, _)| {
        let targets = known(&folder, config.as_ref(), targets)?;
        give(&folder, Order::Resume { targets: targets.clone(), clear_waits }).map(|how| (targets, how))
    });
    match resumed {
        Ok((targets, how)) => {
            let waits = if clear_waits { "; its waits are over too" } else { "" };
            say(&format!("resumed {}{waits}{}", whom(targets.as_deref()), in_words(how)));
            Code::Done
        }
        Err(code) => code,
    }
}

fn whom(targets: Option<&[String]>) -> String {
    targets.map_or_else(|| "all targets".into(), |targets| targets.join(", "))
}

/// How an order was taken.
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

/// Leaves the order, and waits until a live watchdog has carried it out.
fn give(folder: &Folder, order: Order) -> Result<Taken, Code> {
    let failed = |error| complain(&format!("{error} ({NOTHING})"), Code::Machine);
    let folder = Folder::open(folder.path()).map_err(failed)?;
    let waiting = orders::put(&folder, order, clock::wall()).map_err(failed)?;
    let Some(holder) = read_holder(&folder) else { return Ok(Taken::Later) };
    if holder.mode == Mode::Daemon {
        hung::send(&folder, &holder, Signal::USR1);
    }
    Ok(if hung::wait(PATIENCE, || waiting.is_done()) { Taken::Now } else { Taken::Slowly })
}

/// The targets by name, all of which must be known; `None`: all.
fn known(folder: &Folder, config: Option<&Config>, targets: Vec<String>) -> Result<Option<Vec<String>>, Code> {
    if targets.is_empty() {
        return Ok(None);
    }
    let boot_id = clock::boot_id();
    let moment = Moment { now: clock::now(), wall: clock::wall(), boot_id: boot_id.as_deref() };
    let saved = peek(folder, &moment).ok().flatten();
    let mut names: Vec<String> = saved.into_iter().flat_map(|saved| saved.shown.into_keys()).collect();
    names.extend(config.iter().flat_map(|config| &config.targets).map(|target| target.name.clone()));
    names.sort();
    names.dedup();
    match targets.iter().find(|target| !names.contains(target)) {
        None => Ok(Some(targets)),
        Some(unknown) => {
            let there_are = if names.is_empty() { "no targets are known".into() } else { names.join(", ") };
            Err(complain(&format!("no target is called `{unknown}`; there are: {there_are}"), Code::Usage))
        }
    }
}

/// Runs the command; the pause ends with it. A signal that ends us must not leave the pause behind, so those that ask
/// for an end are left to the command, which shares our terminal.
fn run_meanwhile(program: &OsString, arguments: &[OsString]) -> ExitCode {
    if let Err(error) = signals::listen(|_| ()) {
        complain(&format!("cannot listen to signals: {error} (one that ends this leaves the pause on)"), Code::Machine);
    }
    let status = match Command::new(program).args(arguments).status() {
        Ok(status) => status,
        Err(error) => {
            let why = crate::outcome::in_words(&error);
            complain(&format!("cannot run {}: {why}", program.display()), Code::Usage);
            let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            return ExitCode::from(code);
        }
    };
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

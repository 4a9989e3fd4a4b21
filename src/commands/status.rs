//! `status`: how the targets are, from the state that the watchdog keeps; from a live one as of now.

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::cli::Options;
use crate::clock;
use crate::config;
use crate::policy::Mode;
use crate::store::lock::{HeldBy, Holder, last_held, read_holder, read_lock};
use crate::store::state::{SavedState, peek};
use crate::store::{Error, Folder, requests};
use crate::terminal::write_line;
use crate::view::status::StatusReport;

use super::{Code, environment, machine_failed, now, say, stale_daemon, state_folder};

/// A live watchdog writes its state within this when asked to; longer, and what it wrote last must do.
const PATIENCE: Duration = Duration::from_secs(1);
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Clears a terminal and moves to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

pub(super) fn status(options: &Options, json: bool, watch: bool) -> Result<Code, Code> {
    let (folder, _) = state_folder(options)?;
    loop {
        let status = read(&folder).map_err(machine_failed)?;
        let text = if json { status.json() } else { status.text() };
        if !watch {
            say(&text);
            return Ok(code(&status));
        }
        let clear = if io::stdout().is_terminal() { CLEAR } else { "" };
        if !write_line(io::stdout(), &format!("{clear}{text}")) {
            return Ok(code(&status));
        }
        thread::sleep(WATCH_EVERY);
    }
}

fn code(status: &StatusReport) -> Code {
    match (status.watch().is_current(), status.is_trouble()) {
        (false, _) => Code::NotRunning,
        (true, true) => Code::Trouble,
        (true, false) => Code::Done,
    }
}

pub(super) fn read(folder: &Folder) -> Result<StatusReport, Error> {
    // A lock that cannot even be asked for is nobody's; what else cannot be read is told below.
    let (found, is_unseen) = match read_lock(folder).ok().flatten() {
        Some(HeldBy::Seen(holder)) => (Some(holder), false),
        Some(HeldBy::Unseen(unseen)) => (Some(unseen.into_holder_on_trust()), true),
        None => (None, false),
    };
    let (saved, holder, has_answered) = match found {
        Some(holder) if holder.mode == Mode::Daemon && !is_unseen => ask(folder, holder)?,
        found => (look(folder)?, found, false),
    };
    let saved = saved.unwrap_or_default();
    let now = now();
    let mut status = StatusReport {
        is_unseen,
        last_held: last_held(folder),
        has_answered,
        config_changed: false,
        at: now.at,
        zone: clock::zone(),
        home: environment("HOME").map(Into::into),
        saved,
        holder,
    };
    // What nobody has read at all has not changed since.
    status.config_changed = status.watch().is_running() && has_changed(&status.saved);
    status.apply(&requests::peek(folder), &now);
    Ok(status)
}

fn has_changed(saved: &SavedState) -> bool {
    let Some((path, read)) = saved.config.as_ref().zip(saved.config_written) else { return false };
    config::written(path).is_some_and(|written| written != read)
}

/// Has a live watchdog write its state, and reads it. It gives its sign of life with that, also where the disk takes no
/// state. `None` for the holder: it has ended meanwhile.
fn ask(folder: &Folder, holder: Holder) -> Result<(Option<SavedState>, Option<Holder>, bool), Error> {
    let asked = clock::now();
    stale_daemon::send(folder, &holder, Signal::USR1);
    let mut saved = look(folder)?;
    let is_new = |saved: &Option<SavedState>| {
        saved.as_ref().and_then(|saved| saved.written).is_some_and(|written| written >= asked)
    };
    stale_daemon::wait(PATIENCE, || {
        if !is_new(&saved)
            && let Ok(found) = look(folder)
        {
            saved = found;
        }
        is_new(&saved)
    });
    let after = read_holder(folder);
    let is_same = after.as_ref().is_some_and(|after| (after.pid, after.started) == (holder.pid, holder.started));
    let has_touched = after.as_ref().is_some_and(|after| after.touched != holder.touched);
    let has_answered = is_same && (has_touched || is_new(&saved));
    Ok((saved, after, has_answered))
}

fn look(folder: &Folder) -> Result<Option<SavedState>, Error> {
    let mut saved = peek(folder, &now())?.map(|saved| *saved);
    if let Some(saved) = &mut saved {
        // What is lost of it the watchdog has said; there is no more to tell then.
        let _ = saved.history.complete(folder);
    }
    Ok(saved)
}

//! `status`: the state of the targets, as the watchdog has saved it. A live watchdog saves it again for this. It
//! must never change that state.

mod keys;

use std::io::{self, IsTerminal};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use rustix::termios::tcgetwinsize;

use crate::cli::Options;
use crate::clock;
use crate::config;
use crate::policy::Mode;
use crate::signals;
use crate::store::lock::{HeldBy, Holder, read_holder, read_last_holder, read_lock};
use crate::store::state::{SavedState, peek};
use crate::store::{Error, Folder, requests};
use crate::terminal::write_line;
use crate::view::Screen;
use crate::view::status::StatusReport;

use self::keys::Keys;
use super::{Code, print, print_machine_error, read_boot_clock, read_env, stale_daemon, state_folder};

/// A live watchdog saves its state within this time on request. After it, the last saved state is shown.
const SAVE_TIMEOUT: Duration = Duration::from_secs(1);
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// How long a key or a signal may wait.
const KEY_INTERVAL: Duration = Duration::from_millis(100);
/// Clears a terminal and moves to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

pub(super) fn status(options: &Options, json: bool, watch: bool) -> Result<Code, Code> {
    let (folder, _) = state_folder(options)?;
    if watch {
        return watch_status(&folder);
    }
    let status = read(&folder).map_err(print_machine_error)?;
    print(&if json { status.json() } else { status.text(screen()) });
    Ok(exit_code(&status))
}

fn watch_status(folder: &Folder) -> Result<Code, Code> {
    let (post, stop) = channel();
    // Without a handler, a signal would end this process and leave the terminal without echo.
    let listening = signals::listen(move |signal| {
        // This fails only after the watch has ended.
        let _ = if signal == signals::Signal::Stop { post.send(()) } else { Ok(()) };
    });
    let keys = listening.ok().map(|_| Keys::open());
    let hint = if keys.as_ref().is_some_and(Keys::is_terminal) { "\n\nq quits." } else { "" };
    loop {
        let status = read(folder).map_err(print_machine_error)?;
        let clear = if io::stdout().is_terminal() { CLEAR } else { "" };
        let began = clock::monotonic();
        if !write_line(io::stdout(), &format!("{clear}{}{hint}", status.text(screen()))) {
            return Ok(exit_code(&status));
        }
        while began.elapsed() < WATCH_INTERVAL {
            let is_quit = match &keys {
                Some(keys) => keys.is_quit_pressed(KEY_INTERVAL),
                None => {
                    thread::sleep(KEY_INTERVAL);
                    false
                }
            };
            if is_quit || stop.try_recv().is_ok() {
                return Ok(exit_code(&status));
            }
        }
    }
}

/// The size and colours of the standard output.
pub(super) fn screen() -> Screen {
    if !io::stdout().is_terminal() {
        return Screen::default();
    }
    let columns = tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
    Screen { columns, has_colours: read_env("NO_COLOR").is_none_or(|value| value.is_empty()) }
}

fn exit_code(status: &StatusReport) -> Code {
    match (status.presence().is_current(), status.is_trouble()) {
        (false, _) => Code::NotRunning,
        (true, true) => Code::Trouble,
        (true, false) => Code::Done,
    }
}

pub(super) fn read(folder: &Folder) -> Result<StatusReport, Error> {
    // A lock that cannot be read counts as free. If the state cannot be read either, that error is returned below.
    let (found, is_unseen) = match read_lock(folder).ok().flatten() {
        Some(HeldBy::Visible(holder)) => (Some(holder), false),
        Some(HeldBy::Hidden(unseen)) => (Some(unseen.into_holder_from_note()), true),
        None => (None, false),
    };
    let (saved, holder, has_answered) = match found {
        Some(holder) if holder.mode == Mode::Daemon && !is_unseen => request_save(folder, holder)?,
        found => (read_saved(folder)?, found, false),
    };
    let saved = saved.unwrap_or_default();
    let now = read_boot_clock();
    let mut status = StatusReport {
        is_holder_hidden: is_unseen,
        last_held: read_last_holder(folder),
        has_answered,
        config_changed: false,
        at: now.at,
        zone: clock::zone(),
        home: read_env("HOME").map(Into::into),
        saved,
        holder,
    };
    // Only a running watchdog can have read an older version of the file.
    status.config_changed = status.presence().is_running() && has_changed(&status.saved);
    status.apply(&requests::peek(folder), &now);
    Ok(status)
}

fn has_changed(saved: &SavedState) -> bool {
    let Some((path, read)) = saved.config.as_ref().zip(saved.config_modified) else { return false };
    config::modified_at(path).is_some_and(|written| written != read)
}

/// Has a live watchdog save its state, and reads it. Also returns the present holder, and whether it has answered: it
/// touches the lock file even if it cannot save. The holder is none if it has ended meanwhile.
fn request_save(folder: &Folder, holder: Holder) -> Result<(Option<SavedState>, Option<Holder>, bool), Error> {
    let requested_at = clock::now();
    stale_daemon::send_signal(folder, &holder, Signal::USR1);
    let mut saved = read_saved(folder)?;
    let is_new = |saved: &Option<SavedState>| {
        saved.as_ref().and_then(|saved| saved.written_at).is_some_and(|written| written >= requested_at)
    };
    stale_daemon::wait_until(SAVE_TIMEOUT, || {
        if !is_new(&saved)
            && let Ok(found) = read_saved(folder)
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

fn read_saved(folder: &Folder) -> Result<Option<SavedState>, Error> {
    let mut saved = peek(folder, &read_boot_clock())?.map(|saved| *saved);
    if let Some(saved) = &mut saved {
        // The watchdog itself reports a damaged history; here the readable part is shown.
        let _ = saved.history.load_file(folder);
    }
    Ok(saved)
}

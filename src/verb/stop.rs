//! `stop`: the watchdog at work finishes the restart command that runs, and ends.

use std::time::Duration;

use rustix::process::Signal;

use crate::cli::Options;
use crate::store::lock::{self, Mode, mark_stopped, read_holder};

use super::{Code, complain, hung, say, state_folder};

/// Longer than this is worth a word: it waits for a restart command.
const SOON: Duration = Duration::from_secs(3);
/// A restart command may take a day.
const AT_LAST: Duration = Duration::from_secs(86_400);

pub(super) fn stop(options: &Options) -> Code {
    let (folder, _) = match state_folder(options) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let holder = read_holder(&folder).filter(|holder| holder.mode == Mode::Daemon);
    if (holder.is_some() || folder.path().exists())
        && let Err(error) = mark_stopped(&folder)
    {
        complain(&format!("{error} (start --cron will start it again)"), Code::Machine);
    }
    let Some(holder) = holder else {
        say(&format!("no watchdog was running for {}", folder.path().display()));
        return Code::NotRunning;
    };
    if hung::is_hung(&folder, &holder) {
        return match hung::end(&folder, &holder) {
            Ok(()) => stopped(holder.pid),
            Err(error) => complain(&error, Code::Machine),
        };
    }
    hung::send(&folder, &holder, Signal::TERM);
    let is_gone = || !lock::prove(&folder, &holder);
    if !hung::wait(SOON, is_gone) {
        say(&format!("the watchdog (pid {}) finishes a restart command first; waiting", holder.pid));
        hung::wait(AT_LAST, is_gone);
    }
    stopped(holder.pid)
}

fn stopped(pid: u32) -> Code {
    say(&format!("the watchdog (pid {pid}) is stopped; start --cron leaves it so, start starts it again"));
    Code::Done
}

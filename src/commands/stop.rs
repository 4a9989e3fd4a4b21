//! `stop`: the watchdog at work finishes the restart command that runs, and ends.

use std::time::Duration;

use rustix::process::Signal;

use crate::cli::Options;
use crate::clock;
use crate::policy::Mode;
use crate::store::Folder;
use crate::store::lock::{Holder, HolderProof, is_gone, prove, read_holder};

use super::holder::{self, Commanded};
use super::{Code, complain, say, stale_daemon};

/// Longer than this is worth a word: it waits for a restart command.
const SOON: Duration = Duration::from_secs(3);
/// Whether it is hung is asked so often meanwhile.
const EACH: Duration = Duration::from_secs(10);
/// A restart command may take a day.
const AT_LAST: Duration = Duration::from_secs(86_400);

pub(super) fn stop(options: &Options) -> Result<Code, Code> {
    let Commanded { folder, holder, path, .. } = holder::to_command(options, "nothing was stopped")?;
    let holder = holder.filter(|holder| holder.mode == Mode::Daemon);
    if let Some(Err(why)) = holder.as_ref().map(|holder| stale_daemon::reach(&folder, holder)) {
        return Err(complain(&format!("the watchdog runs on: {why}"), Code::Machine));
    }
    let theirs = holder.as_ref().map(|holder| holder.config.as_path());
    if (holder.is_some() || folder.path().exists())
        && let Err(error) = holder::mark_stopped(&folder, path.as_deref().or(theirs))
    {
        complain(&format!("{error} (start --cron will start it again)"), Code::Machine);
    }
    let Some(holder) = holder else {
        say(&format!("no watchdog was running for {}", folder.path().display()));
        return Ok(Code::NotRunning);
    };
    if stale_daemon::is_hung(&folder, &holder) {
        return Ok(end(&folder, &holder));
    }
    stale_daemon::send(&folder, &holder, Signal::TERM);
    let has_let_go = || prove(&folder, &holder) == HolderProof::Over;
    if !stale_daemon::wait(SOON, has_let_go) {
        say(&format!("the watchdog (pid {}) finishes a restart command first; waiting", holder.pid));
        let began = clock::monotonic();
        while !stale_daemon::wait(EACH, has_let_go) && began.elapsed() < AT_LAST {
            // It may be one that was frozen only just before.
            let Some(now) = read_holder(&folder).filter(|now| (now.pid, now.started) == (holder.pid, holder.started))
            else {
                continue;
            };
            if stale_daemon::is_hung(&folder, &now) {
                return Ok(end(&folder, &now));
            }
        }
    }
    // It is gone a moment after it has let go of the lock.
    let pid = holder.pid;
    match stale_daemon::wait(SOON, || is_gone(&holder)) {
        true => Ok(stopped(pid)),
        false => Err(complain(&format!("the watchdog (pid {pid}) was told to stop and still runs"), Code::Machine)),
    }
}

/// One that is hung finishes nothing.
fn end(folder: &Folder, holder: &Holder) -> Code {
    match stale_daemon::end(folder, holder) {
        Ok(()) => stopped(holder.pid),
        Err(error) => complain(&error, Code::Machine),
    }
}

fn stopped(pid: u32) -> Code {
    say(&format!("the watchdog (pid {pid}) is stopped; start --cron leaves it so, start starts it again"));
    Code::Done
}

//! `stop`: ends the running watchdog after the restart command that it runs. It must never stop a watchdog with another
//! configuration.

use std::time::Duration;

use rustix::process::Signal;

use crate::cli::Options;
use crate::clock;
use crate::policy::Mode;
use crate::store::Folder;
use crate::store::lock::{Holder, HolderProof, has_exited, prove_holder, read_holder};

use super::holder::{self, Instance};
use super::{Code, print, print_error, stale_daemon};

/// A watchdog that takes longer is waiting for a restart command.
const QUICK_STOP: Duration = Duration::from_secs(3);
const HUNG_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The longest timeout that a restart command may have.
const STOP_TIMEOUT: Duration = Duration::from_secs(86_400);

pub(super) fn stop(options: &Options) -> Result<Code, Code> {
    let Instance { folder, holder, path, .. } = holder::find_instance(options, "nothing was stopped")?;
    let holder = holder.filter(|holder| holder.mode == Mode::Daemon);
    if let Some(Err(why)) = holder.as_ref().map(|holder| stale_daemon::signallable_pid(&folder, holder)) {
        return Err(print_error(&format!("the watchdog was not stopped: {why}"), Code::Machine));
    }
    let held_config = holder.as_ref().map(|holder| holder.config.as_path());
    if (holder.is_some() || folder.path().exists())
        && let Err(error) = holder::mark_stopped(&folder, path.as_deref().or(held_config))
    {
        print_error(&format!("{error} (start --cron will start it again)"), Code::Machine);
    }
    let Some(holder) = holder else {
        print(&format!("no watchdog was running for {}", folder.path().display()));
        return Ok(Code::NotRunning);
    };
    if stale_daemon::is_hung(&folder, &holder) {
        return Ok(terminate_hung(&folder, &holder));
    }
    stale_daemon::send_signal(&folder, &holder, Signal::TERM);
    let has_let_go = || prove_holder(&folder, &holder) == HolderProof::NotHolding;
    if !stale_daemon::wait_until(QUICK_STOP, has_let_go) {
        print(&format!("waiting for the watchdog (pid {}) to finish a restart command", holder.pid));
        let began = clock::monotonic();
        while !stale_daemon::wait_until(HUNG_CHECK_INTERVAL, has_let_go) && began.elapsed() < STOP_TIMEOUT {
            // Its sign of life may have been recent when `stop` began, although it was frozen already.
            let is_same = |current: &Holder| (current.pid, current.started) == (holder.pid, holder.started);
            let Some(current) = read_holder(&folder).filter(is_same) else { continue };
            if stale_daemon::is_hung(&folder, &current) {
                return Ok(terminate_hung(&folder, &current));
            }
        }
    }
    // The process ends a moment after it has released the lock.
    let pid = holder.pid;
    match stale_daemon::wait_until(QUICK_STOP, || has_exited(&holder)) {
        true => Ok(report_stopped(pid)),
        false => Err(print_error(&format!("the watchdog (pid {pid}) still runs after SIGTERM"), Code::Machine)),
    }
}

/// A hung watchdog would not finish its restart command, so there is no reason to wait.
fn terminate_hung(folder: &Folder, holder: &Holder) -> Code {
    match stale_daemon::terminate(folder, holder) {
        Ok(()) => report_stopped(holder.pid),
        Err(error) => print_error(&error, Code::Machine),
    }
}

fn report_stopped(pid: u32) -> Code {
    print(&format!("the watchdog (pid {pid}) is stopped; start --cron will not start it, watchdog start will"));
    Code::Done
}

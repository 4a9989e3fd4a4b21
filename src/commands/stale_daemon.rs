//! A watchdog that holds the lock but gives no sign of life: detects it and ends it. It must never send a signal to a
//! pid that is not proven to be the holder's.

use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::clock;
use crate::process;
use crate::store::Folder;
use crate::store::lock::{Holder, HolderProof, prove_holder, read_holder};
use crate::time::{HumanDuration, WallTime};

/// The main loop touches the lock file at least every 30 s.
const DOUBTFUL_AGE: Duration = Duration::from_secs(120);
/// A little more than the 30 s between two signs of life.
const SIGN_TIMEOUT: Duration = Duration::from_secs(35);
/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Whether the holder is hung. This takes up to 35 s if its last sign of life is old: the holder may be slow, or the
/// clock may have been set.
pub(super) fn is_hung(folder: &Folder, holder: &Holder) -> bool {
    let age = |touched: WallTime| clock::wall().since(touched).max(touched.since(clock::wall()));
    if age(holder.touched) <= DOUBTFUL_AGE {
        return false;
    }
    // On SIGUSR1 a live watchdog touches the lock file at once.
    send_signal(folder, holder, Signal::USR1);
    let is_same = |now: &Holder| now.pid == holder.pid && now.touched == holder.touched;
    !wait_until(SIGN_TIMEOUT, || !read_holder(folder).as_ref().is_some_and(is_same))
}

/// Sends SIGTERM and 5 s later SIGKILL, each only after proof that the pid is the holder's. An error says why the
/// holder still runs.
pub(super) fn terminate(folder: &Folder, holder: &Holder) -> Result<(), String> {
    signallable_pid(folder, holder).map_err(|why| format!("the watchdog is hung and cannot be killed: {why}"))?;
    let silent = HumanDuration(clock::wall().since(holder.touched));
    log::warn!("the watchdog (pid {}) has given no sign of life for {silent}; killing it", holder.pid);
    for signal in [Signal::TERM, Signal::KILL] {
        send_signal(folder, holder, signal);
        if wait_until(GRACE, || prove_holder(folder, holder) == HolderProof::NotHolding) {
            return Ok(());
        }
    }
    Err(format!("the watchdog (pid {}) is hung and survived SIGKILL", holder.pid))
}

/// Sends a signal to the holder, if its pid is proven and the signal is permitted.
pub(super) fn send_signal(folder: &Folder, holder: &Holder, signal: Signal) {
    if let Ok(Some(pid)) = signallable_pid(folder, holder) {
        // This fails if the holder has just ended. Each caller waits for the effect, and so notices.
        let _ = kill_process(pid, signal);
    }
}

/// The holder's pid, if it is proven and may be signalled; none if the holder has ended. An error says why a running
/// holder cannot be signalled from this account.
pub(super) fn signallable_pid(folder: &Folder, holder: &Holder) -> Result<Option<Pid>, String> {
    let Some(pid) = i32::try_from(holder.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    let may_signal = match prove_holder(folder, holder) {
        HolderProof::NotHolding => return Ok(None),
        HolderProof::Unproven => false,
        HolderProof::Holds => test_kill_process(pid) != Err(Errno::PERM),
    };
    match may_signal {
        true => Ok(Some(pid)),
        false => {
            let whose = match process::owner(holder.pid) {
                Some(0) => "root".into(),
                Some(uid) => format!("uid {uid}"),
                None => "another account".into(),
            };
            let uid = rustix::process::geteuid().as_raw();
            Err(format!("pid {} belongs to {whose} and cannot be signalled by uid {uid}", holder.pid))
        }
    }
}

/// Waits until `condition` holds, at most for `timeout`, and returns whether it holds.
pub(super) fn wait_until(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let began = clock::monotonic();
    loop {
        if condition() {
            return true;
        }
        if began.elapsed() >= timeout {
            return false;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

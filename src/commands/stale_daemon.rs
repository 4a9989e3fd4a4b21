//! What to do about a watchdog that holds the lock but gives no sign of life.

use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::clock;
use crate::process;
use crate::store::Folder;
use crate::store::lock::{Holder, HolderProof, prove, read_holder};
use crate::time::{HumanDuration, WallTime};

/// A sign of life older than this is doubtful …
const DOUBTFUL: Duration = Duration::from_secs(120);
/// … and without another one within this it is a hung watchdog: a live one gives it every 30 s.
const PATIENCE: Duration = Duration::from_secs(35);
/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// Whether the holder is hung. Takes up to 35 s to tell where there is doubt: it may be slow, or the clock was set.
pub(super) fn is_hung(folder: &Folder, holder: &Holder) -> bool {
    let age = |touched: WallTime| clock::wall().since(touched).max(touched.since(clock::wall()));
    if age(holder.touched) <= DOUBTFUL {
        return false;
    }
    // One that is alive gives a new one with this at once, and not only when it is due.
    send(folder, holder, Signal::USR1);
    let is_same = |now: &Holder| now.pid == holder.pid && now.touched == holder.touched;
    !wait(PATIENCE, || !read_holder(folder).as_ref().is_some_and(is_same))
}

/// SIGTERM, 5 s, SIGKILL, each only after proof that the pid is the holder's. Errors: it still lives, in words.
pub(super) fn end(folder: &Folder, holder: &Holder) -> Result<(), String> {
    reach(folder, holder).map_err(|why| format!("the watchdog is hung and cannot be ended: {why}"))?;
    let silent = HumanDuration(clock::wall().since(holder.touched));
    log::warn!("the watchdog with pid {} has given no sign of life for {silent}: ending it", holder.pid);
    for (signal, patience) in [(Signal::TERM, GRACE), (Signal::KILL, GRACE)] {
        send(folder, holder, signal);
        if wait(patience, || prove(folder, holder) == HolderProof::Over) {
            return Ok(());
        }
    }
    Err(format!("the watchdog with pid {} is hung and cannot be ended", holder.pid))
}

/// Sends a signal to the holder, if the pid is still its and that is permitted.
pub(super) fn send(folder: &Folder, holder: &Holder, signal: Signal) {
    if let Ok(Some(pid)) = reach(folder, holder) {
        // It has just ended: whoever waits for the effect will see.
        let _ = kill_process(pid, signal);
    }
}

/// The holder's pid, if that is its beyond doubt and a signal to it is permitted; none when it is over.
/// Errors: it is at work and cannot be signalled from this account, in words.
pub(super) fn reach(folder: &Folder, holder: &Holder) -> Result<Option<Pid>, String> {
    let Some(pid) = i32::try_from(holder.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    let may_signal = match prove(folder, holder) {
        HolderProof::Over => return Ok(None),
        HolderProof::Hidden => false,
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
            let us = rustix::process::geteuid().as_raw();
            Err(format!("pid {} belongs to {whose} and cannot be signalled by uid {us}", holder.pid))
        }
    }
}

/// Waits until `condition` holds, `patience` at the most; says whether it does.
pub(super) fn wait(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let began = clock::monotonic();
    loop {
        if condition() {
            return true;
        }
        if began.elapsed() >= patience {
            return false;
        }
        thread::sleep(PAUSE);
    }
}

//! Whether PM2 may be reset. It must never find a reason where there is doubt, nor allow what could not be undone.

use std::fmt;

use crate::outcome::in_words;
use crate::process::Process;

use super::{Caller, Home, Listing, Managed, Saved};

/// Why PM2 may be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warrant {
    /// Its daemon accepts, but does not answer in 10 s.
    Silent,
    /// So many daemons run at once.
    Doubled(usize),
    /// This process, which was PM2's and has no daemon any more, holds the port.
    Orphan(Process),
}

impl fmt::Display for Warrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warrant::Silent => f.write_str("PM2 does not answer in 10 s"),
            Warrant::Doubled(count) => write!(f, "{count} daemons of PM2 run at once"),
            Warrant::Orphan(process) => write!(f, "an orphan of PM2 (pid {}) holds the port", process.pid),
        }
    }
}

/// Looks for a reason to reset PM2. Asking PM2 itself may take 10 s, and 10 s more to end the question.
///
/// # Errors
/// Why there is none, or why it must not be, in words.
pub fn weigh(home: &Home, caller: &Caller, managed: &Managed) -> Result<Warrant, String> {
    caller.program()?;
    let cannot = |error: std::io::Error| format!("cannot look for PM2's processes: {}", in_words(&error));
    let daemons = home.daemons().map_err(cannot)?;
    if daemons.len() > 1 {
        return can_be_brought_back(home, managed).map(|()| Warrant::Doubled(daemons.len()));
    }
    let orphans = managed.port.map_or(Ok(Vec::new()), |port| home.orphans_on(port)).map_err(cannot)?;
    let silent = match daemons.first() {
        Some(daemon) => is_silent(home, caller, *daemon),
        None => Err("PM2 does not run".into()),
    };
    // A silent daemon is the larger trouble: an orphan that is on the port is ended along with it.
    match (silent, orphans.first()) {
        (Ok(()), None) => can_be_brought_back(home, managed).map(|()| Warrant::Silent),
        (Ok(()), Some(_)) if can_be_brought_back(home, managed).is_ok() => Ok(Warrant::Silent),
        // A daemon that lives knows its processes; without one only the disk does.
        (_, Some(orphan)) if daemons.is_empty() => {
            can_be_brought_back(home, managed).map(|()| Warrant::Orphan(*orphan))
        }
        (_, Some(orphan)) => Ok(Warrant::Orphan(*orphan)),
        (Err(why), None) => match managed.port {
            Some(port) => Err(format!("{why}, and no orphan holds port {port}")),
            None => Err(why),
        },
    }
}

/// Asks the only daemon for its list; fine where it stays silent.
///
/// # Errors
/// Why it cannot be called silent, in words.
fn is_silent(home: &Home, caller: &Caller, daemon: Process) -> Result<(), String> {
    let socket = home.path().join("rpc.sock");
    match home.daemon_accepts() {
        Ok(true) => {}
        Ok(false) => return Err(format!("PM2 (pid {}) does not listen on {}", daemon.pid, socket.display())),
        Err(error) => return Err(format!("cannot connect to {}: {}", socket.display(), in_words(&error))),
    }
    match caller.list() {
        Listing::Silent => Ok(()),
        Listing::Failed(reason) => Err(format!("PM2 answers, though without a list: {reason}")),
        Listing::Apps(_) => Err("PM2 answers and runs once".into()),
    }
}

/// Whether the disk has what the process can be started from: all that PM2 still knows without its daemon.
fn can_be_brought_back(home: &Home, managed: &Managed) -> Result<(), String> {
    if managed.config.as_ref().is_some_and(|path| path.is_file()) {
        return Ok(());
    }
    let without = match home.saved() {
        Saved::Apps(apps) if apps.iter().any(|app| app.name == managed.process) => return Ok(()),
        Saved::Apps(_) => format!("the saved list has no {}", managed.process),
        Saved::Missing => "no list was saved (pm2 save)".into(),
        Saved::Unreadable(reason) => reason,
    };
    let config = match &managed.config {
        Some(path) => format!("{} is missing", path.display()),
        None => "no config is given".into(),
    };
    Err(format!("nothing could bring {} back: {without}, and {config}", managed.process))
}

//! Restarting a process by way of PM2, from whatever state its daemon is in. It must never take a failed
//! `resurrect` for the end: whether anything was repaired is for others to see.

use std::fs::File;

use crate::clock;
use crate::command::Ended;
use crate::outcome::Ending;
use crate::process::Process;

use super::{Caller, Home, Managed};

/// Restarts the process: `pm2 resurrect` first while no daemon accepts, then `pm2 restart`. A daemon that does not know
/// the name (each pm2 command leaves an empty one behind where there was none) is told to resurrect, and once more to
/// restart. The ending is the last call's, the time that of all.
pub fn restart(
    home: &Home,
    caller: &Caller,
    managed: &Managed,
    output: &File,
    on_start: &mut dyn FnMut(Process),
) -> Ended {
    let began = clock::monotonic();
    // What cannot be known is no reason to leave it out: it skips those that are listed.
    let is_dead = !home.daemon_accepts().unwrap_or(false);
    let mut calls = Calls { caller, output, on_start };
    let ended = match is_dead.then(|| calls.resurrect()) {
        Some(ended) if matches!(ended.ending, Ending::NotStarted(_)) => ended,
        resurrected => calls.restart(managed, resurrected.is_some()),
    };
    Ended { took: clock::monotonic().duration_since(began), ..ended }
}

/// What all calls of one restart share.
pub(super) struct Calls<'a> {
    pub(super) caller: &'a Caller,
    pub(super) output: &'a File,
    pub(super) on_start: &'a mut dyn FnMut(Process),
}

impl Calls<'_> {
    pub(super) fn resurrect(&mut self) -> Ended {
        self.call(&["resurrect"])
    }

    /// Restarts the process, and if it is not known, once more after a `resurrect` unless there was one.
    pub(super) fn restart(&mut self, managed: &Managed, is_resurrected: bool) -> Ended {
        let config = managed.config.as_ref().map(|path| path.to_string_lossy());
        let named = managed.process.as_str();
        let args = match &config {
            Some(config) => vec!["restart", config, "--only", named],
            None => vec!["restart", named],
        };
        let ended = self.call(&args);
        match ended.ending {
            Ending::Exited(0) => ended,
            Ending::Exited(_) if !is_resurrected => {
                self.resurrect();
                self.call(&args)
            }
            _ => ended,
        }
    }

    fn call(&mut self, args: &[&str]) -> Ended {
        self.caller.call(args, self.output, self.on_start)
    }
}

//! The last resort: ends PM2's daemons and what they left on the port, and has PM2 start again. It must never signal a
//! process that is not proven anew right before, and never begin to start anything while a daemon to be ended lives.

use std::fs::File;
use std::io;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::clock;
use crate::command::Ended;
use crate::outcome::{Ending, in_words};
use crate::process::{self, Process};
use crate::terminal::escaped;

use super::restart::Calls;
use super::{Caller, Home, Managed, Warrant, identity, ports};

/// How long a killed process, and the port that it held, may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// How long processes may take to notice that their daemon is gone: those that do take 1.5 to 2.3 s.
const NOTICED: Duration = Duration::from_secs(5);

/// From SIGTERM to SIGKILL: more than the 1.6 s that PM2 itself grants.
const GRACE: Duration = Duration::from_secs(3);

/// Between two looks at who is left.
const PAUSE: Duration = Duration::from_millis(20);

/// Resets PM2 on this warrant, and has it start the process again. `say` is told of each thing that is done or left
/// alone, a line each. The ending is the last pm2 call's, 1 if it came to none; the time that of all.
pub fn reset(
    home: &Home,
    caller: &Caller,
    managed: &Managed,
    warrant: &Warrant,
    say: &dyn Fn(String),
    output: &File,
    on_start: &mut dyn FnMut(Process),
) -> Ended {
    let began = clock::monotonic();
    let scene = Scene { home, say };
    let ended = scene.clear(managed, warrant).map(|()| {
        let is_killed = !matches!(warrant, Warrant::Orphan(_));
        scene.start_again(managed, is_killed, Calls { caller, output, on_start })
    });
    let ended = ended.unwrap_or_else(|reason| {
        say(format!("reset stops here: {reason}"));
        Ended { ending: Ending::Exited(1), took: Duration::ZERO, our_trouble: false }
    });
    Ended { took: clock::monotonic().duration_since(began), ..ended }
}

struct Scene<'a> {
    home: &'a Home,
    say: &'a dyn Fn(String),
}

impl Scene<'_> {
    /// Ends whom the warrant names.
    fn clear(&self, managed: &Managed, warrant: &Warrant) -> Result<(), String> {
        let cannot = |error: io::Error| format!("cannot look for PM2's processes: {}", in_words(&error));
        if !matches!(warrant, Warrant::Orphan(_)) {
            let daemons = self.home.daemons().map_err(cannot)?;
            let kept = self.kept_by(&daemons).map_err(cannot)?;
            self.kill(&daemons)?;
            wait(NOTICED, || !kept.iter().any(|process| process::is_alive(*process)));
            self.end(&kept, "outlived its daemon");
        }
        if let Some(port) = managed.port {
            let orphans = self.home.orphans_on(port).map_err(cannot)?;
            self.end(&orphans, &format!("an orphan on port {port}"));
            self.wait_for(port);
        }
        Ok(())
    }

    /// The living processes of PM2's that descend from these daemons. A second copy of each would be started beside
    /// those that stay.
    fn kept_by(&self, daemons: &[Process]) -> io::Result<Vec<Process>> {
        let mut kept = Vec::new();
        for daemon in daemons {
            let family = process::family(daemon.pid)?.into_iter().filter(|pid| !identity::is_us(*pid));
            let own = family.filter(|pid| process::is_ours(*pid) && !self.home.marks(*pid).is_empty());
            kept.extend(own.filter_map(process::living));
        }
        Ok(kept)
    }

    /// Kills the daemons one after another. Asked to end, one that is not on the socket any more would overwrite the
    /// saved list with its own, and one that is frozen would not.
    fn kill(&self, daemons: &[Process]) -> Result<(), String> {
        for daemon in daemons {
            if self.home.daemon(daemon.pid) != Some(*daemon) {
                continue; // it has ended meanwhile
            }
            match process::signal(*daemon, Signal::KILL) {
                Ok(true) => (self.say)(format!("killed PM2's daemon (pid {})", daemon.pid)),
                Ok(false) => {}
                Err(error) => return Err(format!("cannot kill the daemon (pid {}): {}", daemon.pid, in_words(&error))),
            }
            if !wait(GONE, || !process::is_alive(*daemon)) {
                return Err(format!("the daemon (pid {}) was killed but does not go", daemon.pid));
            }
        }
        Ok(())
    }

    /// Ends those that are orphans still: SIGTERM, 3 s, SIGKILL.
    fn end(&self, processes: &[Process], what: &str) {
        let mut left: Vec<Process> = processes.iter().copied().filter(|process| process::is_alive(*process)).collect();
        for signal in [Signal::TERM, Signal::KILL] {
            let how = if signal == Signal::TERM { "asked to end" } else { "killed" };
            left.retain(|process| process::is_alive(*process) && self.send(*process, signal, how, what));
            let patience = if signal == Signal::TERM { GRACE } else { GONE };
            if wait(patience, || !left.iter().any(|process| process::is_alive(*process))) {
                return;
            }
        }
        for process in left.into_iter().filter(|process| process::is_alive(*process)) {
            (self.say)(format!("pid {} was killed but does not go", process.pid));
        }
    }

    /// Answers whether it was sent.
    fn send(&self, process: Process, signal: Signal, how: &str, what: &str) -> bool {
        let pid = process.pid;
        if self.home.orphan(pid) != Some(process) {
            if process::is_alive(process) {
                (self.say)(format!("left pid {pid} alone: it is not proven to be an orphan of PM2"));
            }
            return false;
        }
        let title = process::title(pid).unwrap_or_default();
        match process::signal(process, signal) {
            Ok(true) => (self.say)(format!("{how}: pid {pid} ({}), {what}", escaped(&title))),
            Ok(false) => return false,
            Err(error) => (self.say)(format!("cannot signal pid {pid}: {}", in_words(&error))),
        }
        true
    }

    /// Waits until the port is free, or taken by one who is not to be waited for.
    fn wait_for(&self, port: u16) {
        let is_orphaned = || self.home.orphans_on(port).is_ok_and(|orphans| !orphans.is_empty());
        let is_decided = || ports::is_free(port) || ports::holder(port).is_some() && !is_orphaned();
        wait(GONE, is_decided);
        match ports::holder(port) {
            None if ports::is_free(port) => {}
            None => (self.say)(format!("port {port} is held by another account; left alone")),
            Some((pid, title)) => {
                let (title, is_pm2s) = (escaped(&title), self.home.daemon(pid).is_some());
                let whose = match is_pm2s || !self.home.marks(pid).is_empty() {
                    true => "PM2's own",
                    false => "no process of PM2's",
                };
                (self.say)(format!("port {port} is held by pid {pid} ({title}), {whose}; left alone"));
            }
        }
    }

    /// What was saved, while no daemon accepts; then the process itself, where it is down or its daemon still knows it.
    fn start_again(&self, managed: &Managed, is_killed: bool, mut calls: Calls) -> Ended {
        let is_dead = !self.home.daemon_accepts().unwrap_or(false);
        let resurrected = is_dead.then(|| calls.resurrect());
        let is_up = || self.home.sight(&managed.process).is_ok_and(|sight| sight.process.is_some());
        match resurrected {
            Some(ended) if matches!(ended.ending, Ending::NotStarted(_)) || is_killed && is_up() => ended,
            None if is_killed && is_up() => {
                Ended { ending: Ending::Exited(0), took: Duration::ZERO, our_trouble: false }
            }
            resurrected => calls.restart(managed, resurrected.is_some()),
        }
    }
}

/// Looks until it is so or `limit` is over; answers whether it is.
fn wait(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let began = clock::monotonic();
    while !is_so() {
        if clock::monotonic().duration_since(began) >= limit {
            return false;
        }
        thread::sleep(PAUSE);
    }
    true
}

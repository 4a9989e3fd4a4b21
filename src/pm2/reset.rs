//! The last resort: ends PM2's daemons and what they left on the port, and has PM2 start again. It must never signal a
//! process that is not proven anew right before, and never begin to start anything while a daemon to be ended lives.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::Signal;

use crate::clock;
use crate::command::CommandResult;
use crate::outcome::{DaemonState, Exit, PriorEvidence, describe_io_error};
use crate::process::{self, Process};
use crate::terminal::escaped;

use super::evidence::{Daemon, DaemonKind};
use super::inspect::inspect;
use super::plan::plan;
use super::repair::{Calls, came_to_nothing, wait};
use super::{Home, ResetReason, identity, ports};

/// How long a killed process, and the port that it held, may take to be gone.
const GONE: Duration = Duration::from_secs(10);
/// How long processes may take to notice that their daemon is gone: those that do take 1.5 to 2.3 s.
const NOTICED: Duration = Duration::from_secs(5);
/// From SIGTERM to SIGKILL: more than the 1.6 s that PM2 itself grants.
const GRACE: Duration = Duration::from_secs(3);
/// How long a service manager may take to start a daemon again that was killed, before it is started by us. Two at the
/// same time would make two.
const SUPERVISED: Duration = Duration::from_secs(20);

/// The ending is the last pm2 call's, 1 if it came to none; the time that of all.
pub fn reset(reason: &ResetReason, mut calls: Calls<'_>) -> CommandResult {
    let began = clock::monotonic();
    let cleared = Reset { home: calls.home, calls: &calls }.clear(reason);
    let ended = cleared.and_then(|is_supervised| {
        if is_supervised {
            let home = calls.home;
            wait(SUPERVISED, || home.daemon_evidence().state() == DaemonState::Alive);
        }
        start_again(reason, &mut calls)
    });
    let ended = ended.unwrap_or_else(|reason| {
        calls.say(&format!("the reset stops here: {reason}"));
        came_to_nothing()
    });
    CommandResult { duration: clock::monotonic().duration_since(began), ..ended }
}

/// What was saved, while there is no daemon; then the process itself, where it is not back by that.
fn start_again(reason: &ResetReason, calls: &mut Calls<'_>) -> Result<CommandResult, String> {
    let is_killed = !matches!(reason, ResetReason::Orphan(_));
    // Whoever outlived the daemon was not started again by one.
    let is_back = || !calls.living().is_empty() && calls.home.daemon_evidence().state() == DaemonState::Alive;
    if is_killed && is_back() {
        return Ok(CommandResult { exit: Exit::Exited(0), ..came_to_nothing() });
    }
    let found = inspect(calls.home, calls.caller, calls.managed, PriorEvidence::default());
    let steps = plan(calls.managed, &found.facts)?;
    Ok(calls.carry_out(&steps))
}

struct Reset<'s, 'c> {
    home: &'s Home,
    calls: &'s Calls<'c>,
}

impl Reset<'_, '_> {
    /// Ends whom the reason names; whether a service manager may start a daemon again.
    fn clear(&self, reason: &ResetReason) -> Result<bool, String> {
        let cannot = |error: io::Error| format!("cannot look for PM2's processes: {}", describe_io_error(&error));
        let mut is_supervised = false;
        if !matches!(reason, ResetReason::Orphan(_)) {
            let daemons = self.home.all_daemons().proven;
            let kept = self.kept_by(&daemons).map_err(cannot)?;
            is_supervised = daemons.iter().any(|daemon| is_service(daemon.process.pid));
            self.kill(&daemons)?;
            wait(NOTICED, || !kept.iter().any(|process| process::is_alive(*process)));
            self.end(&kept, "outlived its daemon");
        }
        if let Some(port) = self.calls.managed.port {
            let orphans = self.home.orphans_on(port).map_err(cannot)?;
            self.end(&orphans, &format!("an orphan on port {port}"));
            self.wait_for(port);
        }
        Ok(is_supervised)
    }

    fn say(&self, line: String) {
        self.calls.say(&line);
    }

    /// PM2's processes below these daemons: a second copy of each would be started beside those that stay.
    fn kept_by(&self, daemons: &[Daemon]) -> io::Result<Vec<Process>> {
        let mut kept = Vec::new();
        for daemon in daemons {
            let family = process::family(daemon.process.pid)?.into_iter().filter(|pid| !identity::is_us(*pid));
            let own = family.filter(|pid| process::is_ours(*pid)).filter_map(process::living);
            kept.extend(own.filter(|one| !self.home.marks(one.pid).is_empty() || self.home.is_noted(*one)));
        }
        Ok(kept)
    }

    /// Kills the daemons one after another. Asked to end, one that is not on the socket any more would overwrite the
    /// saved list with its own, and one that is frozen would not.
    fn kill(&self, daemons: &[Daemon]) -> Result<(), String> {
        for Daemon { process: daemon, .. } in daemons {
            let now = self.home.daemon(daemon.pid).filter(|now| now.process == *daemon);
            if now.is_none_or(|now| now.kind == DaemonKind::Foreground) {
                continue; // it has ended meanwhile
            }
            if self.calls.is_given_up() {
                return Err("nobody waits for it any more".into());
            }
            match process::signal(*daemon, Signal::KILL) {
                Ok(true) => self.say(format!("killed PM2's daemon (pid {})", daemon.pid)),
                Ok(false) => {}
                Err(error) => {
                    return Err(format!("cannot kill the daemon (pid {}): {}", daemon.pid, describe_io_error(&error)));
                }
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
            self.say(format!("pid {} was killed but does not go", process.pid));
        }
    }

    fn send(&self, process: Process, signal: Signal, how: &str, what: &str) -> bool {
        let pid = process.pid;
        if self.home.orphan(pid) != Some(process) || self.calls.is_given_up() {
            if process::is_alive(process) {
                self.say(format!("left pid {pid} alone: it is not proven to be an orphan of PM2"));
            }
            return false;
        }
        let title = process::title(pid).unwrap_or_default();
        match process::signal(process, signal) {
            Ok(true) => self.say(format!("{how}: pid {pid} ({}), {what}", escaped(&title))),
            Ok(false) => return false,
            Err(error) => self.say(format!("cannot signal pid {pid}: {}", describe_io_error(&error))),
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
            None => self.say(format!("port {port} is held by another account; left alone")),
            Some((pid, title)) => {
                let (title, is_pm2s) = (escaped(&title), self.home.daemon(pid).is_some());
                let whose = match is_pm2s || !self.home.marks(pid).is_empty() {
                    true => "PM2's own",
                    false => "no process of PM2's",
                };
                self.say(format!("port {port} is held by pid {pid} ({title}), {whose}; left alone"));
            }
        }
    }
}

fn is_service(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| is_in_service(&groups))
}

/// Whether these control groups are those of a service of PM2's, as `pm2 startup` makes it. One of another name is the
/// one that we run in ourselves, and the daemon too since we had to start it.
fn is_in_service(groups: &str) -> bool {
    let units = groups.lines().filter_map(|line| line.rsplit('/').next());
    units.filter_map(|unit| unit.strip_suffix(".service")).any(|unit| unit.contains("pm2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_of_systemd_is_known_by_its_group() {
        let check = |groups: &str, expected: bool| assert_eq!(is_in_service(groups), expected, "{groups}");
        check("0::/system.slice/pm2-deploy.service\n", true);
        check("12:pids:/user.slice\n1:name=systemd:/system.slice/pm2-root.service\n", true);
        check("0::/user.slice/user-1000.slice/user@1000.service/app.slice/pm2.service\n", true);
        check("0::/system.slice/watchdog-agent.service\n", false);
        check("0::/user.slice/user-1000.slice/session-3.scope\n", false);
        check("0::/system.slice/pm2-deploy.slice/x.scope\n", false);
        check("0::/\n", false);
        check("", false);
    }
}

//! The last resort: ends PM2's daemons and the orphans on the target's ports, then starts PM2 again. It must never
//! signal a process without proving it again right before, and never start anything while a daemon that it has to end
//! is alive.

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
use super::observe::describe_proc_error;
use super::plan::plan_repair;
use super::repair::{RepairContext, failed_result, wait_until};
use super::{Home, ResetReason, identity, ports};

/// How long a process may stay alive, and its port in use, after SIGKILL.
const KILL_EXIT: Duration = Duration::from_secs(10);
/// How long processes may take to exit after their daemon was killed: those that notice take 1.5 to 2.3 s.
const NOTICE_TIME: Duration = Duration::from_secs(5);
/// From SIGTERM to SIGKILL: more than the 1.6 s that PM2 itself grants.
const TERM_GRACE: Duration = Duration::from_secs(3);
/// How long a service manager may take to restart a killed daemon before the watchdog starts one. If both did, there
/// would be two daemons.
const SUPERVISOR_RESTART: Duration = Duration::from_secs(20);

/// The result's exit is that of the last pm2 call, or code 1 if there was none; its duration is that of the whole
/// reset.
pub fn reset(reason: &ResetReason, mut calls: RepairContext<'_>) -> CommandResult {
    let began = clock::monotonic();
    let cleared = Reset { home: calls.home, calls: &calls }.end_causes(reason);
    let result = cleared.and_then(|is_supervised| {
        if is_supervised {
            let home = calls.home;
            wait_until(SUPERVISOR_RESTART, || home.observe_daemon().state() == DaemonState::Alive);
        }
        start_again(reason, &mut calls)
    });
    let result = result.unwrap_or_else(|reason| {
        calls.record(&format!("reset stopped: {reason}"));
        failed_result()
    });
    CommandResult { duration: clock::monotonic().duration_since(began), ..result }
}

/// Starts what is missing: the saved processes if there is no daemon, then the process itself if it is still missing.
fn start_again(reason: &ResetReason, calls: &mut RepairContext<'_>) -> Result<CommandResult, String> {
    let is_killed = !matches!(reason, ResetReason::Orphan(_));
    // After a killed daemon, a living process counts only with a new daemon: without one it is a survivor.
    let is_back = || !calls.living_processes().is_empty() && calls.home.observe_daemon().state() == DaemonState::Alive;
    if is_killed && is_back() {
        return Ok(CommandResult { exit: Exit::Exited(0), ..failed_result() });
    }
    let found = inspect(calls.home, calls.caller, calls.managed, PriorEvidence::default());
    let steps = plan_repair(calls.managed, &found.facts)?;
    Ok(calls.execute(&steps))
}

struct Reset<'s, 'c> {
    home: &'s Home,
    calls: &'s RepairContext<'c>,
}

impl Reset<'_, '_> {
    /// Ends the processes that the reason names. Returns whether a service manager may restart the daemon.
    fn end_causes(&self, reason: &ResetReason) -> Result<bool, String> {
        let mut is_supervised = false;
        if !matches!(reason, ResetReason::Orphan(_)) {
            let daemons = self.home.observe_all_daemons().proven;
            let processes = self.managed_processes(&daemons).map_err(|error| describe_proc_error(&error))?;
            is_supervised = daemons.iter().any(|daemon| is_service(daemon.process.pid));
            self.kill_daemons(&daemons)?;
            wait_until(NOTICE_TIME, || !processes.iter().any(|process| process::is_alive(*process)));
            self.end_orphans(&processes, "outlived its daemon");
        }
        for &port in &self.calls.managed.ports {
            let orphans = self.home.find_orphans(port).map_err(|error| describe_proc_error(&error))?;
            self.end_orphans(&orphans, &format!("an orphan on port {port}"));
            self.wait_for_port(port);
        }
        Ok(is_supervised)
    }

    fn record(&self, line: String) {
        self.calls.record(&line);
    }

    /// PM2's processes below these daemons. Those that outlive the daemons must end, or each would run twice.
    fn managed_processes(&self, daemons: &[Daemon]) -> io::Result<Vec<Process>> {
        let mut processes = Vec::new();
        for daemon in daemons {
            let family = process::process_tree(daemon.process.pid)?
                .into_iter()
                .filter(|pid| !identity::is_self_or_ancestor(*pid));
            let own = family.filter(|pid| process::is_ours(*pid)).filter_map(process::identify_living);
            processes
                .extend(own.filter(|one| !self.home.read_marks(one.pid).is_empty() || self.home.has_pid_file(*one)));
        }
        Ok(processes)
    }

    /// Kills the daemons one after another, with SIGKILL: on SIGTERM a daemon that has lost its socket would overwrite
    /// the saved list with its own, and a frozen one would not end.
    fn kill_daemons(&self, daemons: &[Daemon]) -> Result<(), String> {
        for Daemon { process: daemon, .. } in daemons {
            let now = self.home.prove_daemon(daemon.pid).filter(|now| now.process == *daemon);
            if now.is_none_or(|now| now.kind == DaemonKind::Foreground) {
                continue; // it has ended in the meantime
            }
            if self.calls.is_cancelled() {
                return Err("the job was cancelled".into());
            }
            match process::send_signal(*daemon, Signal::KILL) {
                Ok(true) => self.record(format!("killed PM2's daemon (pid {})", daemon.pid)),
                Ok(false) => {}
                Err(error) => {
                    return Err(format!(
                        "cannot kill PM2's daemon (pid {}): {}",
                        daemon.pid,
                        describe_io_error(&error)
                    ));
                }
            }
            if !wait_until(KILL_EXIT, || !process::is_alive(*daemon)) {
                return Err(format!("PM2's daemon (pid {}) is still running after SIGKILL", daemon.pid));
            }
        }
        Ok(())
    }

    /// Ends those that are still orphans: SIGTERM, 3 s, SIGKILL.
    fn end_orphans(&self, processes: &[Process], what: &str) {
        let mut left: Vec<Process> = processes.iter().copied().filter(|process| process::is_alive(*process)).collect();
        for signal in [Signal::TERM, Signal::KILL] {
            let how = if signal == Signal::TERM { "sent SIGTERM to" } else { "killed" };
            left.retain(|process| process::is_alive(*process) && self.signal_orphan(*process, signal, how, what));
            let limit = if signal == Signal::TERM { TERM_GRACE } else { KILL_EXIT };
            if wait_until(limit, || !left.iter().any(|process| process::is_alive(*process))) {
                return;
            }
        }
        for process in left.into_iter().filter(|process| process::is_alive(*process)) {
            self.record(format!("pid {} is still running after SIGKILL", process.pid));
        }
    }

    fn signal_orphan(&self, process: Process, signal: Signal, how: &str, what: &str) -> bool {
        let pid = process.pid;
        if self.home.prove_orphan(pid) != Some(process) || self.calls.is_cancelled() {
            if process::is_alive(process) {
                self.record(format!("not signalling pid {pid}: it is not proven to be an orphan of PM2"));
            }
            return false;
        }
        let title = process::command_line(pid).unwrap_or_default();
        match process::send_signal(process, signal) {
            Ok(true) => self.record(format!("{how} pid {pid} ({}), {what}", escaped(&title))),
            Ok(false) => return false,
            Err(error) => self.record(format!("cannot signal pid {pid}: {}", describe_io_error(&error))),
        }
        true
    }

    /// Waits until the port is free, or in use by a process that is not an orphan.
    fn wait_for_port(&self, port: u16) {
        let is_orphaned = || self.home.find_orphans(port).is_ok_and(|orphans| !orphans.is_empty());
        let is_decided = || ports::is_free(port) || ports::find_listener(port).is_some() && !is_orphaned();
        wait_until(KILL_EXIT, is_decided);
        match ports::find_listener(port) {
            None if ports::is_free(port) => {}
            None => self.record(format!("port {port} is in use by another account; left running")),
            Some((pid, title)) => {
                let (title, is_daemon) = (escaped(&title), self.home.prove_daemon(pid).is_some());
                let owner = match is_daemon || !self.home.read_marks(pid).is_empty() {
                    true => "a process of PM2",
                    false => "not a process of PM2",
                };
                self.record(format!("port {port} is in use by pid {pid} ({title}), {owner}; left running"));
            }
        }
    }
}

fn is_service(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| is_in_service(&groups))
}

/// Whether these control groups belong to a PM2 service, as `pm2 startup` creates it. A service of another name is the
/// watchdog's own, and the daemon is in it because the watchdog started it.
fn is_in_service(groups: &str) -> bool {
    let units = groups.lines().filter_map(|line| line.rsplit('/').next());
    units.filter_map(|unit| unit.strip_suffix(".service")).any(|unit| unit.contains("pm2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_under_systemd_is_recognized_by_its_control_group() {
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

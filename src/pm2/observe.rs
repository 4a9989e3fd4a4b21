//! Gathers evidence about a daemon and the processes of one name from the socket, the files and `/proc`. It must never
//! call `pm2`, and never draw a conclusion that a pure function could draw.

use std::io;
use std::path::{Path, PathBuf};

use crate::outcome::{DaemonState, Pm2Evidence, PriorEvidence, ProcessIdentity, describe_io_error};
use crate::process::{self, Environment, Process, Stat};

use super::evidence::{Daemon, DaemonEvidence, DaemonKind, ProcessEvidence, ProcessState, Sign, SocketState};
use super::home::{read_pid, to_file_name};
use super::identity::{DaemonOwnership, find_command_home, is_pm2_command, read_daemon, was_written_at_start_of};
use super::{Home, ports};

impl Home {
    /// What a probe concludes about the daemon and the processes of this name. While everything is healthy this reads a
    /// handful of files: a daemon that was proven before needs no new proof.
    pub fn observe(&self, name: &str, known: PriorEvidence) -> Pm2Evidence {
        let daemon = match self.verify_known_daemon(known.daemon) {
            Some(daemon) => self.evidence_of(daemon),
            None => self.observe_daemon(),
        };
        let process = self.observe_process(name, known.process, &daemon);
        self.conclude(&daemon, &process)
    }

    /// The daemon proven before, if `pm2.pid` still names it and the socket accepts.
    fn verify_known_daemon(&self, before: Option<ProcessIdentity>) -> Option<Daemon> {
        let before = before.filter(|_| self.check_socket() == SocketState::Accepts)?;
        let pid = read_pid(&self.path().join("pm2.pid")).ok().filter(|pid| *pid == before.pid)?;
        read_daemon(pid, DaemonKind::Detached).filter(|daemon| identity_of(daemon.process) == before)
    }

    fn evidence_of(&self, daemon: Daemon) -> DaemonEvidence {
        DaemonEvidence { socket: SocketState::Accepts, proven: vec![daemon], unidentified: None, is_silent: false }
    }

    pub(super) fn conclude(&self, daemon: &DaemonEvidence, process: &ProcessEvidence) -> Pm2Evidence {
        let (living, hidden) = match process.state() {
            ProcessState::Alive(process) => (Some(process), None),
            ProcessState::Gone => (None, None),
            ProcessState::Unknown(why) => (None, Some(why)),
        };
        let is_orphan = living.is_some() && living == process.orphan();
        let outlived = living.filter(|_| is_orphan).map(|Process { pid, .. }| {
            let pm2 = self.pm2_command();
            format!(
                "its process (pid {pid}) outlived the PM2 daemon that started it, so PM2 will not restart it. Fix, at \
                 a convenient time: kill {pid}, then {pm2} resurrect"
            )
        });
        Pm2Evidence {
            daemon: daemon.state(),
            daemon_process: daemon.latest().map(|daemon| identity_of(daemon.process)),
            trouble: daemon.trouble(&self.path().display().to_string(), &self.pm2_command()).or(hidden).or(outlived),
            process: living.map(identity_of),
            is_orphan,
            is_being_started: daemon.state() == DaemonState::Dead && self.is_pm2_command_running(),
        }
    }

    /// Whether a pm2 command of this account runs, unless its environment shows another home. Processes that cannot be
    /// read may be one.
    fn is_pm2_command_running(&self) -> bool {
        let is_command =
            |pid: u32| process::command_line(pid).is_some_and(|title| is_pm2_command(&title)) && process::is_ours(pid);
        let may_be_here = |pid: u32| {
            process::environment(pid).and_then(|found| find_command_home(&found)).is_none_or(|home| self.is_at(&home))
        };
        process::pids().map_or(true, |mut pids| pids.any(|pid| is_command(pid) && may_be_here(pid)))
    }

    /// The signs of the daemon. If its socket accepts and `pm2.pid` names a proven daemon, no other process is read.
    pub fn observe_daemon(&self) -> DaemonEvidence {
        let socket = self.check_socket();
        if socket == SocketState::Accepts
            && let Some(daemon) = read_pid(&self.path().join("pm2.pid")).ok().and_then(|pid| self.prove_daemon(pid))
        {
            return self.evidence_of(daemon);
        }
        self.search_daemons(socket)
    }

    /// The same with all daemons of this home, including one that lost its socket to another.
    pub fn observe_all_daemons(&self) -> DaemonEvidence {
        self.search_daemons(self.check_socket())
    }

    fn search_daemons(&self, socket: SocketState) -> DaemonEvidence {
        let mut evidence = DaemonEvidence { socket, proven: Vec::new(), unidentified: None, is_silent: false };
        let pids = match process::pids() {
            Ok(pids) => pids,
            Err(error) => return DaemonEvidence { unidentified: Some(describe_proc_error(&error)), ..evidence },
        };
        for pid in pids {
            match self.daemon_ownership(pid) {
                DaemonOwnership::Here(_) => evidence.proven.extend(self.prove_daemon(pid)),
                DaemonOwnership::Unknown => {
                    let home = self.path().display();
                    let why =
                        format!("a PM2 daemon (pid {pid}) is running; whether it belongs to {home} cannot be read");
                    evidence.unidentified = Some(why);
                }
                DaemonOwnership::Elsewhere => {}
            }
        }
        // A process that a daemon has just forked has the daemon's title and environment until it calls exec.
        let proven = evidence.clone();
        let is_forked = |daemon: &Daemon| is_child_of(daemon.process.pid, &proven);
        evidence.proven.retain(|daemon| !is_forked(daemon));
        evidence.proven.sort_by_key(|Daemon { process, .. }| (process.started, process.pid));
        evidence
    }

    pub fn observe_process(
        &self,
        name: &str,
        known: Option<ProcessIdentity>,
        daemons: &DaemonEvidence,
    ) -> ProcessEvidence {
        let evidence = self.check_known_signs(name, known, daemons);
        if !evidence.living.is_empty() {
            return evidence;
        }
        // A daemon that lost its socket to another still has its processes.
        let daemons = self.observe_all_daemons();
        let mut evidence = self.check_known_signs(name, known, &daemons);
        if evidence.living.is_empty() {
            self.search_all_processes(name, &daemons, &mut evidence);
        }
        evidence
    }

    /// A process of this name without a daemon above it.
    pub(super) fn find_orphan(&self, name: &str) -> Option<Process> {
        let none =
            DaemonEvidence { socket: SocketState::Missing, proven: Vec::new(), unidentified: None, is_silent: false };
        let mut evidence = self.check_known_signs(name, None, &none);
        if evidence.living.is_empty() {
            self.search_all_processes(name, &none, &mut evidence);
        }
        evidence.orphan()
    }

    fn check_known_signs(
        &self,
        name: &str,
        known: Option<ProcessIdentity>,
        daemons: &DaemonEvidence,
    ) -> ProcessEvidence {
        let mut evidence = ProcessEvidence::default();
        for (pid, file) in self.pid_files_of(name) {
            let Some(stat) = process::stat(pid).filter(Stat::is_alive) else { continue };
            let process = Process { pid, started: stat.started };
            if daemons.has_daemon(stat.parent) {
                if self.may_have_name(pid, name) {
                    evidence.living.push((process, Sign::PidFile));
                    evidence.ids.extend(id_in_file_name(&file));
                }
            } else if was_written_at_start_of(&file, process)
                && self.may_have_name(pid, name)
                && self.prove_orphan(process.pid).is_some()
            {
                evidence.living.push((process, Sign::Orphan));
            }
        }
        if let Some(process) = known.filter(|_| evidence.living.is_empty()).and_then(find_again)
            && is_child_of(process.pid, daemons)
            && self.may_have_name(process.pid, name)
        {
            evidence.living.push((process, Sign::Known));
        }
        evidence
    }

    /// Whether a process may have this name. Two names may share a pid file, since PM2 writes `-` for many characters;
    /// a readable environment distinguishes them. That costs a file to read, so it is done only for names with a `-`.
    fn may_have_name(&self, pid: u32, name: &str) -> bool {
        if !to_file_name(name).contains('-') {
            return true;
        }
        let marks = self.read_marks(pid);
        marks.is_empty() || marks.iter().any(|mark| mark.name == name)
    }

    fn search_all_processes(&self, name: &str, daemons: &DaemonEvidence, evidence: &mut ProcessEvidence) {
        let pids = match process::pids() {
            Ok(pids) => pids,
            Err(error) => return evidence.unreadable = Some(describe_proc_error(&error)),
        };
        for process in pids.filter_map(process::identify_living) {
            let is_child = is_child_of(process.pid, daemons);
            let may_be_orphan = daemons.proven.is_empty() && process::is_ours(process.pid);
            let Some(environment) = process::environment(process.pid).filter(|_| is_child || may_be_orphan) else {
                evidence.unidentified_children.extend(is_child.then_some(process.pid));
                continue;
            };
            let marks = self.find_marks(process.pid, &environment);
            let mark = marks.iter().find(|mark| mark.name == name);
            match mark {
                Some(_) if is_child => evidence.living.push((process, Sign::Environment)),
                // A process may have only inherited the marks from the process that started it. It counts as the
                // orphan only if the pid file names it or it listens on a port.
                Some(mark) if self.prove_orphan(process.pid).is_some() => {
                    let names_it = |file: &PathBuf| read_pid(file).is_ok_and(|pid| pid == process.pid);
                    if mark.pid_file.as_ref().is_some_and(names_it) || !ports::listening_ports(process).is_empty() {
                        evidence.living.push((process, Sign::Orphan));
                    }
                }
                None if is_child && lacks_pm2_home(&environment) => evidence.unidentified_children.push(process.pid),
                Some(_) | None => {}
            }
        }
        if evidence.living.is_empty() && daemons.state() == DaemonState::Alive && daemons.proven.is_empty() {
            let why = "PM2 answers, but its processes are not visible: they may belong to another account or container";
            evidence.unreadable = Some(why.into());
        }
    }
}

pub(super) fn identity_of(Process { pid, started }: Process) -> ProcessIdentity {
    ProcessIdentity { pid, started: process::ticks_to_boot_time(started) }
}

fn find_again(before: ProcessIdentity) -> Option<Process> {
    process::identify_living(before.pid).filter(|process| identity_of(*process) == before)
}

fn is_child_of(pid: u32, daemons: &DaemonEvidence) -> bool {
    process::stat(pid).is_some_and(|stat| daemons.has_daemon(stat.parent))
}

fn id_in_file_name(file: &Path) -> Option<u32> {
    file.file_stem()?.to_str()?.rsplit_once('-')?.1.parse().ok()
}

/// Whether a process has overwritten its environment, as setproctitle does. PM2's own helper processes have the
/// daemon's environment, so they do not count.
fn lacks_pm2_home(environment: &Environment) -> bool {
    environment.get("PM2_HOME").is_none()
}

pub(super) fn describe_proc_error(error: &io::Error) -> String {
    format!("cannot read processes in /proc: {}", describe_io_error(error))
}

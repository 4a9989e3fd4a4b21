//! Gathers the evidence: what the socket, the files and `/proc` show of a daemon and of the processes of a name. It
//! must never call `pm2`, and never conclude anything that a pure function could.

use std::io;
use std::path::{Path, PathBuf};

use crate::outcome::{DaemonState, Pm2Evidence, PriorEvidence, ProcessIdentity, describe_io_error};
use crate::process::{self, Environment, Process, Stat};

use super::evidence::{Daemon, DaemonEvidence, DaemonKind, ProcessEvidence, ProcessState, Sign, SocketState};
use super::home::{file_name, read_pid};
use super::identity::{Ownership, daemon, is_about};
use super::{Home, ports};

impl Home {
    /// What a probe concludes of the daemon and of the processes of this name. While all is well this reads a handful
    /// of files: a daemon that was proven before needs no proof.
    pub fn observe(&self, name: &str, known: PriorEvidence) -> Pm2Evidence {
        let daemon = match self.known_daemon(known.daemon) {
            Some(daemon) => self.evidence_of(daemon),
            None => self.daemon_evidence(),
        };
        let process = self.process_evidence(name, known.process, &daemon);
        self.conclude(&daemon, &process)
    }

    /// The daemon that was there before, if it is the one of PM2's file still and takes connections.
    fn known_daemon(&self, before: Option<ProcessIdentity>) -> Option<Daemon> {
        let before = before.filter(|_| self.socket() == SocketState::Accepts)?;
        let pid = read_pid(&self.path().join("pm2.pid")).ok().filter(|pid| *pid == before.pid)?;
        daemon(pid, DaemonKind::Detached).filter(|daemon| seen(daemon.process) == before)
    }

    fn evidence_of(&self, daemon: Daemon) -> DaemonEvidence {
        DaemonEvidence { socket: SocketState::Accepts, proven: vec![daemon], unclear: None, is_silent: false }
    }

    /// The same of evidence at hand.
    pub(super) fn conclude(&self, daemon: &DaemonEvidence, process: &ProcessEvidence) -> Pm2Evidence {
        let (living, hidden) = match process.state() {
            ProcessState::Alive(process) => (Some(process), None),
            ProcessState::Gone => (None, None),
            ProcessState::Unknown(why) => (None, Some(why)),
        };
        let is_orphan = living.is_some() && living == process.orphan();
        let outlived = living.filter(|_| is_orphan).map(|Process { pid, .. }| {
            let pm2 = self.call();
            format!(
                "its process (pid {pid}) outlived the daemon of PM2 that started it, so that PM2 will not start it \
                 again. When it suits you: kill {pid}, then {pm2} resurrect"
            )
        });
        Pm2Evidence {
            daemon: daemon.state(),
            daemon_process: daemon.latest().map(|daemon| seen(daemon.process)),
            trouble: daemon.trouble(&self.path().display().to_string(), &self.call()).or(hidden).or(outlived),
            process: living.map(seen),
            is_orphan,
        }
    }

    /// The signs of the daemon. Where its socket accepts and its own file names it, no other process is looked at.
    pub fn daemon_evidence(&self) -> DaemonEvidence {
        let socket = self.socket();
        if socket == SocketState::Accepts
            && let Some(daemon) = read_pid(&self.path().join("pm2.pid")).ok().and_then(|pid| self.daemon(pid))
        {
            return self.evidence_of(daemon);
        }
        self.search(socket)
    }

    /// The same with all daemons there are, for whoever is to end them: one that lost its socket to another shows too.
    pub fn all_daemons(&self) -> DaemonEvidence {
        self.search(self.socket())
    }

    fn search(&self, socket: SocketState) -> DaemonEvidence {
        let mut evidence = DaemonEvidence { socket, proven: Vec::new(), unclear: None, is_silent: false };
        let pids = match process::pids() {
            Ok(pids) => pids,
            Err(error) => return DaemonEvidence { unclear: Some(unseen(&error)), ..evidence },
        };
        for pid in pids {
            match self.whose(pid) {
                Ownership::Here(_) => evidence.proven.extend(self.daemon(pid)),
                Ownership::Unclear => {
                    let home = self.path().display();
                    let why =
                        format!("a PM2 daemon (pid {pid}) runs, and whether it is the one of {home} cannot be read");
                    evidence.unclear = Some(why);
                }
                Ownership::Elsewhere => {}
            }
        }
        // What a daemon has just forked looks like the daemon until it has become what it is to run.
        let proven = evidence.clone();
        let is_forked = |daemon: &Daemon| is_child(daemon.process.pid, &proven);
        evidence.proven.retain(|daemon| !is_forked(daemon));
        evidence.proven.sort_by_key(|Daemon { process, .. }| (process.started, process.pid));
        evidence
    }

    pub fn process_evidence(
        &self,
        name: &str,
        known: Option<ProcessIdentity>,
        daemons: &DaemonEvidence,
    ) -> ProcessEvidence {
        let evidence = self.known_evidence(name, known, daemons);
        if !evidence.living.is_empty() {
            return evidence;
        }
        // A daemon that lost its socket to another keeps its processes.
        let daemons = self.all_daemons();
        let mut evidence = self.known_evidence(name, known, &daemons);
        if evidence.living.is_empty() {
            self.look_everywhere(name, &daemons, &mut evidence);
        }
        evidence
    }

    /// The process of this name that has no daemon above it and goes on with its work.
    pub(super) fn orphan_of(&self, name: &str) -> Option<Process> {
        let none = DaemonEvidence { socket: SocketState::Missing, proven: Vec::new(), unclear: None, is_silent: false };
        let mut evidence = self.known_evidence(name, None, &none);
        if evidence.living.is_empty() {
            self.look_everywhere(name, &none, &mut evidence);
        }
        evidence.orphan()
    }

    fn known_evidence(&self, name: &str, known: Option<ProcessIdentity>, daemons: &DaemonEvidence) -> ProcessEvidence {
        let mut evidence = ProcessEvidence::default();
        for (pid, file) in self.noted(name) {
            let Some(stat) = process::stat(pid).filter(Stat::is_alive) else { continue };
            let process = Process { pid, started: stat.started };
            if daemons.has(stat.parent) {
                if self.may_be(pid, name) {
                    evidence.living.push((process, Sign::PidFile));
                    evidence.ids.extend(id_of(&file));
                }
            } else if is_about(&file, process) && self.may_be(pid, name) && self.orphan(process.pid).is_some() {
                evidence.living.push((process, Sign::Orphan));
            }
        }
        if let Some(process) = known.filter(|_| evidence.living.is_empty()).and_then(the_same)
            && is_child(process.pid, daemons)
            && self.may_be(process.pid, name)
        {
            evidence.living.push((process, Sign::Known));
        }
        evidence
    }

    /// Whether a process may have this name: two names may share a pid file (`-` stands there for much else), and an
    /// environment that can be read tells them apart. It costs a file to read, so it is asked only where the file's
    /// name leaves it open.
    fn may_be(&self, pid: u32, name: &str) -> bool {
        if !file_name(name).contains('-') {
            return true;
        }
        let marks = self.marks(pid);
        marks.is_empty() || marks.iter().any(|mark| mark.name == name)
    }

    fn look_everywhere(&self, name: &str, daemons: &DaemonEvidence, evidence: &mut ProcessEvidence) {
        let pids = match process::pids() {
            Ok(pids) => pids,
            Err(error) => return evidence.hidden = Some(unseen(&error)),
        };
        for process in pids.filter_map(process::living) {
            let is_child = is_child(process.pid, daemons);
            let may_be_orphan = daemons.proven.is_empty() && process::is_ours(process.pid);
            let Some(environment) = process::environment(process.pid).filter(|_| is_child || may_be_orphan) else {
                evidence.nameless.extend(is_child.then_some(process.pid));
                continue;
            };
            let marks = self.marks_in(process.pid, &environment);
            let named = marks.iter().find(|mark| mark.name == name);
            match named {
                Some(_) if is_child => evidence.living.push((process, Sign::Environment)),
                // Whoever has the marks of a process only because that started it is no sign of it, unless it does
                // its work: it is named by the pid file itself, or holds a port.
                Some(mark) if self.orphan(process.pid).is_some() => {
                    let names_it = |file: &PathBuf| read_pid(file).is_ok_and(|pid| pid == process.pid);
                    if mark.pid_file.as_ref().is_some_and(names_it) || !ports::listeners(process).is_empty() {
                        evidence.living.push((process, Sign::Orphan));
                    }
                }
                None if is_child && says_nothing(&environment) => evidence.nameless.push(process.pid),
                Some(_) | None => {}
            }
        }
        if evidence.living.is_empty() && daemons.state() == DaemonState::Alive && daemons.proven.is_empty() {
            let why = "PM2 answers, but its processes cannot be seen, as those of another account or container";
            evidence.hidden = Some(why.into());
        }
    }
}

pub(super) fn seen(Process { pid, started }: Process) -> ProcessIdentity {
    ProcessIdentity { pid, started: process::since_boot(started) }
}

fn the_same(before: ProcessIdentity) -> Option<Process> {
    process::living(before.pid).filter(|process| seen(*process) == before)
}

fn is_child(pid: u32, daemons: &DaemonEvidence) -> bool {
    process::stat(pid).is_some_and(|stat| daemons.has(stat.parent))
}

fn id_of(file: &Path) -> Option<u32> {
    file.file_stem()?.to_str()?.rsplit_once('-')?.1.parse().ok()
}

/// One that a process has written over, as setproctitle does; one of PM2's own helpers has all that its daemon has.
fn says_nothing(environment: &Environment) -> bool {
    environment.get("PM2_HOME").is_none()
}

fn unseen(error: &io::Error) -> String {
    format!("processes cannot be seen: {}", describe_io_error(error))
}

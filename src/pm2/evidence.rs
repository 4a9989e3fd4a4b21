//! What was observed of PM2's daemon and of a process, and the conclusions from it. Evidence keeps every sign,
//! including what could not be read; a conclusion must never take the absence of one sign for the absence of the daemon
//! or process.

use crate::outcome::DaemonState;
use crate::process::Process;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// A process listens. The kernel accepts connections for a frozen daemon too.
    Accepts,
    /// The socket exists and no process listens.
    Refuses,
    Missing,
    Unreadable(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonKind {
    /// Started by a pm2 command, in a session of its own.
    Detached,
    /// Started in the foreground (pm2-runtime, --no-daemon): no pm2 command would start it again.
    Foreground,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Daemon {
    pub process: Process,
    pub kind: DaemonKind,
    pub is_stopped: bool,
    /// It started so recently that its socket may not exist yet.
    pub is_starting: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonEvidence {
    pub socket: SocketState,
    /// The proven daemon processes, oldest first; more than one is a fault.
    pub proven: Vec<Daemon>,
    /// Why an unproven process may be a daemon of this home, or why processes cannot be read.
    pub unidentified: Option<String>,
    /// It did not answer a request for its list within 10 s.
    pub is_silent: bool,
}

impl DaemonEvidence {
    pub fn state(&self) -> DaemonState {
        let is_proven = !self.proven.is_empty();
        match &self.socket {
            SocketState::Unreadable(_) => DaemonState::Unknown,
            SocketState::Accepts if self.is_silent || self.has_only(|daemon| daemon.is_stopped) => DaemonState::Deaf,
            SocketState::Accepts => DaemonState::Alive,
            SocketState::Refuses | SocketState::Missing if self.has_only(|daemon| daemon.is_starting) => {
                DaemonState::Unknown
            }
            SocketState::Refuses | SocketState::Missing if is_proven => DaemonState::Deaf,
            SocketState::Refuses | SocketState::Missing if self.unidentified.is_some() => DaemonState::Unknown,
            SocketState::Refuses | SocketState::Missing => DaemonState::Dead,
        }
    }

    /// Whether the daemon is running, and pm2 commands fail to reach it only because its socket is missing or refuses.
    pub fn lacks_socket(&self) -> bool {
        let has_none = matches!(self.socket, SocketState::Refuses | SocketState::Missing);
        has_none && self.state() == DaemonState::Deaf && !self.has_only(|daemon| daemon.is_stopped)
    }

    /// Keeps `is_silent` from an earlier observation, if the daemon is still the same process.
    pub fn inherit_silence(self, before: &DaemonEvidence) -> DaemonEvidence {
        let process = |evidence: &DaemonEvidence| evidence.latest().map(|daemon| daemon.process);
        DaemonEvidence { is_silent: before.is_silent && process(&self) == process(before), ..self }
    }

    /// The daemon that answers on the socket: the youngest one, which took it from the others.
    pub fn latest(&self) -> Option<&Daemon> {
        self.proven.last()
    }

    pub fn has_daemon(&self, pid: u32) -> bool {
        self.proven.iter().any(|daemon| daemon.process.pid == pid)
    }

    fn has_only(&self, is_so: impl Fn(&Daemon) -> bool) -> bool {
        !self.proven.is_empty() && self.proven.iter().all(is_so)
    }

    /// What is wrong with the daemon and the command that fixes it. `home` is the folder to show, `pm2` the command to
    /// type for that home.
    pub fn trouble(&self, home: &str, pm2: &str) -> Option<String> {
        let pid = self.latest().map_or(0, |daemon| daemon.process.pid);
        let (daemon, kill) = match pid {
            0 => ("PM2's daemon".to_owned(), "kill -9 the daemon's process".to_owned()),
            pid => (format!("PM2's daemon (pid {pid})"), format!("kill -9 {pid}")),
        };
        let is_foreground = self.proven.iter().any(|daemon| daemon.kind == DaemonKind::Foreground);
        let start = match is_foreground {
            true => "start it the way it was started before".to_owned(),
            false => format!("{pm2} resurrect"),
        };
        match (self.state(), &self.socket) {
            (DaemonState::Alive | DaemonState::Dead, _) => None,
            (DaemonState::Unknown, SocketState::Unreadable(why)) => Some(why.clone()),
            (DaemonState::Unknown, _) if self.proven.is_empty() => self.unidentified.clone(),
            // It has just started and needs no fix.
            (DaemonState::Unknown, _) => None,
            (DaemonState::Deaf, _) if self.has_only(|daemon| daemon.is_stopped) => {
                Some(format!("PM2's daemon (pid {pid}) is stopped by a signal. Fix: kill -CONT {pid}"))
            }
            (DaemonState::Deaf, SocketState::Accepts | SocketState::Unreadable(_)) => {
                Some(format!("{daemon} accepts connections but has not answered for 10 s. Fix: {kill}, then {start}"))
            }
            (DaemonState::Deaf, SocketState::Refuses | SocketState::Missing) => {
                let socket = if self.socket == SocketState::Missing { "is missing" } else { "refuses connections" };
                Some(format!(
                    "PM2's daemon (pid {pid}) is running, but its socket {home}/rpc.sock {socket}: pm2 commands do not \
                     reach it, and each would start a second daemon. Fix: kill {pid}, wait until it has exited, then \
                     {start}"
                ))
            }
        }
    }
}

/// A sign that a process is the one to look for, and alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// PM2's pid file, and its parent is a daemon.
    PidFile,
    /// Its environment, and its parent is a daemon.
    Environment,
    /// It was identified before, and its parent is still a daemon.
    Known,
    List,
    /// A process of PM2 whose daemon has ended.
    Orphan,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessEvidence {
    /// The processes that are alive, each with the sign that identified it.
    pub living: Vec<(Process, Sign)>,
    /// Their PM2 ids, as far as the pid files show them.
    pub ids: Vec<u32>,
    /// Children of a daemon that no sign identifies: any of them may be the process.
    pub unidentified_children: Vec<u32>,
    /// Why processes of PM2 may be alive although none could be read.
    pub unreadable: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// The youngest of the living processes.
    Alive(Process),
    Gone,
    Unknown(String),
}

impl ProcessEvidence {
    pub fn state(&self) -> ProcessState {
        let youngest = self.living.iter().map(|(process, _)| *process).max_by_key(|one| (one.started, one.pid));
        match (youngest, &self.unreadable) {
            (Some(process), _) => ProcessState::Alive(process),
            (None, Some(why)) => ProcessState::Unknown(why.clone()),
            (None, None) => ProcessState::Gone,
        }
    }

    pub fn orphan(&self) -> Option<Process> {
        self.living.iter().find(|(_, sign)| *sign == Sign::Orphan).map(|(process, _)| *process)
    }
}

//! What was seen of PM2 and of a process, and what follows from it. Evidence keeps each sign as it was seen, what could
//! not be read among them; the conclusions are pure. They must never take the absence of one sign for the absence of
//! the thing.

use crate::outcome::DaemonState;
use crate::process::Process;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// Somebody listens. The kernel accepts for a frozen daemon, too.
    Accepts,
    /// It is there, and nobody listens.
    Refuses,
    Missing,
    Unreadable(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonKind {
    /// Started by a pm2 command, and left running in a session of its own.
    Detached,
    /// In the foreground of whoever started it (pm2-runtime, --no-daemon): nothing of PM2's would bring it back.
    Foreground,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Daemon {
    pub process: Process,
    pub kind: DaemonKind,
    pub is_stopped: bool,
    /// It began so lately that its socket may be still to come.
    pub is_starting: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonEvidence {
    pub socket: SocketState,
    /// Its processes, oldest first; more than one is a fault.
    pub proven: Vec<Daemon>,
    /// Why some living process may be a daemon of this home all the same, or cannot be seen.
    pub unclear: Option<String>,
    /// It was asked for its list and gave no answer in 10 s.
    pub is_silent: bool,
}

impl DaemonEvidence {
    pub fn state(&self) -> DaemonState {
        let is_proven = !self.proven.is_empty();
        match &self.socket {
            SocketState::Unreadable(_) => DaemonState::Unknown,
            SocketState::Accepts if self.is_silent || self.all(|daemon| daemon.is_stopped) => DaemonState::Deaf,
            SocketState::Accepts => DaemonState::Alive,
            SocketState::Refuses | SocketState::Missing if self.all(|daemon| daemon.is_starting) => {
                DaemonState::Unknown
            }
            SocketState::Refuses | SocketState::Missing if is_proven => DaemonState::Deaf,
            SocketState::Refuses | SocketState::Missing if self.unclear.is_some() => DaemonState::Unknown,
            SocketState::Refuses | SocketState::Missing => DaemonState::Dead,
        }
    }

    /// Whether no pm2 command reaches the daemon only for want of its socket: it does its work all the same.
    pub fn lacks_socket(&self) -> bool {
        let has_none = matches!(self.socket, SocketState::Refuses | SocketState::Missing);
        has_none && self.state() == DaemonState::Deaf && !self.all(|daemon| daemon.is_stopped)
    }

    /// The same with the silence that was found before, where the daemon that was silent is the one that works still.
    pub fn silent_since(self, before: &DaemonEvidence) -> DaemonEvidence {
        let process = |evidence: &DaemonEvidence| evidence.latest().map(|daemon| daemon.process);
        DaemonEvidence { is_silent: before.is_silent && process(&self) == process(before), ..self }
    }

    /// The daemon that works, where one is proven: the youngest took the socket from the others.
    pub fn latest(&self) -> Option<&Daemon> {
        self.proven.last()
    }

    pub fn has(&self, pid: u32) -> bool {
        self.proven.iter().any(|daemon| daemon.process.pid == pid)
    }

    fn all(&self, is_so: impl Fn(&Daemon) -> bool) -> bool {
        !self.proven.is_empty() && self.proven.iter().all(is_so)
    }

    /// What is wrong with the daemon and which command mends it. `home` as people write it, and `pm2` as they call it
    /// there.
    pub fn trouble(&self, home: &str, pm2: &str) -> Option<String> {
        let pid = self.latest().map_or(0, |daemon| daemon.process.pid);
        let (daemon, killed) = match pid {
            0 => ("PM2's daemon".to_owned(), "kill -9 its process".to_owned()),
            pid => (format!("PM2's daemon (pid {pid})"), format!("kill -9 {pid}")),
        };
        let is_foreground = self.proven.iter().any(|daemon| daemon.kind == DaemonKind::Foreground);
        let again = match is_foreground {
            true => "start it again the way it was started".to_owned(),
            false => format!("{pm2} resurrect"),
        };
        match (self.state(), &self.socket) {
            (DaemonState::Alive | DaemonState::Dead, _) => None,
            (DaemonState::Unknown, SocketState::Unreadable(why)) => Some(why.clone()),
            (DaemonState::Unknown, _) if self.proven.is_empty() => self.unclear.clone(),
            // It is only just starting, which will be over in a moment.
            (DaemonState::Unknown, _) => None,
            (DaemonState::Deaf, _) if self.all(|daemon| daemon.is_stopped) => {
                Some(format!("PM2's daemon (pid {pid}) is stopped by a signal. To mend it: kill -CONT {pid}"))
            }
            (DaemonState::Deaf, SocketState::Accepts | SocketState::Unreadable(_)) => Some(format!(
                "{daemon} takes connections, but gave no answer in 10 s. To mend it: {killed}, then {again}"
            )),
            (DaemonState::Deaf, SocketState::Refuses | SocketState::Missing) => {
                let socket = if self.socket == SocketState::Missing { "is missing" } else { "takes no connections" };
                Some(format!(
                    "PM2's daemon (pid {pid}) runs, but its socket {home}/rpc.sock {socket}: no pm2 command reaches \
                     it, and each would start a second daemon. To mend it: kill {pid}, wait until it is gone, then \
                     {again}"
                ))
            }
        }
    }
}

/// What shows that a process is the one that is meant, and lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// PM2's file with its number, and its parent is a daemon.
    PidFile,
    /// Its environment, and its parent is a daemon.
    Environment,
    /// It was known before to be the one, and its parent is a daemon still.
    Known,
    /// PM2's list.
    List,
    /// It was the one, and outlived its daemon.
    Orphan,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessEvidence {
    /// Those that live, and what shows each.
    pub living: Vec<(Process, Sign)>,
    /// Their numbers in PM2, as far as its pid files tell them.
    pub ids: Vec<u32>,
    /// Children of a daemon that nothing names: each may be the one that is meant.
    pub nameless: Vec<u32>,
    /// Why processes of PM2's may live and cannot be seen.
    pub hidden: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// This one does, the youngest of them.
    Alive(Process),
    Gone,
    Unknown(String),
}

impl ProcessEvidence {
    pub fn state(&self) -> ProcessState {
        let youngest = self.living.iter().map(|(process, _)| *process).max_by_key(|one| (one.started, one.pid));
        match (youngest, &self.hidden) {
            (Some(process), _) => ProcessState::Alive(process),
            (None, Some(why)) => ProcessState::Unknown(why.clone()),
            (None, None) => ProcessState::Gone,
        }
    }

    pub fn orphan(&self) -> Option<Process> {
        self.living.iter().find(|(_, sign)| *sign == Sign::Orphan).map(|(process, _)| *process)
    }
}

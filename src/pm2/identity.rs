//! Who is who: PM2's daemons, its processes, and those of them that have no daemon any more. It must never take the
//! word of a file for a process: what proves it is its account, its title and its environment.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::process::{self, Environment, Process};

use super::app::entry;
use super::{Home, ports};

/// What shows a process to be one of PM2's, or started by one.
#[derive(Debug)]
pub(super) struct Mark {
    /// Its name in PM2.
    pub(super) name: String,
    /// Its number in PM2.
    pub(super) id: u32,
    /// The files of its output and its errors.
    pub(super) logs: Vec<PathBuf>,
}

impl Home {
    /// The daemons of this home, oldest first; more than one is a fault. Proven by three things: our account, the
    /// title, and this home in the environment, which every process that PM2 starts has too.
    ///
    /// # Errors
    /// What the system says to reading `/proc`.
    pub fn daemons(&self) -> io::Result<Vec<Process>> {
        let mut daemons: Vec<Process> = process::own_pids()?.filter_map(|pid| self.daemon(pid)).collect();
        daemons.sort_by_key(|process| (process.started, process.pid));
        Ok(daemons)
    }

    /// The daemon of this home that has this number.
    pub(super) fn daemon(&self, pid: u32) -> Option<Process> {
        let process = process::living(pid)?;
        (process::is_ours(pid) && is_titled(pid) && self.is_of(&process::environment(pid)?)).then_some(process)
    }

    /// The processes that listen on this port, were PM2's, and have no living daemon above them. Never a daemon, and
    /// neither ourselves nor those who started us.
    ///
    /// # Errors
    /// What the system says to reading `/proc`.
    pub fn orphans_on(&self, port: u16) -> io::Result<Vec<Process>> {
        let holders = ports::holders(port, process::own_pids()?);
        Ok(holders.into_iter().filter_map(|pid| self.orphan(pid)).collect())
    }

    /// The orphan of this home that has this number. A daemon of whatever home above it protects it.
    pub(super) fn orphan(&self, pid: u32) -> Option<Process> {
        let process = process::living(pid)?;
        let is_ours = process::is_ours(pid) && !self.marks(pid).is_empty();
        let is_kept = || process::ancestors(pid).any(|above| process::is_ours(above) && is_titled(above));
        (is_ours && !is_us(pid) && !is_kept()).then_some(process)
    }

    /// What shows the process to be PM2's and of this home; nothing where it is not, or is a daemon: one that was
    /// started by way of a process of PM2's has the marks of that.
    pub(super) fn marks(&self, pid: u32) -> Vec<Mark> {
        let Some(environment) = process::environment(pid) else { return Vec::new() };
        if !self.is_of(&environment) || is_titled(pid) {
            return Vec::new();
        }
        plain_mark(&environment).into_iter().chain(cluster_mark(&environment)).collect()
    }

    fn is_of(&self, environment: &Environment) -> bool {
        environment.get("PM2_HOME").is_some_and(|home| self.is_at(Path::new(home)))
    }

    fn is_at(&self, path: &Path) -> bool {
        let is_same = || Some(fs::canonicalize(path).ok()? == fs::canonicalize(self.path()).ok()?);
        path == self.path() || path.is_absolute() && is_same().unwrap_or(false)
    }
}

/// PM2 gives to a process in fork mode all that it knows of it, one variable each.
fn plain_mark(environment: &Environment) -> Option<Mark> {
    let text = |name| environment.get(name).and_then(OsStr::to_str);
    let id = text("pm_id")?.parse().ok()?;
    let logs = ["pm_out_log_path", "pm_err_log_path"].into_iter().filter_map(|name| environment.get(name));
    Some(Mark { name: text("name")?.to_owned(), id, logs: logs.map(PathBuf::from).collect() })
}

/// And to one in cluster mode all in one.
fn cluster_mark(environment: &Environment) -> Option<Mark> {
    let app = entry(environment.get("pm2_env")?.to_str()?)?;
    Some(Mark { name: app.name, id: app.id?, logs: app.out_log.into_iter().chain(app.err_log).collect() })
}

/// The title is cut to the length that the command line had; this much is always left.
fn is_titled(pid: u32) -> bool {
    process::title(pid).is_some_and(|title| title.starts_with("PM2 v") && title.contains("God Daemon ("))
}

/// Whether it is this process or one that started it: under PM2 we are a process of PM2's ourselves.
pub(super) fn is_us(pid: u32) -> bool {
    let own = std::process::id();
    pid == own || process::ancestors(own).any(|above| above == pid)
}

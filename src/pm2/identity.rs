//! Who is who: PM2's daemons, its processes, and those of them that have no daemon any more. It must never take the
//! word of a file for a process, nor what cannot be read for a proof.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::clock;
use crate::process::{self, Environment, Process, Stat};
use crate::time::WallTime;

use super::app::entry;
use super::evidence::{Daemon, DaemonKind};
use super::home::read_pid;
use super::{Home, ports};

/// A daemon listens on its socket a quarter of a second after its start, on a machine with a tenth of a core 3 s after.
const STARTING: Duration = Duration::from_secs(10);
/// PM2 writes a process's number into its file right after its start; by more than this no file is about a process.
const NOTED_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct ProcessMark {
    pub(super) name: String,
    /// The files of its output and its errors.
    pub(super) logs: Vec<PathBuf>,
    /// The file with its number; a child that it left behind has the same.
    pub(super) pid_file: Option<PathBuf>,
    /// Whether PM2 may not start it again once it was ended.
    pub(super) may_stay_ended: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    Here(DaemonKind),
    /// It belongs elsewhere, or is none.
    Elsewhere,
    /// It is one, and where it belongs cannot be read.
    Unclear,
}

impl Home {
    pub(super) fn daemon(&self, pid: u32) -> Option<Daemon> {
        match self.whose(pid) {
            Ownership::Here(kind) => daemon(pid, kind),
            Ownership::Elsewhere | Ownership::Unclear => None,
        }
    }

    /// Whose daemon a process of our account is. Proven by its title, and by the home in its environment; where that
    /// cannot be read (capabilities), by the home in its title, or by the file with the daemon's number where that is
    /// cut short: a title is no longer than the command line was.
    pub(super) fn whose(&self, pid: u32) -> Ownership {
        let Some(title) = process::title(pid).filter(|_| process::is_ours(pid)) else { return Ownership::Elsewhere };
        let is_noted = || read_pid(&self.path().join("pm2.pid")).is_ok_and(|noted| noted == pid);
        let environment = || process::environment(pid);
        let kind = match kind(&title) {
            Some(kind) => kind,
            None if is_noted() && environment().is_some_and(|found| is_called(&title, &found)) => DaemonKind::Detached,
            None => return Ownership::Elsewhere,
        };
        let named = environment().and_then(|environment| home_of(&environment, kind));
        let here = |is_here: bool| if is_here { Ownership::Here(kind) } else { Ownership::Elsewhere };
        let titled = title.split_once("God Daemon (").map(|(_, home)| match home.rsplit_once(')') {
            Some((home, rest)) => (home, Some(rest)),
            None => (home, None),
        });
        match (named, titled) {
            (Some(home), _) => here(self.is_at(&home)),
            (None, Some((home, Some(_)))) => here(self.is_at(Path::new(home))),
            (None, Some((home, None))) if !self.path().to_string_lossy().starts_with(home) => Ownership::Elsewhere,
            (None, _) if is_noted() => Ownership::Here(kind),
            (None, _) => Ownership::Unclear,
        }
    }

    /// The processes that listen on this port, were PM2's, and have no living daemon above them. Never a daemon, and
    /// neither ourselves nor those who started us.
    pub fn orphans_on(&self, port: u16) -> io::Result<Vec<Process>> {
        let holders = ports::holders(port, process::own_pids()?);
        Ok(holders.into_iter().filter_map(|pid| self.orphan(pid)).collect())
    }

    /// The orphan of this home that has this number: by its environment, or by PM2's file with its number, written
    /// when it began. A daemon of whatever home above it protects it.
    pub(super) fn orphan(&self, pid: u32) -> Option<Process> {
        let process = process::living(pid)?;
        let is_pm2s = || !self.marks(pid).is_empty() || self.is_noted(process);
        let is_daemon = |pid: u32| process::title(pid).is_some_and(|title| kind(&title).is_some());
        let is_kept = || process::ancestors(pid).any(|above| process::is_ours(above) && is_daemon(above));
        let may_be = process::is_ours(pid) && !is_us(pid) && !is_daemon(pid);
        (may_be && is_pm2s() && !is_kept()).then_some(process)
    }

    pub(super) fn is_noted(&self, process: Process) -> bool {
        self.all_noted().iter().any(|(pid, file)| *pid == process.pid && is_about(file, process))
    }

    /// What shows the process to be PM2's and of this home; nothing where it is not, or is a daemon: one that was
    /// started by way of a process of PM2's has the marks of that.
    pub(super) fn marks(&self, pid: u32) -> Vec<ProcessMark> {
        process::environment(pid).map(|environment| self.marks_in(pid, &environment)).unwrap_or_default()
    }

    pub(super) fn marks_in(&self, pid: u32, environment: &Environment) -> Vec<ProcessMark> {
        let is_here = environment.get("PM2_HOME").is_some_and(|home| self.is_at(Path::new(home)));
        if !is_here || process::title(pid).is_some_and(|title| kind(&title).is_some()) {
            return Vec::new();
        }
        plain_mark(environment).into_iter().chain(cluster_mark(environment)).collect()
    }
}

/// Whether the file was written when the process began: its number may have been another's before.
pub(super) fn is_about(file: &Path, process: Process) -> bool {
    let Ok(written) = fs::metadata(file).and_then(|found| found.modified()) else { return false };
    let written = written.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let age = clock::wall().since(WallTime::from_ms(i64::try_from(written).unwrap_or(i64::MAX)));
    let up = clock::now().since(process::since_boot(process.started));
    up.abs_diff(age) <= NOTED_WITHIN
}

pub(super) fn daemon(pid: u32, kind: DaemonKind) -> Option<Daemon> {
    let stat = process::stat(pid).filter(Stat::is_alive)?;
    let process = Process { pid, started: stat.started };
    let is_stopped = matches!(stat.state, b'T' | b't');
    let is_starting = clock::now().since(process::since_boot(process.started)) < STARTING;
    Some(Daemon { process, kind, is_stopped, is_starting })
}

/// What a title shows a process to be: PM2 gives itself one when it goes into the background, and keeps its command
/// line otherwise. How a daemon calls itself is cut to the length that its command line had; this much is always left.
pub(super) fn kind(title: &str) -> Option<DaemonKind> {
    if title.starts_with("PM2 v") && title.contains("God Daemon (") {
        return Some(DaemonKind::Detached);
    }
    let words = || title.split(' ').map(|word| word.rsplit('/').next().unwrap_or(word));
    let runs = |names: &[&str]| words().take(4).any(|word| names.contains(&word));
    let is_in_foreground = runs(&["pm2-runtime", "pm2-docker", "pm2-dev"])
        || runs(&["pm2"]) && words().any(|word| word == "--no-daemon") && words().any(|word| word == "start");
    is_in_foreground.then_some(DaemonKind::Foreground)
}

/// Whether its title is the one that its environment wants PM2's daemon to have.
fn is_called(title: &str, environment: &Environment) -> bool {
    let wanted = environment.get("PM2_DAEMON_TITLE").and_then(OsStr::to_str);
    !title.is_empty() && wanted.is_some_and(|wanted| wanted.starts_with(title))
}

/// The home that a daemon's environment names. One in the foreground may have none there, and then has the usual.
fn home_of(environment: &Environment, kind: DaemonKind) -> Option<PathBuf> {
    let named = environment.get("PM2_HOME").map(PathBuf::from);
    let usual = || Some(Path::new(environment.get("HOME")?).join(".pm2"));
    named.or_else(|| if kind == DaemonKind::Foreground { usual() } else { None })
}

/// PM2 gives to a process in fork mode all that it knows of it, one variable each.
fn plain_mark(environment: &Environment) -> Option<ProcessMark> {
    let text = |name| environment.get(name).and_then(OsStr::to_str);
    text("pm_id")?.parse::<u32>().ok()?;
    let path = |name| environment.get(name).map(PathBuf::from);
    let logs = ["pm_out_log_path", "pm_err_log_path"].into_iter().filter_map(path).collect();
    // What it has of `stop_exit_codes` only PM2 knows.
    let may_stay_ended = text("autorestart") == Some("false");
    Some(ProcessMark { name: text("name")?.to_owned(), logs, pid_file: path("pm_pid_path"), may_stay_ended })
}

/// And to one in cluster mode all in one.
fn cluster_mark(environment: &Environment) -> Option<ProcessMark> {
    let app = entry(environment.get("pm2_env")?.to_str()?).filter(|app| app.id.is_some())?;
    let may_stay_ended = app.may_stay_ended();
    let logs = app.out_log.into_iter().chain(app.err_log).collect();
    Some(ProcessMark { name: app.name, logs, pid_file: app.pid_file, may_stay_ended })
}

/// Whether it is this process or one that started it: under PM2 we are a process of PM2's ourselves.
pub(super) fn is_us(pid: u32) -> bool {
    let own = std::process::id();
    pid == own || process::ancestors(own).any(|above| above == pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_shows_a_daemon_and_its_kind() {
        let check = |title: &str, expected: Option<DaemonKind>| assert_eq!(kind(title), expected, "{title}");
        check("PM2 v7.0.4: God Daemon (/home/user/.pm2)", Some(DaemonKind::Detached));
        check("PM2 v5.4.3: God Daemon (/home/us", Some(DaemonKind::Detached));
        check("node /usr/local/bin/pm2-runtime start ecosystem.config.js", Some(DaemonKind::Foreground));
        check("/usr/bin/node /x/node_modules/.bin/pm2-docker app.js", Some(DaemonKind::Foreground));
        check("node /x/bin/pm2 start --no-daemon app.js", Some(DaemonKind::Foreground));
        check("node /x/bin/pm2 logs --no-daemon", None);
        check("node /x/bin/pm2 resurrect", None);
        check("node /srv/app/server.js pm2-runtime-notes", None);
        check("grep God Daemon (", None);
        check("", None);
    }
}

//! Identifies PM2's daemons, its processes, and its orphans: processes without a living daemon above them. It must
//! never trust a pid file alone, and never treat what cannot be read as proof.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::clock;
use crate::process::{self, Environment, Process, Stat};
use crate::time::WallTime;

use super::app::parse_app;
use super::evidence::{Daemon, DaemonKind};
use super::home::read_pid;
use super::{Home, ports};

/// A daemon listens on its socket 0.25 s after its start, and 3 s after it with a tenth of a core.
const STARTUP_TIME: Duration = Duration::from_secs(10);
/// PM2 writes a pid file right after the process starts. A file written further from that start than this belongs to an
/// earlier process with the same pid.
const MAX_PID_FILE_DELAY: Duration = Duration::from_secs(10);

/// What PM2's variables in a process's environment say about the process.
#[derive(Debug)]
pub(super) struct ProcessMark {
    pub(super) name: String,
    /// The log files for its standard output and standard error.
    pub(super) logs: Vec<PathBuf>,
    /// Its pid file. A child that it left behind inherits this value.
    pub(super) pid_file: Option<PathBuf>,
    /// Whether PM2 may leave it stopped after it ends.
    pub(super) may_stay_stopped: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum DaemonOwnership {
    Here(DaemonKind),
    /// It is a daemon of another home, or not a daemon.
    Elsewhere,
    /// It is a daemon whose home cannot be read.
    Unknown,
}

impl Home {
    pub(super) fn prove_daemon(&self, pid: u32) -> Option<Daemon> {
        match self.daemon_ownership(pid) {
            DaemonOwnership::Here(kind) => read_daemon(pid, kind),
            DaemonOwnership::Elsewhere | DaemonOwnership::Unknown => None,
        }
    }

    /// Whether a process of the watchdog's account is a daemon, and of this home. Its title proves the first, the home
    /// in its environment the second. If the environment cannot be read (capabilities), the home in the title counts,
    /// and if that is cut short, PM2's `pm2.pid`: a title is never longer than the original command line.
    pub(super) fn daemon_ownership(&self, pid: u32) -> DaemonOwnership {
        let Some(title) = process::command_line(pid).filter(|_| process::is_ours(pid)) else {
            return DaemonOwnership::Elsewhere;
        };
        let is_in_pid_file = || read_pid(&self.path().join("pm2.pid")).is_ok_and(|recorded| recorded == pid);
        let environment = || process::environment(pid);
        let kind = match daemon_kind(&title) {
            Some(kind) => kind,
            None if is_in_pid_file() && environment().is_some_and(|found| has_daemon_title(&title, &found)) => {
                DaemonKind::Detached
            }
            None => return DaemonOwnership::Elsewhere,
        };
        let named = environment().and_then(|environment| find_home(&environment, kind));
        let ownership = |is_here: bool| if is_here { DaemonOwnership::Here(kind) } else { DaemonOwnership::Elsewhere };
        let titled = title.split_once("God Daemon (").map(|(_, home)| match home.rsplit_once(')') {
            Some((home, rest)) => (home, Some(rest)),
            None => (home, None),
        });
        match (named, titled) {
            (Some(home), _) => ownership(self.is_at(&home)),
            (None, Some((home, Some(_)))) => ownership(self.is_at(Path::new(home))),
            (None, Some((home, None))) if !self.path().to_string_lossy().starts_with(home) => {
                DaemonOwnership::Elsewhere
            }
            (None, _) if is_in_pid_file() => DaemonOwnership::Here(kind),
            (None, _) => DaemonOwnership::Unknown,
        }
    }

    /// The orphans that listen on this port: processes of PM2 without a living daemon above them. Never a daemon, and
    /// never the watchdog or one of its ancestors.
    pub fn find_orphans(&self, port: u16) -> io::Result<Vec<Process>> {
        let holders = ports::find_listeners(port, process::own_pids()?);
        Ok(holders.into_iter().filter_map(|pid| self.prove_orphan(pid)).collect())
    }

    /// The orphan of this home with this pid, proven by its environment or by a pid file that PM2 wrote when it
    /// started. A daemon of any home above it means that it is not an orphan.
    pub(super) fn prove_orphan(&self, pid: u32) -> Option<Process> {
        let process = process::identify_living(pid)?;
        let is_from_pm2 = || !self.read_marks(pid).is_empty() || self.has_pid_file(process);
        let is_daemon = |pid: u32| process::command_line(pid).is_some_and(|title| daemon_kind(&title).is_some());
        let has_daemon_above = || process::ancestors(pid).any(|above| process::is_ours(above) && is_daemon(above));
        let may_be_orphan = process::is_ours(pid) && !is_self_or_ancestor(pid) && !is_daemon(pid);
        (may_be_orphan && is_from_pm2() && !has_daemon_above()).then_some(process)
    }

    pub(super) fn has_pid_file(&self, process: Process) -> bool {
        self.all_pid_files().iter().any(|(pid, file)| *pid == process.pid && was_written_at_start_of(file, process))
    }

    /// PM2's marks in the process's environment, if they name this home. Empty for a daemon: a daemon that was started
    /// from a process of PM2 has inherited the marks of that process.
    pub(super) fn read_marks(&self, pid: u32) -> Vec<ProcessMark> {
        process::environment(pid).map(|environment| self.find_marks(pid, &environment)).unwrap_or_default()
    }

    pub(super) fn find_marks(&self, pid: u32, environment: &Environment) -> Vec<ProcessMark> {
        let is_here = environment.get("PM2_HOME").is_some_and(|home| self.is_at(Path::new(home)));
        if !is_here || process::command_line(pid).is_some_and(|title| daemon_kind(&title).is_some()) {
            return Vec::new();
        }
        read_fork_mark(environment).into_iter().chain(read_cluster_mark(environment)).collect()
    }
}

/// Whether the file was written when the process started. Otherwise it is about an earlier process with the same pid.
pub(super) fn was_written_at_start_of(file: &Path, process: Process) -> bool {
    let Ok(written) = fs::metadata(file).and_then(|found| found.modified()) else { return false };
    let written = written.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let age = clock::wall().since(WallTime::from_ms(i64::try_from(written).unwrap_or(i64::MAX)));
    let up = clock::now().since(process::ticks_to_boot_time(process.started));
    up.abs_diff(age) <= MAX_PID_FILE_DELAY
}

pub(super) fn read_daemon(pid: u32, kind: DaemonKind) -> Option<Daemon> {
    let stat = process::stat(pid).filter(Stat::is_alive)?;
    let process = Process { pid, started: stat.started };
    let is_stopped = matches!(stat.state, b'T' | b't');
    let is_starting = clock::now().since(process::ticks_to_boot_time(process.started)) < STARTUP_TIME;
    Some(Daemon { process, kind, is_stopped, is_starting })
}

/// The kind of daemon that a process title shows. A background daemon sets its own title, cut to the length of its
/// original command line, which always leaves the part compared here; a foreground one keeps its command line.
pub(super) fn daemon_kind(title: &str) -> Option<DaemonKind> {
    if title.starts_with("PM2 v") && title.contains("God Daemon (") {
        return Some(DaemonKind::Detached);
    }
    let words = || title.split(' ').map(|word| word.rsplit('/').next().unwrap_or(word));
    let runs = |names: &[&str]| words().take(4).any(|word| names.contains(&word));
    let is_in_foreground = runs(&["pm2-runtime", "pm2-docker", "pm2-dev"])
        || runs(&["pm2"]) && words().any(|word| word == "--no-daemon") && words().any(|word| word == "start");
    is_in_foreground.then_some(DaemonKind::Foreground)
}

/// Whether a title is that of a pm2 command, such as `node /usr/bin/pm2 update`, and not of a daemon.
pub(super) fn is_pm2_command(title: &str) -> bool {
    let mut words = title.split(' ').take(3).map(|word| word.rsplit('/').next().unwrap_or(word));
    words.any(|word| word == "pm2") && daemon_kind(title).is_none()
}

/// Whether the title is the one that `PM2_DAEMON_TITLE` in its environment sets, or the beginning of it.
fn has_daemon_title(title: &str, environment: &Environment) -> bool {
    let configured = environment.get("PM2_DAEMON_TITLE").and_then(OsStr::to_str);
    !title.is_empty() && configured.is_some_and(|configured| configured.starts_with(title))
}

/// The home that a pm2 command with this environment uses.
pub(super) fn find_command_home(environment: &Environment) -> Option<PathBuf> {
    find_home(environment, DaemonKind::Foreground)
}

/// The home of a daemon, from its environment. A foreground daemon without `PM2_HOME` uses `~/.pm2`.
fn find_home(environment: &Environment, kind: DaemonKind) -> Option<PathBuf> {
    let named = environment.get("PM2_HOME").map(PathBuf::from);
    let default = || Some(Path::new(environment.get("HOME")?).join(".pm2"));
    named.or_else(|| if kind == DaemonKind::Foreground { default() } else { None })
}

/// In fork mode PM2 gives a process one variable for each of its properties.
fn read_fork_mark(environment: &Environment) -> Option<ProcessMark> {
    let text = |name| environment.get(name).and_then(OsStr::to_str);
    text("pm_id")?.parse::<u32>().ok()?;
    let path = |name| environment.get(name).map(PathBuf::from);
    let logs = ["pm_out_log_path", "pm_err_log_path"].into_iter().filter_map(path).collect();
    // `stop_exit_codes` is not among the variables.
    let may_stay_stopped = text("autorestart") == Some("false");
    Some(ProcessMark { name: text("name")?.to_owned(), logs, pid_file: path("pm_pid_path"), may_stay_stopped })
}

/// In cluster mode PM2 gives a process all its properties as JSON in one variable.
fn read_cluster_mark(environment: &Environment) -> Option<ProcessMark> {
    let app = parse_app(environment.get("pm2_env")?.to_str()?).filter(|app| app.id.is_some())?;
    let may_stay_stopped = app.may_stay_stopped();
    let logs = app.out_log.into_iter().chain(app.err_log).collect();
    Some(ProcessMark { name: app.name, logs, pid_file: app.pid_file, may_stay_stopped })
}

/// Whether it is the watchdog or one of its ancestors. Under PM2 the watchdog is itself a process of PM2.
pub(super) fn is_self_or_ancestor(pid: u32) -> bool {
    let own = std::process::id();
    pid == own || process::ancestors(own).any(|above| above == pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_shows_a_daemon_and_its_kind() {
        let check = |title: &str, expected: Option<DaemonKind>| assert_eq!(daemon_kind(title), expected, "{title}");
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

    #[test]
    fn a_title_shows_a_pm2_command() {
        let check = |title: &str, expected: bool| assert_eq!(is_pm2_command(title), expected, "{title}");
        check("node /x/bin/pm2 update", true);
        check("/usr/bin/node --no-warnings /x/node_modules/.bin/pm2 resurrect", true);
        check("pm2 kill", true);
        check("PM2 v7.0.4: God Daemon (/home/user/.pm2)", false);
        check("node /x/bin/pm2 start --no-daemon app.js", false);
        check("node /srv/pm2/server.js", false);
        check("tail -n 20 -f /home/user/.pm2/pm2", false);
        check("", false);
    }
}

//! One look at a home of PM2's: its socket, and whether a process lives. It must never call `pm2`, and never believe a
//! file without the process that it names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::outcome::{Seen, Sight};
use crate::process::{self, Process};

/// A folder of PM2's, its `PM2_HOME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    path: PathBuf,
}

impl Home {
    /// The home at this path.
    pub fn at(path: &Path) -> Home {
        Home { path: path.to_owned() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a daemon accepts connections on this home's socket. The kernel accepts for one that is frozen, so that
    /// is yes too. No pm2 command could ask this: each starts a daemon where there is none.
    ///
    /// # Errors
    /// What the system says to connecting, but for "nobody is there"; a path too long for a socket.
    pub fn daemon_accepts(&self) -> io::Result<bool> {
        let address = SocketAddrUnix::new(self.path.join("rpc.sock"))?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match connect(&socket, &address) {
            // The second: so many wait to be accepted that there is no room for us. It must be frozen.
            Ok(()) | Err(Errno::AGAIN) => Ok(true),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What one look shows: whether the daemon accepts connections, and the youngest living process of this name.
    ///
    /// # Errors
    /// What the system says to connecting to the daemon, and to reading `/proc`.
    pub fn sight(&self, process: &str) -> io::Result<Sight> {
        let daemon = self.daemon_accepts()?;
        let seen = |Process { pid, started }| Seen { pid, started: process::since_boot(started) };
        Ok(Sight { daemon, process: self.living(process)?.map(seen) })
    }

    /// The youngest living process of this name. Those that PM2 noted in its own folder are asked first; one with a
    /// pid file elsewhere is only to be found among all.
    pub(super) fn living(&self, name: &str) -> io::Result<Option<Process>> {
        let noted = self.noted(name).into_iter().filter(|pid| process::is_ours(*pid));
        match self.youngest(noted, name) {
            Some((process, true)) => Ok(Some(process)),
            Some((_, false)) | None => Ok(self.youngest(process::own_pids()?, name).map(|(process, _)| process)),
        }
    }

    /// The numbers in the pid files of this name. They may be stale.
    fn noted(&self, name: &str) -> Vec<u32> {
        let prefix = format!("{}-", file_name(name));
        let entries = fs::read_dir(self.path.join("pids")).into_iter().flatten().flatten();
        let is_meant = |file: &str| {
            let id = file.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".pid"));
            id.is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let meant = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_meant));
        meant.filter_map(|entry| fs::read_to_string(entry.path()).ok()?.trim().parse().ok()).collect()
    }

    /// Of these processes of ours the youngest that lives and has this name, and whether PM2 started it itself: what
    /// it starts inherits the name too.
    fn youngest(&self, pids: impl Iterator<Item = u32>, name: &str) -> Option<(Process, bool)> {
        let named = pids.filter_map(|pid| {
            let process = process::living(pid)?;
            let mark = self.marks(pid).into_iter().find(|mark| mark.name == name)?;
            let parent = process::stat(pid)?.parent;
            let is_own = !self.marks(parent).iter().any(|above| above.id == mark.id);
            Some((process, is_own))
        });
        named.max_by_key(|(process, is_own)| (*is_own, process.started, process.pid))
    }
}

/// A name as PM2 makes names of files of it.
pub(super) fn file_name(name: &str) -> String {
    let is_kept = |c: char| c.is_ascii_alphanumeric() || matches!(c, '\\' | '.' | '-');
    // As JavaScript counts, a character beyond the first plane is two.
    name.chars().flat_map(|c| if is_kept(c) { vec![c] } else { vec!['-'; c.len_utf16()] }).collect()
}

//! A home of PM2's: where it is, and what its socket says. It must never call `pm2`: each command starts a daemon where
//! none is.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::geteuid;

use crate::command::for_shell;
use crate::outcome::describe_io_error;

use super::evidence::SocketState;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    path: PathBuf,
}

impl Home {
    pub fn at(path: &Path) -> Home {
        Home { path: path.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How somebody calls pm2 for it in a shell: one that is not at the usual place must be named.
    pub fn call(&self) -> String {
        let usual = std::env::home_dir().map(|home| home.join(".pm2"));
        match usual.as_deref() == Some(self.path()) {
            true => "pm2".into(),
            false => format!("PM2_HOME={} pm2", for_shell(&self.path().to_string_lossy())),
        }
    }

    pub(super) fn is_at(&self, path: &Path) -> bool {
        let is_same = || Some(fs::canonicalize(path).ok()? == fs::canonicalize(self.path()).ok()?);
        path == self.path() || path.is_absolute() && is_same().unwrap_or(false)
    }

    /// Connects to the daemon's socket and hangs up: at no cost, and without starting anything.
    pub fn socket(&self) -> SocketState {
        match self.try_socket() {
            // The second: so many wait to be accepted that there is no room for us. It must be frozen.
            Ok(()) | Err(Errno::AGAIN) => SocketState::Accepts,
            Err(Errno::CONNREFUSED) => SocketState::Refuses,
            Err(Errno::NOENT | Errno::NOTDIR) => SocketState::Missing,
            Err(error) => SocketState::Unreadable(self.unreadable(error)),
        }
    }

    fn try_socket(&self) -> Result<(), Errno> {
        let address = SocketAddrUnix::new(self.path.join("rpc.sock"))?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &address)
    }

    fn unreadable(&self, error: Errno) -> String {
        let socket = self.path.join("rpc.sock");
        let owner = fs::metadata(&socket).or_else(|_| fs::metadata(&self.path)).ok().map(|found| found.uid());
        let (own, shown) = (geteuid().as_raw(), self.path.display());
        match (error, owner) {
            (Errno::ACCESS | Errno::PERM, Some(owner)) if owner != own => {
                let whose = if owner == 0 { "root".to_owned() } else { format!("account {owner}") };
                format!(
                    "PM2 in {shown} cannot be asked: its socket belongs to {whose}, as after `sudo pm2`. To mend it, \
                     as root: PM2_HOME={shown} pm2 kill && chown -R {own} {shown}, then start PM2 without sudo"
                )
            }
            _ => format!("PM2's socket {} cannot be asked: {}", socket.display(), describe_io_error(&error.into())),
        }
    }

    /// The numbers in PM2's pid files of this name, with the files. They may be stale.
    pub(super) fn noted(&self, name: &str) -> Vec<(u32, PathBuf)> {
        let prefix = format!("{}-", file_name(name));
        self.pid_files(|file| {
            let id = file.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".pid"));
            id.is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
        })
    }

    pub(super) fn all_noted(&self) -> Vec<(u32, PathBuf)> {
        self.pid_files(|file| file.ends_with(".pid"))
    }

    fn pid_files(&self, is_meant: impl Fn(&str) -> bool) -> Vec<(u32, PathBuf)> {
        let entries = fs::read_dir(self.path.join("pids")).into_iter().flatten().flatten();
        let meant = entries.filter(|entry| entry.file_name().to_str().is_some_and(&is_meant)).map(|entry| entry.path());
        meant.filter_map(|path| Some((read_pid(&path).ok()?, path))).collect()
    }
}

pub(super) fn read_pid(path: &Path) -> io::Result<u32> {
    fs::read_to_string(path)?.trim().parse().map_err(io::Error::other)
}

/// A name as PM2 makes names of files of it.
pub(super) fn file_name(name: &str) -> String {
    let is_kept = |c: char| c.is_ascii_alphanumeric() || matches!(c, '\\' | '.' | '-');
    // As JavaScript counts, a character beyond the first plane is two.
    name.chars().flat_map(|c| if is_kept(c) { vec![c] } else { vec!['-'; c.len_utf16()] }).collect()
}

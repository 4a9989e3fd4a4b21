//! A PM2 home folder: its path, its socket and its pid files. It must never call `pm2`, because every command starts a
//! daemon if none runs.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::geteuid;

use crate::command::shell_quote;
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

    /// The command to type in a shell for this home; `PM2_HOME=` is needed only if it is not `~/.pm2`.
    pub fn pm2_command(&self) -> String {
        let usual = std::env::home_dir().map(|home| home.join(".pm2"));
        match usual.as_deref() == Some(self.path()) {
            true => "pm2".into(),
            false => format!("PM2_HOME={} pm2", shell_quote(&self.path().to_string_lossy())),
        }
    }

    pub(super) fn is_at(&self, path: &Path) -> bool {
        let is_same = || Some(fs::canonicalize(path).ok()? == fs::canonicalize(self.path()).ok()?);
        path == self.path() || path.is_absolute() && is_same().unwrap_or(false)
    }

    /// Connects to the daemon's socket and closes the connection, which takes 0.1 ms and starts nothing.
    pub fn check_socket(&self) -> SocketState {
        match self.connect_socket() {
            // EAGAIN: the backlog is full, so a process listens but does not accept. It must be frozen.
            Ok(()) | Err(Errno::AGAIN) => SocketState::Accepts,
            Err(Errno::CONNREFUSED) => SocketState::Refuses,
            Err(Errno::NOENT | Errno::NOTDIR) => SocketState::Missing,
            Err(error) => SocketState::Unreadable(self.describe_socket_error(error)),
        }
    }

    fn connect_socket(&self) -> Result<(), Errno> {
        let address = SocketAddrUnix::new(self.path.join("rpc.sock"))?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &address)
    }

    fn describe_socket_error(&self, error: Errno) -> String {
        let socket = self.path.join("rpc.sock");
        let owner = fs::metadata(&socket).or_else(|_| fs::metadata(&self.path)).ok().map(|found| found.uid());
        let (own, shown) = (geteuid().as_raw(), self.path.display());
        match (error, owner) {
            (Errno::ACCESS | Errno::PERM, Some(owner)) if owner != own => {
                let owner = if owner == 0 { "root".to_owned() } else { format!("account {owner}") };
                format!(
                    "PM2 in {shown} cannot be reached: its socket belongs to {owner}, as after `sudo pm2`. Fix, as \
                     root: PM2_HOME={shown} pm2 kill && chown -R {own} {shown}, then start PM2 without sudo"
                )
            }
            _ => format!("PM2's socket {} cannot be reached: {}", socket.display(), describe_io_error(&error.into())),
        }
    }

    /// The pids in PM2's pid files for this name, with the files. They may be stale.
    pub(super) fn pid_files_of(&self, name: &str) -> Vec<(u32, PathBuf)> {
        let prefix = format!("{}-", to_file_name(name));
        self.read_pid_files(|file| {
            let id = file.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".pid"));
            id.is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
        })
    }

    pub(super) fn all_pid_files(&self) -> Vec<(u32, PathBuf)> {
        self.read_pid_files(|file| file.ends_with(".pid"))
    }

    fn read_pid_files(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<(u32, PathBuf)> {
        let entries = fs::read_dir(self.path.join("pids")).into_iter().flatten().flatten();
        let wanted =
            entries.filter(|entry| entry.file_name().to_str().is_some_and(&is_wanted)).map(|entry| entry.path());
        wanted.filter_map(|path| Some((read_pid(&path).ok()?, path))).collect()
    }
}

pub(super) fn read_pid(path: &Path) -> io::Result<u32> {
    fs::read_to_string(path)?.trim().parse().map_err(io::Error::other)
}

/// Replaces the characters that PM2 replaces when it makes a file name of a process name.
pub(super) fn to_file_name(name: &str) -> String {
    let is_kept = |c: char| c.is_ascii_alphanumeric() || matches!(c, '\\' | '.' | '-');
    // JavaScript counts UTF-16 units, so a character beyond U+FFFF becomes two dashes.
    name.chars().flat_map(|c| if is_kept(c) { vec![c] } else { vec!['-'; c.len_utf16()] }).collect()
}

//! What a home of PM2's keeps in files: the saved list and the logs. It must never wait for a file that is none, nor
//! read one without end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::outcome::in_words;

use super::home::file_name;
use super::{App, Home, parse_list};

/// Far more than any list: one with 100 processes of 100 KB of variables each has 10 MB.
const LONGEST: u64 = 64 << 20;

/// What a saved list of PM2's holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saved {
    /// These processes.
    Apps(Vec<App>),
    /// There is no such list.
    Missing,
    /// There is one, but it cannot be read, for this reason.
    Unreadable(String),
}

impl Home {
    /// What `pm2 resurrect` would start: `dump.pm2`, or `dump.pm2.bak` where the first is missing or spoilt.
    pub fn saved(&self) -> Saved {
        match (self.list("dump.pm2"), self.list("dump.pm2.bak")) {
            (Saved::Apps(apps), _) | (_, Saved::Apps(apps)) => Saved::Apps(apps),
            (Saved::Missing, other) | (other, _) => other,
        }
    }

    fn list(&self, name: &str) -> Saved {
        let path = self.path().join(name);
        let read = || {
            let mut bytes = Vec::new();
            open(&path)?.take(LONGEST).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        match read().map(|bytes| parse_list(&bytes)) {
            Ok(Some(apps)) => Saved::Apps(apps),
            Ok(None) => Saved::Unreadable(format!("{} is no list of processes", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Saved::Missing,
            Err(error) => Saved::Unreadable(format!("{}: {}", path.display(), in_words(&error))),
        }
    }

    /// The files that a process of this name writes to, and PM2's own log; those that exist.
    pub fn logs(&self, process: &str) -> Vec<PathBuf> {
        let mut found = self.logs_of_living(process);
        if found.is_empty()
            && let Saved::Apps(apps) = self.saved()
        {
            let named = apps.into_iter().filter(|app| app.name == process);
            found = named.flat_map(|app| app.out_log.into_iter().chain(app.err_log)).collect();
        }
        if found.is_empty() {
            found = self.usual_logs(process);
        }
        found.push(self.own_log());
        let mut logs: Vec<PathBuf> = Vec::new();
        for path in found {
            if path.is_file() && !logs.contains(&path) {
                logs.push(path);
            }
        }
        logs
    }

    /// What the daemon tells of itself and of its processes.
    pub(super) fn own_log(&self) -> PathBuf {
        self.path().join("pm2.log")
    }

    fn logs_of_living(&self, name: &str) -> Vec<PathBuf> {
        let Ok(Some(process)) = self.living(name) else { return Vec::new() };
        let mark = self.marks(process.pid).into_iter().find(|mark| mark.name == name);
        mark.map(|mark| mark.logs).unwrap_or_default()
    }

    /// The logs that PM2 makes where it is told nothing: `NAME-out.log` and `NAME-error.log`, or one of each for every
    /// instance, its number before the dot.
    fn usual_logs(&self, name: &str) -> Vec<PathBuf> {
        let starts = ["out", "error"].map(|kind| format!("{}-{kind}", file_name(name)));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_meant = |file: &str| {
            let rest = starts.iter().find_map(|start| file.strip_prefix(start.as_str())?.strip_suffix(".log"));
            rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('-').is_some_and(is_number))
        };
        let entries = fs::read_dir(self.path().join("logs")).into_iter().flatten().flatten();
        let meant = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_meant));
        let mut found: Vec<PathBuf> = meant.map(|entry| entry.path()).collect();
        found.sort();
        found
    }
}

/// Opens a file for reading, without waiting for whoever might write to a pipe.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
}

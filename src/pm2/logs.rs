//! Reads what a process wrote into its logs; files that were not written since it started say nothing about it. It must
//! never block on something that is not a regular file, and never read more than the end of a file.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::clock;
use crate::outcome::ProcessIdentity;
use crate::process;
use crate::time::WallTime;

use super::home::to_file_name;
use super::informative_line::{most_informative_line, strip_escapes};
use super::saved::open_nonblocking;
use super::{App, Home};

const TAIL_BYTES: u64 = 16 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    pub name: String,
    /// The last 16 KiB, without escape sequences.
    pub tail: String,
    /// Written by the process itself, not by PM2's daemon.
    is_own: bool,
}

/// The most informative line of the process's own logs. The error log comes first: it says more than standard output.
pub fn log_excerpt(logs: &[LogFile]) -> Option<String> {
    let mut own: Vec<&LogFile> = logs.iter().filter(|log| log.is_own).collect();
    own.sort_by_key(|log| !log.name.contains("err"));
    own.into_iter().find_map(|log| most_informative_line(&log.tail))
}

impl Home {
    /// The logs of the processes of this name, and PM2's own log. `apps` is PM2's list, or the saved one. Logs that
    /// were last written before the process `since` started are left out.
    pub fn logs(&self, process: &str, apps: &[App], since: Option<ProcessIdentity>) -> Vec<LogFile> {
        let named = apps.iter().filter(|app| app.name == process);
        let mut paths: Vec<PathBuf> = named.flat_map(|app| app.out_log.iter().chain(&app.err_log)).cloned().collect();
        if paths.is_empty() {
            let pid = since.map(|since| since.pid).filter(|pid| process::identify_living(*pid).is_some());
            let marks = pid.map(|pid| self.read_marks(pid)).unwrap_or_default();
            paths = marks.into_iter().filter(|mark| mark.name == process).flat_map(|mark| mark.logs).collect();
        }
        if paths.is_empty() {
            paths = self.find_default_logs(process);
        }
        paths.sort();
        paths.dedup();
        let began = since.map(|since| {
            let age = clock::now().since(since.started);
            clock::wall().offset_by(-crate::time::millis(age))
        });
        let is_recent = |path: &PathBuf| began.is_none_or(|began| modified_at(path).is_some_and(|at| at >= began));
        let own = paths.into_iter().filter(is_recent).map(|path| (path, true));
        own.chain([(self.daemon_log(), false)]).filter_map(|(path, is_own)| read_tail(&path, is_own)).collect()
    }

    pub(super) fn daemon_log(&self) -> PathBuf {
        self.path().join("pm2.log")
    }

    /// The logs at PM2's default paths: `NAME-out.log` and `NAME-error.log`, or with several instances one of each per
    /// instance, such as `NAME-out-1.log`.
    fn find_default_logs(&self, name: &str) -> Vec<PathBuf> {
        let starts = ["out", "error"].map(|kind| format!("{}-{kind}", to_file_name(name)));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_wanted = |file: &str| {
            let rest = starts.iter().find_map(|start| file.strip_prefix(start.as_str())?.strip_suffix(".log"));
            rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('-').is_some_and(is_number))
        };
        let entries = fs::read_dir(self.path().join("logs")).into_iter().flatten().flatten();
        let wanted = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_wanted));
        wanted.map(|entry| entry.path()).collect()
    }
}

fn modified_at(path: &Path) -> Option<WallTime> {
    let at = fs::metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(WallTime::from_ms(crate::time::millis(at)))
}

fn read_tail(path: &Path, is_own: bool) -> Option<LogFile> {
    let tail = || {
        let mut file = open_nonblocking(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("not a file"));
        }
        file.seek(SeekFrom::Start(found.len().saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = tail().ok().filter(|bytes| !bytes.is_empty())?;
    let name = path.file_name()?.to_string_lossy().into_owned();
    Some(LogFile { name, tail: strip_escapes(&String::from_utf8_lossy(&bytes)), is_own })
}

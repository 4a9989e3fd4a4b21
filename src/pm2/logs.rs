//! What a process wrote into its logs, as far as it is the one that is meant: files that were not written to since it
//! began say nothing of it. It must never wait for a file that is none, nor read one without end.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::clock;
use crate::outcome::ProcessIdentity;
use crate::process;
use crate::time::WallTime;

use super::home::file_name;
use super::saved::open;
use super::{App, Home, plain, telling_line};

/// Bytes at the end of a log that are read.
const TAIL: u64 = 16 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    pub name: String,
    /// Its last 16 KiB, without colours.
    pub tail: String,
    /// Whether the process itself wrote it, and not PM2.
    is_own: bool,
}

/// The line that tells most of why the process is in trouble: what it complained of says more than what it printed.
pub fn last_words(logs: &[LogFile]) -> Option<String> {
    let mut own: Vec<&LogFile> = logs.iter().filter(|log| log.is_own).collect();
    own.sort_by_key(|log| !log.name.contains("err"));
    own.into_iter().find_map(|log| telling_line(&log.tail))
}

impl Home {
    /// The logs of the processes of this name, and PM2's own; `apps` is its list, else the saved one. Those that were
    /// last written before the process `since` began are left out.
    pub fn logs(&self, process: &str, apps: &[App], since: Option<ProcessIdentity>) -> Vec<LogFile> {
        let named = apps.iter().filter(|app| app.name == process);
        let mut paths: Vec<PathBuf> = named.flat_map(|app| app.out_log.iter().chain(&app.err_log)).cloned().collect();
        if paths.is_empty() {
            let pid = since.map(|since| since.pid).filter(|pid| process::living(*pid).is_some());
            let marks = pid.map(|pid| self.marks(pid)).unwrap_or_default();
            paths = marks.into_iter().filter(|mark| mark.name == process).flat_map(|mark| mark.logs).collect();
        }
        if paths.is_empty() {
            paths = self.usual_logs(process);
        }
        paths.sort();
        paths.dedup();
        let began = since.map(|since| {
            let age = clock::now().since(since.started);
            clock::wall().offset_by(-crate::time::millis(age))
        });
        let is_of_it = |path: &PathBuf| began.is_none_or(|began| written(path).is_some_and(|at| at >= began));
        let own = paths.into_iter().filter(is_of_it).map(|path| (path, true));
        own.chain([(self.own_log(), false)]).filter_map(|(path, is_own)| read(&path, is_own)).collect()
    }

    pub(super) fn own_log(&self) -> PathBuf {
        self.path().join("pm2.log")
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
        meant.map(|entry| entry.path()).collect()
    }
}

fn written(path: &Path) -> Option<WallTime> {
    let at = fs::metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(WallTime::from_ms(crate::time::millis(at)))
}

fn read(path: &Path, is_own: bool) -> Option<LogFile> {
    let tail = || {
        let mut file = open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("not a file"));
        }
        file.seek(SeekFrom::Start(found.len().saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = tail().ok().filter(|bytes| !bytes.is_empty())?;
    let name = path.file_name()?.to_string_lossy().into_owned();
    Some(LogFile { name, tail: plain(&String::from_utf8_lossy(&bytes)), is_own })
}

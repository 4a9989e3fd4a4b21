//! What a home of PM2's keeps in its saved list. It must never wait for a file that is none, nor
//! read one without end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use serde_json::value::RawValue;

use crate::outcome::describe_io_error;

use super::app::entry;
use super::{App, Home, parse_list};

/// Far more than any list: one with 100 processes of 100 KB of variables each has 10 MB.
const LONGEST: u64 = 64 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SavedList {
    Apps(Vec<App>),
    Missing,
    Unreadable(String),
}

impl Home {
    /// What `pm2 resurrect` would start: `dump.pm2`, or `dump.pm2.bak` where the first is missing or spoilt.
    pub fn saved(&self) -> SavedList {
        match (self.list("dump.pm2"), self.list("dump.pm2.bak")) {
            (SavedList::Apps(apps), _) | (_, SavedList::Apps(apps)) => SavedList::Apps(apps),
            (SavedList::Missing, other) | (other, _) => other,
        }
    }

    fn list(&self, name: &str) -> SavedList {
        let path = self.path().join(name);
        match self.bytes(name).map(|bytes| parse_list(&bytes)) {
            Ok(Some(apps)) => SavedList::Apps(apps),
            Ok(None) => SavedList::Unreadable(format!("{} is no list of processes", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => SavedList::Missing,
            Err(error) => SavedList::Unreadable(format!("{}: {}", path.display(), describe_io_error(&error))),
        }
    }

    /// The saved list without the processes of these names, as it stands in the file.
    /// Errors: there is none, or it cannot be read; in words.
    pub(super) fn saved_without(&self, names: &[String]) -> Result<Vec<u8>, String> {
        let read = |name: &str| {
            let bytes = self.bytes(name).ok()?;
            serde_json::from_slice::<Vec<Box<RawValue>>>(&bytes).ok()
        };
        let entries = read("dump.pm2").or_else(|| read("dump.pm2.bak"));
        let mut entries = entries.ok_or_else(|| format!("there is no saved list in {}", self.path().display()))?;
        entries.retain(|one| entry(one.get()).is_some_and(|app| !names.contains(&app.name)));
        serde_json::to_vec(&entries).map_err(|error| error.to_string())
    }

    fn bytes(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        open(&self.path().join(name))?.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Opens a file for reading, without waiting for whoever might write to a pipe.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
}

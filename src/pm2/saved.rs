//! Reads the saved list of a PM2 home. It must never block on something that is not a regular file, and never read a
//! file without a limit.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use serde_json::value::RawValue;

use crate::outcome::describe_io_error;

use super::app::parse_app;
use super::{App, Home, parse_list};

/// Far more than any list: 100 processes with 100 KB of variables each make 10 MB.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SavedList {
    Apps(Vec<App>),
    Missing,
    Unreadable(String),
}

impl Home {
    /// The list that `pm2 resurrect` would use: `dump.pm2`, or `dump.pm2.bak` if the first is missing or invalid.
    pub fn saved(&self) -> SavedList {
        match (self.read_list("dump.pm2"), self.read_list("dump.pm2.bak")) {
            (SavedList::Apps(apps), _) | (_, SavedList::Apps(apps)) => SavedList::Apps(apps),
            (SavedList::Missing, other) | (other, _) => other,
        }
    }

    fn read_list(&self, name: &str) -> SavedList {
        let path = self.path().join(name);
        match self.read_file(name).map(|bytes| parse_list(&bytes)) {
            Ok(Some(apps)) => SavedList::Apps(apps),
            Ok(None) => SavedList::Unreadable(format!("{} is not a list of processes", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => SavedList::Missing,
            Err(error) => SavedList::Unreadable(format!("{}: {}", path.display(), describe_io_error(&error))),
        }
    }

    /// The saved list as it is in the file, without the processes of these names.
    /// Errors: there is none, or it cannot be read.
    pub(super) fn saved_list_except(&self, names: &[String]) -> Result<Vec<u8>, String> {
        let read = |name: &str| {
            let bytes = self.read_file(name).ok()?;
            serde_json::from_slice::<Vec<Box<RawValue>>>(&bytes).ok()
        };
        let entries = read("dump.pm2").or_else(|| read("dump.pm2.bak"));
        let mut entries = entries.ok_or_else(|| format!("no saved list in {}", self.path().display()))?;
        entries.retain(|one| parse_app(one.get()).is_some_and(|app| !names.contains(&app.name)));
        serde_json::to_vec(&entries).map_err(|error| error.to_string())
    }

    fn read_file(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        open_nonblocking(&self.path().join(name))?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Opens a file for reading. Opening a FIFO would otherwise block until a writer opens it.
pub(super) fn open_nonblocking(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
}

//! PM2 as it is from outside: its home as files, sockets and `/proc`; who is who among processes; calling `pm2`, restart
//! and reset. It must never signal a process that is not proven to be PM2's, never start a daemon only to look (every
//! pm2 command does, where there is none), and never show an environment.

use std::path::{Path, PathBuf};

mod app;
mod caller;
#[cfg(test)]
mod tests;

pub use app::{App, parse_list};
pub use caller::{Caller, Listing};

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
}

/// A process that PM2 keeps, and what is known of it beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed {
    /// Its name in PM2.
    pub process: String,
    /// The ecosystem file that describes it.
    pub config: Option<PathBuf>,
    /// The port that it is watched on, where that is one of this machine.
    pub port: Option<u16>,
}

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

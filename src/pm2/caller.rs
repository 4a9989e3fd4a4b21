//! Calling `pm2`, one call at a time and each with its deadline. It must never hand on a variable of ours: PM2 keeps the
//! environment of whoever calls it, and gives it to the processes that it starts.

use std::path::PathBuf;
use std::time::Duration;

use super::App;

/// How `pm2` is called.
#[derive(Clone)]
pub struct Caller {
    /// `PM2_HOME` for every call.
    pub home: PathBuf,
    /// The folder that `pm2` runs in; a daemon that it starts stays there.
    pub folder: PathBuf,
    /// Set over our own environment.
    pub env: Vec<(String, String)>,
    /// How long a call may take, but for that of the list.
    pub timeout: Duration,
}

/// What came of asking PM2 for its list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// These processes.
    Apps(Vec<App>),
    /// No answer within 10 s.
    Silent,
    /// It cannot be had, for this reason.
    Failed(String),
}

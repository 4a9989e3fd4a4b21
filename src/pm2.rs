//! PM2 as it is from outside: what its files, sockets and `/proc` show of its daemon and of a process, what follows
//! from that, and the repairs by way of `pm2`. It must never signal a process that is not proven to be PM2's, never
//! start a daemon only to look (every pm2 command does, where there is none), and never show an environment.
//!
//! In reading order: `evidence` is what can be seen and what follows from it; `observe` and `inspect` gather it,
//! without and with PM2's list; `plan` makes steps of it, `repair` carries them out; `reset_reason` and `reset` are the
//! last resort.

use std::path::PathBuf;

mod activity;
mod app;
mod caller;
mod evidence;
mod home;
mod identity;
mod inspect;
mod last_words;
mod logs;
mod observe;
mod plan;
mod ports;
mod repair;
mod reset;
mod reset_reason;
mod rest;
mod saved;
#[cfg(test)]
mod tests;

pub use activity::Activity;
pub use app::{App, parse_list};
pub use caller::{Caller, Listing};
pub use evidence::{DaemonEvidence, ProcessState};
pub use home::Home;
pub use inspect::{InspectionResult, inspect};
pub use last_words::{plain, telling_line};
pub use logs::{LogFile, last_words};
pub use plan::{RepairStep, plan};
pub use ports::listeners;
pub use repair::Calls;
pub use reset::reset;
pub use reset_reason::{ResetReason, missing_program, reset_reason};
pub use saved::SavedList;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed {
    pub process: String,
    /// The ecosystem file that describes it.
    pub config: Option<PathBuf>,
    /// The block of variables in that file that it is started with (pm2's `--env`).
    pub env: Option<String>,
    /// The port that it is watched on, where that is one of this machine.
    pub port: Option<u16>,
}

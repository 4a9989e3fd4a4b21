//! PM2 observed from outside: what its files, its socket and `/proc` show about its daemon and its processes, the
//! conclusions from that, and repairs that use `pm2`. It must never signal a process that is not proven to be PM2's,
//! never start a daemon just to observe (every pm2 command starts one if none runs), and never expose an environment.
//!
//! In reading order: `evidence` defines what can be observed and what follows from it; `observe` and `inspect` gather
//! it without and with PM2's list; `plan` turns it into steps and `repair` executes them; `reset_reason` and `reset`
//! are the last resort. `running` proves the processes that a drill stops.

use std::path::PathBuf;

mod activity;
mod app;
mod caller;
mod evidence;
mod home;
mod identity;
mod informative_line;
mod inspect;
mod logs;
mod observe;
mod plan;
mod ports;
mod repair;
mod reset;
mod reset_reason;
mod rest;
mod restarts;
mod running;
mod saved;
#[cfg(test)]
mod tests;

pub use activity::Activity;
pub use app::{App, parse_list};
pub use caller::{Caller, Listing};
pub use evidence::{DaemonEvidence, ProcessState};
pub use home::Home;
pub use inspect::{InspectionResult, inspect};
pub use logs::{LogFile, log_excerpt};
pub use plan::{RepairStep, plan_repair};
pub use ports::{listening_ports, own_listening_ports};
pub use repair::RepairContext;
pub use reset::reset;
pub use reset_reason::{ResetReason, describe_missing_program, find_reset_reason};
pub use restarts::LogRead;
pub use running::prove_running;
pub use saved::SavedList;

/// A process that PM2 runs for a target, as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedProcess {
    pub process: String,
    /// The ecosystem file that describes the process.
    pub config: Option<PathBuf>,
    /// The `env_NAME` block of that file to start it with (pm2's `--env`).
    pub env: Option<String>,
    /// The ports of this machine that are probed.
    pub ports: Vec<u16>,
}

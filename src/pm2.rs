//! PM2 as it is from outside: its home as files, sockets and `/proc`; who is who among processes; calling `pm2`;
//! restart and reset. It must never signal a process that is not proven to be PM2's, never start a daemon only to look
//! (every pm2 command does, where there is none), and never show an environment.

use std::path::PathBuf;

mod app;
mod caller;
mod doing;
mod home;
mod identity;
mod ports;
mod reset;
mod restart;
mod saved;
mod stopped;
#[cfg(test)]
mod tests;
mod warrant;

pub use app::{App, parse_list};
pub use caller::{Caller, Listing};
pub use doing::Doing;
pub use home::Home;
pub use ports::{holder, listeners};
pub use reset::reset;
pub use restart::restart;
pub use saved::Saved;
pub use stopped::is_stopped_by_hand;
pub use warrant::{Warrant, weigh};

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

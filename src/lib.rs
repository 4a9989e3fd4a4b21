//! `watchdog` notices when a backend is dead, frozen or wrong, repairs it with the operator's own commands,
//! and never makes it worse.
//!
//! Only `policy` decides, and it reads no clock and does no I/O. All other modules observe, act, store or show.
//! The modules are listed in the order in which to read them.

mod time;

mod outcome;

mod policy;

mod config;

mod probe;

mod process;

mod command;

mod pm2;

mod systemd;

mod notify;

mod store;

mod clock;

mod signals;

mod terminal;

mod logging;

mod view;

mod agent;

pub mod commands;

pub mod cli;

#[cfg(test)]
#[path = "../tests/it/mangle.rs"]
mod mangle;
#[cfg(test)]
mod testing;

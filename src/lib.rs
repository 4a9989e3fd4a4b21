//! `watchdog` notices when a backend is dead, frozen or wrong, repairs it with the operator's own commands,
//! and never makes it worse.
//!
//! Decisions are made in one place, [`policy`], which reads no clock and does no I/O.
//! Everything else observes, acts, stores or shows. The modules stand in the order in which to read them.

pub mod time;

pub mod outcome;

pub mod policy;

pub mod config;

pub mod probe;

pub mod process;

pub mod command;

pub mod pm2;

pub mod notify;

pub mod store;

pub mod clock;

pub mod signals;

pub mod terminal;

pub mod logging;

pub mod view;

pub mod agent;

pub mod verb;

pub mod cli;

#[cfg(test)]
#[path = "../tests/it/mangle.rs"]
mod mangle;
#[cfg(test)]
mod testing;

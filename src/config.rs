//! The operator's file, checked and ready for use: every limit, every default, every complaint about it.
//! It must never accept what it does not know, and never show a secret.

mod access;
mod channel;
mod error;
mod file;
mod notify;
mod owner;
mod pm2;
mod probes;
mod reading;
mod secrets;
mod target;
mod targets;
mod together;
mod tree;
mod units;
mod url;
mod variables;
mod way;
mod whereabouts;

#[cfg(test)]
mod tests;

pub(crate) use access::{BYTE_ORDER_MARK, is_utf16};
pub use channel::{Channel, Format, Way, Webhook};
#[cfg(feature = "email")]
pub use channel::{Email, Security, Smtp, Via};
pub use error::Errors;
pub use file::{Config, Log, written};
pub use owner::other_owner;
pub use pm2::{home_is_too_long, objection};
pub use secrets::{Ends, SHORTEST_SECRET, Secrets};
pub use target::{CommandLine, Hidden, Http, Method, Pm2, Probe, RUNG_TIMEOUT, Remedy, Rung, Target, Tls};
pub use whereabouts::{absolute, default_state_dir, find, home, named};

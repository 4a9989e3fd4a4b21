//! The operator's configuration file: it is read, checked against every limit, and completed with every default.
//! It must never accept an unknown key, and never show a secret.

mod access;
mod channel;
mod cross_checks;
mod error;
mod file;
mod key_path;
mod locate;
mod notify;
mod other_tools;
mod owner;
mod pm2;
mod probes;
mod reader;
mod secrets;
mod systemd_unit;
mod target;
mod targets;
mod tree;
mod units;
mod url;
mod variables;

#[cfg(test)]
mod tests;

pub(crate) use access::{BYTE_ORDER_MARK, is_utf16};
pub use channel::{Channel, Destination, Format, Webhook};
#[cfg(feature = "email")]
pub use channel::{Email, MailTransport, Security, Smtp};
pub use error::Errors;
pub use file::{Config, LogConfig, LogFormat, modified_at};
pub use locate::{absolute, default_state_dir, explicit_path, find, home, search};
pub use owner::{account_name, other_owner};
pub use pm2::{home_is_too_long, process_name_problem};
pub use secrets::{CutEnds, SHORTEST_SECRET, Secrets};
pub use target::{
    CommandLine, HttpConfig, Method, Pm2Config, Probe, RUNG_TIMEOUT, Remedy, Rung, Secret, Target, Tls, UnitConfig,
    address_names,
};

//! The real program from outside: real sockets, real `sh`, real processes, in temporary folders.
//! Nothing here knows the inside; what it asserts is the contract.
//!
//! `cargo test` needs Rust and `sh` only. It leaves out what is behind the feature `full-tests`: all with the real PM2,
//! a mail server, a browser, promtool, systemd-analyze, a clock that is set, another account, a container or a full
//! disk, and what takes ten seconds or more. The rest makes fewer rounds. `sh tests/run` runs everything.

#![cfg_attr(
    not(feature = "full-tests"),
    expect(dead_code, unused_imports, reason = "what the tests that are left out use is found to be used with them")
)]

mod fakepm2;
mod faults;
mod holder;
mod mangle;
mod page;
mod place;
mod takes;

#[cfg(feature = "full-tests")]
mod accounts;
mod alone;
mod beside;
mod check;
mod commands;
#[cfg(feature = "full-tests")]
mod containers;
mod crash;
mod cron;
mod crowd;
mod damage;
mod demo;
mod detection;
mod documents;
mod evidence;
#[cfg(feature = "full-tests")]
mod hanging;
mod init;
mod leftovers;
#[cfg(feature = "full-tests")]
mod mails;
mod messages;
mod notify;
mod picture;
#[cfg(feature = "full-tests")]
mod pm2;
mod promises;
mod refusals;
mod restraint;
mod secrets;
mod signals;
#[cfg(feature = "full-tests")]
mod soak;
mod status;
mod survival;
mod tidy;
mod units;
mod verbs;
mod wire;
mod wording;

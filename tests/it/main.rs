//! Tests of the real executable from outside: real sockets, real `sh` and real processes in temporary folders.
//! They assert the contract and use nothing internal.
//!
//! `cargo test` needs only Rust and `sh`. The feature `full-tests` adds the tests that need the real PM2, a mail
//! server, a browser, promtool, systemd-analyze, a changed clock, another account, a container or a full disk, and
//! those that take ten seconds or more. Without it the other tests make fewer rounds. `sh tests/run` runs everything.

#![cfg_attr(
    not(feature = "full-tests"),
    expect(dead_code, unused_imports, reason = "only tests behind `full-tests` use it")
)]

mod fake_pm2;
mod faults;
mod lock_holder;
mod mangle;
mod page;
mod resources;
mod sandbox;

mod addresses;
mod check;
mod check_pm2;
#[cfg(feature = "full-tests")]
mod container_examples;
#[cfg(feature = "full-tests")]
mod containers;
mod crash;
mod cron;
#[cfg(feature = "full-tests")]
mod cron_mail;
mod crontab_line;
mod damaged_state;
mod demo;
mod detection;
mod documents;
mod freshness;
#[cfg(feature = "full-tests")]
mod hung_filesystem;
mod incidents;
mod init;
mod leftovers;
mod log;
mod machine_faults;
mod man_pages;
mod many_targets;
mod messages;
mod network_faults;
#[cfg(feature = "full-tests")]
mod other_accounts;
mod other_tools;
mod outage;
#[cfg(feature = "full-tests")]
mod pm2;
mod pm2_log;
mod quality;
mod refusals;
mod reload;
mod restart_by_hand;
mod restart_commands;
mod restart_policy;
mod robustness;
mod scheduled;
mod sd_notify;
mod secrets;
mod signals;
mod single_instance;
#[cfg(feature = "full-tests")]
mod soak;
mod status;
mod subcommands;
#[cfg(feature = "full-tests")]
mod systemd;
mod tidy;
mod units;
mod wording;

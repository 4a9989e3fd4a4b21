//! The command line: what can be said, and which verb it is said to.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

/// Notices when a backend is dead, frozen or wrong, repairs it with your own commands, and never makes it worse.
#[derive(Debug, Parser)]
#[command(name = "watchdog-agent", bin_name = "watchdog", version, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done or all well, 1 trouble, 2 wrong use or configuration, 3 no watchdog at work, \
                        4 the machine failed us, 5 another watchdog holds the state folder."
)]
pub struct Args {
    /// Make one tick: look at each target, repair what is due, exit (for cron)
    #[arg(long)]
    pub once: bool,
    /// What goes with any verb.
    #[command(flatten)]
    pub options: Options,
    /// What to do; to run, if nothing else is said.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// What can be said before or after the verb.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The configuration [default: $WATCHDOG_CONFIG, ./watchdog.yaml, ~/watchdog.yaml,
    /// ~/.config/watchdog/watchdog.yaml]
    #[arg(short, long, value_name = "FILE", global = true, display_order = 100)]
    pub config: Option<PathBuf>,
    /// Log every single look too
    #[arg(short, long, global = true, display_order = 101)]
    pub verbose: bool,
    /// Say only what went wrong
    #[arg(short, long, global = true, display_order = 102, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Decide and record, but run no restart command (with run, --once and start)
    #[arg(long, global = true, display_order = 103)]
    pub dry_run: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run in the foreground until SIGTERM or SIGINT (the default)
    Run {
        /// Detach from whoever has started us, and say so when at work
        #[arg(long, hide = true)]
        detached: bool,
    },
    /// Detach a watchdog unless one is at work already
    Start {
        /// For a line in crontab: say nothing unless one had to be started; leave one that was stopped by hand stopped
        #[arg(long)]
        cron: bool,
    },
    /// Stop the watchdog that was started
    Stop,
    /// Read the configuration and the surroundings, say what would happen, touch nothing
    Check {
        /// Look at no target
        #[arg(long)]
        offline: bool,
        /// Send a test message over every channel
        #[arg(long)]
        send: bool,
    },
    /// How the targets are
    Status {
        /// As JSON, for machines
        #[arg(long, conflicts_with = "watch")]
        json: bool,
        /// Again every two seconds, until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// How it went: uptime, incidents, what cured them, and what they have in common
    Report {
        /// How far back, 90 days at most
        #[arg(long, value_name = "TIME", default_value = "30d", value_parser = report_length)]
        since: Duration,
        /// As JSON, for machines
        #[arg(long)]
        json: bool,
    },
    /// One incident with its evidence, or a list of all
    Incident {
        /// Its name, or `last` [default: a list of all]
        id: Option<String>,
        /// As JSON, for machines
        #[arg(long)]
        json: bool,
    },
    /// Restart nothing for a while
    Pause {
        /// The targets [default: all]
        #[arg(value_name = "TARGET")]
        targets: Vec<String>,
        /// For how long, 24 h at most
        #[arg(long = "for", value_name = "TIME", default_value = "30m", value_parser = pause_length)]
        length: Duration,
        /// Run this meanwhile, and end the pause with it
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// End a pause; of a named target also its waits
    Resume {
        /// The targets [default: all]
        #[arg(value_name = "TARGET")]
        targets: Vec<String>,
    },
    /// Write a configuration for the PM2 setup found here
    Init {
        /// PM2's home [default: $PM2_HOME, else ~/.pm2]
        #[arg(long, value_name = "DIR")]
        pm2_home: Option<PathBuf>,
        /// Print the configuration and write nothing
        #[arg(long)]
        stdout: bool,
        /// Also over a file that is there, or under a web root
        #[arg(long)]
        force: bool,
    },
    /// Watch a real backend freeze and come back, in about 15 seconds
    Demo {
        /// Be the backend of the demo, on this file's behalf
        #[arg(long, hide = true, value_name = "FOLDER")]
        backend: Option<PathBuf>,
    },
    /// Completions for a shell, to be sourced by it
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// What is kept reaches back 90 days; less than an hour is in no bucket.
fn report_length(text: &str) -> Result<Duration, String> {
    let length = humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 30d or 12h"))?;
    match length.as_secs() {
        0..3_600 => Err("a report is of an hour at least".into()),
        3_600..=7_776_000 => Ok(length),
        _ => Err("what is known reaches back 90 days at most".into()),
    }
}

/// A day at most, as the contract has it.
fn pause_length(text: &str) -> Result<Duration, String> {
    let length = humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 30m or 1h 30m"))?;
    match length {
        Duration::ZERO => Err("a pause of no length does nothing".into()),
        _ if length > Duration::from_secs(86_400) => Err("a pause lasts 24 h at most".into()),
        _ => Ok(length),
    }
}

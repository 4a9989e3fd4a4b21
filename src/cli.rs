//! The command line: its commands, options and help texts.
//! It must never act on what it parses; `commands` does.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

/// Notices when a backend is dead, frozen or wrong, repairs it with your own commands, and never makes it worse.
#[derive(Debug, Parser)]
#[command(name = "watchdog-agent", bin_name = "watchdog", version, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done or all well, 1 a target is in trouble, 2 wrong usage or invalid configuration, \
                  3 no watchdog is running, 4 a system error, 5 another watchdog holds the state folder."
)]
pub struct Args {
    /// Make one tick: probe each target, repair what is due, exit (for cron)
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// Accepted before and after each command.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The configuration file [default: $WATCHDOG_CONFIG, ./watchdog.yaml, ~/watchdog.yaml,
    /// ~/.config/watchdog/watchdog.yaml]
    #[arg(short, long, value_name = "FILE", global = true, display_order = 100)]
    pub config: Option<PathBuf>,
    /// Log every probe
    #[arg(short, long, global = true, display_order = 101)]
    pub verbose: bool,
    /// Print errors only
    #[arg(short, long, global = true, display_order = 102, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Decide and record, but run no restart command and send no message
    #[arg(long, global = true, display_order = 103)]
    pub dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run in the foreground until SIGTERM or SIGINT (the default)
    Run {
        /// Leave the session of the parent process, and report to it when the watchdog is running
        #[arg(long, hide = true)]
        detached: bool,
    },
    /// Start a watchdog in the background, unless one is running
    Start {
        /// For crontab: print nothing unless a watchdog had to be started; start none after `watchdog stop`
        #[arg(long)]
        cron: bool,
    },
    /// Stop the running watchdog
    Stop,
    /// Have the running watchdog read its configuration again
    Reload,
    /// Check the configuration and this machine, print what would happen, change nothing
    Check {
        /// Probe no target
        #[arg(long)]
        offline: bool,
        /// Send a test message over every channel
        #[arg(long)]
        send: bool,
    },
    /// Show the state of each target
    Status {
        /// Print JSON
        #[arg(long, conflicts_with = "watch")]
        json: bool,
        /// Refresh every 2 seconds until q or Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Show uptime, incidents, what cured them, and what they have in common
    Report {
        /// Period to report, at most 90 days
        #[arg(long, value_name = "TIME", default_value = "30d", value_parser = parse_report_length)]
        since: Duration,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one incident with its evidence, or list all
    Incident {
        /// The incident's id, or `last` [default: list all]
        id: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the log's last lines, those of one target if it is named
    Log {
        /// The target whose lines to show [default: all lines]
        target: Option<String>,
        /// How many lines
        #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 50)]
        lines: usize,
        /// Show new lines as they are written, until Ctrl-C
        #[arg(short, long)]
        follow: bool,
    },
    /// Suspend restarts and messages for a while; probing continues
    Pause {
        /// The targets to pause [default: all]
        #[arg(value_name = "TARGET")]
        targets: Vec<String>,
        /// Length of the pause, at most 24 h
        #[arg(long = "for", value_name = "TIME", default_value = "30m", value_parser = parse_pause_length)]
        length: Duration,
        /// Run this command, and end the pause when it exits
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// End pauses; for a named target, also clear what its next restart waits for
    Resume {
        /// The targets to resume [default: all]
        #[arg(value_name = "TARGET")]
        targets: Vec<String>,
    },
    /// Restart a target now, within its limits, and wait until it is healthy
    Restart {
        /// The target to restart
        target: String,
    },
    /// Stop a target's process in PM2, and watch how it is found and repaired: a fire drill
    Drill {
        /// The target, which must be healthy
        target: String,
        /// Do not ask first
        #[arg(long)]
        yes: bool,
    },
    /// Write a configuration for the PM2 setup found on this machine
    Init {
        /// PM2's home [default: $PM2_HOME, else ~/.pm2]
        #[arg(long, value_name = "DIR")]
        pm2_home: Option<PathBuf>,
        /// Print the configuration instead of writing it
        #[arg(long)]
        stdout: bool,
        /// Overwrite an existing file, or write below a web root
        #[arg(long)]
        force: bool,
    },
    /// Watch a real backend freeze and recover, in about 15 seconds
    Demo {
        /// Run as the demo's backend, with its files in this folder
        #[arg(long, hide = true, value_name = "FOLDER")]
        backend: Option<PathBuf>,
    },
    /// Print completions for a shell
    Completions {
        /// The shell to complete for
        shell: Shell,
    },
}

/// Parses the arguments of this process; prints help or an error and exits where they ask for it.
pub fn parse() -> Args {
    Args::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit())
}

/// The command line, with each option shown only in the help of the commands for which it has a meaning.
/// All commands accept all options: scripts may pass them everywhere.
pub fn command() -> Command {
    let command = Args::command();
    let global: Vec<Arg> = command.get_arguments().filter(|option| option.is_global_set()).cloned().collect();
    command.mut_subcommands(|verb| {
        let ignored: &[&str] = match verb.get_name() {
            "run" | "start" => &[],
            "demo" | "completions" => &["config", "verbose", "quiet", "dry_run"],
            _ => &["verbose", "quiet", "dry_run"],
        };
        // An option that a command declares itself replaces the global one.
        let hidden = global.iter().filter(|option| ignored.contains(&option.get_id().as_str()));
        let hidden: Vec<Arg> = hidden.map(|option| option.clone().hide(true)).collect();
        verb.args(hidden)
    })
}

/// The history goes back 90 days, and its smallest unit is an hour.
fn parse_report_length(text: &str) -> Result<Duration, String> {
    let length = humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 30d or 12h"))?;
    match length.as_secs() {
        0..3_600 => Err("a report covers at least 1 h".into()),
        3_600..=7_776_000 => Ok(length),
        _ => Err("the history goes back at most 90 days".into()),
    }
}

/// At most a day, as the contract says.
fn parse_pause_length(text: &str) -> Result<Duration, String> {
    let length = humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 30m or 1h 30m"))?;
    match length {
        Duration::ZERO => Err("a pause must be longer than 0 s".into()),
        _ if length > Duration::from_secs(86_400) => Err("a pause lasts at most 24 h".into()),
        _ => Ok(length),
    }
}

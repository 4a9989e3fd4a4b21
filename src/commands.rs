//! The subcommands, one module each: they bring the rooms together for one purpose and turn the end into an exit code.

mod check;
mod completions;
mod cron_mail;
mod demo;
mod ecosystem;
mod foreign;
mod holder;
mod incident;
mod init;
mod other_watchers;
mod pause;
mod report;
mod run;
mod stale_daemon;
mod start;
mod status;
mod stop;

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::{self, Args, Options, Verb};
use crate::clock;
use crate::config::{self, Config, Errors};
use crate::logging::Verbosity;
use crate::store::{BootClockReading, Folder};
use crate::terminal::{escaped, write_line};

use cron_mail::{complain_to_cron, complain_to_cron_of, complaints, forget_complaints};

/// The contract's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Done = 0,
    /// Some target is in trouble, or something would not work as configured.
    Trouble = 1,
    /// Wrong use, or a configuration that is not valid; nothing was done.
    Usage = 2,
    NotRunning = 3,
    Machine = 4,
    /// Another watchdog holds the state folder.
    Held = 5,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> ExitCode {
        ExitCode::from(code as u8)
    }
}

pub fn main() -> ExitCode {
    let Args { once, options, verb } = cli::parse();
    let takes_dry_run = matches!(verb, None | Some(Verb::Run { .. } | Verb::Start { .. }));
    if options.dry_run && !takes_dry_run {
        return complain("--dry-run goes with run, --once and start", Code::Usage).into();
    }
    if once && !matches!(verb, None | Some(Verb::Run { detached: false })) {
        return complain("--once is a verb of its own: it goes with no other", Code::Usage).into();
    }
    let ended = match verb {
        None | Some(Verb::Run { detached: false }) if once => run::once(&options),
        None | Some(Verb::Run { detached: false }) => run::foreground(&options),
        Some(Verb::Run { detached: true }) => run::detached(&options),
        Some(Verb::Start { cron }) => start::start(&options, cron),
        Some(Verb::Stop) => stop::stop(&options),
        Some(Verb::Check { offline, send }) => check::check(&options, offline, send),
        Some(Verb::Status { json, watch }) => status::status(&options, json, watch),
        Some(Verb::Report { since, json }) => report::report(&options, since, json),
        Some(Verb::Incident { id, json }) => incident::incident(&options, id.as_deref(), json),
        Some(Verb::Pause { targets, length, command }) => return pause::pause(&options, targets, length, command),
        Some(Verb::Resume { targets }) => pause::resume(&options, targets),
        Some(Verb::Init { pm2_home, stdout, force }) => Ok(init::init(&options, pm2_home, stdout, force)),
        Some(Verb::Demo { backend: None }) => Ok(demo::demo()),
        Some(Verb::Demo { backend: Some(folder) }) => Ok(demo::backend(&folder)),
        Some(Verb::Completions { shell }) => Ok(completions::completions(shell)),
    };
    ended.unwrap_or_else(|code| code).into()
}

/// Says on standard error why it is not done.
fn complain(text: &str, code: Code) -> Code {
    write_line(io::stderr(), &format!("watchdog: {text}"));
    code
}

fn say(text: &str) {
    write_line(io::stdout(), text);
}

fn machine_failed(error: impl Display) -> Code {
    complain(&error.to_string(), Code::Machine)
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn now() -> BootClockReading {
    BootClockReading { at: clock::read(), boot_id: clock::boot_id() }
}

/// A path as people write it, `~` for their home, and without power over a terminal.
fn tilde(path: &Path) -> String {
    let below = config::home(&environment).and_then(|home| path.strip_prefix(home).ok().map(Path::to_owned));
    let text = match below {
        Some(below) if below.as_os_str().is_empty() => "~".to_owned(),
        Some(below) => format!("~/{}", below.display()),
        None => path.display().to_string(),
    };
    escaped(&text).into_owned()
}

/// The configuration that the command line means. `consequence`: what follows where it is not valid.
fn load(options: &Options, consequence: &str) -> Result<Config, Code> {
    try_load(options).map_err(|errors| {
        write_line(io::stderr(), &format!("{errors}\n{consequence}"));
        Code::Usage
    })
}

fn load_for_cron(options: &Options, consequence: &str) -> Result<Config, Code> {
    try_load(options).map_err(|errors| complain_to_cron(&format!("{errors}\n{consequence}"), Code::Usage))
}

fn try_load(options: &Options) -> Result<Config, Errors> {
    let path = config::find(options.config.as_deref(), &environment)?;
    let mut config = Config::load(&path, &environment)?;
    if options.dry_run {
        config.set_dry_run();
    }
    Ok(config)
}

/// The state folder that the command line means, with the configuration where there is a valid one. Those who ask a
/// watchdog that is at work must get their answer also while its configuration is being written.
fn state_folder(options: &Options) -> Result<(Folder, Option<Config>), Code> {
    state_folder_and_path(options).map(|(folder, config, _)| (folder, config))
}

/// The same, with the path of the configuration where one is named or found, valid or not.
fn state_folder_and_path(options: &Options) -> Result<(Folder, Option<Config>, Option<PathBuf>), Code> {
    let found = config::find(options.config.as_deref(), &environment);
    let is_named = config::named(options.config.as_deref(), &environment).is_some();
    let default = || config::default_state_dir(&environment);
    let default = || default().map_err(|errors| complain(&errors.to_string(), Code::Usage));
    let Ok(path) = found else { return Ok((Folder::at(&default()?), None, None)) };
    let absolute = config::absolute(&path, &environment).ok();
    match Config::load(&path, &environment) {
        Ok(config) => Ok((Folder::at(&config.state_dir), Some(config), absolute)),
        Err(errors) => {
            let owner = config::other_owner(&path);
            let (folder, which) = match Config::state_dir_of(&path, &environment) {
                Some(folder) => (folder, "its state folder"),
                // Whoever names one means that one's watchdog and no other; of another account's none is ours.
                None if is_named || owner.is_some() => {
                    let advice = owner.map_or_else(String::new, |uid| format!("; do it as uid {uid}"));
                    let consequence = format!("its state folder is not known, so nothing was done{advice}");
                    write_line(io::stderr(), &format!("{errors}\n{consequence}"));
                    return Err(Code::Usage);
                }
                None => (default()?, "the default state folder"),
            };
            let consequence = format!("the configuration is not valid; going by {which}, {}", folder.display());
            write_line(io::stderr(), &format!("{errors}\n{consequence}"));
            Ok((Folder::at(&folder), None, absolute))
        }
    }
}

fn verbosity(options: &Options) -> Verbosity {
    match (options.verbose, options.quiet) {
        (true, _) => Verbosity::Verbose,
        (false, true) => Verbosity::Quiet,
        (false, false) => Verbosity::Configured,
    }
}

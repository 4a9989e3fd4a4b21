//! The subcommands, one module each: they combine the other modules for one purpose, and return an exit code. They must
//! never decide what is done to a target.

mod check;
mod completions;
mod cron_mail;
mod demo;
mod drill;
mod ecosystem;
mod foreign;
mod holder;
mod incident;
mod init;
mod log;
mod other_watchers;
mod pause;
mod program;
mod reload;
mod report;
mod restart;
mod run;
mod schedule;
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

use cron_mail::{daily_filter, forget_printed, print_daily, print_daily_in};

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
        return print_error("--dry-run is only valid with run, --once and start", Code::Usage).into();
    }
    if once && !matches!(verb, None | Some(Verb::Run { detached: false })) {
        return print_error("--once cannot be combined with a subcommand", Code::Usage).into();
    }
    let result = match verb {
        None | Some(Verb::Run { detached: false }) if once => run::once(&options),
        None | Some(Verb::Run { detached: false }) => run::foreground(&options),
        Some(Verb::Run { detached: true }) => run::detached(&options),
        Some(Verb::Start { cron }) => start::start(&options, cron),
        Some(Verb::Stop) => stop::stop(&options),
        Some(Verb::Reload) => reload::reload(&options),
        Some(Verb::Check { offline, send }) => check::check(&options, offline, send),
        Some(Verb::Status { json, watch }) => status::status(&options, json, watch),
        Some(Verb::Report { since, json }) => report::report(&options, since, json),
        Some(Verb::Incident { id, json }) => incident::incident(&options, id.as_deref(), json),
        Some(Verb::Log { target, lines, follow }) => log::log(&options, target.as_deref(), lines, follow),
        Some(Verb::Pause { targets, length, command }) => return pause::pause(&options, targets, length, command),
        Some(Verb::Resume { targets }) => pause::resume(&options, targets),
        Some(Verb::Restart { target }) => restart::restart(&options, &target),
        Some(Verb::Drill { target, yes }) => drill::drill(&options, &target, yes),
        Some(Verb::Init { pm2_home, stdout, force }) => Ok(init::init(&options, pm2_home, stdout, force)),
        Some(Verb::Demo { backend: None }) => Ok(demo::demo()),
        Some(Verb::Demo { backend: Some(folder) }) => Ok(demo::backend(&folder)),
        Some(Verb::Completions { shell }) => Ok(completions::completions(shell)),
    };
    result.unwrap_or_else(|code| code).into()
}

fn print_error(text: &str, code: Code) -> Code {
    write_line(io::stderr(), &format!("watchdog: {text}"));
    code
}

fn print(text: &str) {
    write_line(io::stdout(), text);
}

fn print_machine_error(error: impl Display) -> Code {
    print_error(&error.to_string(), Code::Machine)
}

/// Prints that no target has this name, and which there are.
fn unknown_target(name: &str, mut known: Vec<String>) -> Code {
    known.sort();
    known.dedup();
    let known = match known.is_empty() {
        true => "no targets are known".into(),
        false => format!("known targets: {}", known.join(", ")),
    };
    print_error(&escaped(&format!("no target `{name}`; {known}")), Code::Usage)
}

fn read_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn read_boot_clock() -> BootClockReading {
    BootClockReading { at: clock::read(), boot_id: clock::boot_id() }
}

/// A path with `~` for the home folder, escaped for a terminal.
fn shorten_home(path: &Path) -> String {
    let below = config::home(&read_env).and_then(|home| path.strip_prefix(home).ok().map(Path::to_owned));
    let text = match below {
        Some(below) if below.as_os_str().is_empty() => "~".to_owned(),
        Some(below) => format!("~/{}", below.display()),
        None => path.display().to_string(),
    };
    escaped(&text).into_owned()
}

/// Loads the configuration, or prints its errors, followed by `consequence`.
fn load(options: &Options, consequence: &str) -> Result<Config, Code> {
    try_load(options).map_err(|errors| {
        write_line(io::stderr(), &format!("{errors}\n{consequence}"));
        Code::Usage
    })
}

fn load_for_cron(options: &Options, consequence: &str) -> Result<Config, Code> {
    try_load(options).map_err(|errors| print_daily(&format!("{errors}\n{consequence}"), Code::Usage))
}

fn try_load(options: &Options) -> Result<Config, Errors> {
    let path = config::find(options.config.as_deref(), &read_env)?;
    let mut config = Config::load(&path, &read_env)?;
    if options.dry_run {
        config.set_dry_run();
    }
    Ok(config)
}

/// The state folder, with the configuration if it is valid. An invalid one is no error here, so that questions to a
/// running watchdog are answered while its configuration is being edited.
fn state_folder(options: &Options) -> Result<(Folder, Option<Config>), Code> {
    let location = locate(options)?;
    location.print_errors();
    Ok((location.folder, location.config))
}

/// What a command line refers to.
struct Location {
    folder: Folder,
    config: Option<Config>,
    /// The configuration, valid or not; none if none is given or found.
    path: Option<PathBuf>,
    /// The same as the command line or the search names it, which is how errors show it.
    shown: Option<PathBuf>,
    /// What is wrong with the configuration, and which folder is used instead of the one that it may name.
    errors: Option<String>,
}

impl Location {
    fn print_errors(&self) {
        self.errors.iter().for_each(|errors| _ = write_line(io::stderr(), errors));
    }
}

/// Finds the state folder, and prints nothing unless that is impossible.
fn locate(options: &Options) -> Result<Location, Code> {
    let found = config::find(options.config.as_deref(), &read_env);
    let is_named = config::explicit_path(options.config.as_deref(), &read_env).is_some();
    let default =
        || config::default_state_dir(&read_env).map_err(|errors| print_error(&errors.to_string(), Code::Usage));
    let Ok(path) = found else {
        return Ok(Location { folder: Folder::at(&default()?), config: None, path: None, shown: None, errors: None });
    };
    let absolute = config::absolute(&path, &read_env).ok();
    let location = |folder: &Path, config, errors| Location {
        folder: Folder::at(folder),
        config,
        path: absolute,
        shown: Some(path.clone()),
        errors,
    };
    match Config::load(&path, &read_env) {
        Ok(config) => Ok(location(&config.state_dir.clone(), Some(config), None)),
        Err(errors) => {
            let owner = config::other_owner(&path);
            let (folder, which) = match Config::state_dir_of(&path, &read_env) {
                Some(folder) => (folder, "its state folder"),
                // Not the default folder: a named configuration means its own watchdog and no other, and the default
                // folder of this account has nothing to do with the configuration of another account.
                None if is_named || owner.is_some() => {
                    let advice = owner.map_or_else(String::new, |uid| format!("; run this command as uid {uid}"));
                    let consequence = format!("its state folder is unknown, so nothing was done{advice}");
                    write_line(io::stderr(), &format!("{errors}\n{consequence}"));
                    return Err(Code::Usage);
                }
                None => (default()?, "the default state folder"),
            };
            let consequence = format!("the configuration is not valid; using {which}, {}", folder.display());
            Ok(location(&folder, None, Some(format!("{errors}\n{consequence}"))))
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

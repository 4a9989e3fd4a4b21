//! `init`: writes a configuration for the PM2 setup of this account. It must start and stop nothing, not run pm2 while
//! no daemon runs (that would start one), and copy nothing from a process's environment but its port.

mod destination;
mod file;
mod health;
mod path;
mod survey;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::Options;
use crate::command::shell_quote;
use crate::config::{self, Config};
use crate::outcome::describe_io_error;
use crate::terminal::{escaped, write_line};

use super::{Code, print_error, program, read_env, shorten_home};

use self::destination::WriteRefusal;
use self::survey::{Decision, Survey, WatchedProcess};

pub(super) fn init(options: &Options, pm2_home: Option<PathBuf>, to_stdout: bool, force: bool) -> Code {
    let Some(path) = destination::choose_path(options.config.as_deref()) else {
        return print_error("home folder unknown: name the file with -c (nothing was written)", Code::Usage);
    };
    if !to_stdout && let Err(refusal) = destination::check_path(&path, force) {
        return print_refusal(&refusal);
    }
    let survey = match survey(pm2_home) {
        Ok(survey) => survey,
        Err(why) => return print_error(&format!("{why} (nothing was written)"), Code::Usage),
    };
    let text = file::render(&survey.to_config_file());
    if to_stdout {
        write_line(io::stderr(), &describe_survey(&survey));
        write_line(io::stderr(), &format!("Nothing was written. Next: put this into {}", shorten_home(&path)));
        write_line(io::stdout(), text.trim_end());
        return Code::Done;
    }
    if let Err(refusal) = destination::write(&path, &text, force) {
        return print_refusal(&refusal);
    }
    super::print(&describe_survey(&survey));
    super::print(&describe_result(&survey, &path, text.lines().count()));
    program::describe_unstable_path().iter().for_each(|warning| super::print(warning));
    Code::Done
}

fn print_refusal(refusal: &WriteRefusal) -> Code {
    match refusal {
        WriteRefusal::Unwanted(why) => print_error(&format!("{why} (nothing was written)"), Code::Usage),
        WriteRefusal::Impossible(why) => print_error(&format!("{why} (nothing was written)"), Code::Machine),
    }
}

fn survey(pm2_home: Option<PathBuf>) -> Result<Survey, String> {
    let own_home = config::home(&read_env);
    let usual = own_home.as_ref().map(|home| home.join(".pm2"));
    let named = pm2_home.is_some();
    let from_shell = || read_env("PM2_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let Some(home) = pm2_home.or_else(from_shell).or_else(|| usual.clone()) else {
        return Err("home folder unknown: name PM2's with --pm2-home".into());
    };
    let home = std::path::absolute(&home)
        .map_err(|error| format!("{}: {}", shorten_home(&home), describe_io_error(&error)))?;
    if named && !home.is_dir() {
        return Err(format!("{} is not a folder, so it cannot be PM2's home", shorten_home(&home)));
    }
    if let Some(max) = config::home_is_too_long(&home) {
        return Err(format!("{} is too long for a PM2 home: at most {max} bytes", shorten_home(&home)));
    }
    if home.to_str().is_none() {
        return Err(format!("{} cannot be written into a configuration: it is not UTF-8", shorten_home(&home)));
    }
    let is_usual = usual.as_deref() == Some(home.as_path());
    Ok(survey::take_survey(&home, is_usual, own_home.as_deref()))
}

fn describe_survey(survey: &Survey) -> String {
    let home = shorten_home(&survey.home);
    let (count, saved) = (survey.entries.len(), survey.entries.iter().filter(|entry| entry.is_saved).count());
    let processes = if count == 1 { "1 process".to_owned() } else { format!("{count} processes") };
    let mut lines = match (count, saved) {
        (0, _) if !survey.home.is_dir() => format!("No PM2 found: {home} does not exist."),
        (0, _) => format!("PM2 in {home} has no processes."),
        (_, 0) => format!("PM2 in {home}, {processes}, none saved (run pm2 save, or a reboot loses them):"),
        _ if saved == count => format!("PM2 in {home}, {processes} saved:"),
        _ => format!("PM2 in {home}, {processes}, {saved} of them saved (pm2 save saves the others):"),
    };
    let rows: Vec<[String; 3]> =
        survey.entries.iter().map(|entry| describe_entry(&entry.name, &entry.decision)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    for [name, found, fate] in &rows {
        let row = format!("  {name:<first$}   {found:<second$}   {fate}");
        let _ = write!(lines, "\n{}", row.trim_end()); // writing to a String cannot fail
    }
    for note in &survey.notes {
        let _ = write!(lines, "\n{}", escaped(note)); // as above
    }
    lines
}

fn describe_entry(name: &str, fate: &Decision) -> [String; 3] {
    let (found, fate) = match fate {
        Decision::Watched(WatchedProcess { health: Some(health), .. }) => {
            (format!("port {}, GET {} answers {}", health.port, health.path, escaped(&health.answer)), "watched")
        }
        Decision::Watched(WatchedProcess { ports, .. }) if ports.is_empty() => {
            ("no port found: PM2's state is the only probe".into(), "watched")
        }
        Decision::Watched(WatchedProcess { ports, .. }) => {
            let numbers: Vec<String> = ports.iter().map(u16::to_string).collect();
            let (word, numbers) = (if ports.len() == 1 { "port" } else { "ports" }, numbers.join(", "));
            (format!("{word} {numbers}, no health address answers: PM2's state is the only probe"), "watched")
        }
        Decision::OldWatcher(script) if script.is_empty() => ("this is what you are replacing".into(), "not watched"),
        Decision::OldWatcher(script) => (format!("{}: this is what you are replacing", escaped(script)), "not watched"),
        Decision::Job => ("a job: it ends when its work is done (autorestart: false)".into(), "not watched"),
        Decision::Module => ("a PM2 module".into(), "not watched"),
        Decision::InvalidName(why) => (format!("its name {why}"), "not watched"),
    };
    [escaped(name).into_owned(), found, fate.to_owned()]
}

fn describe_result(survey: &Survey, path: &Path, lines: usize) -> String {
    let (shown, next) = (shorten_home(path), next_command(path));
    let wrote = format!("Wrote {shown} ({lines} lines, readable by you only). Nothing was started or stopped.");
    // Loaded as the watchdog will load it, so that an unsafe folder is reported now.
    if let Err(errors) = Config::load(path, &read_env) {
        return format!("{wrote}\nThe watchdog would refuse it:\n{errors}\nNext: fix that, then run: {next}");
    }
    if survey.entries.iter().any(|entry| matches!(entry.decision, Decision::Watched(_))) {
        return format!("{wrote} Next: {next}");
    }
    format!("{wrote} It is an example.\nNext: put your own address and command into it, then run: {next}")
}

fn next_command(path: &Path) -> String {
    let found = config::find(None, &read_env).ok().and_then(|found| found.canonicalize().ok());
    if found.is_some() && found == path.canonicalize().ok() {
        return "watchdog check".into();
    }
    let path = path.display().to_string();
    format!("watchdog check -c {}", escaped(&shell_quote(&path)))
}

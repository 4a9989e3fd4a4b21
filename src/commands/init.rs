//! `init`: writes a configuration for the PM2 setup that is found here. It must start and stop nothing, run no pm2
//! where no daemon is (that would start one), and let nothing of an environment reach the file or the screen.

mod destination;
mod file;
mod health;
mod path;
mod survey;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::Options;
use crate::command::for_shell;
use crate::config::{self, Config};
use crate::outcome::describe_io_error;
use crate::terminal::{escaped, write_line};

use super::{Code, complain, environment, tilde};

use self::destination::WriteRefusal;
use self::survey::{Fate, Survey, WatchedProcess};

pub(super) fn init(options: &Options, pm2_home: Option<PathBuf>, to_stdout: bool, force: bool) -> Code {
    let Some(path) = destination::chosen(options.config.as_deref()) else {
        return complain("no home folder is known: name the file with -c (nothing was written)", Code::Usage);
    };
    if !to_stdout && let Err(refusal) = destination::look(&path, force) {
        return refuse(&refusal);
    }
    let survey = match survey(pm2_home) {
        Ok(survey) => survey,
        Err(why) => return complain(&format!("{why} (nothing was written)"), Code::Usage),
    };
    let text = file::text(&survey.file());
    if to_stdout {
        write_line(io::stderr(), &screen(&survey));
        write_line(io::stderr(), &format!("Nothing was written. Next: put this into {}", tilde(&path)));
        write_line(io::stdout(), text.trim_end());
        return Code::Done;
    }
    if let Err(refusal) = destination::write(&path, &text, force) {
        return refuse(&refusal);
    }
    super::say(&screen(&survey));
    super::say(&end(&survey, &path, text.lines().count()));
    Code::Done
}

fn refuse(refusal: &WriteRefusal) -> Code {
    match refusal {
        WriteRefusal::Unwanted(why) => complain(&format!("{why} (nothing was written)"), Code::Usage),
        WriteRefusal::Impossible(why) => complain(&format!("{why} (nothing was written)"), Code::Machine),
    }
}

fn survey(pm2_home: Option<PathBuf>) -> Result<Survey, String> {
    let own_home = config::home(&environment);
    let usual = own_home.as_ref().map(|home| home.join(".pm2"));
    let named = pm2_home.is_some();
    let from_shell = || environment("PM2_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let Some(home) = pm2_home.or_else(from_shell).or_else(|| usual.clone()) else {
        return Err("no home folder is known: name PM2's with --pm2-home".into());
    };
    let home =
        std::path::absolute(&home).map_err(|error| format!("{}: {}", tilde(&home), describe_io_error(&error)))?;
    if named && !home.is_dir() {
        return Err(format!("{} is no folder: PM2 cannot have its home there", tilde(&home)));
    }
    if let Some(most) = config::home_is_too_long(&home) {
        return Err(format!("{} is too long for a home of PM2's: at most {most} bytes in all", tilde(&home)));
    }
    if home.to_str().is_none() {
        return Err(format!("{} cannot be written into a configuration: it is no UTF-8 text", tilde(&home)));
    }
    let is_usual = usual.as_deref() == Some(home.as_path());
    Ok(survey::survey(&home, is_usual, own_home.as_deref()))
}

fn screen(survey: &Survey) -> String {
    let home = tilde(&survey.home);
    let (count, saved) = (survey.entries.len(), survey.entries.iter().filter(|entry| entry.is_saved).count());
    let processes = if count == 1 { "1 process".to_owned() } else { format!("{count} processes") };
    let mut lines = match (count, saved) {
        (0, _) if !survey.home.is_dir() => format!("No PM2 was found: there is no {home}."),
        (0, _) => format!("PM2 in {home} has no processes."),
        (_, 0) => format!("PM2 in {home}, {processes}, none saved (run pm2 save, or a reboot loses them):"),
        _ if saved == count => format!("PM2 in {home}, {processes} saved:"),
        _ => format!("PM2 in {home}, {processes}, {saved} of them saved (pm2 save saves the others):"),
    };
    let rows: Vec<[String; 3]> = survey.entries.iter().map(|entry| row(&entry.name, &entry.fate)).collect();
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

fn row(name: &str, fate: &Fate) -> [String; 3] {
    let (found, fate) = match fate {
        Fate::Watched(WatchedProcess { health: Some(health), .. }) => {
            (format!("port {}, GET {} answers {}", health.port, health.path, escaped(&health.answer)), "watched")
        }
        Fate::Watched(WatchedProcess { ports, .. }) if ports.is_empty() => {
            ("no port found: watched by PM2 alone".into(), "watched")
        }
        Fate::Watched(WatchedProcess { ports, .. }) => {
            let numbers: Vec<String> = ports.iter().map(u16::to_string).collect();
            let (word, numbers) = (if ports.len() == 1 { "port" } else { "ports" }, numbers.join(", "));
            (format!("{word} {numbers}, no health address answers: watched by PM2 alone"), "watched")
        }
        Fate::Rival(script) if script.is_empty() => ("this is what you are replacing".into(), "not watched"),
        Fate::Rival(script) => (format!("{}: this is what you are replacing", escaped(script)), "not watched"),
        Fate::Job => ("a job: it ends when its work is done (autorestart: false)".into(), "not watched"),
        Fate::Module => ("a module of PM2's".into(), "not watched"),
        Fate::Unnameable(why) => (format!("its name {why}"), "not watched"),
    };
    [escaped(name).into_owned(), found, fate.to_owned()]
}

fn end(survey: &Survey, path: &Path, lines: usize) -> String {
    let (shown, next) = (tilde(path), next(path));
    let wrote = format!("Wrote {shown} ({lines} lines, readable by you only). Nothing was started or stopped.");
    // It is read once more as the next one will: what is wrong with its folder is better told now.
    if let Err(errors) = Config::load(path, &environment) {
        return format!("{wrote}\nIt will not be obeyed yet:\n{errors}\nNext: mend that, then: {next}");
    }
    if survey.entries.iter().any(|entry| matches!(entry.fate, Fate::Watched(_))) {
        return format!("{wrote} Next: {next}");
    }
    format!("{wrote} It is an example.\nNext: put your own address and command into it, then: {next}")
}

fn next(path: &Path) -> String {
    let found = config::find(None, &environment).ok().and_then(|found| found.canonicalize().ok());
    if found.is_some() && found == path.canonicalize().ok() {
        return "watchdog check".into();
    }
    let path = path.display().to_string();
    format!("watchdog check -c {}", escaped(&for_shell(&path)))
}

//! The account's crontab and its jobs. It must never change the crontab, and never take one that cannot be read for an
//! empty one.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::time::Duration;

use crate::command::{self, CommandSpec, Leftovers, MAX_OUTPUT, Scope};
use crate::outcome::Exit;

const CRONTAB_TIMEOUT: Duration = Duration::from_secs(5);

pub(in crate::commands) enum Crontab {
    Lines(String),
    /// This account has none.
    Empty,
    /// Why it is unknown what is in it.
    Unreadable(String),
}

/// A job of a crontab.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::commands) struct Job<'a> {
    /// Its five fields, or a word such as `@reboot`.
    pub(in crate::commands) schedule: String,
    pub(in crate::commands) command: &'a str,
    /// The environment settings above it.
    pub(in crate::commands) env: BTreeMap<&'a str, &'a str>,
}

impl Crontab {
    /// Asks `crontab -l`.
    pub(in crate::commands) fn read() -> Crontab {
        let (output, mut reader) = match command::create_memory_output().and_then(|file| Ok((file.try_clone()?, file)))
        {
            Ok(files) => files,
            Err(error) => return Crontab::Unreadable(error.to_string()),
        };
        let argv = ["crontab", "-l"].map(str::to_owned).into();
        let (folder, unset, env) = (PathBuf::from("/"), Vec::new(), vec![("LC_ALL".to_owned(), "C".to_owned())]);
        let (scope, leftovers) = (Scope::default(), Leftovers::End);
        let (timeout, max_output, stdin) = (CRONTAB_TIMEOUT, MAX_OUTPUT, None);
        let spec = CommandSpec { argv, folder, unset, env, timeout, max_output, stdin, output, scope, leftovers };
        let exit = command::run(spec, |_| {}).exit;
        let mut bytes = Vec::new();
        if let Err(error) = reader.rewind().and_then(|()| reader.read_to_end(&mut bytes)) {
            return Crontab::Unreadable(error.to_string());
        }
        conclude(&exit, &String::from_utf8_lossy(&bytes))
    }

    pub(in crate::commands) fn jobs(&self) -> Vec<Job<'_>> {
        match self {
            Crontab::Lines(text) => parse_jobs(text),
            Crontab::Empty | Crontab::Unreadable(_) => Vec::new(),
        }
    }
}

fn conclude(exit: &Exit, output: &str) -> Crontab {
    let first = output.lines().next().unwrap_or_default().trim();
    match exit {
        Exit::Exited(0) => Crontab::Lines(output.to_owned()),
        // Vixie's and cronie's crontab; BusyBox's.
        Exit::Exited(_) if first.contains("no crontab for") || first.contains("No such file") => Crontab::Empty,
        Exit::Exited(code) if first.is_empty() => Crontab::Unreadable(format!("crontab -l exited {code}")),
        Exit::Exited(_) => Crontab::Unreadable(first.to_owned()),
        Exit::NotStarted(_) => Crontab::Unreadable("no program crontab here".into()),
        Exit::TimedOut => Crontab::Unreadable("crontab -l does not answer".into()),
        Exit::Killed(_) | Exit::Lost => Crontab::Unreadable("crontab -l was killed".into()),
    }
}

fn parse_jobs(crontab: &str) -> Vec<Job<'_>> {
    let mut env = BTreeMap::new();
    let mut jobs = Vec::new();
    for line in crontab.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some((name, value)) = parse_setting(line) {
            env.insert(name, value);
        } else if let Some((schedule, command)) = split_job(line) {
            jobs.push(Job { schedule, command, env: env.clone() });
        }
    }
    jobs
}

/// `NAME = value`, where either may be quoted.
fn parse_setting(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=').map(|(name, value)| (unquote(name.trim()), unquote(value.trim())))?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then_some((name, value))
}

fn unquote(text: &str) -> &str {
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

/// A line's schedule and its command; none for comments and environment settings.
fn split_job(line: &str) -> Option<(String, &str)> {
    let count = if line.starts_with('@') { 1 } else { 5 };
    let mut rest = line;
    let mut schedule = Vec::new();
    for _ in 0..count {
        let (word, after) = rest.split_once(char::is_whitespace)?;
        // An environment setting, or something else that is no schedule.
        if word.contains('=') || word.starts_with(['"', '\'']) {
            return None;
        }
        schedule.push(word);
        rest = after.trim_start();
    }
    (!rest.is_empty() && !rest.starts_with('=')).then(|| (schedule.join(" "), rest))
}

impl Job<'_> {
    /// The command as cron gives it to the shell: `%` ends it, and `\%` is a `%`.
    pub(super) fn shell_text(&self) -> String {
        let mut text = String::new();
        let mut chars = self.command.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '%' => break,
                '\\' if chars.peek() == Some(&'%') => text.extend(chars.next()),
                _ => text.push(char),
            }
        }
        text
    }

    pub(in crate::commands) fn is_at_boot(&self) -> bool {
        self.schedule == "@reboot"
    }

    /// `every 5 minutes`
    pub(in crate::commands) fn describe_schedule(&self) -> String {
        let fields: Vec<&str> = self.schedule.split(' ').collect();
        let minutes = match fields[..] {
            ["*" | "*/1", "*", "*", "*", "*"] => Some("1"),
            [minute, "*", "*", "*", "*"] => minute.strip_prefix("*/"),
            _ => None,
        };
        match (minutes, &*self.schedule) {
            (Some("1"), _) => "every minute".into(),
            (Some(minutes), _) => format!("every {minutes} minutes"),
            (None, "@reboot") => "after each reboot".into(),
            (None, "@hourly" | "0 * * * *") => "every hour".into(),
            (None, "@daily" | "@midnight") => "every day".into(),
            (None, schedule) => format!("at {schedule}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_have_the_settings_above_them() {
        let text =
            "# * * * * * a\nPATH = \"/usr/bin:/x y\"\n*/5 * * * * b -c 'd'\n\nX=1\n@reboot  c\ngarbage\n* * * * *\n";
        let jobs = parse_jobs(text);
        let shown: Vec<String> =
            jobs.iter().map(|job| format!("{} {}", job.describe_schedule(), job.command)).collect();
        assert_eq!(shown, ["every 5 minutes b -c 'd'", "after each reboot c"]);
        assert_eq!(jobs[0].env, BTreeMap::from([("PATH", "/usr/bin:/x y")]));
        assert_eq!(jobs[1].env.get("X"), Some(&"1"));
    }

    #[test]
    fn a_percent_sign_ends_a_command_unless_it_is_escaped() {
        let text = |command| Job { schedule: String::new(), command, env: BTreeMap::new() }.shell_text();
        assert_eq!(text(r"a '100\%' \n%input"), r"a '100%' \n");
        assert_eq!(text("a"), "a");
    }

    #[test]
    fn an_unreadable_crontab_is_not_an_empty_one() {
        let shown = |exit: Exit, output: &str| match conclude(&exit, output) {
            Crontab::Lines(text) => format!("lines: {text}"),
            Crontab::Empty => "empty".into(),
            Crontab::Unreadable(why) => why,
        };
        assert_eq!(shown(Exit::Exited(0), "x"), "lines: x");
        assert_eq!(shown(Exit::Exited(1), "no crontab for me\n"), "empty");
        assert_eq!(shown(Exit::Exited(1), "crontab: can't open 'me': No such file or directory\n"), "empty");
        let refused = "You (me) are not allowed to use this program (crontab)";
        assert_eq!(shown(Exit::Exited(1), &format!("{refused}\nSee crontab(1)\n")), refused);
        assert_eq!(shown(Exit::Exited(3), ""), "crontab -l exited 3");
        assert_eq!(shown(Exit::NotStarted("x".into()), ""), "no program crontab here");
        assert_eq!(shown(Exit::TimedOut, "* * * * * a"), "crontab -l does not answer");
    }
}

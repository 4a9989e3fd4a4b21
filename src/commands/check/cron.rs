//! What a configuration needs under cron: the programs that cron's short PATH must lead to, and the crontab line. It
//! must never start one of those programs.

use std::ffi::OsString;

use crate::command::{find_with_interpreter, first_program, shell_quote};
use crate::config::{CommandLine, Config, Probe, Remedy};

use crate::commands::schedule::CRON_PATH;
use crate::commands::{print, program};

const PM2: &str = "pm2";
const NODE: &str = "node";

/// Prints which programs cron finds, and returns the problems found.
pub(super) fn report(config: &Config) -> Vec<String> {
    let programs = programs(config);
    if programs.is_empty() {
        return Vec::new();
    }
    let own = config.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| OsString::from(&value.0));
    let here = own.clone().or_else(|| std::env::var_os("PATH"));
    let cron = own.clone().unwrap_or_else(|| CRON_PATH.into());
    let locate_in_cron = |program: &str| find_with_interpreter(program, &config.folder, Some(&cron));
    let through = if own.is_some() { "found through env.PATH" } else { "found" };
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for program in programs {
        match (locate_in_cron(&program), find_with_interpreter(&program, &config.folder, here.as_deref())) {
            (Ok(_), _) => {
                found.push(format!("{program}: {through}"));
                // pm2 is a script that node runs, and node is missing under cron most often.
                let finds_node = program == PM2 && locate_in_cron(NODE).is_ok();
                found.extend(finds_node.then(|| format!("{NODE}: {through}")));
            }
            (Err(why), Ok(_)) => problems.push(format!("under cron: {why}. Fix: set PATH under env:")),
            (Err(why), Err(_)) => problems.push(why),
        }
    }
    if !found.is_empty() {
        print(&format!("In cron (PATH={CRON_PATH})  {}", found.join("   ")));
    }
    problems
}

/// The programs that the configuration's commands start, as far as their first words tell; sorted, each once.
fn programs(config: &Config) -> Vec<String> {
    let mut programs = Vec::new();
    for target in &config.targets {
        let probe = match &target.probe {
            Probe::Command(command) => Some(command),
            Probe::Http(_) | Probe::Tcp { .. } | Probe::File { .. } | Probe::Pm2(_) => None,
        };
        let rungs = target.ladder.iter().filter_map(|rung| match &rung.remedy {
            Remedy::Command(command) => Some(command),
            Remedy::Pm2Restart(_) | Remedy::Pm2Reset(_) => None,
        });
        for command in rungs.chain(&target.only_if).chain(probe) {
            let program = match command {
                CommandLine::Shell(text) => first_program(text).map(str::to_string),
                CommandLine::Exec(words) => words.first().cloned(),
            };
            programs.extend(program);
        }
        programs.extend(target.pm2.iter().map(|_| PM2.to_owned()));
    }
    programs.sort();
    programs.dedup();
    programs
}

/// The crontab line that runs the watchdog with the arguments `what` on the schedule `when`.
pub(in crate::commands) fn crontab_line(config: &Config, when: &str, what: &str) -> String {
    let program = program::path_for_crontab().display().to_string();
    format!("{when} {} {what} -c {}", for_cron(&program), for_cron(&config.path.display().to_string()))
}

/// Quotes a word for the shell and escapes `%`, which cron takes for a line break.
fn for_cron(word: &str) -> String {
    shell_quote(word).replace('%', r"\%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_reaches_the_program_through_cron_and_its_shell() {
        assert_eq!(for_cron("/home/user/bin/watchdog"), "/home/user/bin/watchdog");
        assert_eq!(for_cron("/srv/a b/it's"), r"'/srv/a b/it'\''s'");
        assert_eq!(for_cron("100%"), r"'100\%'");
    }
}

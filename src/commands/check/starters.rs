//! Reports what starts the watchdog: the lines of the crontab and systemd's unit, or else the line to paste. It must
//! never print that line where one like it is already there.

use crate::commands::program::path_for_crontab;
use crate::commands::schedule::{Schedule, Starter, Way};
use crate::commands::{print, read_env, shorten_home};
use crate::config::Config;
use crate::terminal::escaped;

use super::crontab_line;

/// Prints the crontab's lines that are not as `check` would print them, and returns the problems found.
pub(super) fn report(config: &Config, schedule: &Schedule) -> Vec<String> {
    let mut problems = Vec::new();
    for starter in &schedule.starters {
        match starter.has_config(&config.path) {
            true => problems.extend(inspect_own(starter, config)),
            false => problems.extend(inspect_other(starter, config)),
        }
    }
    problems
}

fn inspect_own(starter: &Starter, config: &Config) -> Option<String> {
    let (line, describe) = (paste_line(config), starter.describe());
    let replace = format!("Replace that line (crontab -e) by:\n              {line}");
    let program = match &starter.program {
        Ok(program) => program,
        Err(why) => return Some(format!("your crontab {describe}, but cron cannot: {}. {replace}", escaped(why))),
    };
    if !starter.is_program(&path_for_crontab()) {
        let (other, own) = (shorten_home(program), shorten_home(&path_for_crontab()));
        print(&format!("In crontab  another file of the program {describe}: {other}; this one is {own}"));
    }
    let mails = match starter.way {
        Way::Start => "without --cron it prints a line each time, which cron mails",
        Way::Run => "while one runs, each further one prints an error, which cron mails",
        Way::StartForCron | Way::Once => return None,
    };
    if !starter.is_at_boot {
        print(&format!("In crontab  it {describe}; {mails}. {replace}"));
    }
    None
}

/// A line with another configuration: a problem only if both would need the same state folder.
fn inspect_other(starter: &Starter, config: &Config) -> Option<String> {
    let Some(path) = &starter.config else {
        print(&format!("In crontab  a line {} without a configuration: none is named or found", starter.describe()));
        return None;
    };
    let (shown, when) = (shorten_home(path), &starter.when);
    if Config::state_dir_of(path, &read_env).is_some_and(|folder| folder == config.state_dir) {
        return Some(format!(
            "your crontab starts a watchdog with another configuration {when}, {shown}, whose state folder is this \
             one's too: only one of the two can run. Remove that line (crontab -e), or set another state_dir"
        ));
    }
    print(&format!("In crontab  a watchdog with another configuration {when}: {shown}"));
    None
}

/// The last lines of a `check` that found nothing wrong.
pub(super) fn describe_ready(config: &Config, schedule: &Schedule) -> Vec<String> {
    if let Some(unit) = &schedule.unit {
        return vec![match schedule.describe_no_boot_start(config) {
            None => format!("Ready: systemd starts it ({}).", escaped(&unit.name)),
            Some(but) => format!("Ready, but {}", escaped(&but)),
        }];
    }
    let (at_boot, repeated): (Vec<&Starter>, Vec<&Starter>) =
        schedule.own(config).filter(|starter| starter.can_start()).partition(|starter| starter.is_at_boot);
    let paste = paste_line(config);
    let describe = |starters: &[&Starter]| starters.iter().map(|one| one.describe()).collect::<Vec<_>>().join(" and ");
    match (&repeated[..], &at_boot[..]) {
        ([], []) => vec!["Ready. Paste this into crontab -e, or into your panel's cron jobs:".into(), paste],
        ([], _) => vec![
            format!(
                "Ready, but your crontab {} only, and not after a crash. Replace that line (crontab -e) by:",
                describe(&at_boot)
            ),
            paste,
        ],
        (repeated, _) => vec![format!("Ready: your crontab {}.", describe(repeated))],
    }
}

fn paste_line(config: &Config) -> String {
    crontab_line(config, "* * * * *", "start --cron")
}

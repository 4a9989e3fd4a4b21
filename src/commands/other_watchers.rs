//! Finds other programs that restart PM2's processes: among these processes and in the crontab. It must never run what
//! it examines, nor show more of a process than its name and its script's name.

use std::path::Path;

use crate::pm2::App;

use super::foreign;
use super::schedule::{Crontab, Job, resolve, trim_quotes};

/// Common names of a watcher's script.
const SCRIPT_NAMES: [&str; 4] = ["watchdog", "keep-alive", "keepalive", "keep_alive"];
/// The pm2 commands that a watcher runs.
const PM2_VERBS: [&str; 5] = ["restart", "reload", "start", "resurrect", "delete"];
/// Bytes of a script that are read. Watchers are short scripts.
const MAX_SCRIPT: u64 = 256 << 10;
/// Characters between `pm2` and its command. Without a limit, a minified program, which is one line, would match.
const MAX_VERB_DISTANCE: usize = 60;
/// Characters of a command that are shown.
const MAX_SHOWN: usize = 50;

/// A watcher is recognized by its script. The name of the process proves nothing: a backend may be named `watchdog`.
pub(super) fn is_watcher(app: &App) -> bool {
    is_watcher_script_name(&script_name(app)) || script_calls_pm2(&app.script)
}

fn is_watcher_script_name(name: &str) -> bool {
    let name = name.to_lowercase();
    let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
    SCRIPT_NAMES.iter().any(|watcher| stem == *watcher || stem.ends_with(&format!("-{watcher}")))
}

pub(super) fn script_name(app: &App) -> String {
    app.script.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn script_calls_pm2(path: &Path) -> bool {
    foreign::read(path, MAX_SCRIPT).is_some_and(|text| text.lines().any(|line| find_pm2_call(line).is_some()))
}

/// The position of a pm2 call that changes something, and its command; none in a comment.
fn find_pm2_call(line: &str) -> Option<(usize, &'static str)> {
    let is_comment = ["#", "//", "*", "/*"].iter().any(|mark| line.trim_start().starts_with(mark));
    // ASCII only, so that byte positions stay valid in the original line.
    let line = line.to_ascii_lowercase();
    let is_word_char = |c: char| c.is_alphanumeric() || c == '_';
    let mut calls = line.match_indices("pm2").filter_map(|(at, name)| {
        let rest: String = line[at + name.len()..].chars().take(MAX_VERB_DISTANCE).collect();
        let is_word = !line[..at].ends_with(is_word_char) && !rest.starts_with(is_word_char);
        let verb =
            rest.split(|c: char| !is_word_char(c)).find_map(|word| PM2_VERBS.into_iter().find(|verb| *verb == word));
        verb.filter(|_| is_word).map(|verb| (at, verb))
    });
    calls.next().filter(|_| !is_comment)
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct CronLine {
    /// The pm2 command or the script that it runs.
    pub(super) what: String,
    /// Its schedule, such as `every 5 minutes`.
    pub(super) when: String,
}

/// The crontab lines that restart PM2's processes, except those that run this program, `own`. Relative paths start in
/// `home`, where cron runs its jobs.
pub(super) fn find_in_crontab(crontab: &Crontab, own: &Path, home: &Path) -> Vec<CronLine> {
    crontab.jobs().iter().filter_map(|job| parse_watcher_job(job, own, home)).collect()
}

fn parse_watcher_job(job: &Job<'_>, own: &Path, home: &Path) -> Option<CronLine> {
    let command = job.command;
    let words: Vec<&str> = command.split_whitespace().map(trim_quotes).collect();
    if job.is_at_boot() || is_ours(command, &words, own) {
        return None;
    }
    let watcher_name =
        || words.iter().find(|word| SCRIPT_NAMES[1..].iter().any(|name| word.to_lowercase().contains(name)));
    let what = match find_pm2_call(command) {
        Some((at, verb)) if verb != "delete" => command[at..].split([';', '&', '|', '>']).next()?.trim().to_owned(),
        _ => match watcher_name() {
            Some(word) => file_name(word),
            None => find_script(command, home)?,
        },
    };
    let what = what.chars().take(MAX_SHOWN).collect();
    Some(CronLine { what, when: job.describe_schedule() })
}

fn is_ours(command: &str, words: &[&str], own: &Path) -> bool {
    let runs_us = own.to_str().is_some_and(|own| !own.is_empty() && command.contains(own));
    let by_name = words.iter().any(|word| ["watchdog", "watchdog-agent"].contains(&file_name(word).as_str()));
    runs_us || by_name && words.iter().any(|word| ["--once", "start"].contains(word))
}

/// The name of a script in the command that calls pm2. Files that output is redirected to are not scripts.
fn find_script(command: &str, home: &Path) -> Option<String> {
    let mut folder = home.to_owned();
    let mut previous = "";
    for word in command.split_whitespace() {
        let path = resolve(trim_quotes(word), &folder, home);
        if previous == "cd" {
            folder = path;
        } else if !word.contains('>') && !previous.ends_with('>') && script_calls_pm2(&path) {
            return Some(file_name(trim_quotes(word)));
        }
        previous = word;
    }
    None
}

fn file_name(word: &str) -> String {
    word.rsplit('/').next().unwrap_or(word).to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[track_caller]
    fn check(line: &str, expected: bool) {
        assert_eq!(find_pm2_call(line).is_some(), expected, "{line}");
    }

    #[test]
    fn a_pm2_call_is_distinguished_from_a_mention() {
        check("  exec('pm2 restart sav-backend');", true);
        check("spawn('pm2', ['reload', name])", true);
        check("pm2.restart('sav-backend', cb)", true);
        check("/usr/bin/pm2 -s resurrect", true);
        check("PM2_HOME=/x pm2 delete x", true);
        check("$PM2 start app.js", true);
        check("größe; pm2 start x", true);
        check("// restarted by pm2 restart", false);
        check("# pm2 start app.js", false);
        check(" * pm2 start app.js", false);
        check("pm2 list", false);
        check("pm2 jlist | grep restarting", false);
        check("restart = pm2", false);
        check("npm2 restart", false);
        check("process.env.PM2_HOME, start", false);
        check(&format!("var pm2;{};start()", "x".repeat(80)), false);
        check("", false);
    }

    #[test]
    fn a_watcher_is_recognized_by_its_script_name_or_by_pm2_calls_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("tick.js"), "setInterval(() => exec('pm2 restart api'), 1000)\n")
            .expect("written");
        fs::write(folder.path().join("server.js"), "// pm2 start server.js\nlisten()\n").expect("written");
        let is_watcher = |name: &str, script: &str| {
            let list = serde_json::json!([{"name": name, "pm_exec_path": folder.path().join(script)}]).to_string();
            is_watcher(&crate::pm2::parse_list(list.as_bytes()).expect("a list")[0])
        };
        assert!(is_watcher("x", "keep_alive.sh"));
        assert!(is_watcher("x", "Sav-Watchdog.js"));
        assert!(!is_watcher("sav-watchdog", "server.js"));
        assert!(!is_watcher("Keep-Alive", "gone.js"));
        assert!(!is_watcher("x", "watchdogs-shop.js"));
        assert!(is_watcher("x", "tick.js"));
        assert!(!is_watcher("api", "server.js"));
        assert!(!is_watcher("api", "gone.js"));
    }

    #[test]
    fn crontab_lines_that_restart_something_are_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path();
        fs::create_dir(home.join("bin")).expect("made");
        fs::write(home.join("bin/tick.sh"), "#!/bin/sh\ncurl -f localhost || pm2 restart api\n").expect("written");
        fs::write(home.join("out.log"), "pm2 restart api\n").expect("written");
        let check = |line: &str, expected: Option<(&str, &str)>| {
            let found = find_in_crontab(&Crontab::Lines(line.to_owned()), Path::new("/opt/watch dog"), home);
            let found: Vec<(&str, &str)> = found.iter().map(|line| (&*line.what, &*line.when)).collect();
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{line}");
        };
        check("*/5 * * * * /home/user/keep-alive.sh >/dev/null", Some(("keep-alive.sh", "every 5 minutes")));
        check("* * * * *  bash ~/KeepAlive.sh", Some(("KeepAlive.sh", "every minute")));
        check("0 4 * * * pm2 restart all >> x.log", Some(("pm2 restart all", "at 0 4 * * *")));
        check("@hourly cd /x && /usr/bin/pm2 resurrect", Some(("pm2 resurrect", "every hour")));
        check("*/10 * * * * bin/tick.sh", Some(("tick.sh", "every 10 minutes")));
        check("*/10 * * * * cd bin && sh ./tick.sh", Some(("tick.sh", "every 10 minutes")));
        check("*/10 * * * * sh '$HOME/bin/tick.sh';", Some(("tick.sh", "every 10 minutes")));
        check("@reboot pm2 resurrect", None);
        check("# * * * * * pm2 restart all", None);
        check("MAILTO=keep-alive@example.org", None);
        check("PATH = /usr/bin pm2 restart a b c d", None);
        check("* * * * * '/opt/watch dog' start --cron -c pm2-restart.yaml", None);
        check("*/5 * * * * /home/user/bin/watchdog --once -c keep-alive.yaml", None);
        check("*/5 * * * * backup.sh >> out.log", None);
        check("*/5 * * * * backup.sh >>out.log 2>&1", None);
        check("0 3 * * * pm2 delete old", None);
        check("0 3 * * * pm2 flush", None);
        check("garbage", None);
        check("", None);
    }
}

//! A crontab line that starts a watchdog: which program, with which configuration, how and when. It must never take a
//! line that only mentions the program, such as one that runs `watchdog status`, for one that starts it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::command::find_program;
use crate::config;

use super::crontab::Job;
use super::is_same_file;
use super::shell::{resolve, split_commands};

/// The PATH that Debian's cron and most others give to their jobs.
pub(in crate::commands) const CRON_PATH: &str = "/usr/bin:/bin";
const NAMES: [&str; 2] = ["watchdog", "watchdog-agent"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::commands) enum Way {
    /// `start --cron`
    StartForCron,
    Start,
    /// `run`, or no subcommand.
    Run,
    Once,
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::commands) struct Starter {
    pub(in crate::commands) way: Way,
    /// `every minute`
    pub(in crate::commands) when: String,
    pub(in crate::commands) is_at_boot: bool,
    pub(in crate::commands) is_dry_run: bool,
    /// The program's file, or why cron cannot start it.
    pub(in crate::commands) program: Result<PathBuf, String>,
    /// None if the line names none and none is in the places where one is searched.
    pub(in crate::commands) config: Option<PathBuf>,
}

/// What the arguments of a call of the program say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) way: Way,
    pub(super) is_dry_run: bool,
    pub(super) config: Option<String>,
}

impl Starter {
    /// `own` is this program; relative paths start in `home`, where cron runs its jobs.
    pub(super) fn parse(job: &Job<'_>, own: &Path, home: &Path) -> Option<Starter> {
        let place = Place { own, home, path_var: OsStr::new(job.env.get("PATH").copied().unwrap_or(CRON_PATH)) };
        let Found { program, call, folder } = place.find_call(&job.shell_text(), home)?;
        let config = match (call.config, job.env.get("WATCHDOG_CONFIG")) {
            (Some(named), _) => Some(resolve(&named, &folder, home)),
            (None, Some(named)) => Some(resolve(named, &folder, home)),
            (None, None) => config::search(&folder, Some(home.to_owned())).ok(),
        };
        let (when, is_at_boot) = (job.describe_schedule(), job.is_at_boot());
        Some(Starter { way: call.way, when, is_at_boot, is_dry_run: call.is_dry_run, program, config })
    }

    pub(in crate::commands) fn has_config(&self, path: &Path) -> bool {
        self.config.as_deref().is_some_and(|config| is_same_file(config, path))
    }

    pub(in crate::commands) fn is_program(&self, path: &Path) -> bool {
        self.program.as_deref().is_ok_and(|program| is_same_file(program, path))
    }

    pub(in crate::commands) fn can_start(&self) -> bool {
        self.program.is_ok()
    }

    /// `starts it every minute`
    pub(in crate::commands) fn describe(&self) -> String {
        let what = if self.way == Way::Once { "runs a tick" } else { "starts it" };
        let dry_run = if self.is_dry_run { " as a dry run" } else { "" };
        format!("{what} {}{dry_run}", self.when)
    }
}

/// Where a text is searched for a call of the program.
pub(super) struct Place<'a> {
    pub(super) own: &'a Path,
    pub(super) home: &'a Path,
    /// The PATH of the job.
    pub(super) path_var: &'a OsStr,
}

pub(super) struct Found {
    pub(super) program: Result<PathBuf, String>,
    pub(super) call: Call,
    /// The folder that relative paths start in.
    pub(super) folder: PathBuf,
}

impl Place<'_> {
    /// The first call of the program in a shell text that starts in `folder`, also behind `cd`, in `sh -c '…'`, and
    /// after programs such as `flock` and `nice`.
    pub(super) fn find_call(&self, text: &str, folder: &Path) -> Option<Found> {
        let mut folder = folder.to_owned();
        for words in split_commands(text) {
            if let [cd, to, ..] = &words[..]
                && cd == "cd"
            {
                folder = resolve(to, &folder, self.home);
                continue;
            }
            let call_at = |at: usize| {
                let own = self.names_own(&words[at], &folder);
                let named = NAMES.contains(&file_name(&words[at]));
                let call = parse_call(&words[at + 1..]).filter(|call| own || named && call.is_certain())?;
                let mut call = call.call;
                let before = words[..at].iter().rev();
                let variable = before.filter_map(|word| word.strip_prefix("WATCHDOG_CONFIG=")).next();
                call.config = call.config.or_else(|| variable.map(str::to_owned));
                Some(Found { program: self.find_program(&words[at], &folder), call, folder: folder.clone() })
            };
            let nested = || {
                let mut texts = words.iter().filter(|word| word.contains(char::is_whitespace) && **word != text);
                texts.find_map(|text| self.find_call(text, &folder))
            };
            if let Some(found) = (0..words.len()).find_map(call_at).or_else(nested) {
                return Some(found);
            }
        }
        None
    }

    fn names_own(&self, word: &str, folder: &Path) -> bool {
        word.contains('/') && is_same_file(&resolve(word, folder, self.home), self.own)
    }

    fn find_program(&self, word: &str, folder: &Path) -> Result<PathBuf, String> {
        let path = if word.contains('/') { resolve(word, folder, self.home) } else { PathBuf::from(word) };
        find_program(&path.to_string_lossy(), folder, Some(self.path_var)).map_err(|error| error.to_string())
    }
}

struct ParsedCall {
    call: Call,
    /// A subcommand or `--once` says that a watchdog is started.
    is_named: bool,
}

impl ParsedCall {
    /// Debian's watchdog(8) has the same name, but neither these words nor a configuration that ends in `.yaml`.
    fn is_certain(&self) -> bool {
        self.is_named || self.call.config.as_ref().is_some_and(|config| config.ends_with(".yaml"))
    }
}

/// None if these arguments start no watchdog.
fn parse_call(words: &[String]) -> Option<ParsedCall> {
    let mut call = Call { way: Way::Run, is_dry_run: false, config: None };
    let (mut verb, mut is_once, mut is_cron) = (None, false, false);
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "-c" | "--config" => call.config = words.next().map(str::to_owned),
            "--once" => is_once = true,
            "--cron" => is_cron = true,
            "--dry-run" => call.is_dry_run = true,
            _ if word.starts_with("--config=") => call.config = word.strip_prefix("--config=").map(str::to_owned),
            _ if word.starts_with("-c") => call.config = word.strip_prefix("-c").map(str::to_owned),
            _ if word.contains(['>', '<']) => break,
            _ if word.starts_with('-') => {}
            _ => verb = verb.or(Some(word)),
        }
    }
    call.way = match (verb, is_once, is_cron) {
        (None | Some("run"), true, _) => Way::Once,
        (None | Some("run"), false, _) => Way::Run,
        (Some("start"), _, true) => Way::StartForCron,
        (Some("start"), _, false) => Way::Start,
        (Some(_), ..) => return None,
    };
    Some(ParsedCall { call, is_named: verb.is_some() || is_once })
}

fn file_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn program(path: &Path) {
        fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
        fs::write(path, "#!/bin/sh\n").expect("written");
        fs::set_permissions(path, Permissions::from_mode(0o755)).expect("a file of ours");
    }

    #[test]
    fn lines_that_start_a_watchdog_are_understood() {
        let temp = tempfile::tempdir().expect("a folder");
        let home = temp.path().canonicalize().expect("it exists");
        let own = home.join("a b/watchdog");
        program(&own);
        program(&home.join("bin/watchdog"));
        symlink(&own, home.join("link")).expect("linked");
        fs::create_dir(home.join("conf")).expect("made");
        fs::write(home.join("conf/watchdog.yaml"), "").expect("written");
        fs::write(home.join("watchdog.yaml"), "").expect("written");
        let bin = home.join("bin").display().to_string();
        // The way, and program and configuration below the home.
        let check = |command: &str, env: &[(&str, &str)], expected: Option<(Way, &str, &str)>| {
            let command = command.replace("HERE", &home.display().to_string());
            let env = env.iter().copied().collect::<BTreeMap<_, _>>();
            let found = Starter::parse(&Job { schedule: "* * * * *".into(), command: &command, env }, &own, &home);
            let below = |path: &Path| path.strip_prefix(&home).unwrap_or(path).display().to_string();
            let found = found.map(|found| {
                let program = found.program.as_ref().map_or_else(|why| format!("! {why}"), |path| below(path));
                (found.way, program, found.config.as_deref().map(below).unwrap_or_default())
            });
            let expected = expected.map(|(way, program, config)| (way, program.to_owned(), config.to_owned()));
            assert_eq!(found, expected, "{command}");
        };
        let (cron, own_word) = (Way::StartForCron, "'HERE/a b/watchdog'");
        check(&format!("{own_word} start --cron -c HERE/x.yaml"), &[], Some((cron, "a b/watchdog", "x.yaml")));
        check(&format!("{own_word} -c'x y.yaml' start"), &[], Some((Way::Start, "a b/watchdog", "x y.yaml")));
        check("bin/watchdog --once >/dev/null 2>&1", &[], Some((Way::Once, "bin/watchdog", "watchdog.yaml")));
        check(
            "cd conf && ../bin/watchdog --once",
            &[],
            Some((Way::Once, "conf/../bin/watchdog", "conf/watchdog.yaml")),
        );
        check("nohup ~/link & true", &[], Some((Way::Run, "link", "watchdog.yaml")));
        check("sh -lc \"bin/watchdog start --cron\"", &[], Some((cron, "bin/watchdog", "watchdog.yaml")));
        check("flock -n x bin/watchdog run --dry-run", &[], Some((Way::Run, "bin/watchdog", "watchdog.yaml")));
        check("WATCHDOG_CONFIG=y.yaml bin/watchdog start", &[], Some((Way::Start, "bin/watchdog", "y.yaml")));
        check("bin/watchdog start", &[("WATCHDOG_CONFIG", "z.yaml")], Some((Way::Start, "bin/watchdog", "z.yaml")));
        check("watchdog start", &[("PATH", &bin)], Some((Way::Start, "bin/watchdog", "watchdog.yaml")));
        check("watchdog -c x.yaml", &[("PATH", &bin)], Some((Way::Run, "bin/watchdog", "x.yaml")));
        let missing = "! no such file: /gone/watchdog";
        check("/gone/watchdog start --cron", &[], Some((cron, missing, "watchdog.yaml")));
        check(
            "watchdog start",
            &[("PATH", "/gone")],
            Some((Way::Start, "! command not found: watchdog (PATH=/gone)", "watchdog.yaml")),
        );
        check("bin/watchdog status --json", &[], None);
        check("/usr/sbin/watchdog -v", &[], None);
        check("echo watchdog", &[], None);
        check("tail watchdog.log", &[], None);
    }
}

//! PM2 beside the targets: whether it is as the configuration has it, and who else restarts what is watched. It must
//! never start a daemon: pm2 is asked for its list only where one accepts connections.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::first_word;
use crate::config::{self, CommandLine, Config, Pm2, RUNG_TIMEOUT, Remedy, Rung, Target};
use crate::outcome::in_words;
use crate::pm2::{App, Caller, Home, Listing, Saved};
use crate::process::Process;
use crate::terminal::escaped;
use crate::time::Span;
use crate::verb::{ecosystem, environment, rivals, tilde};

use super::{for_shell, version};

/// What pm2 needs over the time that it grants a process to end.
const OVER_KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// A home of PM2's, and what was seen in it.
pub(super) struct Seen {
    home: Home,
    version: Option<String>,
    accepts: io::Result<bool>,
    daemons: Vec<Process>,
    /// None where it was not asked.
    listing: Option<Listing>,
    saved: Saved,
}

/// What is said of a target's PM2.
#[derive(Default)]
pub(super) struct Beside {
    /// For its own paragraph.
    pub(super) lines: Vec<String>,
    /// What would not work.
    pub(super) wrong: Vec<String>,
}

/// Looks at each home once; `offline`: PM2 is asked for nothing.
pub(super) fn look(config: &Config, offline: bool) -> Vec<Seen> {
    let mut homes: Vec<Seen> = Vec::new();
    for pm2 in config.targets.iter().filter_map(|target| target.pm2.as_ref()) {
        if homes.iter().any(|seen| seen.home.path() == pm2.home) {
            continue;
        }
        let env = config.env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
        let caller = Caller { home: pm2.home.clone(), folder: config.folder.clone(), env, timeout: RUNG_TIMEOUT };
        let home = Home::at(&pm2.home);
        let program = caller.program().ok();
        let accepts = home.daemon_accepts();
        let is_asked = !offline && program.is_some() && matches!(accepts, Ok(true));
        homes.push(Seen {
            version: program.as_deref().and_then(version::of),
            listing: is_asked.then(|| caller.list()),
            daemons: home.daemons().unwrap_or_default(),
            saved: home.saved(),
            accepts,
            home,
        });
    }
    homes
}

/// What there is to say of a target's PM2.
pub(super) fn judge(target: &Target, homes: &[Seen]) -> Beside {
    let of = |pm2: &Pm2| homes.iter().find(|seen| seen.home.path() == pm2.home);
    let Some((pm2, seen)) = target.pm2.as_ref().and_then(|pm2| Some((pm2, of(pm2)?))) else {
        return Beside::default();
    };
    let version = seen.version.as_deref().map(|version| format!("PM2 {}", escaped(version)));
    let label = version.unwrap_or_else(|| "PM2".into());
    let mut lines = vec![format!("  {label:<10}  {}", seen.state(pm2))];
    let mut wrong = seen.wrong(pm2);
    let is_kept = seen.saves(&pm2.process);
    if !is_kept && pm2.config.is_some() {
        lines.push(format!(
            "              {} is not in its saved list: it is started from its file, the others are lost; run pm2 save",
            escaped(&pm2.process)
        ));
    }
    let resets = target.ladder.iter().any(|rung| matches!(rung.remedy, Remedy::Pm2Reset(_)));
    if pm2.reset && !resets {
        lines
            .push("              reset: true has no effect beside restart: write {pm2: reset} as its last rung".into());
    }
    wrong.extend(ecosystem_file(pm2));
    if let Some(app) = seen.apps().find(|app| app.name == pm2.process) {
        wrong.extend(slow_to_end(target, app));
    }
    Beside { lines, wrong }
}

impl Seen {
    /// The processes that PM2 lists, else those that it saved.
    fn apps(&self) -> impl Iterator<Item = &App> {
        self.listed().unwrap_or_else(|| self.saved_apps()).iter()
    }

    fn listed(&self) -> Option<&[App]> {
        match &self.listing {
            Some(Listing::Apps(apps)) => Some(apps),
            Some(Listing::Silent | Listing::Failed(_)) | None => None,
        }
    }

    fn saved_apps(&self) -> &[App] {
        match &self.saved {
            Saved::Apps(apps) => apps,
            Saved::Missing | Saved::Unreadable(_) => &[],
        }
    }

    fn saves(&self, process: &str) -> bool {
        self.saved_apps().iter().any(|app| app.name == process)
    }

    /// Of the daemon, the saved list and the process.
    fn state(&self, pm2: &Pm2) -> String {
        let list = match (&self.saved, self.saves(&pm2.process)) {
            (Saved::Apps(_), true) => "list saved",
            (Saved::Apps(_), false) => "list saved without it",
            (Saved::Missing, _) => "no list saved",
            (Saved::Unreadable(_), _) => "saved list spoilt",
        };
        let daemon = match (&self.accepts, &self.listing) {
            (Err(error), _) => format!("cannot be seen ({}), {list}", in_words(error)),
            (Ok(false), _) if self.saves(&pm2.process) || pm2.config.is_some() => {
                return format!("dead, {list}; it is brought back when the target fails");
            }
            (Ok(false), _) => return format!("dead, {list}"),
            (Ok(true), Some(Listing::Silent)) => format!("takes connections, but does not answer in 10 s, {list}"),
            (Ok(true), Some(Listing::Apps(_) | Listing::Failed(_)) | None) => format!("alive, {list}"),
        };
        format!("{daemon}; {}", self.process(pm2))
    }

    fn process(&self, pm2: &Pm2) -> String {
        let name = escaped(&pm2.process);
        let Some(listed) = self.listed() else {
            return match self.home.sight(&pm2.process).ok().and_then(|sight| sight.process) {
                Some(seen) => format!("{name} runs, pid {}", seen.pid),
                None => format!("{name} does not run"),
            };
        };
        let instances: Vec<&App> = listed.iter().filter(|app| app.name == pm2.process).collect();
        match instances[..] {
            [] => format!("{name} is not in its list"),
            [App { status, pid: Some(pid), .. }] => format!("{name} {}, pid {pid}", escaped(status)),
            [App { status, pid: None, .. }] => format!("{name} {}", escaped(status)),
            _ => {
                let online = instances.iter().filter(|app| app.status == "online").count();
                format!("{name} online, {online} of {} instances", instances.len())
            }
        }
    }

    fn wrong(&self, pm2: &Pm2) -> Vec<String> {
        let (home, name) = (tilde(self.home.path()), escaped(&pm2.process).into_owned());
        if !self.home.path().is_dir() {
            return vec![format!("there is no PM2 in {home}: no such folder{}", elsewhere(self.home.path()))];
        }
        let mut wrong = Vec::new();
        if let Err(error) = &self.accepts {
            wrong.push(format!("PM2's socket in {home} cannot be reached: {}", in_words(error)));
        }
        if self.daemons.len() > 1 {
            let pids: Vec<String> = self.daemons.iter().map(|daemon| daemon.pid.to_string()).collect();
            let mend = format!("pm2 save; pm2 kill; kill {}; pm2 resurrect", pids.join(" "));
            wrong.push(format!("{} PM2 daemons run in {home} (pids {}): {mend}", pids.len(), pids.join(", ")));
        }
        match &self.listing {
            Some(Listing::Silent) => {
                let mend = "kill -9 its daemon and run pm2 resurrect, or let reset: true do that when the target fails";
                wrong.push(format!("PM2 in {home} takes connections, but does not answer in 10 s: {mend}"));
            }
            Some(Listing::Failed(why)) => wrong.push(format!("PM2 in {home} could not be asked: {}", escaped(why))),
            Some(Listing::Apps(_)) | None => {}
        }
        let is_known = self.apps().any(|app| app.name == pm2.process);
        if !is_known && !self.saves(&pm2.process) && pm2.config.is_none() {
            wrong.push(format!("PM2 in {home} has no process {name}; {}", self.names()));
        } else if !self.saves(&pm2.process) && pm2.config.is_none() {
            wrong.push(format!("{name} is not in PM2's saved list, and a reboot would lose it: run pm2 save"));
        }
        if let Saved::Unreadable(why) = &self.saved {
            wrong.push(format!("PM2's saved list cannot be read: {}; run pm2 save", escaped(why)));
        }
        wrong
    }

    fn names(&self) -> String {
        let mut names: Vec<&str> = self.apps().map(|app| app.name.as_str()).collect();
        names.dedup();
        match names.is_empty() {
            true => "it has none at all".into(),
            false => format!("it has {}", escaped(&names.join(", "))),
        }
    }
}

/// Where PM2's home is, if not in `home`.
fn elsewhere(home: &Path) -> String {
    let named = environment("PM2_HOME").map(PathBuf::from);
    let usual = config::home(&environment).map(|home| home.join(".pm2"));
    let found = named.into_iter().chain(usual).find(|path| path != home && path.is_dir());
    found.map(|path| format!("; there is {}", tilde(&path))).unwrap_or_default()
}

fn ecosystem_file(pm2: &Pm2) -> Option<String> {
    let path = pm2.config.as_deref()?;
    let (shown, name) = (tilde(path), escaped(&pm2.process));
    if let Err(error) = path.metadata() {
        return Some(format!("the ecosystem file {shown} cannot be read: {}", in_words(&error)));
    }
    let missing = format!("the ecosystem file {shown} does not mention {name}: pm2 restart would find nothing in it");
    (!ecosystem::mentions(path, &pm2.process)).then_some(missing)
}

/// Rungs that would be ended while pm2 still waits for the process to end.
fn slow_to_end(target: &Target, app: &App) -> Vec<String> {
    let needed = app.kill_timeout + OVER_KILL_TIMEOUT;
    let too_short = |rung: &&Rung| rung.timeout < needed && calls_pm2(&rung.remedy);
    let complaint = |rung: &Rung| {
        let seconds = needed.as_secs() + u64::from(needed.subsec_nanos() > 0);
        let write = match &rung.remedy {
            Remedy::Pm2Restart(_) => format!("restart: [{{pm2: restart, timeout: {seconds}s}}]"),
            Remedy::Pm2Reset(_) => format!("{{pm2: reset, timeout: {seconds}s}} in restart"),
            Remedy::Command(_) => format!("{{run: …, timeout: {seconds}s}}"),
        };
        let (name, may_take, given) = (escaped(&app.name), Span(app.kill_timeout), Span(rung.timeout));
        format!("{name} may take {may_take} to end (kill_timeout), and pm2 is given {given} in all: write {write}")
    };
    target.ladder.iter().filter(too_short).map(complaint).collect()
}

fn calls_pm2(remedy: &Remedy) -> bool {
    let program = match remedy {
        Remedy::Pm2Restart(_) | Remedy::Pm2Reset(_) => return true,
        Remedy::Command(CommandLine::Shell(text)) => first_word(text),
        Remedy::Command(CommandLine::Exec(words)) => words.first().map(String::as_str),
    };
    program.is_some_and(|program| program.rsplit('/').next() == Some("pm2"))
}

/// Whoever else restarts what is watched, and how that is ended; of a configuration that has nothing to do with PM2
/// nobody.
pub(super) fn dangers(config: &Config, homes: &[Seen]) -> Vec<String> {
    let rungs = || config.targets.iter().flat_map(|target| &target.ladder);
    if homes.is_empty() && !rungs().any(|rung| calls_pm2(&rung.remedy)) {
        return Vec::new();
    }
    let mut dangers: Vec<String> = homes.iter().flat_map(|seen| watchers(config, seen)).collect();
    let own_home = config::home(&environment).unwrap_or_else(|| "/".into());
    let own = std::env::current_exe().unwrap_or_default();
    let crontab = rivals::crontab().unwrap_or_default();
    let lines = rivals::in_crontab(&crontab, &own, &own_home);
    dangers.extend(lines.into_iter().map(|rivals::CronLine { what, when }| {
        format!("your crontab runs {} {}. Remove that line: crontab -e", escaped(&what), escaped(&when))
    }));
    dangers
}

/// Watchers among PM2's processes. One that is only in the saved list comes back with it.
fn watchers(config: &Config, seen: &Seen) -> Vec<String> {
    let is_watched = |app: &App| {
        let mut watched = config.targets.iter().filter_map(|target| target.pm2.as_ref());
        watched.any(|pm2| pm2.home == seen.home.path() && pm2.process == app.name)
    };
    let usual = config::home(&environment).map(|home| home.join(".pm2"));
    let prefix = match usual.as_deref() == Some(seen.home.path()) {
        true => String::new(),
        false => format!("PM2_HOME={} ", for_shell(&seen.home.path().display().to_string())),
    };
    let listed = seen.listed();
    let mut told: Vec<&str> = Vec::new();
    let mut dangers = Vec::new();
    for app in listed.unwrap_or_default().iter().chain(seen.saved_apps()) {
        if told.contains(&app.name.as_str()) || is_watched(app) || !rivals::is_watcher(app) {
            continue;
        }
        told.push(&app.name);
        let (name, script) = (escaped(&app.name), rivals::script(app));
        let script = if script.is_empty() { String::new() } else { format!(" ({})", escaped(&script)) };
        let is_gone = listed.is_some_and(|listed| listed.iter().all(|other| other.name != app.name));
        let delete = escaped(&for_shell(&app.name)).into_owned();
        // What is to be deleted must be in the list of a living daemon.
        let first = if matches!(seen.accepts, Ok(true)) { String::new() } else { format!("{prefix}pm2 resurrect && ") };
        dangers.push(match is_gone {
            true => format!("PM2's saved list still has {name}{script}:\n              {prefix}pm2 save"),
            false => format!(
                "PM2 also runs {name}{script}. Two restarters make two PM2 daemons:\n              \
                 {first}{prefix}pm2 delete {delete} && {prefix}pm2 save"
            ),
        });
    }
    dangers
}

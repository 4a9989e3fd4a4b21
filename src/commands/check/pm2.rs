//! PM2 beside the targets: whether it is as the configuration has it, and who else restarts what is watched. It must
//! never start a daemon: pm2 is asked for its list only where one accepts connections.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::agent::calls_pm2;
use crate::command::{Scope, for_shell};
use crate::commands::ecosystem::{self, Match};
use crate::commands::{environment, other_watchers, tilde};
use crate::config::{self, Config, Pm2Config, RUNG_TIMEOUT, Remedy, Rung, Target};
use crate::outcome::DaemonState;
use crate::pm2::{App, Caller, DaemonEvidence, Home, Listing, ProcessState, SavedList, listeners, missing_program};
use crate::process::living;
use crate::terminal::escaped;
use crate::time::HumanDuration;

use super::version;

/// What pm2 needs over the time that it grants a process to end.
const OVER_KILL_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Pm2Snapshot {
    home: Home,
    version: Option<String>,
    daemon: DaemonEvidence,
    /// None where it was not asked.
    listing: Option<Listing>,
    saved: SavedList,
}

#[derive(Default)]
pub(super) struct Pm2Findings {
    pub(super) lines: Vec<String>,
    pub(super) wrong: Vec<String>,
}

/// Looks at each home once; `offline`: PM2 is asked for nothing.
pub(super) fn observe(config: &Config, offline: bool) -> Vec<Pm2Snapshot> {
    let mut homes: Vec<Pm2Snapshot> = Vec::new();
    for pm2 in config.targets.iter().filter_map(|target| target.pm2.as_ref()) {
        if homes.iter().any(|seen| seen.home.path() == pm2.home) {
            continue;
        }
        let env = config.env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
        let (folder, scope) = (config.folder.clone(), Scope::default());
        let caller = Caller { home: pm2.home.clone(), folder, env, timeout: RUNG_TIMEOUT, scope };
        let home = Home::at(&pm2.home);
        let program = caller.program().ok();
        let mut daemon = home.all_daemons();
        let is_asked = !offline && program.is_some() && daemon.state() == DaemonState::Alive;
        let listing = is_asked.then(|| caller.list());
        daemon.is_silent = listing == Some(Listing::Silent);
        let (version, saved) = (program.as_deref().and_then(version::of), home.saved());
        homes.push(Pm2Snapshot { version, listing, daemon, saved, home });
    }
    homes
}

pub(super) fn judge(target: &Target, homes: &[Pm2Snapshot]) -> Pm2Findings {
    let of = |pm2: &Pm2Config| homes.iter().find(|seen| seen.home.path() == pm2.home);
    let Some((pm2, seen)) = target.pm2.as_ref().and_then(|pm2| Some((pm2, of(pm2)?))) else {
        return Pm2Findings::default();
    };
    let version = seen.version.as_deref().map(|version| format!("PM2 {}", escaped(version)));
    let label = version.unwrap_or_else(|| "PM2".into());
    let mut lines = vec![format!("  {label:<10}  {}", seen.state(pm2))];
    let mut wrong = seen.wrong(pm2);
    let is_kept = seen.saves(&pm2.process);
    if !is_kept && pm2.config.is_some() {
        lines.push(format!(
            "              {} is not in its saved list: it is started from its file, the others are lost; run {} save",
            escaped(&pm2.process),
            escaped(&seen.home.call())
        ));
    }
    let resets = target.ladder.iter().any(|rung| matches!(rung.remedy, Remedy::Pm2Reset(_)));
    if pm2.reset && !resets {
        lines
            .push("              reset: true has no effect beside restart: write {pm2: reset} as its last rung".into());
    }
    if pm2.env.is_some() && pm2.config.is_none() {
        lines.push("              env has no effect without config: PM2 keeps the variables of what it runs".into());
    }
    let app = seen.apps().find(|app| app.name == pm2.process);
    if let Some(app) = app {
        lines.extend(at_work_sometimes(app));
        wrong.extend(too_slow(target, app));
        wrong.extend(seen.saved_app(app).and_then(missing_program).map(|missing| {
            let (missing, call) = (escaped(&missing), seen.home.call());
            format!("{missing}: a reboot would not bring it back. Start it anew, then: {} save", escaped(&call))
        }));
    }
    for (is_wrong, said) in ecosystem_file(pm2, app, is_kept) {
        match is_wrong {
            true => wrong.push(said),
            false => lines.push(format!("              {said}")),
        }
    }
    Pm2Findings { lines, wrong }
}

/// What is at rest at times is no trouble then, and nothing that anybody should be told.
fn at_work_sometimes(app: &App) -> Option<String> {
    let what = match (app.is_scheduled, app.autorestart) {
        (true, false) => "runs at certain times only (cron_restart)",
        (false, false) => "is not started again by PM2 when it ends with 0 (autorestart: false)",
        (_, true) => return None,
    };
    Some(format!("              {} {what}: at rest between its runs, which is no outage", escaped(&app.name)))
}

impl Pm2Snapshot {
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
            SavedList::Apps(apps) => apps,
            SavedList::Missing | SavedList::Unreadable(_) => &[],
        }
    }

    fn saves(&self, process: &str) -> bool {
        self.saved_apps().iter().any(|app| app.name == process)
    }

    fn saved_app(&self, app: &App) -> Option<&App> {
        self.saved_apps().iter().find(|saved| saved.name == app.name)
    }

    fn is_alive(&self) -> bool {
        self.daemon.state() == DaemonState::Alive
    }

    fn state(&self, pm2: &Pm2Config) -> String {
        let list = match (&self.saved, self.saves(&pm2.process)) {
            (SavedList::Apps(_), true) => "list saved",
            (SavedList::Apps(_), false) => "list saved without it",
            (SavedList::Missing, _) => "no list saved",
            (SavedList::Unreadable(_), _) => "saved list spoilt",
        };
        let process = self.process(pm2);
        match self.daemon.state() {
            DaemonState::Alive => format!("alive, {list}; {process}"),
            DaemonState::Deaf => format!("cannot be reached, {list}; {process}"),
            DaemonState::Unknown => format!("cannot be seen, {list}; {process}"),
            DaemonState::Dead if self.living(pm2).is_some() => format!("dead, {list}; {process} without it"),
            DaemonState::Dead if self.saves(&pm2.process) || pm2.config.is_some() => {
                format!("dead, {list}; it is brought back when the target fails")
            }
            DaemonState::Dead => format!("dead, {list}"),
        }
    }

    fn living(&self, pm2: &Pm2Config) -> Option<u32> {
        match self.home.process_evidence(&pm2.process, None, &self.daemon).state() {
            ProcessState::Alive(process) => Some(process.pid),
            ProcessState::Gone | ProcessState::Unknown(_) => None,
        }
    }

    fn process(&self, pm2: &Pm2Config) -> String {
        let name = escaped(&pm2.process);
        let Some(listed) = self.listed() else {
            return match self.home.process_evidence(&pm2.process, None, &self.daemon).state() {
                ProcessState::Alive(process) => format!("{name} runs, pid {}", process.pid),
                ProcessState::Gone if self.daemon.state() != DaemonState::Unknown => format!("{name} does not run"),
                ProcessState::Gone | ProcessState::Unknown(_) => format!("whether {name} runs cannot be seen"),
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

    fn wrong(&self, pm2: &Pm2Config) -> Vec<String> {
        let (home, name) = (tilde(self.home.path()), escaped(&pm2.process).into_owned());
        let call = escaped(&self.home.call()).into_owned();
        if !self.home.path().is_dir() {
            return vec![format!("there is no PM2 in {home}: no such folder{}", elsewhere(self.home.path()))];
        }
        let mut wrong = Vec::new();
        if let Some(trouble) = self.daemon.trouble(&self.home.path().display().to_string(), &self.home.call()) {
            wrong.push(escaped(&trouble).into_owned());
        }
        if self.daemon.proven.len() > 1 {
            let pids: Vec<String> = self.daemon.proven.iter().map(|daemon| daemon.process.pid.to_string()).collect();
            // Asked to end, each would put its own list in place of the saved one.
            wrong.push(format!(
                "{} PM2 daemons run in {home} (pids {}), and none knows all processes. To mend it: kill -9 {}, wait \
                 until their processes are gone, then {call} resurrect, which starts what was saved",
                pids.len(),
                pids.join(", "),
                pids.join(" ")
            ));
        }
        if let Some(Listing::Failed(why)) = &self.listing {
            wrong.push(format!("PM2 in {home} could not be asked: {}", escaped(why)));
        }
        if self.daemon.state() == DaemonState::Dead
            && let Some(pid) = self.living(pm2)
        {
            wrong.push(format!(
                "PM2's daemon is dead, and {name} (pid {pid}) lives on without it: PM2 will not start it again. When \
                 it suits you: kill {pid}; {call} resurrect"
            ));
        }
        let is_known = self.apps().any(|app| app.name == pm2.process);
        if !is_known && !self.saves(&pm2.process) && pm2.config.is_none() {
            wrong.push(format!("PM2 in {home} has no process {name}; {}", self.names()));
        } else if !self.saves(&pm2.process) && pm2.config.is_none() {
            wrong.push(format!("{name} is not in PM2's saved list, and a reboot would lose it: run {call} save"));
        }
        if let SavedList::Unreadable(why) = &self.saved {
            wrong.push(format!("PM2's saved list cannot be read: {}; run {call} save", escaped(why)));
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

fn elsewhere(home: &Path) -> String {
    let named = environment("PM2_HOME").map(PathBuf::from);
    let usual = config::home(&environment).map(|home| home.join(".pm2"));
    let found = named.into_iter().chain(usual).find(|path| path != home && path.is_dir());
    found.map(|path| format!("; there is {}", tilde(&path))).unwrap_or_default()
}

/// What there is to say of the file, and whether it is wrong. `app`: the process as PM2 has it.
fn ecosystem_file(pm2: &Pm2Config, app: Option<&App>, is_kept: bool) -> Vec<(bool, String)> {
    let Some(path) = pm2.config.as_deref() else { return Vec::new() };
    let (shown, name) = (tilde(path), escaped(&pm2.process));
    let matched = match app {
        Some(app) => ecosystem::compare(path, app),
        None => ecosystem::compare_name(path, &pm2.process),
    };
    let mut found = match matched {
        Match::Same => Vec::new(),
        Match::Unreadable(why) => {
            return vec![(true, format!("the ecosystem file {shown} cannot be read: {}", escaped(&why)))];
        }
        Match::Unnamed => {
            vec![(true, format!("the ecosystem file {shown} describes no {name}: pm2 start would find nothing in it"))]
        }
        Match::Other(why) => vec![(
            true,
            format!(
                "the ecosystem file {shown} describes another {name}: {}. Write cwd into it, with its whole path",
                escaped(&why)
            ),
        )],
    };
    let blocks = ecosystem::environments(path, &pm2.process);
    match (&pm2.env, app.map(|app| &app.environments[..]).unwrap_or_default()) {
        (Some(env), _) if !blocks.contains(env) => {
            found.push((true, format!("the ecosystem file {shown} has no env_{env} for {name}")));
        }
        (None, [env, ..]) if blocks.contains(env) => {
            // Where the file is all there is, a repair would give it other variables, and so another database.
            let env = escaped(env);
            let said = format!("{name} has the variables of env_{env} in {shown}: write env: {env} beside config");
            found.push((!is_kept, said));
        }
        (Some(_) | None, _) => {}
    }
    found
}

/// Rungs that would be ended while pm2 still waits, for the process to end or to say that it is ready.
fn too_slow(target: &Target, app: &App) -> Vec<String> {
    let name = escaped(&app.name);
    let waits = app.kill_timeout + app.ready_within.unwrap_or_default();
    let what = match app.ready_within {
        None => format!("{name} may take {} to end (kill_timeout)", HumanDuration(app.kill_timeout)),
        Some(_) => {
            format!("{name} may take {} to end and to be ready (kill_timeout, listen_timeout)", HumanDuration(waits))
        }
    };
    let needed = waits + OVER_KILL_TIMEOUT;
    let too_short = |rung: &&Rung| rung.timeout < needed && calls_pm2(&rung.remedy);
    let complaint = |rung: &Rung| {
        let seconds = needed.as_secs() + u64::from(needed.subsec_nanos() > 0);
        let write = match &rung.remedy {
            Remedy::Pm2Restart(_) => format!("restart: [{{pm2: restart, timeout: {seconds}s}}]"),
            Remedy::Pm2Reset(_) => format!("{{pm2: reset, timeout: {seconds}s}} in restart"),
            Remedy::Command(_) => format!("{{run: …, timeout: {seconds}s}}"),
        };
        format!("{what}, and pm2 is given {} in all: write {write}", HumanDuration(rung.timeout))
    };
    let mut wrong: Vec<String> = target.ladder.iter().filter(too_short).map(complaint).collect();
    if let Some(ready) = app.ready_within.filter(|ready| *ready > target.limits.start_period) {
        let (ready, given) = (HumanDuration(ready), HumanDuration(target.limits.start_period));
        wrong.push(format!(
            "{name} may take {ready} to be ready (listen_timeout), and failures count after {given}: write start_period"
        ));
    }
    wrong
}

/// Who else restarts or deletes what PM2 keeps, and how that is ended; nobody where the configuration has nothing to do
/// with PM2.
pub(super) fn dangers(config: &Config, homes: &[Pm2Snapshot]) -> Vec<String> {
    let rungs = || config.targets.iter().flat_map(|target| &target.ladder);
    if homes.is_empty() && !rungs().any(|rung| calls_pm2(&rung.remedy)) {
        return Vec::new();
    }
    let mut dangers: Vec<String> = homes.iter().flat_map(|seen| watchers(config, seen)).collect();
    let own_home = config::home(&environment).unwrap_or_else(|| "/".into());
    let own = std::env::current_exe().unwrap_or_default();
    let crontab = other_watchers::crontab().unwrap_or_default();
    let lines = other_watchers::in_crontab(&crontab, &own, &own_home);
    dangers.extend(lines.into_iter().map(|other_watchers::CronLine { what, when }| {
        format!("your crontab runs {} {}. Remove that line: crontab -e", escaped(&what), escaped(&when))
    }));
    dangers
}

/// Watchers among PM2's processes. One that is only in the saved list comes back with it.
fn watchers(config: &Config, seen: &Pm2Snapshot) -> Vec<String> {
    let is_watched = |app: &App| {
        let mut watched = config.targets.iter().filter_map(|target| target.pm2.as_ref());
        watched.any(|pm2| pm2.home == seen.home.path() && pm2.process == app.name)
    };
    let call = escaped(&seen.home.call()).into_owned();
    let listed = seen.listed();
    let mut told: Vec<&str> = Vec::new();
    let mut dangers = Vec::new();
    for app in listed.unwrap_or_default().iter().chain(seen.saved_apps()) {
        // Who takes requests is a backend, which may call pm2 for its deployments.
        let serves = || app.pid.and_then(living).is_some_and(|process| !listeners(process).is_empty());
        if told.contains(&app.name.as_str()) || is_watched(app) || !other_watchers::is_watcher(app) || serves() {
            continue;
        }
        told.push(&app.name);
        let (name, script) = (escaped(&app.name), other_watchers::script(app));
        let script = if script.is_empty() { String::new() } else { format!(" ({})", escaped(&script)) };
        let is_gone = listed.is_some_and(|listed| listed.iter().all(|other| other.name != app.name));
        let delete = escaped(&for_shell(&app.name)).into_owned();
        // What is to be deleted must be in the list of a living daemon.
        let first = if seen.is_alive() { String::new() } else { format!("{call} resurrect && ") };
        dangers.push(match is_gone {
            true => format!("PM2's saved list still has {name}{script}:\n              {call} save"),
            false => format!(
                "PM2 also runs {name}{script}. Two restarters make two PM2 daemons:\n              \
                 {first}{call} delete {delete} && {call} save"
            ),
        });
    }
    dangers
}

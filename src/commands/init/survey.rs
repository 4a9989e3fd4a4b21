//! Lists the processes of a PM2 home and decides which of them to watch. It must never run pm2 unless the daemon
//! accepts connections, nor keep anything of the environments but ports.

use std::path::{Path, PathBuf};
use std::thread;

use crate::command::Scope;
use crate::commands::{ecosystem, other_watchers, shorten_home};
use crate::config::{RUNG_TIMEOUT, process_name_problem};
use crate::outcome::DaemonState;
use crate::pm2::{App, Caller, Home, Listing, SavedList};
use crate::process::Process;

use super::file::{Address, ConfigFile, TargetEntry};
use super::health::{self, Health, Ports};
use super::path::{SearchPath, find_search_path};

/// The longest name of a target that the configuration accepts, in characters.
const MAX_NAME: usize = 64;

pub(super) struct Survey {
    pub(super) home: PathBuf,
    /// Whether it is `~/.pm2`.
    is_usual: bool,
    path: String,
    /// One for each process, whatever its number of instances.
    pub(super) entries: Vec<ProcessEntry>,
    pub(super) notes: Vec<String>,
}

pub(super) struct ProcessEntry {
    pub(super) name: String,
    pub(super) is_saved: bool,
    pub(super) decision: Decision,
}

pub(super) enum Decision {
    Watched(WatchedProcess),
    /// It is a watcher itself; with the name of its script.
    OldWatcher(String),
    /// It ends when its work is done, which is no outage.
    Job,
    Module,
    /// pm2 does not accept its name as an argument, for this reason.
    InvalidName(&'static str),
}

pub(super) struct WatchedProcess {
    pub(super) ports: Vec<u16>,
    pub(super) health: Option<Health>,
    config: Option<PathBuf>,
    /// The block of variables in that file with which it was started.
    env: Option<String>,
}

/// Surveys the PM2 home at `path`. `own_home` is the operator's home folder. It takes some seconds if processes do not
/// answer.
pub(super) fn take_survey(path: &Path, is_usual: bool, own_home: Option<&Path>) -> Survey {
    let home = Home::at(path);
    let evidence = home.observe_daemon();
    let daemon = evidence.latest().map(|daemon| daemon.process);
    let SearchPath { path: path_variable, missing } =
        find_search_path(std::env::var_os("PATH").as_deref(), daemon, own_home);
    let mut notes: Vec<String> = evidence.trouble(&shorten_home(path), &home.pm2_command()).into_iter().collect();
    let saved = read_saved(&home, &mut notes);
    let listed = read_listed(&home, &path_variable, own_home, &mut notes);
    let entries = build_entries(&home, daemon, &saved, listed, own_home);
    if !missing.is_empty() && !entries.is_empty() {
        let missing = missing.join(", ");
        notes.push(format!("command not found: {missing}. Fix: add the folder to PATH under env: in the file"));
    }
    Survey { home: path.to_owned(), is_usual, path: path_variable, entries, notes }
}

fn read_saved(home: &Home, notes: &mut Vec<String>) -> Vec<App> {
    match home.saved() {
        SavedList::Apps(apps) => apps,
        SavedList::Missing => Vec::new(),
        SavedList::Unreadable(why) => {
            notes.push(format!("PM2's saved list cannot be read: {why}"));
            Vec::new()
        }
    }
}

fn read_listed(home: &Home, path: &str, own_home: Option<&Path>, notes: &mut Vec<String>) -> Vec<App> {
    if home.observe_daemon().state() != DaemonState::Alive {
        return Vec::new();
    }
    let caller = Caller {
        home: home.path().to_owned(),
        folder: own_home.unwrap_or(Path::new("/")).to_owned(),
        env: vec![("PATH".into(), path.to_owned())],
        timeout: RUNG_TIMEOUT,
        scope: Scope::default(),
    };
    let why = match caller.list() {
        Listing::Apps(apps) => return apps,
        Listing::Silent => "the daemon is alive but has not answered in 10 s".to_owned(),
        Listing::Failed(why) => why,
    };
    notes.push(format!("PM2 did not list its processes: {why}. Its saved list is used instead."));
    Vec::new()
}

fn build_entries(
    home: &Home,
    daemon: Option<Process>,
    saved: &[App],
    listed: Vec<App>,
    own_home: Option<&Path>,
) -> Vec<ProcessEntry> {
    let is_listed = |app: &&App| listed.iter().any(|other| other.name == app.name);
    let only_saved: Vec<App> = saved.iter().filter(|app| !is_listed(app)).cloned().collect();
    let mut processes: Vec<Vec<App>> = Vec::new();
    for app in listed.into_iter().chain(only_saved) {
        match processes.iter_mut().find(|instances| instances[0].name == app.name) {
            Some(instances) => instances.push(app),
            None => processes.push(vec![app]),
        }
    }
    let decide_on = |instances: &[App]| decide(home, daemon, instances, own_home);
    thread::scope(|scope| {
        let threads: Vec<_> = processes.iter().map(|instances| scope.spawn(move || decide_on(instances))).collect();
        let decisions = threads.into_iter().map(|thread| thread.join());
        processes
            .iter()
            .zip(decisions)
            .filter_map(|(instances, decision)| {
                let name = instances[0].name.clone();
                let is_saved = saved.iter().any(|app| app.name == name);
                Some(ProcessEntry { name, is_saved, decision: decision.ok()? })
            })
            .collect()
    })
}

fn decide(home: &Home, daemon: Option<Process>, instances: &[App], own_home: Option<&Path>) -> Decision {
    let app = &instances[0];
    if app.is_module || app.script.starts_with(home.path().join("modules")) {
        return Decision::Module;
    }
    let Ports { numbers: ports, are_open } = health::find_ports(home, instances, daemon);
    if !app.autorestart && !are_open {
        return Decision::Job;
    }
    let health = health::find_health(&ports);
    // A process that answers HTTP is a backend, even if it calls pm2 too.
    if health.is_none() && other_watchers::is_watcher(app) {
        return Decision::OldWatcher(other_watchers::script_name(app));
    }
    let config = ecosystem::find(app, own_home);
    let config = config.filter(|path| path.to_str().is_some() && process_name_problem(&app.name, true).is_none());
    if let Some((why, _)) = process_name_problem(&app.name, config.is_some()) {
        return Decision::InvalidName(why);
    }
    let blocks = config.as_ref().map(|file| ecosystem::environments(file, &app.name)).unwrap_or_default();
    let env = app.environments.iter().find(|env| blocks.contains(env)).cloned();
    Decision::Watched(WatchedProcess { ports, health, config, env })
}

impl Survey {
    pub(super) fn to_config_file(&self) -> ConfigFile {
        let is_minor =
            |decision: &Decision| matches!(decision, Decision::OldWatcher(_) | Decision::Module | Decision::Job);
        let is_alone = self.entries.iter().filter(|entry| !is_minor(&entry.decision)).count() == 1;
        let home = (!self.is_usual).then(|| self.home.to_string_lossy().into_owned());
        let mut names: Vec<String> = Vec::new();
        let mut targets = Vec::new();
        for entry in &self.entries {
            let Decision::Watched(WatchedProcess { ports, health, config, env }) = &entry.decision else { continue };
            let address = match (health, ports.first()) {
                (Some(health), _) => Some(Address::Answers { url: health.url(), answer: health.answer.clone() }),
                (None, Some(port)) => Some(Address::Port(*port)),
                (None, None) => None,
            };
            let name = choose_target_name(&entry.name, &names);
            targets.push(TargetEntry {
                name: Some(name.clone()).filter(|name| *name != entry.name),
                process: entry.name.clone(),
                home: home.clone(),
                config: config.as_ref().and_then(|path| path.to_str()).map(str::to_owned),
                env: env.clone(),
                reset: is_alone,
                address,
            });
            names.push(name);
        }
        ConfigFile { source: format!("PM2 in {}", shorten_home(&self.home)), path: self.path.clone(), targets }
    }
}

/// A valid name for the target that no other target has: the process's own, if possible.
fn choose_target_name(process: &str, taken: &[String]) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = process.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let name: String = if name.is_empty() { "process".into() } else { name.chars().take(MAX_NAME - 4).collect() };
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let is_whole = process.len() <= MAX_NAME && process.chars().all(allowed);
    let whole = is_whole && process.starts_with(|c: char| c.is_ascii_alphanumeric());
    let first = if whole { process.to_owned() } else { name.clone() };
    let mut names = std::iter::once(first).chain(numbered);
    names.find(|name| !taken.contains(name)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(process: &str, taken: &[&str], expected: &str) {
        let taken: Vec<String> = taken.iter().map(ToString::to_string).collect();
        assert_eq!(choose_target_name(process, &taken), expected, "{process}");
    }

    #[test]
    fn a_target_has_the_name_of_its_process_if_that_is_valid() {
        check("sav-backend", &[], "sav-backend");
        check("Größe 1", &[], "Gr--e-1");
        check("_api", &[], "api");
        check("日本", &[], "process");
        check("日本", &["process"], "process-2");
        check("a b", &["a-b", "a-b-2"], "a-b-3");
        check(&"x".repeat(64), &[], &"x".repeat(64));
        check(&"x".repeat(65), &[], &"x".repeat(60));
        check(&"x".repeat(66), &[&"x".repeat(60)], &format!("{}-2", "x".repeat(60)));
    }
}

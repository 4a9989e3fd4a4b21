//! What there is in a home of PM2's, and what is to become of each process. PM2 is asked only while its daemon accepts
//! connections, and of its environments nothing is kept but ports.

use std::path::{Path, PathBuf};
use std::thread;

use crate::command::Scope;
use crate::commands::{ecosystem, other_watchers, tilde};
use crate::config::{RUNG_TIMEOUT, objection};
use crate::outcome::DaemonState;
use crate::pm2::{App, Caller, Home, Listing, SavedList};
use crate::process::Process;

use super::file::{Address, ConfigFile, TargetEntry};
use super::health::{self, Health, Ports};
use super::path::{Search, search};

/// Characters of a target's name.
const LONGEST_NAME: usize = 64;

pub(super) struct Survey {
    pub(super) home: PathBuf,
    /// Whether it is where everybody has it.
    is_usual: bool,
    path: String,
    /// Each process, its instances taken together.
    pub(super) entries: Vec<ProcessEntry>,
    pub(super) notes: Vec<String>,
}

pub(super) struct ProcessEntry {
    pub(super) name: String,
    pub(super) is_saved: bool,
    pub(super) fate: Fate,
}

pub(super) enum Fate {
    Watched(WatchedProcess),
    /// It is a watcher itself; the name of its script.
    Rival(String),
    /// It does its work and ends, which is no outage.
    Job,
    Module,
    /// It cannot be asked for by its name, for this reason.
    Unnameable(&'static str),
}

pub(super) struct WatchedProcess {
    pub(super) ports: Vec<u16>,
    pub(super) health: Option<Health>,
    config: Option<PathBuf>,
    /// The block of variables in that file that it has.
    env: Option<String>,
}

/// Looks at everything in this home. `own_home` is the operator's. Takes some seconds where processes do not answer.
pub(super) fn survey(path: &Path, is_usual: bool, own_home: Option<&Path>) -> Survey {
    let home = Home::at(path);
    let evidence = home.daemon_evidence();
    let daemon = evidence.latest().map(|daemon| daemon.process);
    let Search { path: path_variable, missing } = search(std::env::var_os("PATH").as_deref(), daemon, own_home);
    let mut notes: Vec<String> = evidence.trouble(&tilde(path), &home.call()).into_iter().collect();
    let saved = saved(&home, &mut notes);
    let listed = listed(&home, &path_variable, own_home, &mut notes);
    let entries = entries(&home, daemon, &saved, listed, own_home);
    if !missing.is_empty() && !entries.is_empty() {
        let words = missing.join(" and ");
        let verb = if missing.len() == 1 { "was" } else { "were" };
        notes.push(format!("{words} {verb} not found: put the folder into PATH under env: in the file"));
    }
    Survey { home: path.to_owned(), is_usual, path: path_variable, entries, notes }
}

fn saved(home: &Home, notes: &mut Vec<String>) -> Vec<App> {
    match home.saved() {
        SavedList::Apps(apps) => apps,
        SavedList::Missing => Vec::new(),
        SavedList::Unreadable(why) => {
            notes.push(format!("PM2's saved list cannot be read: {why}"));
            Vec::new()
        }
    }
}

fn listed(home: &Home, path: &str, own_home: Option<&Path>, notes: &mut Vec<String>) -> Vec<App> {
    if home.daemon_evidence().state() != DaemonState::Alive {
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
        Listing::Silent => "it is alive, but does not answer in 10 s".to_owned(),
        Listing::Failed(why) => why,
    };
    notes.push(format!("PM2 could not be asked: {why}. This goes by its saved list."));
    Vec::new()
}

fn entries(
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
    let fate = |instances: &[App]| fate(home, daemon, instances, own_home);
    thread::scope(|scope| {
        let looking: Vec<_> = processes.iter().map(|instances| scope.spawn(move || fate(instances))).collect();
        let fates = looking.into_iter().map(|thread| thread.join());
        processes
            .iter()
            .zip(fates)
            .filter_map(|(instances, fate)| {
                let name = instances[0].name.clone();
                let is_saved = saved.iter().any(|app| app.name == name);
                Some(ProcessEntry { name, is_saved, fate: fate.ok()? })
            })
            .collect()
    })
}

fn fate(home: &Home, daemon: Option<Process>, instances: &[App], own_home: Option<&Path>) -> Fate {
    let app = &instances[0];
    if app.is_module || app.script.starts_with(home.path().join("modules")) {
        return Fate::Module;
    }
    let Ports { numbers: ports, are_open } = health::ports(home, instances, daemon);
    if !app.autorestart && !are_open {
        return Fate::Job;
    }
    let health = health::health(&ports);
    // A backend that answers is one, even if it calls pm2 too.
    if health.is_none() && other_watchers::is_watcher(app) {
        return Fate::Rival(other_watchers::script(app));
    }
    let config = ecosystem::find(app, own_home);
    let config = config.filter(|path| path.to_str().is_some() && objection(&app.name, true).is_none());
    if let Some((why, _)) = objection(&app.name, config.is_some()) {
        return Fate::Unnameable(why);
    }
    let blocks = config.as_ref().map(|file| ecosystem::environments(file, &app.name)).unwrap_or_default();
    let env = app.environments.iter().find(|env| blocks.contains(env)).cloned();
    Fate::Watched(WatchedProcess { ports, health, config, env })
}

impl Survey {
    pub(super) fn file(&self) -> ConfigFile {
        let is_alone = {
            let mut others =
                self.entries.iter().filter(|entry| !matches!(entry.fate, Fate::Rival(_) | Fate::Module | Fate::Job));
            others.next().is_some() && others.next().is_none()
        };
        let home = (!self.is_usual).then(|| self.home.to_string_lossy().into_owned());
        let mut names: Vec<String> = Vec::new();
        let mut targets = Vec::new();
        for entry in &self.entries {
            let Fate::Watched(WatchedProcess { ports, health, config, env }) = &entry.fate else { continue };
            let address = match (health, ports.first()) {
                (Some(health), _) => Some(Address::Answers { url: health.url(), answer: health.answer.clone() }),
                (None, Some(port)) => Some(Address::Port(*port)),
                (None, None) => None,
            };
            let name = target_name(&entry.name, &names);
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
        ConfigFile { source: format!("PM2 in {}", tilde(&self.home)), path: self.path.clone(), targets }
    }
}

/// The process's name as a target may have it, and as no other has it.
fn target_name(process: &str, taken: &[String]) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = process.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let name: String = if name.is_empty() { "process".into() } else { name.chars().take(LONGEST_NAME - 4).collect() };
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let is_whole = process.len() <= LONGEST_NAME && process.chars().all(allowed);
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
        assert_eq!(target_name(process, &taken), expected, "{process}");
    }

    #[test]
    fn a_target_is_called_as_its_process_as_far_as_it_can() {
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

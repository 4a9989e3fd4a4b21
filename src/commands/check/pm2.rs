//! PM2 as `check` sees it: whether it matches the configuration, and what else restarts its processes. It must never
//! start a daemon: it asks pm2 for its list only where a daemon accepts connections.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::agent::calls_pm2;
use crate::command::{Scope, shell_quote};
use crate::commands::ecosystem::{self, Match};
use crate::commands::program::path_for_crontab;
use crate::commands::schedule::Crontab;
use crate::commands::{other_watchers, read_env, shorten_home};
use crate::config::{self, Config, Pm2Config, RUNG_TIMEOUT, Remedy, Rung, Target};
use crate::outcome::{DaemonState, ProbeResult};
use crate::pm2::{
    App, Caller, DaemonEvidence, Home, Listing, ProcessState, SavedList, describe_missing_program, listening_ports,
};
use crate::process::identify_living;
use crate::terminal::escaped;
use crate::time::HumanDuration;

use super::addresses::refused_ports;
use super::ports::Listening;
use super::version;

/// Added to the kill_timeout of the process, for node to start and for pm2 to reach the daemon.
const KILL_TIMEOUT_MARGIN: Duration = Duration::from_secs(10);

pub(super) struct Pm2Snapshot {
    home: Home,
    version: Option<String>,
    daemon: DaemonEvidence,
    /// None if pm2 was not run.
    listing: Option<Listing>,
    saved: SavedList,
}

#[derive(Default)]
pub(super) struct Pm2Findings {
    pub(super) lines: Vec<String>,
    pub(super) problems: Vec<String>,
}

/// Observes each PM2 home once. With `offline`, pm2 is not run.
pub(super) fn observe(config: &Config, offline: bool) -> Vec<Pm2Snapshot> {
    let mut homes: Vec<Pm2Snapshot> = Vec::new();
    for pm2 in config.targets.iter().filter_map(|target| target.pm2.as_ref()) {
        if homes.iter().any(|known| known.home.path() == pm2.home) {
            continue;
        }
        let env = config.env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
        let (folder, scope) = (config.folder.clone(), Scope::default());
        let caller = Caller { home: pm2.home.clone(), folder, env, timeout: RUNG_TIMEOUT, scope };
        let home = Home::at(&pm2.home);
        let program = caller.find_program().ok();
        let mut daemon = home.observe_all_daemons();
        let can_list = !offline && program.is_some() && daemon.state() == DaemonState::Alive;
        let listing = can_list.then(|| caller.list());
        daemon.is_silent = listing == Some(Listing::Silent);
        let (version, saved) = (program.as_deref().and_then(version::read_version), home.saved());
        homes.push(Pm2Snapshot { version, listing, daemon, saved, home });
    }
    homes
}

/// `result`: of the probe, if one was made.
pub(super) fn inspect(target: &Target, homes: &[Pm2Snapshot], result: Option<&ProbeResult>) -> Pm2Findings {
    let Some(pm2) = &target.pm2 else { return Pm2Findings::default() };
    let Some(home) = homes.iter().find(|known| known.home.path() == pm2.home) else { return Pm2Findings::default() };
    let version = home.version.as_deref().map(|version| format!("PM2 {}", escaped(version)));
    let label = version.unwrap_or_else(|| "PM2".into());
    let mut lines = vec![format!("  {label:<10}  {}", home.describe_state(pm2))];
    let mut problems = home.find_problems(pm2);
    let refused = result.map(|result| refused_ports(&target.probe, result)).unwrap_or_default();
    if !refused.is_empty()
        && let Some(listening) = home.listening(pm2)
    {
        let name = escaped(&pm2.process);
        for (text, is_problem) in listening.describe_other_ports(&name, &refused) {
            match is_problem {
                true => problems.push(text),
                false => lines.push(format!("              {text}")),
            }
        }
    }
    let is_saved = home.saves(&pm2.process);
    if !is_saved && pm2.config.is_some() {
        lines.push(format!(
            "              {} is not in the saved list: a repair starts it from config and loses the others. \
             Fix: {} save",
            escaped(&pm2.process),
            escaped(&home.home.pm2_command())
        ));
    }
    let resets = target.ladder.iter().any(|rung| matches!(rung.remedy, Remedy::Pm2Reset(_)));
    if pm2.reset && !resets {
        lines.push("              reset: true has no effect with restart: add {pm2: reset} as its last command".into());
    }
    if pm2.env.is_some() && pm2.config.is_none() {
        lines.push("              env has no effect without config: PM2 keeps the variables of each process".into());
    }
    let app = home.apps().find(|app| app.name == pm2.process);
    if let Some(app) = app {
        lines.extend(describe_scheduled(app));
        problems.extend(find_short_timeouts(target, app));
        problems.extend(home.saved_app(app).and_then(describe_missing_program).map(|missing| {
            let (missing, call) = (escaped(&missing), home.home.pm2_command());
            format!("{missing}: a reboot would not bring it back. Fix: start it again, then {} save", escaped(&call))
        }));
    }
    for (is_problem, text) in inspect_ecosystem_file(pm2, app, is_saved) {
        match is_problem {
            true => problems.push(text),
            false => lines.push(format!("              {text}")),
        }
    }
    Pm2Findings { lines, problems }
}

/// A process that is stopped at times on purpose: its rest causes no incident and no message.
fn describe_scheduled(app: &App) -> Option<String> {
    let name = escaped(&app.name);
    let what = match (app.is_scheduled, app.autorestart) {
        (true, false) => format!("{name} runs on a schedule (cron_restart)"),
        (false, false) => format!("PM2 does not restart {name} when it exits 0 (autorestart: false)"),
        (_, true) => return None,
    };
    Some(format!("              {what}: being stopped between runs is no outage"))
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

    fn describe_state(&self, pm2: &Pm2Config) -> String {
        let list = match (&self.saved, self.saves(&pm2.process)) {
            (SavedList::Apps(_), true) => "list saved",
            (SavedList::Apps(_), false) => "list saved without it",
            (SavedList::Missing, _) => "no list saved",
            (SavedList::Unreadable(_), _) => "saved list unreadable",
        };
        let process = self.describe_process(pm2);
        match self.daemon.state() {
            DaemonState::Alive => format!("alive, {list}; {process}"),
            DaemonState::Deaf => format!("unreachable, {list}; {process}"),
            DaemonState::Unknown => format!("unknown, {list}; {process}"),
            DaemonState::Dead if self.living_pid(pm2).is_some() => {
                format!("dead, {list}; {process}, without a daemon")
            }
            DaemonState::Dead if self.saves(&pm2.process) || pm2.config.is_some() => {
                format!("dead, {list}; a repair starts it again when the target is down")
            }
            DaemonState::Dead => format!("dead, {list}"),
        }
    }

    fn living_pid(&self, pm2: &Pm2Config) -> Option<u32> {
        match self.home.observe_process(&pm2.process, None, &self.daemon).state() {
            ProcessState::Alive(process) => Some(process.pid),
            ProcessState::Gone | ProcessState::Unknown(_) => None,
        }
    }

    /// Where the process listens; `None` if it does not run.
    fn listening(&self, pm2: &Pm2Config) -> Option<Listening> {
        let instances = self.listed().unwrap_or_default().iter().filter(|app| app.name == pm2.process);
        let (is_cluster, pids): (Vec<bool>, Vec<u32>) =
            instances.filter_map(|app| Some((app.is_cluster, app.pid?))).unzip();
        let pids = if pids.is_empty() { self.living_pid(pm2).into_iter().collect() } else { pids };
        let daemon = self.daemon.proven.first().filter(|_| is_cluster.contains(&true)).map(|daemon| daemon.process.pid);
        Listening::observe(&pids, daemon)
    }

    fn describe_process(&self, pm2: &Pm2Config) -> String {
        let name = escaped(&pm2.process);
        let Some(listed) = self.listed() else {
            return match self.home.observe_process(&pm2.process, None, &self.daemon).state() {
                ProcessState::Alive(process) => format!("{name} runs, pid {}", process.pid),
                ProcessState::Gone if self.daemon.state() != DaemonState::Unknown => format!("{name} does not run"),
                ProcessState::Gone | ProcessState::Unknown(_) => format!("whether {name} runs is unknown"),
            };
        };
        let instances: Vec<&App> = listed.iter().filter(|app| app.name == pm2.process).collect();
        match instances[..] {
            [] => format!("{name} is not in PM2's list"),
            [App { status, pid: Some(pid), .. }] => format!("{name} {}, pid {pid}", escaped(status)),
            [App { status, pid: None, .. }] => format!("{name} {}", escaped(status)),
            _ => {
                let online = instances.iter().filter(|app| app.status == "online").count();
                format!("{name} online, {online} of {} instances", instances.len())
            }
        }
    }

    fn find_problems(&self, pm2: &Pm2Config) -> Vec<String> {
        let (home, name) = (shorten_home(self.home.path()), escaped(&pm2.process).into_owned());
        let call = escaped(&self.home.pm2_command()).into_owned();
        if !self.home.path().is_dir() {
            return vec![format!("no PM2 in {home}: no such folder{}", describe_other_home(self.home.path()))];
        }
        let mut problems = Vec::new();
        if let Some(trouble) = self.daemon.trouble(&self.home.path().display().to_string(), &self.home.pm2_command()) {
            problems.push(escaped(&trouble).into_owned());
        }
        if self.daemon.proven.len() > 1 {
            let pids: Vec<String> = self.daemon.proven.iter().map(|daemon| daemon.process.pid.to_string()).collect();
            // kill -9, because on SIGTERM each daemon would overwrite the saved list with its own.
            problems.push(format!(
                "{} PM2 daemons run in {home} (pids {}), and none of them knows all processes. Fix: kill -9 {}; wait \
                 until their processes have ended; then {call} resurrect starts the saved list",
                pids.len(),
                pids.join(", "),
                pids.join(" ")
            ));
        }
        if let Some(Listing::Failed(why)) = &self.listing {
            problems.push(format!("PM2 in {home} did not list its processes: {}", escaped(why)));
        }
        if self.daemon.state() == DaemonState::Dead
            && let Some(pid) = self.living_pid(pm2)
        {
            problems.push(format!(
                "PM2's daemon is dead and {name} (pid {pid}) runs without it, so PM2 will not restart it. Fix, at a \
                 time that suits you: kill {pid}; {call} resurrect"
            ));
        }
        let is_known = self.apps().any(|app| app.name == pm2.process);
        if !is_known && !self.saves(&pm2.process) && pm2.config.is_none() {
            problems.push(format!("PM2 in {home} has no process {name}; {}", self.describe_names()));
        } else if !self.saves(&pm2.process) && pm2.config.is_none() {
            problems.push(format!("{name} is not in PM2's saved list, so a reboot would lose it. Fix: {call} save"));
        }
        if let SavedList::Unreadable(why) = &self.saved {
            problems.push(format!("PM2's saved list cannot be read: {}. Fix: {call} save", escaped(why)));
        }
        problems
    }

    fn describe_names(&self) -> String {
        let mut names: Vec<&str> = self.apps().map(|app| app.name.as_str()).collect();
        names.dedup();
        match names.is_empty() {
            true => "it has none".into(),
            false => format!("it has {}", escaped(&names.join(", "))),
        }
    }
}

fn describe_other_home(home: &Path) -> String {
    let from_env = read_env("PM2_HOME").map(PathBuf::from);
    let default = config::home(&read_env).map(|home| home.join(".pm2"));
    let found = from_env.into_iter().chain(default).find(|path| path != home && path.is_dir());
    found.map(|path| format!("; {} exists", shorten_home(&path))).unwrap_or_default()
}

/// Remarks on the file, each with whether it is a problem. `app` is the process as PM2 runs it.
fn inspect_ecosystem_file(pm2: &Pm2Config, app: Option<&App>, is_saved: bool) -> Vec<(bool, String)> {
    let Some(path) = pm2.config.as_deref() else { return Vec::new() };
    let (shown, name) = (shorten_home(path), escaped(&pm2.process));
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
            vec![(true, format!("the ecosystem file {shown} has no process {name}: pm2 start would start nothing"))]
        }
        Match::Other(why) => vec![(
            true,
            format!(
                "the ecosystem file {shown} describes a different {name}: {}. Fix: set cwd in it, as an absolute path",
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
            // Without a saved list a repair uses the file, and would start the process with other variables, such as
            // those of another database.
            let env = escaped(env);
            let text = format!("{name} runs with env_{env} of {shown}. Fix: set env: {env} next to config");
            found.push((!is_saved, text));
        }
        (Some(_) | None, _) => {}
    }
    found
}

/// Restart commands whose timeout is shorter than pm2 may wait for the process to end or to be ready.
fn find_short_timeouts(target: &Target, app: &App) -> Vec<String> {
    let name = escaped(&app.name);
    let waits = app.kill_timeout + app.ready_timeout.unwrap_or_default();
    let what = match app.ready_timeout {
        None => format!("{name} may take {} to end (kill_timeout)", HumanDuration(app.kill_timeout)),
        Some(_) => {
            format!("{name} may take {} to end and to be ready (kill_timeout, listen_timeout)", HumanDuration(waits))
        }
    };
    let needed = waits + KILL_TIMEOUT_MARGIN;
    let too_short = |rung: &&Rung| rung.timeout < needed && calls_pm2(&rung.remedy);
    let problem = |rung: &Rung| {
        let seconds = needed.as_secs() + u64::from(needed.subsec_nanos() > 0);
        let fix = match &rung.remedy {
            Remedy::Pm2Restart(_) => format!("restart: [{{pm2: restart, timeout: {seconds}s}}]"),
            Remedy::Pm2Reset(_) => format!("{{pm2: reset, timeout: {seconds}s}} in restart"),
            Remedy::Command(_) => format!("{{run: …, timeout: {seconds}s}}"),
        };
        format!("{what}, but the timeout of the pm2 command is {}. Fix: {fix}", HumanDuration(rung.timeout))
    };
    let mut problems: Vec<String> = target.ladder.iter().filter(too_short).map(problem).collect();
    if let Some(ready) = app.ready_timeout.filter(|ready| *ready > target.limits.start_period) {
        let (seconds, ready) = (ready.as_secs() + u64::from(ready.subsec_nanos() > 0), HumanDuration(ready));
        let start_period = HumanDuration(target.limits.start_period);
        problems.push(format!(
            "{name} may take {ready} to be ready (listen_timeout), but failures count after {start_period}. Fix: \
             start_period: {seconds}s"
        ));
    }
    problems
}

/// What else restarts or deletes PM2's processes, with the command that ends it. None if the configuration does not use
/// PM2.
pub(super) fn find_dangers(config: &Config, homes: &[Pm2Snapshot], crontab: &Crontab) -> Vec<String> {
    let rungs = || config.targets.iter().flat_map(|target| &target.ladder);
    if homes.is_empty() && !rungs().any(|rung| calls_pm2(&rung.remedy)) {
        return Vec::new();
    }
    let mut dangers: Vec<String> = homes.iter().flat_map(|home| find_watchers(config, home)).collect();
    let own_home = config::home(&read_env).unwrap_or_else(|| "/".into());
    let lines = other_watchers::find_in_crontab(crontab, &path_for_crontab(), &own_home);
    dangers.extend(lines.into_iter().map(|other_watchers::CronLine { what, when }| {
        format!("your crontab runs {} {}. Remove that line: crontab -e", escaped(&what), escaped(&when))
    }));
    dangers
}

/// Other watchers among PM2's processes. The next `pm2 resurrect` starts one that is only in the saved list.
fn find_watchers(config: &Config, home: &Pm2Snapshot) -> Vec<String> {
    let is_watched = |app: &App| {
        let mut watched = config.targets.iter().filter_map(|target| target.pm2.as_ref());
        watched.any(|pm2| pm2.home == home.home.path() && pm2.process == app.name)
    };
    let call = escaped(&home.home.pm2_command()).into_owned();
    let listed = home.listed();
    let mut reported: Vec<&str> = Vec::new();
    let mut dangers = Vec::new();
    for app in listed.unwrap_or_default().iter().chain(home.saved_apps()) {
        // A process that listens on a port is a backend, which may call pm2 to deploy.
        let serves = || app.pid.and_then(identify_living).is_some_and(|process| !listening_ports(process).is_empty());
        if reported.contains(&app.name.as_str()) || is_watched(app) || !other_watchers::is_watcher(app) || serves() {
            continue;
        }
        reported.push(&app.name);
        let (name, script) = (escaped(&app.name), other_watchers::script_name(app));
        let script = if script.is_empty() { String::new() } else { format!(" ({})", escaped(&script)) };
        let is_only_saved = listed.is_some_and(|listed| listed.iter().all(|other| other.name != app.name));
        let delete = escaped(&shell_quote(&app.name)).into_owned();
        // pm2 delete needs a running daemon that has the process in its list.
        let first = if home.is_alive() { String::new() } else { format!("{call} resurrect && ") };
        dangers.push(match is_only_saved {
            true => format!("PM2's saved list still has {name}{script}. Remove it:\n              {call} save"),
            false => format!(
                "PM2 also runs {name}{script}. Two restarters make two PM2 daemons:\n              \
                 {first}{call} delete {delete} && {call} save"
            ),
        });
    }
    dangers
}

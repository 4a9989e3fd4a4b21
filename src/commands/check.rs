//! `check`: reports what would happen with this configuration, here and under cron. It must change nothing: it creates
//! no folder and runs no restart command; it probes each target once.

mod addresses;
mod cron;
mod notify;
mod pm2;
mod ports;
mod starters;
mod unit;
mod version;

use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{Access, access};

use crate::cli::Options;
use crate::config::{CommandLine, Config, Pm2Config, RUNG_TIMEOUT, Remedy, Rung, Target};
use crate::outcome::{PriorEvidence, ProbeResult, Verdict};
use crate::policy::{Limits, Mode};
use crate::probe::{Prober, Trust};
use crate::store::Folder;
use crate::store::lock::{HeldBy, Holder, check_lock_support, read_lock};
use crate::store::state::peek;
use crate::terminal::escaped;
use crate::time::{HumanDuration, Latency};

use super::schedule::Schedule;
use super::{Code, drill, holder, load, print, program, read_boot_clock, shorten_home, status};

pub(super) use cron::crontab_line;

pub(super) const WEB_ROOT_RISK: &str = "a web server may show it to everybody; move it to your home folder";
/// Folders that web servers show to everybody.
const WEB_ROOTS: [&str; 6] = ["public_html", "htdocs", "www", "wwwroot", "httpdocs", "html"];

pub(super) fn check(options: &Options, offline: bool, send: bool) -> Result<Code, Code> {
    let config = load(options, "nothing else was checked")?;
    let targets =
        if config.targets.len() == 1 { "1 target".into() } else { format!("{} targets", config.targets.len()) };
    print(&format!("{} is valid. {targets}.", shorten_home(&config.path)));
    let results = if offline { Vec::new() } else { probe_all(&config) };
    let homes = pm2::observe(&config, offline);
    let mut problems = Vec::new();
    let states = peek(&Folder::at(&config.state_dir), &read_boot_clock()).ok().flatten();
    for (index, target) in config.targets.iter().enumerate() {
        let result = results.get(index).map(|(_, result)| result);
        describe_target(target, result).iter().for_each(|line| print(line));
        let state = states.as_ref().and_then(|saved| saved.policy.targets.get(&target.name));
        drill::describe_last(target, state).iter().for_each(|line| print(line));
        let findings = pm2::inspect(target, &homes, result);
        findings.lines.iter().for_each(|line| print(line));
        problems.extend(findings.problems);
        let unit = unit::inspect(&config, target, offline);
        unit.lines.iter().for_each(|line| print(line));
        problems.extend(unit.problems);
    }
    let schedule = Schedule::read(&config);
    problems.extend(cron::report(&config));
    problems.extend(unit::find_missing_manager(&config));
    problems.extend(starters::report(&config, &schedule));
    problems.extend(notify::report(&config, send));
    problems.extend(check_paths(&config));
    for line in &problems {
        print(&format!("PROBLEM     {line}"));
    }
    let dangers = pm2::find_dangers(&config, &homes, &schedule.crontab);
    for line in &dangers {
        print(&format!("DANGER      {line}"));
    }
    let unhealthy = results.iter().filter(|(_, result)| !result.verdict.is_healthy()).count();
    let is_scheduled = schedule.unit.is_some() || schedule.own(&config).next().is_some();
    match describe_not_ready(dangers.len(), problems.len(), unhealthy, is_scheduled) {
        None => {
            starters::describe_ready(&config, &schedule).iter().for_each(|line| print(line));
            program::describe_unstable_path().iter().for_each(|warning| print(warning));
            Ok(Code::Done)
        }
        Some(why) => {
            print(&format!("Not ready: {why}"));
            Ok(Code::Trouble)
        }
    }
}

/// None if nothing is wrong. `is_scheduled`: something starts the watchdog already.
fn describe_not_ready(dangers: usize, problems: usize, unhealthy: usize, is_scheduled: bool) -> Option<String> {
    let found = [count(dangers, "danger"), count(problems, "problem")];
    let found: Vec<String> = found.into_iter().flatten().collect();
    let pronoun = |count: usize| if count == 1 { "it" } else { "them" };
    if found.is_empty() {
        let verb = if unhealthy == 1 { "is" } else { "are" };
        let targets = count(unhealthy, "target")?;
        let fix = pronoun(unhealthy);
        return Some(format!("{targets} {verb} unhealthy. Fix {fix} or the configuration and run check again."));
    }
    let (found, fix) = (found.join(", "), pronoun(dangers + problems));
    let next = if is_scheduled { "" } else { "; it will then print your crontab line" };
    Some(format!("{found}. Fix {fix} and run check again{next}."))
}

/// None if `count` is 0.
fn count(count: usize, noun: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {noun}")),
        count => Some(format!("{count} {noun}s")),
    }
}

pub(super) fn probe_all(config: &Config) -> Vec<(String, ProbeResult)> {
    let trust = &Trust::default();
    thread::scope(|scope| {
        let probe = |target| scope.spawn(move || probe_once(config, target, trust));
        let probes: Vec<_> = config.targets.iter().map(|target| (&target.name, probe(target))).collect();
        probes.into_iter().filter_map(|(name, probe)| Some((name.clone(), probe.join().ok()?))).collect()
    })
}

fn probe_once(config: &Config, target: &Target, trust: &Trust) -> ProbeResult {
    let (timeout, folder) = (target.limits.timeout, &config.folder);
    match Prober::new(&target.probe, None, timeout, folder, &config.env, &config.secrets, trust) {
        Ok(prober) => {
            let result = prober.probe(PriorEvidence::default(), &target.limits.restart_on);
            // What a probe command left running would outlive `check`.
            prober.scope().inspect(|scope| scope.end());
            result
        }
        Err(detail) => ProbeResult::new(Verdict::Unknown { detail }, std::time::Duration::ZERO),
    }
}

pub(super) fn describe_result(result: &ProbeResult) -> String {
    let detail = escaped(result.verdict.detail());
    match &result.verdict {
        Verdict::Healthy { .. } => format!("{detail} in {}", Latency(result.latency)),
        Verdict::Unhealthy { class, .. } => class.with_detail(&detail),
        Verdict::Unknown { .. } => format!("unknown: {detail}"),
    }
}

fn describe_schedule(limits: &Limits) -> String {
    let (every, timeout) = (HumanDuration(limits.interval), HumanDuration(limits.timeout));
    let retry = match limits.retry_interval < limits.interval {
        true => format!(", every {} after a failure", HumanDuration(limits.retry_interval)),
        false => String::new(),
    };
    let failures = match limits.failure_threshold {
        1 => "1 failure".to_owned(),
        threshold => format!("{threshold} failures in a row"),
    };
    let slow = limits.slow.map_or_else(String::new, |slow| format!(", slow over {}", HumanDuration(slow)));
    let bound = HumanDuration(limits.detection_bound());
    format!("every {every}{retry}, timeout {timeout}{slow}; down after {failures} (within {bound})")
}

fn describe_target(target: &Target, result: Option<&ProbeResult>) -> Vec<String> {
    let limits = &target.limits;
    let verdict = result.map_or_else(|| "not probed (--offline)".into(), describe_result);
    let mut lines = vec![format!("{}   {}   {verdict}", target.name, addresses::describe_probe(&target.probe))];
    let addresses = addresses::describe_each(&target.probe, result);
    lines.push(format!("  probes      {}", describe_schedule(limits)));
    lines.extend(addresses);
    if target.ladder.is_empty() {
        lines.push("  repairs     none: this target is only watched".into());
        return lines;
    }
    for (index, rung) in target.ladder.iter().enumerate() {
        let label = if index == 0 { "repairs" } else { "" };
        lines.push(format!("  {label:<10}  {}  {}", index + 1, describe_rung(rung, target)));
    }
    let (apart, later) = (HumanDuration(limits.cooldown), HumanDuration(limits.max_cooldown));
    let (most, window) = (limits.max_restarts, HumanDuration(limits.restart_window));
    lines.push(format!("              {apart} apart, later up to {later}; at most {most} in {window}"));
    if let Some(command) = &target.only_if {
        lines.push(format!("              only if this exits 0: {}", one_line(command)));
    }
    if !limits.depends_on.is_empty() {
        let depends_on = limits.depends_on.join(", ");
        lines.push(format!("              not while one of these is in trouble: {depends_on}"));
    }
    if limits.dry_run {
        lines.push("              dry run: decisions are recorded, no restart command runs".into());
    }
    lines
}

fn describe_rung(rung: &Rung, target: &Target) -> String {
    let timeout = HumanDuration(rung.timeout);
    let each = match rung.timeout == RUNG_TIMEOUT {
        true => String::new(),
        false => format!("; each at most {timeout}"),
    };
    match &rung.remedy {
        Remedy::Command(command) => format!("{}   (at most {timeout})", one_line(command)),
        Remedy::Pm2Restart(Pm2Config { process, config, .. }) => {
            let file =
                config.as_ref().map(|config| format!("; {} when nothing else brings it back", shorten_home(config)));
            let file = file.unwrap_or_default();
            format!("pm2 restart {}   (pm2 resurrect when PM2 is dead{file}{each})", escaped(process))
        }
        Remedy::Pm2Reset(_) => {
            let ports: Vec<String> = target.probe.local_ports().iter().map(u16::to_string).collect();
            let orphan = match ports.as_slice() {
                [] => String::new(),
                ports => format!(" or an orphan holds port {}", ports.join(" or ")),
            };
            format!("reset PM2: only when it is stuck{orphan}, and only what is proven yours{each}")
        }
    }
}

fn one_line(command: &CommandLine) -> String {
    escaped(command.to_string().trim()).into_owned()
}

/// Prints where files go, and returns the problems found.
fn check_paths(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let state = &config.state_dir;
    problems.extend(describe_unwritable(state).map(|why| format!("state folder {}: {why}", state.display())));
    let log_folder = config.log.file.parent().unwrap_or(Path::new("/"));
    if log_folder != state {
        problems
            .extend(describe_unwritable(log_folder).map(|why| format!("log folder {}: {why}", log_folder.display())));
    }
    for (what, path) in [("configuration", &config.path), ("state folder", state), ("log", &config.log.file)] {
        if is_under_web_root(path) {
            problems.push(format!("{what} {} is under a web root: {WEB_ROOT_RISK}", path.display()));
        }
    }
    let published = [("page", config.page.as_ref().map(|page| &page.file)), ("metrics", config.metrics.as_ref())];
    for (what, path) in published.into_iter().filter_map(|(what, path)| Some((what, path?))) {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let problem = match folder.is_dir() {
            true => describe_unwritable(folder),
            false => Some("its folder does not exist".into()),
        };
        match problem {
            Some(why) => problems.push(format!("{what} {}: {why}", path.display())),
            None => print(&format!("Publishes   {what} in {}", shorten_home(path))),
        }
    }
    if config.metrics.as_ref().is_some_and(|path| path.extension().is_none_or(|extension| extension != "prom")) {
        problems.push("metrics: node_exporter reads only files whose names end in .prom".into());
    }
    let log_bytes = config.log.max_size.saturating_mul(u64::from(config.log.keep) + 1);
    // Two event files of 4 MiB, 10 MiB of incidents, two files of closed incidents of 1 MiB, and 1 MiB for the state.
    let mib = (log_bytes + (8 << 20) + (10 << 20) + (2 << 20)).div_ceil(1 << 20) + 1;
    print(&format!("Disk        at most {mib} MiB in {}", shorten_home(state)));
    problems.extend(check_lock(config));
    problems
}

/// Prints that a watchdog is running, and returns its problem if it has one.
fn check_running(folder: &Folder, holder: &Holder) -> Option<String> {
    let status = match status::read(folder) {
        Ok(status) => status,
        Err(error) => return Some(error.to_string()),
    };
    let (watch, is_daemon) = (status.presence(), holder.mode == Mode::Daemon);
    // A first tick has not saved anything yet.
    if !watch.is_watching() || (is_daemon && !watch.is_current()) {
        return Some(watch.to_string());
    }
    let (what, pid) = (if is_daemon { "a watchdog" } else { "a tick" }, holder.pid);
    print(&format!("Running     {what} (pid {pid}, {})", holder.config.display()));
    if is_daemon && status.config_changed {
        print("            it has not read the file since the last change. Load it: watchdog reload");
    }
    None
}

/// Why a watchdog with this configuration could not take the lock, or what is wrong with the one that has it.
fn check_lock(config: &Config) -> Option<String> {
    let folder = Folder::at(&config.state_dir);
    // A folder that is not writable was reported already.
    describe_unwritable(folder.path()).is_none().then_some(())?;
    if let Err(error) = check_lock_support(&folder) {
        return Some(format!(
            "{error}: the watchdog must lock a file in state_dir. Fix: put state_dir on another disk"
        ));
    }
    match read_lock(&folder) {
        Ok(Some(HeldBy::Visible(held))) => {
            let refusal = holder::refuse_other_config(&folder, &held, &config.path);
            refusal.map_or_else(|| check_running(&folder, &held), |refusal| Some(refusal.text))
        }
        Ok(Some(unseen)) => Some(holder::refuse_held(&folder, &unseen).text),
        Ok(None) => holder::refuse_recent_other(&folder, &config.path).map(|refusal| refusal.text),
        Err(error) => Some(error.to_string()),
    }
}

pub(super) fn is_under_web_root(path: &Path) -> bool {
    path.iter().any(|part| WEB_ROOTS.iter().any(|root| part == *root))
}

/// Why nothing could be written into a folder, which may not exist yet.
fn describe_unwritable(folder: &Path) -> Option<String> {
    let existing: PathBuf = folder.ancestors().find(|path| path.exists())?.into();
    if !existing.is_dir() {
        return Some(format!("{} is not a folder", existing.display()));
    }
    let needed = Access::WRITE_OK | Access::EXEC_OK;
    let error = access(&existing, needed).err()?;
    let which = if existing == folder { String::new() } else { format!("{} is ", existing.display()) };
    Some(format!("{which}not writable ({})", crate::outcome::describe_io_error(&error.into())))
}

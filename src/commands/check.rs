//! `check`: what would happen with this configuration, here and under cron. It must touch nothing: no folder is made,
//! no restart command is run; each target is looked at once.

mod cron;
mod notify;
mod pm2;
mod version;

use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{Access, access};

use crate::cli::Options;
use crate::config::{CommandLine, Config, Pm2Config, Probe, RUNG_TIMEOUT, Remedy, Rung, Target, Tls};
use crate::outcome::{PriorEvidence, ProbeResult, Verdict};
use crate::policy::Mode;
use crate::probe::{Prober, Trust};
use crate::store::Folder;
use crate::store::lock::{HeldBy, Holder, can_lock, read_lock};
use crate::terminal::escaped;
use crate::time::{HumanDuration, Latency};

use super::{Code, holder, load, say, status, tilde};

pub(super) use cron::crontab_line;

/// What follows from a file's being under a web root, and what helps.
pub(super) const VISIBLE: &str = "a web server may show it to everybody; move it to your home folder";
/// Folders that web servers show to everybody.
const WEB_ROOTS: [&str; 6] = ["public_html", "htdocs", "www", "wwwroot", "httpdocs", "html"];

pub(super) fn check(options: &Options, offline: bool, send: bool) -> Result<Code, Code> {
    let config = load(options, "nothing else was checked")?;
    let targets =
        if config.targets.len() == 1 { "1 target".into() } else { format!("{} targets", config.targets.len()) };
    say(&format!("{} is valid. {targets}.", config.path.display()));
    let looks = if offline { Vec::new() } else { probe_all(&config) };
    let homes = pm2::observe(&config, offline);
    let mut wrong = Vec::new();
    for (index, target) in config.targets.iter().enumerate() {
        let look = looks.get(index).map(|(_, look)| look);
        describe(target, look).iter().for_each(|line| say(line));
        let beside = pm2::judge(target, &homes);
        beside.lines.iter().for_each(|line| say(line));
        wrong.extend(beside.wrong);
    }
    wrong.extend(cron::report(&config));
    wrong.extend(notify::report(&config, send));
    wrong.extend(places(&config));
    for line in &wrong {
        say(&format!("WRONG       {line}"));
    }
    let dangers = pm2::dangers(&config, &homes);
    for line in &dangers {
        say(&format!("DANGER      {line}"));
    }
    let bad = looks.iter().filter(|(_, look)| !look.verdict.is_healthy()).count();
    match not_ready(dangers.len(), wrong.len(), bad) {
        None => {
            say("Ready. Paste this into crontab -e, or into your panel's cron jobs:");
            say(&crontab_line(&config, "* * * * *", "start --cron"));
            Ok(Code::Done)
        }
        Some(why) => {
            say(&format!("Not ready: {why}"));
            Ok(Code::Trouble)
        }
    }
}

/// Why it is not to be started like this; none where it may be.
fn not_ready(dangers: usize, wrong: usize, bad: usize) -> Option<String> {
    let counted = |count: usize, one: &str, many: &str| match count {
        0 => None,
        1 => Some(one.to_owned()),
        count => Some(format!("{count} {many}")),
    };
    let found = [counted(dangers, "1 danger", "dangers"), counted(wrong, "1 thing is wrong", "things are wrong")];
    let found: Vec<String> = found.into_iter().flatten().collect();
    if found.is_empty() {
        let bad = counted(bad, "1 target does", "targets do")?;
        return Some(format!("{bad} not answer as wanted. Mend that or the configuration, and check again."));
    }
    let mend = if dangers + wrong == 1 { "that" } else { "them" };
    let found = found.join(", and ");
    Some(format!("{found}. Mend {mend} and run check again; it will then print your crontab line."))
}

pub(super) fn probe_all(config: &Config) -> Vec<(String, ProbeResult)> {
    let trust = Trust::default();
    let look = |target: &Target| {
        let (timeout, folder) = (target.limits.timeout, &config.folder);
        let look = match Prober::new(&target.probe, None, timeout, folder, &config.env, &config.secrets, &trust) {
            Ok(prober) => {
                let look = prober.probe(PriorEvidence::default());
                // Nothing that was started for this answer stays behind.
                prober.scope().inspect(|scope| scope.end());
                look
            }
            Err(detail) => ProbeResult {
                verdict: Verdict::Unknown { detail },
                latency: std::time::Duration::ZERO,
                pm2: None,
                evidence: None,
                file: None,
            },
        };
        (target.name.clone(), look)
    };
    thread::scope(|scope| {
        let looks: Vec<_> = config.targets.iter().map(|target| scope.spawn(move || look(target))).collect();
        looks.into_iter().filter_map(|look| look.join().ok()).collect()
    })
}

pub(super) fn describe_result(look: &ProbeResult) -> String {
    let detail = escaped(look.verdict.detail());
    match &look.verdict {
        Verdict::Healthy { .. } => format!("{detail} in {}", Latency(look.latency)),
        Verdict::Unhealthy { class, .. } => class.with_detail(&detail),
        Verdict::Unknown { .. } => format!("unknown: {detail}"),
    }
}

fn describe(target: &Target, look: Option<&ProbeResult>) -> Vec<String> {
    let limits = &target.limits;
    let found = look.map_or_else(|| "not looked at (--offline)".into(), describe_result);
    let mut lines = vec![format!("{}   {}   {found}", target.name, escaped(&target.probe.to_string()))];
    let bound = HumanDuration((limits.interval + limits.timeout) * limits.failure_threshold);
    let retry = match limits.retry_interval < limits.interval {
        true => format!(", every {} after a bad one", HumanDuration(limits.retry_interval)),
        false => String::new(),
    };
    let (every, timeout, bad) =
        (HumanDuration(limits.interval), HumanDuration(limits.timeout), limits.failure_threshold);
    lines.push(format!(
        "  looks       every {every}{retry}, gives up after {timeout}; {bad} bad in a row = down (found within {bound})"
    ));
    if let Probe::Http(http) = &target.probe
        && http.tls == Tls::Insecure
    {
        lines.push("              certificates are not checked (tls: insecure)".into());
    }
    if target.ladder.is_empty() {
        lines.push("  repairs     nothing: it is only watched".into());
        return lines;
    }
    for (index, rung) in target.ladder.iter().enumerate() {
        let label = if index == 0 { "repairs" } else { "" };
        lines.push(format!("  {label:<10}  {}  {}", index + 1, remedy(rung, target)));
    }
    let (apart, later) = (HumanDuration(limits.cooldown), HumanDuration(limits.max_cooldown));
    let (most, window) = (limits.max_restarts, HumanDuration(limits.restart_window));
    lines.push(format!("              {apart} apart, later up to {later}; at most {most} in {window}"));
    if let Some(command) = &target.only_if {
        lines.push(format!("              only if this exits 0: {}", one_line(command)));
    }
    if !limits.depends_on.is_empty() {
        lines.push(format!("              not while in trouble: {}", limits.depends_on.join(", ")));
    }
    if limits.dry_run {
        lines.push("              dry run: decides and records, runs nothing".into());
    }
    lines
}

fn remedy(rung: &Rung, target: &Target) -> String {
    let timeout = HumanDuration(rung.timeout);
    let each = match rung.timeout == RUNG_TIMEOUT {
        true => String::new(),
        false => format!("; each at most {timeout}"),
    };
    match &rung.remedy {
        Remedy::Command(command) => format!("{}   (at most {timeout})", one_line(command)),
        Remedy::Pm2Restart(Pm2Config { process, config, .. }) => {
            let file = config.as_ref().map(|config| format!("; {} when nothing else brings it back", tilde(config)));
            let file = file.unwrap_or_default();
            format!("pm2 restart {}   (pm2 resurrect when PM2 is dead{file}{each})", escaped(process))
        }
        Remedy::Pm2Reset(_) => {
            let orphan = target.probe.local_port().map(|port| format!(" or an orphan holds port {port}"));
            let orphan = orphan.unwrap_or_default();
            format!("reset PM2: only when it is stuck{orphan}, and only what is proven yours{each}")
        }
    }
}

fn one_line(command: &CommandLine) -> String {
    escaped(command.to_string().trim()).into_owned()
}

/// The folders for state and log, and what else lives in them; says what is wrong with them.
fn places(config: &Config) -> Vec<String> {
    let mut wrong = Vec::new();
    let state = &config.state_dir;
    wrong.extend(unwritable(state).map(|why| format!("state folder {}: {why}", state.display())));
    let log_folder = config.log.file.parent().unwrap_or(Path::new("/"));
    if log_folder != state {
        wrong.extend(unwritable(log_folder).map(|why| format!("log folder {}: {why}", log_folder.display())));
    }
    for (what, path) in [("configuration", &config.path), ("state folder", state), ("log", &config.log.file)] {
        if is_under_web_root(path) {
            wrong.push(format!("{what} {} lies under a web root: {VISIBLE}", path.display()));
        }
    }
    let published = [("page", config.page.as_ref().map(|page| &page.file)), ("metrics", config.metrics.as_ref())];
    for (what, path) in published.into_iter().filter_map(|(what, path)| Some((what, path?))) {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let trouble = match folder.is_dir() {
            true => unwritable(folder),
            false => Some("its folder is not there".into()),
        };
        match trouble {
            Some(why) => wrong.push(format!("{what} {}: {why}", path.display())),
            None => say(&format!("Publishes   {what} in {}", tilde(path))),
        }
    }
    if config.metrics.as_ref().is_some_and(|path| path.extension().is_none_or(|extension| extension != "prom")) {
        wrong.push("metrics: node_exporter reads no file whose name does not end in .prom".into());
    }
    let log_bytes = config.log.max_size.saturating_mul(u64::from(config.log.keep) + 1);
    // Two files of events, the incidents and what is over of them, and the state, whatever it has come to.
    let mib = (log_bytes + (8 << 20) + (10 << 20) + (2 << 20)).div_ceil(1 << 20) + 1;
    say(&format!("Disk        about {mib} MiB at most in {}", state.display()));
    wrong.extend(occupied(config));
    wrong
}

/// Says how the watchdog at work is; what is wrong with it.
fn at_work(folder: &Folder, holder: &Holder) -> Option<String> {
    let status = match status::read(folder) {
        Ok(status) => status,
        Err(error) => return Some(error.to_string()),
    };
    let (watch, is_daemon) = (status.watch(), holder.mode == Mode::Daemon);
    // A first tick has saved nothing yet.
    if !watch.is_at_work() || (is_daemon && !watch.is_current()) {
        return Some(watch.to_string());
    }
    let (what, pid) = (if is_daemon { "at work" } else { "making a tick" }, holder.pid);
    say(&format!("Running     a watchdog is {what} (pid {pid}, {})", holder.config.display()));
    if is_daemon && status.config_changed {
        say(&format!("            it has not read the file as it is now; it does at: kill -HUP {pid}"));
    }
    None
}

/// Who is at work in the state folder; says what keeps a watchdog with this configuration from it.
fn occupied(config: &Config) -> Option<String> {
    let folder = Folder::at(&config.state_dir);
    // Of a folder that cannot be used, no more needs to be said.
    unwritable(folder.path()).is_none().then_some(())?;
    if let Err(error) = can_lock(&folder) {
        return Some(format!("{error}: a watchdog must be able to lock a file in state_dir; put it on another disk"));
    }
    match read_lock(&folder) {
        Ok(Some(HeldBy::Seen(held))) => {
            let refusal = holder::another(&folder, &held, &config.path);
            refusal.map_or_else(|| at_work(&folder, &held), |refusal| Some(refusal.text))
        }
        Ok(Some(unseen)) => Some(holder::held(&folder, &unseen).text),
        Ok(None) => holder::worked_lately(&folder, &config.path).map(|refusal| refusal.text),
        Err(error) => Some(error.to_string()),
    }
}

pub(super) fn is_under_web_root(path: &Path) -> bool {
    path.iter().any(|part| WEB_ROOTS.iter().any(|root| part == *root))
}

/// Why nothing could be written into a folder, which may have to be made first.
fn unwritable(folder: &Path) -> Option<String> {
    let existing: PathBuf = folder.ancestors().find(|path| path.exists())?.into();
    if !existing.is_dir() {
        return Some(format!("{} is not a folder", existing.display()));
    }
    let needed = Access::WRITE_OK | Access::EXEC_OK;
    let error = access(&existing, needed).err()?;
    let whose = if existing == folder { "it".into() } else { existing.display().to_string() };
    Some(format!("{whose} cannot be written to ({})", crate::outcome::describe_io_error(&error.into())))
}

//! `check`: what would happen with this configuration, here and under cron. It must touch nothing: no folder is made,
//! no restart command is run; each target is looked at once.

mod cron;

use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{Access, access};

use crate::cli::Options;
use crate::config::{CommandLine, Config, Probe, Target, Tls};
use crate::outcome::{Look, Verdict};
use crate::probe::{Prober, Trust};
use crate::store::Folder;
use crate::store::lock::{Mode, read_holder};
use crate::terminal::escaped;
use crate::time::{Latency, Span};

use super::{Code, load, say};

pub(super) use cron::crontab_line;

/// Folders that web servers show to everybody.
const WEB_ROOTS: [&str; 6] = ["public_html", "htdocs", "www", "wwwroot", "httpdocs", "html"];

pub(super) fn check(options: &Options, offline: bool) -> Code {
    let config = match load(options, "nothing else was checked") {
        Ok(config) => config,
        Err(code) => return code,
    };
    let targets =
        if config.targets.len() == 1 { "1 target".into() } else { format!("{} targets", config.targets.len()) };
    say(&format!("{} is valid. {targets}.", config.path.display()));
    let looks = if offline { Vec::new() } else { look_at_all(&config) };
    for (index, target) in config.targets.iter().enumerate() {
        let look = looks.get(index).map(|(_, look)| look);
        describe(target, look).iter().for_each(|line| say(line));
    }
    let mut wrong = cron::report(&config);
    wrong.extend(places(&config));
    for line in &wrong {
        say(&format!("WRONG       {line}"));
    }
    let bad = looks.iter().filter(|(_, look)| !look.verdict.is_healthy()).count();
    match (wrong.len(), bad) {
        (0, 0) => {
            say("Ready. Paste this into crontab -e, or into your panel's cron jobs:");
            say(&crontab_line(&config, "* * * * *", "start --cron"));
            Code::Done
        }
        (0, bad) => {
            let verb = if bad == 1 { "target does" } else { "targets do" };
            say(&format!(
                "Not ready: {bad} {verb} not answer as wanted. Mend that or the configuration, and check again."
            ));
            Code::Trouble
        }
        (count, _) => {
            let things = if count == 1 { "1 thing is" } else { &format!("{count} things are") };
            say(&format!(
                "Not ready: {things} wrong. Mend that and run check again; it will then print your crontab line."
            ));
            Code::Trouble
        }
    }
}

/// One look at every target, all at the same time.
pub(super) fn look_at_all(config: &Config) -> Vec<(String, Look)> {
    let trust = Trust::default();
    let look = |target: &Target| {
        let (timeout, folder) = (target.limits.timeout, &config.folder);
        let look = match Prober::new(&target.probe, None, timeout, folder, &config.env, &config.secrets, &trust) {
            Ok(prober) => prober.look(),
            Err(detail) => Look { verdict: Verdict::Unknown { detail }, latency: std::time::Duration::ZERO, pm2: None },
        };
        (target.name.clone(), look)
    };
    thread::scope(|scope| {
        let looks: Vec<_> = config.targets.iter().map(|target| scope.spawn(move || look(target))).collect();
        looks.into_iter().filter_map(|look| look.join().ok()).collect()
    })
}

/// What a look has found.
pub(super) fn in_words(look: &Look) -> String {
    let detail = escaped(look.verdict.detail());
    match &look.verdict {
        Verdict::Healthy { .. } => format!("{detail} in {}", Latency(look.latency)),
        Verdict::Unhealthy { class, .. } => class.with(&detail),
        Verdict::Unknown { .. } => format!("unknown: {detail}"),
    }
}

fn describe(target: &Target, look: Option<&Look>) -> Vec<String> {
    let limits = &target.limits;
    let found = look.map_or_else(|| "not looked at (--offline)".into(), in_words);
    let mut lines = vec![format!("{}   {}   {found}", target.name, probe(&target.probe))];
    let bound = Span((limits.interval + limits.timeout) * limits.failure_threshold);
    let retry = match limits.retry_interval < limits.interval {
        true => format!(", every {} after a bad one", Span(limits.retry_interval)),
        false => String::new(),
    };
    let (every, timeout, bad) = (Span(limits.interval), Span(limits.timeout), limits.failure_threshold);
    lines.push(format!(
        "  looks     every {every}{retry}, gives up after {timeout}; {bad} bad in a row = down (found within {bound})"
    ));
    if let Probe::Http(http) = &target.probe
        && http.tls == Tls::Insecure
    {
        lines.push("            certificates are not checked (tls: insecure)".into());
    }
    if target.ladder.is_empty() {
        lines.push("  repairs   nothing: it is only watched".into());
        return lines;
    }
    for (index, rung) in target.ladder.iter().enumerate() {
        let label = if index == 0 { "repairs" } else { "" };
        let (command, timeout) = (rung.remedy.to_string(), Span(rung.timeout));
        lines.push(format!("  {label:<8}  {}  {command}   (at most {timeout})", index + 1));
    }
    let (apart, later) = (Span(limits.cooldown), Span(limits.max_cooldown));
    let (most, window) = (limits.max_restarts, Span(limits.restart_window));
    lines.push(format!("            {apart} apart, later up to {later}; at most {most} in {window}"));
    if let Some(command) = &target.only_if {
        lines.push(format!("            only if this exits 0: {}", one_line(command)));
    }
    if !limits.depends_on.is_empty() {
        lines.push(format!("            not while in trouble: {}", limits.depends_on.join(", ")));
    }
    if limits.dry_run {
        lines.push("            dry run: decides and records, runs nothing".into());
    }
    lines
}

fn one_line(command: &CommandLine) -> String {
    escaped(command.to_string().trim()).into_owned()
}

fn probe(probe: &Probe) -> String {
    match probe {
        Probe::Http(http) => {
            let method = match http.method {
                crate::config::Method::Get => "GET",
                crate::config::Method::Head => "HEAD",
            };
            // What is asked with may be a token.
            let shown = http.shown.split_once('?').map_or(http.shown.clone(), |(page, _)| format!("{page}?…"));
            format!("{method} {shown}")
        }
        Probe::Tcp { host, port } if host.contains(':') => format!("connect to [{host}]:{port}"),
        Probe::Tcp { host, port } => format!("connect to {host}:{port}"),
        Probe::Command(command) => format!("run {}", one_line(command)),
        Probe::Pm2(pm2) => format!("PM2's {} in {}", pm2.process, pm2.home.display()),
        Probe::File { path, max_age } => format!("{} written within {}", path.display(), Span(*max_age)),
    }
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
        let in_web_root = path.iter().any(|part| WEB_ROOTS.iter().any(|root| part == *root));
        if in_web_root {
            let advice = "a web server may show it to everybody; move it to your home folder";
            wrong.push(format!("{what} {} lies under a web root: {advice}", path.display()));
        }
    }
    let log_bytes = config.log.max_size.saturating_mul(u64::from(config.log.keep) + 1);
    // Two files of events, the incidents, and the state, whatever it has come to.
    let mib = (log_bytes + (8 << 20) + (10 << 20)).div_ceil(1 << 20) + 1;
    say(&format!("Disk        about {mib} MiB at most in {}", state.display()));
    if let Some(holder) = read_holder(&Folder::at(state)) {
        let mode = match holder.mode {
            Mode::Daemon => "at work",
            Mode::Once => "making a tick",
        };
        say(&format!("Running     a watchdog is {mode} (pid {}, {})", holder.pid, holder.config.display()));
    }
    wrong
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
    Some(format!("{whose} cannot be written to ({})", crate::outcome::in_words(&error.into())))
}

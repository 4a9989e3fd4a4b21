//! `start`: one watchdog detached, however often it is called. One line in crontab so covers the reboot, the crash and
//! the hang of the watchdog itself.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::cli::Options;
use crate::clock;
use crate::config::Config;
use crate::outcome::describe_io_error;
use crate::policy::Mode;
use crate::store::Folder;
use crate::store::lock::Holder;
use crate::store::state::peek;
use crate::terminal::write_line;
use crate::time::{BootTime, rough};

use super::holder::{Refusal, to_start, worked_lately};
use super::run::{NOTHING_STARTED, READY, TAKEN};
use super::{
    Code, check, complain_to_cron, complain_to_cron_of, forget_complaints, holder, load, load_for_cron, now, say,
    stale_daemon,
};

/// Another start may be faster, and end again.
const TRIES: usize = 3;

pub(super) fn start(options: &Options, cron: bool) -> Result<Code, Code> {
    let load = if cron { load_for_cron } else { load };
    let config = load(options, NOTHING_STARTED)?;
    let folder = Folder::at(&config.state_dir);
    if cron && holder::is_stopped(&folder, &config.path) {
        return Ok(Code::Done);
    }
    let before = last_sign(&folder);
    let mut hung_pid = None;
    for _ in 0..TRIES {
        match to_start(&folder, &config.path) {
            Err(refusal) => return Err(refuse(&refusal, cron)),
            Ok(Some(holder)) if holder.mode == Mode::Daemon => {
                if !stale_daemon::is_hung(&folder, &holder) {
                    return Ok(already(&folder, &holder, cron));
                }
                // Before it is ended it must be certain that another can take its place.
                let ended = Folder::open(folder.path()).map_err(|error| error.to_string());
                if let Err(error) = ended.and_then(|folder| stale_daemon::end(&folder, &holder)) {
                    let why = format!("watchdog: {error} ({NOTHING_STARTED})");
                    return Err(failed(&folder, &why, Code::Machine, cron));
                }
                hung_pid = Some(holder.pid);
            }
            // By hand it is taken over from ticks, which learn of it; cron must not do so of its own.
            Ok(None) if cron => {
                if let Some(refusal) = worked_lately(&folder, &config.path) {
                    return Err(refuse(&refusal, cron));
                }
            }
            Ok(_) => {}
        }
        match detach(options) {
            Ok(Started::AtWork(pid)) => {
                forget_complaints(Some(&folder));
                say(&if cron { mail(&config, pid, hung_pid, before) } else { started(&config, pid, hung_pid) });
                return Ok(Code::Done);
            }
            Ok(Started::Taken) => {}
            Ok(Started::Failed(code, said)) => return Err(failed(&folder, said.trim_end(), code, cron)),
            Err(error) => {
                let why = format!("watchdog: cannot start one: {}", describe_io_error(&error));
                return Err(failed(&folder, &why, Code::Machine, cron));
            }
        }
    }
    let others = format!("watchdog: others hold {} again and again", folder.path().display());
    Err(failed(&folder, &format!("{others} ({NOTHING_STARTED})"), Code::Held, cron))
}

/// Says why none was started; to cron, once a day.
fn failed(folder: &Folder, text: &str, code: Code, cron: bool) -> Code {
    if cron {
        return complain_to_cron_of(Some(folder), text, code);
    }
    write_line(io::stderr(), text);
    code
}

/// One with another configuration, or that cannot be seen, is in the way. Nothing is left in its folder.
fn refuse(refusal: &Refusal, cron: bool) -> Code {
    let text = format!("watchdog: {} ({NOTHING_STARTED})", refusal.text);
    match cron {
        true => complain_to_cron(&text, refusal.code),
        false => refusal.tell(NOTHING_STARTED),
    }
}

fn already(folder: &Folder, holder: &Holder, cron: bool) -> Code {
    match cron {
        true => forget_complaints(Some(folder)),
        false => say(&format!("a watchdog is at work already (pid {}); status shows how the targets are", holder.pid)),
    }
    Code::Done
}

fn started(config: &Config, pid: u32, hung: Option<u32>) -> String {
    let instead = hung.map_or_else(String::new, |hung| format!(" in the place of {hung}, which was hung"));
    format!("watchdog started (pid {pid}){instead}; its log: {}", config.log.file.display())
}

enum Started {
    AtWork(u32),
    Taken,
    Failed(Code, String),
}

/// Starts this program once more, detached, and waits until it says that it is at work.
fn detach(options: &Options) -> io::Result<Started> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--detached"]);
    if let Some(config) = &options.config {
        command.arg("--config").arg(config);
    }
    let flags = [(options.verbose, "--verbose"), (options.quiet, "--quiet"), (options.dry_run, "--dry-run")];
    command.args(flags.into_iter().filter(|(given, _)| *given).map(|(_, flag)| flag));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = child.id();
    // Read along, for a pipe holds only so much. One that is at work lets go of it.
    let said = child.stderr.take().map(|stderr| thread::spawn(move || io::read_to_string(stderr)));
    match first_line(&mut child).as_deref() {
        Some(READY) => Ok(Started::AtWork(pid)),
        Some(TAKEN) => {
            child.wait()?;
            Ok(Started::Taken)
        }
        _ => {
            let code = if child.wait()?.code() == Some(2) { Code::Usage } else { Code::Machine };
            let said = said.and_then(|said| said.join().ok()?.ok()).unwrap_or_default();
            Ok(Started::Failed(code, said))
        }
    }
}

fn first_line(child: &mut Child) -> Option<String> {
    let mut line = String::new();
    BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
    Some(line.trim_end().to_string())
}

/// That somebody watched, before this start.
#[derive(Clone, Copy)]
struct Sign {
    at: BootTime,
    rebooted: bool,
}

fn last_sign(folder: &Folder) -> Option<Sign> {
    let saved = peek(folder, &now()).ok().flatten()?;
    let at = saved.written?;
    // Without a boot id, what is older than this boot tells of one.
    Some(Sign { at, rebooted: saved.rebooted || at < BootTime::BOOT })
}

/// What cron mails: what had to be done, what it means, and what to do if it comes again.
fn mail(config: &Config, pid: u32, hung: Option<u32>, before: Option<Sign>) -> String {
    let (at, zone) = (clock::read(), clock::zone());
    let what = match (hung, before) {
        (Some(hung), _) => format!("The watchdog was hung (pid {hung}). I ended it and started another (pid {pid})."),
        (None, Some(_)) => format!("The watchdog was not running. It is again (pid {pid})."),
        (None, None) => return format!("The watchdog was not running yet. It is now (pid {pid}).{}", answers(config)),
    };
    // By the present wall clock, which may have been set since: how long ago it was says the boot clock.
    let time_of_day = |then: BootTime| zone.time_of_day(at.wall_at(then));
    let last = before.map_or_else(String::new, |Sign { at: seen, rebooted }| {
        let rebooted = match rebooted {
            true => format!("the machine was rebooted at {}", time_of_day(BootTime::BOOT)),
            false => "the machine was not rebooted".into(),
        };
        format!(" Last sign of life {}, {} ago; {rebooted}.", time_of_day(seen), rough(at.now.since(seen)))
    });
    let mut text = format!("{what}{last}\nNobody watched in between.{}", answers(config));
    text += " You get this mail only when I had to start.\n";
    text +=
        "If it comes daily, your host kills background programs. Use this line instead, nothing stays running then:\n";
    text + &format!("  {}", check::crontab_line(config, "*/5 * * * *", "--once"))
}

/// How the targets are now; the troubled ones by name where there are many.
fn answers(config: &Config) -> String {
    let looks = check::probe_all(config);
    let (good, bad): (Vec<_>, Vec<_>) = looks.iter().partition(|(_, look)| look.verdict.is_healthy());
    let mut text = String::new();
    match good.as_slice() {
        [] => {}
        [(name, look)] => text += &format!(" {name} answers now ({}).", check::describe_result(look)),
        many => text += &format!(" {} of {} targets are in order now.", many.len(), looks.len()),
    }
    for (name, look) in bad.iter().take(5) {
        text += &format!(" {name} is in trouble now ({}).", check::describe_result(look));
    }
    text
}

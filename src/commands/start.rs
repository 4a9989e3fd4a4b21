//! `start`: starts a detached watchdog unless one is running. One crontab line thereby covers a reboot, and a crash or
//! hang of the watchdog itself. It must never start a second one.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::cli::Options;
use crate::clock;
use crate::config::Config;
use crate::outcome::describe_io_error;
use crate::policy::Mode;
use crate::process;
use crate::store::Folder;
use crate::store::lock::Holder;
use crate::store::state::peek;
use crate::terminal::write_line;
use crate::time::{BootTime, round_age};

use super::holder::{Refusal, holder_for_start, refuse_recent_other};
use super::run::{ALREADY_HELD, NOTHING_STARTED, READY};
use super::schedule::Schedule;
use super::{
    Code, check, forget_printed, holder, load, load_for_cron, print, print_daily, print_daily_in, read_boot_clock,
    stale_daemon,
};

/// Another watchdog may take the lock first and end again.
const MAX_TRIES: usize = 3;

pub(super) fn start(options: &Options, cron: bool) -> Result<Code, Code> {
    let load = if cron { load_for_cron } else { load };
    let config = load(options, NOTHING_STARTED)?;
    let folder = Folder::at(&config.state_dir);
    if cron && holder::is_stopped(&folder, &config.path) {
        return Ok(Code::Done);
    }
    let last_sign = read_last_sign(&folder);
    let mut hung_pid = None;
    for _ in 0..MAX_TRIES {
        match holder_for_start(&folder, &config.path) {
            Err(refusal) => return Err(print_refusal(&refusal, cron)),
            Ok(Some(holder)) if holder.mode == Mode::Daemon => {
                if !stale_daemon::is_hung(&folder, &holder) {
                    return Ok(report_running(&config, &folder, &holder, cron));
                }
                // It is killed only if the folder is usable, so that another can take its place.
                let usable = Folder::open(folder.path()).map_err(|error| error.to_string());
                if let Err(error) = usable.and_then(|folder| stale_daemon::terminate(&folder, &holder)) {
                    let why = format!("watchdog: {error} ({NOTHING_STARTED})");
                    return Err(print_failure(&folder, &why, Code::Machine, cron));
                }
                hung_pid = Some(holder.pid);
            }
            // The operator may replace ticks with another configuration by a daemon. Cron must not.
            Ok(None) if cron => {
                if let Some(refusal) = refuse_recent_other(&folder, &config.path) {
                    return Err(print_refusal(&refusal, cron));
                }
            }
            Ok(_) => {}
        }
        match detach(options) {
            Ok(StartResult::Running(pid)) => {
                forget_printed(Some(&folder));
                let text = match cron {
                    true => cron_mail(&config, pid, hung_pid, last_sign),
                    false => describe_start(&config, pid, hung_pid),
                };
                print(&text);
                return Ok(Code::Done);
            }
            Ok(StartResult::LostRace) => {}
            Ok(StartResult::Failed(code, text)) => return Err(print_failure(&folder, text.trim_end(), code, cron)),
            Err(error) => {
                let why =
                    format!("watchdog: cannot start a process: {} ({NOTHING_STARTED})", describe_io_error(&error));
                return Err(print_failure(&folder, &why, Code::Machine, cron));
            }
        }
    }
    let others = format!("watchdog: {MAX_TRIES} times another watchdog took {} first", folder.path().display());
    Err(print_failure(&folder, &format!("{others} ({NOTHING_STARTED})"), Code::Held, cron))
}

/// Prints why none was started; for cron, the same text once a day.
fn print_failure(folder: &Folder, text: &str, code: Code, cron: bool) -> Code {
    if cron {
        return print_daily_in(Some(folder), text, code);
    }
    write_line(io::stderr(), text);
    code
}

/// A watchdog with another configuration, or one that is not visible from here, holds the folder. No note is kept in
/// the folder, because it belongs to another watchdog.
fn print_refusal(refusal: &Refusal, cron: bool) -> Code {
    let text = format!("watchdog: {} ({NOTHING_STARTED})", refusal.text);
    match cron {
        true => print_daily(&text, refusal.code),
        false => refusal.print(NOTHING_STARTED),
    }
}

fn report_running(config: &Config, folder: &Folder, holder: &Holder, cron: bool) -> Code {
    if cron {
        forget_printed(Some(folder));
        return Code::Done;
    }
    // systemd sets this for the watchdog's own unit, whatever its name.
    let is_by_systemd = process::environment(holder.pid).is_some_and(|env| env.get("NOTIFY_SOCKET").is_some());
    let hint = if is_by_systemd { String::new() } else { describe_no_boot_start(config) };
    print(&format!("a watchdog is already running (pid {}); see: watchdog status{hint}", holder.pid));
    Code::Done
}

/// What starts the watchdog after a reboot, as a sentence to append; empty if something does.
fn describe_no_boot_start(config: &Config) -> String {
    Schedule::read(config).describe_no_boot_start(config).map_or_else(String::new, |text| format!(". {text}"))
}

fn describe_start(config: &Config, pid: u32, hung: Option<u32>) -> String {
    let killed = hung.map_or_else(String::new, |hung| format!("; killed the hung one (pid {hung})"));
    let (log, hint) = (config.log.file.display(), describe_no_boot_start(config));
    format!("watchdog started (pid {pid}){killed}; log: {log}{hint}")
}

enum StartResult {
    Running(u32),
    LostRace,
    Failed(Code, String),
}

/// Starts this program again, detached, and waits until it reports that it runs.
fn detach(options: &Options) -> io::Result<StartResult> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--detached"]);
    if let Some(config) = &options.config {
        command.arg("--config").arg(config);
    }
    let flags = [(options.verbose, "--verbose"), (options.quiet, "--quiet"), (options.dry_run, "--dry-run")];
    command.args(flags.into_iter().filter(|(given, _)| *given).map(|(_, flag)| flag));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = child.id();
    // On a thread, because a pipe that nobody reads blocks its writer when full. A running watchdog closes it.
    let errors = child.stderr.take().map(|stderr| thread::spawn(move || io::read_to_string(stderr)));
    match read_first_line(&mut child).as_deref() {
        Some(READY) => Ok(StartResult::Running(pid)),
        Some(ALREADY_HELD) => {
            child.wait()?;
            Ok(StartResult::LostRace)
        }
        _ => {
            let code = if child.wait()?.code() == Some(2) { Code::Usage } else { Code::Machine };
            let errors = errors.and_then(|errors| errors.join().ok()?.ok()).unwrap_or_default();
            Ok(StartResult::Failed(code, errors))
        }
    }
}

fn read_first_line(child: &mut Child) -> Option<String> {
    let mut line = String::new();
    BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
    Some(line.trim_end().to_string())
}

/// When a watchdog last ran before this start.
#[derive(Clone, Copy)]
struct SignOfLife {
    at: BootTime,
    rebooted: bool,
}

fn read_last_sign(folder: &Folder) -> Option<SignOfLife> {
    let saved = peek(folder, &read_boot_clock()).ok().flatten()?;
    let at = saved.written_at?;
    // Without a boot id, a time before this boot proves a reboot.
    Some(SignOfLife { at, rebooted: saved.rebooted || at < BootTime::BOOT })
}

/// What cron mails: what was done, what it means, and what to do if the mail comes again.
fn cron_mail(config: &Config, pid: u32, hung: Option<u32>, last_sign: Option<SignOfLife>) -> String {
    let (at, zone) = (clock::read(), clock::zone());
    let what = match (hung, last_sign) {
        (Some(hung), _) => format!("The watchdog was hung (pid {hung}). It was killed, and another runs (pid {pid})."),
        (None, Some(_)) => format!("The watchdog was not running. It is again (pid {pid})."),
        (None, None) => {
            return format!("The watchdog was not running yet. It is now (pid {pid}).{}", probe_summary(config));
        }
    };
    // The time of day is by the present wall clock, which may have been set since; the age is by the boot clock.
    let time_of_day = |then: BootTime| zone.time_of_day(at.wall_at(then));
    let last = last_sign.map_or_else(String::new, |SignOfLife { at: seen, rebooted }| {
        let rebooted = match rebooted {
            true => format!("the machine was rebooted at {}", time_of_day(BootTime::BOOT)),
            false => "the machine was not rebooted".into(),
        };
        format!(" Last sign of life {}, {} ago; {rebooted}.", time_of_day(seen), round_age(at.now.since(seen)))
    });
    let mut text = format!("{what}{last}\nNothing was monitored in between.{}", probe_summary(config));
    text += " You get this mail only when the watchdog had to be started.\n";
    text +=
        "If it comes daily, your host kills background programs. Use this line instead, nothing stays running then:\n";
    text + &format!("  {}", check::crontab_line(config, "*/5 * * * *", "--once"))
}

/// The present state of the targets. Of many unhealthy ones it names five, to keep the mail short.
fn probe_summary(config: &Config) -> String {
    let results = check::probe_all(config);
    let (healthy, unhealthy): (Vec<_>, Vec<_>) = results.iter().partition(|(_, result)| result.verdict.is_healthy());
    let mut text = String::new();
    match healthy.as_slice() {
        [] => {}
        [(name, result)] => text += &format!(" {name} answers now ({}).", check::describe_result(result)),
        many => text += &format!(" {} of {} targets are healthy now.", many.len(), results.len()),
    }
    for (name, result) in unhealthy.iter().take(5) {
        text += &format!(" {name} is unhealthy now ({}).", check::describe_result(result));
    }
    text
}

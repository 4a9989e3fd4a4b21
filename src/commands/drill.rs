//! `drill`: has the running watchdog stop the processes of a healthy target, and prints how it finds and repairs that.
//! It must never stop a process itself, and never leave before the processes continue, unless it is killed: then the
//! watchdog sees to it.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::Signal;

use crate::cli::Options;
use crate::clock;
use crate::config::{Probe, Target};
use crate::outcome::{Class, describe_io_error, short_command};
use crate::policy::{DrillOutcome, FinishedDrill, Limits, Mode, TargetState, longest_drill};
use crate::process::{self, Process};
use crate::signals;
use crate::store::lock::{Holder, read_holder};
use crate::store::requests::{self, PendingRequest, Request};
use crate::store::state::peek;
use crate::store::{Folder, Stamp};
use crate::time::{BootTime, HumanDuration};
use crate::view::drill::DrillView;
use crate::view::log_line::{RestartLimit, describe_drill, list_pids};

use super::holder::{self, Instance};
use super::pause::resolve_targets;
use super::{Code, print, print_error, print_machine_error, read_boot_clock, stale_daemon};

const UNCHANGED: &str = "nothing was stopped";
/// A live watchdog accepts or refuses a drill within this time, even on a slow disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two readings of the state.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// A watchdog that has not ended the drill so long after its time hangs.
const MAX_DELAY: Duration = Duration::from_secs(10);
/// A holder whose last sign of life is older hangs.
const MAX_SILENCE: Duration = Duration::from_secs(120);

pub(super) fn drill(options: &Options, target: &str, yes: bool) -> Result<Code, Code> {
    let Instance { folder, config, holder, .. } = holder::find_writable_instance(options, UNCHANGED)?;
    resolve_targets(&folder, config.as_ref(), holder.as_ref(), vec![target.to_owned()], UNCHANGED)?;
    let refuse = |why: &str, code| Err(print_error(&format!("{target}: {why} ({UNCHANGED})"), code));
    let Some(config) = config else { return refuse("a drill needs its configuration, without errors", Code::Usage) };
    let Some(configured) = config.targets.iter().find(|configured| configured.name == target) else {
        return refuse("it is not in the configuration any more", Code::Usage);
    };
    if let Err((why, code)) = check_suitable(configured) {
        return refuse(&why, code);
    }
    let Some(holder) = holder.filter(|holder| holder.mode == Mode::Daemon) else {
        let why = "a drill needs a watchdog that keeps running, and none does (a tick of --once ends too early). Start \
                   one: watchdog start";
        return refuse(why, Code::NotRunning);
    };
    if !yes {
        let dependents = config.targets.iter().filter(|other| other.limits.depends_on.contains(&configured.name));
        confirm(configured, dependents.map(|other| other.name.as_str()).collect())?;
    }
    let (post, stop) = channel();
    // Before the order, so that no signal can end this process while the drill runs.
    let listening = signals::listen(move |signal| {
        let is_end = matches!(signal, signals::Signal::Stop | signals::Signal::Reload);
        // This fails only after the drill has ended.
        let _ = if is_end { post.send(()) } else { Ok(()) };
    });
    listening.map_err(|error| {
        print_machine_error(format!("cannot handle signals: {} ({UNCHANGED})", describe_io_error(&error)))
    })?;
    DrillOrder::order(&folder, configured, &holder)?.follow(&stop)
}

/// Whether a drill of this target can show anything. An error says why not.
fn check_suitable(target: &Target) -> Result<(), (String, Code)> {
    let Limits { restart_on, dry_run, .. } = &target.limits;
    if target.pm2.is_none() {
        return Err(("it has no `pm2`, and a drill stops only a process of PM2".into(), Code::Usage));
    }
    let class = match target.probe {
        Probe::Pm2(_) => Err("with pm2 alone a freeze is not noticed, because the process is still alive: add http"),
        Probe::Tcp { .. } => Err("a tcp probe does not notice a freeze, because the kernel still connects: use http"),
        Probe::Http(_) => Ok(Some(Class::Timeout)),
        Probe::File { .. } => Ok(Some(Class::Stale)),
        Probe::Command(_) => Ok(None),
    };
    let class = class.map_err(|why| (why.to_owned(), Code::Usage))?;
    match class.filter(|class| !restart_on.contains(class)) {
        _ if *dry_run => Err(("dry_run is set, so nothing would be repaired".into(), Code::Trouble)),
        Some(class) => Err((format!("restart_on lacks `{class}`, so it would not be repaired"), Code::Trouble)),
        None => Ok(()),
    }
}

/// For `check`: when the target was last drilled, and what came of it. `None` for a target that cannot be drilled.
pub(super) fn describe_last(target: &Target, state: Option<&TargetState>) -> Option<String> {
    check_suitable(target).ok()?;
    let text = match state.and_then(|state| state.drills.last.as_ref()) {
        Some(last) => {
            let day = clock::zone().day(clock::read().wall_at(last.ended));
            format!("last drill {day}: {}", describe_drill(&last.outcome))
        }
        None => format!("none so far, so the repair was never tried: watchdog drill {}", target.name),
    };
    Some(format!("  drill       {text}"))
}

/// Asks on a terminal. Anything but yes ends the command.
fn confirm(target: &Target, dependents: Vec<&str>) -> Result<(), Code> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(print_error(&format!("without a terminal, add --yes ({UNCHANGED})"), Code::Usage));
    }
    let Limits { max_restarts, restart_window, start_period, .. } = target.limits;
    let (name, process) = (&target.name, target.pm2.as_ref().map_or("", |pm2| &pm2.process));
    let usual = HumanDuration(target.limits.detection_bound() + start_period);
    let longest = HumanDuration(longest_drill(&target.limits, target.longest_repair()));
    let window = HumanDuration(restart_window);
    print(&format!("The process {process} of PM2 will be stopped (SIGSTOP). The watchdog must find and repair that."));
    print(&format!("{name} will not answer for up to {usual} if the repair works, and for {longest} at most."));
    print(&format!("It counts as one of {max_restarts} restarts in {window}. No message is sent. Ctrl-C ends it."));
    if !dependents.is_empty() {
        print(&format!("What depends on it may go down for real meanwhile: {}.", dependents.join(", ")));
    }
    print("Stop it now? [y/N]");
    let answer = io::stdin().lines().next().and_then(Result::ok).unwrap_or_default();
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(print_error(UNCHANGED, Code::Trouble)),
    }
}

struct DrillOrder<'a> {
    folder: &'a Folder,
    target: &'a Target,
    id: String,
    pending: PendingRequest,
    commands: Vec<String>,
    /// How many lines were printed.
    printed: usize,
    is_noticed: bool,
    /// The processes that may be stopped, and until when at most.
    stopped: Option<(Vec<(u32, u64)>, BootTime)>,
}

impl<'a> DrillOrder<'a> {
    fn order(folder: &'a Folder, target: &'a Target, holder: &Holder) -> Result<DrillOrder<'a>, Code> {
        let reading = read_boot_clock();
        let id = format!("{}-{}", std::process::id(), reading.at.now.as_ms());
        let requested_at = Stamp::of(&reading);
        let request = Request::Drill { target: target.name.clone(), id: id.clone(), requested_at };
        let pending = requests::submit(folder, request).map_err(print_machine_error)?;
        stale_daemon::send_signal(folder, holder, Signal::USR1);
        let commands = target.ladder.iter().map(|rung| short_command(&rung.remedy.to_string())).collect();
        Ok(DrillOrder { folder, target, id, pending, commands, printed: 0, is_noticed: false, stopped: None })
    }

    /// Prints each step until the outcome.
    fn follow(&mut self, stop: &Receiver<()>) -> Result<Code, Code> {
        let began = clock::monotonic();
        loop {
            // Before the state is read: what the holder saved last is then in it.
            let holder = read_holder(self.folder);
            let saved = match peek(self.folder, &read_boot_clock()) {
                Ok(saved) => saved,
                Err(error) => return Err(self.give_up(&error.to_string(), Code::Machine)),
            };
            let state = saved.as_ref().and_then(|saved| saved.policy.targets.get(&self.target.name));
            if let Some(code) = state.and_then(|state| self.print_progress(state)) {
                return Ok(code);
            }
            let Some(holder) = holder else {
                return Err(self.give_up("the watchdog has ended meanwhile", Code::Trouble));
            };
            let pid = holder.pid;
            if !self.is_noticed && began.elapsed() > ANSWER_TIMEOUT {
                let why = format!("the running watchdog (pid {pid}) has not answered within 10 s; its log says why");
                return Err(self.give_up(&why, Code::Trouble));
            }
            let is_overdue = self.stopped.as_ref().is_some_and(|(_, until)| clock::now() > *until + MAX_DELAY);
            if is_overdue || clock::wall().since(holder.touched) > MAX_SILENCE {
                let why = format!("the running watchdog (pid {pid}) does not respond any more");
                return Err(self.give_up(&why, Code::Machine));
            }
            if stop.recv_timeout(POLL_INTERVAL).is_ok() {
                self.cancel(&holder)?;
            }
        }
    }

    /// Prints the steps that were reached, each once, and the outcome. Returns the exit code after the latter.
    fn print_progress(&mut self, state: &TargetState) -> Option<Code> {
        let drills = &state.drills;
        if let Some(refused) = drills.refused.as_ref().filter(|refused| refused.id == self.id) {
            return Some(print_error(&self.view().refusal(refused), Code::Trouble));
        }
        if let Some(last) = drills.last.as_ref().filter(|drill| drill.id == self.id) {
            let FinishedDrill { began, processes, steps, outcome, .. } = last;
            if !matches!(outcome, DrillOutcome::NotStopped { .. }) {
                self.print_lines(self.view().lines(*began, processes, steps));
            }
            print(&self.view().conclusion(last));
            return Some(if matches!(outcome, DrillOutcome::Healed { .. }) { Code::Done } else { Code::Trouble });
        }
        if let Some(running) = drills.running.as_ref().filter(|drill| drill.id == self.id) {
            self.stopped = Some((running.processes.clone(), running.until));
            if running.is_stopped {
                self.print_lines(self.view().lines(running.began, &running.processes, &running.steps));
            }
        }
        self.is_noticed |= self.stopped.is_some() || drills.ordered.as_ref() == Some(&self.id);
        None
    }

    fn print_lines(&mut self, lines: Vec<String>) {
        lines.iter().skip(self.printed).for_each(|line| print(line));
        self.printed = self.printed.max(lines.len());
    }

    fn view(&self) -> DrillView<'_> {
        let Target { name: target, limits, .. } = self.target;
        let (at, zone) = (clock::read(), clock::zone());
        let (commands, depends_on) = (&self.commands, &limits.depends_on);
        DrillView { target, commands, depends_on, limit: RestartLimit::of(limits), at, zone }
    }

    /// The watchdog then ends the drill. Where it cannot be asked, the processes are continued from here.
    fn cancel(&self, holder: &Holder) -> Result<(), Code> {
        if self.pending.withdraw().unwrap_or(false) {
            return Err(print_error(&format!("cancelled ({UNCHANGED})"), Code::Trouble));
        }
        self.request_end().map_err(|why| self.give_up(&why, Code::Machine))?;
        stale_daemon::send_signal(self.folder, holder, Signal::USR1);
        Ok(())
    }

    fn request_end(&self) -> Result<(), String> {
        let request = Request::CancelDrill { target: self.target.name.clone(), id: self.id.clone() };
        requests::submit(self.folder, request).map(drop).map_err(|error| error.to_string())
    }

    /// Leaves without an outcome: withdraws the order if nobody has read it yet, and continues the processes.
    fn give_up(&self, why: &str, code: Code) -> Code {
        let consequence = match (&self.stopped, self.pending.withdraw()) {
            (Some((processes, _)), _) => self.continue_processes(processes),
            (None, Ok(true)) => UNCHANGED.into(),
            (None, Ok(false)) => match self.request_end() {
                Ok(()) => "a drill that begins all the same is cancelled".into(),
                Err(_) => "the drill may have begun; see watchdog status".into(),
            },
            (None, Err(_)) => "the order could not be withdrawn, and is dropped after a minute".into(),
        };
        print_error(&format!("{}: {why} ({consequence})", self.target.name), code)
    }

    /// Returns what came of it.
    fn continue_processes(&self, processes: &[(u32, u64)]) -> String {
        let resume = |(pid, started): &(u32, u64)| process::resume(Process { pid: *pid, started: *started }).err();
        match processes.iter().find_map(resume) {
            Some(error) => format!("its process could not be continued: {}", describe_io_error(&error)),
            None => {
                let pids: Vec<u32> = processes.iter().map(|(pid, _)| *pid).collect();
                format!("{} was continued", list_pids(&pids))
            }
        }
    }
}

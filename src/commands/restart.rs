//! `restart`: an attempt that the operator orders, at the running watchdog or, if none runs, in a tick of its own. It
//! must never run a restart command itself: limits, records and evidence are the watchdog's.

use std::time::Duration;

use rustix::process::Signal;

use crate::cli::Options;
use crate::clock;
use crate::config::Target;
use crate::outcome::short_command;
use crate::policy::{ManualProgress, TargetState};
use crate::store::lock::{Holder, read_holder};
use crate::store::requests::{self, PendingRequest, Request};
use crate::store::state::peek;
use crate::store::{Folder, Stamp};
use crate::view::log_line::RestartLimit;
use crate::view::ordered_restart::OrderedRestart;

use super::holder::{self, Instance};
use super::pause::resolve_targets;
use super::run;
use super::{Code, load, print, print_error, print_machine_error, read_boot_clock, stale_daemon};

const UNCHANGED: &str = "nothing was restarted";
/// A live watchdog begins or refuses a restart within this time, even on a slow disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two readings of the state.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// A holder whose last sign of life is older hangs.
const MAX_SILENCE: Duration = Duration::from_secs(120);

struct Order<'a> {
    folder: &'a Folder,
    target: &'a str,
    id: String,
    pending: PendingRequest,
    /// None if the configuration is not valid.
    configured: Option<&'a Target>,
    /// The lines that were printed.
    printed: Vec<String>,
}

pub(super) fn restart(options: &Options, target: &str) -> Result<Code, Code> {
    let Instance { folder, config, holder, .. } = holder::find_writable_instance(options, UNCHANGED)?;
    resolve_targets(&folder, config.as_ref(), holder.as_ref(), vec![target.to_owned()], UNCHANGED)?;
    let configured =
        config.as_ref().and_then(|config| config.targets.iter().find(|configured| configured.name == target));
    if is_watch_only(&folder, holder.as_ref(), configured, target) {
        let why = format!("{target} has no restart command, it is only watched ({UNCHANGED})");
        return Err(print_error(&why, Code::Usage));
    }
    // Before the order, so that an invalid configuration leaves none behind.
    let own = if holder.is_none() { Some(load(options, UNCHANGED)?) } else { None };
    let folder = Folder::open(folder.path()).map_err(print_machine_error)?;
    let given = read_boot_clock();
    let id = format!("{}-{}", std::process::id(), given.at.now.as_ms());
    let request = Request::Restart { target: target.to_owned(), id: id.clone(), requested_at: Stamp::of(&given) };
    let pending = requests::submit(&folder, request).map_err(print_machine_error)?;
    let mut order = Order { folder: &folder, target, id, pending, configured, printed: Vec::new() };
    if let Some(config) = own {
        match run::ordered_tick(config, options, &folder, target) {
            Ok(Some(state)) => return order.report_tick(state),
            // Another watchdog has taken the lock meanwhile.
            Ok(None) => {}
            Err(code) => return Err(order.give_up("", code)),
        }
    }
    order.follow()
}

fn is_watch_only(folder: &Folder, holder: Option<&Holder>, configured: Option<&Target>, target: &str) -> bool {
    let saved = peek(folder, &read_boot_clock()).ok().flatten().filter(|_| holder.is_some());
    match (saved.and_then(|saved| saved.views.get(target).cloned()), configured) {
        (Some(view), _) => !view.has_restart_commands,
        (None, Some(configured)) => configured.ladder.is_empty(),
        (None, None) => false,
    }
}

impl Order<'_> {
    /// Prints each step of the running watchdog's attempt, until its outcome.
    fn follow(&mut self) -> Result<Code, Code> {
        let began = clock::monotonic();
        if let Some(holder) = read_holder(self.folder) {
            stale_daemon::send_signal(self.folder, &holder, Signal::USR1);
        }
        loop {
            // Before the state is read: what the holder saved last is then in it.
            let holder = read_holder(self.folder);
            let saved = peek(self.folder, &read_boot_clock()).map_err(print_machine_error)?;
            let state = saved.as_ref().and_then(|saved| saved.policy.targets.get(self.target));
            if let Some(code) = state.and_then(|state| self.print_progress(state)) {
                return Ok(code);
            }
            let is_noticed = !self.printed.is_empty();
            if state.is_some_and(|state| state.removed_at.is_some()) && is_noticed {
                return Err(self.give_up("it was removed from the configuration", Code::Trouble));
            }
            let Some(holder) = holder else {
                return Err(self.give_up("the watchdog has ended meanwhile", Code::Trouble));
            };
            let pid = holder.pid;
            if !is_noticed && began.elapsed() > ANSWER_TIMEOUT {
                let why = format!("the running watchdog (pid {pid}) has not answered within 10 s; its log says why");
                return Err(self.give_up(&why, Code::Trouble));
            }
            if is_noticed && clock::wall().since(holder.touched) > MAX_SILENCE {
                let why = format!("the running watchdog (pid {pid}) has given no sign of life for over 2 min");
                return Err(self.give_up(&why, Code::Machine));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Withdraws the order if nobody has read it yet. `why`: empty if it was printed already.
    fn give_up(&self, why: &str, code: Code) -> Code {
        let consequence = match self.pending.withdraw() {
            Ok(true) => UNCHANGED,
            Ok(false) => "the restart may have been made; see watchdog status",
            Err(_) => "the order could not be withdrawn, and is dropped after a minute",
        };
        if why.is_empty() { code } else { print_error(&format!("{}: {why} ({consequence})", self.target), code) }
    }

    /// Prints the steps that were reached, each once, and the outcome. Returns the exit code after the latter.
    fn print_progress(&mut self, state: &TargetState) -> Option<Code> {
        let commands = self.commands();
        let view = self.view(&commands);
        let start_period = self.configured.map(|target| target.limits.start_period);
        let outcome = view.outcome(state).map(|(_, line)| line);
        let steps = view.steps(state, start_period);
        for line in steps.into_iter().chain(outcome.clone()) {
            if !self.printed.contains(&line) {
                print(&line);
                self.printed.push(line);
            }
        }
        outcome.map(|_| self.code(state))
    }

    /// The tick has printed its news, and so each command that ran.
    fn report_tick(&self, state: Option<TargetState>) -> Result<Code, Code> {
        let outcome = state.as_ref().and_then(|state| self.view(&[]).outcome(state).zip(Some(state)));
        match outcome {
            Some(((_, line), state)) => {
                print(&line);
                Ok(self.code(state))
            }
            None => Err(self.give_up("the tick has ended before its outcome", Code::Machine)),
        }
    }

    fn commands(&self) -> Vec<String> {
        let rungs = self.configured.map(|target| &target.ladder[..]).unwrap_or_default();
        rungs.iter().map(|rung| short_command(&rung.remedy.to_string())).collect()
    }

    fn view<'a>(&'a self, commands: &'a [String]) -> OrderedRestart<'a> {
        let limit = self.configured.map(|target| RestartLimit::of(&target.limits));
        let (at, zone) = (clock::read(), clock::zone());
        OrderedRestart { target: self.target, id: &self.id, commands, limit, at, zone }
    }

    fn code(&self, state: &TargetState) -> Code {
        let manual = state.manual.as_ref().filter(|manual| manual.id == self.id);
        match manual.map(|manual| &manual.progress) {
            Some(ManualProgress::Healthy { .. }) => Code::Done,
            _ => Code::Trouble,
        }
    }
}

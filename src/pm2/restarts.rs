//! Finds in the lines of PM2's own log when and why PM2 restarted a process by itself. It must never count a restart
//! that a person or the watchdog ordered, nor one restart twice.

mod log_files;

use std::time::Duration;

use crate::outcome::{Pm2Instance, Pm2LogState, Pm2Restart, RestartReason};
use crate::time::WallTime;

use super::App;

pub use log_files::LogRead;

/// Instances that are remembered between two reads. PM2 counts ids upwards, and each deleted process leaves one.
const MAX_INSTANCES: usize = 500;
/// Longer names are not followed.
const MAX_NAME: usize = 200;
/// PM2 starts a process again at once, unless a delay is configured. A later start was ordered, as far as is known of
/// a process that is not in the saved list.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// Takes one line, without the time before it. Returns a restart if the line proves one.
fn take_line(state: &mut Pm2LogState, message: &str, at: WallTime) -> Option<Pm2Restart> {
    if let Some(rest) = message.strip_prefix("[PM2][WORKER] Process ") {
        let (id, limit) = parse_over_memory(rest)?;
        state.over_memory = Some((id, limit));
        let name = state.instances.get(&id)?.name.clone();
        return restarted_for_memory(state, id, &name, at);
    }
    if let Some(rest) = message.strip_prefix("Change detected on path ") {
        let name = rest.rsplit_once(" for app ")?.1.strip_suffix(" - restarting")?;
        return Some(Pm2Restart { process: name.to_owned(), reason: RestartReason::Watch, ended: at, at });
    }
    if message.contains("New PM2 Daemon started") {
        // What an earlier daemon had not yet started again, it never did.
        state.instances.clear();
        (state.over_memory, state.last_ended) = (None, None);
        return None;
    }
    if message.starts_with("Script ") && message.contains(" had too many unstable restarts (") {
        // PM2 gives up: only a person or the watchdog starts it again.
        let ended = state.last_ended.take()?;
        state.instances.get_mut(&ended)?.ended = None;
        return None;
    }
    let (name, id, event) = parse_event(message)?;
    let instance = instance(state, &name, id)?;
    match event {
        Event::Stopping => {
            instance.is_stopping = true;
            restarted_for_memory(state, id, &name, at)
        }
        Event::Exited(reason) => {
            let is_own = !instance.is_stopping;
            instance.ended = is_own.then_some((reason, at));
            state.last_ended = is_own.then_some(id);
            None
        }
        Event::Starting => {
            instance.is_stopping = false;
            let (reason, ended) = instance.ended.take()?;
            Some(Pm2Restart { process: name, reason, ended, at })
        }
    }
}

/// The instance of this id, by the name that it has now.
fn instance<'a>(state: &'a mut Pm2LogState, name: &str, id: u32) -> Option<&'a mut Pm2Instance> {
    if name.len() > MAX_NAME {
        return None;
    }
    if state.instances.len() >= MAX_INSTANCES && !state.instances.contains_key(&id) {
        state.instances.pop_first();
    }
    let instance = state.instances.entry(id).or_default();
    if instance.name != name {
        *instance = Pm2Instance { name: name.to_owned(), ..Pm2Instance::default() };
    }
    Some(instance)
}

/// The restart for memory that was announced for this id, if its name was not known then.
fn restarted_for_memory(state: &mut Pm2LogState, id: u32, name: &str, at: WallTime) -> Option<Pm2Restart> {
    let (_, limit) = state.over_memory.take_if(|(announced, _)| *announced == id)?;
    Some(Pm2Restart { process: name.to_owned(), reason: RestartReason::Memory(limit), ended: at, at })
}

enum Event {
    Stopping,
    Exited(RestartReason),
    Starting,
}

/// `App [NAME:ID] …` or `Stopping app:NAME id:ID`; in a name anything may stand.
fn parse_event(message: &str) -> Option<(String, u32, Event)> {
    if let Some(rest) = message.strip_prefix("Stopping app:") {
        let (name, id) = rest.rsplit_once(" id:")?;
        return Some((name.to_owned(), id.parse().ok()?, Event::Stopping));
    }
    let rest = message.strip_prefix("App [")?;
    let (app, event) = if let Some((app, end)) = rest.rsplit_once("] exited with code [") {
        let (code, signal) = end.split_once("] via signal [")?;
        // PM2 writes SIGINT if there was no signal.
        let reason = match signal.strip_suffix(']')? {
            "SIGINT" => RestartReason::Exit(code.parse().ok()?),
            signal => RestartReason::Signal(signal.chars().take(20).collect()),
        };
        (app, Event::Exited(reason))
    } else {
        (rest.rsplit_once("] starting in -")?.0, Event::Starting)
    };
    // A worker that a reload replaces is called `_old_ID`, which is no number.
    let (name, id) = app.rsplit_once(':')?;
    Some((name.to_owned(), id.parse().ok()?, event))
}

/// `0 restarted because it exceeds --max-memory-restart value (current_memory=1 max_memory_limit=2 [octets])`
fn parse_over_memory(rest: &str) -> Option<(u32, u64)> {
    let (id, rest) = rest.split_once(" restarted because it exceeds --max-memory-restart value (")?;
    let (_, limit) = rest.split_once("max_memory_limit=")?;
    Some((id.parse().ok()?, limit.split(' ').next()?.parse().ok()?))
}

/// Whether PM2 made this restart by itself, given the saved list: a process that PM2 leaves stopped, or that was
/// started long after its end, was started by somebody else.
fn is_by_pm2(restart: &Pm2Restart, saved: &[App]) -> bool {
    let code = match &restart.reason {
        RestartReason::Memory(_) | RestartReason::Watch | RestartReason::Other => return true,
        RestartReason::Exit(code) => *code,
        // PM2 treats a death by signal as exit code 0.
        RestartReason::Signal(_) => 0,
    };
    match saved.iter().find(|app| app.name == restart.process) {
        Some(app) => app.autorestart && !app.stop_exit_codes.contains(&code),
        None => restart.at.since(restart.ended) <= MAX_DELAY,
    }
}

#[cfg(test)]
mod tests;

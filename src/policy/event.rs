//! What goes into the policy and what comes out of it. Only values, no judgement.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::outcome::{Class, Downtime, Exit, Inspection, Pm2Evidence, ProbeResult, RestReason};
use crate::policy::notification::Notification;
use crate::policy::words::{HoldReason, WarningKind};
use crate::policy::{Limits, Precondition};
use crate::time::BootTime;

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time has passed.
    Wake,
    /// `number` is that of its [`Action::Look`], `stamp` the name an incident that begins now would have, such as
    /// `1122-0313`.
    ProbeFinished { target: String, number: u64, look: ProbeResult, stamp: String },
    /// A gate was asked and has answered.
    PreconditionChecked { target: String, gate: Precondition, yes: bool },
    /// Always the answer to [`Action::Inspect`]. `pm2`: what was observed meanwhile; none where nothing could be.
    Pm2Inspected { target: String, inspection: Inspection, pm2: Option<Pm2Evidence> },
    /// Whether PM2 may be reset. Always the answer to [`Action::Weigh`].
    ResetChecked { target: String, warranted: bool },
    /// What was to be found out when the target went down is found out, or will never be.
    DiagnosisFinished { target: String, incident: String },
    /// A restart command runs; `process` is its id and start time.
    CommandStarted { target: String, process: (u32, u64) },
    /// A restart command has ended. Always the answer to [`Action::Run`] and [`Action::Adopt`].
    CommandEnded { target: String, ending: Exit, took: Duration },
    /// `targets`: `None` for all, those among them that are yet to come. `command` may end the pause sooner.
    Paused { targets: Option<Vec<String>>, until: BootTime, command: Option<String> },
    /// A command has ended, and with it the pause that was to last as long.
    PauseCommandEnded { command: String },
    /// `targets`: `None` for all. `clear_waits` lets their waits be over too: window, cooldown, stand-down.
    Resumed { targets: Option<Vec<String>>, clear_waits: bool },
    /// Whether the executables of the target's rungs are there; `missing`: what is not, in words.
    ExecutablesSearched { target: String, missing: Option<String> },
    /// The configuration was read again.
    Reloaded { limits: BTreeMap<String, Limits> },
    /// The watchdog is to end: no command is started any more.
    Stopping,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Look at a target.
    Probe { target: String, number: u64 },
    /// Ask a gate.
    CheckPrecondition { target: String, gate: Precondition },
    /// Whether a target is deliberately at rest, before anything is decided against it; then [`Event::Inspected`].
    InspectPm2 { target: String },
    /// Find out whether PM2 may be reset.
    CheckReset { target: String },
    /// Find out what the operator wants to know of a target that went down; answer with [`Event::Diagnosed`].
    Diagnose { target: String, incident: String },
    /// Save the state: a crash must not undo what has changed. What a reboot undoes anyway need not be synced.
    Save,
    /// `attempt` is its number in the episode, `rung` counts from 0, and so many `failures` led to it.
    Run { target: String, attempt: u32, rung: usize, incident: String, failures: u32 },
    /// Wait for a restart command that an earlier watchdog left running; `process` is its id and start time.
    AdoptCommand { target: String, process: (u32, u64), rung: usize, since: BootTime },
    /// Send people a message.
    Notify { target: String, tell: Notification },
    /// `target`: `None` for the watchdog itself.
    Record { target: Option<String>, record: Record },
}

impl Action {
    pub fn is_to_save(&self) -> bool {
        matches!(self, Action::Record { .. } | Action::Notify { .. } | Action::Save)
    }
}

/// A change worth remembering; the contract's event of the same name says what its fields mean.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// First failure of a streak outside an incident.
    Failing { class: Class, detail: String, threshold: u32 },
    /// The threshold was reached.
    Down { failures: u32, class: Class, detail: String, incident: String, last_healthy: Option<BootTime> },
    /// An attempt's command is about to run. `rung` counts from 0.
    Restart { attempt: u32, rung: usize, incident: String, spent: usize, max: u32, window: Duration },
    /// It has ended.
    RestartDone { attempt: u32, rung: usize, ending: Exit, took: Duration, incident: String, start_period: Duration },
    /// A dry run would have run it.
    WouldRestart { attempt: u32, rung: usize, incident: String },
    /// An attempt is due and waits.
    HeldBack { why: HoldReason, until: Option<BootTime>, incident: String },
    /// Healthy again. `cured`: while an attempt or its start period lasted.
    Up { incident: String, down: Downtime, attempts: u32, cured: bool, detail: String, latency: Duration },
    /// Deliberately at rest; the incident that ends with it.
    Rested { why: RestReason, incident: Option<String> },
    /// Not at rest any more.
    Woke { why: RestReason },
    /// Something that needs a person some day.
    Warn { about: WarningKind, detail: String },
    /// Hands off until then.
    Paused { until: BootTime },
    /// Hands on again; `until` is the end that was set.
    Resumed { until: BootTime },
    /// The watchdog itself was not there for a while.
    Stalled { gap: Duration },
}

//! The policy's interface: events in, actions and records out.
//! It holds data only and must never decide anything.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::outcome::{Class, Downtime, Exit, Inspection, Pm2Evidence, ProbeResult, RestReason};
use crate::policy::drill::{DrillEvent, DrillOutcome};
use crate::policy::notification::Notification;
use crate::policy::terms::{HoldReason, OrderedBy, WarningKind};
use crate::policy::{Limits, Precondition};
use crate::time::BootTime;

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time has passed.
    Wake,
    /// `number`: of the [`Action::Probe`]. `stamp`: the start of the id of an incident that begins now, such as
    /// `1122-0313`.
    ProbeFinished { target: String, number: u64, result: ProbeResult, stamp: String },
    /// Answers [`Action::CheckPrecondition`].
    PreconditionChecked { target: String, precondition: Precondition, holds: bool },
    /// Answers [`Action::Inspect`]. `pm2`: the evidence found, if any.
    Inspected { target: String, inspection: Inspection, pm2: Option<Pm2Evidence> },
    /// Answers [`Action::CheckReset`].
    ResetChecked { target: String, is_warranted: bool },
    /// Answers [`Action::Diagnose`]: the diagnosis is complete, or was given up.
    DiagnosisFinished { target: String, incident: String },
    /// `process`: the pid and start time of the restart command.
    CommandStarted { target: String, process: (u32, u64) },
    /// Answers [`Action::Run`] and [`Action::AdoptCommand`].
    CommandEnded { target: String, exit: Exit, duration: Duration },
    /// `targets`: `None` for all, including targets added later. `command`: its end ends the pause early.
    Paused { targets: Option<Vec<String>>, until: BootTime, command: Option<String> },
    /// Ends the pauses that were to last as long as this command.
    PauseCommandEnded { command: String },
    /// `targets`: `None` for all. `clear_waits`: also clears their restart window, cooldown and stand-down.
    Resumed { targets: Option<Vec<String>>, clear_waits: bool },
    /// `missing`: which executable of the target's rungs was not found, as a sentence for the operator.
    ExecutablesSearched { target: String, missing: Option<String> },
    /// The configuration was read again.
    Reloaded { limits: BTreeMap<String, Limits> },
    /// The operator ordered a restart. `id`: identifies the order. `stamp`: as in [`Event::ProbeFinished`].
    RestartOrdered { target: String, id: String, stamp: String },
    /// Concerns a drill of this target.
    Drill { target: String, event: DrillEvent },
    /// The watchdog is about to end: no more commands are started.
    Stopping,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// `number`: identifies the probe in [`Event::ProbeFinished`].
    Probe { target: String, number: u64 },
    /// Find out whether this precondition of an attempt holds.
    CheckPrecondition { target: String, precondition: Precondition },
    /// Find out whether the target is deliberately at rest, before it is called down or restarted.
    Inspect { target: String },
    /// Find out whether a reset of PM2 is warranted.
    CheckReset { target: String },
    /// Run the operator's diagnosis of a target that went down.
    Diagnose { target: String, incident: String },
    /// Save the state, because a crash must not undo the change. A reboot undoes it anyway, so no sync is needed.
    Save,
    /// `attempt`: its number in the episode. `rung`: counted from 0. `failures`: the number that led to the attempt.
    /// `folder`: the folder of incidents for its output. `by`: who ordered it, if anyone did.
    Run { target: String, attempt: u32, rung: usize, folder: String, failures: u32, by: Option<OrderedBy> },
    /// Wait for a restart command that an earlier watchdog left running. `process`: its pid and start time.
    AdoptCommand { target: String, process: (u32, u64), rung: usize, since: BootTime },
    /// Find out which processes of the target a drill would stop, and prove each. `id`: of the drill's order.
    ProveProcesses { target: String, id: String },
    /// Stop these processes (SIGSTOP) for a drill, unless it has ended meanwhile. Each has its pid and start time.
    StopProcesses { target: String, id: String, processes: Vec<(u32, u64)> },
    /// Continue these processes (SIGCONT) at once, before the save: a drill has ended.
    ContinueProcesses { target: String, processes: Vec<(u32, u64)> },
    /// Send a message through the operator's channels.
    Notify { target: String, notification: Notification },
    /// `target`: `None` for the watchdog itself.
    Record { target: Option<String>, record: Record },
}

impl Action {
    pub fn needs_save(&self) -> bool {
        matches!(self, Action::Record { .. } | Action::Notify { .. } | Action::Save)
    }
}

/// A change for the log and the file of events. The contract describes the event of the same name and its fields.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The first failure of a streak outside an incident.
    Failing { class: Class, detail: String, threshold: u32, by: Option<OrderedBy> },
    /// The threshold was reached. `last_healthy`: `None` if the target was never healthy.
    Down {
        failures: u32,
        class: Class,
        detail: String,
        incident: String,
        last_healthy: Option<BootTime>,
        by: Option<OrderedBy>,
    },
    /// An attempt's command is about to run. `rung`: counted from 0. `spent`: the attempts in the window, including
    /// this one. `incident`: `None` if the target was not down. `by`: who ordered it, if anyone did.
    Restart {
        attempt: u32,
        rung: usize,
        incident: Option<String>,
        by: Option<OrderedBy>,
        spent: usize,
        max: u32,
        window: Duration,
    },
    /// The command has ended. `folder`: the folder of incidents with its output. `start_period`: the time that the
    /// target now has to become healthy.
    RestartDone {
        attempt: u32,
        rung: usize,
        exit: Exit,
        duration: Duration,
        incident: Option<String>,
        folder: String,
        start_period: Duration,
        by: Option<OrderedBy>,
    },
    /// A dry run decided to make this attempt.
    WouldRestart { attempt: u32, rung: usize, incident: String },
    /// A due attempt waits.
    HeldBack { why: HoldReason, until: Option<BootTime>, incident: String, by: Option<OrderedBy> },
    /// `cured`: the target became healthy during an attempt or the start period after it.
    Up {
        incident: String,
        down: Downtime,
        attempts: u32,
        cured: bool,
        detail: String,
        latency: Duration,
        by: Option<OrderedBy>,
    },
    /// The target is deliberately at rest. `incident`: the one that this ends.
    Rested { why: RestReason, incident: Option<String> },
    /// The target is no longer at rest. `why`: the reason for the rest.
    Woke { why: RestReason },
    /// The target needs attention, but not at once.
    Warn { about: WarningKind, detail: String },
    /// `until`: the last end of the target's pauses. `command`: what is run meanwhile, if it ends with that.
    Paused { until: BootTime, command: Option<String> },
    /// `until`: the end that had been set.
    Resumed { until: BootTime },
    /// The watchdog itself did not run for a while.
    Stalled { gap: Duration },
    /// Processes of a healthy target are about to be stopped. `until`: the drill's end at the latest.
    DrillBegan { pids: Vec<u32>, until: BootTime },
    /// The processes continue. `incident`: the drill's, if it was still open.
    DrillEnded { outcome: DrillOutcome, incident: Option<String> },
}

impl Record {
    /// Who ordered what this is about, as far as such a record names it.
    pub fn by(&self) -> Option<OrderedBy> {
        match self {
            Record::Failing { by, .. } | Record::Down { by, .. } | Record::HeldBack { by, .. } => *by,
            Record::Restart { by, .. } | Record::RestartDone { by, .. } | Record::Up { by, .. } => *by,
            Record::DrillBegan { .. } | Record::DrillEnded { .. } => Some(OrderedBy::Drill),
            Record::WouldRestart { .. } | Record::Rested { .. } | Record::Woke { .. } | Record::Warn { .. } => None,
            Record::Paused { .. } | Record::Resumed { .. } | Record::Stalled { .. } => None,
        }
    }
}

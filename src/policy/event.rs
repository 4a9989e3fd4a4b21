//! What goes into the policy and what comes out of it. Only values, no judgement.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::outcome::{Class, Downtime, Ending, Inspection, Look, Pm2Evidence, RestReason};
use crate::policy::tell::Tell;
use crate::policy::words::{About, Why};
use crate::policy::{Gate, Limits};
use crate::time::Timestamp;

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time has passed.
    Wake,
    /// A look has ended.
    Looked {
        /// The target looked at.
        target: String,
        /// The number its [`Action::Look`] had.
        number: u64,
        /// What was found.
        look: Look,
        /// The name an incident that begins now would have, such as `1122-0313`.
        stamp: String,
    },
    /// A gate was asked and has answered.
    Answered {
        /// The target it was asked for.
        target: String,
        /// Which gate.
        gate: Gate,
        /// Whether the attempt may be made.
        yes: bool,
    },
    /// A target was inspected. Always the answer to [`Action::Inspect`].
    Inspected {
        /// Which.
        target: String,
        /// What was found.
        inspection: Inspection,
        /// What was observed of PM2 meanwhile; none where nothing could be.
        pm2: Option<Pm2Evidence>,
    },
    /// It is known whether PM2 may be reset. Always the answer to [`Action::Weigh`].
    Weighed {
        /// The target it was asked for.
        target: String,
        /// Whether a reset is warranted.
        warranted: bool,
    },
    /// What was to be found out when the target went down is found out, or will never be.
    Diagnosed {
        /// The target it was asked for.
        target: String,
        /// Its incident.
        incident: String,
    },
    /// A restart command runs.
    Spawned {
        /// The target it is for.
        target: String,
        /// Its process id and start time.
        process: (u32, u64),
    },
    /// A restart command has ended. Always the answer to [`Action::Run`] and [`Action::Adopt`].
    Ended {
        /// The target it was for.
        target: String,
        /// How it ended.
        ending: Ending,
        /// How long it ran.
        took: Duration,
    },
    /// The operator wants hands off.
    Paused {
        /// From these; `None`: from all, those among them that are yet to come.
        targets: Option<Vec<String>>,
        /// Until then.
        until: Timestamp,
        /// The name of a command with which the pause ends, if that is sooner.
        command: Option<String>,
    },
    /// A command has ended, and with it the pause that was to last as long.
    CommandOver {
        /// Its name.
        command: String,
    },
    /// The operator ends all pauses.
    Resumed {
        /// Of these; `None`: of all.
        targets: Option<Vec<String>>,
        /// And lets their waits be over too: window, cooldown, stand-down.
        clear_waits: bool,
    },
    /// A look at whether the rungs' executables are there.
    Executables {
        /// The target whose ladder was looked at.
        target: String,
        /// What is missing, in words.
        missing: Option<String>,
    },
    /// The configuration was read again.
    Reloaded {
        /// The limits of every target in it.
        limits: BTreeMap<String, Limits>,
    },
    /// The watchdog is to end: no command is started any more.
    Stopping,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Look at a target.
    Look {
        /// Which.
        target: String,
        /// Tells this look from others.
        number: u64,
    },
    /// Ask a gate.
    Ask {
        /// For this target.
        target: String,
        /// This one.
        gate: Gate,
    },
    /// Find out whether a target is deliberately at rest, before anything is decided against it; answer with
    /// [`Event::Inspected`].
    Inspect {
        /// Which.
        target: String,
    },
    /// Find out whether PM2 may be reset.
    Weigh {
        /// For this target.
        target: String,
    },
    /// Find out what the operator wants to know of a target that went down; answer with [`Event::Diagnosed`].
    Diagnose {
        /// Of this target.
        target: String,
        /// In this incident.
        incident: String,
    },
    /// Save the state: a crash must not undo what has changed. What a reboot undoes anyway need not be synced.
    Save,
    /// Run a restart command.
    Run {
        /// For this target.
        target: String,
        /// Its number in the episode.
        attempt: u32,
        /// The rung, counted from 0.
        rung: usize,
        /// The incident it belongs to.
        incident: String,
        /// How many failures led to it.
        failures: u32,
    },
    /// Wait for a restart command that an earlier watchdog left running.
    Adopt {
        /// For this target.
        target: String,
        /// Its process id and start time.
        process: (u32, u64),
        /// Its rung, counted from 0.
        rung: usize,
        /// When it was started.
        since: Timestamp,
    },
    /// Send people a message.
    Tell {
        /// The target it is about.
        target: String,
        /// What it is to say.
        tell: Tell,
    },
    /// Tell what has changed.
    Record {
        /// The target it is about; `None`: the watchdog itself.
        target: Option<String>,
        /// What.
        record: Record,
    },
}

impl Action {
    /// Whether it asks for the state to be saved.
    pub fn is_to_save(&self) -> bool {
        matches!(self, Action::Record { .. } | Action::Tell { .. } | Action::Save)
    }
}

/// A change worth remembering; the contract's event of the same name says what its fields mean.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// First failure of a streak outside an incident.
    Failing { class: Class, detail: String, threshold: u32 },
    /// The threshold was reached.
    Down { failures: u32, class: Class, detail: String, incident: String, last_healthy: Option<Timestamp> },
    /// An attempt's command is about to run. `rung` counts from 0.
    Restart { attempt: u32, rung: usize, incident: String, spent: usize, max: u32, window: Duration },
    /// It has ended.
    RestartDone { attempt: u32, rung: usize, ending: Ending, took: Duration, incident: String, start_period: Duration },
    /// A dry run would have run it.
    WouldRestart { attempt: u32, rung: usize, incident: String },
    /// An attempt is due and waits.
    HeldBack { why: Why, until: Option<Timestamp>, incident: String },
    /// Healthy again. `cured`: while an attempt or its start period lasted.
    Up { incident: String, down: Downtime, attempts: u32, cured: bool, detail: String, latency: Duration },
    /// Deliberately at rest; the incident that ends with it.
    Rested { why: RestReason, incident: Option<String> },
    /// Not at rest any more.
    Woke { why: RestReason },
    /// Something that needs a person some day.
    Warn { about: About, detail: String },
    /// Hands off until then.
    Paused { until: Timestamp },
    /// Hands on again; `until` is the end that was set.
    Resumed { until: Timestamp },
    /// The watchdog itself was not there for a while.
    Stalled { gap: Duration },
}

//! The contract's words: what a target is called, why an attempt waits, what a warning is about.

use serde::{Deserialize, Serialize};

/// The word that `status` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// No verdict that counts yet.
    #[default]
    Starting,
    /// The last verdict was good.
    Healthy,
    /// Failures are being counted.
    Failing,
    /// The threshold was reached and it has not been healthy since.
    Down,
    /// After an attempt, until healthy or the threshold is reached again.
    Recovering,
    /// Deliberately at rest.
    Stopped,
    /// The operator said to keep hands off.
    Paused,
}

impl Condition {
    /// The contract's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Condition::Starting => "starting",
            Condition::Healthy => "healthy",
            Condition::Failing => "failing",
            Condition::Down => "down",
            Condition::Recovering => "recovering",
            Condition::Stopped => "stopped",
            Condition::Paused => "paused",
        }
    }

    /// Whether somebody may have to look after it.
    pub fn is_trouble(self) -> bool {
        match self {
            Condition::Failing | Condition::Down | Condition::Recovering => true,
            Condition::Starting | Condition::Healthy | Condition::Stopped | Condition::Paused => false,
        }
    }
}

/// Why a due attempt waits, in order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The operator paused the target.
    Paused,
    /// It has never been healthy under its present probe: the address may be wrong.
    NeverHealthy,
    /// A restart does not cure this class.
    RestartOn,
    /// The window is full.
    Limit,
    /// The last attempt is too recent.
    Cooldown,
    /// A target it depends on is in trouble.
    DependsOn,
    /// Another target's attempt runs.
    Busy,
    /// It is deliberately at rest in PM2.
    Stopped,
    /// The operator's command says no.
    OnlyIf,
}

impl Why {
    /// The contract's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Paused => "paused",
            Why::NeverHealthy => "never_healthy",
            Why::RestartOn => "restart_on",
            Why::Limit => "limit",
            Why::Cooldown => "cooldown",
            Why::DependsOn => "depends_on",
            Why::Busy => "busy",
            Why::Stopped => "stopped",
            Why::OnlyIf => "only_if",
        }
    }
}

/// What a warning is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// Healed by restarts again and again: the cause is still there.
    Recurrent,
    /// Nothing can be said of the target for a while.
    Blind,
    /// A restart command is gone.
    CannotRepair,
    /// PM2's daemon is dead while the target is healthy.
    Pm2Gone,
    /// No pm2 command reaches PM2's daemon, or it cannot be known whether one would.
    Pm2Deaf,
    /// PM2 starts the process again and again while looks stay green.
    CrashLoop,
    /// The operator stopped it a while ago.
    Stopped,
    /// It goes down again and again.
    Flapping,
}

impl About {
    /// The contract's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            About::Recurrent => "recurrent",
            About::Blind => "blind",
            About::CannotRepair => "cannot_repair",
            About::Pm2Gone => "pm2_gone",
            About::Pm2Deaf => "pm2_deaf",
            About::CrashLoop => "crash_loop",
            About::Stopped => "stopped",
            About::Flapping => "flapping",
        }
    }
}

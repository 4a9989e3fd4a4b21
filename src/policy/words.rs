//! The contract's words: what a target is called, why an attempt waits, what a warning is about.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// No verdict that counts yet.
    #[default]
    Starting,
    Healthy,
    Failing,
    /// The threshold was reached and it has not been healthy since.
    Down,
    /// After an attempt, until healthy or the threshold is reached again.
    Recovering,
    Stopped,
    Paused,
}

impl Condition {
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
    Paused,
    /// It has never been healthy under its present probe: the address may be wrong.
    NeverHealthy,
    /// A restart does not cure this class.
    RestartOn,
    /// The window is full.
    Limit,
    Cooldown,
    DependsOn,
    Busy,
    Stopped,
    OnlyIf,
}

impl Why {
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// Healed by restarts again and again: the cause is still there.
    Recurrent,
    /// Nothing can be said of the target for a while.
    Blind,
    CannotRepair,
    /// PM2's daemon is dead while the target is healthy.
    Pm2Gone,
    /// No pm2 command reaches PM2's daemon, or it cannot be known whether one would.
    Pm2Deaf,
    /// PM2 starts the process again and again while looks stay green.
    CrashLoop,
    Stopped,
    Flapping,
}

impl About {
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

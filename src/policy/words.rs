//! The contract's words: what a target is called, why an attempt waits, what a warning is about.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
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

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Starting => "starting",
            Status::Healthy => "healthy",
            Status::Failing => "failing",
            Status::Down => "down",
            Status::Recovering => "recovering",
            Status::Stopped => "stopped",
            Status::Paused => "paused",
        }
    }

    pub fn is_trouble(self) -> bool {
        match self {
            Status::Failing | Status::Down | Status::Recovering => true,
            Status::Starting | Status::Healthy | Status::Stopped | Status::Paused => false,
        }
    }
}

/// Why a due attempt waits, in order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
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

impl HoldReason {
    pub fn as_str(self) -> &'static str {
        match self {
            HoldReason::Paused => "paused",
            HoldReason::NeverHealthy => "never_healthy",
            HoldReason::RestartOn => "restart_on",
            HoldReason::Limit => "limit",
            HoldReason::Cooldown => "cooldown",
            HoldReason::DependsOn => "depends_on",
            HoldReason::Busy => "busy",
            HoldReason::Stopped => "stopped",
            HoldReason::OnlyIf => "only_if",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarningKind {
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

impl WarningKind {
    pub fn as_str(self) -> &'static str {
        match self {
            WarningKind::Recurrent => "recurrent",
            WarningKind::Blind => "blind",
            WarningKind::CannotRepair => "cannot_repair",
            WarningKind::Pm2Gone => "pm2_gone",
            WarningKind::Pm2Deaf => "pm2_deaf",
            WarningKind::CrashLoop => "crash_loop",
            WarningKind::Stopped => "stopped",
            WarningKind::Flapping => "flapping",
        }
    }
}

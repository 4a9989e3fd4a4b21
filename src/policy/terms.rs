//! The contract's terms for a target's status, the reasons why an attempt waits, and the kinds of warnings.
//! It must never rename a term: files, screens and other programs rely on them.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// There is no verdict that counts yet.
    #[default]
    Starting,
    Healthy,
    Failing,
    /// The threshold was reached, and the target has not been healthy since.
    Down,
    /// An attempt was made; the target is not healthy yet, and the threshold has not been reached again.
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

    /// Between the call that it is down and its end.
    pub fn is_outage(self) -> bool {
        matches!(self, Status::Down | Status::Recovering)
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
    /// The target has never been healthy under its present probe, so the address may be wrong.
    NeverHealthy,
    /// The failure class is not in `restart_on`.
    RestartOn,
    /// The restart window is full.
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

/// Who ordered an attempt, or caused a failure, if that was not the watchdog's own decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderedBy {
    /// By `watchdog restart`.
    Operator,
    /// By `watchdog drill`, whose own the failure is too.
    Drill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarningKind {
    /// Restarts heal the target again and again, but the cause remains.
    Recurrent,
    /// Verdicts have been `unknown` for a while.
    Blind,
    CannotRepair,
    /// PM2's daemon is dead while the target is healthy.
    Pm2Gone,
    /// No pm2 command reaches PM2's daemon, or this cannot be determined.
    Pm2Deaf,
    /// PM2 restarts the process again and again while probes are healthy.
    CrashLoop,
    /// It is healthy, but slower than `slow`.
    Slow,
    /// Many of its probes fail, but never enough in a row.
    Unsteady,
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
            WarningKind::Slow => "slow",
            WarningKind::Unsteady => "unsteady",
            WarningKind::Stopped => "stopped",
            WarningKind::Flapping => "flapping",
        }
    }
}

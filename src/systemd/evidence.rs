//! What `systemctl show` prints of a unit, as one value with all its signs.
//! It must never draw a conclusion: that is done in one place, from all signs together.

use std::fmt;

/// The properties that are asked for.
pub(super) const PROPERTIES: &str = "LoadState,ActiveState,SubState,Result,UnitFileState,Type,Restart,ExecMainCode,\
                                     ExecMainStatus,ExecMainStartTimestampMonotonic,ExecMainExitTimestampMonotonic,\
                                     InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic,\
                                     ActiveExitTimestampMonotonic,ConditionResult,ConditionTimestampMonotonic,\
                                     RestartPreventExitStatus,RuntimeMaxUSec,TriggeredBy,BindsTo";

/// All that was found of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitFacts {
    /// An error says why systemd gave no answer.
    pub unit: Result<UnitEvidence, String>,
    /// The units without which this one cannot run (`BindsTo=`): systemd stops it when one of them ends.
    pub bound_to: Vec<UnitFacts>,
    /// The unit's last line in the journal of this boot, where the properties do not tell how it ended.
    pub journal: JournalSign,
    /// The target was healthy in this boot, so the unit was started in it.
    pub ran_in_this_boot: bool,
    /// The target was at rest by the operator when the machine went down, and was not healthy since.
    pub rested_before_boot: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalSign {
    NotAsked,
    /// Denied, not there, or too slow.
    Unreadable,
    /// It says nothing about the unit.
    Nothing,
    /// A job stopped the unit: somebody's order, or that of a unit it depends on.
    Stopped,
    /// The unit was started, or ended by itself.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitEvidence {
    pub load: LoadState,
    pub active: ActiveState,
    /// For people: `dead`, `auto-restart`.
    pub sub: String,
    /// `success`, or how the last run failed.
    pub result: String,
    /// `enabled`, `disabled`, `static` and so on; empty without a unit file.
    pub file_state: String,
    pub kind: ServiceType,
    /// `Restart=always`: systemd starts it again however it ends, unless it was told to stop it.
    pub restarts_always: bool,
    pub main: MainProcess,
    pub times: Times,
    /// It was not started the last time, because a condition in the unit did not hold.
    pub is_condition_unmet: bool,
    /// `RestartPreventExitStatus=`: exit codes that mean that it is done.
    pub final_codes: Vec<i32>,
    /// `RuntimeMaxSec=` is set.
    pub has_time_limit: bool,
    /// A timer or a path unit starts it.
    pub is_triggered: bool,
    pub bound_to: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadState {
    Loaded,
    Masked,
    NotFound,
    /// It cannot be used: its file has an error.
    Invalid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActiveState {
    Active,
    Activating,
    Deactivating,
    Inactive,
    Failed,
    Other,
}

impl fmt::Display for ActiveState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ActiveState::Active => "active",
            ActiveState::Activating => "activating",
            ActiveState::Deactivating => "deactivating",
            ActiveState::Inactive => "inactive",
            ActiveState::Failed => "failed",
            ActiveState::Other => "in an unknown state",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceType {
    Oneshot,
    /// It tells systemd itself that it is stopping.
    Notify,
    Other,
}

/// How the main process of the last run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MainProcess {
    /// There is none, systemd does not know it, or it runs.
    NotEnded,
    Exited(i32),
    Killed(i32),
}

/// In microseconds of one clock; 0 for never. systemd forgets them with the unit, once nothing refers to it any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    pub main_started: u64,
    pub main_ended: u64,
    /// When it last began to start.
    pub starting: u64,
    /// When it last was up.
    pub up: u64,
    /// When it last ceased to be up.
    pub left: u64,
}

impl UnitEvidence {
    /// Reads `NAME=value` lines. `None` if they do not describe a unit.
    pub(super) fn parse(text: &str) -> Option<UnitEvidence> {
        let find = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
        };
        let number = |name: &str| find(name).parse::<u64>().unwrap_or(0);
        let words = |name: &str| find(name).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let status = find("ExecMainStatus").parse::<i32>().unwrap_or(0);
        let load = match find("LoadState") {
            "" => return None,
            "loaded" => LoadState::Loaded,
            "masked" => LoadState::Masked,
            "not-found" => LoadState::NotFound,
            _ => LoadState::Invalid,
        };
        Some(UnitEvidence {
            load,
            active: match find("ActiveState") {
                "active" | "reloading" => ActiveState::Active,
                "activating" => ActiveState::Activating,
                "deactivating" => ActiveState::Deactivating,
                "inactive" => ActiveState::Inactive,
                "failed" => ActiveState::Failed,
                _ => ActiveState::Other,
            },
            sub: find("SubState").to_owned(),
            result: find("Result").to_owned(),
            file_state: find("UnitFileState").to_owned(),
            kind: match find("Type") {
                "oneshot" => ServiceType::Oneshot,
                kind if kind.starts_with("notify") => ServiceType::Notify,
                _ => ServiceType::Other,
            },
            restarts_always: find("Restart") == "always",
            // The numbers are those of waitid(2).
            main: match find("ExecMainCode") {
                "1" => MainProcess::Exited(status),
                "2" | "3" => MainProcess::Killed(status),
                _ => MainProcess::NotEnded,
            },
            times: Times {
                main_started: number("ExecMainStartTimestampMonotonic"),
                main_ended: number("ExecMainExitTimestampMonotonic"),
                starting: number("InactiveExitTimestampMonotonic"),
                up: number("ActiveEnterTimestampMonotonic"),
                left: number("ActiveExitTimestampMonotonic"),
            },
            is_condition_unmet: find("ConditionResult") == "no" && number("ConditionTimestampMonotonic") > 0,
            final_codes: words("RestartPreventExitStatus").iter().filter_map(|word| word.parse().ok()).collect(),
            has_time_limit: !matches!(find("RuntimeMaxUSec"), "" | "infinity"),
            is_triggered: words("TriggeredBy").iter().any(|unit| unit.ends_with(".timer") || unit.ends_with(".path")),
            bound_to: words("BindsTo"),
        })
    }

    /// Nothing is known of its last run, or there was none: systemd keeps an inactive unit in memory only while another
    /// unit refers to it, as the target does that an enabled unit is wanted by.
    pub(super) fn is_forgotten(&self) -> bool {
        self.times == Times::default()
    }
}

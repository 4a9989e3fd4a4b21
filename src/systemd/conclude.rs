//! Concludes from all signs of a unit whether it is deliberately at rest. It must never take a crash for rest, and
//! never the lack of a sign: what the signs do not tell is unknown.

#[cfg(test)]
mod tests;

use std::fmt;

use crate::outcome::{Inspection, RestReason};

use super::evidence::{ActiveState, JournalSign, LoadState, MainProcess, ServiceType, UnitEvidence, UnitFacts};

/// How systemd itself ended a run, without anybody's order.
const ENDED_BY_SYSTEMD: [&str; 4] = ["watchdog", "oom-kill", "start-limit-hit", "resources"];
/// Signals that a service ends with when it was asked to: for systemd no failure.
const CLEAN_SIGNALS: [i32; 4] = [1, 2, 13, 15];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitState {
    Running,
    /// systemd starts it, or will do so by itself.
    Starting,
    AtRest(RestReason),
    /// It is not meant to be down, for this reason.
    Down(String),
    Unknown(String),
}

impl UnitState {
    pub fn inspection(&self) -> Inspection {
        match self {
            UnitState::AtRest(reason) => Inspection::AtRest(*reason),
            UnitState::Running | UnitState::Starting | UnitState::Down(_) => {
                Inspection::Failed { is_deaf: false, is_listed: true }
            }
            UnitState::Unknown(_) => Inspection::Failed { is_deaf: false, is_listed: false },
        }
    }
}

impl fmt::Display for UnitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnitState::Running => f.write_str("it runs"),
            UnitState::Starting => f.write_str("systemd is starting it"),
            UnitState::AtRest(RestReason::Operator | RestReason::Deleted) => f.write_str("stopped by the operator"),
            UnitState::AtRest(RestReason::Schedule) => f.write_str("it has finished its work"),
            UnitState::AtRest(RestReason::Exit) => {
                f.write_str("it exited with a code that means that it is done (RestartPreventExitStatus=)")
            }
            UnitState::Down(why) => f.write_str(why),
            UnitState::Unknown(why) => write!(f, "unknown: {why}"),
        }
    }
}

pub fn conclude(facts: &UnitFacts) -> UnitState {
    let unit = match &facts.unit {
        Ok(unit) => unit,
        Err(why) => return UnitState::Unknown(why.clone()),
    };
    match (unit.active, unit.load) {
        (ActiveState::Active, _) => return UnitState::Running,
        (ActiveState::Activating, _) => return UnitState::Starting,
        (ActiveState::Other, _) => return UnitState::Unknown("systemd does not say whether it is active".into()),
        // Nothing can start it before somebody unmasks it.
        (_, LoadState::Masked) => return UnitState::AtRest(RestReason::Operator),
        (_, LoadState::NotFound) => return UnitState::Unknown("there is no such unit".into()),
        (_, LoadState::Invalid) => return UnitState::Unknown("its file has an error".into()),
        (ActiveState::Deactivating | ActiveState::Inactive | ActiveState::Failed, LoadState::Loaded) => {}
    }
    let state = if unit.is_forgotten() { conclude_forgotten(unit, facts) } else { conclude_end(unit, facts) };
    match state {
        UnitState::AtRest(RestReason::Operator) if facts.bound_to.iter().any(|bound| !may_be_left_alone(bound)) => {
            UnitState::Down("systemd stopped it because a unit that it is bound to (BindsTo=) ended".into())
        }
        state => state,
    }
}

/// For example `systemd: api.service is failed: its process exited with 1`.
pub fn describe(name: &str, facts: &UnitFacts, state: &UnitState) -> String {
    let shown = match &facts.unit {
        Ok(unit) if unit.load == LoadState::Loaded => format!("is {}: ", unit.active),
        Ok(_) | Err(_) => String::new(),
    };
    let verb = if shown.is_empty() { ": " } else { " " };
    format!("systemd: {name}{verb}{shown}{state}")
}

/// Whether the properties tell too little of how the unit ended.
pub(super) fn needs_journal(facts: &UnitFacts) -> bool {
    facts.unit.as_ref().is_ok_and(|unit| {
        let is_over = matches!(unit.active, ActiveState::Inactive | ActiveState::Failed);
        let is_unclear = if unit.is_forgotten() { !unit.is_triggered } else { may_have_stopped_itself(unit) };
        is_over && unit.load == LoadState::Loaded && is_unclear
    })
}

fn may_be_left_alone(bound: &UnitFacts) -> bool {
    matches!(conclude(bound), UnitState::Running | UnitState::Starting | UnitState::AtRest(_))
}

fn conclude_forgotten(unit: &UnitEvidence, facts: &UnitFacts) -> UnitState {
    let not_started = || match facts.rested_before_boot {
        true => UnitState::AtRest(RestReason::Operator),
        false => UnitState::Down("not started since the boot".into()),
    };
    match facts.journal {
        // A failed unit is not forgotten.
        _ if unit.is_triggered => UnitState::AtRest(RestReason::Schedule),
        JournalSign::Stopped => UnitState::AtRest(RestReason::Operator),
        JournalSign::Other => UnitState::Down("it ended by itself".into()),
        JournalSign::NotAsked | JournalSign::Unreadable | JournalSign::Nothing if facts.ran_in_this_boot => {
            match unit.restarts_always {
                // systemd leaves it down only if it was told to.
                true => UnitState::AtRest(RestReason::Operator),
                false => UnitState::Unknown("systemd and its journal do not tell how it ended".into()),
            }
        }
        JournalSign::Nothing => not_started(),
        JournalSign::NotAsked | JournalSign::Unreadable => match not_started() {
            UnitState::Down(_) => UnitState::Unknown("systemd does not tell how it ended, or whether it ran".into()),
            state => state,
        },
    }
}

fn conclude_end(unit: &UnitEvidence, facts: &UnitFacts) -> UnitState {
    let has_ended_itself = match facts.journal {
        JournalSign::Stopped => false,
        JournalSign::NotAsked | JournalSign::Unreadable | JournalSign::Nothing | JournalSign::Other => {
            may_have_stopped_itself(unit)
        }
    };
    let is_over = unit.active == ActiveState::Inactive && unit.result == "success";
    let is_final = matches!(unit.main, MainProcess::Exited(code) if unit.final_codes.contains(&code));
    match () {
        () if unit.is_condition_unmet => UnitState::Unknown("a condition in the unit does not hold".into()),
        () if was_told_to_stop(unit) && !has_ended_itself => UnitState::AtRest(RestReason::Operator),
        () if is_over && (unit.kind == ServiceType::Oneshot || unit.is_triggered) => {
            UnitState::AtRest(RestReason::Schedule)
        }
        () if is_final => UnitState::AtRest(RestReason::Exit),
        () => UnitState::Down(describe_end(unit)),
    }
}

/// Whether systemd stopped the unit because it was told to. The order of events shows it, whatever the exit code, which
/// after a SIGTERM is a failure for many programs: on a stop, a unit ceases to be up first, and its main process ends
/// after that; one that ends by itself takes the unit with it.
fn was_told_to_stop(unit: &UnitEvidence) -> bool {
    let times = unit.times;
    let was_up = times.starting <= times.up && times.up <= times.left;
    if ENDED_BY_SYSTEMD.contains(&unit.result.as_str()) || unit.result == "timeout" && unit.has_time_limit {
        return false;
    }
    if !was_up {
        // A start, or a restart that systemd was waiting to make, was given up without having failed.
        let is_clean = unit.main.is_clean() || unit.result != "success";
        return unit.active == ActiveState::Inactive && unit.kind != ServiceType::Oneshot && is_clean;
    }
    match (times.main_started, times.main_ended) {
        (_, 0) if unit.active == ActiveState::Deactivating && times.main_started > 0 => true,
        // No main process that systemd knows.
        (_, 0) => unit.active == ActiveState::Inactive && unit.restarts_always,
        // The unit stayed up without it (RemainAfterExit=).
        (_, ended) if ended < times.up => true,
        (_, ended) => times.left < ended,
    }
}

/// Such a service says that it is stopping before it exits, so the order of events is the same as on a stop.
fn may_have_stopped_itself(unit: &UnitEvidence) -> bool {
    let is_clean = unit.result == "success" && matches!(unit.main, MainProcess::Exited(0));
    unit.kind == ServiceType::Notify && is_clean && !unit.restarts_always && was_told_to_stop(unit)
}

impl MainProcess {
    fn is_clean(self) -> bool {
        match self {
            MainProcess::NotEnded => true,
            MainProcess::Exited(code) => code == 0,
            MainProcess::Killed(signal) => CLEAN_SIGNALS.contains(&signal),
        }
    }
}

fn describe_end(unit: &UnitEvidence) -> String {
    let how = match unit.main {
        MainProcess::Exited(code) => format!("its process exited with {code}"),
        MainProcess::Killed(signal) => format!("its process was killed by signal {signal}"),
        MainProcess::NotEnded => "it ended".into(),
    };
    match unit.result.as_str() {
        "success" | "exit-code" | "signal" | "" => how,
        result => format!("{how} ({result})"),
    }
}

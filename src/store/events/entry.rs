//! One line of `events.jsonl`, in the form that the contract defines.
//! It must never fail on a line of a newer version.

use serde::{Deserialize, Serialize};

use crate::outcome::{Class, Exit, RestReason};
use crate::policy::{DrillOutcome, HoldReason, OrderedBy, WarningKind};
use crate::time::{WallTime, rfc3339};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventEntry {
    #[serde(with = "rfc3339")]
    pub at: WallTime,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<String>,
    #[serde(flatten)]
    pub kind: EventKind,
}

impl EventKind {
    /// The incident that the event belongs to, if any.
    pub fn incident(&self) -> Option<&str> {
        match self {
            EventKind::Down { incident, .. } | EventKind::WouldRestart { incident, .. } => Some(incident),
            EventKind::Up { incident, .. } => Some(incident),
            EventKind::Restart { incident, .. } | EventKind::RestartDone { incident, .. } => incident.as_deref(),
            EventKind::Rested { incident, .. } | EventKind::DrillEnded { incident, .. } => incident.as_deref(),
            _ => None,
        }
    }
}

impl EventEntry {
    /// Without a newline at the end.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("text and numbers have a JSON form")
    }

    /// `None` if the line is damaged or its event is known only to a later version.
    pub fn parse(line: &str) -> Option<EventEntry> {
        serde_json::from_str(line).ok()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// Written by a daemon only.
    Started { version: String, pid: u32 },
    /// Written by a daemon only.
    Stopped { reason: String },
    /// The first failure of a streak outside an incident. `by`: a drill's own, if it is.
    Failing {
        class: Class,
        detail: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        by: Option<OrderedBy>,
    },
    /// The threshold was reached.
    Down {
        failures: u32,
        class: Class,
        detail: String,
        incident: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        by: Option<OrderedBy>,
    },
    /// An attempt's command is about to run; rungs count from 1. `incident`: `None` if the target was not down.
    Restart {
        attempt: u32,
        rung: u32,
        run: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        incident: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        by: Option<OrderedBy>,
    },
    /// The command ended, or its result is unknown.
    RestartDone {
        attempt: u32,
        rung: u32,
        #[serde(flatten)]
        outcome: CommandOutcome,
        took_ms: u64,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        incident: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        by: Option<OrderedBy>,
    },
    /// In a dry run, instead of `restart` and `restart_done`.
    WouldRestart { attempt: u32, rung: u32, run: String, incident: String },
    /// An attempt is due, but has to wait.
    HeldBack {
        why: HoldReason,
        #[serde(with = "rfc3339::option", skip_serializing_if = "Option::is_none", default)]
        until: Option<WallTime>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        by: Option<OrderedBy>,
    },
    /// Healthy again after an incident.
    Up {
        incident: String,
        down_ms: u64,
        attempts: u32,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        by: Option<OrderedBy>,
    },
    /// Deliberately stopped; `incident` is the one that ended because of it.
    Rested {
        why: RestReason,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        incident: Option<String>,
    },
    /// It runs again.
    Woke { why: RestReason },
    /// Once per change of the condition.
    Warn { about: WarningKind, detail: String },
    /// No restarts and no messages until this time, or until the command has ended that is run meanwhile.
    Paused {
        #[serde(with = "rfc3339")]
        until: WallTime,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        command: Option<String>,
    },
    /// A pause ended; `until` is the end that was planned.
    Resumed {
        #[serde(with = "rfc3339::option", skip_serializing_if = "Option::is_none", default)]
        until: Option<WallTime>,
    },
    /// The loop woke up late.
    Stalled { gap_ms: u64 },
    /// These processes of a healthy target are about to be stopped.
    DrillBegan { pids: Vec<u32> },
    /// The processes continue. `incident` is the drill's that ended because of it.
    DrillEnded {
        #[serde(flatten)]
        outcome: DrillOutcome,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        incident: Option<String>,
    },
    /// The new configuration is in use.
    Reloaded { detail: String },
    /// The new configuration is not valid; the old one stays in use.
    ReloadFailed { detail: String },
    /// A message was dropped.
    NotifyFailed { detail: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum CommandOutcome {
    Exited { code: i32 },
    Killed { signal: i32 },
    TimedOut,
    NotStarted,
    Lost,
}

impl From<&Exit> for CommandOutcome {
    fn from(exit: &Exit) -> Self {
        match exit {
            Exit::Exited(code) => CommandOutcome::Exited { code: *code },
            Exit::Killed(signal) => CommandOutcome::Killed { signal: *signal },
            Exit::TimedOut => CommandOutcome::TimedOut,
            Exit::NotStarted(_) => CommandOutcome::NotStarted,
            Exit::Lost => CommandOutcome::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> WallTime {
        WallTime::from_ms(1_795_313_530_123)
    }

    #[track_caller]
    fn check(kind: EventKind, rest: &str) {
        let entry = EventEntry { at: at(), target: Some("sav-backend".into()), kind };
        let expected = format!(r#"{{"at":"2026-11-22T02:12:10.123Z","target":"sav-backend",{rest}}}"#);
        assert_eq!(entry.to_line(), expected);
        assert_eq!(EventEntry::parse(&expected), Some(entry));
    }

    #[test]
    fn lines_match_the_contract() {
        let text = |text: &str| text.to_string();
        let (class, detail, incident, run) =
            (Class::Timeout, text("no byte"), text("1122-0313"), text("pm2 restart x"));
        check(EventKind::Stopped { reason: text("SIGTERM") }, r#""event":"stopped","reason":"SIGTERM""#);
        check(
            EventKind::Failing { class, detail: detail.clone(), by: None },
            r#""event":"failing","class":"timeout","detail":"no byte""#,
        );
        check(
            EventKind::Down { failures: 3, class, detail: detail.clone(), incident: incident.clone(), by: None },
            r#""event":"down","failures":3,"class":"timeout","detail":"no byte","incident":"1122-0313""#,
        );
        check(
            EventKind::Restart { attempt: 1, rung: 1, run: run.clone(), incident: Some(incident.clone()), by: None },
            r#""event":"restart","attempt":1,"rung":1,"run":"pm2 restart x","incident":"1122-0313""#,
        );
        let by = Some(OrderedBy::Operator);
        check(
            EventKind::Restart { attempt: 1, rung: 1, run: run.clone(), incident: None, by },
            r#""event":"restart","attempt":1,"rung":1,"run":"pm2 restart x","by":"operator""#,
        );
        check(
            EventKind::WouldRestart { attempt: 1, rung: 1, run, incident: incident.clone() },
            r#""event":"would_restart","attempt":1,"rung":1,"run":"pm2 restart x","incident":"1122-0313""#,
        );
        let until = Some(at());
        let known = r#""until":"2026-11-22T02:12:10.123Z""#;
        check(
            EventKind::HeldBack { why: HoldReason::Limit, until, by: None },
            &format!(r#""event":"held_back","why":"limit",{known}"#),
        );
        check(
            EventKind::HeldBack { why: HoldReason::Busy, until: None, by: None },
            r#""event":"held_back","why":"busy""#,
        );
        check(
            EventKind::Up { incident, down_ms: 64_000, attempts: 1, by: None },
            r#""event":"up","incident":"1122-0313","down_ms":64000,"attempts":1"#,
        );
        let (why, incident) = (RestReason::Operator, Some(text("1122-0313")));
        check(EventKind::Rested { why, incident }, r#""event":"rested","why":"operator","incident":"1122-0313""#);
        check(EventKind::Rested { why: RestReason::Schedule, incident: None }, r#""event":"rested","why":"schedule""#);
        check(EventKind::Woke { why: RestReason::Deleted }, r#""event":"woke","why":"deleted""#);
        check(
            EventKind::Warn { about: WarningKind::CannotRepair, detail: text("pm2 is gone") },
            r#""event":"warn","about":"cannot_repair","detail":"pm2 is gone""#,
        );
        check(EventKind::Paused { until: at(), command: None }, &format!(r#""event":"paused",{known}"#));
        check(EventKind::Resumed { until }, &format!(r#""event":"resumed",{known}"#));
        check(EventKind::Resumed { until: None }, r#""event":"resumed""#);
    }

    #[test]
    fn a_drill_is_named_in_each_of_its_events() {
        let by = Some(OrderedBy::Drill);
        check(EventKind::DrillBegan { pids: vec![7, 8] }, r#""event":"drill_began","pids":[7,8]"#);
        check(
            EventKind::Failing { class: Class::Timeout, detail: "x".into(), by },
            r#""event":"failing","class":"timeout","detail":"x","by":"drill""#,
        );
        check(
            EventKind::Up { incident: "1122-0313".into(), down_ms: 64_000, attempts: 1, by },
            r#""event":"up","incident":"1122-0313","down_ms":64000,"attempts":1,"by":"drill""#,
        );
        let outcome = DrillOutcome::Healed { found_ms: 61_000, healed_ms: 3_000 };
        check(
            EventKind::DrillEnded { outcome, incident: None },
            r#""event":"drill_ended","outcome":"healed","found_ms":61000,"healed_ms":3000"#,
        );
        let outcome = DrillOutcome::HeldBack { why: HoldReason::OnlyIf };
        check(
            EventKind::DrillEnded { outcome, incident: Some("1122-0313".into()) },
            r#""event":"drill_ended","outcome":"held_back","why":"only_if","incident":"1122-0313""#,
        );
    }

    #[test]
    fn code_and_signal_appear_only_where_they_apply() {
        #[track_caller]
        fn check_done(exit: Exit, outcome: &str) {
            let incident = Some("1122-0313".to_string());
            let (ended, by) = ((&exit).into(), None);
            let done = EventKind::RestartDone { attempt: 2, rung: 1, outcome: ended, took_ms: 2_100, incident, by };
            let rest = format!(
                r#""event":"restart_done","attempt":2,"rung":1,{outcome},"took_ms":2100,"incident":"1122-0313""#
            );
            check(done, &rest);
        }
        check_done(Exit::Exited(3), r#""outcome":"exited","code":3"#);
        check_done(Exit::Killed(9), r#""outcome":"killed","signal":9"#);
        check_done(Exit::TimedOut, r#""outcome":"timed_out""#);
        check_done(Exit::NotStarted("gone".into()), r#""outcome":"not_started""#);
        check_done(Exit::Lost, r#""outcome":"lost""#);
    }

    #[test]
    fn events_without_a_target_name_none() {
        let check = |kind: EventKind, rest: &str| {
            let entry = EventEntry { at: at(), target: None, kind };
            assert_eq!(entry.to_line(), format!(r#"{{"at":"2026-11-22T02:12:10.123Z",{rest}}}"#));
            assert_eq!(EventEntry::parse(&entry.to_line()), Some(entry));
        };
        check(EventKind::Started { version: "0.1.0".into(), pid: 7 }, r#""event":"started","version":"0.1.0","pid":7"#);
        check(EventKind::Stalled { gap_ms: 5 }, r#""event":"stalled","gap_ms":5"#);
        check(EventKind::Reloaded { detail: "a\n\u{1b}[2J".into() }, r#""event":"reloaded","detail":"a\n\u001b[2J""#);
        check(EventKind::ReloadFailed { detail: "x".into() }, r#""event":"reload_failed","detail":"x""#);
        check(EventKind::NotifyFailed { detail: "x".into() }, r#""event":"notify_failed","detail":"x""#);
    }

    #[test]
    fn unknown_events_are_skipped_and_unknown_fields_ignored() {
        assert_eq!(
            EventEntry::parse(r#"{"at":"2026-11-22T02:12:10.123Z","event":"of_a_newer_version","detail":"x"}"#),
            None
        );
        assert_eq!(EventEntry::parse(r#"{"at":"yesterday","event":"stalled","gap_ms":5}"#), None);
        assert_eq!(EventEntry::parse("{"), None);
        let more = r#"{"at":"2026-11-22T02:12:10.123Z","event":"stalled","gap_ms":5,"new":1}"#;
        assert!(EventEntry::parse(more).is_some());
    }
}

//! One message, and its form as JSON to the letter of the contract.

use serde::{Deserialize, Serialize};

use crate::outcome::{Class, NotificationKind};
use crate::policy::WarningKind;
use crate::time::{WallTime, rfc3339};

/// A message to people. What does not apply is nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Tells it from all others, also where it arrives twice.
    pub id: String,
    pub event: NotificationKind,
    pub about: Option<WarningKind>,
    pub target: Option<String>,
    pub host: String,
    #[serde(with = "rfc3339")]
    pub at: WallTime,
    /// For people; the first line does alone.
    pub text: String,
    pub class: Option<Class>,
    pub detail: Option<String>,
    pub incident: Option<String>,
    pub attempts: Option<u32>,
    pub down_ms: Option<u64>,
    pub late: bool,
}

impl Message {
    /// One object, on one line.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("text and numbers have a JSON form")
    }

    /// What stands alone on a lock screen, and what follows it.
    pub(super) fn parts(&self) -> (&str, &str) {
        self.text.split_once('\n').unwrap_or((&self.text, ""))
    }
}

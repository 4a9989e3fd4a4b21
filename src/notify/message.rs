//! One message and its JSON. The names and the order of the fields are a documented format and must never change.

use serde::{Deserialize, Serialize};

use crate::outcome::{Class, NotificationKind};
use crate::policy::WarningKind;
use crate::time::{WallTime, rfc3339};

/// A message to people. Fields that do not apply are `None`, and null in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Unique, so that a receiver can recognize a message that arrives twice.
    pub id: String,
    pub event: NotificationKind,
    pub about: Option<WarningKind>,
    pub target: Option<String>,
    pub host: String,
    #[serde(with = "rfc3339")]
    pub at: WallTime,
    /// The first line must be understandable alone, as on a lock screen.
    pub text: String,
    pub class: Option<Class>,
    pub detail: Option<String>,
    pub incident: Option<String>,
    pub attempts: Option<u32>,
    pub down_ms: Option<u64>,
    pub late: bool,
}

impl Message {
    /// One JSON object on one line.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers can be serialized")
    }

    /// The first line, and the rest.
    pub(super) fn split_first_line(&self) -> (&str, &str) {
        self.text.split_once('\n').unwrap_or((&self.text, ""))
    }
}

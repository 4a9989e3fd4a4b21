//! `incidents.jsonl`: a line for each incident that is over, for as long as reports reach back. What incidents have in
//! common is told from these; what one of them was like is in its own folder.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::incident_record::IncidentRecord;
use super::lines::Lines;
use super::{Error, Folder, is_ahead};
use crate::outcome::{Class, Downtime};
use crate::time::{WallTime, millis, rfc3339};

/// About 250 bytes a line: at least 4,000 incidents.
const PAST: Lines = Lines { name: "incidents.jsonl", rotated: "incidents.jsonl.1", max_size: 1 << 20 };

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClosedIncident {
    pub id: String,
    pub target: String,
    /// The first failure.
    #[serde(with = "rfc3339")]
    pub began: WallTime,
    /// From the last healthy look before, or else from the first failure, until it was healthy, in milliseconds.
    pub down_ms: u64,
    /// From the last healthy look before until it was found to be down, in milliseconds; `None` where it was never
    /// healthy before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_ms: Option<u64>,
    pub class: Class,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runs: BTreeMap<String, u32>,
    /// The one that has cured it, as far as that can be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cured: Option<String>,
    /// From the start of that one to the first healthy look, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heal_ms: Option<u64>,
}

impl ClosedIncident {
    pub fn of(account: &IncidentRecord) -> Option<ClosedIncident> {
        let ms = |from: WallTime, to: WallTime| u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX);
        Some(ClosedIncident {
            id: account.id.clone(),
            target: account.target.clone(),
            began: account.began,
            down_ms: account.downtime(account.ended?).as_ms(),
            found_ms: account.down_since.map(|since| ms(since, account.down)),
            class: account.class,
            runs: account.runs.clone(),
            cured: account.cured.clone(),
            heal_ms: account.heal_ms,
        })
    }

    pub fn downtime(&self) -> Downtime {
        let span = Duration::from_millis(self.down_ms);
        if self.found_ms.is_some() { Downtime::AtMost(span) } else { Downtime::AtLeast(span) }
    }
}

/// Adds an incident. Only whoever holds the lock may call this.
pub fn append(folder: &Folder, closed: &ClosedIncident) -> Result<(), Error> {
    let line = serde_json::to_string(closed).expect("text and numbers have a JSON form");
    PAST.append(folder, &[line])
}

/// What is known of the incidents that began in this span before `now`, in the order in which they ended. Damaged lines
/// are passed over, those that say again what was said, and those of a clock that was ahead.
/// Errors: a file is there and cannot be read.
pub fn read(folder: &Folder, span: Duration, now: WallTime) -> Result<Vec<ClosedIncident>, Error> {
    let since = now.offset_by(-millis(span));
    let mut found = Vec::new();
    for bytes in PAST.read(folder)? {
        let lines = bytes.split(|&byte| byte == b'\n');
        let parsed = lines.filter_map(|line| serde_json::from_slice::<ClosedIncident>(line).ok());
        found.extend(parsed.filter(|closed| closed.began >= since && !is_ahead(closed.began, now)));
    }
    let mut known = HashSet::new();
    found.retain(|closed: &ClosedIncident| known.insert((closed.id.clone(), closed.began)));
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot prepare its scene must end")]

    use std::fs;

    use super::*;
    use crate::testing::temp_state_folder;

    #[test]
    fn what_is_over_is_kept_and_what_is_damaged_passed_over() {
        let (_scene, folder) = temp_state_folder();
        let at = |minute: i64| WallTime::from_ms(1_795_313_530_000 + minute * 60_000);
        let mut account = IncidentRecord::new("1122-0313", "api", at(0), at(1), (3, Class::Timeout, "no byte".into()));
        assert_eq!(ClosedIncident::of(&account), None);
        (account.ended, account.down_since) = (Some(at(2)), Some(at(-1)));
        account.runs.insert("x".into(), 2);
        let closed = ClosedIncident::of(&account).unwrap();
        assert_eq!((closed.down_ms, closed.found_ms), (180_000, Some(120_000)));
        append(&folder, &closed).unwrap();
        let path = folder.file(PAST.name);
        fs::write(&path, fs::read_to_string(&path).unwrap() + "{\"id\": \"torn").unwrap();
        let later = ClosedIncident { id: "1122-0320".into(), began: at(7), cured: Some("x".into()), ..closed.clone() };
        append(&folder, &later).unwrap();
        append(&folder, &closed).unwrap();
        let read = |minutes: u64, now: i64| read(&folder, Duration::from_secs(60 * minutes), at(now)).unwrap();
        assert_eq!(read(15, 10), [closed.clone(), later.clone()]);
        assert_eq!(read(9, 10), [later]);
        // One of a clock that is a year ahead is none before its time; a clock that was set back by hours hides none.
        let ahead = ClosedIncident { id: "1122-0313".into(), began: at(365 * 1_440), ..closed.clone() };
        append(&folder, &ahead).unwrap();
        assert_eq!(read(1_440, 10).len(), 2);
        assert_eq!(read(1_440, -600).len(), 2);
        assert_eq!(read(1_440, 365 * 1_440), [ahead]);
    }
}

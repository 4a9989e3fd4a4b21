//! `incidents.jsonl`: one line per closed incident, kept for as long as reports reach back. Patterns across incidents
//! come from these lines; the details of one incident are in its own folder.
//! It must never fail on a damaged line.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::incident_record::IncidentRecord;
use super::lines::LineFile;
use super::{Error, Folder, is_ahead};
use crate::outcome::{Class, Downtime};
use crate::policy::OrderedBy;
use crate::time::{WallTime, millis, rfc3339};

/// About 250 bytes a line: at least 4,000 incidents.
const CLOSED: LineFile = LineFile { name: "incidents.jsonl", rotated: "incidents.jsonl.1", max_size: 1 << 20 };

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClosedIncident {
    pub id: String,
    pub target: String,
    /// The first failure.
    #[serde(with = "rfc3339")]
    pub began: WallTime,
    /// From the last healthy probe before the incident, or else from the first failure, to the first healthy probe
    /// after it; in milliseconds.
    pub down_ms: u64,
    /// From the last healthy probe to the threshold, in milliseconds; `None` if there was no healthy probe before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_ms: Option<u64>,
    pub class: Class,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runs: BTreeMap<String, u32>,
    /// The command that cured it, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cured: Option<String>,
    /// From the start of that command to the first healthy probe, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heal_ms: Option<u64>,
}

impl ClosedIncident {
    /// `None` if it is still open, or a drill, which counts in no statistics.
    pub fn of(record: &IncidentRecord) -> Option<ClosedIncident> {
        if record.by == Some(OrderedBy::Drill) {
            return None;
        }
        let ms = |from: WallTime, to: WallTime| u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX);
        Some(ClosedIncident {
            id: record.id.clone(),
            target: record.target.clone(),
            began: record.began,
            down_ms: record.downtime(record.ended?).as_ms(),
            found_ms: record.down_since.map(|since| ms(since, record.down)),
            class: record.class,
            runs: record.runs.clone(),
            cured: record.cured.clone(),
            heal_ms: record.heal_ms,
        })
    }

    pub fn downtime(&self) -> Downtime {
        let span = Duration::from_millis(self.down_ms);
        if self.found_ms.is_some() { Downtime::AtMost(span) } else { Downtime::AtLeast(span) }
    }
}

/// Only the holder of the lock may call this.
pub fn append(folder: &Folder, closed: &ClosedIncident) -> Result<(), Error> {
    let line = serde_json::to_string(closed).expect("text and numbers have a JSON form");
    CLOSED.append(folder, &[line])
}

/// The incidents that began within this span before `now`, in the order in which they ended. Damaged lines, repeated
/// lines and lines with dates far in the future are skipped.
/// Errors: a file exists but cannot be read.
pub fn read(folder: &Folder, span: Duration, now: WallTime) -> Result<Vec<ClosedIncident>, Error> {
    let since = now.offset_by(-millis(span));
    let mut found = Vec::new();
    for bytes in CLOSED.read(folder)? {
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
    #![expect(clippy::unwrap_used, reason = "a test must end when it cannot prepare its folder")]

    use std::fs;

    use super::*;
    use crate::testing::temp_state_folder;

    #[test]
    fn closed_incidents_are_read_back_and_damaged_lines_skipped() {
        let (_scene, folder) = temp_state_folder();
        let at = |minute: i64| WallTime::from_ms(1_795_313_530_000 + minute * 60_000);
        let mut record = IncidentRecord::new("1122-0313", "api", at(0), at(1), (3, Class::Timeout, "no byte".into()));
        assert_eq!(ClosedIncident::of(&record), None);
        (record.ended, record.down_since) = (Some(at(2)), Some(at(-1)));
        record.runs.insert("x".into(), 2);
        let drill = IncidentRecord { by: Some(OrderedBy::Drill), ..record.clone() };
        assert_eq!(ClosedIncident::of(&drill), None);
        let closed = ClosedIncident::of(&record).unwrap();
        assert_eq!((closed.down_ms, closed.found_ms), (180_000, Some(120_000)));
        append(&folder, &closed).unwrap();
        let path = folder.file(CLOSED.name);
        fs::write(&path, fs::read_to_string(&path).unwrap() + "{\"id\": \"torn").unwrap();
        let later = ClosedIncident { id: "1122-0320".into(), began: at(7), cured: Some("x".into()), ..closed.clone() };
        append(&folder, &later).unwrap();
        append(&folder, &closed).unwrap();
        let read = |minutes: u64, now: i64| read(&folder, Duration::from_secs(60 * minutes), at(now)).unwrap();
        assert_eq!(read(15, 10), [closed.clone(), later.clone()]);
        assert_eq!(read(9, 10), [later]);
        // An incident dated a year ahead is not listed before that date; a clock that was set back by hours hides
        // none.
        let ahead = ClosedIncident { id: "1122-0313".into(), began: at(365 * 1_440), ..closed.clone() };
        append(&folder, &ahead).unwrap();
        assert_eq!(read(1_440, 10).len(), 2);
        assert_eq!(read(1_440, -600).len(), 2);
        assert_eq!(read(1_440, 365 * 1_440), [ahead]);
    }
}

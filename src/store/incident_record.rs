//! `incident.json`: what is known of one incident from its first failure to its end. Written as a whole at each
//! change, and read by the next watchdog while the incident is open and by the commands that show it.
//! It must never grow with the length of an outage.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::events::EventEntry;
use super::{Error, files};
use crate::outcome::{Class, Downtime, Evidence, RestReason};
use crate::policy::OrderedBy;
use crate::process::Machine;
use crate::time::{WallTime, millis, rfc3339};

const FILE_NAME: &str = "incident.json";
/// The format version that this code writes, and the newest that it reads.
const VERSION: u32 = 1;
/// More than any record takes: 16 KiB of evidence and a timeline of 200 events.
const MAX_SIZE: u64 = 1 << 20;
/// The numbers of events kept from the beginning and from the end of an incident; those in between are only counted.
const MAX_FIRST: usize = 50;
const MAX_LATEST: usize = 150;
/// Milliseconds by which boot clock and wall clock may differ although neither was set.
const MIN_CLOCK_STEP: u64 = 2_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncidentRecord {
    pub version: u32,
    pub id: String,
    pub target: String,
    /// How the target is probed, for display.
    pub probe: String,
    /// Who caused it, if it was no failure of the target's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<OrderedBy>,
    /// The first failure.
    #[serde(with = "rfc3339")]
    pub began: WallTime,
    /// When the threshold was reached.
    #[serde(with = "rfc3339")]
    pub down: WallTime,
    #[serde(with = "rfc3339::option", default)]
    pub ended: Option<WallTime>,
    #[serde(with = "rfc3339::option", default)]
    pub last_healthy: Option<WallTime>,
    /// Since `last_healthy`, or since the end of a later pause or rest; `None` if it was never healthy.
    #[serde(with = "rfc3339::option", default)]
    pub down_since: Option<WallTime>,
    /// By the boot clock, in milliseconds; `None` while it is down.
    #[serde(default)]
    pub down_ms: Option<u64>,
    /// How much of the 24 h before was watched, in milliseconds.
    #[serde(default)]
    pub watched_ms: u64,
    pub failures: u32,
    pub class: Class,
    pub detail: String,
    #[serde(default)]
    pub evidence: Option<Evidence>,
    #[serde(default)]
    pub process: Option<String>,
    #[serde(default)]
    pub pid: Option<u32>,
    #[serde(default)]
    pub pm2: Option<String>,
    #[serde(default)]
    pub unit: Option<String>,
    /// The most informative line of the target's own log.
    #[serde(rename = "said", default)]
    pub log_line: Option<String>,
    /// Just after the target went down.
    #[serde(default)]
    pub machine: Option<Machine>,
    /// The `diagnose` commands in order; the output of the first is in `diagnose-1.out`.
    #[serde(default)]
    pub diagnosed: Vec<String>,
    #[serde(default)]
    pub attempts: u32,
    /// How often each restart command was run.
    #[serde(default)]
    pub runs: BTreeMap<String, u32>,
    /// The restart command that cured it, as far as that is known.
    #[serde(default)]
    pub cured: Option<String>,
    /// From the start of that command to the first healthy probe, in milliseconds.
    #[serde(default)]
    pub heal_ms: Option<u64>,
    /// Why the target was deliberately stopped, if that ended the incident.
    #[serde(default)]
    pub rested: Option<RestReason>,
    #[serde(default)]
    pub back: Option<String>,
    #[serde(default)]
    pub timeline: Vec<EventEntry>,
    /// How many events were left out in the middle of the timeline.
    #[serde(default)]
    pub left_out: u64,
}

impl IncidentRecord {
    pub fn new(id: &str, target: &str, began: WallTime, down: WallTime, last: (u32, Class, String)) -> IncidentRecord {
        let (failures, class, detail) = last;
        IncidentRecord {
            version: VERSION,
            id: id.to_owned(),
            target: target.to_owned(),
            probe: String::new(),
            by: None,
            began,
            down,
            ended: None,
            last_healthy: None,
            down_since: None,
            down_ms: None,
            watched_ms: 0,
            failures,
            class,
            detail,
            evidence: None,
            process: None,
            pid: None,
            pm2: None,
            unit: None,
            log_line: None,
            machine: None,
            diagnosed: Vec::new(),
            attempts: 0,
            runs: BTreeMap::new(),
            cured: None,
            heal_ms: None,
            rested: None,
            back: None,
            timeline: Vec::new(),
            left_out: 0,
        }
    }

    pub fn add(&mut self, entry: EventEntry) {
        self.timeline.push(entry);
        if self.timeline.len() > MAX_FIRST + MAX_LATEST {
            self.timeline.remove(MAX_FIRST);
            self.left_out += 1;
        }
    }

    /// `down` is measured by the boot clock. If the wall clock was set meanwhile, earlier times are corrected to
    /// match.
    pub fn close(&mut self, at: WallTime, down: Duration) {
        let from = self.down_since.unwrap_or(self.began);
        let moved = at.as_ms().saturating_sub(millis(down)).saturating_sub(from.as_ms());
        if moved.unsigned_abs() >= MIN_CLOCK_STEP {
            let points = [&mut self.began, &mut self.down].into_iter();
            let points = points.chain(&mut self.last_healthy).chain(&mut self.down_since);
            points.for_each(|point| *point = point.offset_by(moved));
        }
        (self.ended, self.down_ms) = (Some(at), u64::try_from(down.as_millis()).ok());
    }

    pub fn downtime(&self, now: WallTime) -> Downtime {
        let from = self.down_since.unwrap_or(self.began);
        let by_wall = || self.ended.unwrap_or(now).since(from);
        let span = self.down_ms.map_or_else(by_wall, Duration::from_millis);
        if self.down_since.is_some() { Downtime::AtMost(span) } else { Downtime::AtLeast(span) }
    }
}

/// Writes the record into the incident's folder. Only the holder of the lock may call this.
/// Errors: it cannot be written, as on a full disk; the previous record is intact.
pub fn save(incident: &Path, record: &IncidentRecord) -> Result<(), Error> {
    let path = incident.join(FILE_NAME);
    serde_json::to_vec_pretty(record)
        .map_err(io::Error::from)
        .and_then(|bytes| files::replace(&path, &bytes, false))
        .map_err(|cause| Error::new("save", &path, cause))
}

/// Reads the record from the incident's folder; `None` if there is none.
/// Errors: it cannot be read, or is damaged or of a newer version (then the kind is `InvalidData`).
pub fn read(incident: &Path) -> Result<Option<IncidentRecord>, Error> {
    let path = incident.join(FILE_NAME);
    let failed = |cause| Error::new("read", &path, cause);
    let bytes = match files::read(&path, MAX_SIZE) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(failed)?,
    };
    let record: IncidentRecord =
        serde_json::from_slice(&bytes).map_err(|error| failed(files::invalid_data(error.to_string())))?;
    if record.version > VERSION {
        return Err(failed(files::invalid_data(format!(
            "it has format version {}, which is newer than this program",
            record.version
        ))));
    }
    Ok(Some(record))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test must end when it cannot prepare its folder")]

    use std::fs;

    use super::*;
    use crate::store::events::EventKind;

    fn record() -> IncidentRecord {
        let at = WallTime::from_ms(1_795_313_530_123);
        let mut record =
            IncidentRecord::new("1122-0313", "api", at, at.offset_by(60_000), (3, Class::Timeout, "no byte".into()));
        record.evidence = Some(Evidence { status: Some(200), ..Evidence::default() });
        record.add(EventEntry { at, target: Some("api".into()), kind: EventKind::Stalled { gap_ms: 5 } });
        record
    }

    #[test]
    fn a_saved_record_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        let written = record();
        save(folder.path(), &written).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Some(written));
    }

    #[test]
    fn a_damaged_or_newer_record_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        save(folder.path(), &record()).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        for text in ["", "{}", "[1]", &whole[..whole.len() - 2], &whole.replace("\"version\": 1", "\"version\": 2")] {
            fs::write(&path, text).unwrap();
            let error = read(folder.path()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text}: {error}");
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(read(folder.path()).is_err(), "a link is not followed");
    }

    #[test]
    fn a_long_timeline_keeps_its_beginning_and_its_end() {
        let mut record = record();
        for n in 1..1_000 {
            record.add(EventEntry { at: record.began, target: None, kind: EventKind::Stalled { gap_ms: n } });
        }
        let gap = |entry: &EventEntry| if let EventKind::Stalled { gap_ms } = entry.kind { gap_ms } else { 0 };
        let gaps: Vec<u64> = record.timeline.iter().map(gap).collect();
        assert_eq!((gaps.len(), record.left_out), (MAX_FIRST + MAX_LATEST, 800));
        assert_eq!((gaps[0], gaps[MAX_FIRST - 1], gaps[MAX_FIRST], gaps[199]), (5, 49, 850, 999));
    }
}

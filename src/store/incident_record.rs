//! `incident.json`: what is known of one incident, from its first failure to its end. Written whole at each change;
//! read again by the next watchdog while the incident is open, and by whoever asks later.
//! It must never grow with the length of an outage.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::events::EventEntry;
use super::{Error, files};
use crate::outcome::{Class, Downtime, Evidence, RestReason};
use crate::process::Machine;
use crate::time::{WallTime, millis, rfc3339};

const NAME: &str = "incident.json";
/// The format that this code writes, and the newest that it reads.
const VERSION: u32 = 1;
/// More than any account takes: 16 KiB of evidence, and a timeline of 200 events.
const MAX_SIZE: u64 = 1 << 20;
/// Events that are kept from the beginning and from the end of an incident; what comes between is only counted.
const FIRST: usize = 50;
const LATEST: usize = 150;
/// Milliseconds by which the two clocks may differ without anybody having set one of them.
const CLOCK_WAS_SET: u64 = 2_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncidentRecord {
    pub version: u32,
    pub id: String,
    pub target: String,
    /// How it is looked at, as people read it.
    pub probe: String,
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
    /// Since `last_healthy`, or since the end of a pause or rest after that; `None` where it was never healthy.
    #[serde(with = "rfc3339::option", default)]
    pub down_since: Option<WallTime>,
    /// How long it was down by the boot clock, in milliseconds, once that is known.
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
    /// The line of its own log that tells most.
    #[serde(default)]
    pub said: Option<String>,
    /// The machine just after it went down.
    #[serde(default)]
    pub machine: Option<Machine>,
    /// What `diagnose` ran, in its order; the output of the first is in `diagnose-1.out`.
    #[serde(default)]
    pub diagnosed: Vec<String>,
    #[serde(default)]
    pub attempts: u32,
    /// How often each restart command was run.
    #[serde(default)]
    pub runs: BTreeMap<String, u32>,
    /// The restart command that has cured it, as far as that can be said.
    #[serde(default)]
    pub cured: Option<String>,
    /// From the start of that command to the first healthy look, in milliseconds.
    #[serde(default)]
    pub heal_ms: Option<u64>,
    /// It ended with the target's being deliberately at rest, for this reason.
    #[serde(default)]
    pub rested: Option<RestReason>,
    #[serde(default)]
    pub back: Option<String>,
    #[serde(default)]
    pub timeline: Vec<EventEntry>,
    /// Events in the middle of the timeline that were left out.
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
            said: None,
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
        if self.timeline.len() > FIRST + LATEST {
            self.timeline.remove(FIRST);
            self.left_out += 1;
        }
    }

    /// `down` is by the boot clock. Where the wall clock was set meanwhile, what it said before is moved along.
    pub fn close(&mut self, at: WallTime, down: Duration) {
        let from = self.down_since.unwrap_or(self.began);
        let moved = at.as_ms().saturating_sub(millis(down)).saturating_sub(from.as_ms());
        if moved.unsigned_abs() >= CLOCK_WAS_SET {
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

/// Writes the account into the incident's folder. Only whoever holds the lock may call this.
/// Errors: it cannot be written, such as on a full disk; what was written before is intact.
pub fn save(incident: &Path, account: &IncidentRecord) -> Result<(), Error> {
    let path = incident.join(NAME);
    serde_json::to_vec_pretty(account)
        .map_err(io::Error::from)
        .and_then(|bytes| files::replace(&path, &bytes, false))
        .map_err(|cause| Error::new("save", &path, cause))
}

/// Reads the account of the incident in this folder; `None` where there is none.
/// Errors: it cannot be read, or is damaged or of a newer version (the kind is `InvalidData` then).
pub fn read(incident: &Path) -> Result<Option<IncidentRecord>, Error> {
    let path = incident.join(NAME);
    let failed = |cause| Error::new("read", &path, cause);
    let bytes = match files::read(&path, MAX_SIZE) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(failed)?,
    };
    let account: IncidentRecord =
        serde_json::from_slice(&bytes).map_err(|error| failed(files::damaged(error.to_string())))?;
    if account.version > VERSION {
        return Err(failed(files::damaged(format!("it is of version {}, newer than this program", account.version))));
    }
    Ok(Some(account))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot prepare its scene must end")]

    use std::fs;

    use super::*;
    use crate::store::events::EventKind;

    fn account() -> IncidentRecord {
        let at = WallTime::from_ms(1_795_313_530_123);
        let mut account =
            IncidentRecord::new("1122-0313", "api", at, at.offset_by(60_000), (3, Class::Timeout, "no byte".into()));
        account.evidence = Some(Evidence { status: Some(200), ..Evidence::default() });
        account.add(EventEntry { at, target: Some("api".into()), kind: EventKind::Stalled { gap_ms: 5 } });
        account
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        let written = account();
        save(folder.path(), &written).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Some(written));
    }

    #[test]
    fn what_is_damaged_or_newer_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        save(folder.path(), &account()).unwrap();
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
    fn a_long_outage_leaves_its_beginning_and_its_end() {
        let mut account = account();
        for n in 1..1_000 {
            account.add(EventEntry { at: account.began, target: None, kind: EventKind::Stalled { gap_ms: n } });
        }
        let gap = |entry: &EventEntry| if let EventKind::Stalled { gap_ms } = entry.kind { gap_ms } else { 0 };
        let gaps: Vec<u64> = account.timeline.iter().map(gap).collect();
        assert_eq!((gaps.len(), account.left_out), (FIRST + LATEST, 800));
        assert_eq!((gaps[0], gaps[FIRST - 1], gaps[FIRST], gaps[199]), (5, 49, 850, 999));
    }
}

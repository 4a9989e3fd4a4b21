//! Whether a process is deliberately at rest, and why. It must never take a crash for that, which PM2 calls `stopped`
//! too where it does not restart.

use std::io::{self, Read, Seek, SeekFrom};

use crate::outcome::RestReason;

use super::saved::open;
use super::{App, Home};

/// Bytes at the end of PM2's own log that are read. It has some 200 bytes for each start and end of a process.
const LAST: u64 = 256 << 10;

/// Why every process of this name is at rest; none where one is not, or none is listed.
pub(super) fn at_rest(apps: &[App], process: &str, log: &str) -> Option<RestReason> {
    let mut named = apps.iter().filter(|app| app.name == process);
    let first = resting(named.next()?, log)?;
    named.try_fold(first, |reason, app| Some(resting(app, log)?.min(reason)))
}

/// The numbers of those of this name that are at rest, whatever its other instances do.
pub(super) fn ids_at_rest(apps: &[App], process: &str, log: &str) -> Vec<u32> {
    let named = apps.iter().filter(|app| app.name == process);
    named.filter(|app| resting(app, log).is_some()).filter_map(|app| app.id).collect()
}

impl Home {
    /// The end of PM2's own log. One that cannot be read is as good as one that says nothing.
    pub(super) fn log_tail(&self) -> String {
        let read = || {
            let mut file = open(&self.own_log())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LAST)))?;
            let mut bytes = Vec::new();
            file.take(LAST).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }
}

/// What PM2's log says of one process since its last start.
#[derive(Debug, Default, PartialEq, Eq)]
struct LogEvidence {
    is_stopped: bool,
    /// How it ended: its code; none for a signal.
    ended: Option<Option<i32>>,
}

fn resting(app: &App, log: &str) -> Option<RestReason> {
    if app.status != "stopped" {
        return None;
    }
    let LogEvidence { is_stopped, ended } = app.id.map(|id| told(&app.name, id, log)).unwrap_or_default();
    // The list has 0 for one that a signal ended.
    let code = ended.unwrap_or(app.exit_code);
    let ends_for_good = code.is_some_and(|code| app.stop_exit_codes.contains(&code));
    match () {
        () if is_stopped => Some(RestReason::Operator),
        () if ends_for_good => Some(RestReason::Exit),
        // PM2 takes a signal for the code 0.
        () if ended == Some(None) && app.stop_exit_codes.contains(&0) => None,
        // What PM2 would start again, it stops on somebody's word only.
        () if app.autorestart => Some(RestReason::Operator),
        () if app.is_scheduled || code == Some(0) => Some(RestReason::Schedule),
        () => None,
    }
}

fn told(name: &str, id: u32, log: &str) -> LogEvidence {
    let own = format!("App [{name}:{id}] ");
    let stopping = format!("Stopping app:{name} id:{id}");
    let mut told = LogEvidence::default();
    for line in log.lines().map(str::trim_end) {
        let said = line.split_once(&own).map(|(_, said)| said);
        if said.is_some_and(|said| said.starts_with("starting ")) {
            told = LogEvidence::default();
        } else if let Some(end) = said.and_then(|said| said.strip_prefix("exited with code [")) {
            // PM2 writes SIGINT where there was no signal.
            let code = end.strip_suffix("] via signal [SIGINT]").and_then(|code| code.parse().ok());
            told.ended = Some(code);
        } else if line.ends_with(&stopping) {
            told.is_stopped = true;
        }
    }
    told
}

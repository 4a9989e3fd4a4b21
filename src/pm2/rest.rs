//! Decides whether a process is deliberately at rest, and why. It must never mistake a crash for rest: PM2 lists a
//! crashed process as `stopped` too if it does not restart it.

use std::io::{self, Read, Seek, SeekFrom};

use crate::outcome::RestReason;

use super::saved::open_nonblocking;
use super::{App, Home};

/// How much of the end of PM2's own log is read. Each start or end of a process takes some 200 bytes.
const LOG_TAIL_BYTES: u64 = 256 << 10;

/// Why every process of this name is at rest; `None` if one is not, or none is listed.
pub(super) fn common_rest_reason(apps: &[App], process: &str, log: &str) -> Option<RestReason> {
    let mut named = apps.iter().filter(|app| app.name == process);
    let first = rest_reason(named.next()?, log)?;
    named.try_fold(first, |reason, app| Some(rest_reason(app, log)?.min(reason)))
}

/// The ids of the instances of this name that are at rest.
pub(super) fn find_ids_at_rest(apps: &[App], process: &str, log: &str) -> Vec<u32> {
    let named = apps.iter().filter(|app| app.name == process);
    named.filter(|app| rest_reason(app, log).is_some()).filter_map(|app| app.id).collect()
}

impl Home {
    /// The end of PM2's own log. A log that cannot be read counts as empty.
    pub(super) fn read_log_tail(&self) -> String {
        let read = || {
            let mut file = open_nonblocking(&self.daemon_log())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }
}

/// What PM2's log says about one process since its last start.
#[derive(Debug, Default, PartialEq, Eq)]
struct LogEvidence {
    is_stopped: bool,
    /// How it ended: `Some(None)` if a signal killed it.
    ended: Option<Option<i32>>,
}

fn rest_reason(app: &App, log: &str) -> Option<RestReason> {
    if app.status != "stopped" {
        return None;
    }
    let LogEvidence { is_stopped, ended } = app.id.map(|id| read_log_evidence(&app.name, id, log)).unwrap_or_default();
    // The log comes first, because the list shows code 0 after a death by signal.
    let code = ended.unwrap_or(app.exit_code);
    let ends_for_good = code.is_some_and(|code| app.stop_exit_codes.contains(&code));
    match () {
        () if is_stopped => Some(RestReason::Operator),
        () if ends_for_good => Some(RestReason::Exit),
        // PM2 treats a death by signal as exit code 0.
        () if ended == Some(None) && app.stop_exit_codes.contains(&0) => None,
        // With `autorestart`, PM2 stops a process only if it is told to.
        () if app.autorestart => Some(RestReason::Operator),
        () if app.is_scheduled || code == Some(0) => Some(RestReason::Schedule),
        () => None,
    }
}

fn read_log_evidence(name: &str, id: u32, log: &str) -> LogEvidence {
    let prefix = format!("App [{name}:{id}] ");
    let stopping = format!("Stopping app:{name} id:{id}");
    let mut evidence = LogEvidence::default();
    for line in log.lines().map(str::trim_end) {
        let message = line.split_once(&prefix).map(|(_, message)| message);
        if message.is_some_and(|message| message.starts_with("starting ")) {
            evidence = LogEvidence::default();
        } else if let Some(end) = message.and_then(|message| message.strip_prefix("exited with code [")) {
            // PM2 writes SIGINT if there was no signal.
            let code = end.strip_suffix("] via signal [SIGINT]").and_then(|code| code.parse().ok());
            evidence.ended = Some(code);
        } else if line.ends_with(&stopping) {
            evidence.is_stopped = true;
        }
    }
    evidence
}

//! Whether somebody stopped a process on purpose. It must never take a crash for that, which PM2 calls `stopped` too
//! where it does not restart.

use std::io::{self, Read, Seek, SeekFrom};

use super::saved::open;
use super::{App, Home};

/// Bytes at the end of PM2's own log that are read. It has some 200 bytes for each start and end of a process.
const LAST: u64 = 256 << 10;

/// Whether every process of this name is `stopped`, and not because it crashed. One that is not listed is not stopped.
pub fn is_stopped_by_hand(home: &Home, apps: &[App], process: &str) -> bool {
    let mut named = apps.iter().filter(|app| app.name == process).peekable();
    if named.peek().is_none() || !named.clone().all(|app| app.status == "stopped") {
        return false;
    }
    // What PM2 would restart, it stops on somebody's word only.
    let mut doubtful = named.filter(|app| !app.autorestart).peekable();
    if doubtful.peek().is_none() {
        return true;
    }
    // A log that cannot be read is as good as one that says nothing.
    let log = tail(home).unwrap_or_default();
    doubtful.all(|app| !has_crashed(app, &log))
}

fn tail(home: &Home) -> io::Result<String> {
    let mut file = open(&home.own_log())?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LAST)))?;
    let mut bytes = Vec::new();
    file.take(LAST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What PM2's log says of the process since its last start decides. Else its exit code does, which is 0 for one that a
/// signal ended and may be anything for one that was stopped.
fn has_crashed(app: &App, log: &str) -> bool {
    let by_code = app.exit_code.is_some_and(|code| code != 0);
    let Some(id) = app.id else { return by_code };
    let own = format!("App [{}:{id}] ", app.name);
    let stopping = format!("Stopping app:{} id:{id}", app.name);
    let mut crashed = None;
    let mut is_stopped = false;
    for line in log.lines().map(str::trim_end) {
        let said = line.split_once(&own).map(|(_, said)| said);
        if said.is_some_and(|said| said.starts_with("starting ")) {
            (crashed, is_stopped) = (None, false);
        } else if let Some(end) = said.and_then(|said| said.strip_prefix("exited with ")) {
            // PM2 writes SIGINT where there was no signal.
            crashed = Some(end != "code [0] via signal [SIGINT]");
        } else if line.ends_with(&stopping) {
            is_stopped = true;
        }
    }
    !is_stopped && crashed.unwrap_or(by_code)
}

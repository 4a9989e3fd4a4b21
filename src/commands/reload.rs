//! `reload`: has the running watchdog read its configuration again, and reports what came of it. It must never judge
//! the configuration itself: the watchdog's environment counts, and it may differ from that of the command line.

use std::io;
use std::time::Duration;

use rustix::process::Signal;

use crate::cli::Options;
use crate::policy::Mode;
use crate::store::Folder;
use crate::store::lock::{Holder, HolderProof, prove_holder};
use crate::store::requests::{self, PendingRequest, ReloadAnswer, Request};
use crate::terminal::write_line;

use super::holder::{self, Instance};
use super::{Code, locate, print, print_error, print_machine_error, shorten_home, stale_daemon};

const UNCHANGED: &str = "nothing was reloaded";
/// Most answers take milliseconds. After this time the operator is told what the command waits for.
const QUICK_ANSWER: Duration = Duration::from_secs(5);
/// A busy machine and a slow disk take seconds; a watchdog that takes longer hangs or cannot write.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn reload(options: &Options) -> Result<Code, Code> {
    let location = locate(options)?;
    let shown = location.shown.clone();
    let Instance { folder, holder, .. } = holder::writable_instance_at(location, UNCHANGED)?;
    let Some(holder) = holder.filter(|holder| holder.mode == Mode::Daemon) else {
        print(&format!("no watchdog was running for {}; the next one reads it anyway", folder.path().display()));
        return Ok(Code::NotRunning);
    };
    let folder = Folder::open(folder.path()).map_err(print_machine_error)?;
    let request = requests::submit(&folder, Request::Reload).map_err(print_machine_error)?;
    stale_daemon::send_signal(&folder, &holder, Signal::USR1);
    let answer = wait_for_answer(&folder, &holder, &request)?;
    let pid = holder.pid;
    match answer {
        ReloadAnswer::Done { detail, notes } => {
            let path = shorten_home(&holder.config);
            print(&format!("the watchdog (pid {pid}) has read {path} again: {detail}"));
            notes.iter().for_each(|note| print(&format!("{note}: disabled; no messages are sent there")));
            Ok(Code::Done)
        }
        ReloadAnswer::Refused { reason } => {
            // As `check` shows it: with the path as this command line names it.
            let reason = match shown {
                Some(shown) => reason.replace(&*holder.config.to_string_lossy(), &shown.to_string_lossy()),
                None => reason,
            };
            let kept = format!("nothing changed; the running watchdog (pid {pid}) keeps its old configuration");
            write_line(io::stderr(), &format!("{reason}\n{kept}"));
            Err(Code::Usage)
        }
    }
}

/// Waits until the watchdog has answered, has ended, or has taken too long.
fn wait_for_answer(folder: &Folder, holder: &Holder, request: &PendingRequest) -> Result<ReloadAnswer, Code> {
    let pid = holder.pid;
    let mut answer = None;
    let mut has_ended = || {
        // The watchdog answers before it removes the request or ends, so the answer is looked up last.
        let is_over = request.is_handled() || prove_holder(folder, holder) == HolderProof::NotHolding;
        answer = request.take_answer();
        is_over || answer.is_some()
    };
    let is_over = stale_daemon::wait_until(QUICK_ANSWER, &mut has_ended) || {
        print(&format!("waiting for the watchdog (pid {pid}) to answer"));
        stale_daemon::wait_until(ANSWER_TIMEOUT - QUICK_ANSWER, &mut has_ended)
    };
    if let Some(answer) = answer {
        return Ok(answer);
    }
    // Otherwise the next watchdog, which reads the file anyway, would read it twice.
    let is_withdrawn = request.withdraw().unwrap_or(false);
    let (text, code) = match (is_over, is_withdrawn) {
        (true, true) => (format!("the watchdog (pid {pid}) has ended; the next one reads the file"), Code::NotRunning),
        (true, false) => {
            let advice = "it is of an older version, or cannot write: its log says which";
            (format!("the watchdog (pid {pid}) gave no answer; {advice}"), Code::Machine)
        }
        (false, _) => {
            let seconds = ANSWER_TIMEOUT.as_secs();
            let advice = "watchdog status says whether it is alive; its log, what it could not do";
            (format!("the watchdog (pid {pid}) did not answer within {seconds} s; {advice}"), Code::Machine)
        }
    };
    Err(print_error(&text, code))
}

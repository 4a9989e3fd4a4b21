//! Runs one command: in a process group of its own, with a deadline, its output in a file, every way to end told apart.
//! It must never signal what a restart command leaves running after it ended by itself, never wait for the end of its
//! output, and never take longer than the deadline and the ten seconds that ending a stubborn group may need.

mod find;
mod output;
mod scope;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid};

use crate::clock;
use crate::outcome::{Exit, describe_io_error};
use crate::process::{self, Process, is_alive};

pub use find::{find_program, first_word, for_shell, locate};
pub use output::{MAX_KEPT, REDACTION, memory_output, open_output, redact_output, trim_output};
pub use scope::Scope;

use scope::ScopeEntry;

/// From SIGTERM to SIGKILL, and again from SIGKILL until we stop waiting for what hangs in the kernel.
const GRACE: Duration = Duration::from_secs(5);
/// The same for a command whose scope is closed: whoever closed it waits to end, such as a tick.
const HURRIED: Duration = Duration::from_secs(1);
/// Signalling and looking at `/proc` take little.
const STACK: usize = 64 << 10;
/// Between two looks at a command: short for the quick ones, long enough to cost nothing for the others.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// Output is cut back to [`KEPT`] bytes while a command runs as soon as it is longer than this, where no more is to be
/// kept. Cutting costs a write of [`KEPT`] bytes, so it is worth waiting for a multiple of them.
const CUT_ABOVE: u64 = 1 << 20;
/// What systemd gave to us and means for us alone.
const OURS_ALONE: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

#[derive(Debug)]
pub struct CommandSpec {
    /// The program and its arguments. A program with a slash in it is relative to `folder`, one without is looked up
    /// in `PATH`, the one in `env` where it is there.
    pub argv: Vec<String>,
    pub folder: PathBuf,
    /// Names of variables of our own environment that it must not get.
    pub unset: Vec<OsString>,
    pub env: Vec<(String, String)>,
    /// How long it may take before its group is ended.
    pub timeout: Duration,
    /// Bytes of output that are left whole; a longer one is cut down to [`KEPT`].
    pub keep: u64,
    /// What it reads on its standard input; `/dev/null` where there is nothing.
    pub stdin: Option<OwnedFd>,
    /// It must have been opened for appending, as [`open_output`] does, or be `/dev/null`.
    pub output: File,
    /// With what it ends, should its timeout be later.
    pub scope: Scope,
    /// What becomes of the rest of its group when it has ended by itself.
    pub leftovers: Leftovers,
}

/// What becomes of those that a command leaves running in its group. A daemon, which has a session of its own, is left
/// alone in any case: PM2's may be one that a question to it has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// They live: what a command has restarted may be among them.
    Live,
    /// They are ended at the command's deadline: nobody has any use for what a probe or a question leaves behind.
    End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandResult {
    pub exit: Exit,
    /// From before its start until it was over.
    pub duration: Duration,
}

/// Runs a command to its end. `on_start` is told of the process as soon as there is one.
///
/// Only the command's own process is waited for; what it leaves running in its group is left alone, or ended later, as
/// the spec says. At the timeout, or when the scope is closed, the whole group gets SIGTERM, and SIGKILL if any of it
/// is alive 5 s later.
///
/// A process whose parent ignored SIGCHLD never learns how its children ended; every command is `Lost` then.
/// `signals::listen` undoes that, so it has to come first. The thread that starts a command also reaps it, which tells
/// our own children from those that [`process::reap_orphans`] reaps.
pub fn run(spec: CommandSpec, on_start: impl FnOnce(Process)) -> CommandResult {
    let began = clock::monotonic();
    let (timeout, keep, remains) = (spec.timeout, spec.keep, spec.leftovers);
    let not_started = |reason| CommandResult { exit: Exit::NotStarted(reason), duration: since(began) };
    let Some(mut entry) = spec.scope.enter() else {
        return not_started("nobody waits for it any more".into());
    };
    let (child, output) = match start(spec) {
        Ok(started) => started,
        Err(reason) => return not_started(reason),
    };
    let pid = Pid::from_child(&child);
    entry.leads(pid);
    on_start(process::identify(child.id()));

    // A cut that fails is tried again at the next look, and what is kept of the output decides nothing.
    let cut = |limit| output::trim(&output, limit).unwrap_or(0) > 0;
    let look = || match (has_ended(pid), cut(keep.max(CUT_ABOVE))) {
        (true, _) => ChildState::Over,
        (false, true) => ChildState::Busy,
        (false, false) => ChildState::Quiet,
    };
    let limit = || if entry.scope().is_closed() { Duration::ZERO } else { timeout };
    let ending = if wait(began, limit, look) {
        let ending = entry.reap(|| reap(child));
        output::close(&output);
        if remains == Leftovers::End {
            end_leftovers(pid, began, timeout, entry);
        }
        ending
    } else {
        let strays = if remains == Leftovers::End { strays(child.id()) } else { Vec::new() };
        let is_over = || process::group_is_empty(child.id()) && !strays.iter().any(|stray| is_alive(*stray));
        end_group(pid, &strays, entry.scope(), || match look() {
            ChildState::Over if !is_over() => ChildState::Quiet,
            seen => seen,
        });
        entry.reap(|| reap(child));
        output::close(&output);
        Exit::TimedOut
    };
    cut(keep);
    CommandResult { exit: ending, duration: since(began) }
}

/// Those that a running command has started in other groups of our session, as timeout(1) makes one. Once the command
/// is gone nothing tells any more that they were its own.
fn strays(command: u32) -> Vec<Process> {
    let Some(own) = process::stat(command) else { return Vec::new() };
    let family = process::family(command).unwrap_or_default().into_iter();
    let is_stray = |stat: &process::Stat| stat.session == own.session && stat.group != command && stat.is_alive();
    let stray = |pid| process::stat(pid).filter(is_stray).map(|stat| Process { pid, started: stat.started });
    family.filter_map(stray).collect()
}

/// Kills a command with all that it has started, or what it has left if it `is_reaped`.
fn kill(group: Pid, is_reaped: bool) {
    let strays = if is_reaped { Vec::new() } else { strays(group.as_raw_nonzero().get().unsigned_abs()) };
    if !is_reaped || has_leftovers(group) {
        // As in `end_group`: the last of them may just have left.
        let _ = kill_process_group(group, Signal::KILL);
    }
    strays.iter().for_each(|stray| drop(process::signal(*stray, Signal::KILL)));
}

/// Ends at its deadline what a command that was reaped has left in its group.
fn end_leftovers(group: Pid, began: Instant, timeout: Duration, entry: ScopeEntry) {
    if !has_leftovers(group) {
        return;
    }
    let is_crowded = entry.is_crowded();
    let body = move || {
        let look = || if has_leftovers(group) { ChildState::Quiet } else { ChildState::Over };
        let limit = || if entry.scope().is_closed() { Duration::ZERO } else { timeout };
        if !wait(began, limit, look) {
            end_group(group, &[], entry.scope(), look);
        }
    };
    let remains = || thread::Builder::new().name("remains".into()).stack_size(STACK).spawn(body);
    if is_crowded || remains().is_err() {
        // As in `end_group`: the last of them may just have left.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Whether anybody is left in the group of a command that was reaped. While one is, nobody else can have its number;
/// a process that has it shows that the group is another's by now.
fn has_leftovers(group: Pid) -> bool {
    let number = group.as_raw_nonzero().get().unsigned_abs();
    // The kernel's answer costs nothing, and is mostly no; its yes may mean those that are dead and that nobody reaps.
    let is_there = test_kill_process_group(group) != Err(Errno::SRCH);
    is_there && process::stat(number).is_none() && !process::group_is_empty(number)
}

/// Waits for a command that an earlier watchdog started, and ends its group if it is still alive after `timeout`.
/// Not being its parent we cannot know how it went: the ending is `Lost` in every case.
pub fn adopt(process: Process, timeout: Duration) -> CommandResult {
    let began = clock::monotonic();
    let look = || if is_alive(process) { ChildState::Quiet } else { ChildState::Over };
    if !wait(began, || timeout, look)
        && let Some(pid) = process::leader(process)
    {
        let look = || if process::group_is_over(process) { ChildState::Over } else { ChildState::Quiet };
        end_group(pid, &[], &Scope::default(), look);
    }
    CommandResult { exit: Exit::Lost, duration: since(began) }
}

/// Starts the command; the file is its output, opened once more for cutting. Else why it could not be started.
fn start(spec: CommandSpec) -> Result<(Child, File), String> {
    let cannot_share =
        |error: io::Error| format!("its output file cannot be opened again: {}", describe_io_error(&error));
    let Some((program, arguments)) = spec.argv.split_first() else {
        return Err("the command is empty".into());
    };
    let output = output::reopen(&spec.output).map_err(cannot_share)?;
    let stdout = spec.output.try_clone().map_err(cannot_share)?;

    let mut command = Command::new(program);
    command.args(arguments).current_dir(&spec.folder).process_group(0);
    command.stdin(spec.stdin.map_or_else(Stdio::null, Stdio::from)).stdout(stdout).stderr(spec.output);
    for name in OURS_ALONE.iter().map(OsStr::new).chain(spec.unset.iter().map(OsString::as_os_str)) {
        command.env_remove(name);
    }
    command.envs(spec.env.iter().map(|(name, value)| (name, value)));
    match command.spawn() {
        Ok(child) => Ok((child, output)),
        Err(error) => Err(why_not_started(&error, program, &spec.folder, path_variable(&spec.env))),
    }
}

/// The `PATH` that a command with this environment set over ours is looked up in.
pub fn path_variable(env: &[(String, String)]) -> Option<OsString> {
    let given = env.iter().rfind(|(name, _)| name == "PATH").map(|(_, value)| value.into());
    given.or_else(|| std::env::var_os("PATH"))
}

/// The kernel says "no such file" of a missing folder and of a missing interpreter too.
fn why_not_started(error: &io::Error, program: &str, folder: &Path, path: Option<OsString>) -> String {
    let wanting = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE];
    if Errno::from_io_error(error).is_some_and(|errno| wanting.contains(&errno)) {
        return format!("cannot start a process: {}", describe_io_error(error));
    }
    let found = find_program(program, folder, path.as_deref());
    match (error.kind(), found) {
        (io::ErrorKind::NotFound, _) if !folder.is_dir() => format!("no such folder: {}", folder.display()),
        (io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied, Err(not_found)) => not_found.to_string(),
        (io::ErrorKind::NotFound, Ok(path)) => format!("no such interpreter: the first line of {}", path.display()),
        _ => format!("{program}: {}", describe_io_error(error)),
    }
}

enum ChildState {
    Over,
    /// It runs and prints so much that the next look should come soon.
    Busy,
    Quiet,
}

/// Looks until it is over or `limit` after `began`, which may become shorter; answers whether it is over.
///
/// Sleeping between looks is crude, but the other ways are worse: a blocking wait has no deadline, a process
/// descriptor needs Linux 5.3, and a SIGCHLD handler that counts children belongs to the whole process.
fn wait(began: Instant, limit: impl Fn() -> Duration, mut look: impl FnMut() -> ChildState) -> bool {
    let (shortest, longest) = PAUSES;
    let mut pause = shortest;
    loop {
        match look() {
            ChildState::Over => return true,
            ChildState::Busy => pause = shortest,
            ChildState::Quiet => {}
        }
        let left = limit().saturating_sub(since(began));
        if left.is_zero() {
            return false;
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(longest);
    }
}

/// Ends a process group and those beside it. SIGCONT lets those that are stopped act on SIGTERM. That a signal finds
/// nobody is no error: the last of them may just have left.
fn end_group(group: Pid, strays: &[Process], scope: &Scope, mut look: impl FnMut() -> ChildState) {
    let send = |signal| {
        let _ = kill_process_group(group, signal);
        strays.iter().for_each(|stray| drop(process::signal(*stray, signal)));
    };
    let grace = || if scope.is_closed() { HURRIED } else { GRACE };
    send(Signal::TERM);
    send(Signal::CONT);
    if wait(clock::monotonic(), grace, &mut look) {
        return;
    }
    send(Signal::KILL);
    wait(clock::monotonic(), grace, look);
}

/// Whether our child has ended. It is not reaped by this: as long as it is not, its number, which is its group's too,
/// cannot be given to another process, and signals to the group cannot hit a stranger.
fn has_ended(pid: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::Pid(pid), options) {
        Ok(status) => status.is_some(),
        Err(Errno::INTR) => false,
        Err(_) => true, // no such child: the kernel reaped it itself, because SIGCHLD is ignored
    }
}

fn reap(mut child: Child) -> Exit {
    match child.try_wait() {
        Ok(Some(status)) => ending(status),
        Ok(None) => {
            // Not even SIGKILL ended it: it hangs in the kernel. Somebody has to wait for it, or it would stay behind
            // as a zombie; without a thread for that it does, until we end. Nobody asks for what comes of it.
            let _ = thread::Builder::new().stack_size(STACK).spawn(move || child.wait());
            Exit::Lost
        }
        Err(_) => Exit::Lost,
    }
}

fn ending(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(126), _) => Exit::NotStarted("exit code 126, a shell's word for not executable".into()),
        (Some(127), _) => Exit::NotStarted("exit code 127, a shell's word for command not found".into()),
        (Some(code), _) => Exit::Exited(code),
        (None, Some(signal)) => Exit::Killed(signal),
        (None, None) => Exit::Lost,
    }
}

fn since(began: Instant) -> Duration {
    clock::monotonic().duration_since(began)
}

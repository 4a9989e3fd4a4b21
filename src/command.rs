//! Runs one command in its own process group, with a timeout and its output in a file, and reports exactly how it
//! ended.
//! It must never signal what a restart command leaves running, wait for the end of the output, or take longer than the
//! timeout plus the ten seconds that ending a stubborn group may need.

mod find;
mod output;
mod runtime_dir;
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

pub use find::{find_program, find_with_interpreter, first_program, shell_quote};
pub use output::{MAX_OUTPUT, REDACTION, create_memory_output, create_output, redact_output, trim_output};
pub use runtime_dir::{RUNTIME_DIR, default_runtime_dir, has_runtime_dir};
pub use scope::Scope;

use scope::ScopeEntry;

/// The time from SIGTERM to SIGKILL, and again from SIGKILL until we stop waiting for what hangs in the kernel.
const GRACE: Duration = Duration::from_secs(5);
/// The same for a command whose scope is closed, because the caller, such as a tick, is about to exit.
const SHORT_GRACE: Duration = Duration::from_secs(1);
/// For threads that only send signals and read `/proc`. In bytes.
const STACK: usize = 64 << 10;
/// How often a command is polled. The interval doubles from the first value, for quick commands, to the second, which
/// costs practically no CPU.
const POLL_INTERVALS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// While a command runs, its output is trimmed as soon as it is longer than this, unless the spec keeps more. Each trim
/// writes up to 48 KiB, so it is worth waiting for a multiple of that.
const TRIM_THRESHOLD: u64 = 1 << 20;
/// Variables that systemd sets for the watchdog only. PM2's daemon would keep them for all that it starts, and a
/// backend that found `JOURNAL_STREAM` might take its own log for the journal.
const SYSTEMD_VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM", "INVOCATION_ID", "SYSTEMD_EXEC_PID"];

#[derive(Debug)]
pub struct CommandSpec {
    /// The program and its arguments. A program with a slash is relative to `folder`; another is searched in the `PATH`
    /// of `env`, or else in our own.
    pub argv: Vec<String>,
    pub folder: PathBuf,
    /// Variables that the command must not inherit from us, or get by default.
    pub unset: Vec<OsString>,
    pub env: Vec<(String, String)>,
    /// The time after which the command's group is ended.
    pub timeout: Duration,
    /// An output of up to this many bytes is kept whole; a longer one is trimmed to its head and tail.
    pub max_output: u64,
    /// The standard input; `None` for `/dev/null`.
    pub stdin: Option<OwnedFd>,
    /// Must be open for appending, or `/dev/null`.
    pub output: File,
    /// Closing it ends the command before its timeout.
    pub scope: Scope,
    /// What happens to the rest of its group after the command has ended by itself.
    pub leftovers: Leftovers,
}

/// What happens to processes that a command leaves running in its group. A daemon, which has a session of its own, is
/// never touched: it may be PM2's daemon, started by one of our queries to PM2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// They keep running: the restarted backend may be one of them.
    Live,
    /// They are ended at the command's timeout. For probes and queries, which have no reason to leave anything running.
    End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandResult {
    pub exit: Exit,
    /// From just before the start until the command, or its group, had ended.
    pub duration: Duration,
}

/// Runs a command to its end. `on_start` is called as soon as the process exists.
///
/// It waits only for the command's own process; [`CommandSpec::leftovers`] decides about the rest of the group. At the
/// timeout, or when the scope is closed, the whole group gets SIGTERM, and SIGKILL if any of it is alive 5 s later.
///
/// A process that inherited an ignored SIGCHLD cannot learn how its children end, and every command would be `Lost`.
/// `signals::listen` resets that, so it must be called first. Each command is reaped by the thread that started it, so
/// that [`process::reap_orphans`] cannot reap it.
pub fn run(spec: CommandSpec, on_start: impl FnOnce(Process)) -> CommandResult {
    let started = clock::monotonic();
    let (timeout, keep, leftovers) = (spec.timeout, spec.max_output, spec.leftovers);
    let not_started = |reason| CommandResult { exit: Exit::NotStarted(reason), duration: since(started) };
    let Some(mut entry) = spec.scope.enter() else {
        return not_started("cancelled before it started".into());
    };
    let (child, output) = match start(spec) {
        Ok(child_and_output) => child_and_output,
        Err(reason) => return not_started(reason),
    };
    let pid = Pid::from_child(&child);
    entry.set_group(pid);
    on_start(process::identify(child.id()));

    // An error is ignored: the next poll tries again, and no decision depends on the output.
    let trim = |limit| output::trim(&output, limit).unwrap_or(0) > 0;
    let poll = || match (has_ended(pid), trim(keep.max(TRIM_THRESHOLD))) {
        (true, _) => Progress::Ended,
        (false, true) => Progress::Printing,
        (false, false) => Progress::Running,
    };
    let limit = || if entry.scope().is_closed() { Duration::ZERO } else { timeout };
    let exit = if wait(started, limit, poll) {
        let exit = entry.reap(|| reap(child));
        output::seal(&output);
        if leftovers == Leftovers::End {
            end_leftovers(pid, started, timeout, entry);
        }
        exit
    } else {
        let outside = if leftovers == Leftovers::End { processes_outside_group(child.id()) } else { Vec::new() };
        let are_all_ended = || process::is_group_empty(child.id()) && !outside.iter().any(|process| is_alive(*process));
        end_group(pid, &outside, entry.scope(), || match poll() {
            Progress::Ended if !are_all_ended() => Progress::Running,
            progress => progress,
        });
        entry.reap(|| reap(child));
        output::seal(&output);
        Exit::TimedOut
    };
    trim(keep);
    CommandResult { exit, duration: since(started) }
}

/// Descendants of a running command in other groups of the same session, such as one that timeout(1) creates. Once the
/// command has ended, nothing links them to it any more.
fn processes_outside_group(command: u32) -> Vec<Process> {
    let Some(own) = process::stat(command) else { return Vec::new() };
    let family = process::process_tree(command).unwrap_or_default().into_iter();
    let is_outside = |stat: &process::Stat| stat.session == own.session && stat.group != command && stat.is_alive();
    let outside = |pid| process::stat(pid).filter(is_outside).map(|stat| Process { pid, started: stat.started });
    family.filter_map(outside).collect()
}

/// Kills a command with all its descendants in the session, or, if it `is_reaped`, what it has left in its group.
fn kill_command(group: Pid, is_reaped: bool) {
    let pid = group.as_raw_nonzero().get().unsigned_abs();
    let outside = if is_reaped { Vec::new() } else { processes_outside_group(pid) };
    if !is_reaped || has_leftovers(group) {
        // An error is ignored, as in `end_group`.
        let _ = kill_process_group(group, Signal::KILL);
    }
    outside.iter().for_each(|process| drop(process::send_signal(*process, Signal::KILL)));
}

/// Ends at the timeout what a reaped command has left in its group.
fn end_leftovers(group: Pid, started: Instant, timeout: Duration, entry: ScopeEntry) {
    if !has_leftovers(group) {
        return;
    }
    let is_crowded = entry.is_crowded();
    let body = move || {
        let poll = || if has_leftovers(group) { Progress::Running } else { Progress::Ended };
        let limit = || if entry.scope().is_closed() { Duration::ZERO } else { timeout };
        if !wait(started, limit, poll) {
            end_group(group, &[], entry.scope(), poll);
        }
    };
    let spawn = || thread::Builder::new().name("leftovers".into()).stack_size(STACK).spawn(body);
    if is_crowded || spawn().is_err() {
        // An error is ignored, as in `end_group`.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Whether any process is left in the group of a reaped command. While one is, the kernel does not reuse the pid; so a
/// process with that pid shows that the group is another one by now.
fn has_leftovers(group: Pid) -> bool {
    let pid = group.as_raw_nonzero().get().unsigned_abs();
    // This call is cheap and usually says no. A yes may be about zombies that nobody reaps, so `/proc` is read then.
    let exists = test_kill_process_group(group) != Err(Errno::SRCH);
    exists && process::stat(pid).is_none() && !process::is_group_empty(pid)
}

/// Waits for a command that an earlier watchdog started, and ends its group if it is still alive after `timeout`.
/// The exit is always `Lost`, because only the parent of a process learns how it ended.
pub fn adopt(process: Process, timeout: Duration) -> CommandResult {
    let started = clock::monotonic();
    let poll = || if is_alive(process) { Progress::Running } else { Progress::Ended };
    if !wait(started, || timeout, poll)
        && let Some(pid) = process::group_led_by(process)
    {
        let poll = || if process::is_group_gone(process) { Progress::Ended } else { Progress::Running };
        end_group(pid, &[], &Scope::default(), poll);
    }
    CommandResult { exit: Exit::Lost, duration: since(started) }
}

/// Starts the command and returns it with its output, opened a second time for trimming.
/// Errors: why it could not be started.
fn start(spec: CommandSpec) -> Result<(Child, File), String> {
    let cannot_reopen = |error: io::Error| format!("cannot reopen its output file: {}", describe_io_error(&error));
    let Some((program, arguments)) = spec.argv.split_first() else {
        return Err("the command is empty".into());
    };
    let output = output::reopen(&spec.output).map_err(cannot_reopen)?;
    let stdout = spec.output.try_clone().map_err(cannot_reopen)?;

    let mut command = Command::new(program);
    command.args(arguments).current_dir(&spec.folder).process_group(0);
    command.stdin(spec.stdin.map_or_else(Stdio::null, Stdio::from)).stdout(stdout).stderr(spec.output);
    for name in SYSTEMD_VARIABLES.iter().map(OsStr::new).chain(spec.unset.iter().map(OsString::as_os_str)) {
        command.env_remove(name);
    }
    command.envs(runtime_dir::missing_variable(&spec.env, &spec.unset));
    command.envs(spec.env.iter().map(|(name, value)| (name, value)));
    match command.spawn() {
        Ok(child) => Ok((child, output)),
        Err(error) => Err(describe_start_error(&error, program, &spec.folder, effective_path(&spec.env))),
    }
}

/// The `PATH` in which a command is searched that gets `env` on top of our own environment.
pub fn effective_path(env: &[(String, String)]) -> Option<OsString> {
    let configured = env.iter().rfind(|(name, _)| name == "PATH").map(|(_, value)| value.into());
    configured.or_else(|| std::env::var_os("PATH"))
}

/// Finds the actual cause, because the kernel also reports a missing folder or interpreter as "no such file".
fn describe_start_error(error: &io::Error, program: &str, folder: &Path, path: Option<OsString>) -> String {
    let shortages = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE];
    if Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno)) {
        return format!("cannot start a process: {}", describe_io_error(error));
    }
    let found = find_program(program, folder, path.as_deref());
    match (error.kind(), found) {
        (io::ErrorKind::NotFound, _) if !folder.is_dir() => format!("no such folder: {}", folder.display()),
        (io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied, Err(not_found)) => not_found.to_string(),
        (io::ErrorKind::NotFound, Ok(path)) => {
            format!("the interpreter in the first line of {} does not exist", path.display())
        }
        _ => format!("{program}: {}", describe_io_error(error)),
    }
}

enum Progress {
    Ended,
    /// It prints so much that the next poll should come soon.
    Printing,
    Running,
}

/// Polls until the command has ended, and returns true, or until `limit` after `started`, and returns false. The limit
/// may become shorter meanwhile.
///
/// Sleeping between polls is crude, but the alternatives are worse: a blocking wait has no timeout, a pidfd needs Linux
/// 5.3, and a SIGCHLD handler is global to the process.
fn wait(started: Instant, limit: impl Fn() -> Duration, mut poll: impl FnMut() -> Progress) -> bool {
    let (shortest, longest) = POLL_INTERVALS;
    let mut interval = shortest;
    loop {
        match poll() {
            Progress::Ended => return true,
            Progress::Printing => interval = shortest,
            Progress::Running => {}
        }
        let remaining = limit().saturating_sub(since(started));
        if remaining.is_zero() {
            return false;
        }
        thread::sleep(interval.min(remaining));
        interval = (interval * 2).min(longest);
    }
}

/// Ends a process group and the given processes outside it. SIGCONT lets stopped processes act on SIGTERM. Errors of
/// the signals are ignored, because the last process may just have ended.
fn end_group(group: Pid, outside: &[Process], scope: &Scope, mut poll: impl FnMut() -> Progress) {
    let send = |signal| {
        let _ = kill_process_group(group, signal);
        outside.iter().for_each(|process| drop(process::send_signal(*process, signal)));
    };
    let grace = || if scope.is_closed() { SHORT_GRACE } else { GRACE };
    send(Signal::TERM);
    send(Signal::CONT);
    if wait(clock::monotonic(), grace, &mut poll) {
        return;
    }
    send(Signal::KILL);
    wait(clock::monotonic(), grace, poll);
}

/// Whether our child has ended. This does not reap it: as long as it is a zombie, the kernel cannot reuse its pid,
/// which is also that of its group, and so a signal to the group cannot hit an unrelated process.
fn has_ended(pid: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::Pid(pid), options) {
        Ok(status) => status.is_some(),
        Err(Errno::INTR) => false,
        Err(_) => true, // no such child: the kernel has reaped it, because SIGCHLD is ignored
    }
}

fn reap(mut child: Child) -> Exit {
    match child.try_wait() {
        Ok(Some(status)) => exit_of(status),
        Ok(None) => {
            // Even SIGKILL did not end it, so it hangs in the kernel. A thread waits for it, so that it does not become
            // a zombie. If no thread can be started, it will be one until the watchdog exits; so that error is ignored.
            let _ = thread::Builder::new().stack_size(STACK).spawn(move || child.wait());
            Exit::Lost
        }
        Err(_) => Exit::Lost,
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(126), _) => Exit::NotStarted("exit code 126 (shell: not executable)".into()),
        (Some(127), _) => Exit::NotStarted("exit code 127 (shell: command not found)".into()),
        (Some(code), _) => Exit::Exited(code),
        (None, Some(signal)) => Exit::Killed(signal),
        (None, None) => Exit::Lost,
    }
}

fn since(start: Instant) -> Duration {
    clock::monotonic().duration_since(start)
}

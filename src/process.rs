//! Reads processes from `/proc` and sends signals to them. It must never confuse a process with an earlier one of the
//! same pid, nor show the contents of an environment.

mod machine;

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, child_subreaper, geteuid, kill_process, pidfd_open, pidfd_send_signal, wait,
};
use serde::{Deserialize, Serialize};

pub use machine::{Machine, ProcessUsage};

use crate::time::BootTime;

#[cfg(test)]
mod tests;

/// `__WNOTHREAD` of wait(2): only children of the calling thread.
const WNOTHREAD: u32 = 0x2000_0000;

/// Identifies one process among all that have or will have its pid during this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// The start time in clock ticks since boot; 0 if it could not be read. A process with 0 counts as dead.
    pub started: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The kernel's letter: `R` running, `S` sleeping, `D` disk wait, `T` stopped, `Z` zombie.
    pub state: u8,
    pub parent: u32,
    pub group: u32,
    pub session: u32,
    /// CPU time used so far, user and system.
    pub cpu: Duration,
    /// The start time in clock ticks since boot.
    pub started: u64,
    /// Resident memory in bytes.
    pub memory: u64,
}

impl Stat {
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// The environment that a process was started with. `Debug` shows nothing of it, because it may hold secrets.
pub struct Environment(Vec<u8>);

impl Environment {
    /// The value of a variable; of several with the same name the first, as in getenv(3).
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        let mut variables = self.0.split(|&byte| byte == 0);
        variables.find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=")).map(OsStr::from_bytes)
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.get(name).is_some_and(|found| found == value)
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

/// The process that has this pid now. It may be a zombie or not exist at all.
pub fn identify(pid: u32) -> Process {
    Process { pid, started: stat(pid).map_or(0, |stat| stat.started) }
}

pub fn identify_living(pid: u32) -> Option<Process> {
    let stat = stat(pid).filter(Stat::is_alive)?;
    Some(Process { pid, started: stat.started })
}

/// Whether the process exists and is no zombie.
pub fn is_alive(process: Process) -> bool {
    identify_living(process.pid) == Some(process)
}

pub fn ticks_to_boot_time(ticks: u64) -> BootTime {
    BootTime::BOOT + ticks_to_duration(ticks)
}

fn ticks_to_duration(ticks: u64) -> Duration {
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_millis(ticks.saturating_mul(1_000) / ticks_per_second)
}

/// The pids of all visible processes.
pub fn pids() -> io::Result<impl Iterator<Item = u32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// The pids of all visible processes of our own user.
pub fn own_pids() -> io::Result<impl Iterator<Item = u32>> {
    Ok(pids()?.filter(|pid| is_ours(*pid)))
}

pub fn owner(pid: u32) -> Option<u32> {
    Some(fs::metadata(format!("/proc/{pid}")).ok()?.uid())
}

pub fn is_ours(pid: u32) -> bool {
    owner(pid) == Some(geteuid().as_raw())
}

/// `None` if there is no such process, or its environment is not readable for us.
pub fn environment(pid: u32) -> Option<Environment> {
    read_proc(pid, "environ").ok().map(Environment)
}

/// The command line on one line, or the title that the process has set instead; empty for a zombie.
pub fn command_line(pid: u32) -> Option<String> {
    let mut bytes = read_proc(pid, "cmdline").ok()?;
    let length = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(length);
    bytes.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The process and all its descendants. A process whose parent has ended is no longer found as a descendant.
pub fn process_tree(pid: u32) -> io::Result<Vec<u32>> {
    let mut others: Vec<(u32, u32)> = pids()?.filter_map(|pid| Some((pid, stat(pid)?.parent))).collect();
    let mut tree = vec![pid];
    let mut next = 0;
    while let Some(&parent) = tree.get(next) {
        tree.extend(others.extract_if(.., |(_, of)| *of == parent).map(|(child, _)| child));
        next += 1;
    }
    Ok(tree)
}

/// The parent of a process, then that one's parent, and so on up to process 1.
pub fn ancestors(pid: u32) -> impl Iterator<Item = u32> {
    let parent = |pid: &u32| stat(*pid).map(|stat| stat.parent).filter(|parent| *parent > 0);
    std::iter::successors(parent(&pid), parent)
}

/// The living command that was started with all of these variables: the oldest process with them that leads a group but
/// no session. The command's children inherit the variables, but they are in its group or, as daemons, lead a session.
pub fn find_by_environment(variables: &[(String, String)]) -> Option<Process> {
    oldest_command(|pid| {
        environment(pid).is_some_and(|found| variables.iter().all(|(name, value)| found.has(name, value)))
    })
}

/// The living command of our user whose standard output is this file: the oldest such process that leads a group but no
/// session. For commands that get none of our variables.
pub fn find_by_output(path: &Path) -> Option<Process> {
    let expected = fs::metadata(path).ok()?;
    oldest_command(|pid| {
        let output = format!("/proc/{pid}/fd/1");
        // The name comes first, because it needs no access to the file: one on a dead network drive would block us.
        let is_named = fs::read_link(&output).is_ok_and(|target| target.file_name() == path.file_name());
        let is_same = |found: fs::Metadata| (found.dev(), found.ino()) == (expected.dev(), expected.ino());
        is_named && is_ours(pid) && fs::metadata(&output).is_ok_and(is_same)
    })
}

fn oldest_command(matches: impl Fn(u32) -> bool) -> Option<Process> {
    let command = |pid: u32| {
        let stat = stat(pid).filter(|stat| stat.is_alive() && stat.group == pid && stat.session != pid)?;
        matches(pid).then_some(Process { pid, started: stat.started })
    };
    pids().ok()?.filter_map(command).min_by_key(|process| process.started)
}

/// Sends a signal to exactly this process, never to a later one with its pid. Returns whether the process was alive to
/// receive it. Pids up to 1 are never signalled.
/// Errors: as of kill(2), such as a process of another user.
pub fn send_signal(process: Process, signal: Signal) -> io::Result<bool> {
    let Some(pid) = i32::try_from(process.pid).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw) else {
        return Ok(false);
    };
    let sent = match pidfd_open(pid, PidfdFlags::empty()) {
        // From here on the descriptor stands for one process, so checking which one it is cannot race.
        Ok(_) if !is_alive(process) => return Ok(false),
        Ok(descriptor) => pidfd_send_signal(descriptor, signal),
        // Kernels before 5.3 have no pidfds, and old containers forbid them.
        Err(Errno::NOSYS | Errno::PERM) if is_alive(process) => kill_process(pid, signal),
        Err(Errno::NOSYS | Errno::PERM) => return Ok(false),
        Err(error) => Err(error),
    };
    match sent {
        Ok(()) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Stops exactly this process (SIGSTOP), until [`resume`]. Returns and fails as [`send_signal`] does.
pub fn suspend(process: Process) -> io::Result<bool> {
    send_signal(process, Signal::STOP)
}

pub fn resume(process: Process) -> io::Result<bool> {
    send_signal(process, Signal::CONT)
}

/// Whether orphaned processes become our children: if we are process 1 of a container, or a child subreaper because the
/// program that executed us made this process one.
pub fn inherits_orphans() -> bool {
    std::process::id() == 1 || child_subreaper().is_ok_and(|subreaper| subreaper.is_some())
}

/// Reaps the orphans that have ended; otherwise each would occupy its pid forever. Only the main thread may call it:
/// the kernel gives orphans to that thread, while our commands are children of the threads that started them, and only
/// those may reap them.
pub fn reap_orphans() {
    let options = WaitOptions::NOHANG | WaitOptions::from_bits_retain(WNOTHREAD);
    while let Ok(Some(_)) = wait(options) {}
}

/// The process group that `process` leads, for sending signals; `None` unless it is alive and leads one, as each
/// command does.
pub fn group_led_by(process: Process) -> Option<Pid> {
    let stat = stat(process.pid).filter(|stat| stat.started == process.started && stat.is_alive())?;
    // Signalling "group 1" would mean every process there is.
    let leads = stat.group == process.pid && process.pid > 1;
    Pid::from_raw(i32::try_from(process.pid).ok()?).filter(|_| leads)
}

/// Whether no process is left of the group that `process` led. While a group outlives its leader, the kernel does not
/// reuse the pid. So if another process has the pid, the group is gone.
pub fn is_group_gone(process: Process) -> bool {
    match stat(process.pid) {
        Some(stat) if stat.started != process.started => true,
        _ => is_group_empty(process.pid),
    }
}

/// Whether no process of this group is alive; false if that cannot be determined.
pub fn is_group_empty(group: u32) -> bool {
    let Ok(pids) = pids() else { return false };
    !pids.filter_map(stat).any(|stat| stat.group == group && stat.is_alive())
}

/// Reads `/proc/PID/stat`, of a zombie too; `None` if there is no such process.
pub fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&read_proc(pid, "stat").ok()?)
}

/// How long the main thread of this process has waited on a run queue so far, from the second field of
/// `/proc/PID/schedstat`; `None` if there is no such process or the kernel does not count it.
pub fn run_queue_wait(pid: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// Reads a file of `/proc`. Such files report no size, so [`fs::read`] would start with 32 bytes; most fit into 4 KiB
/// and are read with one call.
fn read_proc(pid: u32, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4 << 10);
    File::open(format!("/proc/{pid}/{name}"))?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Fields 3 to 6, 14, 15, 22 and 24 of proc(5). Field 2, the program's name, may contain spaces and parentheses, so
/// fields are counted from the last parenthesis.
fn parse_stat(stat: &[u8]) -> Option<Stat> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    let user: u64 = fields.nth(7)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let started = fields.nth(6)?.parse().ok()?;
    let pages: u64 = fields.nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let memory = pages.saturating_mul(rustix::param::page_size() as u64);
    Some(Stat { state, parent, group, session, cpu: ticks_to_duration(user.saturating_add(system)), started, memory })
}

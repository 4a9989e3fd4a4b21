//! Processes as `/proc` shows them, and signals to them. It must never take one process for another that had its number
//! before, and never show what stands in an environment.

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

pub use machine::{Machine, Program};

use crate::time::BootTime;

#[cfg(test)]
mod tests;

/// `__WNOTHREAD` of wait(2): only children of the thread that asks.
const WNOTHREAD: u32 = 0x2000_0000;

/// One process, told from all others that have had or will have its number during this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// When it was started, in the kernel's ticks since boot; 0 when that could not be read, and then it is taken to
    /// be dead by whoever asks later.
    pub started: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The kernel's letter for it: `R` runs, `S` sleeps, `D` is in disk wait, `T` is stopped, `Z` is a zombie.
    pub state: u8,
    pub parent: u32,
    pub group: u32,
    pub session: u32,
    /// The processor time that it has used so far, its own and the kernel's for it.
    pub cpu: Duration,
    /// When it was started, in the kernel's ticks since boot.
    pub started: u64,
    /// The memory that it takes, in bytes.
    pub memory: u64,
}

impl Stat {
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// The variables that a process was started with. They hold secrets, so its `Debug` shows none.
pub struct Environment(Vec<u8>);

impl Environment {
    /// The value of a variable; the first one where there are several, as getenv(3) has it.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        let mut variables = self.0.split(|&byte| byte == 0);
        variables.find_map(|one| one.strip_prefix(name.as_bytes())?.strip_prefix(b"=")).map(OsStr::from_bytes)
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

/// The process that has this number now, dead or alive.
pub fn identify(pid: u32) -> Process {
    Process { pid, started: stat(pid).map_or(0, |stat| stat.started) }
}

pub fn living(pid: u32) -> Option<Process> {
    let stat = stat(pid).filter(Stat::is_alive)?;
    Some(Process { pid, started: stat.started })
}

/// Whether the process runs, sleeps, or is stopped. A zombie is dead.
pub fn is_alive(process: Process) -> bool {
    living(process.pid) == Some(process)
}

/// The point in time that is this many of the kernel's ticks after boot.
pub fn since_boot(ticks: u64) -> BootTime {
    BootTime::BOOT + span(ticks)
}

fn span(ticks: u64) -> Duration {
    let a_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_millis(ticks.saturating_mul(1_000) / a_second)
}

/// The numbers of all processes that may be seen.
pub fn pids() -> io::Result<impl Iterator<Item = u32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// The numbers of all processes that may be seen and act for our own account.
pub fn own_pids() -> io::Result<impl Iterator<Item = u32>> {
    Ok(pids()?.filter(|pid| is_ours(*pid)))
}

pub fn owner(pid: u32) -> Option<u32> {
    Some(fs::metadata(format!("/proc/{pid}")).ok()?.uid())
}

pub fn is_ours(pid: u32) -> bool {
    owner(pid) == Some(geteuid().as_raw())
}

/// The variables that a process was started with; none when it is gone or they are not for us to see.
pub fn environment(pid: u32) -> Option<Environment> {
    read(pid, "environ").ok().map(Environment)
}

/// The command line of a process, or what it calls itself instead, on one line; empty for a zombie.
pub fn title(pid: u32) -> Option<String> {
    let mut bytes = read(pid, "cmdline").ok()?;
    let length = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(length);
    bytes.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A process and all whose parents lead to it, as far as these are alive.
pub fn family(pid: u32) -> io::Result<Vec<u32>> {
    let mut strangers: Vec<(u32, u32)> = pids()?.filter_map(|pid| Some((pid, stat(pid)?.parent))).collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(strangers.extract_if(.., |(_, of)| *of == parent).map(|(child, _)| child));
        next += 1;
    }
    Ok(family)
}

/// The parent of a process, its parent, and so on to the first process of all.
pub fn ancestors(pid: u32) -> impl Iterator<Item = u32> {
    let parent = |pid: &u32| stat(*pid).map(|stat| stat.parent).filter(|parent| *parent > 0);
    std::iter::successors(parent(&pid), parent)
}

/// The command that was started with all of these variables, if it is alive: of those that have them the oldest that
/// leads a group but no session. What a command inherits them to is either in its group or, as a daemon, in a session
/// of its own.
pub fn find(variables: &[(String, String)]) -> Option<Process> {
    oldest_command(|pid| {
        let found = environment(pid);
        found.is_some_and(|found| variables.iter().all(|(name, value)| found.has(name, value)))
    })
}

/// The command of ours that writes its standard output to this file, if it is alive; chosen as [`find`] does. For
/// commands that carry no variable of ours.
pub fn find_by_output(path: &Path) -> Option<Process> {
    let wanted = fs::metadata(path).ok()?;
    oldest_command(|pid| {
        let output = format!("/proc/{pid}/fd/1");
        // The name first, which costs no access to the file: one on a dead network drive would hang us.
        let is_named = fs::read_link(&output).is_ok_and(|target| target.file_name() == path.file_name());
        let is_same = |found: fs::Metadata| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino());
        is_named && is_ours(pid) && fs::metadata(&output).is_ok_and(is_same)
    })
}

fn oldest_command(is_meant: impl Fn(u32) -> bool) -> Option<Process> {
    let command = |pid: u32| {
        let stat = stat(pid).filter(|stat| stat.is_alive() && stat.group == pid && stat.session != pid)?;
        is_meant(pid).then_some(Process { pid, started: stat.started })
    };
    pids().ok()?.filter_map(command).min_by_key(|process| process.started)
}

/// Sends a signal to this very process, and to none that has its number after it. Answers whether it was there to be
/// signalled. Number 1 and below are nobody's to signal.
/// Errors: what the system says to it, such as that it is not ours.
pub fn signal(process: Process, signal: Signal) -> io::Result<bool> {
    let Some(pid) = i32::try_from(process.pid).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw) else {
        return Ok(false);
    };
    let sent = match pidfd_open(pid, PidfdFlags::empty()) {
        // The descriptor holds on to one process; only then is it worth asking which one that is.
        Ok(_) if !is_alive(process) => return Ok(false),
        Ok(descriptor) => pidfd_send_signal(descriptor, signal),
        // Kernels before 5.3 have no such descriptors, and old containers forbid them.
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

/// Whether processes whose parents have ended become children of ours: in a container, where we are its process 1, or
/// where whoever became us has asked for it.
pub fn inherits_orphans() -> bool {
    std::process::id() == 1 || child_subreaper().is_ok_and(|asked| asked.is_some())
}

/// Reaps the orphans that have ended; each would take up a number for ever. To be called by the main thread: the kernel
/// hands orphans to that one, and commands of ours are children of the thread that has started them, which alone may
/// learn how they ended.
pub fn reap_orphans() {
    let options = WaitOptions::NOHANG | WaitOptions::from_bits_retain(WNOTHREAD);
    while let Ok(Some(_)) = wait(options) {}
}

/// The number to signal `process` and its group by; none unless it is alive and leads a group, as each command does.
pub fn leader(process: Process) -> Option<Pid> {
    let stat = stat(process.pid).filter(|stat| stat.started == process.started && stat.is_alive())?;
    // A kill of "group 1" would mean every process there is.
    let leads = stat.group == process.pid && process.pid > 1;
    Pid::from_raw(i32::try_from(process.pid).ok()?).filter(|_| leads)
}

/// Whether `process` and all others of the group it led are gone. A group outlives its leader, and while it does the
/// number is not given away; so if another process has the number, the group is gone.
pub fn group_is_over(process: Process) -> bool {
    match stat(process.pid) {
        Some(stat) if stat.started != process.started => true,
        _ => group_is_empty(process.pid),
    }
}

/// Whether nobody in this process group is alive; no when that cannot be known.
pub fn group_is_empty(group: u32) -> bool {
    let Ok(pids) = pids() else { return false };
    !pids.filter_map(stat).any(|stat| stat.group == group && stat.is_alive())
}

/// What `/proc` says of the process of this number, dead or alive; none when there is none.
pub fn stat(pid: u32) -> Option<Stat> {
    parse(&read(pid, "stat").ok()?)
}

/// How long the first thread of this process has waited so far for a processor that others had, by the second field of
/// `/proc/PID/schedstat`; none where there is no such process, or the kernel does not count it.
pub fn queued(pid: u32) -> Option<Duration> {
    let counted = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    counted.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// A file of `/proc`, whose size the system does not say beforehand: most are read at once with so much room, where
/// [`fs::read`] begins with 32 bytes.
fn read(pid: u32, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4 << 10);
    File::open(format!("/proc/{pid}/{name}"))?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Fields 3 to 6, 14, 15, 22 and 24 of proc(5). Field 2, the program's name, may hold spaces and parentheses, so
/// counting starts after the last one.
fn parse(stat: &[u8]) -> Option<Stat> {
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
    Some(Stat { state, parent, group, session, cpu: span(user.saturating_add(system)), started, memory })
}

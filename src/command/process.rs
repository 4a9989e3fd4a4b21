//! Processes as `/proc` shows them. It must never take one process for another that had its number before.

use std::fs;
use std::io;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

/// One process, told from all others that have had or will have its number during this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it was started, in the kernel's ticks since boot; 0 when that could not be read, and then it is taken to
    /// be dead by whoever asks later.
    pub started: u64,
}

/// Whether the process runs, sleeps, or is stopped. A zombie is dead.
pub fn is_alive(process: Process) -> bool {
    read(process.pid).is_some_and(|stat| stat.started == process.started && stat.is_alive())
}

/// The command that was started with all of these variables, if it is alive: of those that have them the oldest that
/// leads a group but no session. What a command inherits them to is either in its group or, as a daemon, in a session
/// of its own.
pub fn find(variables: &[(String, String)]) -> Option<Process> {
    let wanted: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let has_all = |pid: u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let has = |one: &String| environment.split(|&byte| byte == 0).any(|variable| variable == one.as_bytes());
        wanted.iter().all(has)
    };
    let command = |pid: u32| {
        let stat = read(pid).filter(|stat| stat.is_alive() && stat.group == pid && stat.session != pid)?;
        has_all(pid).then_some(Process { pid, started: stat.started })
    };
    pids().ok()?.filter_map(command).min_by_key(|process| process.started)
}

/// The process that has this number now.
pub(super) fn identify(pid: u32) -> Process {
    Process { pid, started: read(pid).map_or(0, |stat| stat.started) }
}

/// The number to signal `process` and its group by; none unless it is alive and leads a group, as each command does.
pub(super) fn leader(process: Process) -> Option<Pid> {
    let stat = read(process.pid).filter(|stat| stat.started == process.started && stat.is_alive())?;
    // A kill of "group 1" would mean every process there is.
    let leads = stat.group == process.pid && process.pid > 1;
    Pid::from_raw(i32::try_from(process.pid).ok()?).filter(|_| leads)
}

/// Whether `process` and all others of the group it led are gone. A group outlives its leader, and while it does the
/// number is not given away; so if another process has the number, the group is gone.
pub(super) fn group_is_over(process: Process) -> bool {
    match read(process.pid) {
        Some(stat) if stat.started != process.started => true,
        _ => group_is_empty(process.pid),
    }
}

/// Whether nobody in this process group is alive; no when that cannot be known.
pub(super) fn group_is_empty(group: u32) -> bool {
    let Ok(pids) = pids() else { return false };
    !pids.filter_map(read).any(|stat| stat.group == group && stat.is_alive())
}

/// The numbers of all processes that may be seen.
fn pids() -> io::Result<impl Iterator<Item = u32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: u8,
    group: u32,
    session: u32,
    started: u64,
}

impl Stat {
    fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

fn read(pid: u32) -> Option<Stat> {
    parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 3, 5, 6 and 22 of proc(5). Field 2, the program's name, may hold spaces and parentheses, so counting starts
/// after the last one.
fn parse(stat: &[u8]) -> Option<Stat> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let group = fields.nth(1)?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    let started = fields.nth(15)?.parse().ok()?;
    Some(Stat { state, group, session, started })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stat: &[u8], expected: Option<(u8, u32, u32, u64)>) {
        let expected = expected.map(|(state, group, session, started)| Stat { state, group, session, started });
        assert_eq!(parse(stat), expected, "{}", String::from_utf8_lossy(stat));
    }

    #[test]
    fn stat_is_read_whatever_the_program_is_called() {
        let rest = b" S 1 77 70 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 200";
        let named = |name: &[u8]| [b"80 (".as_slice(), name, b")", rest].concat();
        check(&named(b"sh"), Some((b'S', 77, 70, 987_654)));
        check(&named(b"a) R 9 9 9 (b"), Some((b'S', 77, 70, 987_654)));
        check(&named(b"\xff \n"), Some((b'S', 77, 70, 987_654)));
        check(b"80 (sh) Z 1 80 80 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 5\n", Some((b'Z', 80, 80, 5)));
        check(b"80 (sh) S 1 77", None);
        check(b"80 sh S 1 77", None);
        check(b"", None);
    }

    #[test]
    fn a_process_is_known_by_number_and_start() {
        let me = identify(std::process::id());
        assert!(me.started > 0);
        assert!(is_alive(me));
        assert!(!is_alive(Process { started: me.started + 1, ..me }));
        assert!(group_is_over(Process { started: me.started + 1, ..me }));
        assert!(!is_alive(Process { pid: u32::MAX, started: 0 }));
        assert_eq!(leader(identify(1)), None);
    }

    #[test]
    fn identity_survives_being_stored() {
        let process = Process { pid: 3_120, started: 987_654 };
        let text = serde_json::to_string(&process).expect("two numbers");
        assert_eq!(text, r#"{"pid":3120,"started":987654}"#);
        assert_eq!(serde_json::from_str::<Process>(&text).expect("what was written"), process);
    }
}

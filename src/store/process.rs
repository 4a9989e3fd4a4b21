//! What /proc says of a process: whether it is still the one that was meant, and which files it holds open.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use super::files::Inode;

/// When the process began, in clock ticks after boot; `None` when there is none of this id, or only its remains.
/// Together with the id it tells one process from all others of this boot.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 3 (state) and 22 (start time). The second is a name in brackets that may itself have brackets and spaces.
fn parse_stat(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    match state {
        "Z" | "X" | "x" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

/// The account that the process acts for.
pub(super) fn owner(pid: u32) -> Option<u32> {
    Some(fs::metadata(format!("/proc/{pid}")).ok()?.uid())
}

/// The open files of a process whose names pass `wanted`; none when it is gone.
pub(super) fn open_files(pid: u32, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<Inode>> {
    let mut found = Vec::new();
    let listed = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(found),
        listed => listed?,
    };
    for entry in listed {
        let Ok(entry) = entry else { continue };
        // The name first, which costs no access to the file: a file on a dead network drive would hang us.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy();
        let target = target.strip_suffix(" (deleted)").unwrap_or(&target);
        if wanted(target.rsplit('/').next().unwrap_or(target))
            && let Ok(metadata) = fs::metadata(entry.path())
        {
            found.push(Inode::of(&metadata));
        }
    }
    Ok(found)
}

/// The ids of all processes that may be seen.
pub(super) fn all() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stat: &str, expected: Option<u64>) {
        assert_eq!(parse_stat(stat), expected, "{stat}");
    }

    #[test]
    fn start_times_are_found_whatever_the_name() {
        let rest = "1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        check(&format!("7 (watchdog) S {rest}"), Some(4711));
        check(&format!("7 (a) b (c) R {rest}"), Some(4711));
        check(&format!("7 (watchdog) Z {rest}"), None);
        check("7 (watchdog) S 1 1", None);
        check("", None);
        assert!(start_time(std::process::id()).is_some());
    }
}

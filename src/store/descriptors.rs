//! Finds out which of the store's files a process has open.
//! It must never access a file whose name was not asked for.

use std::fs;
use std::io;

use super::files::Inode;

/// The open files of a process whose names satisfy `wanted`; empty if the process has exited.
pub(super) fn open_files(pid: u32, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<Inode>> {
    let mut found = Vec::new();
    let listed = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(found),
        listed => listed?,
    };
    for entry in listed {
        let Ok(entry) = entry else { continue };
        // Reading the link does not access the file: a file on an unreachable network drive would hang the watchdog.
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

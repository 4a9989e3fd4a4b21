//! Which of the store's files a process holds open. It must never touch a file before its name is one that was meant.

use std::fs;
use std::io;

use super::files::Inode;

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

//! What a process takes of the machine, as proc(5) has it.

use std::fs;

/// Memory in KiB, threads, open files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Takes {
    /// All that is resident.
    pub(crate) rss: u64,
    /// What of it is no page of a file.
    pub(crate) own: u64,
    pub(crate) threads: u64,
    pub(crate) files: u64,
}

impl Takes {
    /// What a live process takes now.
    pub(crate) fn of(pid: i32) -> Takes {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of proc(5)");
            line.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
        };
        let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count() as u64;
        Takes { rss: number("VmRSS:"), own: number("RssAnon:"), threads: number("Threads:"), files }
    }
}

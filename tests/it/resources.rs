//! Resource usage of a process, as proc(5) reports it.

use std::fs;

/// Memory is in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResourceUsage {
    /// All resident memory.
    pub(crate) rss: u64,
    /// The resident memory that is not backed by a file.
    pub(crate) anon: u64,
    pub(crate) threads: u64,
    pub(crate) files: u64,
}

impl ResourceUsage {
    pub(crate) fn of(pid: i32) -> ResourceUsage {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is alive");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of proc(5)");
            line.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
        };
        let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is alive").count() as u64;
        ResourceUsage { rss: number("VmRSS:"), anon: number("RssAnon:"), threads: number("Threads:"), files }
    }
}

//! Takes a snapshot of the machine: load, memory, disk, and the largest of our own processes; what cannot be read is
//! left out. It must never show a command line, which may contain secrets.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Process, Stat, identify_living, own_pids, stat, ticks_to_boot_time};
use crate::time::BootTime;

/// The time between the two reads that a share of the CPU is computed from.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);
const MAX_PROCESSES: usize = 10;

/// Sizes are in bytes; memory and swap are 0 if unknown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// The load averages of the last 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    pub cores: usize,
    pub memory_total: u64,
    pub memory_available: u64,
    pub swap_total: u64,
    pub swap_free: u64,
    pub disk_total: u64,
    /// The space that is available to our user.
    pub disk_free: u64,
    /// The largest of our own processes, largest first.
    pub processes: Vec<ProcessUsage>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessUsage {
    pub pid: u32,
    /// From `/proc/PID/comm`: at most 15 bytes, which may be any bytes.
    pub name: String,
    pub memory: u64,
    /// In percent of one core.
    pub cpu_percent: u64,
    /// The state letter of `/proc/PID/stat`.
    pub state: String,
    pub up_s: u64,
}

impl Machine {
    /// Reads the machine's state and that of the disk with `folder`. It takes a quarter of a second.
    pub fn read(folder: &Path, now: BootTime) -> Machine {
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let size = |name: &str| meminfo(&memory, name).unwrap_or(0);
        let disk = rustix::fs::statvfs(folder).ok();
        let disk = disk.map_or((0, 0), |disk| {
            (disk.f_blocks.saturating_mul(disk.f_frsize), disk.f_bavail.saturating_mul(disk.f_frsize))
        });
        Machine {
            load: fs::read_to_string("/proc/loadavg").ok().and_then(|text| load_averages(&text)),
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory_total: size("MemTotal"),
            memory_available: size("MemAvailable"),
            swap_total: size("SwapTotal"),
            swap_free: size("SwapFree"),
            disk_total: disk.0,
            disk_free: disk.1,
            processes: largest_processes(now),
        }
    }
}

fn largest_processes(now: BootTime) -> Vec<ProcessUsage> {
    let Ok(pids) = own_pids() else { return Vec::new() };
    let before: Vec<(Process, Stat)> =
        pids.filter_map(identify_living).filter_map(|process| Some((process, stat(process.pid)?))).collect();
    let started = crate::clock::monotonic();
    thread::sleep(SAMPLE_INTERVAL);
    let elapsed_ms = crate::clock::monotonic().duration_since(started).as_millis().max(1);
    let program = |(process, before): (Process, Stat)| {
        let after = stat(process.pid).filter(|after| after.started == process.started)?;
        let used_ms = after.cpu.saturating_sub(before.cpu).as_millis();
        let name = fs::read(format!("/proc/{}/comm", process.pid)).unwrap_or_default();
        Some(ProcessUsage {
            pid: process.pid,
            name: String::from_utf8_lossy(&name).trim_end().to_owned(),
            memory: after.memory,
            cpu_percent: u64::try_from(used_ms.saturating_mul(100) / elapsed_ms).unwrap_or(u64::MAX),
            state: char::from(after.state).to_string(),
            up_s: now.since(ticks_to_boot_time(process.started)).as_secs(),
        })
    };
    let mut programs: Vec<ProcessUsage> = before.into_iter().filter_map(program).collect();
    // Kernel threads have no memory.
    programs.retain(|program| program.memory > 0);
    programs.sort_by(|a, b| (b.memory, a.pid).cmp(&(a.memory, b.pid)));
    // The busiest of the others, if it uses half a core or more, replaces the smallest of the large ones.
    let busy = programs.iter().skip(MAX_PROCESSES).filter(|program| program.cpu_percent >= 50);
    let busiest = busy.max_by_key(|program| program.cpu_percent).cloned();
    programs.truncate(MAX_PROCESSES);
    if let Some(busiest) = busiest {
        programs.truncate(MAX_PROCESSES - 1);
        programs.push(busiest);
    }
    programs
}

/// One value of `/proc/meminfo`, in bytes.
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

fn load_averages(text: &str) -> Option<[f64; 3]> {
    let mut words = text.split_ascii_whitespace().map(|word| word.parse::<f64>().ok());
    Some([words.next()??, words.next()??, words.next()??])
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn meminfo_and_loadavg_are_parsed() {
        let text = "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    250 kB\nSwapTotal:         0 kB\n";
        assert_eq!(meminfo(text, "MemTotal"), Some(1_024_000));
        assert_eq!(meminfo(text, "MemAvailable"), Some(256_000));
        assert_eq!((meminfo(text, "SwapTotal"), meminfo(text, "SwapFree")), (Some(0), None));
        assert_eq!(load_averages("0.52 1.20 0.01 3/512 4821\n"), Some([0.52, 1.2, 0.01]));
        assert_eq!(load_averages("?"), None);
    }

    #[test]
    fn this_machine_is_read() {
        let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("a shell");
        let machine = Machine::read(Path::new("/"), crate::clock::now());
        let found = machine.processes.iter().find(|program| program.pid == busy.id()).cloned();
        busy.kill().expect("our own child");
        busy.wait().expect("it was started");
        assert!(machine.load.is_some() && machine.cores > 0, "{machine:?}");
        assert!(machine.memory_total > machine.memory_available && machine.memory_available > 0, "{machine:?}");
        assert!(machine.disk_total > machine.disk_free, "{machine:?}");
        assert!((1..=MAX_PROCESSES).contains(&machine.processes.len()), "{machine:?}");
        // On a busy machine the loop may get less than half a core, and is then missing from the list.
        assert!(found.is_none_or(|found| found.name == "sh" && found.memory > 0), "{machine:?}");
    }
}

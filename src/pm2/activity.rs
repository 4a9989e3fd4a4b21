//! Measures what the processes of one name are doing, from two reads of `/proc`. It must never delay a repair by more
//! than a fraction of a second.

use std::collections::BTreeSet;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use crate::clock;
use crate::process::{self, Process};

use super::Home;

/// The least time between the two reads. The kernel counts CPU time in 10 ms ticks, so this resolves 4 % of a core.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    pub pid: u32,
    /// CPU time used, in percent of one core.
    pub cpu_percent: u64,
    /// Time spent ready to run but waiting for a core, in percent; 0 if the kernel does not count it.
    pub waiting_percent: u64,
    /// The state letter from `/proc/PID/stat`.
    pub state: char,
}

impl fmt::Display for Activity {
    /// For example `its process (pid 4821) used 99 % of a core: busy in a loop, not waiting`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Activity { pid, cpu_percent, waiting_percent, state } = *self;
        let meaning = match (state, cpu_percent.saturating_add(waiting_percent)) {
            ('T' | 't', _) => "stopped by a signal",
            ('D', _) => "in disk wait",
            ('R', 50..) | (_, 90..) => "busy in a loop, not waiting",
            (_, 0..=5) => "waiting",
            _ => "working",
        };
        write!(f, "its process (pid {pid}) used {cpu_percent} % of a core: {meaning}")?;
        if waiting_percent > 10 {
            write!(f, "; it waited for a free core {waiting_percent} % of the time")
        } else {
            Ok(())
        }
    }
}

pub(super) struct Measurement {
    started_at: Instant,
    before: Vec<(Process, CpuTimes)>,
}

impl Home {
    /// What the busiest process of this name is doing. Child processes count too (with `npm start` they do the work),
    /// and so does every worker of a cluster. Takes a quarter of a second. `None` if no such process is alive or
    /// `/proc` cannot be read.
    pub fn activity(&self, name: &str) -> Option<Activity> {
        self.measure_activity(name).finish()
    }

    /// Takes the first of the two reads, so that the caller can do other work in between.
    pub(super) fn measure_activity(&self, name: &str) -> Measurement {
        let known = self.observe_process(name, None, &self.observe_daemon()).living;
        let family = known.iter().filter_map(|(process, _)| process::process_tree(process.pid).ok()).flatten();
        let family: BTreeSet<u32> = family.collect();
        let is_included =
            |pid: &u32| family.contains(pid) || self.read_marks(*pid).iter().any(|mark| mark.name == name);
        let pids = process::own_pids().into_iter().flatten().filter(is_included);
        let before =
            pids.filter_map(process::identify_living).filter_map(|one| Some((one, read_times(one)?))).collect();
        Measurement { started_at: clock::monotonic(), before }
    }
}

impl Measurement {
    /// Takes the second read, at least a quarter of a second after the first.
    pub(super) fn finish(self) -> Option<Activity> {
        if self.before.is_empty() {
            return None;
        }
        thread::sleep(MIN_INTERVAL.saturating_sub(clock::monotonic().duration_since(self.started_at)));
        let span = clock::monotonic().duration_since(self.started_at).as_millis().max(1);
        let percent = |before: Duration, after: Duration| {
            let times = after.saturating_sub(before).as_millis();
            u64::try_from(times.saturating_mul(100) / span).unwrap_or(u64::MAX)
        };
        let activity = |(process, before): (Process, CpuTimes)| {
            let after = read_times(process)?;
            let cpu_percent = percent(before.used, after.used);
            let waiting_percent = percent(before.waiting, after.waiting).min(100);
            Some(Activity { pid: process.pid, cpu_percent, waiting_percent, state: char::from(after.state) })
        };
        // Among idle processes, prefer one that is blocked: in disk wait, or stopped.
        self.before.into_iter().filter_map(activity).max_by_key(|one| (one.cpu_percent, "DT".contains(one.state)))
    }
}

struct CpuTimes {
    used: Duration,
    waiting: Duration,
    state: u8,
}

fn read_times(process: Process) -> Option<CpuTimes> {
    let stat = process::stat(process.pid).filter(|stat| stat.started == process.started)?;
    let waiting = process::run_queue_wait(process.pid).unwrap_or_default();
    Some(CpuTimes { used: stat.cpu, waiting, state: stat.state })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_activity_is_described_by_cpu_share_and_state() {
        #[track_caller]
        fn check(cpu_percent: u64, waiting_percent: u64, state: char, expected: &str) {
            let shown = Activity { pid: 4821, cpu_percent, waiting_percent, state }.to_string();
            assert_eq!(shown, format!("its process (pid 4821) used {expected}"));
        }
        check(60, 0, 'R', "60 % of a core: busy in a loop, not waiting");
        check(99, 0, 'S', "99 % of a core: busy in a loop, not waiting");
        check(30, 65, 'R', "30 % of a core: busy in a loop, not waiting; it waited for a free core 65 % of the time");
        check(0, 0, 'S', "0 % of a core: waiting");
        check(0, 0, 'D', "0 % of a core: in disk wait");
        check(0, 0, 'T', "0 % of a core: stopped by a signal");
        check(40, 3, 'S', "40 % of a core: working");
    }
}

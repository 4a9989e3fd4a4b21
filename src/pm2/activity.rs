//! What the processes of a name are doing, from two reads of `/proc`. It must be quick: what it is to show, a restart
//! ends.

use std::collections::BTreeSet;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use crate::clock;
use crate::process::{self, Process};

use super::Home;

/// Between the two reads, at the least. CPU time is counted in hundredths of a second, so this tells 4 %.
const BETWEEN: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    pub pid: u32,
    /// The CPU time that it used, in percent of one core.
    pub share: u64,
    /// The time that it waited for a core that others had, in percent; nothing where the kernel does not count it.
    pub queued: u64,
    /// The letter that `/proc` has for its state.
    pub state: char,
}

impl fmt::Display for Activity {
    /// As people read it: `its process (pid 4821) used 99 % of a core: busy in a loop, not waiting`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Activity { pid, share, queued, state } = *self;
        let meaning = match (state, share.saturating_add(queued)) {
            ('T' | 't', _) => "stopped by a signal",
            ('D', _) => "in disk wait",
            ('R', 50..) | (_, 90..) => "busy in a loop, not waiting",
            (_, 0..=5) => "waiting",
            _ => "working",
        };
        write!(f, "its process (pid {pid}) used {share} % of a core: {meaning}")?;
        if queued > 10 { write!(f, "; others had it while it wanted to run, {queued} % of the time") } else { Ok(()) }
    }
}

pub(super) struct Measurement {
    began: Instant,
    before: Vec<(Process, Times)>,
}

impl Home {
    /// What the busiest process of this name is doing; its children count too, which do the work for `npm start`, and
    /// in a cluster every worker. Takes a quarter of a second. None where none lives, or `/proc` cannot be read.
    pub fn activity(&self, name: &str) -> Option<Activity> {
        self.measure_activity(name).finish()
    }

    /// Begins to measure that, for whoever has something else to do meanwhile.
    pub(super) fn measure_activity(&self, name: &str) -> Measurement {
        let known = self.process_evidence(name, None, &self.daemon_evidence()).living;
        let family = known.iter().filter_map(|(process, _)| process::family(process.pid).ok()).flatten();
        let family: BTreeSet<u32> = family.collect();
        let is_meant = |pid: &u32| family.contains(pid) || self.marks(*pid).iter().any(|mark| mark.name == name);
        let pids = process::own_pids().into_iter().flatten().filter(is_meant);
        let before = pids.filter_map(process::living).filter_map(|one| Some((one, read(one)?))).collect();
        Measurement { began: clock::monotonic(), before }
    }
}

impl Measurement {
    /// The second read, a quarter of a second after the first at the earliest.
    pub(super) fn finish(self) -> Option<Activity> {
        if self.before.is_empty() {
            return None;
        }
        thread::sleep(BETWEEN.saturating_sub(clock::monotonic().duration_since(self.began)));
        let span = clock::monotonic().duration_since(self.began).as_millis().max(1);
        let percent = |before: Duration, after: Duration| {
            let times = after.saturating_sub(before).as_millis();
            u64::try_from(times.saturating_mul(100) / span).unwrap_or(u64::MAX)
        };
        let activity = |(process, before): (Process, Times)| {
            let after = read(process)?;
            let (share, queued) = (percent(before.used, after.used), percent(before.queued, after.queued).min(100));
            Some(Activity { pid: process.pid, share, queued, state: char::from(after.state) })
        };
        // Of those that do nothing, the one that is held up by something.
        self.before.into_iter().filter_map(activity).max_by_key(|one| (one.share, "DT".contains(one.state)))
    }
}

struct Times {
    used: Duration,
    queued: Duration,
    state: u8,
}

fn read(process: Process) -> Option<Times> {
    let stat = process::stat(process.pid).filter(|stat| stat.started == process.started)?;
    let queued = process::queued(process.pid).unwrap_or_default();
    Some(Times { used: stat.cpu, queued, state: stat.state })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_did_is_said_in_words() {
        #[track_caller]
        fn check(share: u64, queued: u64, state: char, expected: &str) {
            let said = Activity { pid: 4821, share, queued, state }.to_string();
            assert_eq!(said, format!("its process (pid 4821) used {expected}"));
        }
        check(60, 0, 'R', "60 % of a core: busy in a loop, not waiting");
        check(99, 0, 'S', "99 % of a core: busy in a loop, not waiting");
        check(
            30,
            65,
            'R',
            "30 % of a core: busy in a loop, not waiting; others had it while it wanted to run, 65 % of the time",
        );
        check(0, 0, 'S', "0 % of a core: waiting");
        check(0, 0, 'D', "0 % of a core: in disk wait");
        check(0, 0, 'T', "0 % of a core: stopped by a signal");
        check(40, 3, 'S', "40 % of a core: working");
    }
}

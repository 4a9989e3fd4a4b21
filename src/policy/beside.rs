//! What is seen of PM2 beside a target: whether its daemon lives, and which process is the target's.
//! It must never lead to a restart by itself: a backend that answers is left alone whatever PM2 looks like.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::{Seen, Sight};
use crate::policy::Action;
use crate::policy::case::Case;
use crate::policy::state::{Beginning, StartPeriod};
use crate::policy::words::About;
use crate::time::Timestamp;

/// The apps of a daemon that was killed outlive it by two seconds; before then nothing is to be said of it.
const GONE_FOR: Duration = Duration::from_secs(5);
/// This many new processes within …
const CHANGES: usize = 3;
/// … this time, while looks stay green, are a crash loop.
const CHANGES_WITHIN: Duration = Duration::from_secs(600);

/// What is remembered of PM2 beside one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Beside {
    /// The process of the last success: its number and its start.
    pub known: Option<(u32, Timestamp)>,
    /// A younger process had its start period since then.
    pub granted: bool,
    /// Since when the daemon is dead.
    pub gone_since: Option<Timestamp>,
    /// When another process was found healthy that no restart of ours had started.
    pub changes: VecDeque<Timestamp>,
    /// The process of the latest sight.
    pub seen: Option<(u32, Timestamp)>,
}

impl Case<'_> {
    /// Takes in a sight, whatever the verdict that came with it. One that could not be had changes nothing.
    pub(super) fn note_sight(&mut self, sight: Option<&Sight>) {
        let now = self.setting.now;
        let Some(Sight { daemon, process }) = sight else { return };
        let beside = &mut self.state.beside;
        if *daemon {
            beside.gone_since = None;
            self.state.warned.remove(&About::Pm2Gone);
        } else {
            beside.gone_since.get_or_insert(now);
        }
        beside.seen = process.map(|Seen { pid, started }| (pid, started));
    }

    /// After a healthy verdict: who lives now is known, and what PM2 did beside it may be worth a word.
    pub(super) fn judge_sight(&mut self, sight: Option<&Sight>) {
        let now = self.setting.now;
        if sight.is_none() {
            return;
        }
        let beside = &mut self.state.beside;
        if let Some(process) = beside.seen {
            let granted = std::mem::take(&mut beside.granted);
            let before = beside.known.replace(process);
            if before.is_some_and(|known| known != process) {
                beside.changes.push_back(now);
            }
            if granted || before != Some(process) {
                self.actions.push(Action::Save);
            }
        }
        beside.changes.retain(|at| now.since(*at) < CHANGES_WITHIN);
        while beside.changes.len() > CHANGES {
            beside.changes.pop_front();
        }
        let (changes, gone_since) = (beside.changes.len(), beside.gone_since);
        match changes {
            CHANGES.. => self.warn(
                About::CrashLoop,
                format!("PM2 has started it anew {CHANGES} times within 10 min, though each look found it healthy"),
            ),
            0 => {
                self.state.warned.remove(&About::CrashLoop);
            }
            _ => {}
        }
        if gone_since.is_some_and(|since| now.since(since) >= GONE_FOR) {
            let detail = "PM2's daemon is dead and the backend lives on without it. It is left alone: a second one \
                          would fight it for its port. Nobody but the watchdog restarts it now";
            self.warn(About::Pm2Gone, detail.into());
        }
    }

    /// A healthy look ends an incident in which restarts were made: the process that answers is of our own making.
    pub(super) fn know_our_own(&mut self) {
        let beside = &mut self.state.beside;
        beside.known = beside.seen.or(beside.known);
    }

    /// On an unhealthy verdict, and before an attempt: a process that is younger than the one of the last success gets
    /// its time to come up, whoever started it. Once until the next success, or a process that keeps crashing would
    /// never count as down. Whether it got that now.
    pub(super) fn grant_start_period(&mut self) -> bool {
        let (now, beside) = (self.setting.now, &mut self.state.beside);
        let Some((pid, started)) = beside.seen else { return false };
        let until = started + self.limits.start_period;
        let is_new = beside.known != Some((pid, started)) && !beside.granted;
        let is_granted = is_new && until > now && self.state.attempt.is_none() && self.state.start_period.is_none();
        if is_granted {
            beside.granted = true;
            self.actions.push(Action::Save);
            self.state.start_period = Some(StartPeriod { until, after: Beginning::Process });
        }
        is_granted
    }
}

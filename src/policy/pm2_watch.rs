//! What is observed of PM2 beside a target.
//! It must never lead to a restart by itself: a backend that answers is left alone whatever PM2 looks like.

use std::time::Duration;

use crate::outcome::{DaemonState, Pm2Evidence, ProcessIdentity};
use crate::policy::Action;
use crate::policy::state::{StartPeriod, StartReason};
use crate::policy::target_context::TargetContext;
use crate::policy::words::WarningKind;

/// The apps of a daemon that was killed outlive it by two seconds, and one that ends closes its socket first: before
/// then nothing is to be said of it.
const GONE_FOR: Duration = Duration::from_secs(5);
/// This many new processes within …
const CHANGES: usize = 3;
/// … this time, while looks stay green, are a crash loop.
const CHANGES_WITHIN: Duration = Duration::from_secs(600);

impl TargetContext<'_> {
    /// Takes in what was observed, whatever the verdict that came with it. What could not be had changes nothing.
    pub(super) fn note_pm2(&mut self, evidence: Option<&Pm2Evidence>) {
        let now = self.context.now;
        let Some(Pm2Evidence { daemon, daemon_process, process, trouble, is_orphan }) = evidence else { return };
        let pm2 = &mut self.state.pm2;
        pm2.trouble.clone_from(trouble);
        pm2.seen = process.map(|ProcessIdentity { pid, started }| (pid, started));
        if process.is_some() && !is_orphan {
            pm2.kept_by = daemon_process.map(|ProcessIdentity { pid, started }| (pid, started));
        }
        match daemon {
            DaemonState::Alive if !is_orphan => {
                (pm2.gone_since, pm2.deaf_since) = (None, None);
                self.state.warned.retain(|about| !matches!(about, WarningKind::Pm2Gone | WarningKind::Pm2Deaf));
            }
            // No daemon keeps it: the one that did is dead, even where there is another.
            DaemonState::Alive | DaemonState::Dead => {
                pm2.gone_since.get_or_insert(now);
                pm2.deaf_since = None;
                self.state.warned.remove(&WarningKind::Pm2Deaf);
            }
            DaemonState::Deaf | DaemonState::Unknown => {
                let since = *pm2.deaf_since.get_or_insert(now);
                pm2.gone_since = None;
                self.state.warned.remove(&WarningKind::Pm2Gone);
                if let Some(trouble) = trouble.clone().filter(|_| now.since(since) >= GONE_FOR) {
                    self.warn(WarningKind::Pm2Deaf, trouble);
                }
            }
        }
    }

    /// After a healthy verdict: who lives now is known, and what PM2 did beside it may be worth a word.
    pub(super) fn judge_pm2(&mut self, evidence: Option<&Pm2Evidence>) {
        let now = self.context.now;
        if evidence.is_none() {
            return;
        }
        let pm2 = &mut self.state.pm2;
        if let Some(process) = pm2.seen {
            let granted = std::mem::take(&mut pm2.granted);
            let before = pm2.known.replace(process);
            if before.is_some_and(|known| known != process) {
                pm2.changes.push_back(now);
            }
            if granted || before != Some(process) {
                self.actions.push(Action::Save);
            }
        }
        pm2.changes.retain(|at| now.since(*at) < CHANGES_WITHIN);
        while pm2.changes.len() > CHANGES {
            pm2.changes.pop_front();
        }
        let (changes, gone_since) = (pm2.changes.len(), pm2.gone_since);
        match changes {
            CHANGES.. => self.warn(
                WarningKind::CrashLoop,
                format!("PM2 has started it anew {CHANGES} times within 10 min, though each look found it healthy"),
            ),
            0 => {
                self.state.warned.remove(&WarningKind::CrashLoop);
            }
            _ => {}
        }
        if gone_since.is_some_and(|since| now.since(since) >= GONE_FOR) {
            let trouble = self.state.pm2.trouble.clone().unwrap_or_else(|| "PM2's daemon is dead".into());
            let detail = format!("{trouble}. It is left alone: a second one would fight it for its port");
            self.warn(WarningKind::Pm2Gone, detail);
        }
    }

    /// A healthy look ends an incident in which restarts were made: the process that answers is of our own making.
    pub(super) fn know_our_own(&mut self) {
        let pm2 = &mut self.state.pm2;
        pm2.known = pm2.seen.or(pm2.known);
    }

    /// On an unhealthy verdict, and before an attempt: a process that is younger than the one of the last success gets
    /// its time to come up, whoever started it. Once until the next success, or a process that keeps crashing would
    /// never count as down. Whether it got that now.
    pub(super) fn grant_start_period(&mut self) -> bool {
        let (now, pm2) = (self.context.now, &mut self.state.pm2);
        let Some((pid, started)) = pm2.seen else { return false };
        let until = started + self.limits.start_period;
        let is_new = pm2.known != Some((pid, started)) && !pm2.granted;
        let is_granted = is_new && until > now && self.state.attempt.is_none() && self.state.start_period.is_none();
        if is_granted {
            pm2.granted = true;
            self.actions.push(Action::Save);
            self.state.start_period = Some(StartPeriod { until, after: StartReason::Process });
        }
        is_granted
    }
}

//! Evaluates what probes and inspections find of a target's PM2: its state, warnings, start periods of new processes.
//! It must never cause a restart by itself: a healthy backend is left alone, whatever the state of PM2.

use std::time::Duration;

use crate::outcome::{Class, DaemonState, Pm2Evidence, ProcessIdentity, Verdict};
use crate::policy::Action;
use crate::policy::state::{StartPeriod, StartReason};
use crate::policy::target_context::TargetContext;
use crate::policy::terms::WarningKind;

/// A dead or deaf daemon is reported no sooner than this: the processes of a killed daemon outlive it by two seconds,
/// and a daemon that exits closes its socket first.
const CONFIRM_AFTER: Duration = Duration::from_secs(5);
// The contract's section 4b: so many new processes within that time, while probes are healthy, are a crash loop.
const CRASH_LOOP_STARTS: usize = 3;
const CRASH_LOOP_WINDOW: Duration = Duration::from_secs(600);

/// Nothing listens on the target's port, PM2's daemon is proven dead, no process of the target has outlived it, and no
/// pm2 command runs that may bring them back: the target cannot recover by itself.
pub(super) fn is_dead_with_pm2(verdict: &Verdict, pm2: Option<&Pm2Evidence>) -> bool {
    let is_pm2_dead =
        |pm2: &Pm2Evidence| pm2.daemon == DaemonState::Dead && pm2.process.is_none() && !pm2.is_being_started;
    verdict.class() == Some(Class::Refused) && pm2.is_some_and(is_pm2_dead)
}

impl TargetContext<'_> {
    /// Stores the evidence that came with a verdict or an inspection. Without evidence nothing changes.
    pub(super) fn update_pm2(&mut self, evidence: Option<&Pm2Evidence>) {
        let now = self.context.now;
        let Some(Pm2Evidence { daemon, daemon_process, process, trouble, is_orphan, .. }) = evidence else { return };
        let pm2 = &mut self.state.pm2;
        pm2.trouble.clone_from(trouble);
        pm2.process = process.map(|ProcessIdentity { pid, started }| (pid, started));
        if process.is_some() && !is_orphan {
            pm2.daemon = daemon_process.map(|ProcessIdentity { pid, started }| (pid, started));
        }
        match daemon {
            DaemonState::Alive if !is_orphan => {
                (pm2.gone_since, pm2.deaf_since) = (None, None);
                self.state.warned.retain(|about| !matches!(about, WarningKind::Pm2Gone | WarningKind::Pm2Deaf));
            }
            // The process is an orphan: its own daemon is dead, even if another daemon is alive.
            DaemonState::Alive | DaemonState::Dead => {
                pm2.gone_since.get_or_insert(now);
                pm2.deaf_since = None;
                self.state.warned.remove(&WarningKind::Pm2Deaf);
            }
            DaemonState::Deaf | DaemonState::Unknown => {
                let since = *pm2.deaf_since.get_or_insert(now);
                pm2.gone_since = None;
                self.state.warned.remove(&WarningKind::Pm2Gone);
                if let Some(trouble) = trouble.clone().filter(|_| now.since(since) >= CONFIRM_AFTER) {
                    self.warn(WarningKind::Pm2Deaf, trouble);
                }
            }
        }
    }

    /// After a healthy verdict: trusts the process that answers, and warns of a crash loop or a dead daemon.
    pub(super) fn check_pm2(&mut self, evidence: Option<&Pm2Evidence>) {
        let now = self.context.now;
        if evidence.is_none() {
            return;
        }
        let pm2 = &mut self.state.pm2;
        if let Some(process) = pm2.process {
            let granted = std::mem::take(&mut pm2.granted);
            let before = pm2.trusted.replace(process);
            if before.is_some_and(|trusted| trusted != process) {
                pm2.changes.push_back(now);
            }
            if granted || before != Some(process) {
                self.actions.push(Action::Save);
            }
        }
        pm2.changes.retain(|at| now.since(*at) < CRASH_LOOP_WINDOW);
        while pm2.changes.len() > CRASH_LOOP_STARTS {
            pm2.changes.pop_front();
        }
        let (changes, gone_since) = (pm2.changes.len(), pm2.gone_since);
        match changes {
            CRASH_LOOP_STARTS.. => self.warn(
                WarningKind::CrashLoop,
                format!(
                    "PM2 has restarted the process {CRASH_LOOP_STARTS} times within 10 min, while every probe was \
                     healthy"
                ),
            ),
            0 => {
                self.state.warned.remove(&WarningKind::CrashLoop);
            }
            _ => {}
        }
        if gone_since.is_some_and(|since| now.since(since) >= CONFIRM_AFTER) {
            let trouble = self.state.pm2.trouble.clone().unwrap_or_else(|| "PM2's daemon is dead".into());
            let detail =
                format!("{trouble}. The running process is left alone: a second one would fight it for its port");
            self.warn(WarningKind::Pm2Gone, detail);
        }
    }

    /// The present process is the target's own: it is no sign of a crash loop and gets no start period.
    pub(super) fn trust_process(&mut self) {
        let pm2 = &mut self.state.pm2;
        pm2.trusted = pm2.process.or(pm2.trusted);
    }

    /// On an unhealthy verdict, and before an attempt: a process younger than that of the last success gets a start
    /// period, whatever started it. Only once until the next success: otherwise a process that keeps crashing would
    /// never count as down. Returns whether it was granted now.
    pub(super) fn grant_start_period(&mut self) -> bool {
        let (now, pm2) = (self.context.now, &mut self.state.pm2);
        let Some((pid, started)) = pm2.process else { return false };
        let until = started + self.limits.start_period;
        let is_new = pm2.trusted != Some((pid, started)) && !pm2.granted;
        let is_granted = is_new && until > now && self.state.attempt.is_none() && self.state.start_period.is_none();
        if is_granted {
            pm2.granted = true;
            self.actions.push(Action::Save);
            self.state.start_period = Some(StartPeriod { until, after: StartReason::Process });
        }
        is_granted
    }
}

//! Makes attempts: checks their preconditions, runs their rungs one after another, and records their end.
//! It must never run a command before the attempt is saved.

use std::mem::take;
use std::time::Duration;

use crate::outcome::Exit;
use crate::policy::backoff::delay_after;
use crate::policy::budget;
use crate::policy::schedule::{InspectionPurpose, Precheck};
use crate::policy::state::{Attempt, AttemptHistory, Episode, Phase, StandDown, StartReason, TriedCommand, Waiting};
use crate::policy::target_context::{Neighbours, TargetContext};
use crate::policy::terms::{HoldReason, WarningKind};
use crate::policy::{Action, Limits, Mode, Precondition, Record};

/// The contract's rule 4: a healthy probe within this time after a failed command ends the attempt.
const VERIFICATION: Duration = Duration::from_secs(5);
/// The contract's section 4b.
const MIN_RESET_INTERVAL: Duration = Duration::from_secs(3_600);
/// Without a cooldown, a precondition that does not hold would be checked again and again without a break.
const MIN_PRECHECK_INTERVAL: Duration = Duration::from_secs(1);

impl TargetContext<'_> {
    pub(super) fn decide_attempt(&mut self, neighbours: Neighbours) {
        let waiting = self.hold_reason(neighbours);
        // A precondition that did not hold remains the reason until it has been checked again.
        let last_refusal = self.state.stand_down.map(|stand_down| Waiting { why: stand_down.why, until: None });
        self.state.waiting = waiting.or(last_refusal);
        self.schedule.awaits_answer = match waiting {
            // The verdict of a running probe may remove the reason, so the reason is not recorded yet.
            _ if self.schedule.in_flight.is_some() || neighbours.dependency_being_probed => {
                waiting.is_none() && self.schedule.in_flight.is_some()
            }
            Some(waiting) => {
                self.record_held_back(waiting);
                false
            }
            None => !neighbours.is_queued_behind && self.try_begin(),
        };
    }

    /// Probes again if the last verdict is older than `timeout`, then checks the preconditions, then begins the
    /// attempt. Returns whether an answer is awaited.
    fn try_begin(&mut self) -> bool {
        let now = self.context.now;
        let Some(probe) = &self.state.last_probe else { return false };
        if self.state.is_diagnosing() {
            return false;
        }
        if now.since(probe.at) > self.limits.timeout {
            self.schedule.next = Some(now);
            return true;
        }
        if probe.verdict.class().is_none() {
            self.schedule.expire_precheck();
            return false;
        }
        if self.schedule.precheck == Precheck::Idle {
            self.start_precheck(0);
        }
        match self.schedule.precheck {
            Precheck::Idle => {
                self.record_stand_down();
                false
            }
            Precheck::Precondition(_) | Precheck::CheckingReset => true,
            Precheck::Passed { reset } if self.limits.dry_run => {
                self.record_would_restart(reset);
                false
            }
            Precheck::Passed { reset } => {
                self.begin_attempt(reset);
                false
            }
        }
    }

    /// Starts the check of the precondition with this index; after the last one, the check of the reset, if the attempt
    /// would begin with one. Stands down if a reset is the only rung and the last reset is too recent.
    pub(super) fn start_precheck(&mut self, index: usize) {
        let target = self.name.to_string();
        match self.limits.preconditions.get(index) {
            // PM2 was inspected a moment ago, before the target went down.
            Some(Precondition::Stopped) if self.has_recent_inspection() => return self.start_precheck(index + 1),
            Some(Precondition::Stopped) => {
                if self.inspect(InspectionPurpose::BeforeAttempt { index }) {
                    self.schedule.precheck = Precheck::Precondition(index);
                }
                return;
            }
            Some(precondition) => {
                self.schedule.precheck = Precheck::Precondition(index);
                return self.actions.push(Action::CheckPrecondition { target, precondition: *precondition });
            }
            None => {}
        }
        let rung = self.rung_for(self.attempts_made().saturating_add(1));
        if (self.limits.reset == Some(rung) || self.should_reset_first()) && self.may_reset() {
            self.schedule.precheck = Precheck::CheckingReset;
            self.actions.push(Action::CheckReset { target });
        } else if self.limits.reset.is_some() && self.limits.rungs == 1 {
            self.schedule.precheck = Precheck::Idle;
            self.stand_down(HoldReason::Cooldown);
        } else {
            self.schedule.precheck = Precheck::Passed { reset: false };
        }
    }

    /// Records a stand-down that was decided in this step like any other reason to wait.
    fn record_stand_down(&mut self) {
        let Some(StandDown { why: reason, until, .. }) = self.state.stand_down else { return };
        let waiting = Waiting { why: reason, until: Some(until) };
        self.state.waiting = Some(waiting);
        self.record_held_back(waiting);
    }

    /// A precondition was checked. The answer is ignored if the attempt is not due any more.
    pub(super) fn precondition_checked(&mut self, precondition: Precondition, holds: bool) {
        let Precheck::Precondition(index) = self.schedule.precheck else { return };
        self.schedule.precheck = Precheck::Idle;
        if self.take_outdated() || self.limits.preconditions.get(index) != Some(&precondition) || !self.schedule.is_due
        {
            return;
        }
        if holds {
            self.start_precheck(index + 1);
        } else {
            self.stand_down(HoldReason::OnlyIf);
        }
    }

    /// Whether the configuration has changed since the check began, so its answer must be ignored. Resets that mark.
    pub(super) fn take_outdated(&mut self) -> bool {
        take(&mut self.schedule.outdated)
    }

    /// The latest inspection is no older than a verdict may be.
    fn has_recent_inspection(&self) -> bool {
        self.schedule.inspected.is_some_and(|(at, _)| self.context.now.since(at) <= self.limits.timeout)
    }

    /// A warranted reset comes first, whatever the attempt's number: no other command reaches a deaf daemon, and after
    /// an interrupted reset there is nothing left that another command could repair.
    fn should_reset_first(&self) -> bool {
        let is_deaf = self.schedule.inspected.is_some_and(|(_, is_deaf)| is_deaf);
        self.limits.reset.is_some() && (is_deaf || self.state.real.reset_interrupted)
    }

    /// Postpones the attempt. The check is repeated after the cooldown, which doubles each time.
    fn stand_down(&mut self, reason: HoldReason) {
        let Limits { cooldown, max_cooldown, .. } = *self.limits;
        let times = self.state.stand_down.map_or(0, |stand_down| stand_down.times).saturating_add(1);
        let delay = delay_after(times, 1, cooldown, max_cooldown).max(MIN_PRECHECK_INTERVAL);
        self.state.stand_down = Some(StandDown { why: reason, until: self.context.now + delay, times });
    }

    /// A reset was checked: the attempt begins or continues with it, or skips it.
    pub(super) fn reset_checked(&mut self, warranted: bool) {
        if self.schedule.precheck == Precheck::CheckingReset {
            let (is_due, is_only_rung) = (self.schedule.is_due, self.limits.rungs == 1);
            self.schedule.precheck = Precheck::Idle;
            if self.take_outdated() {
                return;
            }
            self.state.real.reset_interrupted &= warranted;
            if is_due && is_only_rung && !warranted {
                self.stand_down(HoldReason::Cooldown);
            } else if is_due {
                self.schedule.precheck = Precheck::Passed { reset: warranted };
            }
        } else if let Some(attempt) =
            self.state.attempt.as_mut().filter(|attempt| attempt.phase == Phase::CheckingReset)
        {
            if warranted && attempt.may_continue(self.limits, self.schedule) {
                self.run_rung();
            } else {
                self.go_to_next_rung();
            }
        }
    }

    /// The last reset is long enough ago. Dry runs count real resets too.
    fn may_reset(&self) -> bool {
        let dry = self.state.dry.last_reset.filter(|_| self.limits.dry_run);
        let last = self.state.real.last_reset.max(dry);
        last.is_none_or(|at| self.context.now.since(at) >= MIN_RESET_INTERVAL)
    }

    fn attempt_history(&mut self) -> &mut AttemptHistory {
        if self.limits.dry_run { &mut self.state.dry } else { &mut self.state.real }
    }

    /// Adds an attempt to the history and returns its number in the episode.
    fn count_attempt(&mut self) -> u32 {
        let (now, proven) = (self.context.now, self.state.proven);
        self.state.waiting = None;
        self.schedule.clear_due();
        let history = self.attempt_history();
        budget::add_start(&mut history.starts, now);
        history.unproven += u32::from(!proven);
        let episode = history.episode.get_or_insert(Episode { attempts: 0, healthy_since: None });
        episode.attempts = episode.attempts.saturating_add(1);
        episode.attempts
    }

    fn rung_for(&self, attempt: u32) -> usize {
        usize::try_from(attempt.saturating_sub(1)).unwrap_or(0) % self.limits.rungs.max(1)
    }

    /// The rung that an attempt begins with: the reset if `reset` says so, otherwise the rung of its number. If that
    /// one is the reset, the next.
    fn first_rung(&self, attempt: u32, reset: bool) -> usize {
        let rung = self.rung_for(attempt);
        match self.limits.reset {
            Some(reset_rung) if reset => reset_rung,
            Some(reset_rung) if reset_rung == rung => (rung + 1) % self.limits.rungs.max(1),
            Some(_) | None => rung,
        }
    }

    fn attempts_made(&self) -> u32 {
        let history = if self.limits.dry_run { &self.state.dry } else { &self.state.real };
        history.episode.map_or(0, |episode| episode.attempts)
    }

    fn incident_id(&self) -> String {
        self.state.incident.as_ref().map_or_else(String::new, |incident| incident.id.clone())
    }

    fn begin_attempt(&mut self, reset: bool) {
        let number = self.count_attempt();
        let rung = self.first_rung(number, reset);
        self.schedule.attempted = true;
        self.state.attempt = Some(Attempt {
            number,
            rung,
            first: rung,
            incident: self.incident_id(),
            failures: self.state.failures(),
            ran: false,
            over: false,
            repair_id: self.limits.repair_id,
            resets: false,
            phase: Phase::Running { since: self.context.now, process: None },
        });
        if let Some(incident) = &mut self.state.incident {
            incident.attempts = incident.attempts.saturating_add(1);
        }
        self.run_rung();
    }

    fn record_would_restart(&mut self, reset: bool) {
        let attempt = self.count_attempt();
        self.schedule.attempted = true;
        let (rung, incident) = (self.first_rung(attempt, reset), self.incident_id());
        if self.limits.reset == Some(rung) {
            self.note_reset(&Exit::Exited(0), true);
        }
        self.record(Record::WouldRestart { attempt, rung, incident });
        self.begin_cooldown(attempt, true);
    }

    /// Runs the command of the attempt's present rung, once this is saved.
    fn run_rung(&mut self) {
        let now = self.context.now;
        let Some(attempt) = &mut self.state.attempt else { return };
        attempt.phase = Phase::Running { since: now, process: None };
        attempt.resets = self.limits.reset == Some(attempt.rung);
        let Attempt { number: attempt, rung, incident, failures, .. } = attempt.clone();
        let (max, window) = (self.limits.max_restarts, self.limits.restart_window);
        let count = budget::count_in_window(self.state.real.starts.iter().copied(), now, window);
        self.record(Record::Restart { attempt, rung, incident: incident.clone(), spent: count, max, window });
        self.actions.push(Action::Run { target: self.name.to_string(), attempt, rung, incident, failures });
    }

    /// The save before a command has failed. Withdraws the attempt, unless an earlier rung of it has run, or this is a
    /// daemon that may make an unsaved attempt now. Returns whether it was withdrawn.
    pub(super) fn withdraw_unsaved(&mut self) -> bool {
        let is_untried = self.state.attempt.as_ref().is_some_and(|attempt| attempt.rung == attempt.first);
        let until = self.unsaved_until().filter(|until| *until > self.context.now);
        let may_be_made = self.context.mode == Mode::Daemon && until.is_none();
        if !is_untried || may_be_made {
            return false;
        }
        self.state.attempt = None;
        self.schedule.attempted = false;
        let history = &mut self.state.real;
        history.starts.pop_back();
        history.unproven = history.unproven.saturating_sub(1);
        if let Some(episode) = &mut history.episode {
            episode.attempts = episode.attempts.saturating_sub(1);
        }
        if let Some(incident) = &mut self.state.incident {
            incident.attempts = incident.attempts.saturating_sub(1);
        }
        true
    }

    fn note_reset(&mut self, exit: &Exit, dry: bool) {
        let now = self.context.now;
        let history = if dry { &mut self.state.dry } else { &mut self.state.real };
        match exit {
            Exit::Lost => history.reset_interrupted = true,
            Exit::NotStarted(_) => history.reset_interrupted = false,
            Exit::Exited(_) | Exit::Killed(_) | Exit::TimedOut => {
                (history.last_reset, history.reset_interrupted) = (Some(now), false);
            }
        }
    }

    pub(super) fn command_started(&mut self, started: (u32, u64)) {
        let now = self.context.now;
        if let Some(Attempt { phase: Phase::Running { since, process }, .. }) = &mut self.state.attempt {
            (*since, *process) = (now, Some(started));
            self.actions.push(Action::Save);
        }
    }

    pub(super) fn command_ended(&mut self, exit: Exit, duration: Duration) {
        let Some(attempt) = &mut self.state.attempt else { return };
        if !matches!(attempt.phase, Phase::Running { .. }) {
            return;
        }
        attempt.ran |= !matches!(exit, Exit::NotStarted(_));
        let may_continue = attempt.may_continue(self.limits, self.schedule);
        let Attempt { number, rung, incident, over, ran, resets, .. } = attempt.clone();
        let start_period = self.limits.start_period;
        if resets {
            self.note_reset(&exit, false);
        }
        if let Some(open) = self.state.incident.as_mut().filter(|open| open.id == incident) {
            let began = self.context.now - duration;
            open.tried = Some(TriedCommand { rung, exit: exit.clone(), began });
        }
        self.record(Record::RestartDone {
            attempt: number,
            rung,
            exit: exit.clone(),
            duration,
            incident,
            start_period,
        });
        let is_over = rung + 1 >= self.limits.rungs || over || !may_continue;
        match exit {
            Exit::NotStarted(error) if is_over && !ran => {
                self.warn(WarningKind::CannotRepair, no_command_started(&error));
                self.end_attempt();
            }
            Exit::Exited(0) | Exit::Lost => self.end_attempt(),
            _ if is_over => self.end_attempt(),
            Exit::NotStarted(_) => self.go_to_next_rung(),
            Exit::Exited(_) | Exit::Killed(_) | Exit::TimedOut => self.begin_verification(),
        }
    }

    /// A healthy probe in the next seconds proves the repair in spite of the failed command.
    pub(super) fn begin_verification(&mut self) {
        let now = self.context.now;
        if let Some(attempt) = &mut self.state.attempt {
            attempt.phase = Phase::Verifying { until: now + VERIFICATION };
            self.schedule.next = Some(now);
        }
    }

    /// Continues with the attempt's next rung. A reset is checked first, and skipped if the last one is too recent.
    pub(super) fn go_to_next_rung(&mut self) {
        let may_reset = self.may_reset();
        let Limits { rungs, reset, .. } = *self.limits;
        let Some(attempt) = &mut self.state.attempt else { return };
        if !attempt.may_continue(self.limits, self.schedule) {
            return self.end_attempt();
        }
        let rung = (attempt.rung + 1..rungs).find(|rung| may_reset || reset != Some(*rung));
        let Some(rung) = rung else {
            let tried = self.state.incident.as_ref().and_then(|open| open.tried.as_ref()).filter(|_| !attempt.ran);
            if let Some(Exit::NotStarted(error)) = tried.map(|tried| tried.exit.clone()) {
                self.warn(WarningKind::CannotRepair, no_command_started(&error));
            }
            return self.end_attempt();
        };
        attempt.rung = rung;
        if reset == Some(rung) {
            attempt.phase = Phase::CheckingReset;
            self.actions.push(Action::CheckReset { target: self.name.to_string() });
        } else {
            self.run_rung();
        }
    }

    /// A healthy verdict, a pause or a stop order: no further rung is run. A running command may finish.
    pub(super) fn cut_attempt_short(&mut self) {
        if let Some(Attempt { phase: Phase::Running { .. }, over, .. }) = &mut self.state.attempt {
            *over = true;
        } else {
            self.end_attempt();
        }
    }

    pub(super) fn end_attempt(&mut self) {
        let Some(attempt) = self.state.attempt.take() else { return };
        if !attempt.ran {
            self.state.real.starts.pop_back();
        }
        self.begin_cooldown(attempt.number, false);
    }

    /// An attempt has ended: its cooldown and a start period begin.
    fn begin_cooldown(&mut self, number: u32, dry: bool) {
        let now = self.context.now;
        let Limits { rungs, cooldown, max_cooldown, .. } = *self.limits;
        let history = if dry { &mut self.state.dry } else { &mut self.state.real };
        history.last_end = Some(now);
        history.cooldown_until = Some(now + delay_after(number, rungs, cooldown, max_cooldown));
        self.end_streak();
        if let Some(incident) = &mut self.state.incident {
            incident.recovering = !dry;
        }
        self.state.stand_down = None;
        self.begin_start_period(StartReason::Attempt);
    }
}

fn no_command_started(error: &str) -> String {
    format!("no restart command could be started: {error}")
}

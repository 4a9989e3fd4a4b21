//! Makes attempts: decides when one begins, runs its rungs one after another, and records its end.
//! It must never run a command before the attempt is saved.

use std::time::Duration;

use crate::outcome::Exit;
use crate::policy::backoff::delay_after;
use crate::policy::budget;
use crate::policy::drill::DrillStep;
use crate::policy::schedule::Precheck;
use crate::policy::state::{Attempt, AttemptHistory, Episode, Phase, StartReason, TriedCommand, Waiting};
use crate::policy::target_context::{Neighbours, TargetContext};
use crate::policy::terms::{HoldReason, OrderedBy, WarningKind};
use crate::policy::{Action, Limits, Mode, Record};

/// The contract's rule 4: a healthy probe within this time after a failed command ends the attempt.
const VERIFICATION: Duration = Duration::from_secs(5);
/// The contract's section 4b.
const MIN_RESET_INTERVAL: Duration = Duration::from_secs(3_600);

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
                let folder = self.incident_id().unwrap_or_default();
                self.begin_attempt(reset, self.drill_by(), folder);
                false
            }
        }
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
    pub(super) fn may_reset(&self) -> bool {
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

    pub(super) fn rung_for(&self, attempt: u32) -> usize {
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

    pub(super) fn attempts_made(&self) -> u32 {
        let history = if self.limits.dry_run { &self.state.dry } else { &self.state.real };
        history.episode.map_or(0, |episode| episode.attempts)
    }

    fn incident_id(&self) -> Option<String> {
        self.state.incident.as_ref().map(|incident| incident.id.clone())
    }

    /// `folder`: the folder of incidents for the output of its commands.
    pub(super) fn begin_attempt(&mut self, reset: bool, by: Option<OrderedBy>, folder: String) {
        let number = self.count_attempt();
        let rung = self.first_rung(number, reset);
        self.schedule.attempted = true;
        self.state.attempt = Some(Attempt {
            number,
            rung,
            first: rung,
            incident: self.incident_id(),
            folder,
            by,
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
        if self.limits.reset == Some(rung) && !reset {
            self.check_attempt_reset();
        } else {
            self.run_rung();
        }
    }

    fn check_attempt_reset(&mut self) {
        if let Some(attempt) = &mut self.state.attempt {
            attempt.phase = Phase::CheckingReset;
            self.actions.push(Action::CheckReset { target: self.name.to_string() });
        }
    }

    fn record_would_restart(&mut self, reset: bool) {
        let attempt = self.count_attempt();
        self.schedule.attempted = true;
        let (rung, incident) = (self.first_rung(attempt, reset), self.incident_id().unwrap_or_default());
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
        let folder = attempt.folder().to_owned();
        let Attempt { number: attempt, rung, incident, failures, by, .. } = attempt.clone();
        let (max, window) = (self.limits.max_restarts, self.limits.restart_window);
        let count = budget::count_in_window(self.state.real.starts.iter().copied(), now, window);
        self.note_manual_command(rung);
        self.note_drill_step(DrillStep::Restart { attempt, rung });
        self.record(Record::Restart { attempt, rung, incident, by, spent: count, max, window });
        self.actions.push(Action::Run { target: self.name.to_string(), attempt, rung, folder, failures, by });
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
        self.withdraw_manual();
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
        let folder = attempt.folder().to_owned();
        let Attempt { number, rung, incident, over, ran, resets, by, .. } = attempt.clone();
        let start_period = self.limits.start_period;
        if resets {
            self.note_reset(&exit, false);
        }
        if let Some(open) = self.state.incident.as_mut().filter(|open| Some(&open.id) == incident.as_ref()) {
            let began = self.context.now - duration;
            open.tried = Some(TriedCommand { rung, exit: exit.clone(), began, by });
        }
        self.note_manual_exit(rung, &exit);
        self.note_drill_exit(rung, exit.clone(), duration);
        self.record(Record::RestartDone {
            attempt: number,
            rung,
            exit: exit.clone(),
            duration,
            incident,
            folder,
            start_period,
            by,
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
            self.check_attempt_reset();
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
        self.note_manual_end(attempt.ran);
        self.note_drill_attempt();
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

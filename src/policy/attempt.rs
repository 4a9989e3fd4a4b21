//! How an attempt is made: its intent is saved, its rungs are run one after another, its end is noted.

use std::mem::take;
use std::time::Duration;

use crate::outcome::Exit;
use crate::policy::backoff::pause_after;
use crate::policy::budget;
use crate::policy::schedule::{InspectionPurpose, Precheck};
use crate::policy::state::{Attempt, AttemptHistory, Episode, Phase, StandDown, StartReason, TriedCommand, Waiting};
use crate::policy::target_context::{Neighbours, TargetContext};
use crate::policy::words::{HoldReason, WarningKind};
use crate::policy::{Action, Limits, Mode, Precondition, Record};

/// After a command that failed, a healthy look within this time ends the attempt well.
const VERIFY: Duration = Duration::from_secs(5);
/// PM2 is reset no more often than this.
const RESET_EVERY: Duration = Duration::from_secs(3_600);
/// A gate is asked no more often than this, even without a cooldown.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl TargetContext<'_> {
    pub(super) fn consider(&mut self, neighbours: Neighbours) {
        let hold = self.hold_reason(neighbours);
        // What said no the last time still stands in the way until it has said yes.
        let asked_again = self.state.stand_down.map(|StandDown { why, .. }| Waiting { why, until: None });
        self.state.waiting = hold.or(asked_again);
        self.schedule.awaits_answer = match hold {
            // A verdict that decides is on its way: what seems to forbid the attempt may be long over, and is not told.
            _ if self.schedule.in_flight.is_some() || neighbours.dependency_probed => {
                hold.is_none() && self.schedule.in_flight.is_some()
            }
            Some(waiting) => {
                self.record_hold(waiting);
                false
            }
            None => !neighbours.is_behind && self.take_turn(),
        };
    }

    /// Probes again if the last verdict is older than `timeout`, asks the gates, begins. Whether an answer is awaited.
    fn take_turn(&mut self) -> bool {
        let now = self.context.now;
        let Some(look) = &self.state.last_probe else { return false };
        if self.state.is_diagnosing() {
            return false;
        }
        if now.since(look.at) > self.limits.timeout {
            self.schedule.next = Some(now);
            return true;
        }
        if look.verdict.class().is_none() {
            self.schedule.pass_expires();
            return false;
        }
        if self.schedule.precheck == Precheck::Nothing {
            self.start_precheck(0);
        }
        match self.schedule.precheck {
            Precheck::Nothing => {
                self.record_stand_down();
                false
            }
            Precheck::Precondition(_) | Precheck::CheckingReset => true,
            Precheck::Passed { reset } if self.limits.dry_run => {
                self.would_restart(reset);
                false
            }
            Precheck::Passed { reset } => {
                self.begin(reset);
                false
            }
        }
    }

    /// Asks the gate of this index; past the last, whether a reset is warranted where the attempt would begin with one.
    /// Stands down where that is the only rung and the last reset too recent.
    pub(super) fn start_precheck(&mut self, index: usize) {
        let target = self.name.to_string();
        match self.limits.preconditions.get(index) {
            // What was found a moment ago, before it was called down, is not asked for again.
            Some(Precondition::Stopped) if self.is_inspected() => return self.start_precheck(index + 1),
            Some(Precondition::Stopped) => {
                if self.inspect(InspectionPurpose::BeforeAttempt { gate: index }) {
                    self.schedule.precheck = Precheck::Precondition(index);
                }
                return;
            }
            Some(gate) => {
                self.schedule.precheck = Precheck::Precondition(index);
                return self.actions.push(Action::CheckPrecondition { target, gate: *gate });
            }
            None => {}
        }
        let rung = self.rung_of(self.attempts_made().saturating_add(1));
        if (self.limits.reset == Some(rung) || self.resets_first()) && self.may_reset() {
            self.schedule.precheck = Precheck::CheckingReset;
            self.actions.push(Action::CheckReset { target });
        } else if self.limits.reset.is_some() && self.limits.rungs == 1 {
            self.schedule.precheck = Precheck::Nothing;
            self.stand_down(HoldReason::Cooldown);
        } else {
            self.schedule.precheck = Precheck::Passed { reset: false };
        }
    }

    /// What stands in the way since this very moment is told like all else that does.
    fn record_stand_down(&mut self) {
        let Some(StandDown { why, until, .. }) = self.state.stand_down else { return };
        let waiting = Waiting { why, until: Some(until) };
        self.state.waiting = Some(waiting);
        self.record_hold(waiting);
    }

    /// A gate has answered. Where the attempt is not due any more, its answer is of no use.
    pub(super) fn precondition_checked(&mut self, gate: Precondition, yes: bool) {
        let Precheck::Precondition(index) = self.schedule.precheck else { return };
        self.schedule.precheck = Precheck::Nothing;
        if self.is_outdated() || self.limits.preconditions.get(index) != Some(&gate) || !self.schedule.is_due {
            return;
        }
        if yes {
            self.start_precheck(index + 1);
        } else {
            self.stand_down(HoldReason::OnlyIf);
        }
    }

    /// Whether the answer that has come is of no use, since something else would be asked now.
    pub(super) fn is_outdated(&mut self) -> bool {
        take(&mut self.schedule.outdated)
    }

    /// Whether an inspection is no older than a verdict may be.
    fn is_inspected(&self) -> bool {
        self.schedule.inspected.is_some_and(|(at, _)| self.context.now.since(at) <= self.limits.timeout)
    }

    /// Whether the attempt begins with the reset, where that is warranted: no other command reaches a deaf daemon, and
    /// what was interrupted left nothing behind that another could repair.
    fn resets_first(&self) -> bool {
        let is_deaf = self.schedule.inspected.is_some_and(|(_, is_deaf)| is_deaf);
        self.limits.reset.is_some() && (is_deaf || self.state.real.reset_interrupted)
    }

    /// Not now; asked again after the cooldown, then later and later.
    fn stand_down(&mut self, why: HoldReason) {
        let Limits { cooldown, max_cooldown, .. } = *self.limits;
        let times = self.state.stand_down.map_or(0, |stand_down| stand_down.times).saturating_add(1);
        let pause = pause_after(times, 1, cooldown, max_cooldown).max(ASK_AGAIN);
        self.state.stand_down = Some(StandDown { why, until: self.context.now + pause, times });
    }

    /// Whether PM2 may be reset is known: the attempt begins with it, goes on with it, or passes it over.
    pub(super) fn reset_checked(&mut self, warranted: bool) {
        if self.schedule.precheck == Precheck::CheckingReset {
            let (is_due, is_all) = (self.schedule.is_due, self.limits.rungs == 1);
            self.schedule.precheck = Precheck::Nothing;
            if self.is_outdated() {
                return;
            }
            self.state.real.reset_interrupted &= warranted;
            if is_due && is_all && !warranted {
                self.stand_down(HoldReason::Cooldown);
            } else if is_due {
                self.schedule.precheck = Precheck::Passed { reset: warranted };
            }
        } else if let Some(attempt) =
            self.state.attempt.as_mut().filter(|attempt| attempt.phase == Phase::CheckingReset)
        {
            if warranted && attempt.may_go_on(self.limits, self.schedule) {
                self.run_rung();
            } else {
                self.go_to_next_rung();
            }
        }
    }

    /// Whether the last reset is long enough ago; a real one weighs on a dry run too.
    fn may_reset(&self) -> bool {
        let dry = self.state.dry.last_reset.filter(|_| self.limits.dry_run);
        let last = self.state.real.last_reset.max(dry);
        last.is_none_or(|at| self.context.now.since(at) >= RESET_EVERY)
    }

    fn attempt_history(&mut self) -> &mut AttemptHistory {
        if self.limits.dry_run { &mut self.state.dry } else { &mut self.state.real }
    }

    /// Writes a new attempt into the ledger; its number in the episode.
    fn enter_attempt(&mut self) -> u32 {
        let (now, proven) = (self.context.now, self.state.proven);
        self.state.waiting = None;
        self.schedule.end_due();
        let ledger = self.attempt_history();
        budget::spend(&mut ledger.starts, now);
        ledger.unproven += u32::from(!proven);
        let episode = ledger.episode.get_or_insert(Episode { attempts: 0, healthy_since: None });
        episode.attempts = episode.attempts.saturating_add(1);
        episode.attempts
    }

    fn rung_of(&self, attempt: u32) -> usize {
        usize::try_from(attempt.saturating_sub(1)).unwrap_or(0) % self.limits.rungs.max(1)
    }

    /// The rung that an attempt begins with: a reset that is warranted, else the one of its number, or the next where
    /// that is the reset.
    fn first_rung(&self, attempt: u32, reset: bool) -> usize {
        let rung = self.rung_of(attempt);
        match self.limits.reset {
            Some(of_reset) if reset => of_reset,
            Some(of_reset) if of_reset == rung => (rung + 1) % self.limits.rungs.max(1),
            Some(_) | None => rung,
        }
    }

    fn attempts_made(&self) -> u32 {
        let ledger = if self.limits.dry_run { &self.state.dry } else { &self.state.real };
        ledger.episode.map_or(0, |episode| episode.attempts)
    }

    fn incident_id(&self) -> String {
        self.state.incident.as_ref().map_or_else(String::new, |incident| incident.id.clone())
    }

    fn begin(&mut self, reset: bool) {
        let number = self.enter_attempt();
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

    fn would_restart(&mut self, reset: bool) {
        let attempt = self.enter_attempt();
        self.schedule.attempted = true;
        let (rung, incident) = (self.first_rung(attempt, reset), self.incident_id());
        if self.limits.reset == Some(rung) {
            self.note_reset(&Exit::Exited(0), true);
        }
        self.record(Record::WouldRestart { attempt, rung, incident });
        self.settle(attempt, true);
    }

    /// Runs the command of the rung that the attempt stands on, as soon as that is saved.
    fn run_rung(&mut self) {
        let now = self.context.now;
        let Some(attempt) = &mut self.state.attempt else { return };
        attempt.phase = Phase::Running { since: now, process: None };
        attempt.resets = self.limits.reset == Some(attempt.rung);
        let Attempt { number: attempt, rung, incident, failures, .. } = attempt.clone();
        let (max, window) = (self.limits.max_restarts, self.limits.restart_window);
        let spent = budget::spent(self.state.real.starts.iter().copied(), now, window);
        self.record(Record::Restart { attempt, rung, incident: incident.clone(), spent, max, window });
        self.actions.push(Action::Run { target: self.name.to_string(), attempt, rung, incident, failures });
    }

    /// The command that was to be run could not be saved before: its attempt is not made after all, unless a command of
    /// it ran before, or one that nobody will remember may be made. Whether it is withdrawn.
    pub(super) fn withdraw_unsaved(&mut self) -> bool {
        let is_untried = self.state.attempt.as_ref().is_some_and(|attempt| attempt.rung == attempt.first);
        let until = self.unsaved_until().filter(|until| *until > self.context.now);
        let may_be_made = self.context.mode == Mode::Daemon && until.is_none();
        if !is_untried || may_be_made {
            return false;
        }
        self.state.attempt = None;
        self.schedule.attempted = false;
        let ledger = &mut self.state.real;
        ledger.starts.pop_back();
        ledger.unproven = ledger.unproven.saturating_sub(1);
        if let Some(episode) = &mut ledger.episode {
            episode.attempts = episode.attempts.saturating_sub(1);
        }
        if let Some(incident) = &mut self.state.incident {
            incident.attempts = incident.attempts.saturating_sub(1);
        }
        true
    }

    /// PM2 was reset, or nobody knows how far that came.
    fn note_reset(&mut self, ending: &Exit, dry: bool) {
        let now = self.context.now;
        let ledger = if dry { &mut self.state.dry } else { &mut self.state.real };
        match ending {
            Exit::Lost => ledger.reset_interrupted = true,
            Exit::NotStarted(_) => ledger.reset_interrupted = false,
            Exit::Exited(_) | Exit::Killed(_) | Exit::TimedOut => {
                (ledger.last_reset, ledger.reset_interrupted) = (Some(now), false);
            }
        }
    }

    pub(super) fn command_started(&mut self, of_command: (u32, u64)) {
        let now = self.context.now;
        if let Some(Attempt { phase: Phase::Running { since, process }, .. }) = &mut self.state.attempt {
            (*since, *process) = (now, Some(of_command));
            self.actions.push(Action::Save);
        }
    }

    pub(super) fn command_ended(&mut self, ending: Exit, took: Duration) {
        let Some(attempt) = &mut self.state.attempt else { return };
        if !matches!(attempt.phase, Phase::Running { .. }) {
            return;
        }
        attempt.ran |= !matches!(ending, Exit::NotStarted(_));
        let goes_on = attempt.may_go_on(self.limits, self.schedule);
        let Attempt { number, rung, incident, over, ran, resets, .. } = attempt.clone();
        let start_period = self.limits.start_period;
        if resets {
            self.note_reset(&ending, false);
        }
        if let Some(open) = self.state.incident.as_mut().filter(|open| open.id == incident) {
            let began = self.context.now - took;
            open.tried = Some(TriedCommand { rung, exit: ending.clone(), began });
        }
        self.record(Record::RestartDone {
            attempt: number,
            rung,
            ending: ending.clone(),
            took,
            incident,
            start_period,
        });
        let is_over = rung + 1 >= self.limits.rungs || over || !goes_on;
        match ending {
            Exit::NotStarted(reason) if is_over && !ran => {
                self.warn(WarningKind::CannotRepair, format!("no restart command could be started: {reason}"));
                self.end_attempt();
            }
            Exit::Exited(0) | Exit::Lost => self.end_attempt(),
            _ if is_over => self.end_attempt(),
            Exit::NotStarted(_) => self.go_to_next_rung(),
            Exit::Exited(_) | Exit::Killed(_) | Exit::TimedOut => self.verify(),
        }
    }

    /// A healthy look in the next seconds still ends the attempt well.
    pub(super) fn verify(&mut self) {
        let now = self.context.now;
        if let Some(attempt) = &mut self.state.attempt {
            attempt.phase = Phase::Verifying { until: now + VERIFY };
            self.schedule.next = Some(now);
        }
    }

    /// The next rung of the same attempt; a reset is weighed first, or passed over where the last one is too recent.
    pub(super) fn go_to_next_rung(&mut self) {
        let may_reset = self.may_reset();
        let Limits { rungs, reset, .. } = *self.limits;
        let Some(attempt) = &mut self.state.attempt else { return };
        if !attempt.may_go_on(self.limits, self.schedule) {
            return self.end_attempt();
        }
        let rung = (attempt.rung + 1..rungs).find(|rung| may_reset || reset != Some(*rung));
        let Some(rung) = rung else {
            let tried = self.state.incident.as_ref().and_then(|open| open.tried.as_ref()).filter(|_| !attempt.ran);
            if let Some(Exit::NotStarted(reason)) = tried.map(|tried| tried.exit.clone()) {
                self.warn(WarningKind::CannotRepair, format!("no restart command could be started: {reason}"));
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

    /// No further rung: a healthy verdict, a pause or a stop order. A command that runs is let finish.
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
        self.settle(attempt.number, false);
    }

    /// What holds after an attempt: its cooldown, and a start period.
    fn settle(&mut self, number: u32, dry: bool) {
        let now = self.context.now;
        let Limits { rungs, cooldown, max_cooldown, .. } = *self.limits;
        let ledger = if dry { &mut self.state.dry } else { &mut self.state.real };
        ledger.last_end = Some(now);
        ledger.cooldown_until = Some(now + pause_after(number, rungs, cooldown, max_cooldown));
        self.end_streak();
        if let Some(incident) = &mut self.state.incident {
            incident.recovering = !dry;
        }
        self.state.stand_down = None;
        self.begin_start_period(StartReason::Attempt);
    }
}

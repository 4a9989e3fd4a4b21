//! Checks the policy against the contract's promises, using only the events and the actions.
//! It must never use the policy's internals: each rule is implemented here a second time, from the contract.

mod changes;
mod drills;
mod notifications;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use crate::outcome::{Class, Inspection, Verdict};
use crate::policy::{Limits, Precondition};
use crate::time::millis;

#[derive(Default)]
struct Model {
    failures: u32,
    /// The time of the last failure that counts.
    failed_at: i64,
    /// The failures that are on disk although the present watchdog has found them too old: it has not saved yet.
    saved_failures: u32,
    /// Failures before this time do not count, unless the target has been healthy since.
    counts_from: i64,
    last_class: Option<Class>,
    /// When the first command of each attempt was started.
    starts: Vec<i64>,
    attempt: Option<MadeAttempt>,
    last_attempt: Option<u32>,
    /// When the last attempt's last command ended, and the cooldown that follows.
    ended: Option<(i64, i64)>,
    command_runs: bool,
    restart_recorded: bool,
    /// The recorded restart resets PM2, whether or not its command has begun since.
    resets: bool,
    /// The restarts that the operator ordered and that were not made yet, and whether the recorded one is such a
    /// restart.
    orders: Vec<String>,
    is_ordered: bool,
    /// The running pauses, each with the command that it lasts as long as, if any, and its end.
    pauses: Vec<(Option<String>, i64)>,
    /// The id of the open incident.
    down: Option<String>,
    /// The last healthy verdict, or the end of a later pause or rest.
    healthy_at: Option<i64>,
    /// `healthy_at` when the target went down: the reported down time must not be shorter.
    down_since: Option<i64>,
    /// The latest end of the running diagnosis.
    diagnosis: Option<i64>,
    /// The incident that a `down` message was sent for, and the time of the last one.
    notified: Option<(String, i64)>,
    proven: bool,
    unproven: usize,
    /// The process of the last success, and whether a younger one has had its start period since.
    process: Option<(u32, i64)>,
    start_period_granted: bool,
    /// The latest check found a reset warranted, and none has been made since.
    reset_warranted: bool,
    /// The `repair_id` when the latest check of a reset, and of `only_if`, began.
    reset_checked_under: u64,
    precondition_checked_under: u64,
    /// The latest result of `only_if` under the present configuration.
    only_if_holds: bool,
    removed: Option<i64>,
    tick: TickProgress,
    last_reset: Option<i64>,
    /// The end of a reset is unknown, or no pm2 command reaches the daemon: the next attempt may begin with a reset.
    reset_comes_first: bool,
    at_rest: bool,
    /// The target is as dead as its PM2: when the next probe must have begun.
    confirm_by: Option<i64>,
    /// The latest healthy probes in a row that took longer than `slow`.
    slow_probes: u32,
    /// When counted probes failed outside incidents.
    lone_failures: VecDeque<i64>,
    /// A drill was recorded as begun and not as ended; its process is stopped.
    in_drill: bool,
    is_stopped: bool,
    /// When the backend broke, if nothing but probes has happened since.
    broke_at: Option<i64>,
}

#[derive(Clone)]
struct MadeAttempt {
    number: u32,
    rung: usize,
    /// At least one of its commands was started.
    ran: bool,
    began: i64,
    /// The limits when the attempt began.
    limits: Limits,
}

#[derive(Clone, Copy, Default)]
struct TickProgress {
    /// The latest verdict was a failure that counts.
    failed: bool,
    attempted: bool,
    /// A pause or a reload may have changed the decision.
    disturbed: bool,
}

impl Model {
    fn is_paused(&self, at: i64) -> bool {
        self.pauses.iter().any(|(_, until)| *until > at)
    }

    /// Rule 5: a process younger than that of the last success gets a start period, once.
    fn grant_start_period(&mut self, process: Option<(u32, i64)>, start_period: i64, at: i64) {
        let Some((_, started)) = process.filter(|process| self.process != Some(*process)) else { return };
        let is_starting = at < self.counts_from || self.command_runs;
        if !self.start_period_granted && !is_starting && started + start_period > at {
            self.start_period_granted = true;
            self.counts_from = started + start_period;
            self.broke_at = None;
        }
    }
}

pub(super) struct Oracle {
    seed: u64,
    limits: BTreeMap<String, Limits>,
    models: BTreeMap<String, Model>,
    latest_events: VecDeque<String>,
    seen_ids: BTreeSet<String>,
    /// When the latest ticks began.
    ticks: Vec<i64>,
    /// The usual distance between ticks, if the present watchdog is a tick and the distance is known.
    tick_gap: Option<i64>,
    /// After a clock was corrected, this many more ticks are needed before the usual distance is known.
    ticks_missing: usize,
    /// `ticks` and `ticks_missing` as last saved.
    saved_ticks: (Vec<i64>, usize),
    /// The pauses that apply to all targets, including targets added later.
    all_paused: Vec<(Option<String>, i64)>,
    /// When the machine booted, in absolute time.
    pub(super) booted: i64,
    pub(super) saved: bool,
    /// A watchdog was killed while its state could not be saved. From then on nothing is promised.
    state_lost: bool,
    /// The number and start of each running probe of the present watchdog; results of other probes do not count.
    in_flight: BTreeMap<String, (u64, i64)>,
    /// The probe that ran at the end of a target's drill: its result does not count.
    void: BTreeMap<String, u64>,
    /// Nothing disturbs the watchdog, so promise 4 can be checked.
    pub(super) undisturbed: bool,
    pub(super) attempts: u64,
    pub(super) cures: u64,
}

impl Oracle {
    pub(super) fn new(seed: u64, limits: BTreeMap<String, Limits>) -> Oracle {
        let models = limits.keys().map(|name| (name.clone(), Model::default())).collect();
        let (latest_events, seen_ids, in_flight) = (VecDeque::new(), BTreeSet::new(), BTreeMap::new());
        Oracle {
            seed,
            limits,
            models,
            latest_events,
            seen_ids,
            ticks: Vec::new(),
            tick_gap: None,
            ticks_missing: 0,
            saved_ticks: (Vec::new(), 0),
            all_paused: Vec::new(),
            booted: 0,
            saved: true,
            state_lost: false,
            in_flight,
            void: BTreeMap::new(),
            undisturbed: true,
            attempts: 0,
            cures: 0,
        }
    }

    /// The seed and the last events, printed when a promise is broken.
    pub(super) fn report(&self) -> String {
        let mut report = format!("seed {}; replay with SEED={}\n", self.seed, self.seed);
        for line in &self.latest_events {
            let _ = writeln!(report, "  {line}"); // writing to a String cannot fail
        }
        report
    }

    fn note(&mut self, at: i64, what: impl std::fmt::Debug) {
        self.latest_events.push_back(format!("{:>14.3} {what:?}", at as f64 / 1000.0));
        if self.latest_events.len() > 20 {
            self.latest_events.pop_front();
        }
    }

    #[track_caller]
    fn require(&self, holds: bool, promise: &str) {
        assert!(holds || self.state_lost, "{promise}\n{}", self.report());
    }

    fn model(&mut self, target: &str) -> &mut Model {
        self.models.get_mut(target).expect("the world has only these targets")
    }

    pub(super) fn killed(&mut self) {
        self.in_flight.clear();
        self.state_lost |= !self.saved;
        for model in self.models.values_mut() {
            model.broke_at = None;
            model.diagnosis = None;
        }
    }

    pub(super) fn diagnosis_begins(&mut self, target: &str, at: i64) {
        self.note(at, format!("{target}: a diagnosis begins"));
        self.model(target).diagnosis = Some(at + 10_000);
    }

    pub(super) fn diagnosis_finished(&mut self, target: &str, at: i64) {
        self.note(at, format!("{target}: the diagnosis ends"));
        self.model(target).diagnosis = None;
    }

    pub(super) fn reset_checked(&mut self, target: &str, warranted: bool, at: i64) {
        self.note(at, format!("{target}: reset warranted: {warranted}"));
        let present = self.limits[target].repair_id;
        let model = self.model(target);
        model.reset_warranted = warranted && model.reset_checked_under == present;
    }

    pub(super) fn inspected(&mut self, target: &str, inspection: Inspection, at: i64) {
        self.note(at, format!("{target}: {inspection:?}"));
        let is_deaf = matches!(inspection, Inspection::Failed { is_deaf: true, .. });
        self.model(target).reset_comes_first |= is_deaf;
    }

    pub(super) fn restart_ordered(&mut self, target: &str, id: &str, at: i64) {
        self.note(at, format!("{target}: the operator orders a restart, {id}"));
        let model = self.model(target);
        model.orders.push(id.to_owned());
        // Its attempt is the tick's only one, even if it ends without a command.
        model.tick.disturbed = true;
    }

    pub(super) fn broken(&mut self, target: &str, at: i64) {
        self.note(at, format!("{target} breaks"));
        let undisturbed = self.undisturbed;
        let model = self.model(target);
        let counts = !model.at_rest && model.counts_from <= at && !model.command_runs;
        model.broke_at = (undisturbed && model.down.is_none() && model.failures == 0 && counts).then_some(at);
    }

    pub(super) fn probe_begins(&mut self, target: &str, number: u64, at: i64) {
        self.require(!self.in_flight.contains_key(target), "a second probe while one is running");
        self.note(at, format!("{target}: probe {number} begins"));
        let late = self.model(target).confirm_by.take().filter(|by| at > *by);
        self.require(
            late.is_none() || !self.undisturbed,
            "dead with its PM2, and the next probe begins over 1 s later",
        );
        self.in_flight.insert(target.to_string(), (number, at));
    }

    /// `process`: the target's PM2 process that the probe observed.
    pub(super) fn probe_finished(
        &mut self,
        target: &str,
        number: u64,
        (verdict, latency): (&Verdict, Duration),
        process: Option<(u32, i64)>,
        is_pm2_dead: bool,
        at: i64,
    ) {
        self.note(at, format!("{target}: {}, PM2 dead: {is_pm2_dead}", verdict.as_str()));
        let Some((_, began)) = self.in_flight.get(target).copied().filter(|(in_flight, _)| *in_flight == number) else {
            return;
        };
        self.in_flight.remove(target);
        let is_void = self.void.remove(target) == Some(number);
        let is_unknown = is_void || at - began > 2 * millis(self.limits[target].timeout);
        let Limits { start_period, failure_threshold: threshold, slow, .. } = self.limits[target];
        let start_period = millis(start_period);
        let model = self.model(target);
        model.tick.failed = false;
        match verdict {
            _ if is_unknown => model.broke_at = None,
            Verdict::Healthy { .. } => {
                let is_slow = slow.is_some_and(|slow| latency > slow);
                model.slow_probes = if is_slow { model.slow_probes + 1 } else { 0 };
                model.failures = 0;
                model.counts_from = i64::MIN;
                model.healthy_at = Some(at);
                model.last_class = None;
                model.proven = true;
                model.unproven = 0;
                model.broke_at = None;
                model.process = process.or(model.process);
                model.start_period_granted &= process.is_none();
            }
            Verdict::Unhealthy { class, .. } => {
                model.slow_probes = 0;
                model.last_class = Some(*class);
                model.grant_start_period(process, start_period, at);
                if at >= model.counts_from && !model.command_runs {
                    model.failures += 1;
                    model.failed_at = at;
                    model.lone_failures.push_back(at);
                    if model.lone_failures.len() > 10 {
                        model.lone_failures.pop_front();
                    }
                    let is_confirming = *class == Class::Refused && is_pm2_dead && model.failures < threshold;
                    model.confirm_by = (is_confirming && !model.at_rest).then_some(at + 1_000);
                }
                model.tick.failed = at >= model.counts_from && !model.command_runs && !model.at_rest;
            }
            Verdict::Unknown { .. } => model.broke_at = None,
        }
    }

    pub(super) fn command_begins(&mut self, target: &str, attempt: u32, rung: usize, missing: bool, at: i64) {
        self.note(at, format!("run {target} attempt {attempt} rung {rung} missing {missing}"));
        self.attempts += 1;
        let limits = self.limits[target].clone();
        let is_other_running = self.models.iter().any(|(name, model)| name != target && model.command_runs);
        self.require(!is_other_running, "rule 12: one attempt at a time over all targets");
        let model = self.model(target);
        let (restart_recorded, runs, removed) = (model.restart_recorded, model.command_runs, model.removed);
        let follows = |last: usize| rung == last + 1 || (limits.reset == Some(last + 1) && rung == last + 2);
        // Rule 15: under another ladder this would be a new attempt, for which no failures have been counted yet.
        let continued = model
            .attempt
            .clone()
            .filter(|made| made.number == attempt && follows(made.rung) && made.limits.repair_id == limits.repair_id);
        model.command_runs = true;
        model.tick.attempted = true;
        self.require(restart_recorded, "the event `restart` comes before its command");
        self.require(!runs, "a second command while one is running");
        self.require(rung < limits.rungs && !limits.dry_run, "a command that may not be run");
        self.require(removed.is_none(), "rule 15: a command for a target removed from the configuration");
        if limits.reset == Some(rung) {
            self.check_reset(target, at);
        }
        let mut made = match continued {
            Some(made) => made,
            None => {
                self.attempt_begins(target, attempt, rung, &limits, at);
                MadeAttempt { number: attempt, rung, ran: false, began: at, limits }
            }
        };
        let is_first = !made.ran && !missing;
        (made.rung, made.ran) = (rung, made.ran || !missing);
        let model = self.model(target);
        model.attempt = Some(made.clone());
        if is_first {
            model.starts.push(made.began);
            self.check_window(target, &made.limits);
        }
    }

    fn attempt_begins(&mut self, target: &str, attempt: u32, rung: usize, limits: &Limits, at: i64) {
        let model = &self.models[target];
        if model.is_ordered {
            // Rule 16: neither the health nor the waits matter. The window is checked for all attempts.
            let model = self.model(target);
            model.unproven += usize::from(!model.proven);
            (model.last_attempt, model.broke_at, model.orders) = (Some(attempt), None, Vec::new());
            return;
        }
        let threshold = limits.failure_threshold;
        let promise = format!("promise 1: {} failures seen, {threshold} needed", model.failures);
        self.require(model.failures >= threshold, &promise);
        let kth = (attempt as usize - 1) % limits.rungs;
        let skips_reset = limits.reset == Some(kth) && rung == (kth + 1) % limits.rungs;
        let is_first_reset = limits.reset == Some(rung) && model.reset_comes_first;
        self.require(rung == kth || skips_reset || is_first_reset, "rule 4: attempt k starts at rung k");
        self.require(!model.at_rest, "4b: an attempt at a target that is deliberately at rest");
        self.require(model.pauses.is_empty(), "rules 3 and 14: paused, or `resumed` not recorded");
        let has_only_if = limits.preconditions.contains(&Precondition::OnlyIf);
        self.require(!has_only_if || model.only_if_holds, "rule 3: only_if, as configured now, has not passed");
        self.require(model.diagnosis.is_none_or(|until| at >= until), "an attempt before the end of the diagnosis");
        let class = model.last_class.expect("a failure was seen");
        self.require(limits.restart_on.contains(&class), "rule 3: restart_on");
        if let Some((ended, cooldown)) = model.ended {
            let promise = format!("promise 3: {} ms since the last attempt, cooldown {cooldown} ms", at - ended);
            self.require(at - ended >= cooldown, &promise);
        }
        let answers = !matches!(class, Class::Status | Class::Body | Class::Protocol);
        self.require(model.proven || answers, "rule 8: never healthy, and it answers");
        let last = model.starts.last().copied();
        let is_due = model.unproven < limits.rungs || last.is_none_or(|last| at - last >= 3_600_000);
        self.require(model.proven || is_due, "rule 8: never healthy, at most one an hour");
        for dependency in &limits.depends_on {
            let dependency = &self.models[dependency];
            let in_trouble = dependency.down.is_some() || dependency.last_class.is_some();
            self.require(!in_trouble, "rule 3: a dependency is in trouble");
        }
        let model = self.model(target);
        model.unproven += usize::from(!model.proven);
        model.last_attempt = Some(attempt);
        model.broke_at = None;
    }

    /// 4b: a reset is made only if it was found warranted, and at most once an hour.
    fn check_reset(&mut self, target: &str, at: i64) {
        let Model { reset_warranted, last_reset, .. } = self.models[target];
        self.require(reset_warranted, "4b: a reset that was not warranted");
        self.require(last_reset.is_none_or(|last| at - last >= 3_600_000), "4b: two resets within an hour");
        self.model(target).reset_warranted = false;
    }

    fn check_window(&self, target: &str, limits: &Limits) {
        let window = millis(limits.restart_window);
        let starts = &self.models[target].starts;
        let Some(last) = starts.iter().max() else { return };
        let inside = starts.iter().filter(|start| last - **start < window).count();
        let promise = format!("promise 2: {inside} attempts within {window} ms, {} allowed", limits.max_restarts);
        self.require(inside <= limits.max_restarts as usize, &promise);
    }
}

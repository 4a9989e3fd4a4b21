//! Judges the policy by the contract's promises, from what happened and what was done alone.
//! It knows nothing of the policy's inside: every rule is written here a second time, from the contract.

mod changes;
mod notifications;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use crate::outcome::{Class, Inspection, Verdict};
use crate::policy::{Limits, Precondition};
use crate::time::millis;

#[derive(Default)]
struct Known {
    failures: u32,
    /// When the last of them was seen.
    failed_at: i64,
    /// How many there were when a watchdog found them too old that has not saved yet.
    failures_kept: u32,
    /// Failures before then do not count, unless it was healthy since.
    counts_from: i64,
    last_class: Option<Class>,
    /// When the first command of each attempt that ran one was started.
    starts: Vec<i64>,
    attempt: Option<Made>,
    last_attempt: Option<u32>,
    /// When the last attempt's last command ended, and the cooldown that follows.
    ended: Option<(i64, i64)>,
    command_runs: bool,
    restart_recorded: bool,
    /// The ends of the pauses that are on, by the command that they last as long as.
    pauses: Vec<(Option<String>, i64)>,
    down: Option<String>,
    /// When it was last found healthy, or a pause or rest ended after that.
    well_at: Option<i64>,
    /// The same when it went down: the open incident must not be told to be shorter.
    down_since: Option<i64>,
    /// What there is to find out is being found out, until then at the latest.
    diagnosis: Option<i64>,
    /// The incident that people were told of, and when last.
    told: Option<(String, i64)>,
    proven: bool,
    unproven: usize,
    /// The process of the last success, and whether a younger one had its start period since.
    process: Option<(u32, i64)>,
    granted: bool,
    /// Whether the latest weighing allowed a reset; none once it was made use of.
    warranted: bool,
    /// The way to repair that was configured when a reset was last weighed, and when `only_if` was last asked.
    weighed_under: u64,
    asked_under: u64,
    /// The latest answer of `only_if`, under the way to repair that is configured now.
    allowed: bool,
    removed: Option<i64>,
    in_tick: InTick,
    last_reset: Option<i64>,
    /// A reset was begun of which nobody knows that it ended, or no pm2 command reaches the daemon: it comes first.
    resets_first: bool,
    at_rest: bool,
    /// When the backend broke, while nothing but looking has happened since.
    broken_at: Option<i64>,
}

#[derive(Clone)]
struct Made {
    number: u32,
    rung: usize,
    /// A command of it could be started.
    ran: bool,
    began: i64,
    /// What held when it began.
    limits: Limits,
    resets: bool,
}

#[derive(Clone, Copy, Default)]
struct InTick {
    /// The latest verdict was a failure that counts.
    failed: bool,
    attempted: bool,
    /// Somebody changed meanwhile what would have been decided.
    disturbed: bool,
}

impl Known {
    fn is_paused(&self, at: i64) -> bool {
        self.pauses.iter().any(|(_, until)| *until > at)
    }

    /// Rule 5: a process that is younger than that of the last success has its time to come up, once.
    fn grant(&mut self, process: Option<(u32, i64)>, start_period: i64, at: i64) {
        let Some((_, started)) = process.filter(|process| self.process != Some(*process)) else { return };
        let is_starting = at < self.counts_from || self.command_runs;
        if !self.granted && !is_starting && started + start_period > at {
            self.granted = true;
            self.counts_from = started + start_period;
            self.broken_at = None;
        }
    }
}

pub(super) struct Oracle {
    seed: u64,
    limits: BTreeMap<String, Limits>,
    known: BTreeMap<String, Known>,
    latest: VecDeque<String>,
    seen_ids: BTreeSet<String>,
    /// When the latest ticks began, as far as their distances are known.
    ticks: Vec<i64>,
    /// Their usual distance, where the present watchdog is a tick and it is known.
    tick_gap: Option<i64>,
    /// How many ticks it takes until their distances are known again.
    ticks_missing: usize,
    /// Both as they were last saved.
    ticks_kept: (Vec<i64>, usize),
    /// The pauses of all targets, those among them that are yet to come.
    all_paused: Vec<(Option<String>, i64)>,
    /// When the machine booted, in absolute time.
    pub(super) booted: i64,
    pub(super) saved: bool,
    /// A watchdog was killed while its state could not be saved: what it knew is lost, and nothing is promised.
    amnesia: bool,
    /// What the present watchdog asked to look at, so that late answers are not taken for verdicts.
    asked: BTreeMap<String, (u64, i64)>,
    /// Whether promise 4 can be judged: nothing has disturbed the watchdog.
    pub(super) timely: bool,
    pub(super) attempts: u64,
    pub(super) cures: u64,
}

impl Oracle {
    pub(super) fn new(seed: u64, limits: BTreeMap<String, Limits>) -> Oracle {
        let known = limits.keys().map(|name| (name.clone(), Known::default())).collect();
        let (latest, seen_ids, asked) = (VecDeque::new(), BTreeSet::new(), BTreeMap::new());
        Oracle {
            seed,
            limits,
            known,
            latest,
            seen_ids,
            ticks: Vec::new(),
            tick_gap: None,
            ticks_missing: 0,
            ticks_kept: (Vec::new(), 0),
            all_paused: Vec::new(),
            booted: 0,
            saved: true,
            amnesia: false,
            asked,
            timely: true,
            attempts: 0,
            cures: 0,
        }
    }

    /// The seed and the last events: what a failure prints.
    pub(super) fn story(&self) -> String {
        let mut story = format!("seed {}; replay with SEED={}\n", self.seed, self.seed);
        for line in &self.latest {
            let _ = writeln!(story, "  {line}"); // writing to a String cannot fail
        }
        story
    }

    fn note(&mut self, at: i64, what: impl std::fmt::Debug) {
        self.latest.push_back(format!("{:>14.3} {what:?}", at as f64 / 1000.0));
        if self.latest.len() > 20 {
            self.latest.pop_front();
        }
    }

    #[track_caller]
    fn demand(&self, holds: bool, promise: &str) {
        assert!(holds || self.amnesia, "{promise}\n{}", self.story());
    }

    fn known(&mut self, target: &str) -> &mut Known {
        self.known.get_mut(target).expect("the world has only these targets")
    }

    pub(super) fn killed(&mut self) {
        self.asked.clear();
        self.amnesia |= !self.saved;
        for known in self.known.values_mut() {
            known.broken_at = None;
            known.diagnosis = None;
        }
    }

    pub(super) fn diagnosis_begins(&mut self, target: &str, at: i64) {
        self.note(at, format!("{target}: a diagnosis begins"));
        self.known(target).diagnosis = Some(at + 10_000);
    }

    pub(super) fn diagnosed(&mut self, target: &str, at: i64) {
        self.note(at, format!("{target}: the diagnosis ends"));
        self.known(target).diagnosis = None;
    }

    pub(super) fn weighed(&mut self, target: &str, warranted: bool, at: i64) {
        self.note(at, format!("{target}: a reset is warranted: {warranted}"));
        let present = self.limits[target].repair_id;
        let known = self.known(target);
        known.warranted = warranted && known.weighed_under == present;
    }

    pub(super) fn inspected(&mut self, target: &str, inspection: Inspection, at: i64) {
        self.note(at, format!("{target}: {inspection:?}"));
        let is_deaf = matches!(inspection, Inspection::Failed { is_deaf: true, .. });
        self.known(target).resets_first |= is_deaf;
    }

    pub(super) fn broken(&mut self, target: &str, at: i64) {
        self.note(at, format!("{target} breaks"));
        let timely = self.timely;
        let known = self.known(target);
        let counts = !known.at_rest && known.counts_from <= at && !known.command_runs;
        known.broken_at = (timely && known.down.is_none() && known.failures == 0 && counts).then_some(at);
    }

    pub(super) fn look_begins(&mut self, target: &str, number: u64, at: i64) {
        self.demand(!self.asked.contains_key(target), "a second look while one is made");
        self.note(at, format!("look {number} at {target}"));
        self.asked.insert(target.to_string(), (number, at));
    }

    /// `verdict` with the process that PM2 showed beside it.
    pub(super) fn looked(
        &mut self,
        target: &str,
        number: u64,
        (verdict, process): (&Verdict, Option<(u32, i64)>),
        at: i64,
    ) {
        self.note(at, format!("{target}: {}", verdict.as_str()));
        let Some((_, began)) = self.asked.get(target).copied().filter(|(asked, _)| *asked == number) else { return };
        self.asked.remove(target);
        let starved = at - began > 2 * millis(self.limits[target].timeout);
        let start_period = millis(self.limits[target].start_period);
        let known = self.known(target);
        known.in_tick.failed = false;
        match verdict {
            _ if starved => known.broken_at = None,
            Verdict::Healthy { .. } => {
                known.failures = 0;
                known.counts_from = i64::MIN;
                known.well_at = Some(at);
                known.last_class = None;
                known.proven = true;
                known.unproven = 0;
                known.broken_at = None;
                known.process = process.or(known.process);
                known.granted &= process.is_none();
            }
            Verdict::Unhealthy { class, .. } => {
                known.last_class = Some(*class);
                known.grant(process, start_period, at);
                if at >= known.counts_from && !known.command_runs {
                    known.failures += 1;
                    known.failed_at = at;
                }
                known.in_tick.failed = at >= known.counts_from && !known.command_runs && !known.at_rest;
            }
            Verdict::Unknown { .. } => known.broken_at = None,
        }
    }

    pub(super) fn command_begins(&mut self, target: &str, attempt: u32, rung: usize, missing: bool, at: i64) {
        self.note(at, format!("run {target} attempt {attempt} rung {rung} missing {missing}"));
        self.attempts += 1;
        let limits = self.limits[target].clone();
        let elsewhere = self.known.iter().any(|(name, known)| name != target && known.command_runs);
        self.demand(!elsewhere, "rule 12: one attempt at a time over all targets");
        let known = self.known(target);
        let (restart_recorded, runs, removed) = (known.restart_recorded, known.command_runs, known.removed);
        let follows = |last: usize| rung == last + 1 || (limits.reset == Some(last + 1) && rung == last + 2);
        // Rule 15: under another ladder it would be an attempt of its own, for which nothing has failed yet.
        let goes_on = known
            .attempt
            .clone()
            .filter(|made| made.number == attempt && follows(made.rung) && made.limits.repair_id == limits.repair_id);
        known.command_runs = true;
        known.in_tick.attempted = true;
        self.demand(restart_recorded, "the event `restart` comes before its command");
        self.demand(!runs, "a second command while one runs");
        self.demand(rung < limits.rungs && !limits.dry_run, "a command that may not be run");
        self.demand(removed.is_none(), "rule 15: a command for a target that left the configuration");
        let is_reset = limits.reset == Some(rung);
        if is_reset {
            self.judge_reset(target, at);
        }
        let mut made = match goes_on {
            Some(made) => made,
            None => {
                self.attempt_begins(target, attempt, rung, &limits, at);
                Made { number: attempt, rung, ran: false, began: at, limits, resets: false }
            }
        };
        let is_first = !made.ran && !missing;
        (made.rung, made.resets, made.ran) = (rung, is_reset, made.ran || !missing);
        let known = self.known(target);
        known.attempt = Some(made.clone());
        if is_first {
            known.starts.push(made.began);
            self.judge_window(target, &made.limits);
        }
    }

    fn attempt_begins(&mut self, target: &str, attempt: u32, rung: usize, limits: &Limits, at: i64) {
        let known = &self.known[target];
        let threshold = limits.failure_threshold;
        let promise = format!("promise 1: {} failures seen, {threshold} needed", known.failures);
        self.demand(known.failures >= threshold, &promise);
        let kth = (attempt as usize - 1) % limits.rungs;
        let passed_over = limits.reset == Some(kth) && rung == (kth + 1) % limits.rungs;
        let is_first = limits.reset == Some(rung) && known.resets_first;
        self.demand(rung == kth || passed_over || is_first, "rule 4: attempt k starts at rung k");
        self.demand(!known.at_rest, "4b: what is deliberately at rest is left alone");
        self.demand(known.pauses.is_empty(), "rules 3 and 14: paused, or not said to be resumed");
        let asks = limits.preconditions.contains(&Precondition::OnlyIf);
        self.demand(!asks || known.allowed, "rule 3: only_if, as it is configured now, has not said yes");
        self.demand(known.diagnosis.is_none_or(|until| at >= until), "an attempt before the diagnosis is made");
        let class = known.last_class.expect("a failure was seen");
        self.demand(limits.restart_on.contains(&class), "rule 3: restart_on");
        if let Some((ended, cooldown)) = known.ended {
            let promise = format!("promise 3: {} ms since the last attempt, cooldown {cooldown} ms", at - ended);
            self.demand(at - ended >= cooldown, &promise);
        }
        let answers = !matches!(class, Class::Status | Class::Body | Class::Protocol);
        self.demand(known.proven || answers, "rule 8: never healthy, and it answers");
        let last = known.starts.last().copied();
        let patient = known.unproven < limits.rungs || last.is_none_or(|last| at - last >= 3_600_000);
        self.demand(known.proven || patient, "rule 8: never healthy, at most one an hour");
        for dependency in &limits.depends_on {
            let dependency = &self.known[dependency];
            let in_trouble = dependency.down.is_some() || dependency.last_class.is_some();
            self.demand(!in_trouble, "rule 3: a dependency is in trouble");
        }
        let known = self.known(target);
        known.unproven += usize::from(!known.proven);
        known.last_attempt = Some(attempt);
        known.broken_at = None;
    }

    /// 4b: a reset is made only where it was found warranted, and once an hour.
    fn judge_reset(&mut self, target: &str, at: i64) {
        let Known { warranted, last_reset, .. } = self.known[target];
        self.demand(warranted, "4b: a reset that was not warranted");
        self.demand(last_reset.is_none_or(|last| at - last >= 3_600_000), "4b: two resets within an hour");
        self.known(target).warranted = false;
    }

    fn judge_window(&self, target: &str, limits: &Limits) {
        let window = millis(limits.restart_window);
        let starts = &self.known[target].starts;
        let Some(last) = starts.iter().max() else { return };
        let inside = starts.iter().filter(|start| last - **start < window).count();
        let promise = format!("promise 2: {inside} attempts within {window} ms, {} allowed", limits.max_restarts);
        self.demand(inside <= limits.max_restarts as usize, &promise);
    }
}

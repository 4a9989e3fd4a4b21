//! Judges the policy by the contract's promises, from what happened and what was done alone.
//! It knows nothing of the policy's inside: every rule is written here a second time, from the contract.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use crate::outcome::{Class, Ending, Inspection, Verdict};
use crate::policy::{Action, Gate, Limits, Record, Tell};
use crate::time::millis;

/// What the oracle knows of one target, in absolute milliseconds.
#[derive(Default)]
struct Known {
    failures: u32,
    /// Failures before then do not count, unless it was healthy since.
    counts_from: i64,
    last_class: Option<Class>,
    /// When the first command of each attempt that ran one was started.
    starts: Vec<i64>,
    /// The attempt being made: number, rung, whether a command of it could be started, when it began.
    attempt: Option<(u32, usize, bool, i64)>,
    last_attempt: Option<u32>,
    /// When the last attempt's last command ended, and the cooldown that follows.
    ended: Option<(i64, i64)>,
    command_runs: bool,
    restart_recorded: bool,
    paused_until: Option<i64>,
    down: Option<String>,
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
    /// When the last reset had ended.
    last_reset: Option<i64>,
    /// A reset was begun of which nobody knows that it ended, or no pm2 command reaches the daemon: it comes first.
    resets_first: bool,
    /// Deliberately at rest.
    at_rest: bool,
    /// When the backend broke, while nothing but looking has happened since.
    broken_at: Option<i64>,
}

impl Known {
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
    seen_ids: Vec<String>,
    /// Whether the last save went well.
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
        let (latest, seen_ids, asked) = (VecDeque::new(), Vec::new(), BTreeMap::new());
        Oracle {
            seed,
            limits,
            known,
            latest,
            seen_ids,
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

    pub(super) fn started(&mut self, at: i64) {
        self.note(at, "a watchdog starts");
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

    pub(super) fn rebooted(&mut self) {
        for known in self.known.values_mut() {
            known.ended = None;
            known.failures = 0;
            known.last_attempt = None;
            (known.process, known.granted) = (None, false);
        }
    }

    pub(super) fn weighed(&mut self, target: &str, warranted: bool, at: i64) {
        self.note(at, format!("{target}: a reset is warranted: {warranted}"));
        self.known(target).warranted = warranted;
    }

    pub(super) fn inspected(&mut self, target: &str, inspection: Inspection, at: i64) {
        self.note(at, format!("{target}: {inspection:?}"));
        self.known(target).resets_first |= inspection == Inspection::Failed { is_deaf: true };
    }

    pub(super) fn broken(&mut self, target: &str, at: i64) {
        self.note(at, format!("{target} breaks"));
        let timely = self.timely;
        let known = self.known(target);
        let counts = !known.at_rest && known.counts_from <= at && !known.command_runs;
        known.broken_at = (timely && known.down.is_none() && known.failures == 0 && counts).then_some(at);
    }

    pub(super) fn paused(&mut self, target: &str, at: i64, until: i64) {
        self.note(at, format!("{target} paused until {until}"));
        self.known(target).paused_until = Some(until);
    }

    pub(super) fn resumed(&mut self, target: &str, at: i64, clear_waits: bool) {
        self.note(at, format!("{target} resumed, clear_waits {clear_waits}"));
        let known = self.known(target);
        known.paused_until = None;
        if clear_waits {
            known.starts.clear();
            known.ended = None;
            known.unproven = 0;
            known.last_reset = None;
        }
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
        match verdict {
            _ if starved => known.broken_at = None,
            Verdict::Healthy { .. } => {
                known.failures = 0;
                known.counts_from = i64::MIN;
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
                }
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
        let (restart_recorded, runs) = (known.restart_recorded, known.command_runs);
        let follows = |last: usize| rung == last + 1 || (limits.reset == Some(last + 1) && rung == last + 2);
        let goes_on = known.attempt.filter(|(number, last, ..)| *number == attempt && follows(*last));
        known.command_runs = true;
        self.demand(restart_recorded, "the event `restart` comes before its command");
        self.demand(!runs, "a second command while one runs");
        self.demand(rung < limits.rungs && !limits.dry_run, "a command that may not be run");
        if limits.reset == Some(rung) {
            self.judge_reset(target, at);
        }
        if goes_on.is_none() {
            self.attempt_begins(target, attempt, rung, &limits, at);
        }
        let known = self.known(target);
        let first = goes_on.map_or(at, |(.., began)| began);
        let ran_before = goes_on.is_some_and(|(_, _, ran, _)| ran);
        known.attempt = Some((attempt, rung, ran_before || !missing, first));
        if !missing && !ran_before {
            known.starts.push(first);
            self.judge_window(target, &limits);
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
        self.demand(known.paused_until.is_none_or(|until| at >= until), "rule 3: paused");
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

    /// What is recorded or told.
    pub(super) fn learns(&mut self, action: &Action, at: i64) {
        match action {
            Action::Record { target, record } => self.recorded(target.as_deref(), record, at),
            Action::Tell { target, tell } => self.told(target, tell, at),
            _ => {}
        }
    }

    fn recorded(&mut self, target: Option<&str>, record: &Record, at: i64) {
        self.note(at, (target, record));
        let Some(target) = target else {
            self.known.values_mut().for_each(|known| (known.failures, known.broken_at) = (0, None));
            return;
        };
        match record {
            Record::Failing { .. } => {
                let down = self.known[target].down.is_some();
                self.demand(!down, "`failing` only outside an incident");
            }
            Record::Down { incident, .. } => self.goes_down(target, incident, at),
            Record::Up { incident, cured, .. } => {
                self.known(target).diagnosis = None;
                let open = self.known(target).down.take();
                self.demand(open.as_ref() == Some(incident), "`up` ends the open incident");
                self.cures += u64::from(*cured);
            }
            Record::Rested { incident, .. } => {
                let known = self.known(target);
                known.failures = 0;
                (known.diagnosis, known.told, known.broken_at) = (None, None, None);
                let (open, before) = (known.down.take(), std::mem::replace(&mut known.at_rest, true));
                self.demand(open == *incident, "`rested` names the incident that it ends");
                self.demand(!before, "4b: `rested` once");
            }
            Record::Woke { .. } => {
                let before = std::mem::take(&mut self.known(target).at_rest);
                self.known(target).broken_at = None;
                self.demand(before, "`woke` comes after `rested`");
            }
            Record::Restart { .. } => self.known(target).restart_recorded = true,
            Record::RestartDone { attempt, rung, ending, .. } => {
                self.command_done(target, (*attempt, *rung), ending, at)
            }
            Record::HeldBack { incident, .. } => {
                let open = self.known[target].down.clone();
                self.demand(open.as_ref() == Some(incident), "`held_back` belongs to the open incident");
            }
            Record::Resumed { .. } => {
                let start_period = millis(self.limits[target].start_period);
                let known = self.known(target);
                known.failures = 0;
                known.paused_until = None;
                known.counts_from = at + start_period;
                known.broken_at = None;
            }
            Record::WouldRestart { .. } => self.known(target).failures = 0,
            Record::Warn { .. } | Record::Paused { .. } | Record::Stalled { .. } => {}
        }
    }

    /// Section 8: each message belongs to what is the case, and `down` is told once and repeated after half an hour at
    /// the earliest.
    fn told(&mut self, target: &str, tell: &Tell, at: i64) {
        self.note(at, (target, tell));
        let known = &self.known[target];
        let quiet = known.paused_until.is_none() && !self.limits[target].dry_run;
        let of_this = |incident: &String| known.told.as_ref().filter(|(told, _)| told == incident).map(|(_, at)| *at);
        let is_right = match tell {
            Tell::Healed(story) => known.down.as_ref() == Some(&story.incident) && of_this(&story.incident).is_none(),
            Tell::Up(story) => known.down.as_ref() == Some(&story.incident) && of_this(&story.incident).is_some(),
            Tell::Down { story, reminder, .. } => {
                let before = of_this(&story.incident);
                let is_time = before.is_none_or(|before| at - before >= 1_800_000);
                known.down.as_ref() == Some(&story.incident) && before.is_some() == reminder.is_some() && is_time
            }
            Tell::Warn { .. } | Tell::Calm { .. } => true,
        };
        self.demand(quiet && is_right, "a message says what is the case, once");
        if let Tell::Down { story, .. } = tell {
            self.known(target).told = Some((story.incident.clone(), at));
        }
    }

    fn goes_down(&mut self, target: &str, incident: &str, at: i64) {
        let threshold = self.limits[target].failure_threshold;
        let known = &self.known[target];
        self.demand(known.down.is_none(), "promise 7: no second `down`");
        self.demand(known.failures >= threshold, "`down` at the threshold, not before");
        self.demand(!known.at_rest, "4b: what is deliberately at rest is not down");
        self.demand(!self.seen_ids.iter().any(|id| id == incident), "incident ids are unique");
        if let Some(broken_at) = known.broken_at {
            let Limits { interval, timeout, .. } = self.limits[target];
            // PM2 is asked before, which takes 20 s at most.
            let asked = if self.limits[target].gates.contains(&Gate::Stopped) { 20_000 } else { 0 };
            let bound = millis((interval + timeout) * threshold) + asked;
            let promise = format!("promise 4: found after {} ms, {bound} allowed", at - broken_at);
            self.demand(at - broken_at <= bound, &promise);
        }
        self.seen_ids.push(incident.to_string());
        if self.seen_ids.len() > 40 {
            self.seen_ids.remove(0);
        }
        self.known(target).down = Some(incident.to_string());
    }

    fn command_done(&mut self, target: &str, (attempt, rung): (u32, usize), ending: &Ending, at: i64) {
        let limits = &self.limits[target];
        let doublings = (attempt as usize).saturating_sub(limits.rungs).min(40);
        let cooldown = millis(limits.cooldown).saturating_mul(1 << doublings).min(millis(limits.max_cooldown));
        let start_period = millis(limits.start_period);
        let is_reset = limits.reset == Some(rung);
        let recorded = self.known[target].restart_recorded;
        self.demand(recorded, "`restart_done` comes after its `restart`");
        let known = self.known(target);
        known.restart_recorded = false;
        known.command_runs = false;
        known.failures = 0;
        known.counts_from = at + start_period;
        match ending {
            Ending::Lost => known.resets_first |= is_reset,
            Ending::NotStarted(_) => {}
            Ending::Exited(_) | Ending::Killed(_) | Ending::TimedOut if is_reset => known.last_reset = Some(at),
            Ending::Exited(_) | Ending::Killed(_) | Ending::TimedOut => {}
        }
        if !matches!(ending, Ending::NotStarted(_)) {
            known.ended = Some((at, cooldown));
        }
    }
}

//! Runs a script: the driver, the clock, the disk and the commands of one policy, one token at a time.
//! It must never let the policy depend on anything that the script does not say.

mod command;
mod drill;
mod pm2;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::script::{self, Token, ms, seconds, set, show_notification};
use crate::outcome::{AddressResult, Class, Exit, Inspection, Pm2Evidence, ProbeResult, RestReason, Verdict};
use crate::policy::{Action, Event, Limits, Mode, OrderedBy, Policy, Precondition, Record, State, TargetState};
use crate::time::BootTime;

/// A script begins ten days after the machine's boot.
const BOOTED_BEFORE: i64 = 10 * 86_400_000;
/// After more wake-ups than this, the awaited event will never happen.
const MAX_WAKE_UPS: usize = 50_000;

struct Saved {
    state: String,
    /// The time of the boot in which the state was saved.
    booted: i64,
}

struct Command {
    target: String,
    /// The policy has been given the pid.
    is_reported: bool,
}

#[derive(Default)]
pub(super) struct Harness {
    limits: BTreeMap<String, Limits>,
    removed: BTreeMap<String, Limits>,
    pub(super) policy: Option<Policy>,
    is_tick: bool,
    is_stopping: bool,
    /// In ms since the script began, as is `booted`.
    pub(super) now: i64,
    booted: i64,
    saved: Option<Saved>,
    is_corrupt: bool,
    /// How often the state can still be saved; `None` for no limit.
    saves_left: Option<u32>,
    was_full: bool,
    /// The verdict of each target's latest token, which its further probes repeat.
    verdicts: BTreeMap<String, Verdict>,
    /// Of the latest healthy probe, which further probes repeat.
    latency: Duration,
    in_flight: BTreeMap<String, u64>,
    /// The targets whose running probe ends only with its token, although time passes.
    hanging: BTreeSet<String>,
    command: Option<Command>,
    /// The target and the id of the drill whose processes are stopped, until the policy is told.
    stopping: Option<(String, String)>,
    precondition: Option<Precondition>,
    pm2: Option<Pm2Evidence>,
    /// The attempt and rung of a `restart` record whose command must follow.
    recorded_restart: Option<(u32, usize)>,
    /// The end of a command whose `restart_done` must follow.
    expected_exit: Option<Exit>,
    output: Vec<String>,
    /// Each probe that was started, such as `a@0`.
    pub(super) probes: Vec<String>,
    pub(super) records: Vec<Record>,
    pub(super) notifications: Vec<String>,
}

impl Harness {
    pub(super) fn new(limits: BTreeMap<String, Limits>) -> Harness {
        let latency = Duration::from_millis(2);
        Harness { limits, booted: -BOOTED_BEFORE, latency, ..Harness::default() }
    }

    /// Plays one token, or n times for `token*n`, and returns what the policy did, joined by `+`.
    pub(super) fn play(&mut self, token: &str) -> String {
        let (token, times) = match token.split_once('*') {
            Some((token, times)) => (token, times.parse().expect("a number of times")),
            None => (token, 1),
        };
        self.output.clear();
        self.notifications.clear();
        for _ in 0..times {
            match token.strip_prefix('+') {
                Some(span) => self.pass(self.now + ms(span)),
                None => self.apply(&Token::read(token)),
            }
        }
        if self.output.is_empty() { "-".into() } else { self.output.join("+") }
    }

    pub(super) fn target(&self) -> TargetState {
        match &self.policy {
            Some(policy) => policy.target("a").cloned().unwrap_or_default(),
            None => self.load().targets.remove("a").unwrap_or_default(),
        }
    }

    pub(super) fn format_time(&self, at: BootTime) -> String {
        seconds(self.script_time(at))
    }

    fn apply(&mut self, token: &Token<'_>) {
        if !matches!(token.verb, "missing" | "crash!") {
            self.report_command();
        }
        let target = token.target.to_string();
        let span = |default| token.span.unwrap_or_else(|| ms(default));
        match token.verb {
            "S" => {
                self.latency = Duration::from_millis(token.detail.map_or(2, ms).unsigned_abs());
                self.finish_probe(token, Verdict::Healthy { detail: "200".into() });
            }
            "U" => self.finish_probe(token, Verdict::Unknown { detail: "no descriptors".into() }),
            "F" => {
                let class: Class = token.detail.unwrap_or("timeout").parse().expect("a class");
                self.finish_probe(token, Verdict::Unhealthy { class, detail: "no byte".into() });
            }
            "hang" => {
                self.await_probe(&target);
                self.hanging.insert(target);
            }
            "yes" | "no" => self.finish_check(target, token.verb == "yes"),
            "deaf" => self.inspected(target, Inspection::Failed { is_deaf: true, is_listed: false }),
            "unlisted" => self.inspected(target, Inspection::Failed { is_deaf: false, is_listed: false }),
            "deleted" => self.inspected(target, Inspection::AtRest(RestReason::Deleted)),
            "done" => self.inspected(target, Inspection::AtRest(RestReason::Schedule)),
            "warranted" | "unwarranted" => {
                self.deliver(Event::ResetChecked { target, is_warranted: token.verb == "warranted" });
            }
            "diagnosed" => {
                let incident = self.target().incident.map(|incident| incident.id).unwrap_or_default();
                self.deliver(Event::DiagnosisFinished { target, incident });
            }
            "app" | "god" => self.set_pm2(token),
            "pause" => {
                let (until, command) = (self.clock().offset_by(span("30m")), token.detail.map(str::to_owned));
                self.deliver(Event::Paused { targets: script::target_names(target), until, command });
            }
            "resume" | "resume!" => {
                let (targets, clear_waits) = (script::target_names(target), token.verb == "resume!");
                self.deliver(Event::Resumed { targets, clear_waits });
            }
            "over" => self.deliver(Event::PauseCommandEnded { command: token.detail.expect("a command").to_owned() }),
            "order" => {
                let id = token.detail.unwrap_or("1").to_owned();
                self.deliver(Event::RestartOrdered { target, id, stamp: "1122-0313".into() });
            }
            "drill" | "cancel" | "proven" | "unproven" => self.drill(token),
            "gone" | "there" => {
                let missing = (token.verb == "gone").then(|| "no such file".into());
                self.deliver(Event::ExecutablesSearched { target, missing });
            }
            "daemon" => self.start(Mode::Daemon),
            "tick" => self.start(Mode::Once),
            "stop" => {
                self.is_stopping = true;
                self.deliver(Event::Stopping);
            }
            "crash" | "crash!" => self.end(),
            "reboot" => self.reboot(span("10m")),
            "corrupt" => self.is_corrupt = true,
            "full" => self.saves_left = Some(token.detail.map_or(0, |saves| saves.parse().expect("a number"))),
            "room" => self.saves_left = None,
            "stall" | "work" | "work!" => self.delay(token.verb, span("1m")),
            "reload" | "remove" | "add" => self.reload(token),
            _ => self.end_command(token),
        }
    }

    fn start(&mut self, mode: Mode) {
        if self.policy.is_some() {
            self.save();
            self.end();
        }
        self.is_tick = mode == Mode::Once;
        self.is_stopping = false;
        self.was_full = false;
        let lost = std::mem::take(&mut self.is_corrupt);
        let state = if lost { State::default() } else { self.load() };
        let (policy, actions) = Policy::new(mode, self.limits.clone(), state, lost, self.clock());
        self.policy = Some(policy);
        self.execute(actions);
    }

    fn end(&mut self) {
        self.policy = None;
        self.in_flight.clear();
        self.hanging.clear();
    }

    /// The machine boots, and has been up for `up` when the script continues.
    fn reboot(&mut self, up: i64) {
        self.end();
        self.command = None;
        self.booted = self.now;
        self.now += up;
    }

    fn reload(&mut self, token: &Token<'_>) {
        self.now += token.span.unwrap_or(0);
        match token.verb {
            "remove" => self.removed.extend(self.limits.remove_entry(token.target)),
            "add" => self.limits.extend(self.removed.remove_entry(token.target)),
            _ => {
                let limits = self.limits.get_mut(token.target).expect("a target of the configuration");
                let changes = token.detail.into_iter().flat_map(|detail| detail.split(';'));
                changes.filter_map(|change| change.split_once('=')).for_each(|(key, value)| set(limits, key, value));
            }
        }
        if self.policy.is_some() {
            self.deliver(Event::Reloaded { limits: self.limits.clone() });
        }
    }

    fn finish_probe(&mut self, token: &Token<'_>, verdict: Verdict) {
        let target = token.target.to_string();
        self.await_probe(&target);
        if let Some(span) = token.span {
            self.hanging.insert(target.clone());
            self.pass(self.now + span);
        }
        self.hanging.remove(&target);
        self.verdicts.insert(target.clone(), verdict);
        self.answer(&target);
    }

    fn answer(&mut self, target: &str) {
        let Some(number) = self.in_flight.remove(target) else { return };
        let healthy = || Verdict::Healthy { detail: "200".into() };
        let verdict = self.verdicts.get(target).cloned().unwrap_or_else(healthy);
        let result = ProbeResult {
            pm2: self.pm2.clone(),
            addresses: vec![AddressResult { address: "http://h/".into(), verdict: verdict.clone(), latency_ms: 2 }],
            ..ProbeResult::new(verdict, self.latency)
        };
        self.deliver(Event::ProbeFinished { target: target.to_string(), number, result, stamp: "1122-0313".into() });
    }

    fn answer_others(&mut self, target: &str) {
        let hanging = self.hanging.clone();
        let others = |name: &&String| *name != target && !hanging.contains(*name);
        while let Some(name) = self.in_flight.keys().find(others).cloned() {
            self.answer(&name);
        }
    }

    fn await_probe(&mut self, target: &str) {
        for _ in 0..MAX_WAKE_UPS {
            if self.in_flight.contains_key(target) {
                return;
            }
            self.answer_others(target);
            let wake = self.policy.as_ref().and_then(Policy::next_wake);
            self.wake(wake.unwrap_or_else(|| panic!("no probe of {target} is planned")));
        }
        panic!("{target} is no longer probed");
    }

    /// Lets time pass; probes repeat the latest verdict.
    fn pass(&mut self, until: i64) {
        self.report_command();
        for _ in 0..MAX_WAKE_UPS {
            self.answer_others("");
            match self.policy.as_ref().and_then(Policy::next_wake) {
                Some(wake) if self.script_time(wake) <= until => self.wake(wake),
                Some(_) | None => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("the watchdog never becomes idle");
    }

    fn wake(&mut self, at: BootTime) {
        self.now = self.now.max(self.script_time(at));
        self.deliver(Event::Wake);
        let now = self.clock();
        if let Some(policy) = &mut self.policy {
            assert_eq!(policy.step(Event::Wake, now), [], "a wake-up too many is a no-op");
        }
    }

    pub(super) fn deliver(&mut self, event: Event) {
        let now = self.clock();
        let policy = self.policy.as_mut().expect("a watchdog runs");
        let actions = policy.step(event, now);
        self.execute(actions);
    }

    fn execute(&mut self, mut actions: Vec<Action>) {
        self.continue_processes(&actions);
        let is_to_save = actions.iter().any(Action::needs_save);
        if is_to_save {
            self.save();
        }
        let (is_full, now) = (self.saves_left == Some(0), self.clock());
        let is_asked = std::mem::replace(&mut self.was_full, is_full) != is_full || is_to_save;
        let policy = self.policy.as_mut().filter(|_| is_asked);
        let further = policy.map(|policy| policy.save_finished(!is_full, &mut actions, now)).unwrap_or_default();
        actions.into_iter().for_each(|action| self.execute_one(action));
        if !further.is_empty() {
            self.execute(further);
        }
        let Some(policy) = &self.policy else { return };
        if (self.is_tick && policy.is_idle()) || (self.is_stopping && !policy.is_repairing()) {
            self.save();
            self.end();
            self.output.push("end".into());
        }
    }

    fn execute_one(&mut self, action: Action) {
        match action {
            Action::Save | Action::ContinueProcesses { .. } => {}
            Action::ProveProcesses { .. } | Action::StopProcesses { .. } => self.show_drill(action),
            Action::Notify { target, notification } => {
                self.notifications.push(show_notification(&target, &notification))
            }
            Action::Record { target, record } => {
                self.show(target.as_deref().unwrap_or("a"), &record);
                self.records.push(record);
            }
            Action::Probe { target, number } => {
                self.probes.push(format!("{target}@{}", seconds(self.now)));
                if let Some(old) = self.in_flight.insert(target.clone(), number) {
                    // A second probe may only run if the configured probe has changed; the old result must be ignored.
                    assert!(self.limits.get(&target).is_some_and(|limits| limits.probe_id > 0), "two probes at once");
                    let verdict = Verdict::Healthy { detail: "200".into() };
                    let result = ProbeResult::new(verdict, Duration::ZERO);
                    self.deliver(Event::ProbeFinished { target, number: old, result, stamp: String::new() });
                }
            }
            Action::CheckPrecondition { target, precondition } => {
                self.precondition = Some(precondition);
                self.say(&target, "ask");
            }
            Action::Inspect { target } => {
                self.precondition = Some(Precondition::Stopped);
                self.say(&target, "stopped?");
            }
            Action::CheckReset { target } => self.say(&target, "reset?"),
            Action::Diagnose { target, .. } => self.say(&target, "diagnose"),
            Action::Run { target, attempt, rung, by, .. } => {
                assert_eq!(self.recorded_restart.take(), Some((attempt, rung)), "`restart` comes before its command");
                let ladder = self.limits.get(&target).map_or(1, |limits| limits.rungs);
                let rung = if ladder > 1 { format!(".{}", rung + 1) } else { String::new() };
                let verb = match by {
                    Some(OrderedBy::Operator) => "ordered",
                    Some(OrderedBy::Drill) => "~restart",
                    None => "restart",
                };
                self.say(&target, &format!("{verb}#{attempt}{rung}"));
                let before = self.command.replace(Command { target, is_reported: false });
                assert!(before.is_none(), "one command at a time");
            }
            Action::AdoptCommand { target, .. } => self.say(&target, "adopt"),
        }
    }

    fn show(&mut self, target: &str, record: &Record) {
        match record {
            Record::Restart { attempt, rung, .. } => self.recorded_restart = Some((*attempt, *rung)),
            Record::RestartDone { exit, .. } if self.expected_exit.as_ref() == Some(exit) => self.expected_exit = None,
            _ => {
                let text = script::show_record(record, |at| self.format_time(at));
                self.say(target, &text);
            }
        }
    }

    fn say(&mut self, target: &str, text: &str) {
        self.output.push(if target == "a" { text.to_string() } else { format!("{target}.{text}") });
    }

    fn save(&mut self) {
        if let Some(policy) = &self.policy
            && self.saves_left != Some(0)
        {
            self.saves_left = self.saves_left.map(|left| left - 1);
            let state = serde_json::to_string(&policy.state()).expect("the state is plain data");
            self.saved = Some(Saved { state, booted: self.booted });
        }
    }

    /// The store's rule: a state saved in another boot is moved to the present boot clock.
    fn load(&self) -> State {
        let Some(saved) = &self.saved else { return State::default() };
        let mut state: State = serde_json::from_str(&saved.state).expect("what was written can be read");
        if saved.booted != self.booted {
            state.shift(saved.booted - self.booted);
            state.reboot();
        }
        state
    }

    pub(super) fn clock(&self) -> BootTime {
        BootTime::from_ms(self.now - self.booted)
    }

    fn script_time(&self, at: BootTime) -> i64 {
        at.as_ms() + self.booted
    }
}

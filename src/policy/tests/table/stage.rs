//! Plays a script: stands for the driver, the clock, the disk and the commands of one policy, a token at a time.

mod pm2;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::script::{self, Token, ms, seconds, set, tell_shown};
use crate::outcome::{Class, Exit, Inspection, Pm2Evidence, ProbeResult, RestReason, Verdict};
use crate::policy::{Action, Event, Limits, Mode, Policy, Precondition, Record, State, TargetState};
use crate::time::BootTime;

/// A script begins ten days after the machine's boot.
const UP_BEFORE: i64 = 10 * 86_400_000;
/// After more wake-ups than this, what is waited for will never be.
const PATIENCE: usize = 50_000;

struct Saved {
    state: String,
    /// When the boot was that it was written in.
    booted: i64,
}

struct Command {
    target: String,
    is_noted: bool,
}

#[derive(Default)]
pub(super) struct Stage {
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
    /// How often the state can still be saved; `None` as often as you like.
    saves_left: Option<u32>,
    was_full: bool,
    /// What looks find that no token answers.
    weather: BTreeMap<String, Verdict>,
    asked: BTreeMap<String, u64>,
    /// Those that wait for their token though time passes.
    hanging: BTreeSet<String>,
    command: Option<Command>,
    gate: Option<Precondition>,
    pm2: Option<Pm2Evidence>,
    /// The attempt and rung of a `restart` record whose command is to follow.
    announced: Option<(u32, usize)>,
    /// How the script lets a command end.
    ending: Option<Exit>,
    said: Vec<String>,
    /// Every look that was begun, as `a@0`.
    pub(super) looks: Vec<String>,
    pub(super) records: Vec<Record>,
    pub(super) tells: Vec<String>,
}

impl Stage {
    pub(super) fn new(limits: BTreeMap<String, Limits>) -> Stage {
        Stage { limits, booted: -UP_BEFORE, ..Stage::default() }
    }

    /// Plays one token, `token*n` n times; what came of it, joined by `+`.
    pub(super) fn play(&mut self, token: &str) -> String {
        let (token, times) = match token.split_once('*') {
            Some((token, times)) => (token, times.parse().expect("a number of times")),
            None => (token, 1),
        };
        self.said.clear();
        self.tells.clear();
        for _ in 0..times {
            match token.strip_prefix('+') {
                Some(span) => self.pass(self.now + ms(span)),
                None => self.act(&Token::read(token)),
            }
        }
        if self.said.is_empty() { "-".into() } else { self.said.join("+") }
    }

    pub(super) fn target(&self) -> TargetState {
        match &self.policy {
            Some(policy) => policy.target("a").cloned().unwrap_or_default(),
            None => self.load().targets.remove("a").unwrap_or_default(),
        }
    }

    pub(super) fn shown(&self, at: BootTime) -> String {
        seconds(self.in_script(at))
    }

    fn act(&mut self, token: &Token<'_>) {
        if !matches!(token.verb, "missing" | "crash!") {
            self.note_command();
        }
        let target = token.target.to_string();
        let span = |default| token.span.unwrap_or_else(|| ms(default));
        match token.verb {
            "S" => self.look(token, Verdict::Healthy { detail: "200".into() }),
            "U" => self.look(token, Verdict::Unknown { detail: "no descriptors".into() }),
            "F" => {
                let class: Class = token.detail.unwrap_or("timeout").parse().expect("a class");
                self.look(token, Verdict::Unhealthy { class, detail: "no byte".into() });
            }
            "hang" => {
                self.await_look(&target);
                self.hanging.insert(target);
            }
            "yes" | "no" => {
                let (gate, yes) = (self.gate.unwrap_or(Precondition::OnlyIf), token.verb == "yes");
                match gate {
                    Precondition::OnlyIf => self.deliver(Event::PreconditionChecked { target, gate, yes }),
                    Precondition::Stopped if yes => {
                        self.inspected(target, Inspection::Failed { is_deaf: false, is_listed: true })
                    }
                    Precondition::Stopped => self.inspected(target, Inspection::AtRest(RestReason::Operator)),
                }
            }
            "deaf" => self.inspected(target, Inspection::Failed { is_deaf: true, is_listed: false }),
            "unlisted" => self.inspected(target, Inspection::Failed { is_deaf: false, is_listed: false }),
            "deleted" => self.inspected(target, Inspection::AtRest(RestReason::Deleted)),
            "done" => self.inspected(target, Inspection::AtRest(RestReason::Schedule)),
            "warranted" | "unwarranted" => {
                self.deliver(Event::ResetChecked { target, warranted: token.verb == "warranted" });
            }
            "diagnosed" => {
                let incident = self.target().incident.map(|incident| incident.id).unwrap_or_default();
                self.deliver(Event::DiagnosisFinished { target, incident });
            }
            "app" | "god" => self.see(token),
            "pause" => {
                let (until, command) = (self.clock().offset_by(span("30m")), token.detail.map(str::to_owned));
                self.deliver(Event::Paused { targets: script::meant(target), until, command });
            }
            "resume" | "resume!" => {
                let (targets, clear_waits) = (script::meant(target), token.verb == "resume!");
                self.deliver(Event::Resumed { targets, clear_waits });
            }
            "over" => self.deliver(Event::PauseCommandEnded { command: token.detail.expect("a command").to_owned() }),
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
            "stall" | "work" | "work!" => self.be_late(token.verb, span("1m")),
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
        self.carry_out(actions);
    }

    fn end(&mut self) {
        self.policy = None;
        self.asked.clear();
        self.hanging.clear();
    }

    /// The machine boots, and is up for `up` when the script goes on.
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

    fn look(&mut self, token: &Token<'_>, verdict: Verdict) {
        let target = token.target.to_string();
        self.await_look(&target);
        if let Some(span) = token.span {
            self.hanging.insert(target.clone());
            self.pass(self.now + span);
        }
        self.hanging.remove(&target);
        self.weather.insert(target.clone(), verdict);
        self.answer(&target);
    }

    fn answer(&mut self, target: &str) {
        let Some(number) = self.asked.remove(target) else { return };
        let healthy = || Verdict::Healthy { detail: "200".into() };
        let verdict = self.weather.get(target).cloned().unwrap_or_else(healthy);
        let look = ProbeResult {
            verdict,
            latency: Duration::from_millis(2),
            pm2: self.pm2.clone(),
            evidence: None,
            file: None,
        };
        self.deliver(Event::ProbeFinished { target: target.to_string(), number, look, stamp: "1122-0313".into() });
    }

    fn answer_others(&mut self, target: &str) {
        let hanging = self.hanging.clone();
        let others = |name: &&String| *name != target && !hanging.contains(*name);
        while let Some(name) = self.asked.keys().find(others).cloned() {
            self.answer(&name);
        }
    }

    fn await_look(&mut self, target: &str) {
        for _ in 0..PATIENCE {
            if self.asked.contains_key(target) {
                return;
            }
            self.answer_others(target);
            let wake = self.policy.as_ref().and_then(Policy::next_wake);
            self.wake(wake.unwrap_or_else(|| panic!("no look at {target} is planned")));
        }
        panic!("{target} is not looked at any more");
    }

    /// Lets time pass; looks find what the last ones found.
    fn pass(&mut self, until: i64) {
        self.note_command();
        for _ in 0..PATIENCE {
            self.answer_others("");
            match self.policy.as_ref().and_then(Policy::next_wake) {
                Some(wake) if self.in_script(wake) <= until => self.wake(wake),
                Some(_) | None => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("the watchdog does not come to rest");
    }

    fn wake(&mut self, at: BootTime) {
        self.now = self.now.max(self.in_script(at));
        self.deliver(Event::Wake);
        let now = self.clock();
        if let Some(policy) = &mut self.policy {
            assert_eq!(policy.step(Event::Wake, now), [], "a wake-up too many is a no-op");
        }
    }

    pub(super) fn deliver(&mut self, event: Event) {
        let now = self.clock();
        let policy = self.policy.as_mut().expect("a watchdog is at work");
        let actions = policy.step(event, now);
        self.carry_out(actions);
    }

    fn carry_out(&mut self, mut actions: Vec<Action>) {
        let is_to_save = actions.iter().any(Action::is_to_save);
        if is_to_save {
            self.save();
        }
        let (is_full, now) = (self.saves_left == Some(0), self.clock());
        let is_asked = std::mem::replace(&mut self.was_full, is_full) != is_full || is_to_save;
        let policy = self.policy.as_mut().filter(|_| is_asked);
        let further = policy.map(|policy| policy.saved(!is_full, &mut actions, now)).unwrap_or_default();
        actions.into_iter().for_each(|action| self.carry_out_one(action));
        if !further.is_empty() {
            self.carry_out(further);
        }
        let Some(policy) = &self.policy else { return };
        if (self.is_tick && policy.is_idle()) || (self.is_stopping && !policy.is_repairing()) {
            self.save();
            self.end();
            self.said.push("end".into());
        }
    }

    fn carry_out_one(&mut self, action: Action) {
        match action {
            Action::Save => {}
            Action::Notify { target, tell } => self.tells.push(tell_shown(&target, &tell)),
            Action::Record { target, record } => {
                self.show(target.as_deref().unwrap_or("a"), &record);
                self.records.push(record);
            }
            Action::Probe { target, number } => {
                self.looks.push(format!("{target}@{}", seconds(self.now)));
                if let Some(old) = self.asked.insert(target.clone(), number) {
                    // Only another probe may be asked meanwhile, and the old one's answer is of no use.
                    assert!(self.limits.get(&target).is_some_and(|limits| limits.probe_id > 0), "two looks at once");
                    let verdict = Verdict::Healthy { detail: "200".into() };
                    let look = ProbeResult { verdict, latency: Duration::ZERO, pm2: None, evidence: None, file: None };
                    self.deliver(Event::ProbeFinished { target, number: old, look, stamp: String::new() });
                }
            }
            Action::CheckPrecondition { target, gate } => {
                self.gate = Some(gate);
                self.say(&target, "ask");
            }
            Action::InspectPm2 { target } => {
                self.gate = Some(Precondition::Stopped);
                self.say(&target, "stopped?");
            }
            Action::CheckReset { target } => self.say(&target, "weigh"),
            Action::Diagnose { target, .. } => self.say(&target, "diagnose"),
            Action::Run { target, attempt, rung, .. } => {
                assert_eq!(self.announced.take(), Some((attempt, rung)), "`restart` comes before its command");
                let ladder = self.limits.get(&target).map_or(1, |limits| limits.rungs);
                let rung = if ladder > 1 { format!(".{}", rung + 1) } else { String::new() };
                self.say(&target, &format!("restart#{attempt}{rung}"));
                let before = self.command.replace(Command { target, is_noted: false });
                assert!(before.is_none(), "one command at a time");
            }
            Action::AdoptCommand { target, .. } => self.say(&target, "adopt"),
        }
    }

    fn show(&mut self, target: &str, record: &Record) {
        match record {
            Record::Restart { attempt, rung, .. } => self.announced = Some((*attempt, *rung)),
            Record::RestartDone { ending, .. } if self.ending.as_ref() == Some(ending) => self.ending = None,
            _ => {
                let text = script::told(record, |at| self.shown(at));
                self.say(target, &text);
            }
        }
    }

    fn say(&mut self, target: &str, text: &str) {
        self.said.push(if target == "a" { text.to_string() } else { format!("{target}.{text}") });
    }

    fn note_command(&mut self) {
        if let Some(Command { target, is_noted: is_noted @ false }) = &mut self.command
            && self.policy.is_some()
        {
            *is_noted = true;
            let target = target.clone();
            self.deliver(Event::CommandStarted { target, process: (4821, 7) });
        }
    }

    fn end_command(&mut self, token: &Token<'_>) {
        let ending = match token.verb {
            "ok" => Exit::Exited(0),
            "fail" => Exit::Exited(3),
            "killed" => Exit::Killed(9),
            "late" => Exit::TimedOut,
            "missing" | "127" => Exit::NotStarted("no such file".into()),
            "lost" => Exit::Lost,
            _ => panic!("no token is called `{}`", token.verb),
        };
        let target = self.command.take().expect("a command runs").target;
        self.ending = Some(ending.clone());
        self.deliver(Event::CommandEnded { target, ending, took: Duration::from_secs(2) });
        assert_eq!(self.ending, None, "the end of a command is told");
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

    /// The store's part: what was written in another boot is moved to this one's clock.
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

    fn in_script(&self, at: BootTime) -> i64 {
        at.as_ms() + self.booted
    }
}

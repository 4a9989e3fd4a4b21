//! A model of everything around the policy: backends that break and come back, commands that cure them or not,
//! a watchdog process that is killed, suspended, rebooted and reloaded at any moment, a disk that fills up.

mod clocks;
mod orders;
mod troubles;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use fastrand::Rng;

use self::orders::Order;
use super::oracle::Oracle;
use crate::outcome::{
    Class, DaemonState, Exit, Inspection, Pm2Evidence, ProbeResult, ProcessIdentity, RestReason, Verdict,
};
use crate::policy::{Action, Event, Limits, Mode, Policy, Precondition, Record, State};
use crate::time::BootTime;

#[derive(Clone, Debug)]
pub(super) struct Backend {
    /// It answers from then on; `None`: never by itself.
    pub(super) up_at: Option<i64>,
    pub(super) class: Class,
    /// The rung whose command brings it back, if any does.
    pub(super) cured_by: Option<usize>,
    pub(super) boot: i64,
    /// Of a hundred looks at it while it is up, this many fail.
    pub(super) flaky: u32,
}

/// What the world will do by itself, at a point of absolute time in ms.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Coming {
    Looked { target: String, number: u64, took: i64 },
    Ended { target: String, pid: u32, rung: usize, ending: u8, took: i64 },
    Answered { target: String, gate: Precondition, yes: bool },
    Inspected { target: String, lot: u8 },
    Weighed { target: String, warranted: bool },
    Diagnosed { target: String, incident: String },
    ComesBack { target: String },
    CommandOver { command: String },
    Trouble,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Roughness {
    /// The watchdog is killed, the machine suspended or rebooted, the file reloaded, the operator pauses.
    pub(super) disturbed: bool,
    pub(super) disk_fails: bool,
    pub(super) rungs_missing: bool,
    /// Ticks of cron instead of a daemon, or both in turn.
    pub(super) ticks: bool,
    /// PM2 stands beside the targets, and starts their processes anew.
    pub(super) pm2: bool,
    pub(super) nameless: bool,
}

pub(super) type Make = fn(&mut Rng, &[String], usize, f64) -> Limits;

#[derive(Clone)]
struct Disk {
    state: State,
    at: i64,
    wall: i64,
    booted: i64,
}

pub(super) struct World {
    pub(super) rng: Rng,
    rough: Roughness,
    pub(super) limits: BTreeMap<String, Limits>,
    removed: BTreeMap<String, Limits>,
    make: Make,
    pub(super) backends: BTreeMap<String, Backend>,
    pub(super) oracle: Oracle,
    /// Absolute time in ms; the boot clock is `now - booted`.
    pub(super) now: i64,
    booted: i64,
    /// How far the wall clock is ahead of the absolute time.
    wall_ahead: i64,
    cadence: i64,
    pub(super) policy: Option<Policy>,
    mode: Mode,
    disk: Option<Disk>,
    /// What the operator wants and was not carried out and saved yet.
    orders: Vec<Order>,
    /// What was saved along with it and may not have been told yet: the store tells it exactly once.
    pending: Vec<(i64, Action)>,
    coming: BinaryHeap<Reverse<(i64, u64, Coming)>>,
    serial: u64,
    /// The commands that run; they outlive the watchdog.
    running: BTreeSet<u32>,
    /// The process of each target: its number, and when it was started.
    processes: BTreeMap<String, (u32, i64)>,
    /// Those that the present watchdog waits for.
    awaited: BTreeSet<u32>,
    pub(super) steps: u64,
}

impl World {
    pub(super) fn new(seed: u64, rough: Roughness, limits: BTreeMap<String, Limits>, make: Make) -> World {
        let backend = |class| Backend { up_at: Some(0), class, cured_by: None, boot: 0, flaky: 0 };
        let backends = limits.keys().map(|name| (name.clone(), backend(Class::Timeout))).collect();
        let mut rng = Rng::with_seed(seed);
        let cadence = rng.choice([1, 1, 5, 5, 10, 45, 60]).unwrap_or(1) * 60_000;
        let mut world = World {
            rng,
            rough,
            backends,
            oracle: Oracle::new(seed, limits.clone()),
            limits,
            removed: BTreeMap::new(),
            make,
            now: 200_000_000,
            booted: 0,
            wall_ahead: 0,
            cadence,
            policy: None,
            mode: Mode::Daemon,
            disk: None,
            orders: Vec::new(),
            pending: Vec::new(),
            coming: BinaryHeap::new(),
            serial: 0,
            running: BTreeSet::new(),
            processes: BTreeMap::new(),
            awaited: BTreeSet::new(),
            steps: 0,
        };
        world.plan_trouble();
        world.start();
        world
    }

    fn clock(&self) -> BootTime {
        BootTime::from_ms(self.now - self.booted)
    }

    fn expect_at(&mut self, at: i64, coming: Coming) {
        self.serial += 1;
        self.coming.push(Reverse((at, self.serial, coming)));
    }

    fn plan_trouble(&mut self) {
        let scale = self.limits.values().map(|limits| limits.interval.as_millis()).max().unwrap_or(1000);
        let scale = i64::try_from(scale).expect("a day at most");
        let after = self.rng.i64(1..scale * 60);
        self.expect_at(self.now + after, Coming::Trouble);
    }

    fn kill(&mut self) {
        self.policy = None;
        self.awaited.clear();
        self.oracle.killed();
        self.coming.retain(|Reverse((_, _, coming))| match coming {
            Coming::Looked { .. } | Coming::Answered { .. } | Coming::Inspected { .. } => false,
            Coming::Weighed { .. } | Coming::Diagnosed { .. } => false,
            Coming::Ended { .. } | Coming::Trouble => true,
            Coming::ComesBack { .. } | Coming::CommandOver { .. } => true,
        });
    }

    pub(super) fn go_on(&mut self) {
        self.steps += 1;
        let Some(policy) = &self.policy else {
            self.now += self.rng.i64(0..400_000);
            self.start();
            return;
        };
        if self.mode == Mode::Once && policy.is_idle() {
            self.end_tick();
            return;
        }
        let wake = policy.next_wake().map(|at| at.as_ms() + self.booted);
        let next = self.coming.peek().map(|Reverse((at, ..))| *at);
        match (wake, next) {
            (Some(wake), Some(next)) if wake <= next => self.wake(wake),
            (Some(wake), None) => self.wake(wake),
            (_, Some(_)) => self.happen(),
            (None, None) => panic!("nothing will ever happen again: {}", self.oracle.story()),
        }
    }

    fn wake(&mut self, at: i64) {
        self.now = self.now.max(at);
        self.deliver(Event::Wake);
        if self.steps.is_multiple_of(16)
            && let Some(policy) = &mut self.policy
        {
            let again = policy.step(Event::Wake, BootTime::from_ms(self.now - self.booted));
            // Once a verdict is on its way, another's attempt may have its turn.
            let is_turn = |action: &Action| match action {
                Action::Record { record, .. } => matches!(record, Record::Restart { .. }),
                _ => matches!(action, Action::Probe { .. } | Action::Run { .. }),
            };
            assert!(again.iter().all(is_turn), "{again:?} once more: {}", self.oracle.story());
            self.carry_out(again);
        }
    }

    fn happen(&mut self) {
        let Some(Reverse((at, _, coming))) = self.coming.pop() else { return };
        self.now = self.now.max(at);
        match coming {
            Coming::Looked { target, number, took } => {
                let verdict = self.verdict(&target);
                let latency = Duration::from_millis(u64::try_from(took).unwrap_or(0));
                let look = ProbeResult { verdict, latency, pm2: self.pm2(&target), evidence: None, file: None };
                let process = self.processes.get(&target).copied().filter(|_| self.rough.pm2);
                self.oracle.looked(&target, number, (&look.verdict, process), self.now);
                self.deliver(Event::ProbeFinished { target, number, look, stamp: self.stamp() });
            }
            Coming::Ended { target, pid, rung, ending, took } => self.command_ends(target, pid, rung, ending, took),
            Coming::Answered { target, gate, yes } => {
                self.oracle.gate_answers(&target, gate, yes);
                self.deliver(Event::PreconditionChecked { target, gate, yes });
            }
            Coming::Inspected { target, lot } => {
                let inspection = match lot {
                    0 => Inspection::AtRest(RestReason::Operator),
                    1 => Inspection::AtRest(RestReason::Schedule),
                    _ => Inspection::Failed { is_deaf: lot < 4, is_listed: lot.is_multiple_of(2) },
                };
                self.oracle.inspected(&target, inspection, self.now);
                let pm2 = self.pm2(&target);
                self.deliver(Event::Pm2Inspected { target, inspection, pm2 });
            }
            Coming::Weighed { target, warranted } => {
                self.oracle.weighed(&target, warranted, self.now);
                self.deliver(Event::ResetChecked { target, warranted });
            }
            Coming::Diagnosed { target, incident } => {
                self.oracle.diagnosed(&target, self.now);
                self.deliver(Event::DiagnosisFinished { target, incident });
            }
            Coming::ComesBack { target } => self.come_back(&target),
            Coming::CommandOver { command } => self.order(Order::Over { command }),
            Coming::Trouble => self.trouble(),
        }
    }

    fn pm2(&mut self, target: &str) -> Option<Pm2Evidence> {
        let &(pid, started) = self.processes.get(target)?;
        let seen = ProcessIdentity { pid, started: BootTime::from_ms(started - self.booted) };
        let (daemon, trouble) = match self.rng.u8(0..50) {
            0 => (DaemonState::Dead, None),
            1 => (DaemonState::Deaf, Some("no socket".into())),
            2 => (DaemonState::Unknown, Some("root's".into())),
            _ => (DaemonState::Alive, None),
        };
        self.rough.pm2.then_some(Pm2Evidence {
            daemon,
            daemon_process: None,
            trouble,
            process: Some(seen),
            is_orphan: false,
        })
    }

    fn start_process(&mut self, target: &str) {
        self.serial += 1;
        let pid = u32::try_from(self.serial).expect("in range");
        self.processes.insert(target.to_string(), (pid, self.now));
    }

    fn verdict(&mut self, target: &str) -> Verdict {
        let flip = self.rng.u32(0..100);
        let backend = &self.backends[target];
        if backend.up_at.is_some_and(|at| at <= self.now) && flip >= backend.flaky {
            return Verdict::Healthy { detail: "200".into() };
        }
        match flip {
            97.. if self.rough.disturbed => Verdict::Unknown { detail: "no descriptors".into() },
            _ => Verdict::Unhealthy { class: backend.class, detail: "bad".into() },
        }
    }

    fn command_ends(&mut self, target: String, pid: u32, rung: usize, ending: u8, took: i64) {
        let ran = self.running.remove(&pid);
        let ending = match ending {
            _ if !ran => Exit::NotStarted("no such file".into()),
            0..6 => Exit::Exited(0),
            6 => Exit::Exited(3),
            7 => Exit::Killed(9),
            _ => Exit::TimedOut,
        };
        if ran {
            self.start_process(&target);
        }
        if let Some(backend) = self.backends.get_mut(&target)
            && backend.cured_by == Some(rung)
            && ran
        {
            backend.up_at = Some(self.now + backend.boot);
        }
        if self.awaited.remove(&pid) {
            let took = Duration::from_millis(u64::try_from(took).unwrap_or(0));
            self.deliver(Event::CommandEnded { target, ending, took });
        }
    }

    fn deliver(&mut self, event: Event) {
        let now = self.clock();
        if let Some(policy) = &mut self.policy {
            let actions = policy.step(event, now);
            self.carry_out(actions);
        }
        if let Some(policy) = &self.policy {
            self.removed.keys().filter(|name| policy.target(name).is_none()).for_each(|name| self.oracle.let_go(name));
        }
    }

    fn save(&mut self) -> bool {
        let ok = !(self.rough.disk_fails && self.rng.u8(0..8) == 0);
        if ok && let Some(policy) = &self.policy {
            let (at, wall, booted) = (self.now, self.wall(), self.booted);
            self.disk = Some(Disk { state: policy.state(), at, wall, booted });
            self.oracle.kept();
        }
        ok
    }

    /// What the driver owes the policy: save first, then act in order. It may be killed between any two actions.
    fn carry_out(&mut self, mut actions: Vec<Action>) {
        let must_save = actions.iter().any(Action::is_to_save);
        let (ok, now) = (if must_save { self.save() } else { self.oracle.saved }, self.clock());
        self.oracle.saved = ok;
        let policy = self.policy.as_mut().filter(|_| must_save);
        let further = policy.map(|policy| policy.saved(ok, &mut actions, now)).unwrap_or_default();
        let kept = actions.iter().filter(|action| ok && action.is_to_save() && **action != Action::Save);
        self.pending = kept.map(|action| (self.now, action.clone())).collect();
        for action in actions {
            if self.rough.disturbed && self.rng.u16(0..500) == 0 {
                self.kill();
                return;
            }
            self.act(action);
            if self.policy.is_none() {
                return;
            }
        }
        if !further.is_empty() {
            self.carry_out(further);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Save => {}
            Action::Record { .. } | Action::Notify { .. } => {
                self.oracle.learns(&action, self.now);
                self.pending.drain(..self.pending.len().min(1));
            }
            Action::Probe { target, number } => {
                let timeout = i64::try_from(self.limits[&target].timeout.as_millis()).expect("a day at most");
                let up = self.backends[&target].up_at.is_some_and(|at| at <= self.now);
                let took = if up { self.rng.i64(0..=timeout / 2) } else { timeout };
                self.oracle.look_begins(&target, number, self.now);
                self.expect_at(self.now + took, Coming::Looked { target, number, took });
            }
            Action::CheckPrecondition { target, gate } => {
                self.oracle.gate_is_asked(&target);
                let (at, yes) = (self.now + self.rng.i64(0..10_000), self.rng.u8(0..3) > 0);
                self.expect_at(at, Coming::Answered { target, gate, yes });
            }
            Action::InspectPm2 { target } => {
                let (at, lot) = (self.now + self.rng.i64(0..20_000), self.rng.u8(0..12));
                self.expect_at(at, Coming::Inspected { target, lot });
            }
            Action::CheckReset { target } => {
                self.oracle.weighing_begins(&target);
                let (at, warranted) = (self.now + self.rng.i64(0..10_000), self.rng.bool());
                self.expect_at(at, Coming::Weighed { target, warranted });
            }
            Action::Diagnose { target, incident } => {
                self.oracle.diagnosis_begins(&target, self.now);
                let at = self.now + self.rng.i64(0..15_000);
                self.expect_at(at, Coming::Diagnosed { target, incident });
            }
            Action::Run { target, attempt, rung, .. } => self.run(target, attempt, rung),
            Action::AdoptCommand { target, process: (pid, _), .. } => self.adopt(target, pid),
        }
    }

    /// Its end is among the things to come, or the command is gone already.
    fn adopt(&mut self, target: String, pid: u32) {
        if self.running.contains(&pid) {
            self.awaited.insert(pid);
        } else {
            self.deliver(Event::CommandEnded { target, ending: Exit::Lost, took: Duration::ZERO });
        }
    }

    fn run(&mut self, target: String, attempt: u32, rung: usize) {
        let missing = self.rough.rungs_missing && self.rng.u8(0..3) == 0;
        self.oracle.command_begins(&target, attempt, rung, missing, self.now);
        let took = if missing { 0 } else { self.rng.i64(0..60_000) };
        let pid = u32::try_from(self.serial).expect("in range");
        let ending = self.rng.u8(0..9);
        self.awaited.insert(pid);
        self.expect_at(self.now + took, Coming::Ended { target: target.clone(), pid, rung, ending, took });
        if missing {
            return;
        }
        self.running.insert(pid);
        if self.rough.disturbed && self.rng.u8(0..50) == 0 {
            self.kill(); // before its pid could be noted
        } else {
            self.deliver(Event::CommandStarted { target, process: (pid, 7) });
        }
    }
}

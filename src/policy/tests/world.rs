//! A model of the policy's environment: backends that break and recover, commands that may cure them, a watchdog that
//! is killed, suspended, rebooted and reloaded at any moment, and a disk that fails. It must report all to the oracle.

mod clocks;
mod drills;
mod pm2;
mod requests;
mod troubles;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use fastrand::Rng;

use self::requests::Request;
use super::oracle::Oracle;
use crate::outcome::{Class, DaemonState, Exit, Inspection, ProbeResult, RestReason, Verdict};
use crate::policy::{Action, Event, Limits, Mode, Policy, Precondition, Record, State};
use crate::time::BootTime;

#[derive(Clone, Debug)]
pub(super) struct Backend {
    /// It is healthy from this time on; `None`: it does not recover by itself.
    pub(super) up_at: Option<i64>,
    pub(super) class: Class,
    /// The rung whose command cures it, if any.
    pub(super) cured_by: Option<usize>,
    pub(super) boot: i64,
    /// The percentage of probes that fail while it is up.
    pub(super) flaky: u32,
}

/// An event scheduled at an absolute time in ms.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Upcoming {
    ProbeFinished { target: String, number: u64, duration_ms: i64 },
    CommandEnded { target: String, pid: u32, rung: usize, exit_roll: u8, duration_ms: i64 },
    PreconditionChecked { target: String, precondition: Precondition, yes: bool },
    Inspected { target: String, roll: u8 },
    ResetChecked { target: String, warranted: bool },
    DiagnosisFinished { target: String, incident: String },
    Proven { target: String, id: String, is_proven: bool },
    TargetReturns { target: String },
    PauseCommandEnded { command: String },
    Trouble,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scenario {
    /// The watchdog is killed, the machine is suspended or rebooted, the configuration reloaded, targets paused.
    pub(super) disturbed: bool,
    pub(super) disk_fails: bool,
    pub(super) rungs_missing: bool,
    /// Ticks of cron instead of a daemon, or both in turns.
    pub(super) ticks: bool,
    /// The targets run under PM2, which restarts their processes.
    pub(super) pm2: bool,
    pub(super) without_boot_id: bool,
}

pub(super) type MakeLimits = fn(&mut Rng, &[String], usize, f64) -> Limits;

#[derive(Clone)]
struct Disk {
    state: State,
    at: i64,
    wall: i64,
    booted: i64,
}

pub(super) struct World {
    pub(super) rng: Rng,
    scenario: Scenario,
    pub(super) limits: BTreeMap<String, Limits>,
    removed: BTreeMap<String, Limits>,
    make_limits: MakeLimits,
    pub(super) backends: BTreeMap<String, Backend>,
    pub(super) oracle: Oracle,
    /// Absolute time in ms; the boot clock is `now - booted`.
    pub(super) now: i64,
    booted: i64,
    /// The difference between the wall clock and the absolute time.
    wall_ahead: i64,
    tick_interval: i64,
    pub(super) policy: Option<Policy>,
    mode: Mode,
    disk: Option<Disk>,
    /// The operator's requests that have not been applied and saved yet.
    requests: Vec<Request>,
    /// The records and notifications saved with the state but not yet executed: the store delivers each exactly once.
    pending: Vec<(i64, Action)>,
    upcoming: BinaryHeap<Reverse<(i64, u64, Upcoming)>>,
    serial: u64,
    /// The running commands, which survive the watchdog.
    running: BTreeSet<u32>,
    /// The process of each target: its pid and start.
    processes: BTreeMap<String, (u32, i64)>,
    /// The targets whose process is stopped for a drill.
    frozen: BTreeSet<String>,
    /// The running commands that the present watchdog waits for.
    awaited: BTreeSet<u32>,
    pub(super) steps: u64,
}

impl World {
    pub(super) fn new(
        seed: u64,
        scenario: Scenario,
        limits: BTreeMap<String, Limits>,
        make_limits: MakeLimits,
    ) -> World {
        let backend = |class| Backend { up_at: Some(0), class, cured_by: None, boot: 0, flaky: 0 };
        let backends = limits.keys().map(|name| (name.clone(), backend(Class::Timeout))).collect();
        let mut rng = Rng::with_seed(seed);
        let tick_interval = rng.choice([1, 1, 5, 5, 10, 45, 60]).unwrap_or(1) * 60_000;
        let mut world = World {
            rng,
            scenario,
            backends,
            oracle: Oracle::new(seed, limits.clone()),
            limits,
            removed: BTreeMap::new(),
            make_limits,
            now: 200_000_000,
            booted: 0,
            wall_ahead: 0,
            tick_interval,
            policy: None,
            mode: Mode::Daemon,
            disk: None,
            requests: Vec::new(),
            pending: Vec::new(),
            upcoming: BinaryHeap::new(),
            serial: 0,
            running: BTreeSet::new(),
            processes: BTreeMap::new(),
            frozen: BTreeSet::new(),
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

    fn schedule(&mut self, at: i64, upcoming: Upcoming) {
        self.serial += 1;
        self.upcoming.push(Reverse((at, self.serial, upcoming)));
    }

    fn plan_trouble(&mut self) {
        let scale = self.limits.values().map(|limits| limits.interval.as_millis()).max().unwrap_or(1000);
        let scale = i64::try_from(scale).expect("a day at most");
        let after = self.rng.i64(1..scale * 60);
        self.schedule(self.now + after, Upcoming::Trouble);
    }

    fn kill(&mut self) {
        self.policy = None;
        self.awaited.clear();
        self.oracle.killed();
        self.upcoming.retain(|Reverse((_, _, upcoming))| match upcoming {
            Upcoming::ProbeFinished { .. } | Upcoming::PreconditionChecked { .. } | Upcoming::Inspected { .. } => false,
            Upcoming::ResetChecked { .. } | Upcoming::DiagnosisFinished { .. } | Upcoming::Proven { .. } => false,
            Upcoming::CommandEnded { .. } | Upcoming::Trouble => true,
            Upcoming::TargetReturns { .. } | Upcoming::PauseCommandEnded { .. } => true,
        });
    }

    pub(super) fn advance(&mut self) {
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
        let next = self.upcoming.peek().map(|Reverse((at, ..))| *at);
        match (wake, next) {
            (Some(wake), Some(next)) if wake <= next => self.wake(wake),
            (Some(wake), None) => self.wake(wake),
            (_, Some(_)) => self.deliver_next(),
            (None, None) => panic!("nothing will ever happen again: {}", self.oracle.report()),
        }
    }

    fn wake(&mut self, at: i64) {
        self.now = self.now.max(at);
        self.deliver(Event::Wake);
        if self.steps.is_multiple_of(16)
            && let Some(policy) = &mut self.policy
        {
            let again = policy.step(Event::Wake, BootTime::from_ms(self.now - self.booted));
            // Once a probe is running, the attempt of another target may begin.
            let may_follow = |action: &Action| match action {
                Action::Record { record, .. } => matches!(record, Record::Restart { .. }),
                _ => matches!(action, Action::Probe { .. } | Action::Run { .. }),
            };
            assert!(again.iter().all(may_follow), "{again:?} once more: {}", self.oracle.report());
            self.execute(again);
        }
    }

    fn deliver_next(&mut self) {
        let Some(Reverse((at, _, upcoming))) = self.upcoming.pop() else { return };
        self.now = self.now.max(at);
        match upcoming {
            Upcoming::ProbeFinished { target, number, duration_ms } => {
                let verdict = self.verdict(&target);
                let latency = Duration::from_millis(u64::try_from(duration_ms).unwrap_or(0));
                let result = ProbeResult { pm2: self.pm2(&target), ..ProbeResult::new(verdict, latency) };
                let found = result.pm2.as_ref();
                let is_pm2_dead = found.is_some_and(|pm2| pm2.daemon == DaemonState::Dead && pm2.process.is_none());
                let process = self.processes.get(&target).copied();
                let process = process.filter(|_| found.is_some_and(|pm2| pm2.process.is_some()));
                self.oracle.probe_finished(&target, number, (&result.verdict, latency), process, is_pm2_dead, self.now);
                self.deliver(Event::ProbeFinished { target, number, result, stamp: self.stamp() });
            }
            Upcoming::CommandEnded { target, pid, rung, exit_roll, duration_ms } => {
                self.command_ends(target, pid, rung, exit_roll, duration_ms)
            }
            Upcoming::PreconditionChecked { target, precondition, yes } => {
                self.oracle.precondition_checked(&target, precondition, yes);
                self.deliver(Event::PreconditionChecked { target, precondition, holds: yes });
            }
            Upcoming::Inspected { target, roll } => {
                let inspection = match roll {
                    0 => Inspection::AtRest(RestReason::Operator),
                    1 => Inspection::AtRest(RestReason::Schedule),
                    _ => Inspection::Failed { is_deaf: roll < 4, is_listed: roll.is_multiple_of(2) },
                };
                self.oracle.inspected(&target, inspection, self.now);
                let pm2 = self.pm2(&target);
                self.deliver(Event::Inspected { target, inspection, pm2 });
            }
            Upcoming::ResetChecked { target, warranted } => {
                self.oracle.reset_checked(&target, warranted, self.now);
                self.deliver(Event::ResetChecked { target, is_warranted: warranted });
            }
            Upcoming::DiagnosisFinished { target, incident } => {
                self.oracle.diagnosis_finished(&target, self.now);
                self.deliver(Event::DiagnosisFinished { target, incident });
            }
            Upcoming::Proven { target, id, is_proven } => self.processes_proven(target, id, is_proven),
            Upcoming::TargetReturns { target } => self.return_target(&target),
            Upcoming::PauseCommandEnded { command } => self.request(Request::EndCommand { command }),
            Upcoming::Trouble => self.trouble(),
        }
    }

    fn verdict(&mut self, target: &str) -> Verdict {
        if self.frozen.contains(target) {
            return Verdict::Unhealthy { class: Class::Timeout, detail: "no byte".into() };
        }
        let flip = self.rng.u32(0..100);
        let backend = &self.backends[target];
        if backend.up_at.is_some_and(|at| at <= self.now) && flip >= backend.flaky {
            return Verdict::Healthy { detail: "200".into() };
        }
        match flip {
            97.. if self.scenario.disturbed => Verdict::Unknown { detail: "no descriptors".into() },
            _ => Verdict::Unhealthy { class: backend.class, detail: "no byte".into() },
        }
    }

    fn command_ends(&mut self, target: String, pid: u32, rung: usize, exit_roll: u8, duration_ms: i64) {
        let ran = self.running.remove(&pid);
        let exit = match exit_roll {
            _ if !ran => Exit::NotStarted("no such file".into()),
            0..6 => Exit::Exited(0),
            6 => Exit::Exited(3),
            7 => Exit::Killed(9),
            _ => Exit::TimedOut,
        };
        if ran {
            self.start_process(&target);
            self.replace_frozen(&target);
        }
        if let Some(backend) = self.backends.get_mut(&target)
            && backend.cured_by == Some(rung)
            && ran
        {
            backend.up_at = Some(self.now + backend.boot);
        }
        if self.awaited.remove(&pid) {
            let duration = Duration::from_millis(u64::try_from(duration_ms).unwrap_or(0));
            self.deliver(Event::CommandEnded { target, exit, duration });
        }
    }

    fn deliver(&mut self, event: Event) {
        let now = self.clock();
        if let Some(policy) = &mut self.policy {
            let actions = policy.step(event, now);
            self.execute(actions);
        }
        if let Some(policy) = &self.policy {
            self.removed
                .keys()
                .filter(|name| policy.target(name).is_none())
                .for_each(|name| self.oracle.released(name));
        }
        self.check_frozen();
    }

    fn save(&mut self) -> bool {
        let ok = !(self.scenario.disk_fails && self.rng.u8(0..8) == 0);
        if ok && let Some(policy) = &self.policy {
            let (at, wall, booted) = (self.now, self.wall(), self.booted);
            self.disk = Some(Disk { state: policy.state(), at, wall, booted });
            self.oracle.state_saved();
        }
        ok
    }

    /// The driver's duty: save first, then execute in order. The watchdog may be killed between any two actions.
    fn execute(&mut self, mut actions: Vec<Action>) {
        self.continue_processes(&actions);
        let must_save = actions.iter().any(Action::needs_save);
        let (ok, now) = (if must_save { self.save() } else { self.oracle.saved }, self.clock());
        self.oracle.saved = ok;
        let policy = self.policy.as_mut().filter(|_| must_save);
        let further = policy.map(|policy| policy.save_finished(ok, &mut actions, now)).unwrap_or_default();
        let stored = actions.iter().filter(|action| ok && action.needs_save() && **action != Action::Save);
        self.pending = stored.map(|action| (self.now, action.clone())).collect();
        for action in actions {
            if self.scenario.disturbed && self.rng.u16(0..500) == 0 {
                self.kill();
                return;
            }
            self.execute_one(action);
            if self.policy.is_none() {
                return;
            }
        }
        if !further.is_empty() {
            self.execute(further);
        }
    }

    fn execute_one(&mut self, action: Action) {
        match action {
            Action::Save | Action::ContinueProcesses { .. } => {}
            Action::ProveProcesses { target, id } => self.prove_processes(target, id),
            Action::StopProcesses { target, id, .. } => self.stop_processes(target, id),
            Action::Record { .. } | Action::Notify { .. } => {
                self.oracle.observe(&action, self.now);
                self.pending.drain(..self.pending.len().min(1));
            }
            Action::Probe { target, number } => {
                let timeout = i64::try_from(self.limits[&target].timeout.as_millis()).expect("a day at most");
                let up = self.backends[&target].up_at.is_some_and(|at| at <= self.now);
                let duration_ms = if up { self.rng.i64(0..=timeout / 2) } else { timeout };
                self.oracle.probe_begins(&target, number, self.now);
                self.schedule(self.now + duration_ms, Upcoming::ProbeFinished { target, number, duration_ms });
            }
            Action::CheckPrecondition { target, precondition } => {
                self.oracle.precondition_check_begins(&target);
                let (at, yes) = (self.now + self.rng.i64(0..10_000), self.rng.u8(0..3) > 0);
                self.schedule(at, Upcoming::PreconditionChecked { target, precondition, yes });
            }
            Action::Inspect { target } => {
                let (at, roll) = (self.now + self.rng.i64(0..20_000), self.rng.u8(0..12));
                self.schedule(at, Upcoming::Inspected { target, roll });
            }
            Action::CheckReset { target } => {
                self.oracle.reset_check_begins(&target);
                let (at, warranted) = (self.now + self.rng.i64(0..10_000), self.rng.bool());
                self.schedule(at, Upcoming::ResetChecked { target, warranted });
            }
            Action::Diagnose { target, incident } => {
                self.oracle.diagnosis_begins(&target, self.now);
                let at = self.now + self.rng.i64(0..15_000);
                self.schedule(at, Upcoming::DiagnosisFinished { target, incident });
            }
            Action::Run { target, attempt, rung, .. } => self.run(target, attempt, rung),
            Action::AdoptCommand { target, process: (pid, _), .. } => self.adopt(target, pid),
        }
    }

    /// The end of a running command is already scheduled.
    fn adopt(&mut self, target: String, pid: u32) {
        if self.running.contains(&pid) {
            self.awaited.insert(pid);
        } else {
            self.deliver(Event::CommandEnded { target, exit: Exit::Lost, duration: Duration::ZERO });
        }
    }

    fn run(&mut self, target: String, attempt: u32, rung: usize) {
        let missing = self.scenario.rungs_missing && self.rng.u8(0..3) == 0;
        self.oracle.command_begins(&target, attempt, rung, missing, self.now);
        let duration_ms = if missing { 0 } else { self.rng.i64(0..60_000) };
        let pid = u32::try_from(self.serial).expect("in range");
        let exit_roll = self.rng.u8(0..9);
        self.awaited.insert(pid);
        self.schedule(
            self.now + duration_ms,
            Upcoming::CommandEnded { target: target.clone(), pid, rung, exit_roll, duration_ms },
        );
        if missing {
            return;
        }
        self.running.insert(pid);
        if self.scenario.disturbed && self.rng.u8(0..50) == 0 {
            self.kill(); // before its pid was stored
        } else {
            self.deliver(Event::CommandStarted { target, process: (pid, 7) });
        }
    }
}

//! The loop: takes in what signals, looks and commands report, in one order; lets the policy decide; carries out.
//! It must never wait for anything but its inbox: what may take time is a job on a thread of its own.

mod accounts;
mod carry;
mod heartbeat;
mod inbox;
mod jobs;
mod keep;
mod messenger;
mod pm2;
mod publish;
mod reload;
mod spawn;
mod systemd;
mod upkeep;
mod uptime;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock;
use crate::command::Scope;
use crate::config::{Config, Hidden, Pm2, Probe, Secrets, Target};
use crate::logging::Logging;
use crate::policy::{self, Event, Limits, Policy, TargetState};
use crate::probe::{Prober, Trust};
use crate::signals::Signal;
use crate::store::complaints::Complaints;
use crate::store::lock::Lock;
use crate::store::state::{Loaded, Saved};
use crate::store::{self, Folder, Moment};
use crate::time::{ClockReading, Zone};

pub use inbox::Inbox;
pub use jobs::Message;
pub use messenger::means;
pub use pm2::calls_pm2;

/// The longest sleep: the lock's sign of life is given at least this often (the contract says every 30 s).
const ROUND: Duration = Duration::from_secs(29);

/// How the watchdog is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Works until it is told to stop.
    Daemon,
    /// Makes one tick.
    Tick,
}

/// What is told to whoever watches the watchdog at work: a line for each change that is news.
pub type News = Box<dyn FnMut(&str)>;

/// How the work came to its end.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Another watchdog has the state folder now: which one, in words.
    pub displaced_by: Option<String>,
    /// The state could not be saved at the end.
    pub unsaved: bool,
    /// The targets in the order of the configuration, as they were left.
    pub targets: Vec<(String, TargetState)>,
}

/// What one agent is made of.
pub struct Agent {
    mode: Mode,
    config: Arc<Config>,
    /// The command line's `--dry-run`, which a reload must not undo.
    dry_run: bool,
    probers: Probers,
    /// Probers of earlier configurations, and where their commands run, for as long as one does or may begin.
    replaced: Vec<(Weak<Prober>, Scope)>,
    policy: Policy,
    folder: Folder,
    lock: Lock,
    saved: Saved,
    disk: keep::Disk,
    boot_id: Option<String>,
    zone: Zone,
    logging: Option<Logging>,
    news: News,
    told: Option<Complaints>,
    inbox: Inbox,
    post: Sender<Message>,
    jobs: spawn::Jobs,
    upkeep: upkeep::Upkeep,
    pm2: pm2::Pm2Known,
    accounts: accounts::Accounts,
    messenger: messenger::Messenger,
    heartbeat: heartbeat::Heartbeat,
    publisher: publish::Publisher,
    systemd: systemd::Systemd,
    stopping: bool,
    /// Whether the policy was asked since it was last waited for something to happen.
    stepped: bool,
    displaced_by: Option<String>,
}

/// A prober for each target, and what it was made from.
type Probers = BTreeMap<String, (Arc<Prober>, Asked)>;

/// Everything that a prober depends on.
#[derive(Clone, PartialEq)]
struct Asked {
    probe: Probe,
    pm2: Option<Pm2>,
    timeout: Duration,
    env: Vec<(String, Hidden)>,
    secrets: Secrets,
    folder: PathBuf,
}

/// What an agent needs from its surroundings.
pub struct Surroundings {
    /// Where signals arrive, since before the lock was taken.
    pub inbox: Inbox,
    /// The state folder, locked.
    pub folder: Folder,
    /// The lock on it.
    pub lock: Lock,
    /// The log, to follow reloads.
    pub logging: Option<Logging>,
    /// Takes the news.
    pub news: News,
    /// What a tick has told already, where the state cannot say so.
    pub told: Option<Complaints>,
}

impl Agent {
    /// Makes ready for work: takes up the state.
    ///
    /// # Errors
    /// A probe cannot be made, or the state cannot be read; in words.
    pub fn new(mode: Mode, config: Config, dry_run: bool, around: Surroundings) -> Result<Agent, String> {
        let Surroundings { inbox, folder, lock, logging, news, told } = around;
        let probers = probers(&config, &Probers::new())?;
        let boot_id = clock::boot_id();
        let (now, wall) = (clock::now(), clock::wall());
        let moment = Moment { at: ClockReading { now, wall }, boot_id: boot_id.clone() };
        let (mut saved, lost) = take_up(&folder, &moment)?;
        let usual = saved.policy.ticks.usual_gap();
        let policy_mode = match mode {
            Mode::Daemon => policy::Mode::Daemon,
            Mode::Tick => policy::Mode::Tick,
        };
        let (mut policy, first) =
            Policy::new(policy_mode, limits(&config), std::mem::take(&mut saved.policy), lost.is_some(), now);
        for id in store::incidents::ids(&folder) {
            policy.remember_incident(id);
        }
        let mut agent = Agent {
            mode,
            config: Arc::new(config),
            dry_run,
            probers,
            replaced: Vec::new(),
            policy,
            folder,
            lock,
            saved,
            disk: keep::Disk::default(),
            boot_id,
            zone: clock::zone(),
            logging,
            news,
            told,
            post: inbox.post.clone(),
            jobs: spawn::Jobs::new(inbox.post.clone()),
            inbox,
            upkeep: upkeep::Upkeep::default(),
            pm2: pm2::Pm2Known::default(),
            accounts: accounts::Accounts::default(),
            messenger: messenger::Messenger::new(),
            heartbeat: heartbeat::Heartbeat::default(),
            publisher: publish::Publisher::default(),
            systemd: match mode {
                Mode::Daemon => systemd::Systemd::of_environment(),
                Mode::Tick => systemd::Systemd::default(),
            },
            stopping: false,
            stepped: false,
            displaced_by: None,
        };
        lost.iter().for_each(|lost| agent.say_once_a_day("lost state", lost));
        agent.begin(first, usual);
        Ok(agent)
    }

    /// Works until it is told to stop, or the tick is over.
    pub fn run(mut self) -> Ended {
        while !self.is_over() {
            self.keep_up();
            let done = clock::now();
            let message = self.inbox.next(self.pause());
            self.policy.waited(done, clock::now());
            self.stepped = false;
            if let Some(message) = message {
                self.take(message);
            }
            // Only the policy notices that the wait was too long, and the next wait hides it.
            if !self.stepped {
                self.step(Event::Wake);
            }
        }
        self.end_questions();
        self.end()
    }

    /// Whatever a probe or a question has left running ends with whoever asked; all at once, for each
    /// may take a second.
    fn end_questions(&self) {
        Scope::end_all(&self.questions());
    }

    /// In which all that must not outlive us is run.
    fn questions(&self) -> Vec<Scope> {
        let probes = self.probers.values().filter_map(|(prober, _)| prober.scope());
        let replaced = self.replaced.iter().map(|(_, scope)| scope);
        probes.chain(replaced).chain(self.jobs.scopes()).cloned().collect()
    }

    /// Takes these probers; what the others run goes on until its deadline, or until we end.
    fn replace_probers(&mut self, probers: Probers) {
        for (name, (old, _)) in std::mem::replace(&mut self.probers, probers) {
            let is_kept = self.probers.get(&name).is_some_and(|(new, _)| Arc::ptr_eq(new, &old));
            if let Some(scope) = old.scope().filter(|_| !is_kept) {
                self.replaced.push((Arc::downgrade(&old), scope.clone()));
            }
        }
    }

    fn forget_replaced(&mut self) {
        self.replaced.retain(|(prober, scope)| prober.strong_count() > 0 || !scope.is_empty());
    }

    fn is_over(&mut self) -> bool {
        let now = clock::now();
        let is_publishing = self.publisher.is_at_work(now) || self.owes_publication(now);
        let is_finding = !self.policy.is_idle() || self.accounts.is_finding(now);
        let is_at_work = match (self.stopping, self.mode) {
            (true, _) => self.policy.is_repairing(),
            (false, Mode::Tick) => is_finding || is_publishing || self.owes_ping(now),
            (false, Mode::Daemon) => true,
        };
        let is_pinging = self.heartbeat.is_under_way() && !self.stopping;
        let is_telling = self.messenger.keeps_us(is_pinging, is_at_work, now);
        self.is_displaced() || !(is_at_work || is_telling)
    }

    /// Whether the state folder is another watchdog's by now: nothing is ours to do any more.
    fn is_displaced(&self) -> bool {
        self.displaced_by.is_some()
    }

    /// How long nothing needs to be done unless something happens.
    fn pause(&self) -> Duration {
        let now = clock::now();
        let until = self.policy.next_wake().map_or(ROUND, |wake| wake.since(now));
        let until = until.min(self.upkeep.pause(now));
        let until = self.accounts.pause(now).map_or(until, |found| until.min(found));
        let until = self.until_sending(now).map_or(until, |sent| until.min(sent));
        let until = self.until_ping(now).map_or(until, |sent| until.min(sent));
        let until = self.until_publication(now).map_or(until, |written| until.min(written));
        let until = self.jobs.pause().map_or(until, |late| until.min(late));
        self.systemd.pause(now).map_or(until, |sign| until.min(sign))
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Signal(Signal::Stop) => self.stop(),
            Message::Signal(Signal::Reload) => self.reload(),
            // They are reaped in each round.
            Message::Signal(Signal::Child) => {}
            Message::Signal(Signal::Save) => {
                self.carry_out_orders();
                self.save(false);
            }
            Message::Looked { target, number, mut look } => {
                self.note_answer(&target, &look);
                self.note_file(&target, &look);
                self.accounts.note_look(&target, &mut look);
                self.heartbeat.note_look();
                let stamp = self.zone.incident(clock::wall());
                log::debug!(
                    "{target} {}: {} in {} ms",
                    look.verdict.as_str(),
                    look.verdict.detail(),
                    look.latency.as_millis()
                );
                let condition = |agent: &Agent| agent.policy.target(&target).map(|state| state.condition);
                let before = condition(self);
                let last = self.policy.target(&target).and_then(|state| state.last_look.clone());
                self.step(Event::Looked { target: target.clone(), number, look, stamp });
                self.note_span(&target, last.as_ref());
                self.publisher.note(before != condition(self));
            }
            Message::Inspected { target, found } => self.inspected(target, found.map(|found| *found)),
            Message::ResetChecked { target, reason } => {
                let warranted = self.pm2.note_reason(&target, reason);
                self.step(Event::Weighed { target, warranted });
            }
            Message::Kept { target, incident, doing, said } => self.kept(&target, &incident, doing, said),
            Message::Searched(found) => self.searched(found),
            Message::Snapshot(machine) => self.snapshot(&machine),
            Message::Sent { channel, outcome } => self.sent(&channel, outcome),
            Message::Pinged(outcome) => self.pinged(outcome),
            Message::Published(trouble) => self.published(trouble),
            Message::Event(event) => self.step(event),
        }
    }

    /// The first order to stop lets a restart command finish, the second does not wait for it.
    fn stop(&mut self) {
        if self.stopping {
            log::warn!("told to stop again: waiting for nothing");
            Scope::kill_all(&self.questions());
            self.give_deliveries_up();
            self.save(true);
            std::process::exit(0);
        }
        self.stopping = true;
        self.systemd.stopping();
        self.step(Event::Stopping);
        if self.policy.is_repairing() {
            log::info!("told to stop: waiting for the restart command that runs, then ending");
        }
    }

    fn step(&mut self, event: Event) {
        self.stepped = true;
        let now = clock::now();
        if self.inbox.continued.take() {
            self.policy.was_stopped(now);
        }
        let actions = self.policy.step(event, now);
        self.carry_out(actions);
    }

    /// The configuration of a target that is in it.
    fn target(&self, name: &str) -> Option<&Target> {
        self.config.targets.iter().find(|target| target.name == name)
    }
}

fn limits(config: &Config) -> BTreeMap<String, Limits> {
    config.targets.iter().map(|target| (target.name.clone(), target.limits.clone())).collect()
}

/// A prober for each target, taken from `old` where nothing about the look has changed: what hangs in it hangs still.
/// Certificates are read anew, so an https prober is always a new one.
fn probers(config: &Config, old: &Probers) -> Result<Probers, String> {
    let trust = Trust::default();
    let mut probers = Probers::new();
    for target in &config.targets {
        let asked = Asked {
            probe: target.probe.clone(),
            pm2: target.pm2.clone(),
            timeout: target.limits.timeout,
            env: config.env.clone(),
            secrets: config.secrets.clone(),
            folder: config.folder.clone(),
        };
        let same = old.get(&target.name).filter(|(_, before)| *before == asked && !asked.probe.is_https());
        let prober = match same {
            Some((prober, _)) => Arc::clone(prober),
            None => {
                let Asked { probe, pm2, timeout, env, secrets, folder } = &asked;
                let prober = Prober::new(probe, pm2.as_ref(), *timeout, folder, env, secrets, &trust);
                Arc::new(prober.map_err(|error| format!("{}: {error}", target.name))?)
            }
        };
        probers.insert(target.name.clone(), (prober, asked));
    }
    Ok(probers)
}

/// What the watchdog before this one left; and in words, if what it knew of its attempts is lost.
fn take_up(folder: &Folder, moment: &Moment) -> Result<(Saved, Option<String>), String> {
    match store::state::load(folder, moment).map_err(|error| error.to_string())? {
        Loaded::Fresh => Ok((Saved::default(), None)),
        Loaded::Read(mut saved) => {
            if let Err(error) = store::events::append_missing(folder, &saved.pending) {
                log::warn!("{error} (the latest events are missing in it)");
            }
            jobs::find_commands(folder, &mut saved.policy);
            Ok((*saved, None))
        }
        Loaded::SetAside { to, why } => {
            let kept = format!("it is kept as {}", to.display());
            let lost = format!("{why}; {kept}. What was restarted lately is not known: nothing is for max_cooldown");
            log::error!("{lost}");
            Ok((Saved::default(), Some(lost)))
        }
    }
}

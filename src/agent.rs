//! The loop: takes in what signals, looks and commands report, in one order; lets the policy decide; carries out.
//! It must never wait for anything but its inbox and one save a pass: what may take time is a job on a thread of its
//! own.

mod commit;
mod findings;
mod heartbeat;
mod inbox;
mod incidents;
mod jobs;
mod journal;
mod maintenance;
mod message;
mod messenger;
mod news;
mod pm2;
mod probers;
mod publish;
mod reload;
mod requests;
mod spawn;
mod systemd;
mod uptime;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use crate::clock;
use crate::command::Scope;
use crate::config::{Config, Target};
use crate::logging::Logging;
use crate::policy::{Action, Event, Limits, Mode, Policy, Status, TargetState};
use crate::process;
use crate::signals::Signal;
use crate::store::events::EventKind;
use crate::store::lock::Lock;
use crate::store::repeat_filter::RepeatFilter;
use crate::store::state::TargetView;
use crate::store::{self, Folder};
use crate::time::{Zone, millis};

use journal::{Against, Journal};
use news::{News, NewsKind};

pub use inbox::Inbox;
pub use message::Message;
pub use messenger::delivery_of;
pub use news::Print;
pub use pm2::calls_pm2;

/// The longest sleep: the lock's sign of life is given at least this often (the contract says every 30 s).
const ROUND: Duration = Duration::from_secs(29);

#[derive(Clone, Debug)]
pub struct RunResult {
    /// Another watchdog has the state folder now: which one, in words.
    pub displaced_by: Option<String>,
    /// The state could not be saved at the end.
    pub unsaved: bool,
    /// The targets in the order of the configuration, as they were left.
    pub targets: Vec<(String, TargetState)>,
}

/// The loop, and the parts that it drives.
pub struct Agent {
    mode: Mode,
    config: Arc<Config>,
    /// By name: where the configuration has it.
    places: HashMap<String, usize>,
    /// The command line's `--dry-run`, which a reload must not undo.
    dry_run: bool,
    policy: Policy,
    /// What the policy has decided and nobody has carried out yet.
    decided: Vec<Action>,
    journal: Journal,
    incidents: incidents::Incidents,
    /// The incidents that wait for the snapshot that is being taken, with their targets.
    snapshot_for: Vec<(String, String)>,
    messenger: messenger::Messenger,
    news: News,
    publisher: publish::Publisher,
    heartbeat: heartbeat::Heartbeat,
    systemd: systemd::Systemd,
    probers: probers::Probers,
    jobs: spawn::Jobs,
    pm2: pm2::Pm2Known,
    requests: requests::RequestProgress,
    maintenance: maintenance::Maintenance,
    zone: Zone,
    logging: Option<Logging>,
    inbox: Inbox,
    post: Sender<Message>,
    stopping: bool,
    /// Whether the policy was asked since it was last waited for something to happen.
    stepped: bool,
}

pub struct AgentSetup {
    /// Where signals arrive, since before the lock was taken.
    pub inbox: Inbox,
    pub folder: Folder,
    pub lock: Lock,
    pub logging: Option<Logging>,
    pub news: Print,
    /// What a tick has told already, where the state cannot say so.
    pub told: Option<RepeatFilter>,
}

impl Agent {
    /// Takes up the state. Errors: a probe cannot be made, or the state cannot be read; in words.
    pub fn new(mode: Mode, config: Config, dry_run: bool, around: AgentSetup) -> Result<Agent, String> {
        let AgentSetup { inbox, folder, lock, logging, news, told } = around;
        let probers = probers::Probers::new(&config)?;
        let (mut journal, lost) = Journal::open(mode, folder, lock)?;
        let mut state = std::mem::take(&mut journal.saved.policy);
        jobs::find_commands(journal.folder(), &mut state);
        let usual = state.ticks.usual_gap();
        let (mut policy, first) = Policy::new(mode, limits(&config), state, lost.is_some(), clock::now());
        for id in store::incidents::ids(journal.folder()) {
            policy.remember_incident(id);
        }
        let mut agent = Agent {
            mode,
            places: places(&config),
            config: Arc::new(config),
            dry_run,
            policy,
            decided: Vec::new(),
            journal,
            incidents: incidents::Incidents::default(),
            snapshot_for: Vec::new(),
            messenger: messenger::Messenger::new(),
            news: News::new(news, told),
            publisher: publish::Publisher::default(),
            heartbeat: heartbeat::Heartbeat::default(),
            systemd: match mode {
                Mode::Daemon => systemd::Systemd::of_environment(),
                Mode::Once => systemd::Systemd::default(),
            },
            probers,
            jobs: spawn::Jobs::new(inbox.post.clone()),
            pm2: pm2::Pm2Known::default(),
            requests: requests::RequestProgress::default(),
            maintenance: maintenance::Maintenance::default(),
            zone: clock::zone(),
            logging,
            post: inbox.post.clone(),
            inbox,
            stopping: false,
            stepped: false,
        };
        lost.iter().for_each(|lost| agent.news.say_once_a_day("lost state", lost));
        agent.begin(first, usual);
        Ok(agent)
    }

    /// Takes up the work: says so, heeds the orders that wait, and does what the policy asks for first.
    /// `usual`: how far apart the ticks before this one were.
    fn begin(&mut self, first: Vec<Action>, usual: Option<Duration>) {
        let gap = self.config.targets.iter().map(|target| target.limits.gap()).min();
        self.journal.note_absence(gap, usual);
        self.take_search_up();
        self.incidents.take_up(&self.policy, &self.journal);
        let saved = &mut self.journal.saved;
        (saved.mode, saved.pid) = (Some(self.mode), Some(std::process::id()));
        (saved.started, saved.stopped) = (Some(clock::wall()), false);
        self.show();
        if self.mode == Mode::Daemon {
            let (version, pid) = (env!("CARGO_PKG_VERSION").to_string(), std::process::id());
            self.journal.note_own(EventKind::Started { version, pid });
        }
        self.tell_off();
        // The policy has closed already what a watchdog before us left open: it must not be saved without its events.
        self.decide(first);
        self.commit_now();
        self.apply_requests();
    }

    pub fn run(mut self) -> RunResult {
        while !self.is_over() {
            self.run_maintenance();
            let done = clock::now();
            let messages = self.inbox.take(self.pause());
            self.policy.waited(done, clock::now());
            self.stepped = false;
            for message in messages {
                self.take(message);
            }
            // Only the policy notices that the wait was too long, and the next wait hides it.
            if !self.stepped {
                self.step(Event::Wake);
            }
            self.commit();
        }
        self.end_questions();
        self.end()
    }

    fn is_over(&mut self) -> bool {
        let now = clock::now();
        let is_publishing = self.publisher.is_at_work(now) || self.owes_publication(now);
        let is_finding = !self.policy.is_idle() || self.incidents.is_finding(now);
        let is_at_work = match (self.stopping, self.mode) {
            (true, _) => self.policy.is_repairing(),
            (false, Mode::Once) => is_finding || is_publishing || self.owes_ping(now),
            (false, Mode::Daemon) => true,
        };
        let is_pinging = self.heartbeat.is_under_way() && !self.stopping;
        let is_telling = self.messenger.keeps_us(is_pinging, is_at_work, now);
        self.journal.is_displaced() || !(is_at_work || is_telling) && self.is_settled()
    }

    /// How long nothing needs to be done unless something happens.
    fn pause(&self) -> Duration {
        let now = clock::now();
        let until = [
            self.policy.next_wake().map(|wake| wake.since(now)),
            self.journal.until_save(now),
            self.incidents.pause(now),
            self.until_sending(now),
            self.until_ping(now),
            self.until_publication(now),
            self.jobs.pause(),
            self.systemd.pause(now),
        ];
        until.into_iter().flatten().fold(self.maintenance.pause(now), Duration::min)
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Signal(Signal::Stop) => self.stop(),
            Message::Signal(Signal::Reload) => self.reload(),
            Message::Signal(Signal::Child) => process::reap_orphans(),
            Message::Signal(Signal::Save) => {
                self.apply_requests();
                self.journal.want(Against::Crash);
                self.commit_now();
            }
            Message::ProbeFinished { target, number, look } => self.probe_finished(target, number, look),
            Message::Pm2Inspected { target, found } => self.inspected(target, found.map(|found| *found)),
            Message::ResetChecked { target, reason } => {
                let warranted = self.pm2.note_reason(&target, reason);
                self.step(Event::ResetChecked { target, warranted });
            }
            Message::Kept { target, incident, doing, said } => self.kept(&target, &incident, doing, said),
            Message::Searched(found) => self.searched(found),
            Message::Snapshot(machine) => self.snapshot(&machine),
            Message::Sent { channel, outcome } => self.sent(&channel, outcome),
            Message::Pinged(outcome) => self.pinged(outcome),
            Message::Published(trouble) => self.publisher.published(trouble),
            Message::Event(event) => self.step(event),
        }
    }

    /// The first order to stop lets a restart command finish, the second does not wait for it.
    fn stop(&mut self) {
        self.commit_now();
        if self.stopping {
            log::warn!("told to stop again: waiting for nothing");
            Scope::kill_all(&self.questions());
            self.messenger.give_up(&mut self.journal);
            self.end_journal();
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
        self.decide(actions);
    }

    /// Ends what probes and questions have left running; all at once, for each may take a second.
    fn end_questions(&self) {
        Scope::end_all(&self.questions());
    }

    /// In which all that must not outlive us is run.
    fn questions(&self) -> Vec<Scope> {
        self.probers.scopes().chain(self.jobs.scopes()).cloned().collect()
    }

    fn end(mut self) -> RunResult {
        self.messenger.give_up(&mut self.journal);
        if !self.journal.is_displaced() {
            if self.mode == Mode::Daemon {
                self.journal.saved.stopped = true;
                self.journal.note_own(EventKind::Stopped { reason: "told to stop".into() });
            }
            self.end_journal();
            match self.mode {
                Mode::Daemon => {
                    self.publish_end();
                    log::info!("watchdog stopped (pid {})", std::process::id());
                }
                Mode::Once if !self.journal.is_ok() => {
                    self.tell_failing();
                    self.forget_what_is_over();
                }
                Mode::Once => {}
            }
        }
        let left = |target: &Target| Some((target.name.clone(), self.policy.target(&target.name)?.clone()));
        let targets = self.config.targets.iter().filter_map(left).collect();
        let displaced_by = self.journal.displaced_by().map(str::to_owned);
        RunResult { displaced_by, unsaved: !self.journal.is_ok(), targets }
    }

    fn end_journal(&mut self) {
        if self.journal.is_displaced() {
            return;
        }
        while !self.incidents.is_written() {
            self.write_incidents();
        }
        self.journal.want_last();
        self.save(&[]);
        self.journal.record(&[]);
    }

    /// Where ticks cannot count together, one that fails may never be called down, and is told all the same. So is one
    /// that was told to be up again, which the state does not know.
    fn tell_failing(&mut self) {
        let wall = clock::wall();
        let was_up = |target: &str| {
            self.news.told_of(target, NewsKind::Recovery).is_some_and(|recovery| recovery.was_anything_printed(wall))
        };
        let failing = |target: &Target| {
            let state = self.policy.target(&target.name)?;
            let what = match state.status {
                Status::Failing => "fails",
                Status::Down | Status::Recovering if was_up(&target.name) => "is down again",
                _ => return None,
            };
            let detail = state.last_probe.as_ref().map_or("", |look| look.verdict.detail());
            let why = "ticks cannot count together while the state is not saved";
            Some((target.name.clone(), format!("{} {what}: {detail} ({why})", target.name)))
        };
        let failing: Vec<_> = self.config.targets.iter().filter_map(failing).collect();
        failing.iter().for_each(|(target, line)| self.news.say(target, NewsKind::Outage, "failing", line, false));
    }

    /// The state does not know that an outage has ended or begun: should it come again, only its notes can say so.
    fn forget_what_is_over(&self) {
        let wall = clock::wall();
        for target in &self.config.targets {
            let Some(state) = self.policy.target(&target.name) else { continue };
            let is_healthy = state.last_probe.as_ref().is_some_and(|look| look.verdict.is_healthy());
            let over = match state.status {
                Status::Healthy if is_healthy => NewsKind::Outage,
                condition if condition.is_trouble() => NewsKind::Recovery,
                _ => continue,
            };
            if let Some(told) = self.news.told_of(&target.name, over) {
                told.forget_this_round(wall);
            }
        }
    }

    fn show(&mut self) {
        let shown = |(order, target): (usize, &Target)| {
            let limits = &target.limits;
            let shown = TargetView {
                order,
                threshold: limits.failure_threshold,
                window_ms: u64::try_from(millis(limits.restart_window)).unwrap_or(0),
                repairs: limits.rungs > 0,
                dry_run: limits.dry_run,
                depends_on: limits.depends_on.clone(),
            };
            (target.name.clone(), shown)
        };
        let saved = &mut self.journal.saved;
        saved.shown = self.config.targets.iter().enumerate().map(shown).collect();
        let shown = &saved.shown;
        self.incidents.retain(|name| shown.contains_key(name), &self.policy.open_incidents());
        saved.history.retain(|name| shown.contains_key(name));
        saved.counts.retain(|name, _| shown.contains_key(name));
        saved.told_of_flapping.retain(|name, _| shown.contains_key(name));
        saved.undecided.retain(|name, _| shown.contains_key(name));
        saved.files.retain(|name, _| shown.contains_key(name));
        saved.channels = self.config.notify.len();
        saved.config = Some(self.config.path.clone());
        saved.config_written = self.config.written;
        saved.log = Some(self.config.log.file.clone());
    }

    fn target(&self, name: &str) -> Option<&Target> {
        self.config.targets.get(*self.places.get(name)?)
    }
}

fn limits(config: &Config) -> BTreeMap<String, Limits> {
    config.targets.iter().map(|target| (target.name.clone(), target.limits.clone())).collect()
}

fn places(config: &Config) -> HashMap<String, usize> {
    config.targets.iter().enumerate().map(|(place, target)| (target.name.clone(), place)).collect()
}

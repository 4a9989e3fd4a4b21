//! The main loop: takes the messages of signals and jobs one by one, has the policy decide, and carries out its
//! actions. It must never wait for anything but its inbox and one save a pass: whatever may take time is a job on
//! another thread.

mod commit;
mod drill;
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
mod pm2_log;
mod pool;
mod probers;
mod publish;
mod reload;
mod requests;
mod systemd;
mod unit;
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

use journal::{Durability, Journal};
use news::{News, NewsKind};

pub use inbox::Inbox;
pub use message::Message;
pub use messenger::delivery_settings;
pub use news::Print;
pub use pm2::calls_pm2;
pub use unit::unit_query;

/// The longest sleep of the loop: the contract promises that the lock file is touched at least every 30 s.
const MAX_SLEEP: Duration = Duration::from_secs(29);

#[derive(Clone, Debug)]
pub struct RunResult {
    /// Another watchdog has taken over the state folder: a description of it.
    pub displaced_by: Option<String>,
    /// The last save of the state failed.
    pub unsaved: bool,
    /// The final state of each target, in the order of the configuration.
    pub targets: Vec<(String, TargetState)>,
}

/// The loop, and the parts that it drives.
pub struct Agent {
    mode: Mode,
    config: Arc<Config>,
    /// By target: its index in the configuration.
    indexes: HashMap<String, usize>,
    /// `--dry-run` of the command line, which holds across reloads.
    dry_run: bool,
    policy: Policy,
    /// Decided by the policy, not carried out yet.
    pending_actions: Vec<Action>,
    journal: Journal,
    incidents: incidents::Incidents,
    /// The (target, incident) pairs that wait for the snapshot that is being taken.
    awaiting_snapshot: Vec<(String, String)>,
    messenger: messenger::Messenger,
    news: News,
    publisher: publish::Publisher,
    heartbeat: heartbeat::Heartbeat,
    systemd: systemd::Systemd,
    probers: probers::Probers,
    jobs: pool::Jobs,
    pm2: pm2::Pm2Findings,
    units: unit::UnitFindings,
    log_readers: pm2_log::LogReaders,
    requests: requests::RequestProgress,
    maintenance: maintenance::Maintenance,
    zone: Zone,
    logging: Option<Logging>,
    inbox: Inbox,
    post: Sender<Message>,
    stopping: bool,
    /// Whether the policy was stepped in this pass.
    has_stepped: bool,
}

pub struct AgentSetup {
    /// Opened before the lock was taken, so that no signal is lost.
    pub inbox: Inbox,
    pub folder: Folder,
    pub lock: Lock,
    pub logging: Option<Logging>,
    pub news: Print,
    /// What earlier ticks have printed, noted outside the state, which may fail to be saved. `None` for a daemon.
    pub repeats: Option<RepeatFilter>,
}

impl Agent {
    /// Loads the state and resumes from it. Errors: a prober cannot be made, or the state cannot be read.
    pub fn new(mode: Mode, config: Config, dry_run: bool, setup: AgentSetup) -> Result<Agent, String> {
        let AgentSetup { inbox, folder, lock, logging, news, repeats: told } = setup;
        let probers = probers::Probers::new(&config)?;
        let (mut journal, lost) = Journal::open(mode, folder, lock)?;
        let mut state = std::mem::take(&mut journal.saved.policy);
        jobs::find_unnoted_commands(journal.folder(), &mut state);
        let usual_gap = state.ticks.usual_gap();
        let (mut policy, first) = Policy::new(mode, limits(&config), state, lost.is_some(), clock::now());
        for id in store::incidents::list_ids(journal.folder()) {
            policy.remember_incident(id);
        }
        let mut agent = Agent {
            mode,
            indexes: indexes(&config),
            config: Arc::new(config),
            dry_run,
            policy,
            pending_actions: Vec::new(),
            journal,
            incidents: incidents::Incidents::default(),
            awaiting_snapshot: Vec::new(),
            messenger: messenger::Messenger::new(),
            news: News::new(news, told),
            publisher: publish::Publisher::default(),
            heartbeat: heartbeat::Heartbeat::default(),
            systemd: match mode {
                Mode::Daemon => systemd::Systemd::from_environment(),
                Mode::Once => systemd::Systemd::default(),
            },
            probers,
            jobs: pool::Jobs::new(inbox.post.clone()),
            pm2: pm2::Pm2Findings::default(),
            units: unit::UnitFindings::default(),
            log_readers: pm2_log::LogReaders::default(),
            requests: requests::RequestProgress::default(),
            maintenance: maintenance::Maintenance::default(),
            zone: clock::zone(),
            logging,
            post: inbox.post.clone(),
            inbox,
            stopping: false,
            has_stepped: false,
        };
        lost.iter().for_each(|lost| agent.news.print_once_a_day("lost state", lost));
        agent.start(first, usual_gap);
        Ok(agent)
    }

    /// Logs the start, carries out the policy's first actions, and applies waiting requests.
    /// `usual_gap`: the usual time between earlier ticks.
    fn start(&mut self, first: Vec<Action>, usual_gap: Option<Duration>) {
        let gap = self.config.targets.iter().map(|target| target.limits.gap()).min();
        self.journal.note_absence(gap, usual_gap);
        self.reuse_recent_search();
        self.incidents.restore(&self.policy, &self.journal);
        let saved = &mut self.journal.saved;
        (saved.mode, saved.pid) = (Some(self.mode), Some(std::process::id()));
        (saved.started, saved.stopped) = (Some(clock::wall()), false);
        self.note_configuration();
        if self.mode == Mode::Daemon {
            let (version, pid) = (env!("CARGO_PKG_VERSION").to_string(), std::process::id());
            self.journal.note_own_event(EventKind::Started { version, pid });
        }
        self.report_disabled_channels();
        // Policy::new may have closed an attempt of an earlier watchdog: that must not be saved without its events.
        self.accept_actions(first);
        self.commit_now();
        self.apply_requests();
    }

    pub fn run(mut self) -> RunResult {
        while !self.is_finished() {
            self.run_maintenance();
            let wait_began = clock::now();
            let messages = self.inbox.take(self.until_wake());
            self.policy.wait_ended(wait_began, clock::now());
            self.has_stepped = false;
            for message in messages {
                self.handle(message);
            }
            // The policy must see each wait that lasted too long before the next wait hides it.
            if !self.has_stepped {
                self.step(Event::Wake);
            }
            self.commit();
            self.log_ordered_restarts();
        }
        self.end_owned_commands();
        self.finish()
    }

    fn is_finished(&mut self) -> bool {
        let now = clock::now();
        let is_reading = self.log_readers.is_awaited(now);
        let is_publishing = self.publisher.is_awaited(now) || self.is_publication_due(now);
        let is_probing = !self.policy.is_idle() || self.incidents.is_awaiting_jobs(now);
        let has_work = match (self.stopping, self.mode) {
            (true, _) => self.policy.is_repairing(),
            (false, Mode::Once) => is_probing || is_reading || is_publishing || self.is_heartbeat_due(now),
            (false, Mode::Daemon) => true,
        };
        let is_pinging = self.heartbeat.is_being_sent() && !self.stopping;
        let is_sending = self.messenger.must_wait(is_pinging, has_work, now);
        self.journal.is_displaced() || !(has_work || is_sending) && self.is_settled()
    }

    /// How long the loop may sleep if no message arrives.
    fn until_wake(&self) -> Duration {
        let now = clock::now();
        let until = [
            self.policy.next_wake().map(|wake| wake.since(now)),
            self.journal.until_save(now),
            self.incidents.until_due(now),
            self.until_delivery(now),
            self.until_heartbeat(now),
            self.until_publication(now),
            self.jobs.until_deadline(),
            self.log_readers.until_due(now),
            self.systemd.until_sign_of_life(now),
        ];
        until.into_iter().flatten().fold(self.maintenance.until_touch(now), Duration::min)
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Signal(Signal::Stop) => self.stop(),
            Message::Signal(Signal::Reload) => drop(self.reload()),
            Message::Signal(Signal::Child) => process::reap_orphans(),
            Message::Signal(Signal::Save) => {
                self.apply_requests();
                self.journal.request_save(Durability::ProcessCrash);
                self.commit_now();
            }
            Message::ProbeFinished { target, number, result } => self.probe_finished(target, number, result),
            Message::Pm2Inspected { target, findings } => self.pm2_inspected(target, findings),
            Message::UnitInspected { target, found } => self.unit_inspected(target, found),
            Message::ResetChecked { target, reason } => {
                let has_reason = self.pm2.note_reset_reason(&target, reason);
                self.step(Event::ResetChecked { target, is_warranted: has_reason });
            }
            Message::Pm2LogsSaved { target, incident, activity, last_line } => {
                self.pm2_logs_saved(&target, &incident, activity, last_line);
            }
            Message::Pm2LogRead { home, read } => self.pm2_log_read(home, read.map(|read| *read)),
            Message::ExecutablesSearched(found) => self.executables_searched(found),
            Message::SnapshotTaken(machine) => self.snapshot_taken(&machine),
            Message::DeliveryFinished { channel, outcome } => self.delivery_finished(&channel, outcome),
            Message::HeartbeatSent(outcome) => self.heartbeat_sent(outcome),
            Message::Published(error) => self.publisher.finish_writing(error),
            Message::Event(event) => self.step(event),
        }
    }

    /// The first signal to stop lets a running restart command finish; the second ends the watchdog at once.
    fn stop(&mut self) {
        self.commit_now();
        if self.stopping {
            log::warn!("second signal to stop: ending at once");
            Scope::kill_all(&self.owned_scopes());
            self.messenger.abandon_deliveries(&mut self.journal);
            self.close_journal();
            std::process::exit(0);
        }
        self.stopping = true;
        self.systemd.stopping();
        self.step(Event::Stopping);
        if self.policy.is_repairing() {
            log::info!("signal to stop: ending when the running restart command has finished");
        }
    }

    fn step(&mut self, event: Event) {
        self.has_stepped = true;
        let now = clock::now();
        if self.inbox.continued.take() {
            self.policy.was_suspended(now);
        }
        let actions = self.policy.step(event, now);
        self.accept_actions(actions);
    }

    /// Ends the commands of probes and checks that still run; all at once, since each may take a second.
    fn end_owned_commands(&self) {
        Scope::end_all(&self.owned_scopes());
    }

    /// The scopes of all commands that must not outlive the watchdog.
    fn owned_scopes(&self) -> Vec<Scope> {
        self.probers.scopes().chain(self.jobs.scopes()).cloned().collect()
    }

    fn finish(mut self) -> RunResult {
        self.messenger.abandon_deliveries(&mut self.journal);
        if !self.journal.is_displaced() {
            if self.mode == Mode::Daemon {
                self.journal.saved.stopped = true;
                self.journal.note_own_event(EventKind::Stopped { reason: "signal to stop".into() });
            }
            self.close_journal();
            match self.mode {
                Mode::Daemon => {
                    self.publish_final_page();
                    log::info!("watchdog stopped (pid {})", std::process::id());
                }
                Mode::Once if !self.journal.is_saved() => {
                    self.print_failing_targets();
                    self.forget_outdated_news();
                }
                Mode::Once => {}
            }
        }
        let final_state = |target: &Target| Some((target.name.clone(), self.policy.target(&target.name)?.clone()));
        let targets = self.config.targets.iter().filter_map(final_state).collect();
        let displaced_by = self.journal.displaced_by().map(str::to_owned);
        RunResult { displaced_by, unsaved: !self.journal.is_saved(), targets }
    }

    fn close_journal(&mut self) {
        if self.journal.is_displaced() {
            return;
        }
        while !self.incidents.is_written() {
            self.write_incidents();
        }
        self.journal.request_final_save();
        self.save(&[]);
        self.journal.write_events(&[]);
    }

    /// Prints the targets that fail although the state cannot record it: without a saved count no tick may ever reach
    /// the threshold, and the state may still contain an outage whose end was already printed.
    fn print_failing_targets(&mut self) {
        let wall = clock::wall();
        let was_recovery_printed = |target: &str| {
            self.news.filter_for(target, NewsKind::Recovery).is_some_and(|filter| filter.was_anything_printed(wall))
        };
        let failing = |target: &Target| {
            let state = self.policy.target(&target.name)?;
            let what = match state.status {
                Status::Failing => "is failing",
                Status::Down | Status::Recovering if was_recovery_printed(&target.name) => "is down again",
                _ => return None,
            };
            let detail = state.last_probe.as_ref().map_or("", |probe| probe.verdict.detail());
            let why = "failures cannot be counted across ticks while the state cannot be saved";
            Some((target.name.clone(), format!("{} {what}: {detail} ({why})", target.name)))
        };
        let failing: Vec<_> = self.config.targets.iter().filter_map(failing).collect();
        failing
            .iter()
            .for_each(|(target, line)| self.news.print_if_new(target, NewsKind::Outage, "failing", line, false));
    }

    /// An outage that has ended or begun is not in the state: its notes must go, so that the next one is printed again.
    fn forget_outdated_news(&self) {
        let wall = clock::wall();
        for target in &self.config.targets {
            let Some(state) = self.policy.target(&target.name) else { continue };
            let is_healthy = state.last_probe.as_ref().is_some_and(|probe| probe.verdict.is_healthy());
            let outdated = match state.status {
                Status::Healthy if is_healthy => NewsKind::Outage,
                status if status.is_trouble() => NewsKind::Recovery,
                _ => continue,
            };
            if let Some(filter) = self.news.filter_for(&target.name, outdated) {
                filter.reset_round(wall);
            }
        }
    }

    /// Notes in the state what other commands show of the configuration, and drops what belongs to removed targets.
    fn note_configuration(&mut self) {
        let view = |(order, target): (usize, &Target)| {
            let limits = &target.limits;
            let view = TargetView {
                order,
                threshold: limits.failure_threshold,
                window_ms: u64::try_from(millis(limits.restart_window)).unwrap_or(0),
                has_restart_commands: limits.rungs > 0,
                dry_run: limits.dry_run,
                depends_on: limits.depends_on.clone(),
                slow_ms: limits.slow.and_then(|slow| u64::try_from(millis(slow)).ok()),
            };
            (target.name.clone(), view)
        };
        let saved = &mut self.journal.saved;
        saved.views = self.config.targets.iter().enumerate().map(view).collect();
        let shown = &saved.views;
        self.incidents.retain(|name| shown.contains_key(name), &self.policy.open_incidents());
        saved.history.retain(|name| shown.contains_key(name));
        saved.counts.retain(|name, _| shown.contains_key(name));
        saved.flapping_notified.retain(|name, _| shown.contains_key(name));
        saved.undecided.retain(|name, _| shown.contains_key(name));
        saved.files.retain(|name, _| shown.contains_key(name));
        saved.channels = self.config.notify.len();
        saved.config = Some(self.config.path.clone());
        saved.config_modified = self.config.modified;
        saved.log = Some(self.config.log.file.clone());
    }

    fn target(&self, name: &str) -> Option<&Target> {
        self.config.targets.get(*self.indexes.get(name)?)
    }
}

fn limits(config: &Config) -> BTreeMap<String, Limits> {
    config.targets.iter().map(|target| (target.name.clone(), target.limits.clone())).collect()
}

fn indexes(config: &Config) -> HashMap<String, usize> {
    config.targets.iter().enumerate().map(|(index, target)| (target.name.clone(), index)).collect()
}

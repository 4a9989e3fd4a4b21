//! What the operator allows for one target: the numbers that every decision is made from.

use std::time::Duration;

use crate::outcome::Class;

/// A wake-up that is late by no more than this is no gap, however short the interval.
pub(super) const GAP_AT_LEAST: Duration = Duration::from_secs(3);

/// The limits of one target. All spans are validated by `config`; zero is legal where the contract says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub interval: Duration,
    /// The same while the last look failed; at most `interval`.
    pub retry_interval: Duration,
    /// Whether `retry_interval` was written down: a tick then goes on looking at that pace.
    pub retry_in_tick: bool,
    /// The whole look.
    pub timeout: Duration,
    pub failure_threshold: u32,
    pub start_period: Duration,
    /// How many rungs the ladder has; 0 for a watch-only target.
    pub rungs: usize,
    /// The rung, counted from 0, that resets PM2: weighed before it is run, passed over where that is not warranted,
    /// and made at most once an hour.
    pub reset: Option<usize>,
    /// From an attempt's end to the next attempt, at the least.
    pub cooldown: Duration,
    pub max_cooldown: Duration,
    /// Healthy for this long ends an episode.
    pub stable_after: Duration,
    pub max_restarts: u32,
    /// The span that `max_restarts` is counted over.
    pub restart_window: Duration,
    pub restart_on: Vec<Class>,
    pub depends_on: Vec<String>,
    /// What is asked before an attempt, in this order.
    pub preconditions: Vec<Precondition>,
    /// Whether something is to be found out when it goes down, before any attempt.
    pub diagnose: bool,
    /// Whether people hear from this target that PM2's daemon is deaf; of several with one home one tells it.
    pub reports_pm2: bool,
    pub dry_run: bool,
    /// Tells one probe from another: a target is only known to be well-configured while this stays the same.
    pub probe_id: u64,
    /// Tells one way to repair from another: the ladder, and what is asked before. An attempt under way begins no
    /// further rung once this has changed.
    pub repair_id: u64,
}

impl Limits {
    /// A wake-up that is later than this is a gap: nobody watched.
    pub fn gap(&self) -> Duration {
        GAP_AT_LEAST.max(self.interval * 2 + self.timeout)
    }
}

/// A question that must be answered with yes before an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precondition {
    /// PM2: whether the operator stopped the process there.
    Stopped,
    OnlyIf,
}

impl Default for Limits {
    /// The defaults of the configuration, for a target with one restart command.
    fn default() -> Self {
        let s = Duration::from_secs;
        Limits {
            interval: s(30),
            retry_interval: s(30),
            retry_in_tick: false,
            timeout: s(10),
            failure_threshold: 3,
            start_period: s(30),
            rungs: 1,
            reset: None,
            cooldown: s(60),
            max_cooldown: s(600),
            stable_after: s(600),
            max_restarts: 10,
            restart_window: s(3_600),
            restart_on: Class::ALL.into_iter().filter(|class| !matches!(class, Class::Dns | Class::Tls)).collect(),
            depends_on: Vec::new(),
            preconditions: Vec::new(),
            diagnose: false,
            reports_pm2: true,
            dry_run: false,
            probe_id: 0,
            repair_id: 0,
        }
    }
}

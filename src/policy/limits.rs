//! The configured limits of one target, on which every decision is based.
//! It must never hold state.

use std::time::Duration;

use crate::outcome::Class;

/// The contract's rule 9: a shorter delay is no gap, however short the interval.
pub(super) const GAP_AT_LEAST: Duration = Duration::from_secs(3);

/// The limits of one target. `config` validates all spans; zero is valid where the contract says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub interval: Duration,
    /// Used instead of `interval` while the last probe failed; at most `interval`.
    pub retry_interval: Duration,
    /// `retry_interval` is set in the configuration, so a tick whose probe failed continues at that pace.
    pub retry_in_tick: bool,
    /// For the whole probe.
    pub timeout: Duration,
    /// A target whose healthy probes take longer than this is slow.
    pub slow: Option<Duration>,
    pub failure_threshold: u32,
    pub start_period: Duration,
    /// The number of rungs of the ladder; 0 for a watch-only target.
    pub rungs: usize,
    /// The rung, counted from 0, that resets PM2. It is skipped unless a reset is warranted, and runs at most once an
    /// hour.
    pub reset: Option<usize>,
    /// The minimum time from an attempt's end to the next attempt.
    pub cooldown: Duration,
    pub max_cooldown: Duration,
    /// An episode ends once the target has been healthy for this long.
    pub stable_after: Duration,
    pub max_restarts: u32,
    /// `max_restarts` applies to any span of this length.
    pub restart_window: Duration,
    pub restart_on: Vec<Class>,
    pub depends_on: Vec<String>,
    /// Checked in this order before an attempt.
    pub preconditions: Vec<Precondition>,
    /// A diagnosis is made when the target goes down, before any attempt.
    pub diagnose: bool,
    /// This target notifies about a deaf PM2 daemon. Of several targets with one PM2 home, only one does.
    pub reports_pm2: bool,
    pub dry_run: bool,
    /// Identifies the configured probe. When it changes, the target has to prove again that it can be healthy.
    pub probe_id: u64,
    /// Identifies the configured ladder and preconditions. When it changes, a running attempt begins no further rung.
    pub repair_id: u64,
}

impl Limits {
    /// The contract's promise 4: a failure is found within this time.
    pub fn detection_bound(&self) -> Duration {
        (self.interval + self.timeout) * self.failure_threshold
    }

    /// A wake-up that is later than this means that the watchdog did not run: a gap.
    pub fn gap(&self) -> Duration {
        GAP_AT_LEAST.max(self.interval * 2 + self.timeout)
    }
}

/// A check that must pass before an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precondition {
    /// The target is not deliberately at rest, as PM2 or systemd says.
    Stopped,
    /// The operator's `only_if` command exits with 0.
    OnlyIf,
}

impl Default for Limits {
    /// The configuration's defaults for a target with one restart command.
    fn default() -> Self {
        let s = Duration::from_secs;
        Limits {
            interval: s(30),
            retry_interval: s(30),
            retry_in_tick: false,
            timeout: s(10),
            slow: None,
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

//! Whether a watchdog is running: one conclusion from all signs, on which text, JSON, exit code and report agree.
//! It must never conclude from a fresh lock that the saved state is fresh, nor from a free lock that a daemon runs.

use std::fmt;
use std::time::Duration;

use crate::policy::Mode;
use crate::time::round_age;

/// A daemon gives its sign of life every 30 s, and can save what it knows every minute.
const LATELY: Duration = Duration::from_secs(120);

/// The signs of a running watchdog. Ages are by the boot clock where it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct PresenceSigns {
    /// The mode and pid of the lock's holder; no pid where its process is not visible from here.
    pub holder: Option<(Mode, Option<u32>)>,
    /// The mode of the latest holder.
    pub last: Option<Mode>,
    /// The age of the lock's latest sign of life.
    pub touched: Option<Duration>,
    /// The age of the saved state.
    pub picture: Option<Duration>,
    pub stopped: bool,
    /// Ticks whose latest sign of life is no older than this still run.
    pub max_tick_gap: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchdogPresence {
    pub who: Presence,
    /// The age of the latest sign of life.
    pub seen: Option<Duration>,
    /// The age of the saved state.
    pub picture: Option<Duration>,
    is_old: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// A daemon that holds the lock and gives its sign of life; no `pid` where its process is not visible from here.
    Daemon { pid: Option<u32> },
    /// It holds the lock and gives no sign of life; no `pid` where its process is not visible from here.
    Hung { pid: Option<u32>, is_tick: bool },
    /// Cron runs ticks; one may be running now.
    Ticks,
    /// The operator stopped the watchdog.
    Stopped,
    /// No watchdog runs, and none was stopped.
    Nobody,
}

impl WatchdogPresence {
    pub fn of(signs: &PresenceSigns) -> WatchdogPresence {
        let PresenceSigns { holder, last, touched, picture, stopped, max_tick_gap } = *signs;
        let seen = touched.into_iter().chain(picture).min();
        let is_within = |age: Option<Duration>, longest| age.is_some_and(|age| age <= longest);
        let (who, seen, longest) = match (holder, last) {
            (Some((Mode::Daemon, pid)), _) if is_within(touched, LATELY) => (Presence::Daemon { pid }, touched, LATELY),
            (Some((Mode::Daemon, pid)), _) => (Presence::Hung { pid, is_tick: false }, touched, Duration::ZERO),
            (Some((Mode::Once, _)), _) if is_within(seen, max_tick_gap) => (Presence::Ticks, seen, max_tick_gap),
            (Some((Mode::Once, pid)), _) => (Presence::Hung { pid, is_tick: true }, seen, Duration::ZERO),
            (None, Some(Mode::Once)) if is_within(seen, max_tick_gap) => (Presence::Ticks, seen, max_tick_gap),
            (None, _) if stopped => (Presence::Stopped, seen, Duration::ZERO),
            (None, _) => (Presence::Nobody, seen, Duration::ZERO),
        };
        WatchdogPresence { who, seen, picture, is_old: !is_within(picture, longest) }
    }

    /// Whether the lock is held, or ticks came lately.
    pub fn is_running(&self) -> bool {
        matches!(self.who, Presence::Daemon { .. } | Presence::Hung { .. } | Presence::Ticks)
    }

    pub fn is_watching(&self) -> bool {
        matches!(self.who, Presence::Daemon { .. } | Presence::Ticks)
    }

    /// Whether the saved states of the targets are their present ones.
    pub fn is_current(&self) -> bool {
        self.is_watching() && !self.is_old
    }
}

impl fmt::Display for WatchdogPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ago = |age: Option<Duration>| round_age(age.unwrap_or_default());
        let (us, seen) = (format!("watchdog {}", env!("CARGO_PKG_VERSION")), ago(self.seen));
        match self.who {
            Presence::Daemon { pid: Some(pid) } => write!(f, "{us} runs (pid {pid}, alive {seen} ago)")?,
            Presence::Daemon { pid: None } => {
                write!(f, "{us} runs, alive {seen} ago; its process is not visible from here (another container?)")?;
            }
            Presence::Hung { pid: Some(pid), is_tick: false } => {
                return write!(f, "{us} is HUNG (pid {pid}, no sign of life for {seen}). Replace it: watchdog start");
            }
            Presence::Hung { pid: Some(pid), is_tick: true } => {
                return write!(f, "A tick of {us} is HUNG (pid {pid}, no sign of life for {seen}). End it: kill {pid}");
            }
            Presence::Hung { pid: None, .. } => {
                let place = "its process is not visible from here, perhaps in another container";
                return write!(f, "{us} is HUNG (no sign of life for {seen}; {place}). End it there");
            }
            Presence::Ticks => write!(f, "{us} runs from cron, last {seen} ago")?,
            Presence::Stopped => {
                let next = "Start it: watchdog start";
                return write!(f, "NOBODY IS WATCHING: the watchdog was stopped {seen} ago. {next}");
            }
            Presence::Nobody if self.seen.is_none() => {
                return f.write_str("NOBODY IS WATCHING: no watchdog has run here. Start one: watchdog start");
            }
            Presence::Nobody => {
                return write!(f, "NOBODY IS WATCHING: last sign of life {seen} ago; the states above are as old");
            }
        }
        match self.picture {
            _ if !self.is_old => Ok(()),
            Some(age) => {
                let age = round_age(age);
                write!(f, ", BUT HAS SAVED NOTHING FOR {age}: the states above are that old (the log has the reason)")
            }
            None => f.write_str(
                ", BUT HAS SAVED NOTHING YET: the states of the targets are unknown (the log has the reason)",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAEMON: Option<(Mode, Option<u32>)> = Some((Mode::Daemon, Some(7)));
    const HIDDEN: Option<(Mode, Option<u32>)> = Some((Mode::Daemon, None));
    const TICK: Option<(Mode, Option<u32>)> = Some((Mode::Once, Some(7)));

    /// Ages are in seconds. `expected`: `is_running`, `is_at_work`, `is_current`.
    #[track_caller]
    fn check(
        (holder, last): (Option<(Mode, Option<u32>)>, Option<Mode>),
        (touched, picture): (Option<u64>, Option<u64>),
        stopped: bool,
        text: &str,
        expected: [bool; 3],
    ) {
        let age = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        let max_tick_gap = Duration::from_secs(300);
        let (touched, picture) = (age(touched), age(picture));
        let presence = WatchdogPresence::of(&PresenceSigns { holder, last, touched, picture, stopped, max_tick_gap });
        assert!(presence.to_string().contains(text), "{text}: {presence}");
        assert_eq!([presence.is_running(), presence.is_watching(), presence.is_current()], expected, "{presence}");
    }

    #[test]
    fn every_set_of_signs_has_one_conclusion() {
        let (daemon, once) = (Some(Mode::Daemon), Some(Mode::Once));
        let (at_work, old, hung, nobody) =
            ([true, true, true], [true, true, false], [true, false, false], [false, false, false]);
        check((DAEMON, daemon), (Some(0), Some(60)), false, "runs (pid 7, alive 1 s ago)", at_work);
        check((DAEMON, daemon), (Some(120), Some(120)), false, "alive 2 min ago)", at_work);
        // A fresh lock does not make the saved state fresh.
        check((DAEMON, daemon), (Some(0), Some(121)), false, "SAVED NOTHING FOR 2 min", old);
        check((DAEMON, daemon), (Some(0), None), false, "SAVED NOTHING YET", old);
        // It was stopped and started again, and the new one could not save its state.
        check((DAEMON, daemon), (Some(0), Some(5)), true, "runs (pid 7", at_work);
        check((DAEMON, daemon), (Some(121), Some(5)), false, "is HUNG (pid 7, no sign of life for 2 min)", hung);
        check((DAEMON, daemon), (None, Some(5)), false, "is HUNG", hung);
        check((HIDDEN, daemon), (Some(0), Some(60)), false, "its process is not visible from here (another", at_work);
        check(
            (HIDDEN, daemon),
            (Some(121), Some(5)),
            false,
            "is HUNG (no sign of life for 2 min; its process is not visible",
            hung,
        );
        // Killed: a daemon whose lock is free does not run, however fresh the signs are.
        check((None, daemon), (Some(0), Some(0)), false, "NOBODY IS WATCHING: last sign of life 1 s ago", nobody);
        check((None, daemon), (Some(3), Some(0)), true, "NOBODY IS WATCHING: the watchdog was stopped", nobody);
        check((None, None), (None, None), false, "NOBODY IS WATCHING: no watchdog has run here", nobody);
        check((None, once), (Some(300), Some(300)), false, "runs from cron, last 5 min ago", at_work);
        check((None, once), (Some(301), Some(301)), false, "NOBODY IS WATCHING", nobody);
        check(
            (None, once),
            (Some(9), Some(301)),
            false,
            "from cron, last 9 s ago, BUT HAS SAVED NOTHING FOR 5 min",
            old,
        );
        // A daemon was stopped, and the ticks that run since then cannot save their state.
        check(
            (None, once),
            (Some(9), Some(301)),
            true,
            "from cron, last 9 s ago, BUT HAS SAVED NOTHING FOR 5 min",
            old,
        );
        check((TICK, once), (Some(0), None), false, "from cron, last 1 s ago, BUT HAS SAVED NOTHING YET", old);
        check((TICK, once), (Some(1), Some(200)), false, "runs from cron, last 1 s ago", at_work);
        check((TICK, once), (Some(400), Some(400)), false, "A tick of watchdog 0.1.0 is HUNG (pid 7", hung);
    }
}

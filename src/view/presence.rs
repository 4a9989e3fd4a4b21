//! Who watches: one conclusion from all signs, from which words, JSON, exit code and report follow.
//! It must never take a fresh lock for a fresh picture, nor a lock that is free for a daemon.

use std::fmt;
use std::time::Duration;

use crate::policy::Mode;
use crate::time::rough;

/// A daemon gives its sign of life every 30 s, and can save what it knows every minute.
const LATELY: Duration = Duration::from_secs(120);

/// By what it is told who watches. What is an age is one by the boot clock, as far as that is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct PresenceSigns {
    /// How whoever holds the lock works, and its pid, unless it cannot be seen from here.
    pub holder: Option<(Mode, Option<u32>)>,
    pub last: Option<Mode>,
    /// How long ago it gave its sign of life there.
    pub touched: Option<Duration>,
    pub picture: Option<Duration>,
    pub stopped: bool,
    /// Ticks that came within this come still.
    pub tick_patience: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchdogPresence {
    pub who: Presence,
    /// How long ago there was a sign of life.
    pub seen: Option<Duration>,
    pub picture: Option<Duration>,
    is_old: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// A daemon that holds the lock and gives its sign of life; no `pid` where it cannot be seen from here.
    Daemon { pid: Option<u32> },
    /// One that holds the lock and gives none; no `pid` where it cannot be seen from here.
    Hung { pid: Option<u32>, is_tick: bool },
    /// Ticks come; one may be at work.
    Ticks,
    /// Nobody, for it was stopped.
    Stopped,
    /// Nobody, and none was stopped.
    Nobody,
}

impl WatchdogPresence {
    pub fn of(signs: &PresenceSigns) -> WatchdogPresence {
        let PresenceSigns { holder, last, touched, picture, stopped, tick_patience } = *signs;
        let seen = touched.into_iter().chain(picture).min();
        let is_within = |age: Option<Duration>, longest| age.is_some_and(|age| age <= longest);
        let (who, seen, longest) = match (holder, last) {
            (Some((Mode::Daemon, pid)), _) if is_within(touched, LATELY) => (Presence::Daemon { pid }, touched, LATELY),
            (Some((Mode::Daemon, pid)), _) => (Presence::Hung { pid, is_tick: false }, touched, Duration::ZERO),
            (Some((Mode::Once, _)), _) if is_within(seen, tick_patience) => (Presence::Ticks, seen, tick_patience),
            (Some((Mode::Once, pid)), _) => (Presence::Hung { pid, is_tick: true }, seen, Duration::ZERO),
            (None, Some(Mode::Once)) if is_within(seen, tick_patience) => (Presence::Ticks, seen, tick_patience),
            (None, _) if stopped => (Presence::Stopped, seen, Duration::ZERO),
            (None, _) => (Presence::Nobody, seen, Duration::ZERO),
        };
        WatchdogPresence { who, seen, picture, is_old: !is_within(picture, longest) }
    }

    /// Whether the lock is held, or ticks came lately.
    pub fn is_running(&self) -> bool {
        matches!(self.who, Presence::Daemon { .. } | Presence::Hung { .. } | Presence::Ticks)
    }

    pub fn is_at_work(&self) -> bool {
        matches!(self.who, Presence::Daemon { .. } | Presence::Ticks)
    }

    /// Whether what is known of the targets is how they are.
    pub fn is_current(&self) -> bool {
        self.is_at_work() && !self.is_old
    }
}

impl fmt::Display for WatchdogPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ago = |age: Option<Duration>| rough(age.unwrap_or_default());
        let (us, seen) = (format!("watchdog {}", env!("CARGO_PKG_VERSION")), ago(self.seen));
        match self.who {
            Presence::Daemon { pid: Some(pid) } => write!(f, "{us} runs (pid {pid}, alive {seen} ago)")?,
            Presence::Daemon { pid: None } => {
                write!(f, "{us} runs where it cannot be seen from here (another container?), alive {seen} ago")?;
            }
            Presence::Hung { pid: Some(pid), is_tick: false } => {
                return write!(f, "{us} is HUNG (pid {pid}, no sign of life for {seen}): watchdog start replaces it");
            }
            Presence::Hung { pid: Some(pid), is_tick: true } => {
                return write!(f, "A tick of {us} is HUNG (pid {pid}, no sign of life for {seen}): end it, kill {pid}");
            }
            Presence::Hung { pid: None, .. } => {
                let place = "where it cannot be seen from here, in another container?";
                return write!(f, "{us} is HUNG ({place} No sign of life for {seen}): end it there");
            }
            Presence::Ticks => write!(f, "{us} comes by cron, last {seen} ago")?,
            Presence::Stopped => {
                let again = "watchdog start starts it again";
                return write!(f, "NOBODY IS WATCHING: the watchdog was stopped {seen} ago ({again})");
            }
            Presence::Nobody if self.seen.is_none() => {
                return f.write_str("NOBODY IS WATCHING: start one with watchdog start");
            }
            Presence::Nobody => {
                return write!(f, "NOBODY IS WATCHING: the last sign of life is {seen} old; what stands above too");
            }
        }
        match self.picture {
            _ if !self.is_old => Ok(()),
            Some(age) => {
                let age = rough(age);
                write!(f, ", BUT HAS SAVED NOTHING FOR {age}: what stands above is that old (the log says why)")
            }
            None => f.write_str(", BUT HAS SAVED NOTHING YET: how the targets are is not known (the log says why)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAEMON: Option<(Mode, Option<u32>)> = Some((Mode::Daemon, Some(7)));
    const UNSEEN: Option<(Mode, Option<u32>)> = Some((Mode::Daemon, None));
    const TICK: Option<(Mode, Option<u32>)> = Some((Mode::Once, Some(7)));

    /// The ages in seconds. What is said contains `said`; `running`, `is_at_work`, `is_current`.
    #[track_caller]
    fn check(
        (holder, last): (Option<(Mode, Option<u32>)>, Option<Mode>),
        (touched, picture): (Option<u64>, Option<u64>),
        stopped: bool,
        said: &str,
        expected: [bool; 3],
    ) {
        let age = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        let tick_patience = Duration::from_secs(300);
        let (touched, picture) = (age(touched), age(picture));
        let watch = WatchdogPresence::of(&PresenceSigns { holder, last, touched, picture, stopped, tick_patience });
        assert!(watch.to_string().contains(said), "{said}: {watch}");
        assert_eq!([watch.is_running(), watch.is_at_work(), watch.is_current()], expected, "{watch}");
    }

    #[test]
    fn words_json_and_code_agree_on_who_watches() {
        let (daemon, once) = (Some(Mode::Daemon), Some(Mode::Once));
        let (at_work, old, hung, nobody) =
            ([true, true, true], [true, true, false], [true, false, false], [false, false, false]);
        check((DAEMON, daemon), (Some(0), Some(60)), false, "runs (pid 7, alive 1 s ago)", at_work);
        check((DAEMON, daemon), (Some(120), Some(120)), false, "alive 2 min ago)", at_work);
        // A fresh lock is not a fresh picture.
        check((DAEMON, daemon), (Some(0), Some(121)), false, "SAVED NOTHING FOR 2 min", old);
        check((DAEMON, daemon), (Some(0), None), false, "SAVED NOTHING YET", old);
        // It was stopped and started again, and could not say so.
        check((DAEMON, daemon), (Some(0), Some(5)), true, "runs (pid 7", at_work);
        check((DAEMON, daemon), (Some(121), Some(5)), false, "is HUNG (pid 7, no sign of life for 2 min)", hung);
        check((DAEMON, daemon), (None, Some(5)), false, "is HUNG", hung);
        check((UNSEEN, daemon), (Some(0), Some(60)), false, "runs where it cannot be seen from here", at_work);
        check((UNSEEN, daemon), (Some(121), Some(5)), false, "is HUNG (where it cannot be seen from here", hung);
        // Killed: however fresh all is, a daemon whose lock is free is none.
        check(
            (None, daemon),
            (Some(0), Some(0)),
            false,
            "NOBODY IS WATCHING: the last sign of life is 1 s old",
            nobody,
        );
        check((None, daemon), (Some(3), Some(0)), true, "NOBODY IS WATCHING: the watchdog was stopped", nobody);
        check((None, None), (None, None), false, "NOBODY IS WATCHING: start one", nobody);
        check((None, once), (Some(300), Some(300)), false, "comes by cron, last 5 min ago", at_work);
        check((None, once), (Some(301), Some(301)), false, "NOBODY IS WATCHING", nobody);
        check((None, once), (Some(9), Some(301)), false, "by cron, last 9 s ago, BUT HAS SAVED NOTHING FOR 5 min", old);
        // A daemon was stopped, and the ticks that come since cannot say so.
        check((None, once), (Some(9), Some(301)), true, "by cron, last 9 s ago, BUT HAS SAVED NOTHING FOR 5 min", old);
        check((TICK, once), (Some(0), None), false, "by cron, last 1 s ago, BUT HAS SAVED NOTHING YET", old);
        check((TICK, once), (Some(1), Some(200)), false, "comes by cron, last 1 s ago", at_work);
        check((TICK, once), (Some(400), Some(400)), false, "A tick of watchdog 0.1.0 is HUNG (pid 7", hung);
    }
}

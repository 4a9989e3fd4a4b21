//! What a tick prints on standard output: changes at once, and what stays the same once a day.
//! Cron mails everything that is printed, so nothing may be printed at each tick.

use crate::clock;
use crate::policy::Record;
use crate::store::repeat_filter::RepeatFilter;

/// Prints one line of news.
pub type Print = Box<dyn FnMut(&str)>;

/// The kind of a note about a target; all notes of one kind are forgotten together.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum NewsKind {
    /// The target is down, and what is done about it.
    Outage,
    /// The outage is over.
    Recovery,
    /// Anything that may also be true of a healthy target.
    Other,
}

impl NewsKind {
    pub(super) fn of(record: &Record) -> NewsKind {
        match record {
            Record::Failing { .. } | Record::Down { .. } | Record::HeldBack { .. } => NewsKind::Outage,
            Record::Restart { .. } | Record::RestartDone { .. } | Record::WouldRestart { .. } => NewsKind::Outage,
            Record::Up { .. } | Record::Rested { .. } => NewsKind::Recovery,
            Record::Woke { .. } | Record::Warn { .. } | Record::Stalled { .. } => NewsKind::Other,
            Record::Paused { .. } | Record::Resumed { .. } => NewsKind::Other,
            Record::DrillBegan { .. } | Record::DrillEnded { .. } => NewsKind::Other,
        }
    }
}

pub(super) struct News {
    print: Print,
    repeats: Option<RepeatFilter>,
}

impl News {
    pub(super) fn new(print: Print, repeats: Option<RepeatFilter>) -> News {
        News { print, repeats }
    }

    /// Whether this is a tick, which notes what it has printed.
    pub(super) fn is_filtered(&self) -> bool {
        self.repeats.is_some()
    }

    /// Prints a change. `is_saved`: the state contains the change; if not, the next tick would find and print it again,
    /// so the repeat filter decides.
    pub(super) fn print_if_new(&mut self, target: &str, kind: NewsKind, key: &str, line: &str, is_saved: bool) {
        let filter = self.filter_for(target, kind).filter(|_| !is_saved);
        if filter.is_none_or(|filter| filter.should_print(key, clock::wall())) {
            (self.print)(line);
        }
    }

    pub(super) fn print_once_a_day(&mut self, key: &str, line: &str) {
        if self.repeats.as_ref().is_none_or(|filter| filter.should_print(key, clock::wall())) {
            (self.print)(line);
        }
    }

    pub(super) fn filter_for(&self, target: &str, kind: NewsKind) -> Option<RepeatFilter> {
        self.repeats.as_ref().map(|filter| filter.for_subject(&(target, kind)))
    }
}

//! What a tick says on standard output: news, and what stays the same once a day. Cron mails whatever is printed.

use crate::clock;
use crate::policy::Record;
use crate::store::repeat_filter::RepeatFilter;

/// Takes a line for each change that is news.
pub type Print = Box<dyn FnMut(&str)>;

/// What notes of a target are of: those of one kind are forgotten together.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum NewsKind {
    /// It is down, and what is done about that.
    Outage,
    /// It is over.
    Recovery,
    /// Whatever may be true of a target that is in order.
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
        }
    }
}

pub(super) struct News {
    print: Print,
    repeats: Option<RepeatFilter>,
}

impl News {
    pub(super) fn new(print: Print, told: Option<RepeatFilter>) -> News {
        News { print, repeats: told }
    }

    /// Whether this is a tick, which notes what it has told.
    pub(super) fn is_filtered(&self) -> bool {
        self.repeats.is_some()
    }

    /// Says what is news. `is_saved`: the state remembers that it was said; else the next tick would say it again.
    pub(super) fn print_if_new(&mut self, target: &str, course: NewsKind, about: &str, line: &str, is_saved: bool) {
        let told = self.filter_for(target, course).filter(|_| !is_saved);
        if told.is_none_or(|told| told.is_news(about, clock::wall())) {
            (self.print)(line);
        }
    }

    pub(super) fn print_once_a_day(&mut self, about: &str, line: &str) {
        if self.repeats.as_ref().is_none_or(|told| told.is_news(about, clock::wall())) {
            (self.print)(line);
        }
    }

    pub(super) fn filter_for(&self, target: &str, course: NewsKind) -> Option<RepeatFilter> {
        self.repeats.as_ref().map(|told| told.of(&(target, course)))
    }
}

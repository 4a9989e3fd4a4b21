//! What cron is told again and again: one complaint, one mail a day.

use std::io::{self, IsTerminal};

use crate::clock;
use crate::config;
use crate::store::Folder;
use crate::store::repeat_filter::RepeatFilter;
use crate::terminal::write_line;

use super::{Code, environment};

pub(super) fn complain_to_cron(text: &str, code: Code) -> Code {
    complain_to_cron_of(None, text, code)
}

/// The same where the state folder is known: a note can be kept in it, too.
pub(super) fn complain_to_cron_of(state: Option<&Folder>, text: &str, code: Code) -> Code {
    // Whoever sits there is told each time.
    let reads_along = io::stderr().is_terminal();
    if complaints(state).is_news(text, clock::wall()) || reads_along {
        write_line(io::stderr(), text);
    }
    code
}

pub(super) fn forget_complaints(state: Option<&Folder>) {
    complaints(state).forget();
}

/// What this line of a crontab was told, by its words and its folder.
pub(super) fn complaints(state: Option<&Folder>) -> RepeatFilter {
    let default = config::default_state_dir(&environment).ok().map(|path| Folder::at(&path));
    let mut folders: Vec<Folder> = state.cloned().into_iter().chain(default).collect();
    folders.dedup_by(|one, other| one.path() == other.path());
    let caller = (std::env::args_os().skip(1).collect::<Vec<_>>(), std::env::current_dir().ok());
    RepeatFilter::new(folders, &caller, clock::zone())
}

//! Errors of commands that cron runs: the same error is printed, and so mailed, once a day. It must never suppress an
//! error on a terminal.

use std::io::{self, IsTerminal};

use crate::clock;
use crate::config;
use crate::store::Folder;
use crate::store::repeat_filter::RepeatFilter;
use crate::terminal::write_line;

use super::{Code, read_env};

pub(super) fn print_daily(text: &str, code: Code) -> Code {
    print_daily_in(None, text, code)
}

/// The same where the state folder is known: the note that it was printed can be kept there too.
pub(super) fn print_daily_in(state: Option<&Folder>, text: &str, code: Code) -> Code {
    let on_terminal = io::stderr().is_terminal();
    if daily_filter(state).should_print(text, clock::wall()) || on_terminal {
        write_line(io::stderr(), text);
    }
    code
}

pub(super) fn forget_printed(state: Option<&Folder>) {
    daily_filter(state).reset();
}

/// The filter of this crontab line, which its arguments and its working folder identify.
pub(super) fn daily_filter(state: Option<&Folder>) -> RepeatFilter {
    let default = config::default_state_dir(&read_env).ok().map(|path| Folder::at(&path));
    let mut folders: Vec<Folder> = state.cloned().into_iter().chain(default).collect();
    folders.dedup_by(|one, other| one.path() == other.path());
    let caller = (std::env::args_os().skip(1).collect::<Vec<_>>(), std::env::current_dir().ok());
    RepeatFilter::new(folders, &caller, clock::zone())
}

//! `completions`: what a shell needs to complete our words.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Line;

use super::{Code, say};

pub(super) fn completions(shell: Shell) -> Code {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Line::command(), "watchdog", &mut script);
    say(String::from_utf8_lossy(&script).trim_end());
    Code::Done
}

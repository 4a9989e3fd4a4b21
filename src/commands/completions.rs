//! `completions`: what a shell needs to complete our words, but for those that are none of the operator's.

use clap::Command;
use clap_complete::Shell;

use crate::cli;

use super::{Code, say};

/// The verbs with words that only this program says to itself: the generators would show them.
const WITH_HIDDEN: [&str; 2] = ["run", "demo"];

pub(super) fn completions(shell: Shell) -> Code {
    let mut script = Vec::new();
    let line = cli::command();
    let shown = |line: Command, name| line.mut_subcommand(name, |verb| without_hidden(name, &verb));
    let mut line = WITH_HIDDEN.into_iter().fold(line, shown);
    clap_complete::generate(shell, &mut line, "watchdog", &mut script);
    say(String::from_utf8_lossy(&script).trim_end());
    Code::Done
}

fn without_hidden(name: &'static str, verb: &Command) -> Command {
    let shown = verb.get_arguments().filter(|argument| !argument.is_hide_set()).cloned();
    Command::new(name).about(verb.get_about().cloned().unwrap_or_default()).args(shown)
}

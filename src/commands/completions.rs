//! `completions`: the script with which a shell completes the command line. It must never offer hidden options.

use clap::Command;
use clap_complete::Shell;

use crate::cli;

use super::{Code, print};

/// Subcommands with options that only this program passes to itself. clap_complete would include them.
const VERBS_WITH_HIDDEN: [&str; 2] = ["run", "demo"];

pub(super) fn completions(shell: Shell) -> Code {
    let mut script = Vec::new();
    let hide = |command: Command, name| command.mut_subcommand(name, |verb| without_hidden(name, &verb));
    let mut command = VERBS_WITH_HIDDEN.into_iter().fold(cli::command(), hide);
    clap_complete::generate(shell, &mut command, "watchdog", &mut script);
    print(String::from_utf8_lossy(&script).trim_end());
    Code::Done
}

fn without_hidden(name: &'static str, verb: &Command) -> Command {
    let visible = verb.get_arguments().filter(|argument| !argument.is_hide_set()).cloned();
    Command::new(name).about(verb.get_about().cloned().unwrap_or_default()).args(visible)
}

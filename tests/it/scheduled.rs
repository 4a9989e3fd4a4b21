//! What starts the watchdog again: `check` finds its own line in the crontab, and `start` says where there is none.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::faults::{Behaviour, Server};
use crate::sandbox::{CommandOutput, Sandbox};

const PROGRAM: &str = env!("CARGO_BIN_EXE_watchdog");

/// A healthy target, and a program `crontab` that prints what the test writes into the file `table`.
fn with_crontab(server: &Server) -> Sandbox {
    let sandbox = Sandbox::new(&format!("targets:\n  - {{name: app, tcp: '127.0.0.1:{}'}}\n", server.port()));
    fs::create_dir(sandbox.path("tools")).expect("a folder");
    let table = sandbox.path("table").display().to_string();
    let script = format!("#!/bin/sh\n[ \"$1\" = -l ] || exit 9\n[ -e {table} ] && exec cat {table}\n");
    sandbox.write("tools/crontab", &format!("{script}echo no crontab for you >&2\nexit 1\n"));
    fs::set_permissions(sandbox.path("tools/crontab"), Permissions::from_mode(0o755)).expect("a file of ours");
    sandbox
}

fn run(sandbox: &Sandbox, words: &[&str]) -> CommandOutput {
    let mut command = sandbox.command(words);
    command.env("PATH", format!("{}:/usr/bin:/bin", sandbox.path("tools").display()));
    CommandOutput::new(command.output().expect("the program runs"))
}

/// The crontab, the exit code of `check`, what it says and what it does not say.
#[track_caller]
fn check(sandbox: &Sandbox, table: &str, code: i32, says: &[&str], not: &[&str]) {
    let table = table.replace("PROGRAM", PROGRAM).replace("HERE", &sandbox.home().display().to_string());
    sandbox.write("table", &(table + "\n"));
    let output = run(sandbox, &["check"]);
    sandbox.assert(output.code == Some(code), &format!("exit code {code}: {output:?}"));
    for words in says {
        sandbox.assert(output.out.contains(words), &format!("`{words}` is printed:\n{}", output.out));
    }
    for words in not {
        sandbox.assert(!output.out.contains(words), &format!("`{words}` is not printed:\n{}", output.out));
    }
}

#[test]
fn its_own_line_in_the_crontab_is_found() {
    let server = Server::start(Behaviour::Silent);
    let sandbox = with_crontab(&server);
    let paste = "Paste this";
    let printed = run(&sandbox, &["check"]).out;
    let line = printed.lines().last().unwrap_or_default().to_owned();
    sandbox.assert(printed.contains(paste) && line.ends_with("watchdog.yaml"), &printed);
    check(&sandbox, &line, 0, &["Ready: your crontab starts it every minute.\n"], &[paste]);
    let every_five = "*/5 * * * * PROGRAM --once -c HERE/watchdog.yaml >/dev/null";
    check(&sandbox, every_five, 0, &["Ready: your crontab runs a tick every 5 minutes.\n"], &[paste]);
    // Cron runs its jobs in the home folder, where this configuration is found without -c.
    check(&sandbox, "* * * * * PROGRAM start --cron", 0, &["Ready: your crontab starts it every minute.\n"], &[paste]);
    let at_boot = "Ready, but your crontab starts it after each reboot only, and not after a crash. Replace that line \
                   (crontab -e) by:\n* * * * * ";
    check(&sandbox, "@reboot PROGRAM start", 0, &[at_boot], &[paste]);
    let mails = "In crontab  it starts it every minute; without --cron it prints a line each time, which cron mails";
    check(&sandbox, "* * * * * PROGRAM start", 0, &[mails, "Ready: your crontab starts it every minute."], &[paste]);
    check(&sandbox, &format!("#{line}"), 0, &[paste], &["your crontab"]);
    check(&sandbox, "* * * * * PROGRAM status", 0, &[paste], &["your crontab"]);
    // With something else wrong it does not say that a line will be printed.
    sandbox.configure("targets:\n  - {name: app, tcp: 'localhost:1'}\n");
    check(&sandbox, &line, 1, &["Fix it or the configuration and run check again.\n"], &["your crontab line"]);
}

#[test]
fn a_line_with_another_configuration_or_program_is_named() {
    let server = Server::start(Behaviour::Silent);
    let sandbox = with_crontab(&server);
    let own = sandbox.read("watchdog.yaml");
    sandbox.write("other.yaml", &own.replace("state_dir: state", "state_dir: elsewhere"));
    sandbox.write("same.yaml", &own);
    let other = "In crontab  a watchdog with another configuration every minute: ~/other.yaml";
    check(&sandbox, "* * * * * PROGRAM start --cron -c other.yaml", 0, &[other, "Paste this"], &[]);
    let same = "PROBLEM     your crontab starts a watchdog with another configuration every minute, ~/same.yaml, whose \
                state folder is this one's too: only one of the two can run.";
    check(&sandbox, "* * * * * PROGRAM start --cron -c same.yaml", 1, &[same], &[]);
    let gone = "PROBLEM     your crontab starts it every minute, but cron cannot: no such file: /gone/watchdog. \
                Replace that line (crontab -e) by:\n              * * * * * ";
    check(&sandbox, "* * * * * /gone/watchdog start --cron", 1, &[gone], &["Paste this"]);
    let unfound = "but cron cannot: command not found: watchdog (PATH=/usr/bin:/bin)";
    check(&sandbox, "* * * * * watchdog start --cron", 1, &[unfound], &[]);
    fs::copy(PROGRAM, sandbox.path("tools/watchdog")).expect("a copy of the program");
    let copy = "In crontab  another file of the program starts it every minute: ~/tools/watchdog; this one is ";
    check(&sandbox, "* * * * * tools/watchdog start --cron", 0, &[copy, "your crontab starts it every minute."], &[]);
    symlink(PROGRAM, sandbox.path("tools/link")).expect("a link");
    check(&sandbox, "* * * * * tools/link start --cron", 0, &["your crontab starts it every minute."], &["In crontab"]);
}

#[test]
fn start_says_that_nothing_starts_it_after_a_reboot() {
    let server = Server::start(Behaviour::Silent);
    let sandbox = with_crontab(&server);
    let nothing = ". Nothing starts it after a reboot: watchdog check prints the line for crontab -e\n";
    #[track_caller]
    fn start(sandbox: &Sandbox, begins: &str, ends: &str, is_reported: bool) {
        let output = run(sandbox, &["start"]);
        sandbox.assert(output.code == Some(0) && output.out.starts_with(begins), &format!("{output:?}"));
        sandbox.assert(
            output.out.ends_with(ends) == is_reported && output.out.lines().count() == 1,
            &format!("{output:?}"),
        );
    }
    start(&sandbox, "watchdog started (pid ", nothing, true);
    start(&sandbox, "a watchdog is already running (pid ", nothing, true);
    let output = run(&sandbox, &["start", "--cron"]);
    sandbox.assert(output.out.is_empty() && output.err.is_empty(), &format!("{output:?}"));
    sandbox.write("table", &format!("@reboot {PROGRAM} start\n"));
    start(&sandbox, "a watchdog is already running (pid ", "see: watchdog status\n", true);
    run(&sandbox, &["stop"]);
    start(&sandbox, "watchdog started (pid ", "watchdog.log\n", true);
    // What cannot be read is not taken for nothing.
    sandbox
        .write("tools/crontab", "#!/bin/sh\necho 'You (me) are not allowed to use this program (crontab)'\nexit 1\n");
    let unknown = ". Whether cron starts it after a reboot is unknown (You (me) are not allowed to use this program \
                   (crontab)): watchdog check prints the line for crontab -e\n";
    start(&sandbox, "a watchdog is already running (pid ", unknown, true);
    run(&sandbox, &["stop"]);
}

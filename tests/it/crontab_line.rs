//! The crontab line of a program that npm installed below a folder that a version manager removes with its Node.

use std::fs;
use std::process::Command;

use crate::sandbox::{CommandOutput, Sandbox};

const PACKAGE: &str = ".nvm/versions/node/v20.20.2/lib/node_modules/watchdog-agent/bin/watchdog";

fn install() -> Sandbox {
    let sandbox = Sandbox::new("targets: [{name: a, file: {path: watchdog.yaml, max_age: 1d}}]\n");
    let program = sandbox.path(PACKAGE);
    fs::create_dir_all(program.parent().expect("it is in a folder")).expect("made");
    // By another process: one that a parallel test starts meanwhile would inherit a file that is open for writing, and
    // such a file cannot be run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_watchdog")).arg(&program).status().expect("cp runs");
    assert!(copied.success(), "{}", program.display());
    sandbox
}

/// The installed program with these args, as `Sandbox::run` does with the one that was built.
fn run(sandbox: &Sandbox, args: &[&str]) -> CommandOutput {
    let mut command = Command::new(sandbox.path(PACKAGE));
    command
        .args(args)
        .current_dir(sandbox.path(""))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", sandbox.path(""));
    CommandOutput::new(command.output().expect("the program runs"))
}

#[test]
fn check_says_that_the_line_ends_with_its_node_until_there_is_a_copy() {
    let sandbox = install();
    let output = run(&sandbox, &["check"]);
    let line = format!("* * * * * {} start --cron", sandbox.path(PACKAGE).display());
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.out.contains(&line) && output.out.contains("belongs to Node v20.20.2"), "{output:?}");

    // What it says to run.
    let copy = output.out.lines().last().expect("the command").trim();
    let status = Command::new("sh").args(["-c", copy]).env("HOME", sandbox.path("")).status().expect("sh runs");
    assert!(status.success(), "{copy}");
    let output = run(&sandbox, &["check"]);
    let line = format!("* * * * * {} start --cron", sandbox.path("bin/watchdog").display());
    assert!(output.out.contains(&line) && !output.out.contains("v20.20.2"), "{output:?}");

    // A copy of another version is not this program, and a link goes when the program goes.
    sandbox.write("bin/watchdog", "#!/bin/sh\n");
    assert!(run(&sandbox, &["check"]).out.contains("belongs to Node v20.20.2"));
    fs::remove_file(sandbox.path("bin/watchdog")).expect("removed");
    std::os::unix::fs::symlink(sandbox.path(PACKAGE), sandbox.path("bin/watchdog")).expect("linked");
    assert!(run(&sandbox, &["check"]).out.contains("belongs to Node v20.20.2"));
}

#[test]
fn init_says_it_too() {
    let sandbox = install();
    let output = run(&sandbox, &["init", "-c", "new.yaml"]);
    assert!(output.code == Some(0) && output.out.contains("belongs to Node v20.20.2"), "{output:?}");
    let output = sandbox.run(&["init", "-c", "newer.yaml"]);
    assert!(output.code == Some(0) && !output.out.contains("belongs to Node"), "{output:?}");
}

//! `check` reports what would happen, here and under cron, and changes nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::faults::{Behaviour, Server};
use crate::sandbox::{CommandOutput, Sandbox};

fn http(server: &Server, rest: &str) -> String {
    format!("targets:\n  - {{name: app, http: 'http://127.0.0.1:{}/health?key=x'{rest}}}\n", server.port())
}

fn healthy_server() -> Server {
    Server::start(Behaviour::answer("200 OK", "fine"))
}

/// The paths of all files and folders in the sandbox.
fn paths(sandbox: &Sandbox) -> Vec<String> {
    let mut paths = Vec::new();
    let mut folders = vec![sandbox.home().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            paths.push(entry.path().display().to_string());
            folders.extend(Some(entry.path()).filter(|path| path.is_dir()));
        }
    }
    paths.sort();
    paths
}

/// Checks the exit code and parts of the output.
#[track_caller]
fn check(sandbox: &Sandbox, args: &[&str], code: i32, expected: &[&str]) -> CommandOutput {
    let output = sandbox.run(args);
    sandbox.assert(output.code == Some(code) && output.err.is_empty(), &format!("exit code {code}: {output:?}"));
    for part in expected {
        sandbox.assert(output.out.contains(part), &format!("`{part}` is in:\n{}", output.out));
    }
    output
}

#[test]
fn check_shows_the_plan_and_changes_nothing() {
    let server = healthy_server();
    let sandbox = Sandbox::new(&http(
        &server,
        ", restart: ['touch ran', {run: [touch, 'ran too'], timeout: 2m}], only_if: touch asked, interval: 15s, \
         retry_interval: 5s, max_restarts: 3, slow: 2s",
    ));
    let before = paths(&sandbox);
    let path = sandbox.path("watchdog.yaml").display().to_string();
    let output = check(
        &sandbox,
        &["check"],
        0,
        &[
            "is valid. 1 target.\n",
            &format!("app   GET http://127.0.0.1:{}/health?…   200 in ", server.port()),
            "every 15 s, every 5 s after a failure, timeout 10 s, slow over 2 s; down after 3 failures in a row",
            "(within 1 min 15 s)",
            "repairs     1  touch ran   (at most 1 min)",
            "            2  touch ran too   (at most 2 min)",
            "1 min apart, later up to 10 min; at most 3 in 1 h",
            "only if this exits 0: touch asked",
            "touch: found",
            " MiB in ",
        ],
    );
    sandbox.assert(output.out.starts_with("~/watchdog.yaml is valid"), "the configuration is named");
    let end = format!(
        "Ready. Paste this into crontab -e, or into your panel's cron jobs:\n* * * * * {} start --cron -c {path}\n",
        env!("CARGO_BIN_EXE_watchdog")
    );
    sandbox.assert(output.out.ends_with(&end), &format!("the output ends with the crontab line:\n{}", output.out));
    assert_eq!(paths(&sandbox), before, "nothing is created or deleted");
    assert_eq!(server.requests().len(), 1, "one probe");
}

#[test]
fn offline_nothing_is_probed() {
    let server = Server::start(Behaviour::Silent);
    let sandbox = Sandbox::new(&http(&server, ""));
    check(
        &sandbox,
        &["check", "--offline"],
        0,
        &["not probed (--offline)", "none: this target is only watched", "Ready."],
    );
    assert!(server.requests().is_empty());
}

#[test]
fn unhealthy_targets_are_shown_with_their_failure() {
    let server = Server::start(Behaviour::answer("503 Service Unavailable", ""));
    let beat = "  - {name: beat, file: {path: run/beat, max_age: 2m}}\n";
    let other = format!("{beat}  - {{name: probe, command: 'echo why >&2; exit 4'}}\n");
    let sandbox = Sandbox::new(&format!("{}{other}", http(&server, "")));
    check(
        &sandbox,
        &["check"],
        1,
        &[
            "is valid. 3 targets.\n",
            "   status 503\n",
            "/run/beat written within 2 min   stale; no such file",
            "probe   run echo why >&2; exit 4   exit 4: why",
            "Not ready: 3 targets are unhealthy. Fix them or the configuration and run check again.\n",
        ],
    );
}

#[test]
fn programs_that_cron_would_not_find_are_reported() {
    let sandbox = Sandbox::new("");
    fs::create_dir_all(sandbox.path("tools")).expect("folder access");
    sandbox.write("tools/manager", "#!/usr/bin/env interpreter-of-manager\n");
    sandbox.write("tools/interpreter-of-manager", "#!/bin/sh\n");
    sandbox.write("plain", "#!/bin/sh\n");
    for name in ["tools/manager", "tools/interpreter-of-manager"] {
        fs::set_permissions(sandbox.path(name), Permissions::from_mode(0o755)).expect("the test owns the file");
    }
    let tools = sandbox.path("tools").display().to_string();
    let run = |restart: &str, top: &str| {
        sandbox.configure(&format!("{top}targets:\n  - {{name: app, tcp: 'localhost:1', restart: {restart}}}\n"));
        let mut command = sandbox.command(&["check", "--offline"]);
        command.env("PATH", format!("{tools}:/usr/bin:/bin"));
        CommandOutput::new(command.output().expect("the program runs"))
    };
    let cases = [
        (
            "manager restart app",
            "under cron: command not found: manager (PATH=/usr/bin:/bin). Fix: set PATH under env:",
        ),
        ("[manager]", "under cron: "),
        ("gone restart app", "PROBLEM     command not found: gone (PATH=/usr/bin:/bin)"),
        ("{run: [./gone]}", "PROBLEM     no such file: ./gone"),
        ("{run: [./plain]}", "PROBLEM     not executable: "),
    ];
    for (restart, expected) in cases {
        let output = run(&restart.replace("[manager]", "{run: [manager]}"), "");
        sandbox.assert(
            output.code == Some(1) && output.out.contains(expected),
            &format!("{restart}: `{expected}`: {output:?}"),
        );
        let end = "Not ready: 1 problem. Fix it and run check again; it will then print your crontab line.\n";
        sandbox.assert(output.out.ends_with(end), &format!("{output:?}"));
    }
    let output = run("manager restart app", &format!("env: {{PATH: '{tools}:/bin:/usr/bin'}}\n"));
    sandbox.assert(output.code == Some(0) && output.out.contains("manager: found"), &format!("{output:?}"));
    let output = run("manager restart app", &format!("env: {{PATH: '{tools}'}}\n"));
    sandbox.assert(output.code == Some(0), &format!("the interpreter is in the same folder: {output:?}"));
    fs::remove_file(sandbox.path("tools/interpreter-of-manager")).expect("the file exists");
    let output = run("manager restart app", &format!("env: {{PATH: '{tools}'}}\n"));
    let needs = "manager needs interpreter-of-manager: command not found: interpreter-of-manager (PATH=";
    sandbox.assert(output.code == Some(1) && output.out.contains(needs), &format!("{output:?}"));
}

#[test]
fn unusable_and_public_folders_are_reported() {
    let server = healthy_server();
    let sandbox = Sandbox::new("");
    let config = |top: &str| sandbox.write("watchdog.yaml", &format!("{top}{}", http(&server, "")));
    sandbox.write("file", "in the way");
    config("state_dir: file/state\n");
    check(&sandbox, &["check"], 1, &["PROBLEM     state folder ", "/file is not a folder"]);
    config("state_dir: state\nlog: {file: file/watchdog.log}\n");
    check(&sandbox, &["check"], 1, &["PROBLEM     log folder ", "/file is not a folder"]);
    config("state_dir: public_html/state\n");
    let visible = "is under a web root: a web server may show it to everybody; move it to your home folder";
    check(&sandbox, &["check"], 1, &["PROBLEM     state folder ", "/public_html/state ", visible]);
    if !rustix::process::geteuid().is_root() {
        fs::create_dir(sandbox.path("closed")).expect("folder access");
        fs::set_permissions(sandbox.path("closed"), Permissions::from_mode(0o500)).expect("the test owns the folder");
        config("state_dir: closed/state\n");
        check(&sandbox, &["check"], 1, &["closed is not writable (permission denied)"]);
    }
    sandbox.assert(!sandbox.path("public_html").exists(), "nothing is created");

    fs::create_dir(sandbox.path("htdocs")).expect("folder access");
    sandbox.write("htdocs/watchdog.yaml", &format!("state_dir: ../state\n{}", http(&server, "")));
    check(&sandbox, &["check", "-c", "htdocs/watchdog.yaml"], 1, &["PROBLEM     configuration ", visible]);
}

#[test]
fn the_crontab_line_works_as_cron_runs_it() {
    let server = healthy_server();
    let sandbox = Sandbox::new("");
    let unusual = "it's 100% mine";
    fs::create_dir(sandbox.path(unusual)).expect("folder access");
    sandbox.write(&format!("{unusual}/watchdog.yaml"), &format!("state_dir: ../state\n{}", http(&server, "")));
    let output = check(&sandbox, &["check", "-c", &format!("{unusual}/watchdog.yaml")], 0, &["Ready."]);
    let line = output.out.lines().last().unwrap_or_default();
    let command = line.strip_prefix("* * * * * ").unwrap_or_else(|| panic!("{line}"));
    sandbox.assert(
        command.replace(r"\%", "").find('%').is_none(),
        "each % is escaped, because cron turns it into a line feed",
    );

    let run_like_cron = || {
        let mut cron = Command::new("/bin/sh");
        cron.args(["-c", &command.replace(r"\%", "%")]).env_clear().stdin(Stdio::null());
        cron.env("HOME", sandbox.home()).env("PATH", "/usr/bin:/bin").current_dir(sandbox.home());
        CommandOutput::new(cron.output().expect("sh runs"))
    };
    let first = run_like_cron();
    let is_reported = first.out.contains("The watchdog was not running yet. It is now (pid ") && first.err.is_empty();
    sandbox.assert(first.code == Some(0) && is_reported, &format!("{first:?}"));
    sandbox.eventually("the target is healthy", || {
        sandbox.run(&["status", "-c", &format!("{unusual}/watchdog.yaml")]).code == Some(0)
    });
    let second = run_like_cron();
    sandbox.assert(second.code == Some(0) && second.out.is_empty() && second.err.is_empty(), &format!("{second:?}"));
    check(&sandbox, &["stop", "-c", &format!("{unusual}/watchdog.yaml")], 0, &["is stopped"]);
}

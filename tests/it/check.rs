//! `check`: says what would happen, here and under cron, and touches nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::faults::{Server, Ways};
use crate::place::{Place, Said};

fn http(server: &Server, rest: &str) -> String {
    format!("targets:\n  - {{name: app, http: 'http://127.0.0.1:{}/health?key=x'{rest}}}\n", server.port())
}

fn well() -> Server {
    Server::start(Ways::answer("200 OK", "fine"))
}

/// The names of all that lies in the folder and below.
fn names(place: &Place) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![place.home().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            names.push(entry.path().display().to_string());
            folders.extend(Some(entry.path()).filter(|path| path.is_dir()));
        }
    }
    names.sort();
    names
}

/// Exit code and what must be in the answer.
#[track_caller]
fn check(place: &Place, words: &[&str], code: i32, says: &[&str]) -> Said {
    let said = place.run(words);
    place.demand(said.code == Some(code) && said.err.is_empty(), &format!("exit code {code}: {said:?}"));
    for words in says {
        place.demand(said.out.contains(words), &format!("`{words}` is said:\n{}", said.out));
    }
    said
}

#[test]
fn what_would_happen_is_said_and_nothing_is_touched() {
    let server = well();
    let place = Place::with(&http(
        &server,
        ", restart: ['touch ran', {run: [touch, 'ran too'], timeout: 2m}], only_if: touch asked, interval: 15s, \
         retry_interval: 5s, max_restarts: 3",
    ));
    let before = names(&place);
    let path = place.path("watchdog.yaml").display().to_string();
    let said = check(
        &place,
        &["check"],
        0,
        &[
            "is valid. 1 target.\n",
            &format!("app   GET http://127.0.0.1:{}/health?…   200 in ", server.port()),
            "every 15 s, every 5 s after a failure, timeout 10 s; down after 3 failures in a row",
            "(within 1 min 15 s)",
            "repairs     1  touch ran   (at most 1 min)",
            "            2  touch ran too   (at most 2 min)",
            "1 min apart, later up to 10 min; at most 3 in 1 h",
            "only if this exits 0: touch asked",
            "touch: found",
            " MiB in ",
        ],
    );
    place.demand(said.out.starts_with(&path), "the configuration is named");
    let end = format!(
        "Ready. Paste this into crontab -e, or into your panel's cron jobs:\n* * * * * {} start --cron -c {path}\n",
        env!("CARGO_BIN_EXE_watchdog")
    );
    place.demand(said.out.ends_with(&end), &format!("it ends with the line for crontab:\n{}", said.out));
    assert_eq!(names(&place), before, "nothing is touched");
    assert_eq!(server.requests().len(), 1, "one look");
}

#[test]
fn offline_nobody_is_looked_at() {
    let server = Server::start(Ways::Silent);
    let place = Place::with(&http(&server, ""));
    check(
        &place,
        &["check", "--offline"],
        0,
        &["not probed (--offline)", "none: this target is only watched", "Ready."],
    );
    assert!(server.requests().is_empty());
}

#[test]
fn a_target_in_trouble_is_told_as_what_it_is() {
    let server = Server::start(Ways::answer("503 Service Unavailable", ""));
    let beat = "  - {name: beat, file: {path: run/beat, max_age: 2m}}\n";
    let other = format!("{beat}  - {{name: probe, command: 'echo why >&2; exit 4'}}\n");
    let place = Place::with(&format!("{}{other}", http(&server, "")));
    check(
        &place,
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
fn what_cron_would_not_find_is_told_before_the_outage() {
    let place = Place::with("");
    fs::create_dir_all(place.path("tools")).expect("a folder");
    place.write("tools/manager", "#!/usr/bin/env interpreter-of-manager\n");
    place.write("tools/interpreter-of-manager", "#!/bin/sh\n");
    place.write("plain", "#!/bin/sh\n");
    for name in ["tools/manager", "tools/interpreter-of-manager"] {
        fs::set_permissions(place.path(name), Permissions::from_mode(0o755)).expect("a file of ours");
    }
    let tools = place.path("tools").display().to_string();
    let run = |restart: &str, top: &str| {
        place.configure(&format!("{top}targets:\n  - {{name: app, tcp: 'localhost:1', restart: {restart}}}\n"));
        let mut command = place.command(&["check", "--offline"]);
        command.env("PATH", format!("{tools}:/usr/bin:/bin"));
        Said::new(command.output().expect("the program runs"))
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
    for (restart, says) in cases {
        let said = run(&restart.replace("[manager]", "{run: [manager]}"), "");
        place.demand(said.code == Some(1) && said.out.contains(says), &format!("{restart}: `{says}`: {said:?}"));
        let end = "Not ready: 1 problem. Fix it and run check again; it will then print your crontab line.\n";
        place.demand(said.out.ends_with(end), &format!("{said:?}"));
    }
    let said = run("manager restart app", &format!("env: {{PATH: '{tools}:/bin:/usr/bin'}}\n"));
    place.demand(said.code == Some(0) && said.out.contains("manager: found"), &format!("{said:?}"));
    let said = run("manager restart app", &format!("env: {{PATH: '{tools}'}}\n"));
    place.demand(said.code == Some(0), &format!("its interpreter is beside it: {said:?}"));
    fs::remove_file(place.path("tools/interpreter-of-manager")).expect("it is there");
    let said = run("manager restart app", &format!("env: {{PATH: '{tools}'}}\n"));
    let needs = "manager needs interpreter-of-manager: command not found: interpreter-of-manager (PATH=";
    place.demand(said.code == Some(1) && said.out.contains(needs), &format!("{said:?}"));
}

#[test]
fn folders_that_cannot_be_used_and_those_that_the_world_sees_are_told() {
    let server = well();
    let place = Place::with("");
    let config = |top: &str| place.write("watchdog.yaml", &format!("{top}{}", http(&server, "")));
    place.write("file", "in the way");
    config("state_dir: file/state\n");
    check(&place, &["check"], 1, &["PROBLEM     state folder ", "/file is not a folder"]);
    config("state_dir: state\nlog: {file: file/watchdog.log}\n");
    check(&place, &["check"], 1, &["PROBLEM     log folder ", "/file is not a folder"]);
    config("state_dir: public_html/state\n");
    let visible = "is under a web root: a web server may show it to everybody; move it to your home folder";
    check(&place, &["check"], 1, &["PROBLEM     state folder ", "/public_html/state ", visible]);
    if !rustix::process::geteuid().is_root() {
        fs::create_dir(place.path("closed")).expect("a folder");
        fs::set_permissions(place.path("closed"), Permissions::from_mode(0o500)).expect("a folder of ours");
        config("state_dir: closed/state\n");
        check(&place, &["check"], 1, &["closed is not writable (permission denied)"]);
    }
    place.demand(!place.path("public_html").exists(), "nothing is made");

    fs::create_dir(place.path("htdocs")).expect("a folder");
    place.write("htdocs/watchdog.yaml", &format!("state_dir: ../state\n{}", http(&server, "")));
    check(&place, &["check", "-c", "htdocs/watchdog.yaml"], 1, &["PROBLEM     configuration ", visible]);
}

#[test]
fn the_line_for_crontab_works_as_cron_runs_it() {
    let server = well();
    let place = Place::with("");
    let odd = "it's 100% mine";
    fs::create_dir(place.path(odd)).expect("a folder");
    place.write(&format!("{odd}/watchdog.yaml"), &format!("state_dir: ../state\n{}", http(&server, "")));
    let said = check(&place, &["check", "-c", &format!("{odd}/watchdog.yaml")], 0, &["Ready."]);
    let line = said.out.lines().last().unwrap_or_default();
    let command = line.strip_prefix("* * * * * ").unwrap_or_else(|| panic!("{line}"));
    place.demand(command.replace(r"\%", "").find('%').is_none(), "each % is escaped, for cron takes it as a new line");

    let as_cron_does = || {
        let mut cron = Command::new("/bin/sh");
        cron.args(["-c", &command.replace(r"\%", "%")]).env_clear().stdin(Stdio::null());
        cron.env("HOME", place.home()).env("PATH", "/usr/bin:/bin").current_dir(place.home());
        Said::new(cron.output().expect("sh is there"))
    };
    let first = as_cron_does();
    let told = first.out.contains("The watchdog was not running yet. It is now (pid ") && first.err.is_empty();
    place.demand(first.code == Some(0) && told, &format!("{first:?}"));
    place.eventually("it is healthy", || place.run(&["status", "-c", &format!("{odd}/watchdog.yaml")]).code == Some(0));
    let second = as_cron_does();
    place.demand(second.code == Some(0) && second.out.is_empty() && second.err.is_empty(), &format!("{second:?}"));
    check(&place, &["stop", "-c", &format!("{odd}/watchdog.yaml")], 0, &["is stopped"]);
}

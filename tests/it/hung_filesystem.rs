//! A file server that does not respond, under PM2's home or under a restart command, prevents the repair of the target
//! that needs it. That is reported, and other targets are not affected.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::sandbox::{Daemon, Sandbox};

/// A watchdog for which no access below the folder `dead` returns while the file `silent` exists.
fn start_watchdog(sandbox: &Sandbox) -> Daemon<'_> {
    fs::create_dir_all(sandbox.path("dead/pm2")).expect("folder access");
    sandbox.write("silent", "");
    // The program must exist, but does nothing useful.
    fs::create_dir_all(sandbox.path("bin")).expect("folder access");
    sandbox.write("bin/pm2", "#!/bin/sh\nexit 1\n");
    fs::set_permissions(sandbox.path("bin/pm2"), Permissions::from_mode(0o700)).expect("the test owns it");
    let path = format!("{}:{}", sandbox.path("bin").display(), std::env::var("PATH").unwrap_or_default());
    let mut command = sandbox.command(&["run"]);
    command
        .env("PATH", path)
        .env("LD_PRELOAD", sandbox.build_preload("dead.c"))
        .env("DEAD", sandbox.path("dead"))
        .env("DEAD_WHILE", sandbox.path("silent"));
    sandbox.start_daemon_from(command)
}

/// Breaks the other target and waits for its repair.
#[track_caller]
fn check_other_is_repaired(sandbox: &Sandbox) {
    let before = sandbox.events_of("other", "up").len();
    sandbox.eventually("the other target is healthy", || sandbox.target("other")["state"] == "healthy");
    fs::remove_file(sandbox.path("other.up")).expect("the target is healthy");
    sandbox.eventually("the target is repaired", || sandbox.events_of("other", "up").len() > before);
}

/// The target `one` with these keys, and a target `other` with a restart command.
fn config(one: &str) -> String {
    format!(
        "defaults: {{interval: 100ms, timeout: 1s, failure_threshold: 1, start_period: 200ms, cooldown: 1s, \
         max_cooldown: 1s, max_restarts: 100}}\ntargets:\n  - {{name: one, command: test -e one.up, {one}}}\n  \
         - {{name: other, command: test -e other.up, restart: touch other.up}}\n"
    )
}

#[test]
fn a_restart_command_that_cannot_start_gives_way_and_does_not_start_later() {
    let sandbox = Sandbox::new("");
    // Once it runs, it leaves a trace at its start and at its end.
    let program = sandbox.path("dead/restart").display().to_string();
    sandbox.configure(&config(&format!("restart: {{run: [{program}]}}")));
    sandbox.write("one.up", "");
    sandbox.write("other.up", "");
    let daemon = start_watchdog(&sandbox);
    sandbox.write("dead/restart", "#!/bin/sh\necho began >> began\nsleep 2\necho done >> done\n");
    fs::set_permissions(&program, Permissions::from_mode(0o700)).expect("the test owns it");
    // That the program cannot be checked delays nothing.
    check_other_is_repaired(&sandbox);

    sandbox.eventually("the target is healthy", || sandbox.target("one")["state"] == "healthy");
    fs::remove_file(sandbox.path("one.up")).expect("the file exists");
    sandbox.eventually("the restart has begun", || !sandbox.events_of("one", "restart").is_empty());
    sandbox.eventually("the restart is over", || !sandbox.events_of("one", "restart_done").is_empty());
    let done = &sandbox.events_of("one", "restart_done")[0];
    sandbox.assert(done["outcome"] == "not_started", &format!("nothing was started: {done}"));
    sandbox.wait_for_log("one (command 1): no result after");
    let reports_it =
        |warn: &serde_json::Value| warn["detail"].to_string().contains("on a file server that does not respond");
    sandbox.assert(sandbox.events_of("one", "warn").iter().any(reports_it), "the reason is reported");
    check_other_is_repaired(&sandbox);

    // Further attempts delay nothing, and no threads accumulate.
    let threads = || fs::read_dir(format!("/proc/{}/task", daemon.pid())).map_or(0, |threads| threads.count());
    sandbox.eventually("the restart was tried again", || sandbox.events_of("one", "restart_done").len() > 3);
    sandbox.assert(threads() < 10, &format!("{} threads", threads()));
    check_other_is_repaired(&sandbox);

    sandbox.assert(sandbox.lines("began").is_empty(), "the command has not started yet");
    fs::remove_file(sandbox.path("silent")).expect("the file exists");
    sandbox.wait_for_log("the job that hung has ended");
    sandbox.wait_for_log("one restart command exited 0");
    let is_finished = |done: &&serde_json::Value| done["outcome"] == "exited";
    let finished = || sandbox.events_of("one", "restart_done").iter().filter(is_finished).count();
    sandbox.eventually("every command that ran was ordered", || finished() == sandbox.lines("done").len());
}

#[test]
fn a_hanging_pm2_home_does_not_prevent_other_repairs() {
    let sandbox = Sandbox::new("");
    let home = sandbox.path("dead/pm2").display().to_string();
    sandbox.configure(&config(&format!("pm2: {{process: one, home: '{home}', reset: true}}")));
    sandbox.write("other.up", "");
    let daemon = start_watchdog(&sandbox);
    sandbox.write("one.up", "");
    sandbox.eventually("the target is healthy", || sandbox.target("one")["state"] == "healthy");
    fs::remove_file(sandbox.path("one.up")).expect("the file exists");
    sandbox.wait_for_log("PM2 inspection of one: no result after");
    sandbox.eventually("the target is down anyway", || !sandbox.events_of("one", "down").is_empty());
    sandbox.eventually("the repair has failed", || !sandbox.events_of("one", "restart_done").is_empty());
    let done = &sandbox.events_of("one", "restart_done")[0];
    sandbox.assert(done["outcome"] == "not_started", &format!("nothing was started: {done}"));
    let reports_it =
        |warn: &serde_json::Value| warn["about"] == "cannot_repair" && warn["detail"].to_string().contains(&home);
    sandbox.eventually("the home is named", || sandbox.events_of("one", "warn").iter().any(reports_it));
    check_other_is_repaired(&sandbox);
    check_other_is_repaired(&sandbox);

    // When the operator moves the home to a working disk, the old one is not reported any more.
    let moved = sandbox.path("moved").display().to_string();
    sandbox.configure(&config(&format!("pm2: {{process: one, home: '{moved}', reset: true}}")));
    daemon.signal(Signal::HUP);
    sandbox.eventually("the new home is inspected for a repair", || {
        let log = sandbox.log();
        let (_, after) = log.split_once("reloaded ").unwrap_or_default();
        after.lines().any(|line| line.contains("could not be started") && !line.contains("file server"))
    });
}

#[test]
fn a_hanging_restart_command_does_not_delay_its_replacement() {
    let sandbox = Sandbox::new("");
    sandbox.configure(&config(&format!("restart: {{run: [{}]}}", sandbox.path("dead/restart").display())));
    sandbox.write("one.up", "");
    sandbox.write("other.up", "");
    let daemon = start_watchdog(&sandbox);
    sandbox.eventually("the target is healthy", || sandbox.target("one")["state"] == "healthy");
    fs::remove_file(sandbox.path("one.up")).expect("the file exists");
    sandbox.eventually("the command hangs", || !sandbox.events_of("one", "restart_done").is_empty());

    sandbox.configure(&config("restart: touch one.up"));
    daemon.signal(Signal::HUP);
    sandbox.eventually("the new command is run", || !sandbox.events_of("one", "up").is_empty());
    sandbox.assert(sandbox.path("silent").exists(), "the first command still hangs");
}

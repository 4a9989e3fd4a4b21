//! A file server that gives no answer, under PM2's home or under a restart command: it costs the target that needs it
//! its repair, is told, and costs the others nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::place::{Daemon, Place};

/// A watchdog for whom all below the folder `dead` gives no answer while there is the file `silent`.
fn watch(place: &Place) -> Daemon<'_> {
    fs::create_dir_all(place.path("dead/pm2")).expect("a folder");
    place.write("silent", "");
    // It need not do anything, but be there.
    fs::create_dir_all(place.path("bin")).expect("a folder");
    place.write("bin/pm2", "#!/bin/sh\nexit 1\n");
    fs::set_permissions(place.path("bin/pm2"), Permissions::from_mode(0o700)).expect("ours");
    let path = format!("{}:{}", place.path("bin").display(), std::env::var("PATH").unwrap_or_default());
    let mut command = place.command(&["run"]);
    command
        .env("PATH", path)
        .env("LD_PRELOAD", place.library("dead.c"))
        .env("DEAD", place.path("dead"))
        .env("DEAD_WHILE", place.path("silent"));
    place.daemon_by(command)
}

/// The other target goes down, and is repaired.
#[track_caller]
fn repairs_the_other(place: &Place) {
    let before = place.events_of("other", "up").len();
    place.eventually("the other one is well", || place.target("other")["state"] == "healthy");
    fs::remove_file(place.path("other.up")).expect("it is well");
    place.eventually("it is repaired", || place.events_of("other", "up").len() > before);
}

/// The one, and an other one that a command repairs.
fn config(one: &str) -> String {
    format!(
        "defaults: {{interval: 100ms, timeout: 1s, failure_threshold: 1, start_period: 200ms, cooldown: 1s, \
         max_cooldown: 1s, max_restarts: 100}}\ntargets:\n  - {{name: one, command: test -e one.up, {one}}}\n  \
         - {{name: other, command: test -e other.up, restart: touch other.up}}\n"
    )
}

#[test]
fn a_restart_command_that_cannot_begin_gives_its_turn_away_and_does_not_begin_later() {
    let place = Place::with("");
    // Once it begins, it is seen a moment later.
    let program = place.path("dead/restart").display().to_string();
    place.configure(&config(&format!("restart: {{run: [{program}]}}")));
    place.write("one.up", "");
    place.write("other.up", "");
    let daemon = watch(&place);
    place.write("dead/restart", "#!/bin/sh\necho began >> began\nsleep 2\necho done >> done\n");
    fs::set_permissions(&program, Permissions::from_mode(0o700)).expect("ours");
    // That it cannot be said whether the program is there holds up nobody.
    repairs_the_other(&place);

    place.eventually("it was seen healthy", || place.target("one")["state"] == "healthy");
    fs::remove_file(place.path("one.up")).expect("it is there");
    place.eventually("its turn has come", || !place.events_of("one", "restart").is_empty());
    place.eventually("its turn is over", || !place.events_of("one", "restart_done").is_empty());
    let done = &place.events_of("one", "restart_done")[0];
    place.demand(done["outcome"] == "not_started", &format!("nothing was started: {done}"));
    place.told("one (command 1): no result after");
    let told = |warn: &serde_json::Value| warn["detail"].to_string().contains("on a file server that does not respond");
    place.demand(place.events_of("one", "warn").iter().any(told), "it is told");
    repairs_the_other(&place);

    // Tried again, it holds up nobody, and nothing piles up.
    let threads = || fs::read_dir(format!("/proc/{}/task", daemon.pid())).map_or(0, |threads| threads.count());
    place.eventually("it was tried again", || place.events_of("one", "restart_done").len() > 3);
    place.demand(threads() < 10, &format!("{} threads", threads()));
    repairs_the_other(&place);

    place.demand(place.lines("began").is_empty(), "it has not begun yet");
    fs::remove_file(place.path("silent")).expect("it is there");
    place.told("the job that hung has ended");
    place.told("one restart command exited 0");
    let is_whole = |done: &&serde_json::Value| done["outcome"] == "exited";
    let whole = || place.events_of("one", "restart_done").iter().filter(is_whole).count();
    place.eventually("only what was ordered comes to its end", || whole() == place.lines("done").len());
}

#[test]
fn a_hung_home_of_pm2_costs_no_other_target_its_repair() {
    let place = Place::with("");
    let home = place.path("dead/pm2").display().to_string();
    place.configure(&config(&format!("pm2: {{process: one, home: '{home}', reset: true}}")));
    place.write("other.up", "");
    let daemon = watch(&place);
    place.write("one.up", "");
    place.eventually("it was seen healthy", || place.target("one")["state"] == "healthy");
    fs::remove_file(place.path("one.up")).expect("it is there");
    place.told("PM2 inspection of one: no result after");
    place.eventually("it is down all the same", || !place.events_of("one", "down").is_empty());
    place.eventually("no repair of it is possible", || !place.events_of("one", "restart_done").is_empty());
    let done = &place.events_of("one", "restart_done")[0];
    place.demand(done["outcome"] == "not_started", &format!("nothing was started: {done}"));
    let told =
        |warn: &serde_json::Value| warn["about"] == "cannot_repair" && warn["detail"].to_string().contains(&home);
    place.eventually("which home it is, is told", || place.events_of("one", "warn").iter().any(told));
    repairs_the_other(&place);
    repairs_the_other(&place);

    // The operator moves it to where there are answers, and is not told of the old place any more.
    let moved = place.path("moved").display().to_string();
    place.configure(&config(&format!("pm2: {{process: one, home: '{moved}', reset: true}}")));
    daemon.signal(Signal::HUP);
    place.eventually("the new home is inspected, and is what a repair is tried by", || {
        let log = place.log();
        let (_, after) = log.split_once("reloaded ").unwrap_or_default();
        after.lines().any(|line| line.contains("could not be started") && !line.contains("file server"))
    });
}

#[test]
fn what_replaces_a_restart_command_that_hangs_is_not_held_up_by_it() {
    let place = Place::with("");
    place.configure(&config(&format!("restart: {{run: [{}]}}", place.path("dead/restart").display())));
    place.write("one.up", "");
    place.write("other.up", "");
    let daemon = watch(&place);
    place.eventually("it was seen healthy", || place.target("one")["state"] == "healthy");
    fs::remove_file(place.path("one.up")).expect("it is there");
    place.eventually("its command hangs", || !place.events_of("one", "restart_done").is_empty());

    place.configure(&config("restart: touch one.up"));
    daemon.signal(Signal::HUP);
    place.eventually("the one that replaces it is run", || !place.events_of("one", "up").is_empty());
    place.demand(place.path("silent").exists(), "the first one hangs still");
}

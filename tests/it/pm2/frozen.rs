//! A backend that is there and answers nothing, of which PM2 says that it is online: one restart cures it.

use std::time::Duration;

use super::installed::Version;
use super::scene::{NAME, Scene};
use crate::place::Daemon;

/// Three looks of 300 ms and 1 s, what PM2 gives a process to end, and 5 s; three times that, for a slow machine.
const FOUND_AND_CURED: Duration = Duration::from_millis(3 * (3 * 1_300 + 1_600 + 5_000));

#[track_caller]
fn check<'a>(scene: &'a Scene, way: &str) -> Daemon<'a> {
    scene.start();
    let watchdog = scene.watch(&scene.target(""));
    let before = scene.freeze(way);
    scene.healed_by_one(before);
    let (down, up) = (&scene.place.events("down")[0], &scene.place.events("up")[0]);
    assert_eq!(down["class"], "timeout", "{}", scene.place.story());
    let took = Duration::from_millis(up["down_ms"].as_u64().expect("a number"));
    scene.place.demand(took < FOUND_AND_CURED, &format!("it took {took:?}"));
    watchdog
}

#[test]
fn a_busy_loop_is_cured_by_one_restart() {
    let scene = Scene::new("");
    let _watchdog = check(&scene, "/freeze");
    scene.place.told("busy in a loop");
    let story = || scene.place.run(&["incident", "last"]).out;
    let is_written = || ["machine: load ", "Helped   yes"].iter().all(|part| story().contains(part));
    scene.eventually("all is written", is_written);
    let story = story();
    let parts = [
        "What     timeout; connected in ",
        "Why      its process (pid ",
        "of a core: busy in a loop, not waiting",
        "  pm2 restart ",
        "Helped   yes: 200 in ",
        " has cured 1 of 1 timeout in ",
        "process.txt",
    ];
    for part in parts {
        scene.place.demand(story.contains(part), &format!("`{part}` is in:\n{story}"));
    }
    // On a machine that has too little time for it, that is told instead.
    let is_whole = [" (up ", "others had it while it wanted to run"].iter().any(|part| story.contains(part));
    scene.place.demand(is_whole, &story);
}

#[test]
fn a_frozen_backend_that_heeds_no_sigint_is_cured_by_one_restart() {
    let scene = Scene::new("");
    scene.set("stubborn", "");
    check(&scene, "/block");
}

#[test]
fn a_backend_that_takes_connections_and_never_answers_is_cured_by_one_restart() {
    check(&Scene::new(""), "/mute");
}

#[test]
fn a_frozen_worker_of_a_cluster_is_cured_and_the_daemon_that_listens_for_it_is_let_live() {
    let scene = Scene::unsaved("exec_mode: 'cluster', instances: 1");
    let daemon = scene.daemon();
    // The reset is thought of first, and passed over.
    let _watchdog = scene.watch(&format!("{}, restart: [{{pm2: reset}}, {{pm2: restart}}]", scene.target("")));
    let before = scene.freeze("/block");
    scene.healed_by_one(before);
    assert_eq!(scene.daemon(), daemon, "{}", scene.place.story());
}

#[test]
fn an_instance_that_somebody_stopped_stays_so_when_another_one_freezes() {
    let scene = Scene::unsaved("exec_mode: 'cluster', instances: 2");
    scene.pm2(&["stop", "1"]);
    let _watchdog = scene.watch(&scene.target(""));
    let before = scene.freeze("/block");
    scene.healed_by_one(before);
    let states: Vec<String> = scene.list().into_iter().map(|(_, _, state)| state).collect();
    assert_eq!(states, ["online", "stopped"], "{}", scene.place.story());
}

#[test]
fn beside_an_older_pm2_it_is_cured_too() {
    let scene = Scene::with(Version::Five, "");
    scene.start();
    scene.pm2(&["save"]);
    let _watchdog = scene.watch(&scene.target(""));
    let before = scene.freeze("/block");
    let pid = scene.healed_by_one(before);
    scene.kill_daemon();
    scene.eventually("it is up again", || scene.place.events("up").len() == 2);
    scene.healed(pid);
    // A look while the command still runs may have told that it is up, and then a start period follows.
    scene.eventually("it stays so", || scene.place.target(NAME)["state"] == "healthy");
}

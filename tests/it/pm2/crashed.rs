//! A backend that has exited: what PM2 heals by itself is left to it, and what it does not heal is repaired.

use super::scene::{NAME, Scene};

#[test]
fn a_crash_that_pm2_heals_is_left_to_it() {
    let scene = Scene::unsaved("");
    let _watchdog = scene.watch(&scene.target(""));
    let before = scene.well();
    scene.ask("/exit?code=1");
    scene.well_again(before);
    scene.looks(6);
    scene.demand_untouched();
    assert_eq!(scene.starts(), 2, "{}", scene.place.story());
}

/// PM2 says `stopped` of all, and of one that was killed even that it exited with 0.
#[test]
fn a_crash_that_pm2_does_not_heal_is_repaired_whether_it_exited_or_was_killed() {
    for (keys, kill) in [("autorestart: false", false), ("autorestart: false", true), ("stop_exit_codes: [0]", true)] {
        let scene = Scene::unsaved(keys);
        let _watchdog = scene.watch(&scene.target(""));
        let before = scene.well();
        if kill {
            scene.kill(before);
        } else {
            scene.ask("/exit?code=3");
        }
        scene.healed_by_one(before);
    }
}

#[test]
fn what_pm2_has_given_up_is_healed_once_its_cause_is_gone() {
    for keys in ["max_restarts: 3", "max_restarts: 3, restart_delay: 100"] {
        let scene = Scene::unsaved(keys);
        let _watchdog = scene.watch(&format!("{}, start_period: 3s", scene.target("")));
        let before = scene.well();
        scene.crash_for_good();
        scene.unset("broken");
        scene.healed(before);
        scene.place.demand(!scene.place.events("restart").is_empty(), "it took a restart");
    }
}

#[test]
fn a_cause_that_stays_is_tried_within_the_limit_and_looked_at_on() {
    let scene = Scene::unsaved("max_restarts: 2");
    let _watchdog = scene.watch(&format!("{}, start_period: 2s, max_restarts: 2", scene.target("")));
    scene.crash_for_good();
    scene.held_back("limit");
    scene.looks(5);
    assert_eq!(scene.place.events("restart").len(), 2, "{}", scene.place.story());
    assert_eq!(scene.place.target(NAME)["waiting"]["why"], "limit", "{}", scene.place.story());
}

#[test]
fn a_backend_that_crashes_again_and_again_and_always_comes_back_is_told_once() {
    let scene = Scene::unsaved("");
    let _watchdog = scene.watch(&scene.target(""));
    for _ in 0..3 {
        let before = scene.well();
        scene.ask("/exit?code=1");
        scene.known_as(scene.well_again(before));
    }
    scene.eventually("it is told", || scene.warnings("crash_loop") > 0);
    scene.looks(5);
    assert_eq!(scene.warnings("crash_loop"), 1, "{}", scene.place.story());
    scene.demand_untouched();
}

#[test]
fn without_another_probe_the_process_itself_is_what_is_watched_and_pm2_is_not_called_for_it() {
    let scene = Scene::new("autorestart: false").counted();
    scene.start();
    let _watchdog = scene.watch(&scene.beside(&scene.by_file()));
    scene.looks(5);
    assert_eq!(scene.place.lines("calls"), [""; 0], "nothing of PM2 runs while all is well");
    let before = scene.well();
    scene.kill(before);
    scene.healed_by_one(before);
    scene.place.demand(!scene.place.lines("calls").is_empty(), "to repair, it runs, and that is seen");
    assert_eq!(scene.place.events("down")[0]["class"], "gone", "{}", scene.place.story());
}

#[test]
fn nothing_of_pm2_runs_while_all_is_well() {
    let scene = Scene::new("").counted();
    scene.start();
    let watchdog = scene.watch(&scene.target(", reset: true"));
    scene.looks(5);
    assert_eq!(scene.place.lines("calls"), [""; 0], "by a daemon");
    watchdog.stop();
    assert_eq!(scene.place.run(&["--once"]).code, Some(0), "{}", scene.place.story());
    assert_eq!(scene.place.lines("calls"), [""; 0], "by a tick");
}

//! The server has lost power: PM2 and the backend are gone, their files are stale, and cron is all there is, with its
//! environment that knows neither pm2 nor node.

use rustix::process::Signal;

use super::scene::{NAME, Scene};
use crate::place::{is_alive, send};

/// A scene with a saved list, or else with an ecosystem file given, and what the target has of them.
fn scene(saved: bool) -> Scene {
    let scene = if saved { Scene::saved("") } else { Scene::unsaved("") };
    let pm2 = if saved { String::new() } else { scene.by_file() };
    scene.configure(&scene.target(&pm2));
    scene
}

#[track_caller]
fn check_start(saved: bool) {
    let scene = scene(saved);
    assert_eq!(scene.by_cron(&["start"]).code, Some(0), "{}", scene.place.story());
    scene.eventually("it is seen well", || scene.place.target(NAME)["state"] == "healthy");
    let (before, watchdog) = (scene.well(), scene.place.holder().expect("it was just started"));
    send(watchdog, Signal::KILL);
    scene.lose_power();
    scene.eventually("the watchdog is gone", || !is_alive(watchdog));
    let said = scene.by_cron(&["start", "--cron"]);
    scene.place.demand(said.code == Some(0) && scene.place.holder().is_some(), &format!("{said:?}"));
    scene.healed_by_one(before);
}

#[track_caller]
fn check_ticks(saved: bool) {
    let scene = scene(saved);
    let silent = |code: i32| {
        let said = scene.by_cron(&["--once"]);
        let expected = (Some(code), "", "");
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), expected, "{}", scene.place.story());
    };
    silent(0);
    let before = scene.well();
    scene.lose_power();
    silent(1);
    silent(1);
    let said = scene.by_cron(&["--once"]);
    scene.place.demand(said.code == Some(0) && said.out.contains(" helped"), &format!("{said:?}"));
    scene.healed_by_one(before);
    silent(0);
}

#[test]
fn start_from_cron_brings_the_watchdog_and_the_saved_backend_back() {
    check_start(true);
}

#[test]
fn start_from_cron_brings_the_watchdog_and_a_backend_never_saved_back() {
    check_start(false);
}

#[test]
fn ticks_from_cron_bring_the_saved_backend_back() {
    check_ticks(true);
}

#[test]
fn ticks_from_cron_bring_a_backend_never_saved_back() {
    check_ticks(false);
}

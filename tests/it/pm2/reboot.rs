//! The server has lost power: PM2 and the backend are gone, their files are stale, and cron is all there is, with its
//! environment that knows neither pm2 nor node.

use super::scene::{NAME, Scene};
use crate::place::{Said, is_alive, send};
use rustix::process::Signal;

/// The watchdog as cron runs it.
#[track_caller]
fn by_cron(scene: &Scene, words: &[&str]) -> Said {
    let config = scene.place.path("watchdog.yaml").display().to_string();
    let mut command = scene.place.command(&[words, &["-c", &config]].concat());
    command.env_clear().env("HOME", scene.place.home()).env("PATH", "/usr/bin:/bin").current_dir("/");
    Said::new(command.output().expect("the program runs"))
}

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
    assert_eq!(by_cron(&scene, &["start"]).code, Some(0), "{}", scene.place.story());
    scene.eventually("it is seen well", || scene.place.target(NAME)["state"] == "healthy");
    let (before, watchdog) = (scene.well(), scene.place.holder().expect("it was just started"));
    send(watchdog, Signal::KILL);
    scene.lose_power();
    scene.eventually("the watchdog is gone", || !is_alive(watchdog));
    let said = by_cron(&scene, &["start", "--cron"]);
    scene.place.demand(said.code == Some(0) && scene.place.holder().is_some(), &format!("{said:?}"));
    scene.healed_by_one(before);
}

#[track_caller]
fn check_ticks(saved: bool) {
    let scene = scene(saved);
    let silent = |code: i32| {
        let said = by_cron(&scene, &["--once"]);
        let expected = (Some(code), "", "");
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), expected, "{}", scene.place.story());
    };
    silent(0);
    let before = scene.well();
    scene.lose_power();
    silent(1);
    silent(1);
    let said = by_cron(&scene, &["--once"]);
    scene.place.demand(said.code == Some(0) && said.out.contains("Cured by the restart"), &format!("{said:?}"));
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

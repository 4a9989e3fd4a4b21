//! What the operator does to PM2 is not taken back, and what he has forgotten for it is said before it is needed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::json;

use super::scene::{NAME, Scene};
use crate::place::Said;

#[test]
fn what_the_operator_has_stopped_stays_stopped_and_his_start_is_noticed() {
    let scene = Scene::saved("");
    let _watchdog = scene.watch(&scene.target(", reset: true"));
    scene.eventually("it was up for a while", || scene.place.target(NAME)["uptime_24h"] == 1.0);
    scene.pm2(&["stop", NAME]);
    scene.rests("operator");
    // Several times its cooldown.
    scene.looks(12);
    let target = scene.place.target(NAME);
    let is_told = target["state"] == "stopped" && target["waiting"]["why"] == "stopped" && target["uptime_24h"] == 1.0;
    scene.place.demand(is_told, &target.to_string());
    let said = scene.place.run(&["status"]);
    let right = said.code == Some(0) && said.out.contains("stopped in PM2 by the operator (pm2 stop)");
    scene.place.demand(right, &format!("{said:?}"));
    scene.pm2(&["start", NAME]);
    scene.eventually("it is noticed", || !scene.place.events("woke").is_empty());
    scene.eventually("it is well", || scene.place.target(NAME)["state"] == "healthy");
    scene.demand_untouched();
    assert_eq!(scene.starts(), 2, "{}", scene.place.story());
}

/// It boots for longer than three looks, and less than its start period.
#[test]
fn a_deploy_with_a_slow_boot_is_no_trouble() {
    let scene = Scene::unsaved("");
    let _watchdog = scene.watch(&scene.target(""));
    let before = scene.well();
    scene.set("delay", "6000");
    scene.pm2(&["restart", NAME]);
    scene.well_again(before);
    scene.looks(3);
    scene.demand_untouched();
    assert_eq!(scene.starts(), 2, "{}", scene.place.story());
}

/// A PATH without pm2, and one that has it without the node that it needs.
#[test]
fn a_path_that_lacks_pm2_or_node_is_told_before_the_outage() {
    for (link, says) in [(false, "command not found: pm2 (PATH="), (true, "pm2 needs node")] {
        let mut scene = Scene::new("");
        let tools = scene.place.path("tools");
        fs::create_dir(&tools).expect("a folder");
        if link {
            symlink(scene.installed.bin.join("pm2"), tools.join("pm2")).expect("a link");
        }
        scene = scene.with_path(tools.display().to_string());
        scene.configure(&scene.target(""));
        let said = scene.place.run(&["check", "--offline"]);
        scene.place.demand(said.code == Some(1) && said.out.contains(says), &format!("`{says}`: {said:?}"));
        let _watchdog = scene.place.daemon(&["run"]);
        scene.eventually("it is told", || scene.warnings("cannot_repair") > 0);
        let detail = scene.place.events("warn")[0]["detail"].clone();
        scene.place.demand(detail.as_str().is_some_and(|detail| detail.contains(says)), &format!("{detail}"));
        scene.place.demand(scene.daemons().is_empty(), "nothing was started");
    }
}

#[test]
fn another_watchdog_under_pm2_is_a_danger() {
    let scene = Scene::saved("");
    scene.place.write("app/watchdog.js", "setInterval(() => {}, 1_000_000);\n");
    let script = scene.place.path("app/watchdog.js").display().to_string();
    scene.pm2(&["start", &script, "--name", "sav-watchdog"]);
    scene.pm2(&["save"]);
    scene.configure(&scene.target(""));
    let said = scene.place.run(&["check"]);
    let named = said.out.lines().any(|line| line.starts_with("DANGER") && line.contains("sav-watchdog"));
    let right = said.code == Some(1) && named && !said.out.contains("* * * * *");
    scene.place.demand(right, &format!("{said:?}"));
}

/// The program as the operator runs it who has pm2 and node in his PATH.
fn by_hand(scene: &Scene, words: &[&str]) -> Said {
    let mut command = scene.place.command(words);
    Said::new(command.env("PATH", scene.installed.path()).output().expect("the program runs"))
}

#[test]
fn init_writes_a_configuration_that_works_unchanged() {
    let scene = Scene::saved("");
    let home = scene.home();
    let there = scene.place.read("watchdog.yaml");
    let said = by_hand(&scene, &["init", "--pm2-home", &home]);
    let kept = said.code != Some(0) && scene.place.read("watchdog.yaml") == there;
    scene.place.demand(kept, &format!("what is there is kept: {said:?}"));
    let said = by_hand(&scene, &["init", "--pm2-home", &home, "--force"]);
    scene.place.demand(said.code == Some(0) && said.out.contains(NAME), &format!("{said:?}"));
    let mode = fs::metadata(scene.place.path("watchdog.yaml")).expect("it was written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "readable by the owner only");

    let said = scene.by_cron(&["check"]);
    scene.place.demand(said.code == Some(0) && said.out.contains("* * * * *"), &format!("{said:?}"));
    assert_eq!(scene.by_cron(&["--once"]).code, Some(0), "{}", scene.place.story());
    let before = scene.freeze("/block");
    let codes: Vec<Option<i32>> = (0..3).map(|_| scene.by_cron(&["--once"]).code).collect();
    assert_eq!(json!(codes), json!([1, 1, 0]), "{}\n{}", scene.place.story(), scene.place.read("watchdog.yaml"));
    scene.well_again(before);
    scene.daemon();
}

//! PM2 itself in trouble: its daemon dead, frozen, empty or lost, and what it leaves on the port.

use std::process::{Child, Command, Stdio};

use super::scene::Scene;
use crate::place::is_alive;

#[test]
fn a_killed_daemon_comes_back_with_its_saved_list() {
    let scene = Scene::saved("");
    let _watchdog = scene.watch(&scene.target(""));
    let before = scene.well();
    scene.kill_daemon();
    scene.healed_by_one(before);
}

#[test]
fn a_killed_daemon_comes_back_by_the_ecosystem_file_where_nothing_was_saved() {
    let scene = Scene::unsaved("");
    let _watchdog = scene.watch(&scene.target(&scene.by_file()));
    let before = scene.well();
    scene.kill_daemon();
    scene.healed_by_one(before);
}

/// As any pm2 command leaves one behind, where there was none.
#[test]
fn a_daemon_whose_list_is_empty_gets_the_backend_back() {
    let scene = Scene::saved("");
    let _watchdog = scene.watch(&scene.target(&scene.by_file()));
    let before = scene.well();
    scene.kill_daemon();
    scene.pm2(&["list"]);
    let daemon = scene.daemon();
    scene.healed_by_one(before);
    assert_eq!(scene.daemon(), daemon, "{}", scene.place.story());
}

/// The daemon stands still and the backend is gone: nothing but a reset helps.
#[track_caller]
fn stand_still(scene: &Scene) -> (i32, i32) {
    let (daemon, before) = (scene.stop_daemon(), scene.well());
    scene.kill(before);
    (daemon, before)
}

#[test]
fn a_daemon_that_stands_still_is_reset_where_that_is_allowed_before_anything_else_is_tried() {
    let scene = Scene::saved("");
    let _watchdog = scene.watch(&scene.target(", reset: true"));
    let (daemon, before) = stand_still(&scene);
    scene.healed_by_one(before);
    scene.place.demand(!is_alive(daemon), "the daemon that stood still is gone");
    assert_eq!(scene.place.events("restart")[0]["rung"], 2, "{}", scene.place.story());
}

#[test]
fn a_daemon_that_stands_still_is_told_and_no_command_is_run_where_a_reset_is_not_allowed() {
    let scene = Scene::saved("");
    let _watchdog = scene.watch(&format!("{}, start_period: 1s", scene.target("")));
    let (daemon, _) = stand_still(&scene);
    let mends = format!("kill -CONT {daemon}");
    let tells = |about: &str| {
        scene.place.events("warn").iter().any(|warn| warn["about"] == about && warn.to_string().contains(&mends))
    };
    scene.eventually("it is told what mends it", || tells("cannot_repair") && tells("pm2_deaf"));
    scene.looks(12);
    scene.place.demand(scene.calls().is_empty() && scene.daemons() == [daemon], "nothing was started");
    let done = scene.place.events("restart_done");
    scene.place.demand(done.iter().all(|done| done["outcome"] == "not_started"), &format!("{done:?}"));
    assert_eq!(scene.warnings("cannot_repair"), 1, "{}", scene.place.story());
    for verb in ["status", "check"] {
        let said = scene.place.run(&[verb]);
        scene.place.demand(said.code == Some(1) && said.out.contains(&mends), &format!("{said:?}"));
    }
}

/// As they come to be: two commands find no daemon at the same moment, and one of them hangs.
#[track_caller]
fn double(scene: &Scene) {
    let before = scene.well();
    scene.kill_daemon();
    scene.eventually("the backend is gone", || !is_alive(before));
    let calls = [(); 2].map(|()| scene.begin_pm2(&["resurrect"]));
    scene.eventually("there are two", || scene.daemons().len() == 2);
    scene.well();
    for mut call in calls {
        call.kill().expect("it is not yet waited for");
        call.wait().expect("a child can be waited for");
    }
}

#[test]
fn two_daemons_are_reset_to_one() {
    let scene = Scene::saved("");
    double(&scene);
    let _watchdog = scene.watch(&format!("{}, restart: [{{pm2: reset}}]", scene.target("")));
    let before = scene.freeze("/block");
    scene.healed(before);
}

#[test]
fn a_frozen_orphan_on_the_port_is_ended_by_a_reset() {
    let scene = Scene::saved("");
    let _watchdog = scene.watch(&format!("{}, start_period: 4s", scene.target(", reset: true")));
    let orphan = scene.freeze("/block");
    scene.kill_daemon();
    scene.place.demand(is_alive(orphan), "the orphan outlives the daemon");
    scene.healed(orphan);
    scene.place.demand(!is_alive(orphan), "the orphan is gone");
}

#[test]
fn an_orphan_that_is_well_is_left_alone_and_told_once() {
    let scene = Scene::saved("pmx: false");
    let _watchdog = scene.watch(&scene.target(", reset: true"));
    let orphan = scene.well();
    scene.kill_daemon();
    scene.eventually("it is told", || scene.warnings("pm2_gone") > 0);
    scene.looks(8);
    assert_eq!(scene.warnings("pm2_gone"), 1, "{}", scene.place.story());
    scene.demand_untouched();
    scene.place.demand(scene.daemons().is_empty() && scene.well() == orphan, "nothing was started");
}

/// Takes the port as soon as it is free, and never answers. PM2 has never heard of it.
fn stranger(scene: &Scene) -> Child {
    let script = "const [port, ready] = process.argv.slice(1);
        const server = require('net').createServer(() => {});
        const listen = () => server.listen(Number(port), '127.0.0.1');
        server.on('error', () => { require('fs').writeFileSync(ready, ''); setTimeout(listen, 5); });
        listen();";
    let mut node = Command::new(scene.installed.node.join("node"));
    node.args(["-e", script, &scene.port.to_string(), "ready"]).current_dir(scene.place.home()).env_clear();
    let child = node.env("HOME", scene.place.home()).stdin(Stdio::null()).spawn().expect("node is installed");
    scene.eventually("the stranger waits for the port", || scene.place.path("ready").exists());
    child
}

#[test]
fn a_stranger_on_the_port_is_never_touched() {
    let scene = Scene::saved("autorestart: false");
    // The reset is thought of first, and passed over.
    let limits = "restart: [{pm2: reset}, {pm2: restart}], max_restarts: 2, start_period: 2s";
    let _watchdog = scene.watch(&format!("{}, {limits}", scene.target("")));
    let mut stranger = stranger(&scene);
    let daemon = scene.daemon();
    scene.ask("/exit?code=3");
    scene.held_back("limit");
    let ended = stranger.try_wait().expect("a child can be asked");
    scene.place.demand(ended.is_none(), &format!("the stranger was ended: {ended:?}"));
    assert_eq!(scene.daemon(), daemon, "{}", scene.place.story());
    stranger.kill().expect("it is there");
    stranger.wait().expect("a child can be waited for");
}

/// Two pm2 commands at the same moment, with no daemon there, would make two daemons and a command that hangs.
#[test]
fn ten_ticks_at_once_make_one_daemon() {
    let scene = Scene::saved("");
    scene.configure(&format!("{}, retry_interval: 100ms", scene.target(&scene.by_file())));
    assert_eq!(scene.place.run(&["--once"]).code, Some(0), "{}", scene.place.story());
    let before = scene.well();
    scene.kill_daemon();
    scene.eventually("the backend is gone", || !is_alive(before));
    let ticks: Vec<Child> = (0..10).map(|_| scene.place.begin(&["--once"])).collect();
    for tick in ticks {
        let output = tick.wait_with_output().expect("a child can be waited for");
        scene.place.demand(output.status.code() == Some(0), &format!("{output:?}"));
    }
    scene.healed_by_one(before);
    scene.eventually("no command hangs", || scene.calls().is_empty());
}

//! What PM2 does by itself, on which the other tests stand: that each way to break it brings about what it should.
//! Should a newer PM2 do otherwise, these say so.

use crate::place::is_alive;

use super::installed::Version;
use super::scene::{NAME, Scene};

#[test]
fn a_dead_daemon_takes_a_well_backend_with_it_and_no_command_knows_the_name() {
    let scene = Scene::saved("");
    let pid = scene.well();
    scene.kill_daemon();
    scene.eventually("the backend is gone", || !is_alive(pid));
    let said = scene.pm2(&["restart", NAME]);
    scene.place.demand(said.code == Some(1), &format!("a new daemon, and an empty one: {said:?}"));
    // With the file it works, from an empty daemon too.
    let said = scene.pm2(&["restart", &scene.config(), "--only", NAME]);
    println!("restart file --only in an empty daemon: {said:?}");
    scene.well();
    scene.daemon();
}

#[test]
fn an_orphan_that_is_frozen_keeps_the_port_and_no_command_of_pm2_cures_it() {
    let scene = Scene::saved("");
    let orphan = scene.freeze("/block");
    scene.kill_daemon();
    scene.pm2(&["resurrect"]);
    scene.eventually("PM2 tries again and again", || scene.starts() > 2);
    scene.place.demand(is_alive(orphan), "the orphan holds the port");
    scene.place.demand(scene.pid().is_none(), "nobody answers");
    scene.kill(orphan);
    scene.pm2(&["restart", NAME]);
    scene.well_again(orphan);
}

#[test]
fn an_orphan_that_is_well_goes_on_answering() {
    let scene = Scene::saved("pmx: false");
    let pid = scene.well();
    scene.kill_daemon();
    for _ in 0..300 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(scene.well(), pid, "{}", scene.place.story());
}

#[test]
fn commands_hang_beside_a_daemon_that_stands_still() {
    let scene = Scene::saved("");
    let pid = scene.well();
    scene.stop_daemon();
    scene.kill(pid);
    let mut call = scene.begin_pm2(&["ping"]);
    scene.eventually("it is counted", || scene.calls().len() == 1);
    for _ in 0..300 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    scene.place.demand(call.try_wait().expect("a child can be asked").is_none(), "it hangs");
    scene.place.demand(scene.pid().is_none() && scene.daemons().len() == 1, "nothing has changed");
    call.kill().expect("it is there");
    call.wait().expect("a child can be waited for");
}

#[test]
fn a_loop_of_crashes_ends_in_a_state_that_pm2_does_not_leave() {
    for (keys, state) in [("max_restarts: 3", "errored"), ("max_restarts: 3, restart_delay: 100", "waiting restart")] {
        let scene = Scene::saved(keys);
        scene.set("broken", "");
        scene.ask("/exit?code=1");
        scene.eventually("PM2 gives up", || scene.pm2_log().contains("too many unstable restarts"));
        scene.eventually(state, || scene.listed().as_deref() == Some(state));
        scene.unset("broken");
    }
}

#[test]
fn cluster_mode_has_the_daemon_listen() {
    let scene = Scene::saved("exec_mode: 'cluster', instances: 1");
    scene.freeze("/block");
    println!("{:?}", scene.daemons());
}

#[test]
fn the_old_version_runs_too() {
    let scene = Scene::with(Version::Five, "");
    let pid = scene.start();
    scene.pm2(&["save"]);
    scene.kill_daemon();
    scene.eventually("the backend is gone", || !is_alive(pid));
    scene.pm2(&["resurrect"]);
    scene.well_again(pid);
}

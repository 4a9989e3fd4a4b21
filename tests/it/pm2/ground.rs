//! What PM2 does by itself, on which the other tests stand. Should a newer PM2 do otherwise, these say so.

use super::scene::{NAME, Scene};
use crate::place::is_alive;

#[test]
fn a_dead_daemon_takes_a_backend_with_it_and_its_successor_knows_the_file_only() {
    let scene = Scene::saved("");
    let pid = scene.well();
    scene.kill_daemon();
    scene.eventually("the backend is gone", || !is_alive(pid));
    let said = scene.pm2(&["restart", NAME]);
    scene.place.demand(said.code == Some(1), &format!("a new daemon has an empty list: {said:?}"));
    scene.pm2(&["restart", &scene.config(), "--only", NAME]);
    scene.well();
    scene.daemon();
}

#[test]
fn a_frozen_orphan_keeps_the_port_and_no_command_of_pm2_cures_that() {
    let scene = Scene::saved("");
    let orphan = scene.freeze("/block");
    scene.kill_daemon();
    scene.pm2(&["resurrect"]);
    scene.eventually("PM2 tries again and again", || scene.starts() > 2);
    scene.place.demand(is_alive(orphan) && scene.pid().is_none(), "the orphan holds the port, and nobody answers");
    scene.kill(orphan);
    scene.pm2(&["restart", NAME]);
    scene.well_again(orphan);
}

#[test]
fn an_orphan_without_a_tie_to_the_daemon_goes_on_answering() {
    let scene = Scene::saved("pmx: false");
    let orphan = scene.well();
    scene.kill_daemon();
    scene.pm2(&["resurrect"]);
    scene.eventually("PM2 tries again and again", || scene.starts() > 2);
    assert_eq!(scene.well(), orphan, "{}", scene.place.story());
}

#[test]
fn a_loop_of_crashes_ends_in_a_state_that_pm2_does_not_leave() {
    for (keys, state) in [("max_restarts: 3", "errored"), ("max_restarts: 3, restart_delay: 100", "waiting restart")] {
        let scene = Scene::saved(keys);
        scene.crash_for_good();
        assert_eq!(scene.listed().as_deref(), Some(state), "{}", scene.pm2_log());
    }
}

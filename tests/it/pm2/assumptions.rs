//! What PM2 does by itself, which the other tests rely on. If a newer PM2 behaves differently, these tests show it.

use super::fixture::{APP_NAME, Fixture};
use crate::sandbox::is_alive;

#[test]
fn a_dead_daemon_takes_the_backend_with_it_and_the_next_daemon_has_an_empty_list() {
    let fixture = Fixture::saved("");
    let pid = fixture.wait_until_healthy();
    fixture.kill_daemon();
    fixture.eventually("the backend is gone", || !is_alive(pid));
    let output = fixture.pm2(&["restart", APP_NAME]);
    fixture.sandbox.assert(output.code == Some(1), &format!("a new daemon has an empty list: {output:?}"));
    fixture.pm2(&["restart", &fixture.config(), "--only", APP_NAME]);
    fixture.wait_until_healthy();
    fixture.daemon_pid();
}

#[test]
fn a_frozen_orphan_keeps_the_port_whatever_pm2_command_is_run() {
    let fixture = Fixture::saved("");
    let orphan = fixture.freeze("/block");
    fixture.kill_daemon();
    fixture.pm2(&["resurrect"]);
    fixture.eventually("PM2 has tried twice", || fixture.start_count() > 2);
    fixture
        .sandbox
        .assert(is_alive(orphan) && fixture.pid().is_none(), "the orphan holds the port, and no process answers");
    fixture.kill(orphan);
    fixture.pm2(&["restart", APP_NAME]);
    fixture.wait_for_replacement(orphan);
}

#[test]
fn an_orphan_without_a_channel_to_the_daemon_keeps_answering() {
    let fixture = Fixture::saved("pmx: false");
    let orphan = fixture.wait_until_healthy();
    fixture.kill_daemon();
    fixture.pm2(&["resurrect"]);
    fixture.eventually("PM2 has tried twice", || fixture.start_count() > 2);
    assert_eq!(fixture.wait_until_healthy(), orphan, "{}", fixture.sandbox.dump());
}

#[test]
fn a_crash_loop_ends_in_a_state_that_pm2_does_not_leave() {
    for (keys, state) in [("max_restarts: 3", "errored"), ("max_restarts: 3, restart_delay: 100", "waiting restart")] {
        let fixture = Fixture::saved(keys);
        fixture.crash_until_given_up();
        assert_eq!(fixture.listed_status().as_deref(), Some(state), "{}", fixture.pm2_log());
    }
}

//! PM2's daemon dead, stopped, with an empty list or running twice, and processes that outlive it on the port.

use std::process::{Child, Command, Stdio};

use super::fixture::Fixture;
use crate::sandbox::is_alive;

#[test]
fn a_killed_daemon_is_restored_from_its_saved_list() {
    let fixture = Fixture::saved("");
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(""));
    let before = fixture.wait_until_healthy();
    fixture.kill_daemon();
    fixture.wait_for_repair_by_one_restart(before);
}

#[test]
fn a_killed_daemon_without_a_saved_list_is_restored_from_the_ecosystem_file() {
    let fixture = Fixture::unsaved("");
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(&fixture.config_key()));
    let before = fixture.wait_until_healthy();
    fixture.kill_daemon();
    fixture.wait_for_repair_by_one_restart(before);
}

/// Any pm2 command starts such a daemon if none runs.
#[test]
fn a_daemon_with_an_empty_list_gets_the_backend_back() {
    let fixture = Fixture::saved("");
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(&fixture.config_key()));
    let before = fixture.wait_until_healthy();
    fixture.kill_daemon();
    fixture.pm2(&["list"]);
    let daemon = fixture.daemon_pid();
    fixture.wait_for_repair_by_one_restart(before);
    assert_eq!(fixture.daemon_pid(), daemon, "{}", fixture.sandbox.dump());
}

/// Stops the daemon and kills the backend, so that only a reset helps.
#[track_caller]
fn stop_daemon_and_kill_backend(fixture: &Fixture) -> (i32, i32) {
    let (daemon, before) = (fixture.suspend_daemon(), fixture.wait_until_healthy());
    fixture.kill(before);
    (daemon, before)
}

#[test]
fn a_stopped_daemon_is_reset_first_if_reset_is_allowed() {
    let fixture = Fixture::saved("");
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(", reset: true"));
    let (daemon, before) = stop_daemon_and_kill_backend(&fixture);
    fixture.wait_for_repair_by_one_restart(before);
    fixture.sandbox.assert(!is_alive(daemon), "the stopped daemon was replaced");
    assert_eq!(fixture.sandbox.events("restart")[0]["rung"], 2, "{}", fixture.sandbox.dump());
}

#[test]
fn a_stopped_daemon_is_only_reported_if_reset_is_not_allowed() {
    let fixture = Fixture::saved("");
    let _watchdog = fixture.start_watchdog(&format!("{}, start_period: 1s", fixture.target_keys("")));
    let (daemon, _) = stop_daemon_and_kill_backend(&fixture);
    let fix = format!("kill -CONT {daemon}");
    let reports = |about: &str| {
        fixture.sandbox.events("warn").iter().any(|warn| warn["about"] == about && warn.to_string().contains(&fix))
    };
    fixture.eventually("the fix is reported", || reports("cannot_repair") && reports("pm2_deaf"));
    fixture.wait_for_probes(12);
    fixture
        .sandbox
        .assert(fixture.running_pm2_commands().is_empty() && fixture.daemon_pids() == [daemon], "nothing was started");
    let done = fixture.sandbox.events("restart_done");
    fixture.sandbox.assert(done.iter().all(|done| done["outcome"] == "not_started"), &format!("{done:?}"));
    assert_eq!(fixture.warning_count("cannot_repair"), 1, "{}", fixture.sandbox.dump());
    for command in ["status", "check"] {
        let output = fixture.sandbox.run(&[command]);
        fixture.sandbox.assert(output.code == Some(1) && output.out.contains(&fix), &format!("{output:?}"));
    }
}

/// Two commands find no daemon at the same moment, and each starts one; one of the commands hangs.
#[track_caller]
fn start_second_daemon(fixture: &Fixture) {
    let before = fixture.wait_until_healthy();
    fixture.kill_daemon();
    fixture.eventually("the backend is gone", || !is_alive(before));
    let calls = [(); 2].map(|()| fixture.spawn_pm2(&["resurrect"]));
    fixture.eventually("two daemons run", || fixture.daemon_pids().len() == 2);
    fixture.wait_until_healthy();
    for mut call in calls {
        call.kill().expect("the child was not awaited yet");
        call.wait().expect("a child can be waited for");
    }
}

#[test]
fn two_daemons_are_reset_to_one() {
    let fixture = Fixture::saved("");
    start_second_daemon(&fixture);
    let _watchdog = fixture.start_watchdog(&format!("{}, restart: [{{pm2: reset}}]", fixture.target_keys("")));
    let before = fixture.freeze("/block");
    fixture.wait_for_repair(before);
}

#[test]
fn a_frozen_orphan_on_the_port_is_killed_by_a_reset() {
    let fixture = Fixture::saved("");
    let _watchdog = fixture.start_watchdog(&format!("{}, start_period: 4s", fixture.target_keys(", reset: true")));
    let orphan = fixture.freeze("/block");
    fixture.kill_daemon();
    fixture.sandbox.assert(is_alive(orphan), "the orphan outlives the daemon");
    fixture.wait_for_repair(orphan);
    fixture.sandbox.assert(!is_alive(orphan), "the orphan is gone");
}

#[test]
fn a_healthy_orphan_is_left_alone_and_reported_once() {
    let fixture = Fixture::saved("pmx: false");
    let _watchdog = fixture.start_watchdog(&fixture.target_keys(", reset: true"));
    let orphan = fixture.wait_until_healthy();
    fixture.kill_daemon();
    fixture.eventually("the dead daemon is reported", || fixture.warning_count("pm2_gone") > 0);
    fixture.wait_for_probes(8);
    assert_eq!(fixture.warning_count("pm2_gone"), 1, "{}", fixture.sandbox.dump());
    fixture.assert_untouched();
    fixture
        .sandbox
        .assert(fixture.daemon_pids().is_empty() && fixture.wait_until_healthy() == orphan, "nothing was started");
}

/// A process unknown to PM2 that takes the port as soon as it is free and never answers.
fn foreign_process(fixture: &Fixture) -> Child {
    let script = "const [port, ready] = process.argv.slice(1);
        const server = require('net').createServer(() => {});
        const listen = () => server.listen(Number(port), '127.0.0.1');
        server.on('error', () => { require('fs').writeFileSync(ready, ''); setTimeout(listen, 5); });
        listen();";
    let mut node = Command::new(fixture.installed.node.join("node"));
    node.args(["-e", script, &fixture.port.to_string(), "ready"]).current_dir(fixture.sandbox.home()).env_clear();
    let child = node.env("HOME", fixture.sandbox.home()).stdin(Stdio::null()).spawn().expect("node is installed");
    fixture.eventually("the foreign process waits for the port", || fixture.sandbox.path("ready").exists());
    child
}

#[test]
fn a_foreign_process_on_the_port_is_never_touched() {
    let fixture = Fixture::saved("autorestart: false");
    // The reset comes first in the list and is skipped.
    let limits = "restart: [{pm2: reset}, {pm2: restart}], max_restarts: 2, start_period: 2s";
    let _watchdog = fixture.start_watchdog(&format!("{}, {limits}", fixture.target_keys("")));
    let mut foreign_process = foreign_process(&fixture);
    let daemon = fixture.daemon_pid();
    fixture.request("/exit?code=3");
    fixture.wait_until_held_back("limit");
    let ended = foreign_process.try_wait().expect("the state of a child can be read");
    fixture.sandbox.assert(ended.is_none(), &format!("the foreign process still runs: {ended:?}"));
    assert_eq!(fixture.daemon_pid(), daemon, "{}", fixture.sandbox.dump());
    foreign_process.kill().expect("the child is running");
    foreign_process.wait().expect("a child can be waited for");
}

/// Two simultaneous pm2 commands without a daemon would start two daemons, and one command would hang.
#[test]
fn ten_simultaneous_ticks_start_one_daemon() {
    let fixture = Fixture::saved("");
    fixture.configure(&format!("{}, retry_interval: 100ms", fixture.target_keys(&fixture.config_key())));
    assert_eq!(fixture.sandbox.run(&["--once"]).code, Some(0), "{}", fixture.sandbox.dump());
    let before = fixture.wait_until_healthy();
    fixture.kill_daemon();
    fixture.eventually("the backend is gone", || !is_alive(before));
    let ticks: Vec<Child> = (0..10).map(|_| fixture.sandbox.spawn(&["--once"])).collect();
    for tick in ticks {
        let output = tick.wait_with_output().expect("a child can be waited for");
        fixture.sandbox.assert(output.status.code() == Some(0), &format!("{output:?}"));
    }
    fixture.wait_for_repair_by_one_restart(before);
    fixture.eventually("no command hangs", || fixture.running_pm2_commands().is_empty());
}

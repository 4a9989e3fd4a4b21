//! Targets with `unit`, against a real systemd of this account.

mod manager;

use std::process::Command;

use manager::Manager;
use serde_json::json;

use crate::pm2::fixture::{APP_NAME, Fixture};
use crate::sandbox::Sandbox;

/// Writes a file ten times a second. At SIGTERM it exits as node programs do, with a code that systemd calls a failure.
const BACKEND: &str = "trap 'exit 143' TERM; while true; do touch %h/alive; sleep 0.1; done";
const KEYS: &str = "file: {path: alive, max_age: 1s}, interval: 100ms, failure_threshold: 2, cooldown: 1s, \
                    start_period: 5s, unit: {name: app, user: true}";

/// A watchdog's sandbox and the systemd that runs `app.service` in it, with these lines in its `[Service]`.
fn setup(service: &str) -> (Sandbox, Manager) {
    let sandbox = Sandbox::new("");
    let manager = Manager::start(&sandbox);
    let install = "[Install]\nWantedBy=default.target\n";
    manager.write_unit("app.service", &format!("[Service]\nExecStart=/bin/sh -c \"{BACKEND}\"\n{service}\n{install}"));
    configure(&sandbox, KEYS);
    (sandbox, manager)
}

fn configure(sandbox: &Sandbox, keys: &str) {
    let runtime = sandbox.path("run");
    sandbox.configure(&format!("env: {{XDG_RUNTIME_DIR: {}}}\ntargets: [{{name: app, {keys}}}]\n", runtime.display()));
}

fn wait_until_healthy(sandbox: &Sandbox) {
    sandbox.eventually("the target is healthy", || sandbox.target("app")["state"] == "healthy");
}

fn wait_until_at_rest(sandbox: &Sandbox, why: &str) {
    sandbox.eventually("the target is at rest", || sandbox.target("app")["state"] == "stopped");
    assert_eq!(sandbox.events("rested").last().expect("an event")["why"], why, "{}", sandbox.dump());
    let asked = || sandbox.log().matches("systemd: app.service").count();
    let before = asked();
    sandbox.eventually("systemd is asked again", || asked() > before);
    for event in ["down", "restart"] {
        sandbox.assert(sandbox.events(event).is_empty(), event);
    }
    assert_eq!(sandbox.target("app")["incident"], json!(null));
}

#[test]
fn what_systemctl_stopped_stays_stopped_until_it_is_started() {
    let (sandbox, manager) = setup("Restart=always");
    manager.enable("app");
    let _daemon = sandbox.start_daemon(&["-v", "run"]);
    wait_until_healthy(&sandbox);
    // Its exit code leaves the unit `failed`.
    manager.systemctl(&["stop", "app"]);
    assert_eq!(manager.state("app.service"), "failed");
    wait_until_at_rest(&sandbox, "operator");
    let output = sandbox.run(&["status"]);
    sandbox.assert(output.code == Some(0) && output.out.contains("systemctl stop"), &format!("{output:?}"));
    manager.systemctl(&["start", "app"]);
    wait_until_healthy(&sandbox);
    assert_eq!(sandbox.events("woke").len(), 1, "{}", sandbox.dump());
    // `disable` leaves systemd nothing to remember it by: with Restart=always only an order ends it for good.
    manager.write_unit("app.service.d/exit.conf", "[Service]\nSuccessExitStatus=143\n");
    manager.disable("app");
    assert_eq!(manager.state("app.service"), "inactive");
    wait_until_at_rest(&sandbox, "operator");
}

#[test]
fn what_died_is_restarted_through_systemctl() {
    let (sandbox, manager) = setup("Restart=no");
    manager.enable("app");
    let _daemon = sandbox.start_daemon(&["-v", "run"]);
    for (signal, count) in [("KILL", 1), ("TERM", 2)] {
        wait_until_healthy(&sandbox);
        // Not an order to systemd: after SIGTERM too the unit has only ended.
        manager.systemctl(&["kill", "--signal", signal, "app"]);
        sandbox.eventually("it is restarted", || sandbox.events("up").len() == count);
    }
    let restarts = sandbox.events("restart");
    assert!(restarts.iter().all(|event| event["run"] == "systemctl --user restart app.service"), "{restarts:?}");
    assert_eq!((restarts.len(), sandbox.events("rested").len()), (2, 0), "{}", sandbox.dump());
    let incident = sandbox.run(&["incident", "last"]).out;
    assert!(incident.contains("systemd: app.service is failed: its process exited with 143"), "{incident}");
}

#[test]
fn a_systemd_that_cannot_be_asked_is_no_reason_to_leave_a_target_down() {
    let (sandbox, manager) = setup("");
    manager.enable("app");
    let _daemon = sandbox.start_daemon(&["-v", "run"]);
    wait_until_healthy(&sandbox);
    drop(manager);
    sandbox.eventually("a restart is tried", || !sandbox.events("restart_done").is_empty());
    sandbox.wait_for_log("systemd: app.service: unknown: systemctl: Failed to connect to bus");
    assert_eq!(sandbox.events("rested").len(), 0, "{}", sandbox.dump());
}

#[test]
fn check_shows_the_unit_or_what_is_wrong_with_it() {
    let (sandbox, manager) = setup("");
    let check = || sandbox.run(&["check"]).out;
    manager.systemctl(&["start", "app"]);
    let output = check();
    let lines = ["app.service is active (running), disabled", "Fix: systemctl --user enable app.service"];
    assert!(lines.iter().all(|line| output.contains(line)), "{output}");
    assert!(output.contains("1  systemctl --user restart app.service   (at most 2 min 30 s)"), "{output}");
    manager.systemctl(&["mask", "idle"]);
    configure(&sandbox, &KEYS.replace("name: app", "name: idle"));
    assert!(check().contains("PROBLEM     idle.service is masked: nothing can start it"), "{}", check());
    configure(&sandbox, &KEYS.replace("name: app", "name: ap"));
    assert!(check().contains("PROBLEM     there is no unit ap.service (systemctl --user list-units"), "{}", check());
    drop(manager);
    assert!(check().contains("PROBLEM     systemd cannot be asked about ap.service: systemctl: "), "{}", check());
}

/// PM2 in a unit as `pm2 startup` writes it.
#[test]
fn a_pm2_whose_unit_was_stopped_is_not_resurrected() {
    let fixture = Fixture::saved("");
    let (sandbox, home) = (&fixture.sandbox, fixture.home());
    fixture.simulate_power_loss();
    let manager = Manager::start(sandbox);
    let pm2 = fixture.installed.bin.join("pm2").display().to_string();
    manager.write_unit(
        "pm2.service",
        &format!(
            "[Service]\nType=forking\nEnvironment=PM2_HOME={home} PATH={}\nPIDFile={home}/pm2.pid\n\
             Restart=on-failure\nExecStart={pm2} resurrect\nExecStop={pm2} kill\n[Install]\nWantedBy=default.target\n",
            fixture.path
        ),
    );
    manager.enable("pm2");
    fixture.configure(&format!("{}, unit: {{name: pm2, user: true}}", fixture.target_keys("")));
    let mut command = sandbox.command(&["run"]);
    command.env("XDG_RUNTIME_DIR", sandbox.path("run"));
    let _daemon = sandbox.start_daemon_from(command);
    fixture.eventually("the target is healthy", || sandbox.target(APP_NAME)["state"] == "healthy");
    manager.systemctl(&["stop", "pm2"]);
    fixture.wait_until_at_rest("operator");
    fixture.wait_for_probes(12);
    fixture.assert_untouched();
    sandbox.assert(fixture.daemon_pids().is_empty() && fixture.backend_pids().is_empty(), "PM2 stays stopped");
    manager.systemctl(&["start", "pm2"]);
    fixture.eventually("the target is healthy", || sandbox.target(APP_NAME)["state"] == "healthy");
    assert_eq!(sandbox.events("woke").len(), 1, "{}", sandbox.dump());
}

/// cron and system services do not set XDG_RUNTIME_DIR.
#[test]
fn commands_reach_the_accounts_systemd_without_help_from_the_environment() {
    let sandbox = Sandbox::new(
        "targets:\n  - {name: app, command: 'test -e alive', restart: 'systemctl --user restart app', interval: 1h}\n  \
         - {name: told, command: 'echo is $XDG_RUNTIME_DIR; false', interval: 1h}\n",
    );
    let check = |folder: &str| {
        let script = format!("mount -t tmpfs tmpfs /run/user && {folder} exec \"$0\" check");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, env!("CARGO_BIN_EXE_watchdog")]);
        command.current_dir(sandbox.home()).env("HOME", sandbox.home()).env_remove("XDG_RUNTIME_DIR");
        String::from_utf8_lossy(&command.output().expect("unshare is there").stdout).into_owned()
    };
    let missing = "systemctl --user reaches no systemd: /run/user/0 does not exist";
    let output = check("");
    assert!(output.contains(missing) && output.contains("loginctl enable-linger"), "{output}");
    assert!(output.contains("exit 1: is\n"), "{output}");
    let output = check("mkdir /run/user/0;");
    assert!(!output.contains(missing) && output.contains("exit 1: is /run/user/0\n"), "{output}");
    // Another account's.
    let output = check("mkdir /run/user/0; chown 1 /run/user/0;");
    assert!(output.contains(missing) && output.contains("exit 1: is\n"), "{output}");
}

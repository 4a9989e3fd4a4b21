//! `watchdog restart`: at a running watchdog and without one, its output, its exit codes and what it leaves behind.

use serde_json::Value;

use crate::sandbox::{CommandOutput, Sandbox};

/// Healthy while there is a file named `up`; its restart command notes each run.
const APP: &str = "defaults: {interval: 100ms, cooldown: 1h, max_cooldown: 1h, start_period: 30s}\n\
                   targets:\n  - name: app\n    file: {path: up, max_age: 1d}\n    restart: ";

fn sandbox(restart: &str) -> Sandbox {
    let sandbox = Sandbox::new(&format!("{APP}{restart}\n"));
    sandbox.write("up", "");
    sandbox
}

#[track_caller]
fn check(sandbox: &Sandbox, output: &CommandOutput, code: i32, lines: &[&str]) {
    sandbox.assert(output.code == Some(code), &format!("exit code {code}: {output:?}"));
    let text = output.out.clone() + &output.err;
    for line in lines {
        sandbox.assert(text.contains(line), &format!("`{line}` is printed: {output:?}"));
    }
}

#[track_caller]
fn wait_healthy(sandbox: &Sandbox) {
    sandbox.eventually("it is healthy", || sandbox.target("app")["state"] == "healthy");
}

#[test]
fn a_healthy_target_is_restarted_without_an_incident() {
    let sandbox = sandbox("echo hello; echo x >> runs");
    let _watchdog = sandbox.start_daemon(&["run"]);
    wait_healthy(&sandbox);
    let output = sandbox.run(&["restart", "app"]);
    check(&sandbox, &output, 0, &["app restart ordered: echo hello; echo x >> runs\n", "probing for up to 30 s\n"]);
    check(&sandbox, &output, 0, &["app healthy after the operator's restart: "]);
    assert_eq!(sandbox.lines("runs").len(), 1, "{}", sandbox.dump());
    let restart = sandbox.events("restart").remove(0);
    assert_eq!((&restart["by"], &restart["incident"]), (&Value::from("operator"), &Value::Null), "{restart}");
    assert_eq!(sandbox.events("restart_done")[0]["code"], 0, "{}", sandbox.dump());
    sandbox.assert(sandbox.events("down").is_empty() && sandbox.events("up").is_empty(), "there was no incident");
    let target = sandbox.target("app");
    assert_eq!((&target["attempts_in_window"], &target["state"]), (&Value::from(1), &Value::from("healthy")));
    sandbox.wait_for_log("app restart 1 (of 10 an hour), ordered by the operator: echo hello; echo x >> runs");
    sandbox.wait_for_log("app healthy after the operator's restart: ");
    let report = sandbox.run(&["report"]);
    check(&sandbox, &report, 0, &["  by hand    1 restart, ordered by the operator"]);
    let json: Value = serde_json::from_str(&sandbox.run(&["report", "--json"]).out).expect("JSON");
    assert_eq!(json["targets"][0]["by_operator"], 1, "{json}");
    // The cooldown that follows does not hold for the next order.
    check(&sandbox, &sandbox.run(&["restart", "app"]), 0, &["healthy after"]);
    assert_eq!(sandbox.events("restart").len(), 2, "{}", sandbox.dump());
    // Its output is kept, although there is no incident.
    let outputs = std::fs::read_dir(sandbox.path("state/incidents")).expect("a folder").flatten();
    let hello = outputs.filter(|folder| {
        std::fs::read_to_string(folder.path().join("restart-1-1.out")).is_ok_and(|text| text == "hello\n")
    });
    assert_eq!(hello.count(), 1, "{}", sandbox.dump());
}

#[test]
fn an_incident_names_the_operator() {
    // By itself it is not restarted: the class is left out.
    let sandbox = sandbox("touch up\n    restart_on: [refused]\nnotify: [{command: cat >> messages}]");
    let _watchdog = sandbox.start_daemon(&["run"]);
    wait_healthy(&sandbox);
    std::fs::remove_file(sandbox.path("up")).expect("it was there");
    sandbox.eventually("it is down", || sandbox.target("app")["state"] == "down");
    sandbox.eventually("the first message is sent", || sandbox.read("messages").contains("[DOWN]"));
    check(&sandbox, &sandbox.run(&["restart", "app"]), 0, &["app restart ordered: touch up", "healthy after"]);
    let (restart, up) = (sandbox.events("restart").remove(0), sandbox.events("up").remove(0));
    assert_eq!((&restart["by"], &restart["incident"]), (&Value::from("operator"), &up["incident"]));
    assert_eq!(up["attempts"], 1, "{up}");
    sandbox.eventually("the incident is written", || sandbox.run(&["incident", "last"]).out.contains("Helped   yes"));
    let incident = sandbox.run(&["incident", "last"]);
    check(&sandbox, &incident, 0, &["touch up (ordered by the operator), exit 0 in"]);
    sandbox.eventually("the operator's restart is in the message", || {
        sandbox.read("messages").contains("the operator's restart helped")
    });
}

#[test]
fn refusals_have_their_reason_and_exit_code() {
    let sandbox = sandbox("echo x >> runs\n    max_restarts: 1\n  - {name: db, file: {path: up, max_age: 1d}}");
    let _watchdog = sandbox.start_daemon(&["run"]);
    wait_healthy(&sandbox);
    check(&sandbox, &sandbox.run(&["restart", "app"]), 0, &[]);
    let limit = sandbox.run(&["restart", "app"]);
    check(&sandbox, &limit, 1, &["app not restarted before ", "1 restart in the last hour is the limit"]);
    sandbox.wait_for_log("1 restart in the last hour is the limit");
    assert_eq!(sandbox.lines("runs").len(), 1, "{}", sandbox.dump());
    check(&sandbox, &sandbox.run(&["restart", "ap"]), 2, &["no target `ap`", "app, db"]);
    check(&sandbox, &sandbox.run(&["restart", "db"]), 2, &["db has no restart command", "nothing was restarted"]);
    check(&sandbox, &sandbox.run(&["restart"]), 2, &["<TARGET>"]);
    sandbox.write("other.yaml", &sandbox.read("watchdog.yaml"));
    check(&sandbox, &sandbox.run(&["restart", "app", "-c", "other.yaml"]), 5, &["nothing was restarted"]);
    sandbox.assert(sandbox.read("state/orders").is_empty(), "no order is left");
}

#[test]
fn while_another_target_is_restarted_it_is_refused() {
    let second = "{name: b, file: {path: up, max_age: 1d}, restart: 'while ! test -e go; do sleep 0.05; done'}";
    let sandbox = sandbox(&format!("echo x >> runs\n  - {second}"));
    let _watchdog = sandbox.start_daemon(&["run"]);
    wait_healthy(&sandbox);
    let long = sandbox.spawn(&["restart", "b"]);
    sandbox.eventually("it is being restarted", || !sandbox.events("restart").is_empty());
    for target in ["app", "b"] {
        check(
            &sandbox,
            &sandbox.run(&["restart", target]),
            1,
            &["a restart is being made, of it or of another target"],
        );
    }
    sandbox.write("go", "");
    let output = CommandOutput::new(long.wait_with_output().expect("it ends"));
    check(&sandbox, &output, 0, &["b healthy after the operator's restart"]);
    assert_eq!(sandbox.events("restart").len(), 1, "{}", sandbox.dump());
}

#[test]
fn what_does_not_help_or_does_not_start_exits_1() {
    let sandbox = sandbox("[echo oh; exit 3, rm -f up]\n    start_period: 300ms");
    let _watchdog = sandbox.start_daemon(&["run"]);
    wait_healthy(&sandbox);
    // A healthy probe after a command that failed: it is healthy, and the failure is told.
    check(&sandbox, &sandbox.run(&["restart", "app"]), 0, &["healthy after", "(the restart command exited 3)"]);
    // The next attempt of the episode begins with the next command.
    let output = sandbox.run(&["restart", "app"]);
    check(&sandbox, &output, 1, &["app restart ordered, beginning with command 2: rm -f up", "app not healthy after"]);
    let missing = sandbox_with_missing_command();
    let _watchdog = missing.start_daemon(&["run"]);
    wait_healthy(&missing);
    let output = missing.run(&["restart", "app"]);
    check(&missing, &output, 1, &["app not restarted: the restart command could not be started: no such file"]);
    assert_eq!(missing.target("app")["attempts_in_window"], 0, "{}", missing.dump());
}

fn sandbox_with_missing_command() -> Sandbox {
    sandbox("{run: [./missing]}")
}

#[test]
fn without_a_watchdog_it_makes_a_tick_of_its_own() {
    let sandbox = sandbox("echo x >> runs");
    let output = sandbox.run(&["restart", "app"]);
    check(&sandbox, &output, 0, &["app restart 1 (of 10 an hour), ordered by the operator: echo x >> runs\n"]);
    check(&sandbox, &output, 0, &["app healthy after the operator's restart: "]);
    assert_eq!((sandbox.lines("runs").len(), sandbox.lock_holder()), (1, None), "{}", sandbox.dump());
    assert_eq!(sandbox.target("app")["attempts_in_window"], 1, "{}", sandbox.dump());
    assert_eq!(sandbox.events("restart")[0]["by"], "operator", "{}", sandbox.dump());
    // The next watchdog knows of it, and does not repeat it.
    assert_eq!(sandbox.run(&["--once"]).code, Some(0), "{}", sandbox.dump());
    assert_eq!(sandbox.lines("runs").len(), 1, "{}", sandbox.dump());
    sandbox.configure("targets: [{name: app, tcp: 1}]\n");
    check(&sandbox, &sandbox.run(&["restart", "app"]), 2, &["nothing was restarted"]);
}

#[test]
fn a_target_that_does_not_come_up_keeps_the_tick_until_its_start_period_ends() {
    let sandbox = sandbox("rm -f up\n    start_period: 300ms");
    let output = sandbox.run(&["restart", "app"]);
    check(&sandbox, &output, 1, &["app not healthy after the operator's restart: "]);
    assert_eq!(sandbox.events("restart").len(), 1, "{}", sandbox.dump());
}

#[test]
fn a_watchdog_that_is_killed_meanwhile_is_named() {
    let sandbox = sandbox("touch began; while ! test -e go; do sleep 0.05; done; echo x >> runs");
    let watchdog = sandbox.start_daemon(&["run"]);
    wait_healthy(&sandbox);
    let order = sandbox.spawn(&["restart", "app"]);
    sandbox.eventually("it is being restarted", || sandbox.path("began").exists());
    watchdog.kill();
    let output = CommandOutput::new(order.wait_with_output().expect("it ends"));
    check(&sandbox, &output, 1, &["the watchdog has ended meanwhile", "see watchdog status"]);
    sandbox.write("go", "");
    // The next one waits for the command and does not run it again.
    let _watchdog = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the attempt is closed", || !sandbox.events("restart_done").is_empty());
    wait_healthy(&sandbox);
    assert_eq!(sandbox.lines("runs").len(), 1, "{}", sandbox.dump());
}

#[test]
fn a_paused_target_is_restarted_and_stays_paused() {
    let sandbox = sandbox("echo x >> runs");
    let _watchdog = sandbox.start_daemon(&["run"]);
    wait_healthy(&sandbox);
    assert_eq!(sandbox.run(&["pause", "app"]).code, Some(0));
    check(&sandbox, &sandbox.run(&["restart", "app"]), 0, &["healthy after"]);
    assert_eq!((sandbox.lines("runs").len(), &sandbox.target("app")["state"]), (1, &Value::from("paused")));
}

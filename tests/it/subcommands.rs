//! `pause`, `resume`, `completions` and `demo`, and how a running watchdog or the next tick applies them.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::sandbox::{CommandOutput, MISSING_PROGRAM, Sandbox, files_below, send_signal};

const LIMITS: &str = "defaults: {interval: 100ms, failure_threshold: 2, start_period: 100ms, cooldown: 100ms, \
                      max_cooldown: 100ms}\ntargets:\n";

/// A target that its restart command fixes.
fn fixable_target(name: &str) -> String {
    let restart = format!("touch {name}-up; echo {name} >> done");
    format!("  - {{name: {name}, file: {{path: {name}-up, max_age: 1d}}, restart: '{restart}'}}\n")
}

fn state(sandbox: &Sandbox, name: &str) -> Value {
    sandbox.target(name)["state"].clone()
}

/// The time that is left of the target's pause.
#[track_caller]
fn pause_left(sandbox: &Sandbox, name: &str) -> Duration {
    let target = sandbox.target(name);
    let until = target["paused_until"].as_str().unwrap_or_else(|| panic!("{name} is paused: {}", sandbox.dump()));
    let until = humantime::parse_rfc3339(until).expect("a time");
    until.duration_since(SystemTime::now()).expect("in the future")
}

#[track_caller]
fn expect_output(sandbox: &Sandbox, args: &[&str], code: i32, text: &str) {
    let output = sandbox.run(args);
    sandbox.assert(
        output.code == Some(code) && output.out.contains(text),
        &format!("{args:?} prints `{text}`: {output:?}"),
    );
}

#[test]
fn during_a_pause_targets_are_probed_but_not_restarted() {
    let sandbox = Sandbox::new(&format!("{LIMITS}{}{}", fixable_target("one"), fixable_target("other")));
    for name in ["one", "other"] {
        sandbox.write(&format!("{name}-up"), "");
    }
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("both targets are healthy", || {
        state(&sandbox, "one") == "healthy" && state(&sandbox, "other") == "healthy"
    });
    expect_output(&sandbox, &["pause", "one", "--for", "2h"], 0, "paused one until ");
    assert_eq!(state(&sandbox, "one"), "paused");
    let left = pause_left(&sandbox, "one");
    sandbox.assert(left > Duration::from_secs(7_000) && left <= Duration::from_secs(7_200), &format!("2 h: {left:?}"));
    assert_eq!(sandbox.run(&["status"]).code, Some(0), "a pause is not a failure");

    for name in ["one", "other"] {
        fs::remove_file(sandbox.path(&format!("{name}-up"))).expect("the file exists");
    }
    sandbox.eventually("the other target is repaired", || sandbox.lines("done") == ["other"]);
    let is_over_threshold = || sandbox.target("one")["streak"].as_u64() >= Some(3);
    sandbox.eventually("the paused target fails", || !sandbox.events_of("one", "failing").is_empty());
    sandbox.eventually("the paused target passes the threshold", is_over_threshold);
    assert_eq!(state(&sandbox, "one"), "paused");
    assert!(sandbox.events_of("one", "down").is_empty(), "no incident during a pause: {}", sandbox.dump());
    assert_eq!(sandbox.lines("done"), ["other"], "{}", sandbox.dump());
    expect_output(&sandbox, &["resume"], 0, "resumed all targets\n");
    sandbox.eventually("the target is repaired", || sandbox.lines("done") == ["other", "one"]);
    sandbox.eventually("the target is healthy", || state(&sandbox, "one") == "healthy");
    assert_eq!((sandbox.events_of("one", "paused").len(), sandbox.events_of("one", "resumed").len()), (1, 1));
    sandbox.assert(sandbox.events_of("other", "paused").is_empty(), "the other target was never paused");

    expect_output(&sandbox, &["pause"], 0, "paused all targets until ");
    sandbox.assert(pause_left(&sandbox, "other") <= Duration::from_secs(1_800), "30 min is the default");
    expect_output(&sandbox, &["resume", "one"], 0, "resumed one");
    expect_output(&sandbox, &["pause", "--for", "100ms", "one"], 0, "(100 ms)");
    sandbox.eventually("a pause ends by itself", || state(&sandbox, "one") == "healthy");
    assert_eq!(state(&sandbox, "other"), "paused");
    assert!(daemon.stop().success());
}

#[test]
fn a_pause_without_a_running_watchdog_is_applied_by_the_next_tick() {
    let sandbox = Sandbox::new(&format!("{LIMITS}{}", fixable_target("app")));
    expect_output(&sandbox, &["pause", "app"], 0, "; no watchdog is running, the next one applies it");
    for _ in 0..3 {
        sandbox.run(&["--once"]);
    }
    sandbox.assert(sandbox.lines("done").is_empty() && state(&sandbox, "app") == "paused", "the pause is applied");
    sandbox.assert(sandbox.events("paused").len() == 1, "once");
    expect_output(&sandbox, &["resume", "app"], 0, "resumed app; its waits are cleared");
    sandbox.eventually("ticks repair the target", || sandbox.run(&["--once"]).code == Some(0));
    assert_eq!(sandbox.lines("done"), ["app"], "{}", sandbox.dump());
}

#[test]
fn pause_with_a_command_lasts_as_long_as_the_command_and_returns_its_exit_code() {
    let sandbox = Sandbox::new(&format!("{LIMITS}{}", fixable_target("app")));
    sandbox.write("app-up", "");
    sandbox.write("plain", "no program");
    fs::set_permissions(sandbox.path("plain"), fs::Permissions::from_mode(0o644)).expect("the test owns the file");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || state(&sandbox, "app") == "healthy");
    let cases: [(&[&str], i32); 6] = [
        (&["true"], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill $$"], 143),
        (&["no-such-program"], 127),
        (&["./plain"], 126),
    ];
    for (command, code) in cases {
        let output = sandbox.run(&[&["pause", "app", "--"], command].concat());
        sandbox.assert(
            output.code == Some(code) && output.out.is_empty(),
            &format!("{command:?} exits {code}: {output:?}"),
        );
        sandbox.assert(state(&sandbox, "app") == "healthy", "the pause ended with the command");
    }
    assert_eq!(sandbox.events("paused").len(), 6, "{}", sandbox.dump());

    // The backend may be down while the command runs.
    let deploy = "rm app-up; echo $$ > pids; while ! test -e go; do sleep 0.02; done; echo deployed; exit 3";
    let child = sandbox.spawn(&["pause", "--", "sh", "-c", deploy]);
    sandbox.eventually("the target fails", || !sandbox.events("failing").is_empty());
    assert_eq!(state(&sandbox, "app"), "paused");
    sandbox.write("go", "");
    let output = CommandOutput::new(child.wait_with_output().expect("the process ends"));
    assert_eq!((output.code, output.out.as_str()), (Some(3), "deployed\n"), "{output:?}");
    sandbox.eventually("the target is repaired after the pause", || sandbox.lines("done") == ["app"]);
    assert!(daemon.stop().success());
}

/// A signal that would end `pause` is passed to the command, and the pause ends with the command.
#[test]
fn termination_signals_are_passed_on_to_the_command() {
    let sandbox = Sandbox::new(&format!("{LIMITS}{}", fixable_target("app")));
    sandbox.write("app-up", "");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || state(&sandbox, "app") == "healthy");
    let start_paused_command = |starter: &[&str], command: &str| {
        let _ = fs::remove_file(sandbox.path("began"));
        let args = ["pause", "--", "sh", "-c", &format!("echo > began; {command}; while :; do sleep 0.02; done")];
        // The test's parent may ignore some of these signals, as a shell does for background jobs.
        let starter = [&["env", "--default-signal=INT,QUIT,HUP,TERM"], starter].concat();
        let mut command = sandbox.command_through(&starter, &args);
        let child =
            command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
        sandbox.eventually("the command runs", || sandbox.path("began").exists());
        assert_eq!(state(&sandbox, "app"), "paused");
        child
    };
    let check_end = |mut child: Child, code: i32, out: &str| {
        sandbox
            .eventually("the process ends", || child.try_wait().expect("the state of a child can be read").is_some());
        let output = CommandOutput::new(child.wait_with_output().expect("the process ends"));
        assert_eq!(
            (output.code, output.out.as_str(), output.err.as_str()),
            (Some(code), out, ""),
            "{}",
            sandbox.dump()
        );
        sandbox.assert(state(&sandbox, "app") == "healthy", "the pause ended with the command");
    };
    let pid = |child: &Child| i32::try_from(child.id()).expect("a pid fits into i32");
    for (signal, name, code) in [(Signal::TERM, "TERM", 143), (Signal::INT, "INT", 130), (Signal::HUP, "HUP", 129)] {
        let child = start_paused_command(&[], ":");
        send_signal(pid(&child), signal);
        check_end(child, code, "");
        // The command may handle the signal itself and take its time.
        let child = start_paused_command(&[], &format!("trap 'echo trapped; sleep 0.1; exit 7' {name}"));
        send_signal(pid(&child), signal);
        check_end(child, 7, "trapped\n");
    }
    // A signal that the parent made `pause` ignore is not passed on.
    let child = start_paused_command(&["env", "--ignore-signal=HUP"], "trap 'exit 7' TERM");
    send_signal(pid(&child), Signal::HUP);
    send_signal(pid(&child), Signal::TERM);
    check_end(child, 7, "");
    // SIGKILL leaves both the pause and the command. The operator can end the pause.
    let mut child = start_paused_command(&[], "echo $$ > pids; sleep 60");
    child.kill().expect("the child is running");
    child.wait().expect("the process ends");
    assert_eq!(state(&sandbox, "app"), "paused");
    expect_output(&sandbox, &["resume"], 0, "resumed all targets\n");
    sandbox.eventually("the target is healthy", || state(&sandbox, "app") == "healthy");
    sandbox.alive_pids("pids").into_iter().for_each(|pid| send_signal(pid, Signal::KILL));
    assert!(daemon.stop().success());
}

/// Of overlapping pauses, as by two deployments, neither ends the other, and the one that ends last counts.
#[test]
fn of_overlapping_pauses_the_last_end_counts() {
    let sandbox = Sandbox::new(&format!("{LIMITS}{}", fixable_target("app")));
    sandbox.write("app-up", "");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || state(&sandbox, "app") == "healthy");
    let deploy = |name: &str| {
        let script = format!("rm -f app-up; echo > {name}; while ! test -e {name}-go; do sleep 0.02; done");
        sandbox.spawn(&["pause", "--", "sh", "-c", &script])
    };
    let (mut first, mut second) = (deploy("first"), deploy("second"));
    sandbox.eventually("both commands run", || sandbox.path("first").exists() && sandbox.path("second").exists());
    expect_output(&sandbox, &["pause", "app", "--for", "1s"], 0, "(1 s)");
    sandbox.write("first-go", "");
    assert!(first.wait().expect("the process ends").success());
    let failed = || sandbox.target("app")["streak"].as_u64().unwrap_or(0);
    let before = failed();
    sandbox.eventually("the target keeps failing during the second pause", || failed() > before + 15);
    assert_eq!(state(&sandbox, "app"), "paused", "{}", sandbox.dump());
    assert!(sandbox.lines("done").is_empty() && sandbox.events("resumed").is_empty(), "{}", sandbox.dump());
    sandbox.write("second-go", "");
    assert!(second.wait().expect("the process ends").success());
    sandbox.eventually("the target is repaired after both pauses", || sandbox.lines("done") == ["app"]);
    assert_eq!(sandbox.events("resumed").len(), 1, "{}", sandbox.dump());
    // A manual pause given meanwhile, longer than the command, stays.
    let mut third = deploy("third");
    sandbox.eventually("the third command runs", || sandbox.path("third").exists());
    expect_output(&sandbox, &["pause", "--for", "1h"], 0, "(1 h)");
    sandbox.write("third-go", "");
    assert!(third.wait().expect("the process ends").success());
    let left = pause_left(&sandbox, "app");
    sandbox.assert(left > Duration::from_secs(3_000), &format!("the longer pause counts: {left:?}"));
    assert!(daemon.stop().success());
}

#[test]
fn pause_runs_its_command_whatever_the_state_of_the_watchdog() {
    let sandbox = Sandbox::new("");
    for text in ["targets: [", "state_dir: [", "", "targets: []\n"] {
        sandbox.write("watchdog.yaml", text);
        let output = sandbox.run(&["pause", "--", "sh", "-c", "echo ran; exit 7"]);
        sandbox.assert(output.code == Some(7) && output.out == "ran\n", &format!("{output:?}"));
        let output = sandbox.run(&["pause", "-c", "gone.yaml", "--", "sh", "-c", "echo ran; exit 7"]);
        sandbox.assert(output.code == Some(7) && output.out == "ran\n", &format!("{output:?}"));
    }
    // Without a running watchdog no request files are left behind.
    sandbox.configure("targets: [{name: app, tcp: 'localhost:1'}]\n");
    for _ in 0..60 {
        assert_eq!(sandbox.run(&["pause", "--", "true"]).code, Some(0));
    }
    assert_eq!(fs::read_dir(sandbox.path("state/orders")).expect("folder access").count(), 0, "{}", sandbox.dump());
    // Nor is a state folder needed.
    fs::remove_dir_all(sandbox.path("state")).expect("folder access");
    sandbox.write("state", "no folder");
    let output = sandbox.run(&["pause", "--", "sh", "-c", "echo ran; exit 7"]);
    sandbox.assert(output.code == Some(7) && output.out == "ran\n", &format!("{output:?}"));
}

#[test]
fn a_pause_that_cannot_be_applied_is_refused() {
    let sandbox = Sandbox::new(&format!("{LIMITS}{}", fixable_target("app")));
    sandbox.write("app-up", "");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || state(&sandbox, "app") == "healthy");
    sandbox.configure(&format!("{LIMITS}{}{}", fixable_target("app"), fixable_target("new")));
    let then_echo = ["--", "sh", "-c", "echo ran"];
    let unread = sandbox.run(&["pause", "new"]);
    sandbox.assert(unread.code == Some(1) && unread.err.contains("has not read `new` yet"), &format!("{unread:?}"));
    assert_eq!(sandbox.run(&[&["pause", "new"][..], &then_echo].concat()).out, "ran\n");
    let misspelt = sandbox.run(&[&["pause", "ap"][..], &then_echo].concat());
    sandbox
        .assert(misspelt.code == Some(2) && misspelt.out.is_empty(), &format!("the command is not run: {misspelt:?}"));
    daemon.signal(Signal::HUP);
    sandbox.eventually("the configuration is reloaded", || state(&sandbox, "new") != "");
    expect_output(&sandbox, &["pause", "new"], 0, "paused new until");
    assert!(daemon.stop().success());
}

#[test]
fn a_running_tick_applies_a_pause_at_once() {
    let sandbox = Sandbox::new(
        "targets:\n  - {name: app, command: 'false', interval: 1h, retry_interval: 1h, restart: touch done}\n",
    );
    let mut tick = sandbox.spawn(&["--once"]);
    sandbox.eventually("the target has failed once", || !sandbox.events("failing").is_empty());
    let output = sandbox.run(&["pause", "app"]);
    sandbox.assert(output.code == Some(0) && !output.out.contains("has not confirmed it yet"), &format!("{output:?}"));
    send_signal(i32::try_from(tick.id()).expect("a pid fits into i32"), Signal::TERM);
    assert!(tick.wait().expect("the process ends").code().is_some());
    sandbox.assert(sandbox.events("paused").len() == 1 && !sandbox.path("done").exists(), "the pause is applied");
}

#[test]
fn resuming_a_target_by_name_clears_its_waits() {
    let useless = "  - {name: app, file: {path: up, max_age: 1d}, restart: 'echo vain >> done', max_restarts: 1}\n";
    let sandbox = Sandbox::new(&format!("{LIMITS}{useless}"));
    sandbox.write("up", "");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || state(&sandbox, "app") == "healthy");
    fs::remove_file(sandbox.path("up")).expect("the file exists");
    sandbox.eventually("the limit is reached", || sandbox.target("app")["waiting"]["why"] == "limit");
    assert_eq!(sandbox.lines("done").len(), 1);
    expect_output(&sandbox, &["resume"], 0, "resumed all targets\n");
    assert_eq!(sandbox.target("app")["waiting"]["why"], "limit", "resume without a name only ends pauses");
    expect_output(&sandbox, &["resume", "app"], 0, "resumed app; its waits are cleared\n");
    sandbox.eventually("one more restart is made", || sandbox.lines("done").len() == 2);
    assert!(daemon.stop().success());
}

#[test]
fn completions_contain_the_commands_and_options() {
    let sandbox = Sandbox::new("");
    for (shell, sign) in [("bash", "complete -F"), ("zsh", "#compdef watchdog"), ("fish", "complete -c watchdog")] {
        let output = sandbox.run(&["completions", shell]);
        sandbox.assert(output.code == Some(0) && output.out.contains(sign), &format!("{output:?}"));
        for word in ["status", "pause", "completions", "dry-run", "offline"] {
            sandbox.assert(output.out.contains(word), &format!("{shell} completes {word}"));
        }
        for word in ["detached", "--backend"] {
            sandbox.assert(!output.out.contains(word), &format!("{shell} does not complete {word}"));
        }
    }
}

#[cfg(feature = "full-tests")]
#[test]
fn shells_accept_their_completion_scripts() {
    let sandbox = Sandbox::new("");
    for shell in ["bash", "zsh", "fish"] {
        sandbox.write("script", &sandbox.run(&["completions", shell]).out);
        let mut check_syntax = Command::new(shell);
        check_syntax.args(["-n", "script"]).current_dir(sandbox.home()).stdin(Stdio::null());
        let output = check_syntax.output().expect(MISSING_PROGRAM);
        sandbox.assert(output.status.success(), &format!("{shell} can read it: {output:?}"));
    }
}

/// The demo with its own TMPDIR and process group, as on a terminal.
fn demo(sandbox: &Sandbox) -> Command {
    fs::create_dir(sandbox.path("tmp")).expect("folder access");
    let mut demo = sandbox.command(&["demo"]);
    demo.env("TMPDIR", sandbox.path("tmp")).process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
    demo
}

#[track_caller]
fn assert_nothing_left(sandbox: &Sandbox) {
    sandbox.assert(
        fs::read_dir(sandbox.path("tmp")).is_ok_and(|mut entries| entries.next().is_none()),
        "no temporary folder is left",
    );
    sandbox.eventually("no process is left", || sandbox.processes().is_empty());
}

#[test]
fn the_demo_repairs_a_real_backend_and_leaves_nothing_behind() {
    let sandbox = Sandbox::new("");
    let output = CommandOutput::new(demo(&sandbox).output().expect("the program runs"));
    sandbox.assert(output.code == Some(0) && output.err.is_empty(), &format!("{output:?}"));
    let expected_lines = [
        "s  healthy   200 in ",
        "s  failing   1 of 3 failures: connected in ",
        "(the demo backend has frozen)\n",
        "s  failing   2 of 3 failures: ",
        "s  failing   3 of 3 failures: connected in ",
        "s  down      3 failures in a row",
        "s  restart   1: sh restart.sh\n",
        "s  healthy   answers again; down ",
        "cured by the first command\n",
    ];
    let mut rest = output.out.as_str();
    for text in expected_lines {
        let Some((_, after)) = rest.split_once(text) else { panic!("`{text}` is missing in\n{}", output.out) };
        rest = after;
    }
    assert_nothing_left(&sandbox);
}

#[test]
fn ctrl_c_ends_the_demo_and_its_processes() {
    let sandbox = Sandbox::new("");
    let mut demo = demo(&sandbox).spawn().expect("the program runs");
    let mut stdout = BufReader::new(demo.stdout.take().expect("a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    assert!(line.contains("healthy"), "{line}");
    let group = rustix::process::Pid::from_child(&demo);
    rustix::process::kill_process_group(group, Signal::INT).expect("the group exists");
    stdout.read_to_string(&mut line).expect("text");
    let output = CommandOutput::new(demo.wait_with_output().expect("the process ends"));
    sandbox.assert(
        output.code == Some(1) && output.err == "watchdog: the demo was stopped; it left nothing behind\n",
        &format!("{output:?}"),
    );
    assert_nothing_left(&sandbox);
}

/// While the state cannot be saved, a request is kept for after a crash, but takes effect once.
#[test]
fn requests_take_effect_once_even_if_the_state_cannot_be_saved() {
    let sandbox = Sandbox::new(&format!("{LIMITS}{}", fixable_target("app")));
    sandbox.write("app-up", "");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || state(&sandbox, "app") == "healthy");
    sandbox.eventually("no save interferes", || {
        let _ = fs::remove_file(sandbox.path("state/state.json"));
        fs::create_dir_all(sandbox.path("state/state.json/in the way")).is_ok()
    });
    let request_files = || files_below(&sandbox.path("state/orders")).len();
    let mut commands = Vec::new();
    for (args, event, count) in [
        (&["pause", "app"][..], "paused", 1),
        (&["resume", "app"], "resumed", 1),
        (&["pause", "--", "true"], "resumed", 2),
        (&["pause"], "paused", 3),
        (&["resume"], "resumed", 3),
    ] {
        commands.push(sandbox.spawn(args));
        sandbox.eventually(event, || sandbox.events(event).len() >= count);
    }
    assert_eq!((sandbox.events("paused").len(), sandbox.events("resumed").len()), (3, 3), "{}", sandbox.dump());
    assert_eq!(request_files(), 6, "{}", sandbox.dump());
    fs::remove_dir_all(sandbox.path("state/state.json")).expect("the file exists");
    daemon.signal(Signal::USR1);
    sandbox.eventually("all requests are removed", || request_files() == 0);
    for command in commands {
        let output = CommandOutput::new(command.wait_with_output().expect("the process ends"));
        assert_eq!(output.code, Some(0), "{output:?}");
    }
    expect_output(&sandbox, &["pause"], 0, "paused");
    sandbox.eventually("a new pause is applied", || sandbox.events("paused").len() == 4);
    assert_eq!(sandbox.events("resumed").len(), 3, "{}", sandbox.dump());
    assert!(daemon.stop().success());
}

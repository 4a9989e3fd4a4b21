//! A watchdog that uses another configuration, belongs to another account, runs in another container or has lost its
//! lock is not mistaken for one's own: it is neither stopped nor called dead.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::sandbox::{CommandOutput, MISSING_PROGRAM, Sandbox, is_alive, require, send_signal};

/// One target that is always healthy and cheap to probe.
pub(crate) const HEALTHY: &str = "targets:\n  - {name: app, file: {path: a.yaml, max_age: 1d}, interval: 200ms}\n";
/// A different configuration.
const OTHER: &str = "targets:\n  - {name: other, file: {path: b.yaml, max_age: 1d}}\n";
/// A target whose probe runs until the file `go` exists.
const LONG_PROBE: &str = "targets:\n  - name: app\n    \
    command: touch probing; until test -e go; do sleep 0.02; done\n    timeout: 1m\n";

/// Two configurations with the same state folder.
fn two_configurations(first: &str) -> Sandbox {
    let sandbox = Sandbox::new("");
    fs::remove_file(sandbox.path("watchdog.yaml")).expect("the file exists");
    sandbox.write("a.yaml", &format!("state_dir: state\n{first}"));
    sandbox.write("b.yaml", &format!("state_dir: state\n{OTHER}"));
    sandbox
}

/// Checks the exit code and that the output consists of these parts on standard error.
#[track_caller]
pub(crate) fn check(sandbox: &Sandbox, args: &[&str], code: i32, expected: &[&str]) {
    check_output(sandbox, args, &sandbox.run(args), code, expected);
}

#[track_caller]
pub(crate) fn check_output(sandbox: &Sandbox, args: &[&str], output: &CommandOutput, code: i32, expected: &[&str]) {
    let all = expected.iter().all(|expected| output.err.contains(expected))
        && (!expected.is_empty() || output.err.is_empty());
    let is_expected = output.code == Some(code) && output.out.is_empty() && all;
    sandbox.assert(is_expected, &format!("{args:?} exits {code} with {expected:?}\nfound: {output:#?}"));
}

#[track_caller]
fn check_done(sandbox: &Sandbox, args: &[&str], expected: &str) {
    let output = sandbox.run(args);
    sandbox.assert(
        output.code == Some(0) && output.out.contains(expected) && output.err.is_empty(),
        &format!("{args:?}: {output:?}"),
    );
}

#[test]
fn a_watchdog_with_another_configuration_is_named_and_left_alone() {
    let sandbox = two_configurations(HEALTHY);
    let daemon = sandbox.start_daemon(&["run", "-c", "a.yaml"]);
    let who =
        format!("a watchdog with pid {} and configuration {} holds ", daemon.pid(), sandbox.path("a.yaml").display());
    let needs = format!("{} needs a state_dir of its own", sandbox.path("b.yaml").display());
    let name_it = format!(", and none with {}: name its configuration with -c", sandbox.path("b.yaml").display());
    check(&sandbox, &["start", "-c", "b.yaml"], 5, &[&who, &needs, " (nothing was started)"]);
    check(&sandbox, &["run", "-c", "b.yaml"], 5, &[&who, " (nothing was started)"]);
    check(&sandbox, &["stop", "-c", "b.yaml"], 5, &[&who, &name_it, " (nothing was stopped)"]);
    check(&sandbox, &["pause", "-c", "b.yaml"], 5, &[&who, &name_it, " (nothing was paused or resumed)"]);
    check(&sandbox, &["resume", "-c", "b.yaml"], 5, &[&who, &name_it, " (nothing was paused or resumed)"]);
    for args in [&["--once", "-c", "b.yaml"][..], &["start", "--cron", "-c", "b.yaml"]] {
        check(&sandbox, args, 5, &[&who, &needs]);
        check(&sandbox, args, 5, &[]);
    }
    let output = sandbox.run(&["pause", "-c", "b.yaml", "--", "sh", "-c", "exit 7"]);
    sandbox.assert(output.code == Some(7) && output.err.contains("nothing is paused"), &format!("{output:?}"));
    let output = sandbox.run(&["check", "--offline", "-c", "b.yaml"]);
    let problem = format!("PROBLEM     {who}{}: {needs}\n", sandbox.path("state").display());
    sandbox.assert(output.code == Some(1) && output.out.contains(&problem), &format!("{output:?}"));
    let untouched = !sandbox.path("state/stopped").exists() && sandbox.events("paused").is_empty();
    sandbox.assert(untouched && sandbox.lock_holder() == Some(daemon.pid()), "the running watchdog is untouched");

    // The same configuration under other paths.
    fs::create_dir(sandbox.path("releases")).expect("folder created");
    symlink("..", sandbox.path("releases/current")).expect("link created");
    symlink("a.yaml", sandbox.path("link.yaml")).expect("link created");
    fs::hard_link(sandbox.path("a.yaml"), sandbox.path("twin.yaml")).expect("link created");
    let absolute = sandbox.path("a.yaml").display().to_string();
    for path in [&absolute, "./a.yaml", "releases/../a.yaml", "releases/current/a.yaml", "link.yaml", "twin.yaml"] {
        check(&sandbox, &["--once", "-c", path], 0, &[]);
        check_done(&sandbox, &["start", "-c", path], "a watchdog is already running");
    }
    check_done(&sandbox, &["pause", "-c", "link.yaml"], "paused all targets");
    // Also while the file is being edited.
    sandbox.write("a.yaml", "state_dir: state\ntargets: []\n");
    let output = sandbox.run(&["stop", "-c", "link.yaml"]);
    sandbox.assert(output.code == Some(0) && !is_alive(daemon.pid()), &format!("{output:?}"));
}

#[test]
fn a_renamed_configuration_can_stop_its_watchdog_but_not_start_a_second_one() {
    let sandbox = two_configurations(HEALTHY);
    let daemon = sandbox.start_daemon(&["run", "-c", "a.yaml"]);
    fs::rename(sandbox.path("a.yaml"), sandbox.path("c.yaml")).expect("renamed");
    let gone = "a.yaml, a file that exists no longer, holds ";
    for args in [&["start", "-c", "c.yaml"][..], &["--once", "-c", "c.yaml"], &["start", "--cron", "-c", "c.yaml"]] {
        check(&sandbox, args, 5, &[gone, ": stop it first"]);
    }
    check_done(&sandbox, &["resume", "-c", "c.yaml"], "resumed all targets");
    check_done(&sandbox, &["stop", "-c", "c.yaml"], "is stopped");
    assert!(!is_alive(daemon.pid()));
    check_done(&sandbox, &["start", "-c", "c.yaml"], "watchdog started");
    check_done(&sandbox, &["stop", "-c", "c.yaml"], "is stopped");
}

/// Without `-c` and without a file in the usual places, the default state folder is used.
#[test]
fn without_a_configuration_commands_act_on_the_watchdog_of_the_default_state_folder() {
    let sandbox = two_configurations(HEALTHY);
    sandbox.write("a.yaml", HEALTHY);
    check_done(&sandbox, &["start", "-c", "a.yaml"], "watchdog started");
    check_done(&sandbox, &["pause"], "paused all targets");
    check_done(&sandbox, &["resume"], "resumed all targets");
    // A file that is found is used, as by `start` in this folder.
    for found in [OTHER, "targets: [\n"] {
        sandbox.write("watchdog.yaml", found);
        // An empty variable names no file: an invalid one may have the default state folder.
        for named in [None, Some("")] {
            let mut stop = sandbox.command(&["stop"]);
            stop.envs(named.map(|named| ("WATCHDOG_CONFIG", named)));
            let output = CommandOutput::new(stop.output().expect("the program runs"));
            sandbox.assert(
                output.code == Some(5) && output.err.contains("/a.yaml holds "),
                &format!("{named:?}: {output:?}"),
            );
        }
    }
    fs::remove_file(sandbox.path("watchdog.yaml")).expect("the file exists");
    check_done(&sandbox, &["stop"], "is stopped");
}

#[test]
fn a_manual_stop_applies_to_one_configuration_only() {
    let sandbox = two_configurations(HEALTHY);
    let cron = ["start", "--cron", "-c"];
    let check_stays_stopped = |configs: &[&str]| {
        for config in configs {
            check(&sandbox, &[&cron[..], &[config]].concat(), 0, &[]);
        }
        sandbox.assert(sandbox.lock_holder().is_none(), &format!("{configs:?} stay stopped"));
    };
    check_done(&sandbox, &["start", "-c", "a.yaml"], "watchdog started");
    check_done(&sandbox, &["stop", "-c", "a.yaml"], "is stopped");
    symlink("a.yaml", sandbox.path("link.yaml")).expect("link created");
    check_stays_stopped(&["a.yaml", "link.yaml"]);
    check_done(&sandbox, &["start", "--cron", "-c", "b.yaml"], "The watchdog was not running.");
    // A configuration started now leaves the other one stopped, and can be stopped as well.
    check(&sandbox, &["start", "--cron", "-c", "a.yaml"], 0, &[]);
    check_done(&sandbox, &["stop", "-c", "b.yaml"], "is stopped");
    check_stays_stopped(&["a.yaml", "b.yaml"]);
    check_done(&sandbox, &["start", "-c", "b.yaml"], "watchdog started");
    let started_pid = sandbox.lock_holder().expect("the watchdog runs");
    send_signal(started_pid, Signal::KILL);
    sandbox.eventually("the process is gone", || !is_alive(started_pid));
    check_stays_stopped(&["a.yaml"]);
    check_done(&sandbox, &["start", "-c", "b.yaml"], "watchdog started");
    check_done(&sandbox, &["stop", "-c", "b.yaml"], "is stopped");
    // A renamed file is still the same configuration.
    fs::rename(sandbox.path("b.yaml"), sandbox.path("c.yaml")).expect("renamed");
    check_stays_stopped(&["a.yaml", "c.yaml"]);
    check_done(&sandbox, &["start", "-c", "c.yaml"], "watchdog started");
    check_done(&sandbox, &["stop", "-c", "c.yaml"], "is stopped");
    // A stop mark without a configuration, as written by older versions, stands for all.
    sandbox.write("state/stopped", "");
    sandbox.write("d.yaml", &format!("state_dir: state\n{HEALTHY}"));
    check_stays_stopped(&["a.yaml", "c.yaml", "d.yaml"]);
    check_done(&sandbox, &["start", "-c", "d.yaml"], "watchdog started");
    sandbox.assert(!sandbox.path("state/stopped").exists(), "the stop mark is removed");
    check_done(&sandbox, &["stop", "-c", "d.yaml"], "is stopped");
}

#[test]
fn ticks_of_two_configurations_do_not_overwrite_each_others_counts() {
    let sandbox = two_configurations(LONG_PROBE);
    let first = sandbox.spawn(&["--once", "-c", "a.yaml"]);
    sandbox.eventually("the first tick probes", || sandbox.path("probing").exists());
    let ticks = format!("ticks with configuration {} use ", sandbox.path("a.yaml").display());
    let needs = format!("{} needs a state_dir of its own", sandbox.path("b.yaml").display());
    let during = sandbox.run(&["--once", "-c", "b.yaml"]);
    check_output(&sandbox, &["--once"], &during, 5, &[&ticks, &needs]);
    for verb in ["stop", "run", "start"] {
        check(&sandbox, &[verb, "-c", "b.yaml"], 5, &["/a.yaml "]);
    }
    sandbox.write("go", "");
    assert!(first.wait_with_output().expect("the process ends").status.success());
    // The error is the same whether or not the ticks overlap, so cron mails it once.
    let afterwards = sandbox.run(&["--once", "-c", "b.yaml"]);
    let same = afterwards.err.is_empty() || afterwards.err == during.err;
    sandbox.assert(afterwards.code == Some(5) && same, &format!("{during:?}, then {afterwards:?}"));
    check(&sandbox, &["pause", "-c", "b.yaml"], 5, &[&ticks]);
    check(&sandbox, &["stop", "-c", "b.yaml"], 5, &[&ticks]);
    check(&sandbox, &["start", "--cron", "-c", "b.yaml"], 5, &[&ticks, &needs]);
    let output = sandbox.run(&["check", "--offline", "-c", "b.yaml"]);
    sandbox
        .assert(output.code == Some(1) && output.out.contains(&format!("PROBLEM     {ticks}")), &format!("{output:?}"));
    let known = sandbox.read("state/state.json");
    sandbox.assert(known.contains("\"app\"") && !known.contains("\"other\""), &known);
    check(&sandbox, &["--once", "-c", "a.yaml"], 0, &[]);

    // A renamed file is still the same configuration.
    fs::rename(sandbox.path("a.yaml"), sandbox.path("c.yaml")).expect("renamed");
    check(&sandbox, &["--once", "-c", "c.yaml"], 0, &[]);
    // A manual start takes over, and the ticks report it.
    check_done(&sandbox, &["start", "-c", "b.yaml"], "watchdog started");
    check(&sandbox, &["--once", "-c", "c.yaml"], 5, &["/b.yaml holds ", "/c.yaml needs a state_dir of its own"]);
    check_done(&sandbox, &["stop", "-c", "b.yaml"], "is stopped");
}

/// Starts a program in a PID namespace, where it sees only its own processes, as in another container.
const OTHER_CONTAINER: [&str; 6] = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// The commands that start or control a watchdog.
const CONTROL_COMMANDS: [&[&str]; 8] =
    [&["run"], &["start"], &["start", "--cron"], &["--once"], &["stop"], &["pause"], &["resume"], &["reload"]];

#[cfg(feature = "full-tests")]
#[test]
fn a_watchdog_in_another_container_is_reported_as_running() {
    for inside in [true, false] {
        let sandbox =
            Sandbox::new("targets:\n  - {name: app, file: {path: watchdog.yaml, max_age: 1d}, interval: 200ms}\n");
        let supported = sandbox.command_through(&OTHER_CONTAINER, &["--version"]).output().expect(MISSING_PROGRAM);
        require(supported.status.success(), "a PID namespace");
        let (daemon_starter, command_starter) =
            if inside { (&OTHER_CONTAINER[..], &[][..]) } else { (&[][..], &OTHER_CONTAINER[..]) };
        let mut daemon = sandbox.start_daemon_from(sandbox.command_through(daemon_starter, &["run"]));
        let run = |args: &[&str]| {
            CommandOutput::new(sandbox.command_through(command_starter, args).output().expect("the program runs"))
        };
        sandbox.eventually("the state is saved", || sandbox.read("state/state.json").contains("healthy"));
        for args in CONTROL_COMMANDS {
            check_output(&sandbox, args, &run(args), 5, &["a watchdog that I cannot see holds ", "watchdog.yaml"]);
        }
        let output = run(&["status"]);
        let is_reported = output.out.contains("its process is not visible from here") && !output.out.contains("NOBODY");
        sandbox.assert(output.code == Some(0) && is_reported, &format!("{output:?}"));
        let output = run(&["status", "--json"]);
        let is_reported = output.out.contains("\"running\":true,\"pid\":null,\"mode\":\"daemon\"");
        sandbox.assert(output.code == Some(0) && is_reported, &format!("{output:?}"));
        let output = run(&["check", "--offline"]);
        let is_reported = output.out.contains("PROBLEM     a watchdog that I cannot see holds ");
        sandbox.assert(output.code == Some(1) && is_reported, &format!("{output:?}"));
        let is_over = daemon.child.try_wait().expect("the state of a child can be read").is_some();
        sandbox.assert(!is_over && !sandbox.path("state/stopped").exists(), "the running watchdog is untouched");
        daemon.kill();
        sandbox.eventually("the lock is free", || run(&["--once"]).code == Some(0));
    }
}

#[cfg(feature = "full-tests")]
#[test]
fn of_two_watchdogs_that_both_hold_the_lock_the_one_replaced_in_the_lock_file_ends() {
    let sandbox = two_configurations(LONG_PROBE);
    let unlocked = |args: &[&str]| {
        let mut command = sandbox.command(args);
        command.env("LD_PRELOAD", sandbox.build_preload("flock.c"));
        command
    };
    let mut first = sandbox.command(&["run", "-c", "a.yaml"]);
    let mut first = first.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    sandbox.eventually("the watchdog runs", || !sandbox.events("started").is_empty());
    let second = sandbox.start_daemon_from(unlocked(&["run", "-c", "b.yaml"]));
    sandbox.eventually("the first watchdog ends", || {
        first.try_wait().expect("the state of a child can be read").is_some()
    });
    let output = CommandOutput::new(first.wait_with_output().expect("a child can be waited for"));
    let replaced_by =
        format!("another watchdog (pid {}, configuration {})", second.pid(), sandbox.path("b.yaml").display());
    check_output(&sandbox, &["run"], &output, 5, &[&replaced_by, " has taken over "]);
    sandbox.wait_for_log(&replaced_by);
    sandbox.assert(sandbox.events("stopped").is_empty(), "the first watchdog writes no event any more");
    sandbox.assert(sandbox.lock_holder() == Some(second.pid()), "the second watchdog stays");
    assert_eq!(second.stop().code(), Some(0), "{}", sandbox.dump());

    // The same for a tick.
    fs::remove_file(sandbox.path("state/state.json")).expect("the file exists");
    let _ = fs::remove_file(sandbox.path("probing"));
    let tick = sandbox.spawn(&["--once", "-c", "a.yaml"]);
    sandbox.eventually("the tick probes", || sandbox.path("probing").exists());
    let third = sandbox.start_daemon_from(unlocked(&["run", "-c", "b.yaml"]));
    sandbox.write("go", "");
    let output = CommandOutput::new(tick.wait_with_output().expect("a child can be waited for"));
    check_output(&sandbox, &["--once"], &output, 5, &[" has taken over "]);
    assert_eq!(third.stop().code(), Some(0), "{}", sandbox.dump());
}

#[test]
fn check_reports_a_file_system_without_locks() {
    let sandbox = two_configurations(HEALTHY);
    let library = sandbox.build_preload("flock.c");
    // The three rounds find no state folder, one without a lock file, and one with it. The numbers are ENOLCK,
    // EOPNOTSUPP and ENOSYS.
    for (number, reason) in [("37", "no locks available"), ("95", "not supported"), ("38", "not implemented")] {
        let run = |args: &[&str]| {
            let mut command = sandbox.command(args);
            CommandOutput::new(
                command.env("LD_PRELOAD", &library).env("FLOCK_ERRNO", number).output().expect("the program runs"),
            )
        };
        let output = run(&["check", "--offline", "-c", "a.yaml"]);
        let problem = format!("PROBLEM     cannot lock {}: ", sandbox.path("state/watchdog.lock").display());
        let is_reported =
            output.out.contains(&problem) && output.out.contains(reason) && output.out.contains("Not ready: ");
        sandbox.assert(output.code == Some(1) && is_reported, &format!("{output:?}"));
        let output = run(&["run", "-c", "a.yaml"]);
        check_output(&sandbox, &["run"], &output, 4, &["cannot lock ", " (nothing was started)"]);
    }
    let output = sandbox.run(&["check", "--offline", "-c", "a.yaml"]);
    sandbox.assert(output.code == Some(0), &format!("{output:?}"));
}

const NOBODY: u32 = 65_534;
const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// The program run as nobody, from a copy: nobody may not reach the build folder.
pub(crate) fn as_nobody(sandbox: &Sandbox, args: &[&str]) -> Command {
    let program = sandbox.path("program");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_watchdog"), &program).expect("copied");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("the test owns it");
    }
    let mut command = Command::new(AS_NOBODY[0]);
    command.args(&AS_NOBODY[1..]).arg(&program).args(args).current_dir(sandbox.home()).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", sandbox.home());
    command.stdin(Stdio::null());
    command
}

/// The folder and `a.yaml` belong to nobody.
pub(crate) fn sandbox_owned_by_nobody() -> Sandbox {
    require(rustix::process::geteuid().is_root(), "root");
    let sandbox = two_configurations(HEALTHY);
    change_owner(&sandbox, NOBODY);
    sandbox
}

fn change_owner(sandbox: &Sandbox, uid: u32) {
    for path in [sandbox.home(), &sandbox.path("a.yaml")] {
        chown(path, Some(uid), Some(uid)).expect("root may change owners");
    }
}

#[cfg(feature = "full-tests")]
#[test]
fn root_stops_another_accounts_watchdog_and_leaves_no_files_there() {
    let sandbox = sandbox_owned_by_nobody();
    let nobody = |args: &[&str]| CommandOutput::new(as_nobody(&sandbox, args).output().expect(MISSING_PROGRAM));
    for round in 0..2 {
        let output = nobody(&["start", "-c", "a.yaml"]);
        sandbox
            .assert(output.code == Some(0) && output.out.contains("watchdog started"), &format!("{round}: {output:?}"));
        let pid = sandbox.lock_holder().expect("the watchdog runs");
        // Nobody's daemon could not remove a file that root created there.
        for args in [&["pause", "-c", "a.yaml"][..], &["start", "-c", "a.yaml"], &["--once", "-c", "a.yaml"]] {
            let output = sandbox.run(args);
            sandbox.assert(output.code.is_some_and(|code| code > 1), &format!("{args:?}: {output:?}"));
        }
        let owned_by_root = sandbox.files_owned_by(0, "state");
        sandbox.assert(owned_by_root.is_empty() && is_alive(pid), &format!("{owned_by_root:?}"));
        let output = sandbox.run(&["stop", "-c", "a.yaml"]);
        let is_reported = output.out.contains(&format!("(pid {pid}) is stopped"));
        sandbox.assert(output.code == Some(0) && is_reported && !is_alive(pid), &format!("{output:?}"));
        let output = nobody(&["start", "--cron", "-c", "a.yaml"]);
        sandbox
            .assert(output.code == Some(0) && sandbox.lock_holder().is_none(), &format!("stays stopped: {output:?}"));
        let output = nobody(&["stop", "-c", "a.yaml"]);
        sandbox.assert(output.code == Some(3), &format!("{output:?}"));
    }
}

#[cfg(feature = "full-tests")]
#[test]
fn stopping_a_watchdog_without_permission_is_refused() {
    require(rustix::process::geteuid().is_root(), "root");
    let sandbox = two_configurations(HEALTHY);
    fs::set_permissions(sandbox.home(), Permissions::from_mode(0o755)).expect("the test owns it");
    let daemon = sandbox.start_daemon(&["run", "-c", "a.yaml"]);
    let nobody = |args: &[&str]| CommandOutput::new(as_nobody(&sandbox, args).output().expect(MISSING_PROGRAM));
    // The state folder is not readable, so nothing is known about the watchdog.
    for verb in ["stop", "pause", "resume", "start", "status"] {
        let output = nobody(&[verb, "-c", "a.yaml"]);
        let is_reported = output.err.contains("permission denied") && output.out.is_empty();
        sandbox.assert(output.code == Some(4) && is_reported, &format!("{verb}: {output:?}"));
    }
    // With a readable folder the watchdog is visible, but cannot be signalled. The daemon closes the folder again when
    // it saves.
    let belongs = format!("the watchdog was not stopped: pid {} belongs to root and cannot be signalled", daemon.pid());
    sandbox.eventually("the owner is named", || {
        fs::set_permissions(sandbox.path("state"), Permissions::from_mode(0o755)).expect("the test owns it");
        fs::set_permissions(sandbox.path("state/watchdog.lock"), Permissions::from_mode(0o644))
            .expect("the test owns it");
        let output = nobody(&["stop", "-c", "a.yaml"]);
        output.code == Some(4) && output.err.contains(&belongs) && output.out.is_empty()
    });
    sandbox
        .assert(!sandbox.path("state/stopped").exists() && is_alive(daemon.pid()), "the running watchdog is untouched");
}

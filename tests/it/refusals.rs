//! Invalid arguments and invalid or unsafe configurations are refused with an exit code, a reason and a consequence,
//! and nothing is changed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::sandbox::{CommandOutput, Sandbox};

/// A target that is healthy while the file `up` exists.
const VALID: &str = "targets:\n  - name: app\n    file: {path: up, max_age: 1d}\n    interval: 100ms\n";

/// Checks the exit code and standard error: the whole text if `expected` ends with a line feed, otherwise a part of it.
#[track_caller]
fn check(sandbox: &Sandbox, args: &[&str], code: i32, expected: &str) {
    let output = sandbox.run(args);
    let fits = if expected.ends_with('\n') { output.err == expected } else { output.err.contains(expected) };
    sandbox.assert(
        output.code == Some(code) && fits,
        &format!("{args:?} exits {code} with\n{expected}\nfound: {output:?}"),
    );
}

#[test]
fn invalid_arguments_are_reported_and_change_nothing() {
    let sandbox = Sandbox::new(VALID);
    let cases: [(&[&str], &str); 22] = [
        (&["statsu"], "'start', 'status'"),
        (&["--bogus"], "unexpected argument '--bogus'"),
        (&["status", "--bogus"], "unexpected argument '--bogus'"),
        (&["help"], "unrecognized subcommand 'help'"),
        (&["run", "extra"], "unexpected argument 'extra'"),
        (&["-c"], "a value is required for '--config <FILE>'"),
        (&["-q", "-v"], "cannot be used with"),
        (&["--once", "status"], "--once cannot be combined with a subcommand"),
        (&["--once", "start"], "--once cannot be combined with a subcommand"),
        (&["check", "--dry-run"], "--dry-run is only valid with run, --once and start"),
        (&["status", "--dry-run"], "--dry-run is only valid with run, --once and start"),
        (&["status", "--json", "--watch"], "cannot be used with"),
        (&["check", "app"], "unexpected argument 'app'"),
        (&["stop", "--cron"], "unexpected argument '--cron'"),
        (&["pause", "--for", "0s"], "a pause must be longer than 0 s"),
        (&["pause", "--for", "25h"], "a pause lasts at most 24 h"),
        (&["pause", "--for", "30"], "write it as 30m or 1h 30m"),
        (&["pause", "nobody"], "no target `nobody`; known targets: app"),
        (&["resume", "app", "nobody"], "no target `nobody`; known targets: app"),
        (&["completions"], "required arguments were not provided"),
        (&["completions", "cmd.exe"], "possible values: bash, elvish, fish, powershell, zsh"),
        (&["demo", "now"], "unexpected argument 'now'"),
    ];
    for (args, expected) in cases {
        check(&sandbox, args, 2, expected);
    }
    sandbox.assert(!sandbox.path("state").exists(), "nothing was done");
}

#[test]
fn version_and_help_are_printed() {
    let sandbox = Sandbox::new(VALID);
    let version = sandbox.run(&["--version"]);
    assert_eq!((version.code, version.out.as_str()), (Some(0), "watchdog-agent 0.1.0\n"));
    let help = sandbox.run(&["--help"]);
    assert_eq!(help.code, Some(0));
    for word in ["run", "start", "stop", "check", "status", "pause", "resume", "demo", "completions", "--once"] {
        assert!(help.out.contains(word), "{word} is in {help:?}");
    }
}

const INVALID: &str = "targets:\n  - name: app\n    http: http://localhost:1/\n    intervall: 15s\n    timeout: 0s\n";
const ERRORS: &str = "watchdog.yaml:5:5: unknown key `intervall`
  5 |     intervall: 15s
    |     ^^^^^^^^^ did you mean `interval`?   (targets[0], app)
watchdog.yaml:6:14: `timeout` is too short
  6 |     timeout: 0s
    |              ^^ from 100 ms to 24 h   (targets[0].timeout, app)
";

#[test]
fn all_errors_of_a_configuration_are_reported_with_position_advice_and_consequence() {
    let sandbox = Sandbox::new(INVALID);
    let errors_and = |consequence: &str| format!("{ERRORS}{consequence}\n");
    check(&sandbox, &[], 2, &errors_and("nothing was started"));
    check(&sandbox, &["run"], 2, &errors_and("nothing was started"));
    check(&sandbox, &["start"], 2, &errors_and("nothing was started"));
    check(&sandbox, &["start", "--cron"], 2, &errors_and("nothing was started"));
    check(&sandbox, &["--once"], 2, &errors_and("nothing was done"));
    check(&sandbox, &["check"], 2, &errors_and("nothing else was checked"));
    check(&sandbox, &["check", "--offline"], 2, &errors_and("nothing else was checked"));
    sandbox.assert(!sandbox.path("state").exists(), "nothing was done");

    sandbox.configure("targets:\n  - name: app\n\thttp: http://localhost:1/\n");
    check(&sandbox, &["check"], 2, "indent with spaces, not with tabs");
    sandbox.configure("targets:\n  - {name: app, tcp: 'localhost:1', restart: [pm2, restart, app]}\n");
    check(&sandbox, &["check"], 2, "{run: [");
    sandbox.configure("notify: [{webhook: x}]\ntargets:\n  - {name: app, tcp: 'localhost:1'}\n");
    check(&sandbox, &["check"], 2, "`webhook` starts with neither http:// nor https://");
}

#[test]
fn status_pause_and_resume_work_with_an_invalid_configuration_that_names_its_state_folder() {
    let sandbox = Sandbox::new(VALID);
    sandbox.write("up", "");
    let daemon = sandbox.start_daemon(&["run"]);
    sandbox.eventually("the target is healthy", || sandbox.target("app")["state"] == "healthy");
    sandbox.configure(INVALID);
    check(&sandbox, &["status"], 0, "the configuration is not valid; using its state folder, ");
    check(&sandbox, &["pause", "app"], 0, "using its state folder, ");
    check(&sandbox, &["resume"], 0, "using its state folder, ");
    assert_eq!(sandbox.events("paused").len(), 1, "{}", sandbox.dump());
    // If a named configuration does not yield a state folder, the default one is not used.
    sandbox.write("watchdog.yaml", "state_dir: [\n");
    for args in [&["status"][..], &["pause"], &["resume"], &["stop"]] {
        let named = [args, &["-c", "watchdog.yaml"]].concat();
        check(&sandbox, &named, 2, "its state folder is unknown, so nothing was done");
        check(&sandbox, &[args, &["-c", "gone.yaml"]].concat(), 2, "cannot read gone.yaml: no such file or directory");
    }
    assert!(daemon.stop().success());
}

#[test]
fn the_configuration_is_searched_in_the_promised_order() {
    let sandbox = Sandbox::new(VALID);
    let run_in_folder = |sandbox: &Sandbox, args: &[&str], variable: Option<&str>| {
        let mut command = sandbox.command(args);
        command.current_dir(sandbox.path("here")).env("HOME", sandbox.path("home"));
        command.envs(variable.map(|path| ("WATCHDOG_CONFIG", path)));
        CommandOutput::new(command.output().expect("the program runs"))
    };
    for folder in ["here", "home/.config/watchdog"] {
        fs::create_dir_all(sandbox.path(folder)).expect("folder access");
    }
    let none = run_in_folder(&sandbox, &["check", "--offline"], None);
    let home = sandbox.path("home").display().to_string();
    let searched = format!("./watchdog.yaml, {home}/watchdog.yaml, {home}/.config/watchdog/watchdog.yaml");
    sandbox.assert(none.code == Some(2) && none.err.contains(&searched), &format!("{none:?}"));
    let unwatched = run_in_folder(&sandbox, &["status"], None);
    sandbox
        .assert(unwatched.code == Some(3) && unwatched.out.contains("NOBODY IS WATCHING"), &format!("{unwatched:?}"));

    // Each path is preferred to the ones before it.
    let paths = ["home/.config/watchdog/watchdog.yaml", "home/watchdog.yaml", "here/watchdog.yaml"];
    for path in paths {
        sandbox.write(path, &format!("state_dir: ../state\n{VALID}"));
        let output = run_in_folder(&sandbox, &["check", "--offline"], None);
        let first = output.out.lines().next().unwrap_or_default();
        let full = sandbox.path(path).display().to_string();
        let shown = path.strip_prefix("home/").map_or(full, |below| format!("~/{below}"));
        sandbox.assert(first.starts_with(&shown), &format!("{path} is found: {output:?}"));
    }
    sandbox.write("variable.yaml", VALID);
    let variable = sandbox.path("variable.yaml").display().to_string();
    let output = run_in_folder(&sandbox, &["check", "--offline"], Some(&variable));
    sandbox.assert(output.out.starts_with(&variable), &format!("the variable wins: {output:?}"));
    let output = run_in_folder(&sandbox, &["-c", "../watchdog.yaml", "check", "--offline"], Some(&variable));
    sandbox.assert(
        output.out.contains("watchdog.yaml is valid") && !output.out.starts_with(&variable),
        &format!("{output:?}"),
    );
    let output = run_in_folder(&sandbox, &["check", "--offline"], Some("gone.yaml"));
    sandbox.assert(output.code == Some(2) && output.err.contains("cannot read gone.yaml"), &format!("{output:?}"));
}

#[track_caller]
fn set_mode(sandbox: &Sandbox, name: &str, mode: u32) {
    fs::set_permissions(sandbox.path(name), Permissions::from_mode(mode)).expect("the test owns the file");
}

#[test]
fn files_writable_by_others_are_refused_with_the_fix() {
    let sandbox = Sandbox::new(&format!("env_file: secrets.env\n{VALID}"));
    sandbox.write("secrets.env", "TOKEN=s3cret\n");
    sandbox.write("up", "");
    set_mode(&sandbox, "secrets.env", 0o600);
    set_mode(&sandbox, "watchdog.yaml", 0o666);
    for args in [&["check"][..], &["run"], &["--once"], &["start"]] {
        check(
            &sandbox,
            args,
            2,
            "watchdog.yaml: world-writable; anyone could change which commands are run. Fix: chmod o-w watchdog.yaml",
        );
    }
    set_mode(&sandbox, "watchdog.yaml", 0o664);
    match rustix::process::geteuid().is_root() {
        true => check(
            &sandbox,
            &["check"],
            2,
            "watchdog.yaml: group-writable; root runs commands from it. Fix: chmod g-w watchdog.yaml",
        ),
        false => assert_eq!(sandbox.run(&["check", "--offline"]).code, Some(0)),
    }
    set_mode(&sandbox, "watchdog.yaml", 0o644);
    set_mode(&sandbox, "secrets.env", 0o640);
    check(&sandbox, &["check"], 2, "but a file with secrets must be 0600 or stricter. Fix: chmod 600 ");
    set_mode(&sandbox, "secrets.env", 0o600);
    set_mode(&sandbox, "", 0o777);
    check(&sandbox, &["check"], 2, ". Fix: chmod o-w ");
    set_mode(&sandbox, "", 0o700);
    sandbox.assert(!sandbox.path("state").exists(), "nothing was done");
    check(&sandbox, &["--once"], 0, "");
}

#[test]
fn an_unusable_state_folder_exits_4() {
    let sandbox = Sandbox::new(VALID);
    sandbox.write("state", "a file in the place of the folder");
    let cases: [(&[&str], &str); 5] = [
        (&["run"], "(nothing was started)"),
        (&["start"], "(nothing was started)"),
        (&["--once"], "(nothing was done)"),
        (&["pause"], "(nothing was paused or resumed)"),
        (&["resume"], "(nothing was paused or resumed)"),
    ];
    let folder = sandbox.path("state").display().to_string();
    for (args, consequence) in cases {
        let output = sandbox.run(args);
        let has_consequence = output.err.contains(&folder) && output.err.trim_end().ends_with(consequence);
        sandbox.assert(output.code == Some(4) && has_consequence, &format!("{args:?}: {output:?}"));
    }
    // The command after `--` runs anyway.
    let output = sandbox.run(&["pause", "--", "sh", "-c", "echo ran; exit 7"]);
    sandbox.assert(output.code == Some(7) && output.out == "ran\n", &format!("{output:?}"));
    sandbox.assert(output.err.contains("nothing is paused; running the command anyway"), &format!("{output:?}"));
}

#[test]
fn if_no_target_can_be_probed_nothing_is_restarted() {
    let target = "targets:\n  - {name: app, command: no-such-program, restart: touch done, failure_threshold: 1}\n";
    let sandbox = Sandbox::new(target);
    let output = sandbox.run(&["--once"]);
    sandbox.assert(output.code == Some(4), &format!("every verdict is unknown: {output:?}"));
    sandbox.assert(!sandbox.path("done").exists() && sandbox.events("").is_empty(), "nothing is restarted or counted");
    let status = sandbox.run(&["status"]);
    let why = "the last probe gave no verdict: cannot run the command: exit code 127 (shell: command not found)";
    sandbox.assert(status.code == Some(0) && status.out.contains(why), &format!("the reason is shown: {status:?}"));
}

//! What is refused, and how: wrong words, configurations that are not valid or not safe. Each with its exit code, its
//! reason and its consequence, and with nothing done.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::place::{Place, Said};

/// A target that is well while there is a file named `up`.
const FINE: &str = "targets:\n  - name: app\n    file: {path: up, max_age: 1d}\n    interval: 100ms\n";

/// The words, the exit code, and what is said on standard error, all of it if it ends with a line feed.
#[track_caller]
fn check(place: &Place, words: &[&str], code: i32, says: &str) {
    let said = place.run(words);
    let fits = if says.ends_with('\n') { said.err == says } else { said.err.contains(says) };
    place.demand(said.code == Some(code) && fits, &format!("{words:?} gives {code} and\n{says}\nbut: {said:?}"));
}

#[test]
fn wrong_use_is_told_and_nothing_is_done() {
    let place = Place::with(FINE);
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
    for (words, says) in cases {
        check(&place, words, 2, says);
    }
    place.demand(!place.path("state").exists(), "nothing was done");
}

#[test]
fn the_version_says_which_watchdog_this_is() {
    let place = Place::with(FINE);
    let version = place.run(&["--version"]);
    assert_eq!((version.code, version.out.as_str()), (Some(0), "watchdog-agent 0.1.0\n"));
    let help = place.run(&["--help"]);
    assert_eq!(help.code, Some(0));
    for word in ["run", "start", "stop", "check", "status", "pause", "resume", "demo", "completions", "--once"] {
        assert!(help.out.contains(word), "{word} is not in {help:?}");
    }
}

const BROKEN: &str = "targets:\n  - name: app\n    http: http://localhost:1/\n    intervall: 15s\n    timeout: 0s\n";
const TOLD: &str = "watchdog.yaml:5:5: unknown key `intervall`
  5 |     intervall: 15s
    |     ^^^^^^^^^ did you mean `interval`?   (targets[0], app)
watchdog.yaml:6:14: `timeout` is too short
  6 |     timeout: 0s
    |              ^^ from 100 ms to 24 h   (targets[0].timeout, app)
";

#[test]
fn all_that_is_wrong_is_told_with_its_place_its_advice_and_its_consequence() {
    let place = Place::with(BROKEN);
    let told = |consequence: &str| format!("{TOLD}{consequence}\n");
    check(&place, &[], 2, &told("nothing was started"));
    check(&place, &["run"], 2, &told("nothing was started"));
    check(&place, &["start"], 2, &told("nothing was started"));
    check(&place, &["start", "--cron"], 2, &told("nothing was started"));
    check(&place, &["--once"], 2, &told("nothing was done"));
    check(&place, &["check"], 2, &told("nothing else was checked"));
    check(&place, &["check", "--offline"], 2, &told("nothing else was checked"));
    place.demand(!place.path("state").exists(), "nothing was done");

    place.configure("targets:\n  - name: app\n\thttp: http://localhost:1/\n");
    check(&place, &["check"], 2, "indent with spaces, not with tabs");
    place.configure("targets:\n  - {name: app, tcp: 'localhost:1', restart: [pm2, restart, app]}\n");
    check(&place, &["check"], 2, "{run: [");
    place.configure("notify: [{webhook: x}]\ntargets:\n  - {name: app, tcp: 'localhost:1'}\n");
    check(&place, &["check"], 2, "`webhook` starts with neither http:// nor https://");
}

#[test]
fn those_who_ask_or_order_get_through_to_the_named_state_folder_however_broken_the_rest_is() {
    let place = Place::with(FINE);
    place.write("up", "");
    let daemon = place.daemon(&["run"]);
    place.eventually("it is healthy", || place.target("app")["state"] == "healthy");
    place.configure(BROKEN);
    check(&place, &["status"], 0, "the configuration is not valid; using its state folder, ");
    check(&place, &["pause", "app"], 0, "using its state folder, ");
    check(&place, &["resume"], 0, "using its state folder, ");
    assert_eq!(place.events("paused").len(), 1, "{}", place.story());
    // What can tell no state folder is not taken for the default one where somebody named it.
    place.write("watchdog.yaml", "state_dir: [\n");
    for words in [&["status"][..], &["pause"], &["resume"], &["stop"]] {
        let named = [words, &["-c", "watchdog.yaml"]].concat();
        check(&place, &named, 2, "its state folder is unknown, so nothing was done");
        check(&place, &[words, &["-c", "gone.yaml"]].concat(), 2, "cannot read gone.yaml: no such file or directory");
    }
    assert!(daemon.stop().success());
}

#[test]
fn the_configuration_is_looked_for_in_the_promised_order() {
    let place = Place::with(FINE);
    let found = |place: &Place, words: &[&str], variable: Option<&str>| {
        let mut command = place.command(words);
        command.current_dir(place.path("here")).env("HOME", place.path("home"));
        command.envs(variable.map(|path| ("WATCHDOG_CONFIG", path)));
        Said::new(command.output().expect("the program runs"))
    };
    for folder in ["here", "home/.config/watchdog"] {
        fs::create_dir_all(place.path(folder)).expect("a folder");
    }
    let none = found(&place, &["check", "--offline"], None);
    let home = place.path("home").display().to_string();
    let places = format!("./watchdog.yaml, {home}/watchdog.yaml, {home}/.config/watchdog/watchdog.yaml");
    place.demand(none.code == Some(2) && none.err.contains(&places), &format!("{none:?}"));
    let nobody = found(&place, &["status"], None);
    place.demand(nobody.code == Some(3) && nobody.out.contains("NOBODY IS WATCHING"), &format!("{nobody:?}"));

    // Each wins over those before it.
    let by_place = ["home/.config/watchdog/watchdog.yaml", "home/watchdog.yaml", "here/watchdog.yaml"];
    for path in by_place {
        place.write(path, &format!("state_dir: ../state\n{FINE}"));
        let said = found(&place, &["check", "--offline"], None);
        let first = said.out.lines().next().unwrap_or_default();
        let full = place.path(path).display().to_string();
        place.demand(first.starts_with(&full), &format!("{path} is found: {said:?}"));
    }
    place.write("variable.yaml", FINE);
    let variable = place.path("variable.yaml").display().to_string();
    let said = found(&place, &["check", "--offline"], Some(&variable));
    place.demand(said.out.starts_with(&variable), &format!("the variable wins: {said:?}"));
    let said = found(&place, &["-c", "../watchdog.yaml", "check", "--offline"], Some(&variable));
    place.demand(said.out.contains("watchdog.yaml is valid") && !said.out.starts_with(&variable), &format!("{said:?}"));
    let said = found(&place, &["check", "--offline"], Some("gone.yaml"));
    place.demand(said.code == Some(2) && said.err.contains("cannot read gone.yaml"), &format!("{said:?}"));
}

#[track_caller]
fn set_mode(place: &Place, name: &str, mode: u32) {
    fs::set_permissions(place.path(name), Permissions::from_mode(mode)).expect("a file of ours");
}

#[test]
fn what_others_could_have_written_is_refused_with_what_mends_it() {
    let place = Place::with(&format!("env_file: secrets.env\n{FINE}"));
    place.write("secrets.env", "TOKEN=s3cret\n");
    place.write("up", "");
    set_mode(&place, "secrets.env", 0o600);
    set_mode(&place, "watchdog.yaml", 0o666);
    for words in [&["check"][..], &["run"], &["--once"], &["start"]] {
        check(
            &place,
            words,
            2,
            "watchdog.yaml: world-writable; anyone could change which commands are run. Fix: chmod o-w watchdog.yaml",
        );
    }
    set_mode(&place, "watchdog.yaml", 0o664);
    match rustix::process::geteuid().is_root() {
        true => check(
            &place,
            &["check"],
            2,
            "watchdog.yaml: group-writable; root runs commands from it. Fix: chmod g-w watchdog.yaml",
        ),
        false => assert_eq!(place.run(&["check", "--offline"]).code, Some(0)),
    }
    set_mode(&place, "watchdog.yaml", 0o644);
    set_mode(&place, "secrets.env", 0o640);
    check(&place, &["check"], 2, "but a file with secrets must be 0600 or stricter. Fix: chmod 600 ");
    set_mode(&place, "secrets.env", 0o600);
    set_mode(&place, "", 0o777);
    check(&place, &["check"], 2, ". Fix: chmod o-w ");
    set_mode(&place, "", 0o700);
    place.demand(!place.path("state").exists(), "nothing was done");
    check(&place, &["--once"], 0, "");
}

#[test]
fn a_state_folder_that_cannot_be_used_is_the_machines_fault() {
    let place = Place::with(FINE);
    place.write("state", "a file in the place of the folder");
    let cases: [(&[&str], &str); 5] = [
        (&["run"], "(nothing was started)"),
        (&["start"], "(nothing was started)"),
        (&["--once"], "(nothing was done)"),
        (&["pause"], "(nothing was paused or resumed)"),
        (&["resume"], "(nothing was paused or resumed)"),
    ];
    let folder = place.path("state").display().to_string();
    for (words, consequence) in cases {
        let said = place.run(words);
        let told = said.err.contains(&folder) && said.err.trim_end().ends_with(consequence);
        place.demand(said.code == Some(4) && told, &format!("{words:?}: {said:?}"));
    }
    // What was to be run meanwhile is run all the same.
    let said = place.run(&["pause", "--", "sh", "-c", "echo ran; exit 7"]);
    place.demand(said.code == Some(7) && said.out == "ran\n", &format!("{said:?}"));
    place.demand(said.err.contains("nothing is paused; running the command anyway"), &format!("{said:?}"));
}

#[test]
fn where_nothing_can_be_told_of_any_target_nothing_is_restarted() {
    let target = "targets:\n  - {name: app, command: no-such-program, restart: touch done, failure_threshold: 1}\n";
    let place = Place::with(target);
    let said = place.run(&["--once"]);
    place.demand(said.code == Some(4), &format!("every verdict is unknown: {said:?}"));
    place.demand(!place.path("done").exists() && place.events("").is_empty(), "nothing is done or counted");
    let status = place.run(&["status"]);
    let why = "the last probe gave no verdict: cannot run the command: exit code 127 (shell: command not found)";
    place.demand(status.code == Some(0) && status.out.contains(why), &format!("it says why: {status:?}"));
}

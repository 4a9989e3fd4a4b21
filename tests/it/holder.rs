//! Whose watchdog it is: one with another configuration, one of another account, one in another container, and one that
//! has lost its lock are told from one's own. None is taken for it, stopped in its place, or called dead.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::place::{NEEDED, Place, Said, is_alive, need, send};

/// A target that is always healthy and costs nothing.
pub(crate) const PEACE: &str = "targets:\n  - {name: app, file: {path: a.yaml, max_age: 1d}, interval: 200ms}\n";
/// Another one.
const OTHER: &str = "targets:\n  - {name: other, file: {path: b.yaml, max_age: 1d}}\n";
/// One whose probe lasts until the file `go` is there.
const LONG: &str = "targets:\n  - name: app\n    \
    command: touch looking; until test -e go; do sleep 0.02; done\n    timeout: 1m\n";

/// Two configurations, and one state folder for both.
fn two(first: &str) -> Place {
    let place = Place::with("");
    fs::remove_file(place.path("watchdog.yaml")).expect("it is there");
    place.write("a.yaml", &format!("state_dir: state\n{first}"));
    place.write("b.yaml", &format!("state_dir: state\n{OTHER}"));
    place
}

/// What is said on standard error and nothing else, with this exit code.
#[track_caller]
pub(crate) fn check(place: &Place, words: &[&str], code: i32, says: &[&str]) {
    fits(place, words, &place.run(words), code, says);
}

#[track_caller]
pub(crate) fn fits(place: &Place, words: &[&str], said: &Said, code: i32, says: &[&str]) {
    let all = says.iter().all(|says| said.err.contains(says)) && (!says.is_empty() || said.err.is_empty());
    let good = said.code == Some(code) && said.out.is_empty() && all;
    place.demand(good, &format!("{words:?} gives {code} and {says:?}\nbut: {said:#?}"));
}

#[track_caller]
fn done(place: &Place, words: &[&str], says: &str) {
    let said = place.run(words);
    place.demand(
        said.code == Some(0) && said.out.contains(says) && said.err.is_empty(),
        &format!("{words:?}: {said:?}"),
    );
}

#[test]
fn a_watchdog_with_another_configuration_is_named_and_left_alone() {
    let place = two(PEACE);
    let daemon = place.daemon(&["run", "-c", "a.yaml"]);
    let who =
        format!("a watchdog with pid {} and configuration {} holds ", daemon.pid(), place.path("a.yaml").display());
    let needs = format!("{} needs a state_dir of its own", place.path("b.yaml").display());
    let name_it = format!(", and none with {}: name its configuration with -c", place.path("b.yaml").display());
    check(&place, &["start", "-c", "b.yaml"], 5, &[&who, &needs, " (nothing was started)"]);
    check(&place, &["run", "-c", "b.yaml"], 5, &[&who, " (nothing was started)"]);
    check(&place, &["stop", "-c", "b.yaml"], 5, &[&who, &name_it, " (nothing was stopped)"]);
    check(&place, &["pause", "-c", "b.yaml"], 5, &[&who, &name_it, " (nothing was paused or resumed)"]);
    check(&place, &["resume", "-c", "b.yaml"], 5, &[&who, &name_it, " (nothing was paused or resumed)"]);
    for words in [&["--once", "-c", "b.yaml"][..], &["start", "--cron", "-c", "b.yaml"]] {
        check(&place, words, 5, &[&who, &needs]);
        check(&place, words, 5, &[]);
    }
    let said = place.run(&["pause", "-c", "b.yaml", "--", "sh", "-c", "exit 7"]);
    place.demand(said.code == Some(7) && said.err.contains("nothing is paused"), &format!("{said:?}"));
    let said = place.run(&["check", "--offline", "-c", "b.yaml"]);
    let wrong = format!("PROBLEM     {who}{}: {needs}\n", place.path("state").display());
    place.demand(said.code == Some(1) && said.out.contains(&wrong), &format!("{said:?}"));
    let untouched = !place.path("state/stopped").exists() && place.events("paused").is_empty();
    place.demand(untouched && place.holder() == Some(daemon.pid()), "it is left alone");

    // Its own configuration by other ways.
    fs::create_dir(place.path("releases")).expect("made");
    symlink("..", place.path("releases/current")).expect("a link");
    symlink("a.yaml", place.path("link.yaml")).expect("a link");
    fs::hard_link(place.path("a.yaml"), place.path("twin.yaml")).expect("a link");
    let absolute = place.path("a.yaml").display().to_string();
    for way in [&absolute, "./a.yaml", "releases/../a.yaml", "releases/current/a.yaml", "link.yaml", "twin.yaml"] {
        check(&place, &["--once", "-c", way], 0, &[]);
        done(&place, &["start", "-c", way], "a watchdog is already running");
    }
    done(&place, &["pause", "-c", "link.yaml"], "paused all targets");
    // While it is being edited, too.
    place.write("a.yaml", "state_dir: state\ntargets: []\n");
    let said = place.run(&["stop", "-c", "link.yaml"]);
    place.demand(said.code == Some(0) && !is_alive(daemon.pid()), &format!("{said:?}"));
}

#[test]
fn a_configuration_that_was_moved_stops_the_watchdog_that_had_it_and_starts_none_beside_it() {
    let place = two(PEACE);
    let daemon = place.daemon(&["run", "-c", "a.yaml"]);
    fs::rename(place.path("a.yaml"), place.path("c.yaml")).expect("renamed");
    let gone = "a.yaml, a file that exists no longer, holds ";
    for words in [&["start", "-c", "c.yaml"][..], &["--once", "-c", "c.yaml"], &["start", "--cron", "-c", "c.yaml"]] {
        check(&place, words, 5, &[gone, ": stop it first"]);
    }
    done(&place, &["resume", "-c", "c.yaml"], "resumed all targets");
    done(&place, &["stop", "-c", "c.yaml"], "is stopped");
    assert!(!is_alive(daemon.pid()));
    done(&place, &["start", "-c", "c.yaml"], "watchdog started");
    done(&place, &["stop", "-c", "c.yaml"], "is stopped");
}

/// In the default state folder, with none named and none found.
#[test]
fn without_a_configuration_it_is_the_default_folders_watchdog_whatever_its_configuration() {
    let place = two(PEACE);
    place.write("a.yaml", PEACE);
    done(&place, &["start", "-c", "a.yaml"], "watchdog started");
    done(&place, &["pause"], "paused all targets");
    done(&place, &["resume"], "resumed all targets");
    // One that is found is meant, as by `start` in this folder.
    for found in [OTHER, "targets: [\n"] {
        place.write("watchdog.yaml", found);
        // Whatever is set to nothing names none: the folder of one that is not valid may be the default.
        for named in [None, Some("")] {
            let mut stop = place.command(&["stop"]);
            stop.envs(named.map(|named| ("WATCHDOG_CONFIG", named)));
            let said = Said::new(stop.output().expect("the program runs"));
            place.demand(said.code == Some(5) && said.err.contains("/a.yaml holds "), &format!("{named:?}: {said:?}"));
        }
    }
    fs::remove_file(place.path("watchdog.yaml")).expect("it is there");
    done(&place, &["stop"], "is stopped");
}

#[test]
fn what_was_stopped_by_hand_is_the_watchdog_of_that_configuration_and_no_other() {
    let place = two(PEACE);
    let cron = ["start", "--cron", "-c"];
    let left = |configs: &[&str]| {
        for config in configs {
            check(&place, &[&cron[..], &[config]].concat(), 0, &[]);
        }
        place.demand(place.holder().is_none(), &format!("{configs:?} are left stopped"));
    };
    done(&place, &["start", "-c", "a.yaml"], "watchdog started");
    done(&place, &["stop", "-c", "a.yaml"], "is stopped");
    symlink("a.yaml", place.path("link.yaml")).expect("a link");
    left(&["a.yaml", "link.yaml"]);
    done(&place, &["start", "--cron", "-c", "b.yaml"], "The watchdog was not running.");
    // What is started then leaves the other one stopped, and may be stopped like it.
    check(&place, &["start", "--cron", "-c", "a.yaml"], 0, &[]);
    done(&place, &["stop", "-c", "b.yaml"], "is stopped");
    left(&["a.yaml", "b.yaml"]);
    done(&place, &["start", "-c", "b.yaml"], "watchdog started");
    let by_hand = place.holder().expect("it is at work");
    send(by_hand, Signal::KILL);
    place.eventually("it is gone", || !is_alive(by_hand));
    left(&["a.yaml"]);
    done(&place, &["start", "-c", "b.yaml"], "watchdog started");
    done(&place, &["stop", "-c", "b.yaml"], "is stopped");
    // Moved it is the same one.
    fs::rename(place.path("b.yaml"), place.path("c.yaml")).expect("renamed");
    left(&["a.yaml", "c.yaml"]);
    done(&place, &["start", "-c", "c.yaml"], "watchdog started");
    done(&place, &["stop", "-c", "c.yaml"], "is stopped");
    // A mark that names none, as of an older version, is for all.
    place.write("state/stopped", "");
    place.write("d.yaml", &format!("state_dir: state\n{PEACE}"));
    left(&["a.yaml", "c.yaml", "d.yaml"]);
    done(&place, &["start", "-c", "d.yaml"], "watchdog started");
    place.demand(!place.path("state/stopped").exists(), "the mark is taken away");
    done(&place, &["stop", "-c", "d.yaml"], "is stopped");
}

#[test]
fn ticks_of_two_configurations_do_not_undo_what_each_other_counts() {
    let place = two(LONG);
    let first = place.begin(&["--once", "-c", "a.yaml"]);
    place.eventually("the first tick probes", || place.path("looking").exists());
    let ticks = format!("ticks with configuration {} use ", place.path("a.yaml").display());
    let needs = format!("{} needs a state_dir of its own", place.path("b.yaml").display());
    let met = place.run(&["--once", "-c", "b.yaml"]);
    fits(&place, &["--once"], &met, 5, &[&ticks, &needs]);
    for verb in ["stop", "run", "start"] {
        check(&place, &[verb, "-c", "b.yaml"], 5, &["/a.yaml "]);
    }
    place.write("go", "");
    assert!(first.wait_with_output().expect("it ends").status.success());
    // It is the same complaint whether or not they meet, so that cron need not mail it twice.
    let later = place.run(&["--once", "-c", "b.yaml"]);
    let same = later.err.is_empty() || later.err == met.err;
    place.demand(later.code == Some(5) && same, &format!("{met:?}, then {later:?}"));
    check(&place, &["pause", "-c", "b.yaml"], 5, &[&ticks]);
    check(&place, &["stop", "-c", "b.yaml"], 5, &[&ticks]);
    check(&place, &["start", "--cron", "-c", "b.yaml"], 5, &[&ticks, &needs]);
    let said = place.run(&["check", "--offline", "-c", "b.yaml"]);
    place.demand(said.code == Some(1) && said.out.contains(&format!("PROBLEM     {ticks}")), &format!("{said:?}"));
    let known = place.read("state/state.json");
    place.demand(known.contains("\"app\"") && !known.contains("\"other\""), &known);
    check(&place, &["--once", "-c", "a.yaml"], 0, &[]);

    // Moved it is the same one.
    fs::rename(place.path("a.yaml"), place.path("c.yaml")).expect("renamed");
    check(&place, &["--once", "-c", "c.yaml"], 0, &[]);
    // By hand it is taken over, and the ticks are told.
    done(&place, &["start", "-c", "b.yaml"], "watchdog started");
    check(&place, &["--once", "-c", "c.yaml"], 5, &["/b.yaml holds ", "/c.yaml needs a state_dir of its own"]);
    done(&place, &["stop", "-c", "b.yaml"], "is stopped");
}

/// Starts a program where it sees no process but its own, as in another container.
const ELSEWHERE: [&str; 6] = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// The verbs that start or command a watchdog.
const VERBS: [&[&str]; 7] =
    [&["run"], &["start"], &["start", "--cron"], &["--once"], &["stop"], &["pause"], &["resume"]];

#[cfg(feature = "full-tests")]
#[test]
fn a_watchdog_in_another_container_is_told_of_and_not_called_dead() {
    for inside in [true, false] {
        let place =
            Place::with("targets:\n  - {name: app, file: {path: watchdog.yaml, max_age: 1d}, interval: 200ms}\n");
        let elsewhere = place.command_through(&ELSEWHERE, &["--version"]).output().expect(NEEDED);
        need(elsewhere.status.success(), "a PID namespace");
        let (there, here) = if inside { (&ELSEWHERE[..], &[][..]) } else { (&[][..], &ELSEWHERE[..]) };
        let mut daemon = place.daemon_by(place.command_through(there, &["run"]));
        let run = |words: &[&str]| Said::new(place.command_through(here, words).output().expect("it runs"));
        place.eventually("its picture is there", || place.read("state/state.json").contains("healthy"));
        for words in VERBS {
            fits(&place, words, &run(words), 5, &["a watchdog that I cannot see holds ", "watchdog.yaml"]);
        }
        let said = run(&["status"]);
        let told = said.out.contains("its process is not visible from here") && !said.out.contains("NOBODY");
        place.demand(said.code == Some(0) && told, &format!("{said:?}"));
        let said = run(&["status", "--json"]);
        let told = said.out.contains("\"running\":true,\"pid\":null,\"mode\":\"daemon\"");
        place.demand(said.code == Some(0) && told, &format!("{said:?}"));
        let said = run(&["check", "--offline"]);
        let told = said.out.contains("PROBLEM     a watchdog that I cannot see holds ");
        place.demand(said.code == Some(1) && told, &format!("{said:?}"));
        let is_over = daemon.child.try_wait().expect("a child can be asked").is_some();
        place.demand(!is_over && !place.path("state/stopped").exists(), "it was left alone");
        daemon.kill();
        place.eventually("the lock is free", || run(&["--once"]).code == Some(0));
    }
}

#[cfg(feature = "full-tests")]
#[test]
fn of_two_that_both_have_the_lock_the_one_whose_note_was_replaced_ends() {
    let place = two(LONG);
    let unlocked = |words: &[&str]| {
        let mut command = place.command(words);
        command.env("LD_PRELOAD", place.library("flock.c"));
        command
    };
    let mut first = place.command(&["run", "-c", "a.yaml"]);
    let mut first = first.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    place.eventually("it is at work", || !place.events("started").is_empty());
    let second = place.daemon_by(unlocked(&["run", "-c", "b.yaml"]));
    place.eventually("the first one ends", || first.try_wait().expect("a child can be asked").is_some());
    let said = Said::new(first.wait_with_output().expect("a child can be waited for"));
    let by = format!("another watchdog (pid {}, configuration {})", second.pid(), place.path("b.yaml").display());
    fits(&place, &["run"], &said, 5, &[&by, " has taken over "]);
    place.told(&by);
    place.demand(place.events("stopped").is_empty(), "what it had is the other one's now");
    place.demand(place.holder() == Some(second.pid()), "the other one stays");
    assert_eq!(second.stop().code(), Some(0), "{}", place.story());

    // A tick, too.
    fs::remove_file(place.path("state/state.json")).expect("it is there");
    let _ = fs::remove_file(place.path("looking"));
    let tick = place.begin(&["--once", "-c", "a.yaml"]);
    place.eventually("it probes", || place.path("looking").exists());
    let third = place.daemon_by(unlocked(&["run", "-c", "b.yaml"]));
    place.write("go", "");
    let said = Said::new(tick.wait_with_output().expect("a child can be waited for"));
    fits(&place, &["--once"], &said, 5, &[" has taken over "]);
    assert_eq!(third.stop().code(), Some(0), "{}", place.story());
}

#[test]
fn where_locks_are_not_to_be_had_check_says_so() {
    let place = two(PEACE);
    let library = place.library("flock.c");
    // No state folder yet, one without a lock file, and one with one; ENOLCK, EOPNOTSUPP and ENOSYS.
    for (number, reason) in [("37", "no locks available"), ("95", "not supported"), ("38", "not implemented")] {
        let run = |words: &[&str]| {
            let mut command = place.command(words);
            Said::new(command.env("LD_PRELOAD", &library).env("FLOCK_ERRNO", number).output().expect("it runs"))
        };
        let said = run(&["check", "--offline", "-c", "a.yaml"]);
        let wrong = format!("PROBLEM     cannot lock {}: ", place.path("state/watchdog.lock").display());
        let told = said.out.contains(&wrong) && said.out.contains(reason) && said.out.contains("Not ready: ");
        place.demand(said.code == Some(1) && told, &format!("{said:?}"));
        let said = run(&["run", "-c", "a.yaml"]);
        fits(&place, &["run"], &said, 4, &["cannot lock ", " (nothing was started)"]);
    }
    let said = place.run(&["check", "--offline", "-c", "a.yaml"]);
    place.demand(said.code == Some(0), &format!("{said:?}"));
}

const NOBODY: u32 = 65_534;
const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// The program as nobody, who may not reach where it was built.
pub(crate) fn as_nobody(place: &Place, words: &[&str]) -> Command {
    let program = place.path("program");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_watchdog"), &program).expect("copied");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("ours");
    }
    let mut command = Command::new(AS_NOBODY[0]);
    command.args(&AS_NOBODY[1..]).arg(&program).args(words).current_dir(place.home()).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", place.home());
    command.stdin(Stdio::null());
    command
}

/// The folder and `a.yaml` are nobody's.
pub(crate) fn nobodys() -> Place {
    need(rustix::process::geteuid().is_root(), "root");
    let place = two(PEACE);
    give(&place, NOBODY);
    place
}

fn give(place: &Place, uid: u32) {
    for path in [place.home(), &place.path("a.yaml")] {
        chown(path, Some(uid), Some(uid)).expect("root may");
    }
}

#[cfg(feature = "full-tests")]
#[test]
fn root_really_stops_another_accounts_watchdog_and_leaves_nothing_in_its_way() {
    let place = nobodys();
    let nobody = |words: &[&str]| Said::new(as_nobody(&place, words).output().expect(NEEDED));
    for round in 0..2 {
        let said = nobody(&["start", "-c", "a.yaml"]);
        place.demand(said.code == Some(0) && said.out.contains("watchdog started"), &format!("{round}: {said:?}"));
        let pid = place.holder().expect("it is at work");
        // What root would leave there its daemon could not take away.
        for words in [&["pause", "-c", "a.yaml"][..], &["start", "-c", "a.yaml"], &["--once", "-c", "a.yaml"]] {
            let said = place.run(words);
            place.demand(said.code.is_some_and(|code| code > 1), &format!("{words:?}: {said:?}"));
        }
        let owned_by_root = place.files_of(0, "state");
        place.demand(owned_by_root.is_empty() && is_alive(pid), &format!("{owned_by_root:?}"));
        let said = place.run(&["stop", "-c", "a.yaml"]);
        let told = said.out.contains(&format!("(pid {pid}) is stopped"));
        place.demand(said.code == Some(0) && told && !is_alive(pid), &format!("{said:?}"));
        let said = nobody(&["start", "--cron", "-c", "a.yaml"]);
        place.demand(said.code == Some(0) && place.holder().is_none(), &format!("left stopped: {said:?}"));
        let said = nobody(&["stop", "-c", "a.yaml"]);
        place.demand(said.code == Some(3), &format!("{said:?}"));
    }
}

#[cfg(feature = "full-tests")]
#[test]
fn whoever_may_not_stop_it_is_told_so() {
    need(rustix::process::geteuid().is_root(), "root");
    let place = two(PEACE);
    fs::set_permissions(place.home(), Permissions::from_mode(0o755)).expect("ours");
    let daemon = place.daemon(&["run", "-c", "a.yaml"]);
    let nobody = |words: &[&str]| Said::new(as_nobody(&place, words).output().expect(NEEDED));
    // Its folder is closed, and nothing can be known of it.
    for verb in ["stop", "pause", "resume", "start", "status"] {
        let said = nobody(&[verb, "-c", "a.yaml"]);
        let told = said.err.contains("permission denied") && said.out.is_empty();
        place.demand(said.code == Some(4) && told, &format!("{verb}: {said:?}"));
    }
    // With a folder that can be read it is seen, and cannot be signalled. The daemon closes it again when it saves.
    let belongs = format!("the watchdog was not stopped: pid {} belongs to root and cannot be signalled", daemon.pid());
    place.eventually("it is told whose it is", || {
        fs::set_permissions(place.path("state"), Permissions::from_mode(0o755)).expect("ours");
        fs::set_permissions(place.path("state/watchdog.lock"), Permissions::from_mode(0o644)).expect("ours");
        let said = nobody(&["stop", "-c", "a.yaml"]);
        said.code == Some(4) && said.err.contains(&belongs) && said.out.is_empty()
    });
    place.demand(!place.path("state/stopped").exists() && is_alive(daemon.pid()), "it was left alone");
}

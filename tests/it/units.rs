//! The unit files: systemd accepts them, and nothing in them harms what a restart command leaves running.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::place::NEEDED;

const PROGRAM: &str = env!("CARGO_BIN_EXE_watchdog");

/// What may stand in a service, because nothing that a restart command leaves running inherits it.
const HARMLESS: [&str; 16] = [
    "Description",
    "After",
    "StartLimitIntervalSec",
    "Type",
    "User",
    "WorkingDirectory",
    "ExecStart",
    "ExecReload",
    "NotifyAccess",
    "WatchdogSec",
    "Restart",
    "RestartSec",
    "KillMode",
    "OOMPolicy",
    "TimeoutStopSec",
    "SuccessExitStatus",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

/// The names of the unit files in `folder`.
fn units(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("the unit files").flatten().filter(|entry| entry.path().is_file());
    names.map(|entry| entry.file_name().into_string().expect("a plain name")).collect()
}

/// Has systemd judge the units of `folder`, with the program that was just built in the place of the installed one.
/// It reports most of what it dislikes with exit code 0, so whatever it says of our units is a failure.
#[track_caller]
fn verify(folder: &Path, manager: &[&str]) {
    let home = tempfile::tempdir().expect("a folder");
    let bin = home.path().join("bin");
    fs::create_dir(&bin).expect("made");
    std::os::unix::fs::symlink(PROGRAM, bin.join("watchdog")).expect("linked");
    let mut verify = Command::new("systemd-analyze");
    verify.args(manager).args(["verify", "--man=no"]).env("HOME", home.path()).env("XDG_RUNTIME_DIR", home.path());
    for name in units(folder) {
        let text = fs::read_to_string(folder.join(&name)).expect("readable");
        let copy = home.path().join(&name);
        fs::write(&copy, text.replace("/usr/local/bin/watchdog", PROGRAM)).expect("written");
        verify.arg(copy);
    }
    let said = verify.output().expect(NEEDED);
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && !words.contains("watchdog-agent"), "{}: {words}", said.status);
}

#[cfg(feature = "full-tests")]
#[test]
fn systemd_accepts_the_units_of_the_system() {
    verify(&folder(), &[]);
}

#[cfg(feature = "full-tests")]
#[test]
fn systemd_accepts_the_units_of_a_user() {
    verify(&folder().join("user"), &["--user"]);
}

#[test]
fn what_a_restart_command_leaves_running_comes_to_no_harm() {
    for folder in [folder(), folder().join("user")] {
        for name in units(&folder).iter().filter(|name| name.ends_with(".service")) {
            let text = fs::read_to_string(folder.join(name)).expect("readable");
            let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            for needed in ["KillMode=process", "OOMPolicy=continue"] {
                assert!(lines.contains(&needed), "{name} lacks {needed}");
            }
            let service = lines.iter().take_while(|line| **line != "[Install]");
            for (key, _) in service.filter_map(|line| line.split_once('=')) {
                assert!(HARMLESS.contains(&key), "{name}: does what a restart command leaves running inherit {key}=?");
            }
        }
    }
}

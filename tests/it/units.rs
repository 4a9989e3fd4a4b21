//! The systemd unit files: systemd accepts them, and no setting in them harms a process that a restart command leaves
//! running.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sandbox::MISSING_PROGRAM;

const PROGRAM: &str = env!("CARGO_BIN_EXE_watchdog");

/// Keys allowed in a service, because a process left by a restart command does not inherit them.
const HARMLESS: [&str; 17] = [
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
    "RestartPreventExitStatus",
    "KillMode",
    "OOMPolicy",
    "TimeoutStopSec",
    "SuccessExitStatus",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

fn units(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("the unit files").flatten().filter(|entry| entry.path().is_file());
    names.map(|entry| entry.file_name().into_string().expect("a plain name")).collect()
}

/// Runs `systemd-analyze verify` on the units of `folder`, with the built program in place of the installed one. It
/// reports most problems with exit code 0, so any output about these units is a failure.
#[track_caller]
fn verify(folder: &Path, manager: &[&str]) {
    let home = tempfile::tempdir().expect("folder access");
    let bin = home.path().join("bin");
    fs::create_dir(&bin).expect("folder created");
    std::os::unix::fs::symlink(PROGRAM, bin.join("watchdog")).expect("linked");
    let mut verify = Command::new("systemd-analyze");
    verify.args(manager).args(["verify", "--man=no"]).env("HOME", home.path()).env("XDG_RUNTIME_DIR", home.path());
    for name in units(folder) {
        let text = fs::read_to_string(folder.join(&name)).expect("readable");
        let copy = home.path().join(&name);
        fs::write(&copy, text.replace("/usr/local/bin/watchdog", PROGRAM)).expect("written");
        verify.arg(copy);
    }
    let output = verify.output().expect(MISSING_PROGRAM);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !stderr.contains("watchdog-agent"), "{}: {stderr}", output.status);
}

#[cfg(feature = "full-tests")]
#[test]
fn systemd_accepts_the_system_units() {
    verify(&folder(), &[]);
}

#[cfg(feature = "full-tests")]
#[test]
fn systemd_accepts_the_user_units() {
    verify(&folder().join("user"), &["--user"]);
}

#[test]
fn processes_left_by_restart_commands_are_not_killed_or_restricted() {
    for folder in [folder(), folder().join("user")] {
        for name in units(&folder).iter().filter(|name| name.ends_with(".service")) {
            let text = fs::read_to_string(folder.join(name)).expect("readable");
            let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            for needed in ["KillMode=process", "OOMPolicy=continue"] {
                assert!(lines.contains(&needed), "{name} lacks {needed}");
            }
            let service = lines.iter().take_while(|line| **line != "[Install]");
            for (key, _) in service.filter_map(|line| line.split_once('=')) {
                assert!(HARMLESS.contains(&key), "{name}: does a process left by a restart command inherit {key}=?");
            }
        }
    }
}

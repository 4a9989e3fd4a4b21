//! Runs one test of this binary in its own process, for tests that need a second process.
//! It must never be used by code that is shipped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const FOLDER: &str = "WATCHDOG_STORE_TEST_FOLDER";

/// The folder that the parent process passed; `None` in an ordinary test run.
pub(super) fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

pub(super) fn command(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
    command.args(["--exact", name, "--nocapture"]).env(FOLDER, folder);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Runs the test `name` with a separate file system mounted at `folder`, which disappears with the child. Panics if
/// the test fails or if this machine does not allow mounts.
#[cfg(feature = "full-tests")]
pub(super) fn run_on_mount(name: &str, folder: &Path, options: &str) {
    let run = |program: &Path, args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c"]);
        command.arg(r#"mount -t tmpfs -o "$2" tmpfs "$1" && shift 2 && exec "$@""#).arg("sh");
        command.arg(folder).arg(format!("mode=0700,{options}")).arg(program).args(args);
        command.env(FOLDER, folder).stdin(Stdio::null()).stdout(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    assert!(run(Path::new("true"), &[]), "this test needs unshare(1) and a mount namespace; see `sh tests/run`");
    let exe = std::env::current_exe().expect("the test binary has a path");
    assert!(run(&exe, &["--exact", name, "--nocapture"]), "{name} failed");
}

/// Waits for `condition`, at most 30 s.
#[track_caller]
pub(super) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("timed out waiting for {what}");
}

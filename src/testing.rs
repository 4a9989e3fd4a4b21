//! Helpers for tests: runs one test again in its own process, if it changes what belongs to the whole process (signals,
//! limits, standard streams); tries a parser on thousands of damaged texts; creates state folders.
//! It must never be used by code that is shipped.

use std::process::{Command, Output};

use tempfile::TempDir;

use crate::mangle::mangled;
use crate::store::{BootClockReading, Folder};
use crate::time::{BootTime, ClockReading, WallTime};

const ISOLATED_VARIABLE: &str = "WATCHDOG_TEST_ALONE";

pub(crate) fn is_alone() -> bool {
    std::env::var_os(ISOLATED_VARIABLE).is_some()
}

/// Runs the test of this full name in a process of its own and panics if it fails there. `through` is a program that
/// executes its arguments, such as `env`, with its own arguments.
#[track_caller]
pub(crate) fn run_alone(test: &str, through: &[&str]) -> Output {
    let own = std::env::current_exe().expect("a test can find its own executable");
    let mut command = Command::new(through[0]);
    command.args(&through[1..]).arg(own).args(["--exact", test, "--nocapture"]).env(ISOLATED_VARIABLE, "1");
    let output = command.output().expect("the program can be started");
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    let all = String::from_utf8_lossy(&all);
    assert!(output.status.success(), "{}\n{all}", output.status);
    assert!(all.contains("1 passed"), "no such test: {test}\n{all}");
    output
}

/// The environment variable of this name, which `tests/run` sets, or else `default`.
pub(crate) fn count(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Runs `FUZZ` times as many rounds if that variable is set, and prints the text on which `check` fails.
pub(crate) fn fuzz(samples: &[&[u8]], rounds: usize, mut check: impl FnMut(&[u8])) {
    let mut dice = fastrand::Rng::with_seed(7);
    for _ in 0..rounds * count("FUZZ", 1) {
        let bytes = ShowOnPanic(mangled(samples[dice.usize(..samples.len())], &mut dice));
        check(&bytes.0);
    }
}

/// A state folder in a temporary folder, which is deleted when it is dropped.
pub(crate) fn temp_state_folder() -> (TempDir, Folder) {
    let scene = tempfile::tempdir().expect("a folder");
    let folder = Folder::open(&scene.path().join("state")).expect("a private folder");
    (scene, folder)
}

/// A reading of both clocks in the boot `boot_id`.
pub(crate) fn boot_clock_reading(now: BootTime, wall: WallTime, boot_id: Option<&str>) -> BootClockReading {
    BootClockReading { at: ClockReading { now, wall }, boot_id: boot_id.map(str::to_owned) }
}

struct ShowOnPanic(Vec<u8>);

impl Drop for ShowOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("on: {}", self.0.escape_ascii());
        }
    }
}

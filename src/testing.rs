//! For tests only: runs one test once more, in a process of its own, for what concerns a whole process (signals,
//! limits, its standard streams); tries a reader on thousands of damaged texts; and makes scenes.

use std::process::{Command, Output};

use tempfile::TempDir;

use crate::mangle::mangled;
use crate::store::{BootClockReading, Folder};
use crate::time::{BootTime, ClockReading, WallTime};

const MARK: &str = "WATCHDOG_TEST_ALONE";

pub(crate) fn is_alone() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Runs the test of this full name alone, by way of `through`: a program that becomes the one it is given, such as
/// `env`, and its arguments. Fails if the test fails there.
#[track_caller]
pub(crate) fn run_alone(test: &str, through: &[&str]) -> Output {
    let own = std::env::current_exe().expect("a test knows its program");
    let mut command = Command::new(through[0]);
    command.args(&through[1..]).arg(own).args(["--exact", test, "--nocapture"]).env(MARK, "1");
    let output = command.output().expect("a program to go through");
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    let all = String::from_utf8_lossy(&all);
    assert!(output.status.success(), "{}\n{all}", output.status);
    assert!(all.contains("1 passed"), "no such test: {test}\n{all}");
    output
}

/// `FUZZ` times as many rounds if that is set; the text on which `check` fails is shown.
pub(crate) fn fuzz(samples: &[&[u8]], rounds: usize, mut check: impl FnMut(&[u8])) {
    let mut dice = fastrand::Rng::with_seed(7);
    let times = std::env::var("FUZZ").map_or(1, |times| times.parse().expect("FUZZ is a number"));
    for _ in 0..rounds * times {
        let bytes = ShowOnPanic(mangled(samples[dice.usize(..samples.len())], &mut dice));
        check(&bytes.0);
    }
}

/// A state folder, in a folder of its own that lasts as long as it is held.
pub(crate) fn scene() -> (TempDir, Folder) {
    let scene = tempfile::tempdir().expect("a folder");
    let folder = Folder::open(&scene.path().join("state")).expect("a folder of our own");
    (scene, folder)
}

/// The moment at which both clocks say this, in this boot.
pub(crate) fn moment(now: BootTime, wall: WallTime, boot_id: Option<&str>) -> BootClockReading {
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

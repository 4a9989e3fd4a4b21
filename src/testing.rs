//! For tests only: runs one test once more, in a process of its own, for what concerns a whole process (signals,
//! limits, its standard streams).

use std::process::{Command, Output};

const MARK: &str = "WATCHDOG_TEST_ALONE";

/// Whether this is that other process.
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

//! The `watchdog` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    watchdog::commands::main()
}

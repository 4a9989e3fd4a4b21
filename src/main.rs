//! The `watchdog` program.

fn main() {}

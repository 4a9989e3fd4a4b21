//! Has the linker put functions that are seldom run apart from the others.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=src/link/order.ld");
    let variable = |name| env::var(name).unwrap_or_default();
    // Some linkers that people choose, such as mold, know no scripts.
    let is_chosen = variable("CARGO_ENCODED_RUSTFLAGS").contains("fuse-ld");
    if variable("PROFILE") == "release" && variable("CARGO_CFG_TARGET_OS") == "linux" && !is_chosen {
        println!("cargo::rustc-link-arg-bins=-T{}/src/link/order.ld", variable("CARGO_MANIFEST_DIR"));
    }
}

//! Makes the linker place rarely used functions apart from the others, which saves memory; `order.ld` lists them.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=src/link/order.ld");
    let variable = |name| env::var(name).unwrap_or_default();
    // Some alternative linkers, such as mold, do not support linker scripts.
    let has_own_linker = variable("CARGO_ENCODED_RUSTFLAGS").contains("fuse-ld");
    if variable("PROFILE") == "release" && variable("CARGO_CFG_TARGET_OS") == "linux" && !has_own_linker {
        println!("cargo::rustc-link-arg-bins=-T{}/src/link/order.ld", variable("CARGO_MANIFEST_DIR"));
    }
}

//! Tells the linker what of the program runs first.
//!
//! Run by cargo before the crate is built. Memory is given to a program's file in windows of 16 pages; the functions that run when it
//! starts would lie in more than half of all windows, and `link/first.ld` puts them into a few. It changes where code stands and nothing
//! else; a linker that does not know such scripts, or a build without optimisation, does without.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=link/first.ld");
    println!("cargo:rerun-if-changed=build.rs");
    let of = |name| env::var(name).unwrap_or_default();
    let flags = of("CARGO_ENCODED_RUSTFLAGS");
    let is_other_linker = ["mold", "gold", "wild"].iter().any(|linker| flags.contains(linker));
    if of("CARGO_CFG_TARGET_OS") == "linux" && of("PROFILE") == "release" && !is_other_linker {
        let script = format!("{}/link/first.ld", of("CARGO_MANIFEST_DIR"));
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{script}");
    }
}

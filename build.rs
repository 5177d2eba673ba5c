//! Tells the linker what of the program runs first.
//!
//! Run by cargo before the crate is built. Memory is given to a program's file in windows of 16 pages; the functions that run when it
//! starts would lie in two thirds of all windows, and `link/first.ld` puts them into a few. It changes where code stands and nothing
//! else; a build without optimisation, or by a linker that does not know such scripts, does without.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=link/first.ld");
    println!("cargo:rerun-if-changed=build.rs");
    let of = |name| env::var(name).unwrap_or_default();
    let linker = of("CARGO_ENCODED_RUSTFLAGS") + &of("RUSTC_LINKER");
    let is_other_linker = ["mold", "gold", "wild"].iter().any(|other| linker.contains(other));
    let script = format!("{}/link/first.ld", of("CARGO_MANIFEST_DIR"));
    // The compiler driver would take what is behind a comma for another argument.
    let has_comma = script.contains(',');
    if of("CARGO_CFG_TARGET_OS") == "linux" && of("PROFILE") == "release" && !is_other_linker && !has_comma {
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{script}");
    }
}

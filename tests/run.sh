#!/usr/bin/env bash
# The one test command: form, lints, documentation, dependencies, a short fuzz run, and all tests. Installs what it needs and
# does not find, into this directory; nothing outside it is changed but the caches of cargo, npm and pip.
#
# Needs Rust with rustfmt and clippy (rust-version in Cargo.toml), a C compiler, node 20 with npm, python3 with venv, and OpenSSH.
set -euo pipefail
cd "$(dirname "$0")/.."
tools="$PWD/target/tools"
export PATH="$tools/bin:$PATH"

step() {
    printf '\n== %s (%d s so far)\n' "$1" "$SECONDS"
}

# has SUBCOMMAND: whether cargo knows it.
has() {
    cargo "$1" --version >/dev/null 2>&1
}

# provide SUBCOMMAND VERSION: installs cargo-SUBCOMMAND if it is missing.
provide() {
    has "$1" || cargo install "cargo-$1" --version "$2" --locked --quiet --root "$tools"
}

step "form"
cargo fmt --check

step "lints"
cargo clippy --locked --all-targets -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet

step "dependencies: licences, bans, sources"
provide deny 0.20.2
cargo deny --locked check --hide-inclusion-graph bans licenses sources

if [ -x fuzz/smoke.sh ]; then
    step "fuzz, a few seconds for each target"
    if cargo +nightly --version >/dev/null 2>&1 || rustup toolchain install nightly --profile minimal; then
        provide fuzz 0.13.2
        fuzz/smoke.sh
    else
        echo "SKIPPED: fuzzing needs the nightly toolchain, and it cannot be installed here"
    fi
fi

if [ -x tests/peers/install.sh ]; then
    step "the real clients and servers that the tests speak to"
    tests/peers/install.sh
fi

step "examples in the documentation of the code"
cargo test --locked --quiet --doc

step "tests"
if has nextest; then
    cargo nextest run --locked --no-fail-fast --status-level fail --final-status-level fail
else
    cargo test --locked --no-fail-fast --lib --bins --tests
fi

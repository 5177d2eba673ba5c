#!/bin/sh
# Runs the fuzz targets of the wire and of the policy for ten seconds (or as many as the first argument says), beginning with the seeds.
# Needs the nightly toolchain and cargo-fuzz; says so, and fails, where one is missing.
set -eu
cd "$(dirname "$0")/.."
seconds="${1:-10}"

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzz/smoke.sh: the nightly toolchain is missing; install it with: rustup toolchain install nightly" >&2
    exit 1
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz/smoke.sh: cargo-fuzz is missing; install it with: cargo install cargo-fuzz" >&2
    exit 1
fi

for target in lines frame policy; do
    # New inputs go to the first folder, which is not kept; the seeds are only read.
    mkdir -p "fuzz/corpus/$target"
    cargo +nightly fuzz run --codegen-units 16 "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=4096 -rss_limit_mb=2048
done

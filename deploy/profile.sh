#!/usr/bin/env bash
# Records flame graphs of Daypass and counts the instructions of its hot paths: `make profile`. Writes into
# target/bench.
set -euo pipefail
cd "$(dirname "$0")/.."
deploy/need.sh perf=linux-perf valgrind=valgrind cc=gcc
version=0.12.8
tools=${XDG_CACHE_HOME:-$HOME/.cache}/daypass/inferno-$version
if ! [ -x "$tools/bin/inferno-flamegraph" ]; then
    echo "building inferno $version; this takes some minutes, but only once"
    cargo install --quiet --locked --root "$tools" "inferno@$version"
fi
export PATH="$tools/bin:$PATH"

# The same code as a release, with symbols, and with frame pointers for perf.
export RUSTFLAGS="-C force-frame-pointers=yes" CARGO_TARGET_DIR=$PWD/target/profile
cargo build --profile profiling -p daypass -p daypass-bench --bins
"$CARGO_TARGET_DIR/profiling/daypass-bench" --profile

program=$(cargo bench --profile profiling -p daypass --bench instructions --no-run 2>&1 |
    sed -n 's/.*Executable .*(\(.*\)).*/\1/p')
# What more repetitions cost, divided by their number: it leaves out the start, and does not depend on the machine.
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$@" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
for path in $("$program"); do
    few=$(count "$path" 100) many=$(count "$path" 1100)
    printf '%-24s %8d instructions\n' "$path" $(((many - few) / 1000))
done | tee target/bench/instructions.txt

#!/usr/bin/env bash
#   test.sh ARGUMENT …   of cargo test
# Runs tests. If three of those against a real cluster fail, or fewer, they run once more, alone: on a machine that is
# much too busy a test can wait in vain. Those that pass then are named; one that fails again has failed.
set -euo pipefail
cargo=${CARGO:-cargo}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

"$cargo" test --no-fail-fast "$@" 2>&1 | tee "$log" && exit
# cargo lists the programs that failed; each program lists its tests at its end.
program=$(sed -n 's/^    `\(.*\)`$/\1/p' "$log")
[[ $program =~ ^-p\ daypass\ --test\ (it|node)$ ]] || exit 1
mapfile -t failed < <(awk '/^failures:$/ { list = "" } /^    [a-z0-9_:]+$/ { list = list $1 "\n" }
    /^test result: FAILED/ { printf "%s", list }' "$log")
grep -q "^test result: FAILED.*; ${#failed[@]} failed;" "$log" || exit 1
[ ${#failed[@]} -le 3 ] || exit 1
echo "once more, alone: ${failed[*]}"
RUST_TEST_THREADS=1 "$cargo" test -p daypass --test "${BASH_REMATCH[1]}" -- --exact "${failed[@]}" 2>&1 | tee "$log"
grep -q "^test result: ok. ${#failed[@]} passed;" "$log" || exit 1
printf '\nFAILED ONCE, and passed alone: %s\n' "${failed[*]}"

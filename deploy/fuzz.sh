#!/usr/bin/env bash
#   fuzz.sh SECONDS    tries each target of daypass::fuzz for so long, from the corpus in fuzz/corpus on: `make fuzz`
# What breaks a promise is left in fuzz/artifacts. Put it into the corpus, which `make test` replays, with the fix.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1
version=0.13.2
tools=${XDG_CACHE_HOME:-$HOME/.cache}/daypass/cargo-fuzz-$version
if ! [ -x "$tools/bin/cargo-fuzz" ]; then
    echo "building cargo-fuzz $version, once"
    cargo install --quiet --locked --root "$tools" "cargo-fuzz@$version"
fi
export PATH="$tools/bin:$PATH"
# The crates that Daypass is built of, not newer ones.
cp Cargo.lock fuzz/
for corpus in fuzz/corpus/*; do
    target=${corpus##*/}
    found=target/fuzz/$target
    mkdir -p "$found" "fuzz/artifacts/$target"
    echo "== $target"
    # Without a sanitizer, the stable compiler will do.
    FUZZ_TARGET=$target cargo fuzz run --fuzz-dir fuzz --sanitizer none any "$found" "$corpus" -- \
        -max_total_time="$seconds" -max_len=131072 -timeout=10 -print_final_stats=1 \
        -artifact_prefix="$PWD/fuzz/artifacts/$target/"
done

#!/usr/bin/env bash
#   fuzz.sh SECONDS    fuzzes each target of daypass::fuzz for this long, starting from fuzz/corpus: `make fuzz`
# Saves failing inputs in fuzz/artifacts, lists them at the end, and fails. Commit such an input to fuzz/corpus with
# the fix. `make test` replays the corpus.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1
version=0.13.2
tools=${XDG_CACHE_HOME:-$HOME/.cache}/daypass/cargo-fuzz-$version
if ! [ -x "$tools/bin/cargo-fuzz" ]; then
    echo "building cargo-fuzz $version; this takes some minutes, but only once"
    cargo install --quiet --locked --root "$tools" "cargo-fuzz@$version"
fi
export PATH="$tools/bin:$PATH"
# libFuzzer ends normally on Ctrl-C. Without this, the script would go on to the next target.
trap 'exit 130' INT

# Build with the dependencies of Daypass, not with newer ones.
cp Cargo.lock fuzz/
host=$(rustc -vV | sed -n 's/^host: //p')
# The stable compiler suffices without a sanitizer.
cargo fuzz build --fuzz-dir fuzz --target "$host" --target-dir fuzz/target --sanitizer none any
fuzzer=fuzz/target/$host/release/any

failed=()
inputs=()
for corpus in fuzz/corpus/*; do
    target=${corpus##*/}
    found=target/fuzz/$target artifacts=fuzz/artifacts/$target log=target/fuzz/$target.log
    mkdir -p "$found" "$artifacts"
    touch target/fuzz/started
    printf '%-15s' "$target"
    # libFuzzer adds new inputs to the first folder. The last folder makes it retry inputs that failed before.
    if FUZZ_TARGET=$target "$fuzzer" -max_total_time="$seconds" -max_len=131072 -timeout=10 -print_final_stats=1 \
        -artifact_prefix="$artifacts/" "$found" "$corpus" "$artifacts" > "$log" 2>&1; then
        sed -n 's/^stat::number_of_executed_units: *\(.*\)/ok, tried \1 inputs/p' "$log"
    else
        echo "FAILED, see $log:"
        grep -A 1 -e 'panicked at' -e 'ERROR: libFuzzer' "$log" || tail -n 30 "$log"
        failed+=("$target")
        for input in $(find "$artifacts" -type f -newer target/fuzz/started); do
            inputs+=("FUZZ_TARGET=$target $fuzzer $input")
        done
    fi
done
[ ${#failed[@]} -gt 0 ] || exit 0
{
    echo "failed: ${failed[*]}"
    if [ ${#inputs[@]} -gt 0 ]; then
        echo "Run the failing inputs again with:"
        printf '  %s\n' "${inputs[@]}"
    fi
} >&2
exit 1

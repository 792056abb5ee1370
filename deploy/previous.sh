#!/usr/bin/env bash
# Builds the program and the chart of the version before this one, once, for the test of an upgrade: `make previous`.
# Prints their folder, which has `daypass` and `chart/`.
set -euo pipefail
cd "$(dirname "$0")/.."
# v0.1.0. By its commit: a clone may lack the tag.
commit=b1aa3fb5b3ad4fe822741d8a0b63700f040fa229
version=0.1.0
cache=${XDG_CACHE_HOME:-$HOME/.cache}/daypass
folder=$cache/previous-$version-${commit:0:12}
if ! [ -d "$folder" ]; then
    echo "building daypass $version; this takes some minutes, but only once" >&2
    mkdir -p "$cache"
    # Built elsewhere and renamed, so that the folder is complete if it exists.
    work=$(mktemp -d "$cache/.building-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/source" "$work/result"
    git archive "$commit" | tar -x -C "$work/source"
    CARGO_TARGET_DIR=$work/target CARGO_INCREMENTAL=0 \
        cargo build --quiet --locked --bin daypass --manifest-path "$work/source/Cargo.toml" >&2
    cp "$work/target/debug/daypass" "$work/result/"
    cp -r "$work/source/deploy/charts/daypass" "$work/result/chart"
    mv -T "$work/result" "$folder" || [ -d "$folder" ]
fi
echo "$folder"

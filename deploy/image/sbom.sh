#!/usr/bin/env bash
# Writes the program's software bill of materials: its crates, from Cargo.lock, as CycloneDX.
#   sbom.sh TARGET FILE
set -euo pipefail
target=$1 file=$(realpath -m "$2")
cd "$(dirname "$0")/../.."
version=0.5.9
tools=${XDG_CACHE_HOME:-$HOME/.cache}/daypass/cargo-cyclonedx-$version
[ -x "$tools/bin/cargo-cyclonedx" ] ||
    RUSTFLAGS='' CFLAGS='' cargo install --quiet --locked --root "$tools" "cargo-cyclonedx@$version"
# It writes beside each Cargo.toml. With SOURCE_DATE_EPOCH set it omits what changes each time.
name=daypass-$$.cdx
trap 'rm -f "$name.json" "bench/$name.json" "deploy/local/$name.json"' EXIT
"$tools/bin/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 --target "$target" --no-build-deps \
    --override-filename "$name"
mkdir -p "$(dirname "$file")"
# Remove the build folder's path: it differs each time. cargo adds the package's name if the folder has another.
sed -e "s|path+file://$PWD#daypass@|path+file://$PWD#|g" -e "s|path+file://$PWD|path+file:///daypass|g" \
    "$name.json" > "$file"

#!/usr/bin/env bash
# Builds the image: `make image`. The same commit gives the same digest in any folder (`make image-check`).
#   build.sh FOLDER   writes daypass.tar (an OCI archive), daypass.cdx.json (its SBOM), digest, and daypass (the
#                     program, static) into FOLDER
set -euo pipefail
out=$(realpath -m "$1")
cd "$(dirname "$0")/../.."
deploy/need.sh buildah=buildah git=git tar=tar cc=gcc

target=$(rustc -vV | sed -n 's/^host: //p')
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
revision=$(git rev-parse HEAD)
if [ -n "$(git status --porcelain)" ]; then
    revision=$revision-dirty
    echo "not committed: the image is marked $revision" >&2
fi
# The time of every file in the image.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)

# Panic messages and the C code would put paths of this machine into the program: replace them by names.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
sysroot=$(rustc --print sysroot)
remap="--remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$sysroot=/rust --remap-path-prefix=$PWD=/daypass"
export CFLAGS="-ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$PWD=/daypass"
# Static, so that the image needs no C library. Only with --target do these flags leave build scripts and macros alone.
export RUSTFLAGS="-C target-feature=+crt-static $remap"
# The same date for C code in every commit: a new one would recompile that code and all that needs it.
SOURCE_DATE_EPOCH=1 cargo build --release --locked --bin daypass --target "$target"
metadata=$(cargo metadata --format-version 1 --no-deps --locked)
built=$(sed 's/.*"target_directory":"\([^"]*\)".*/\1/' <<< "$metadata")/$target/release/daypass

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
install -m 0555 "$built" "$context/daypass"
mkdir -p "$out"
# Temporary storage: the machine's own container storage is neither needed nor changed.
store() { buildah --storage-driver vfs --root "$context/storage" --runroot "$context/run" "$@"; }
label() { labels+=(--label "org.opencontainers.image.$1=$2"); }
label title daypass
label description "Day passes to Kubernetes clusters, for temporary members that end by themselves, on time"
label version "$version"
label revision "$revision"
label created "$created"
label licenses Apache-2.0
store bud --quiet --isolation chroot --format oci --timestamp "$SOURCE_DATE_EPOCH" "${labels[@]}" \
    --file deploy/image/Containerfile --tag "localhost/daypass:$version" "$context" > "$context/id"
store push --quiet --digestfile "$context/digest" \
    "localhost/daypass:$version" "oci:$context/layout:localhost/daypass:$version"
# An archive by buildah would carry the time of packing.
tar --create --file "$out/daypass.tar" --directory "$context/layout" --sort=name --format=ustar \
    --owner=0 --group=0 --numeric-owner --mode=u+rw,go=r,a+X --mtime "@$SOURCE_DATE_EPOCH" .
deploy/image/sbom.sh "$target" "$out/daypass.cdx.json"
install -m 0755 "$built" "$out/daypass"
cp "$context/digest" "$out/digest"
printf '\n' >> "$out/digest"
echo "localhost/daypass:$version  $(cat "$out/digest")"
echo "$out/daypass.tar  $(stat -c %s "$out/daypass.tar") bytes"
echo "$out/daypass.cdx.json"

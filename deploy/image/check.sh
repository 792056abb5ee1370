#!/usr/bin/env bash
# Checks the claims about the image: `make image-check`.
#   check.sh FOLDER   where build.sh has put it, built from the current commit
set -euo pipefail
folder=$(realpath "$1")
cd "$(dirname "$0")/../.."
deploy/need.sh readelf=binutils
limit=25000000
fail() { echo "the image: $*" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/layout" "$work/root"
tar -xf "$folder/daypass.tar" -C "$work/layout"
blob() { echo "$work/layout/blobs/${1/://}"; }
manifest=$(blob "$(cat "$folder/digest")")
mapfile -t digests < <(grep -o 'sha256:[0-9a-f]*' "$manifest")
config=$(blob "${digests[0]}")
for layer in "${digests[@]:1}"; do
    tar -tvf "$(blob "$layer")" >> "$work/files"
    tar -xf "$(blob "$layer")" -C "$work/root"
done

# One file: no shell, no library, no package.
[ "$(awk '{print $1, $2, $NF}' "$work/files")" = '-r-xr-xr-x 0/0 daypass' ] ||
    fail "it holds more than the program: $(cat "$work/files")"
readelf --wide --program-headers "$work/root/daypass" > "$work/headers"
! grep -q INTERP "$work/headers" || fail 'the program is not static'
! readelf --wide --dynamic "$work/root/daypass" | grep NEEDED || fail 'the program needs libraries'
# It names no path of this machine.
! grep -aqF -e "$PWD" -e "${CARGO_HOME:-$HOME/.cargo}" "$work/root/daypass" ||
    fail 'the program names folders of this machine'
size=$(stat -c %s "$work/root/daypass")
[ "$size" -lt $limit ] || fail "$size bytes, $limit are allowed"
grep -q '"User":"65532:65532"' "$config" || fail 'its user is not 65532'
for label in title description version revision created licenses; do
    grep -q "\"org.opencontainers.image.$label\":\"[^\"]" "$config" || fail "it has no label $label"
done
# CycloneDX, with the program and its crates.
grep -q '"bomFormat": "CycloneDX"' "$folder/daypass.cdx.json" || fail 'its SBOM is not CycloneDX'
parts=$(grep -c '"purl": "pkg:cargo/' "$folder/daypass.cdx.json")
[ "$parts" -gt 100 ] || fail "its SBOM has $parts parts"
echo "$size bytes, one static program, user 65532, $parts parts in the SBOM"

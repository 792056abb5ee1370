#!/usr/bin/env bash
# Makes what a release publishes from the current commit: `make dist`. The same commit gives the same files in any
# folder (`make dist-check`).
#   dist.sh IMAGE FOLDER   IMAGE is where deploy/image/build.sh has put the image; FOLDER gets the release
set -euo pipefail
image=$(realpath "$1") out=$(realpath -m "$2")
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
for field in version appVersion; do
    chart=$(sed -n "s/^$field: //p" deploy/charts/daypass/Chart.yaml)
    [ "$chart" = "$version" ] || { echo "the chart has $field $chart, the program $version" >&2; exit 1; }
done
case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) arch=$(uname -m) ;;
esac
epoch=$(git log -1 --format=%ct)
rm -rf "$out"
mkdir -p "$out"
# pack ARCHIVE FOLDER NAME: everything with the commit's time and no owner.
pack() {
    tar --create --directory "$2" --sort=name --format=ustar --owner=0 --group=0 --numeric-owner \
        --mode=u+rw,go=rX,a+X --mtime "@$epoch" "$3" | gzip -n9 > "$out/$1"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
name=daypass-$version-linux-$arch
mkdir -p "$work/$name/completions" "$work/$name/man/man1"
cp "$image/daypass" LICENSE "$work/$name/"
for shell in bash zsh fish powershell; do
    "$image/daypass" completions "$shell" > "$work/$name/completions/daypass.$shell"
done
"$image/daypass" man "$work/$name/man/man1"
pack "$name.tar.gz" "$work" "$name"

# Only what git knows, as `helm package` would take it. helm itself would write the time of packing.
git ls-files -z deploy/charts/daypass | xargs -0 cp --parents -t "$work"
pack "daypass-$version.tgz" "$work/deploy/charts" daypass

cp "$image/daypass.tar" "$out/$name.oci.tar"
cp "$image/daypass.cdx.json" "$out/$name.cdx.json"
(cd "$out" && sha256sum -- * > "$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
deploy/provenance.py "$out/SHA256SUMS" "$version" "$(cat "$image/digest")" > "$out/daypass-$version-$arch.intoto.json"
cat "$out/SHA256SUMS"
echo "$out"

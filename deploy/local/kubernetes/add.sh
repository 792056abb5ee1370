#!/usr/bin/env bash
# Adds a Kubernetes release as v<major>.<minor>, or moves that folder to another patch: add.sh v1.36.3
# Everything comes from the release's own go.mod: its Go version, its etcd and its list of staging modules.
set -euo pipefail
cd "$(dirname "$0")"

release=${1:?usage: add.sh v<major>.<minor>.<patch>}
[[ $release =~ ^v1\.[0-9]+\.[0-9]+$ ]] || { echo "not a Kubernetes release: $release" >&2; exit 1; }
minor=${release%.*}
staging=v0.${release#v1.}
# The node programs belong to newer folders: a node of an older release is not tried.
imports=v1.37/imports.go

# Outside of any module, so that only this release is asked for. -json prints why it failed, too.
answer=$(cd / && GOWORK=off go mod download -json "k8s.io/kubernetes@$release") || { echo "$answer" >&2; exit 1; }
upstream=$(sed -n 's/.*"GoMod": "\(.*\)",/\1/p' <<< "$answer")
etcd=$(awk '$1 == "go.etcd.io/etcd/server/v3" { print $2 }' "$upstream")

# Made elsewhere and moved: a folder that exists is complete. Without go.sum and indirect requirements, so that
# nothing of another release leaks in.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$([[ -f $minor/imports.go ]] && echo "$minor/imports.go" || echo "$imports")" "$work/"
{
    printf 'module daypass.dev/local/kubernetes/%s\n\n' "$minor"
    grep '^go ' "$upstream"
    grep '^godebug ' "$upstream" | sed '1s/^/\n/' || true
    printf '\nrequire (\n\tgo.etcd.io/etcd/server/v3 %s\n\tk8s.io/kubernetes %s\n)\n\n' "$etcd" "$release"
    cat << 'COMMENT'
// Kubernetes builds its staging modules from its own tree; elsewhere they are the published ones of the same
// release.
COMMENT
    printf 'replace (\n'
    # Both as a block and as single lines.
    awk -v version="$staging" \
        '/=> \.\/staging\// { sub(/^replace /, ""); print "\t" $1 " => " $1 " " version }' "$upstream"
    printf ')\n'
} > "$work/go.mod"
(cd "$work" && GOWORK=off go mod tidy)
mkdir -p "$minor"
cp "$work/go.mod" "$work/go.sum" "$work/imports.go" "$minor/"

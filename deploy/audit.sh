#!/usr/bin/env bash
#   audit.sh            checks Daypass's dependencies by deny.toml: `make audit`
#   audit.sh offline    the same, with no network beyond the crate registry
# Offline, the RustSec advisory database comes from an archive (.tar.gz): the one that RUSTSEC_ARCHIVE names, or the
# newest ../shared/data/rustsec-advisories-*.tar.gz. Without one, known vulnerabilities are not checked.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
tools=${XDG_CACHE_HOME:-$HOME/.cache}/daypass/cargo-deny-$version
if ! [ -x "$tools/bin/cargo-deny" ]; then
    echo "building cargo-deny $version, once; this takes some minutes"
    cargo install --quiet --locked --root "$tools" "cargo-deny@$version"
fi
deny() { "$tools/bin/cargo-deny" --workspace --locked "$@"; }
if [ "${1-}" != offline ]; then
    deny check
    exit
fi

newest() { find ../shared/data -name 'rustsec-advisories-*.tar.gz' 2> /dev/null | sort | tail -n 1 || true; }
archive=${RUSTSEC_ARCHIVE-$(newest)}
if [ -z "$archive" ]; then
    deny check bans licenses sources
    echo 'NOT CHECKED: known vulnerabilities. Set RUSTSEC_ARCHIVE to a copy of the database, or run: make audit'
    exit
fi
echo "known vulnerabilities as of $(basename "$archive")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# cargo-deny accepts only a git repository, by a URL with a host: make git read this one instead.
url=https://rustsec.invalid/advisory-db
mkdir "$work/advisory-db" "$work/clones"
tar -xzf "$archive" -C "$work/advisory-db"
git -C "$work/advisory-db" init --quiet --initial-branch=main
git -C "$work/advisory-db" add --all
git -C "$work/advisory-db" -c user.name=audit -c user.email=audit@localhost \
    commit --quiet --message "$(basename "$archive")"
sed "/^\[advisories\]/a db-urls = [\"$url\"]\ndb-path = \"$work/clones\"" deny.toml > "$work/deny.toml"
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.file://$work/advisory-db.insteadOf" GIT_CONFIG_VALUE_0=$url
deny --config "$work/deny.toml" check

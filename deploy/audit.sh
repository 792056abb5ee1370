#!/usr/bin/env bash
# Checks what Daypass is built of, by deny.toml: `make audit`. `audit.sh offline` leaves out the one check that needs the network beyond the
# crate registry, that for known vulnerabilities.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
tools=${XDG_CACHE_HOME:-$HOME/.cache}/daypass/cargo-deny-$version
if ! [ -x "$tools/bin/cargo-deny" ]; then
    echo "building cargo-deny $version, once; this takes some minutes"
    cargo install --quiet --locked --root "$tools" "cargo-deny@$version"
fi
deny() { "$tools/bin/cargo-deny" --workspace --locked "$@"; }
if [ "${1-}" = offline ]; then
    deny check bans licenses sources
    echo 'NOT CHECKED: known vulnerabilities. The RustSec advisory database is a git repository; where it can be reached, run: make audit'
else
    deny check
fi

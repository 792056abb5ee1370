#!/usr/bin/env bash
#   need.sh PROGRAM=PACKAGE …   (PROGRAM may be a path, of a library too)
# Installs missing packages on Debian or Ubuntu as root. Elsewhere it lists them and fails.
set -euo pipefail
missing=()
for pair in "$@"; do
    command -v "${pair%%=*}" > /dev/null || [[ $pair == /* && -f ${pair%%=*} ]] || missing+=("${pair#*=}")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "missing: ${missing[*]} (Debian, Ubuntu: apt-get install ${missing[*]})" >&2
    exit 3
fi
echo "installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
{ apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } > /dev/null

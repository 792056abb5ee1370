#!/usr/bin/env bash
#   need.sh PROGRAM=PACKAGE …   (a path is taken for one)
# Installs what is missing where that is possible, on Debian or Ubuntu as root. Else it says what is missing, and fails.
set -euo pipefail
missing=()
for pair in "$@"; do
    command -v "${pair%%=*}" > /dev/null || missing+=("${pair#*=}")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "missing: ${missing[*]} (Debian, Ubuntu: apt-get install ${missing[*]})" >&2
    exit 3
fi
echo "installing ${missing[*]}" >&2
{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } > /dev/null

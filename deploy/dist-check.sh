#!/usr/bin/env bash
# Checks a release before it is published: `make dist-check`.
#   dist-check.sh FOLDER   where dist.sh has put it, made from the current commit
# DIST_REBUILD=no leaves out building it again.
set -euo pipefail
folder=$(realpath "$1")
cd "$(dirname "$0")/.."
fail() { echo "the release: $*" >&2; exit 1; }
only() { [ $# = 1 ] && [ -f "$1" ] || fail "not one file: $*"; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

(cd "$folder" && sha256sum --quiet --check SHA256SUMS)
program=("$folder"/daypass-*-linux-*.tar.gz)
only "${program[@]}"
tar -xzf "${program[0]}" --directory "$work" --strip-components=1
version=$("$work/daypass" --version)
[[ $(basename "${program[0]}") == "daypass-${version#daypass }-linux-"* ]] || fail "the program is $version"
bash -n "$work/completions/daypass.bash" || fail 'bash cannot read its completions'
for page in daypass daypass-token-create; do
    grep -q '^\.TH ' "$work/man/man1/$page.1" || fail "no man page $page.1"
done
# Every file is in the provenance, and the provenance is JSON.
python3 - "$folder" << 'PROVENANCE' || fail 'its provenance names other files'
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
(statement,) = folder.glob("*.intoto.json")
subjects = {it["name"]: it["digest"]["sha256"] for it in json.loads(statement.read_text())["subject"]}
sums = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines())
files = {path.name for path in folder.iterdir()} - {statement.name, "SHA256SUMS"}
sys.exit(0 if files == set(sums) and sums.items() <= subjects.items() else 1)
PROVENANCE
chart=("$folder"/daypass-*.tgz)
only "${chart[@]}"
"${HELM:?}" template daypass "${chart[0]}" --set dataPlane.id=x,dataPlane.server=https://x,server.publicUrl=https://y \
    --set image.repository=x > "$work/rendered" || fail 'helm cannot render the chart'
diff <("$work/daypass" crds members) <(tar -xzOf "${chart[0]}" daypass/files/members.yaml) ||
    fail 'chart and program have different CRDs'

if [ "${DIST_REBUILD-}" = no ]; then
    echo 'NOT CHECKED: whether it builds reproducibly (DIST_REBUILD=no)' >&2
    exit 0
fi
# The same commit, in another folder, from scratch.
if [ -n "$(git status --porcelain)" ]; then
    [ -z "${CI-}" ] || fail 'files are not committed'
    echo 'NOT CHECKED: whether it builds reproducibly. Commit your changes: only a commit can be built elsewhere.' >&2
    exit 0
fi
git clone --quiet --no-local . "$work/elsewhere/daypass"
echo 'building it again in another folder'
(
    cd "$work/elsewhere/daypass"
    unset CARGO_TARGET_DIR
    deploy/image/build.sh ../image
    deploy/dist.sh ../image ../again
)
diff -r "$folder" "$work/elsewhere/again" || fail 'it differs when built elsewhere'
echo "built twice, the same: $(wc -l < "$folder/SHA256SUMS") files"

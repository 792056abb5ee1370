#!/usr/bin/env python3
"""Prints the provenance of a release: an in-toto statement with SLSA's predicate (https://slsa.dev/provenance/v1).

    provenance.py SHA256SUMS VERSION DIGEST    DIGEST is the image's, sha256:…

It holds no time and no machine, so the same commit gives the same statement. Whoever builds signs it.
"""

import json
import pathlib
import subprocess
import sys


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main():
    sums, version, digest = sys.argv[1:]
    lines = [line.split(maxsplit=1) for line in pathlib.Path(sums).read_text().splitlines()]
    subjects = [{"name": name, "digest": {"sha256": sha256}} for sha256, name in lines]
    subjects.append({"name": f"daypass:{version}", "digest": {"sha256": digest.removeprefix("sha256:")}})
    commit = output("git", "rev-parse", "HEAD")
    if output("git", "status", "--porcelain"):
        commit += "-dirty"
    lock = output("sha256sum", "Cargo.lock").split()[0]
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://daypass.dev/make-dist/v1",
                "externalParameters": {"target": "make dist", "version": version},
                "internalParameters": {"rustc": output("rustc", "--version"), "cc": output("cc", "-dumpfullversion")},
                "resolvedDependencies": [
                    {"name": "daypass", "digest": {"gitCommit": commit}},
                    {"name": "Cargo.lock", "digest": {"sha256": lock}},
                ],
            },
            "runDetails": {"builder": {"id": "https://daypass.dev/make-dist/v1"}},
        },
    }
    json.dump(statement, sys.stdout, indent=2)
    print()


main()

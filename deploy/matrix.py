#!/usr/bin/env python3
"""Runs the integration tests on one Kubernetes version after the other, and writes the table of docs/kubernetes.md.

    matrix.py [v1.30 …]    these folders of deploy/local/kubernetes, all without arguments
    MATRIX_TESTS=short     only the tests of `make test-short`
    MATRIX_TESTS="a b"     only tests whose names contain one of these

A version's row is rewritten when it has run, so a run that was broken off keeps the others. Fails if a test fails.
"""

import datetime
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODULES = ROOT / "deploy/local/kubernetes"
PAGE = ROOT / "docs/kubernetes.md"
START, END = "<!-- Written by make test-matrix: -->", "<!-- End of the table. -->"
HEADER = "| Kubernetes | etcd | integration tests | passed | on |\n|---|---|---|---|---|"
RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed;", re.MULTILINE)


def required(minor, module):
    """The version of a module that a folder's go.mod requires."""
    go_mod = (MODULES / minor / "go.mod").read_text()
    return re.search(rf"^\s*(?:require )?{re.escape(module)} (\S+)", go_mod, re.MULTILINE)[1]


def run(minor, tests):
    """Runs the tests on a version. Returns how many passed and failed."""
    command = ["cargo", "test", "--test", "it", "--", *tests]
    environment = {**os.environ, "KUBERNETES_VERSION": minor}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        output = ""
        for line in process.stdout:
            print(line, end="", flush=True)
            output += line
    result = RESULT.search(output)
    if result is None:
        sys.exit(f"{minor}: the tests did not run")
    return int(result[1]), int(result[2])


def write(row):
    """Replaces a version's row in the page's table, or adds it. The newest version comes first."""
    before, rest = PAGE.read_text().split(START)
    table, after = rest.split(END)
    minor = row.split(".")[1]
    rows = [line for line in table.splitlines() if line.startswith("| 1.") and line.split(".")[1] != minor]
    rows = sorted([*rows, row], key=lambda line: int(line.split(".")[1]), reverse=True)
    PAGE.write_text(f"{before}{START}\n{HEADER}\n" + "\n".join(rows) + f"\n{END}{after}")


def main():
    minors = sys.argv[1:] or sorted(path.name for path in MODULES.iterdir() if path.is_dir())
    asked = os.environ.get("MATRIX_TESTS", "")
    tests = (os.environ["SHORT_TESTS"] if asked == "short" else asked).split()
    chosen = "`make test-short`" if asked == "short" else " ".join(f"`{test}`" for test in tests) or "all"
    failed = []
    for minor in minors:
        kubernetes = required(minor, "k8s.io/kubernetes").removeprefix("v")
        etcd = required(minor, "go.etcd.io/etcd/server/v3").removeprefix("v")
        print(f"== Kubernetes {kubernetes}", flush=True)
        passed, failures = run(minor, tests)
        today = datetime.date.today().isoformat()
        write(f"| {kubernetes} | {etcd} | {chosen} | {passed} of {passed + failures} | {today} |")
        failed += [f"{kubernetes}: {failures}"] if failures else []
    if failed:
        sys.exit("failed tests: " + ", ".join(failed))


main()

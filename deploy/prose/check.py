"""Checks the text of every file that git tracks: line length, rows of tables, and phrases that a native speaker would
not use.

    check.py [FILE …]    these files only

A line may have 119 columns, or one word that cannot be broken. phrases.txt lists the phrases, one a line: a regular
expression, a tab, and what to write instead. A paragraph is searched as a whole, so a phrase may run over two lines.
"""

import pathlib
import re
import subprocess
import sys

MAX_COLUMNS, LONG_WORD = 119, 80
ROOT = pathlib.Path(__file__).resolve().parents[2]
SUFFIXES = set(".css .go .html .js .md .mjs .pl .py .rs .sh .toml .tpl .txt .yaml .yml".split())
NAMES = {"Containerfile", "Makefile", "run"}
# Written by programs, or copied from what programs print.
GENERATED = re.compile(r"crds/|deploy/charts/daypass/files/(members|accesstokens)\.yaml|fuzz/corpus/|.*/snapshots/")
OUTPUT = re.compile(r"<!-- transcript: begin -->.*?<!-- transcript: end -->", re.S)
# What stands before the words of a comment, a list or a quote.
MARGIN = re.compile(r"^\s*(?://[/!]?|#|\*|>|-)?\s*")


def phrases():
    for line in (ROOT / "deploy/prose/phrases.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern, instead = line.split("\t")
            yield re.compile(pattern.replace(" ", r"\s+"), re.I), instead


def files(names):
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in names or tracked.split("\0"):
        path = ROOT / name
        if (path.suffix in SUFFIXES or path.name in NAMES) and not GENERATED.match(name) and path.is_file():
            yield name, path.read_text()


def faults(name, text, rules):
    """(line number, what is wrong) of each fault."""
    # Output keeps its line breaks, so that line numbers stay true.
    text = OUTPUT.sub(lambda match: "\n" * match[0].count("\n"), text)
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_COLUMNS and max(map(len, line.split())) < LONG_WORD:
            yield number, f"{len(line)} columns, {MAX_COLUMNS} are allowed"
        if name.endswith(".md") and line.startswith("|") and not line.endswith("|"):
            yield number, "a row of a table must be one line, or it is two rows"
    words = "\n".join(MARGIN.sub("", line) for line in lines)
    for pattern, instead in rules:
        for match in pattern.finditer(words):
            found = " ".join(match[0].split())
            yield words.count("\n", 0, match.start()) + 1, f"“{found}”: {instead}"


def main():
    rules, failed = list(phrases()), 0
    for name, text in files(sys.argv[1:]):
        if name == "deploy/prose/phrases.txt":
            continue
        for number, fault in sorted(faults(name, text, rules)):
            print(f"{name}:{number}: {fault}")
            failed += 1
    if failed:
        sys.exit(f"{failed} faults. Each hint is a suggestion: say it as you would to a colleague.")


if __name__ == "__main__":
    main()

"""Writes what is made of values.yaml: the list in the chart's README, and the defaults that templates fall back to.

Needs only Python.
"""

import pathlib
import re
import sys
import textwrap

CHART = pathlib.Path(__file__).resolve().parent / "daypass"
# Values without such a default: null removes what Helm removes.
REMOVABLE = ("roles", "resources", "topologySpreadConstraints")
BEGIN, END = "<!-- values: written by `make generate` -->\n", "<!-- end of values -->\n"


class Value:
    """A key of values.yaml, with the comment right above it and the keys right below it."""

    def __init__(self, path, comment, default):
        self.path, self.comment, self.default, self.children = path, comment, default, []

    def described(self):
        """The keys below it that are values of their own: all, or none if it is a value as a whole."""
        described = [child for child in self.children if child.comment]
        if described and len(described) < len(self.children):
            missing = [child.path for child in self.children if not child.comment]
            sys.exit(f"values.yaml: no comment above {', '.join(missing)}")
        return described

    def items(self, indent=""):
        """This value and those below it, as items of a Markdown list."""
        # Examples and lists are for those who edit values.yaml.
        text = re.split(r"\n(?:- |  )", self.comment)[0].replace("\n", " ")
        if self.described():
            name = f"**`{self.path}`**"
        elif text.startswith("Required. "):
            name, text = f"`{self.path}` (*required*)", text.removeprefix("Required. ")
        else:
            name = f"`{self.path}`" + (f" (`{self.default}`)" if self.default else "")
        yield textwrap.fill(
            f"{name}: {text}",
            119,
            initial_indent=f"{indent}- ",
            subsequent_indent=f"{indent}  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for child in self.described():
            yield from child.items(indent + "  ")


def read(text):
    """The values at the top level."""
    root = Value("", "values", "")
    parents, comment = [(-1, root)], []
    for line in text.splitlines():
        key = re.match(r"( *)([A-Za-z_][-\w]*):(?: +([^#&*].*))?$", line)
        if line.lstrip().startswith("#"):
            comment.append(line.lstrip()[1:].removeprefix(" "))
            continue
        if key:
            indent = len(key[1])
            while parents[-1][0] >= indent:
                parents.pop()
            parent = parents[-1][1]
            value = Value(f"{parent.path}.{key[2]}".lstrip("."), "\n".join(comment), key[3] or "")
            parent.children.append(value)
            parents.append((indent, value))
        comment = []
    return root.described()


def defaults(text):
    """values.yaml for files/, where templates can read it: without comments and REMOVABLE."""
    removed = False
    yield "# Written by `make generate`.\n"
    for line in text.splitlines(keepends=True):
        if key := re.match(r"\w+", line):
            removed = key[0] in REMOVABLE
        if not removed and line.strip() and not line.lstrip().startswith("#"):
            yield line


def main():
    readme = CHART / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    values = (CHART / "values.yaml").read_text()
    (CHART / "files/defaults/values.yaml").write_text("".join(defaults(values)))
    items = [item for value in read(values) for item in value.items()]
    readme.write_text(before + BEGIN + "\n".join(items) + "\n" + END + after)


if __name__ == "__main__":
    main()

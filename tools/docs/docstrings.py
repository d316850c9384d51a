# SPDX-License-Identifier: Apache-2.0
"""A Griffe extension: lists in the project's docstrings, such as

    path   where it is written
    board  a board's name; default: no limit,
           and plain rows

become Markdown lists, so that the Python API page shows them as lists and not as one paragraph.
"""

from __future__ import annotations

import re

import griffe

ENTRY = re.compile(r"^(\w+(?:, \w+)*) {2,}(\S.*)$")


def listed(text: str) -> str:
    """Markdown of a docstring: its aligned entries as list items, everything else unchanged."""
    out: list[str] = []
    inside = False
    for line in text.splitlines():
        if entry := ENTRY.match(line):
            if not inside:
                out.append("")
            inside = True
            names = ", ".join(f"`{name}`" for name in entry[1].split(", "))
            out.append(f"- {names}: {entry[2]}")
        elif inside and line.startswith("  "):
            out[-1] += " " + line.strip()
        else:
            inside = False
            out.append(line)
    return "\n".join(out)


class AlignedLists(griffe.Extension):
    """Rewrites every docstring that Griffe loads, with `listed`."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring is not None:
            obj.docstring.value = listed(obj.docstring.value)

# SPDX-License-Identifier: Apache-2.0
"""How all benchmarks print: tables, requirements that hold or do not, and JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mcuformer.files import write_bytes


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with `--json FILE`. description: the benchmark's docstring; its first line is shown."""
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the result there")
    return made


def show(columns: list[str], rows: list[list]) -> None:
    """Prints a table: columns with letters in them to the left, numbers to the right; None as a dash."""
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    left = [any(c.isalpha() for c in "".join(column)) for column in zip(*cells, strict=True)]
    for line in [columns, *cells]:
        padded = [f"{c:<{w}}" if text else f"{c:>{w}}" for c, w, text in zip(line, widths, left, strict=True)]
        print("  ".join(padded).rstrip(), flush=True)


def requirement(text: str, measured: str | None, holds: bool | None) -> dict:
    """One requirement; holds None: it could not be measured."""
    return {"requirement": text, "measured": measured, "holds": holds}


def finish(result: dict, requirements: list[dict], path: Path | None) -> int:
    """Prints the requirements and writes the JSON; returns the exit status: 1 if one does not hold."""
    words = {True: "holds", False: "DOES NOT HOLD", None: "not measured"}
    if requirements:
        print()
        show(
            ["requirement", "measured", "result"],
            [[r["requirement"], r["measured"], words[r["holds"]]] for r in requirements],
        )
    if path is not None:
        content = json.dumps({**result, "requirements": requirements}, indent=1) + "\n"
        write_bytes(path, content.encode())
    return int(any(r["holds"] is False for r in requirements))

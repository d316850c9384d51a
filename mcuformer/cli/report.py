# SPDX-License-Identifier: Apache-2.0
"""mcuformer report: what the commands left in a folder as one HTML page that loads nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mcuformer.cli.common import PATH, check_outputs, out
from mcuformer.files import write_bytes

if TYPE_CHECKING:
    from mcuformer.report.folder import Material


@dataclass(frozen=True)
class Report:
    """A page, written to path; material: what it shows; missing: (what is missing, the command that makes it)."""

    path: Path
    material: Material
    missing: tuple[tuple[str, str], ...]


def report(folder: str | os.PathLike, *, board: str | None = None, output: str | os.PathLike = "report.html") -> Report:
    """Writes a page of the folder's search logs, results (--json), training curves (.csv), subnets and models.

    board: whose core the instructions of models are counted on; default: the one that `convert --json` says, else
    nano33ble, a Cortex-M4. ConfigError if the folder holds nothing to show.
    """
    from mcuformer.boards import get_board
    from mcuformer.report.folder import read_folder
    from mcuformer.report.page import page
    from mcuformer.report.sections import sections

    output = Path(output)
    check_outputs(output)
    if board is not None:
        get_board(board)
    material = read_folder(Path(folder), board, leave=output)
    parts = sections(material)
    write_bytes(output, page(material, parts).encode())
    missing = tuple((part.title, part.missing) for part in parts if part.missing)
    return Report(output, material, missing)


def show(made: Report) -> None:
    for what, command in made.missing:
        out.print(f"missing: {what}; made by: {command}", markup=False)
    for name, why in made.material.unused:
        out.print(f"not shown: {name}: {why}", markup=False)
    out.print(f"wrote {made.path}")


@click.command("report")
@click.argument("folder", type=PATH, help="Where the commands wrote logs, --json results, subnets and models.")
@click.option("--board", help="Count instructions for this board; default: the one that convert --json says.")
@click.option("--out", "-o", "output", type=PATH, default="report.html", help="The page to write.")
def command(folder: Path, board: str | None, output: Path) -> None:
    """Show a search, its training and its models as one HTML page that loads nothing."""
    show(report(folder, board=board, output=output))

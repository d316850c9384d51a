# SPDX-License-Identifier: Apache-2.0
"""The front of a search as a folder: a subnet.pt for each of its rows, and front.json, which says what each is.

front.json holds "bytes_of" (the board whose bytes the arenas are counted in, or the 64-bit interpreter), "budget" and
"rows". A row has "file", "config", "held_out_top1" (from 0 to 1), "arena_bytes", "flash_bytes" (at most), and per image
"instructions" and "estimated_ms"; these two are "unknown" where there is no estimate.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from mcuformer.boards import Board
from mcuformer.errors import ConfigError
from mcuformer.files import read_text, whole_folder
from mcuformer.nas.cost import Budget
from mcuformer.nas.search import Found
from mcuformer.nas.subnet import save_subnet
from mcuformer.nas.supernet import SuperNet

ROWS = "front.json"
UNKNOWN = "unknown"
INTERPRETER = "the 64-bit interpreter"


def different(front: Sequence[Found]) -> tuple[Found, ...]:
    """The front without repeats: of subnets equal in accuracy, SRAM and instructions the one of fewest bytes."""
    kept: dict[tuple, Found] = {}
    for found in front:
        key = (found.accuracy, found.cost.sram, found.cost.instructions)
        if key not in kept or found.cost.flash < kept[key].cost.flash:
            kept[key] = found
    return tuple(kept.values())


def check_front_folder(folder: str | os.PathLike, *others: str | os.PathLike | None) -> None:
    """ConfigError if the folder holds anything that is not of an earlier front, which would be replaced, or will hold
    one of the other outputs."""
    folder = Path(folder)
    for other in others:
        if other is not None and folder.resolve() in (Path(other).resolve(), *Path(other).resolve().parents):
            raise ConfigError(f"{other}: in the folder of the front, which is written as a whole; name another place")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: a file; give a folder for the front")
    if not folder.is_dir():
        return
    held = {path.name for path in folder.iterdir()}
    if foreign := sorted(held - _files_of_front(folder)):
        raise ConfigError(f"{folder}: holds {foreign[0]}, which is not of a front; give an empty or a new folder")


def _files_of_front(folder: Path) -> set[str]:
    """What an earlier front wrote there; nothing if there is none."""
    try:
        return {ROWS, *(str(row["file"]) for row in json.loads(read_text(folder / ROWS))["rows"])}
    except (OSError, ValueError, TypeError, KeyError):
        return set()


def write_front(
    folder: str | os.PathLike,
    supernet: SuperNet,
    front: Sequence[Found],
    budget: Budget,
    notes: dict,
    board: Board | None,
) -> Path:
    """Writes the subnets with their inherited weights; the folder appears whole or not at all, in place of an earlier
    front.

    notes: kept with every subnet, beside its row; board: whose bytes the costs are, None: the 64-bit interpreter's
    """
    folder = Path(folder)
    check_front_folder(folder)
    front = different(front)
    rows = [_row(number, found) for number, found in enumerate(front, 1)]
    bytes_of = INTERPRETER if board is None else board.name
    with whole_folder(folder) as new:
        for row, found in zip(rows, front, strict=True):
            said = {name: value for name, value in row.items() if name not in ("file", "config")}
            save_subnet(supernet.extract(found.config), new / row["file"], {**notes, **said, "bytes_of": bytes_of})
        content = {"bytes_of": bytes_of, "budget": budget.to_dict(), "rows": rows}
        (new / ROWS).write_text(json.dumps(content, indent=1) + "\n")
    return folder


def _row(number: int, found: Found) -> dict:
    cost = found.cost
    return {
        "file": f"{number:03}-{cost.sram}-bytes.pt", "config": found.config.to_dict(), "held_out_top1": found.accuracy,
        "arena_bytes": cost.sram, "flash_bytes": cost.flash,
        "instructions": UNKNOWN if cost.instructions is None else cost.instructions,
        "estimated_ms": UNKNOWN if cost.latency is None else cost.latency,
    }  # fmt: skip

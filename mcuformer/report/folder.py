# SPDX-License-Identifier: Apache-2.0
"""What a folder holds for a report: files that commands wrote, told apart by their content."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mcuformer.errors import ConfigError, McuformerError
from mcuformer.files import read_bytes, read_text

if TYPE_CHECKING:
    from mcuformer.cli.inspect import Inspection

# Keys that only this command's --json has, the first that fits.
RESULTS = {
    "search": {"best", "front", "judged"},
    "evolve": {"visits", "converged"},
    "run": {"images", "engine", "arena_bytes"},
    "convert": {"agreement", "arena_bytes", "model"},
    "train": {"losses", "seconds"},
}
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)
Made = TypeVar("Made")
MOST_PICTURE_BYTES = 4 << 20
LOGS = ("mcuformer.search/1", "mcuformer.evolution/1")


@dataclass(frozen=True)
class Curves:
    """Training curves. columns: values by name, one an epoch; epochs: their numbers."""

    file: str
    epochs: tuple[float, ...]
    columns: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Log:
    """A search's or an evolution's log: what identifies it, and its entries in order."""

    file: str
    head: dict[str, Any]
    entries: tuple[dict[str, Any], ...]


@dataclass
class Material:
    """Files by what they are; names are relative to the folder. results: by command, (file, content), the oldest first;
    subnets: notes of subnet.pt files; pictures: PNG files; unused: other files, and why they are not shown."""

    folder: Path
    results: dict[str, list[tuple[str, dict[str, Any]]]] = field(default_factory=lambda: {name: [] for name in RESULTS})
    search_logs: list[Log] = field(default_factory=list)
    evolution_logs: list[Log] = field(default_factory=list)
    curves: list[Curves] = field(default_factory=list)
    models: list[tuple[str, Inspection]] = field(default_factory=list)
    subnets: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    pictures: list[tuple[str, bytes]] = field(default_factory=list)
    unused: list[tuple[str, str]] = field(default_factory=list)

    @property
    def commands(self) -> list[str]:
        """That made the results, the oldest first."""
        made = [content["command"] for _, content in self._by_age() if isinstance(content.get("command"), str)]
        return list(dict.fromkeys(made))

    def safely(self, file: str, make: Callable[[], Made]) -> Made | str:
        """make(), or "" if the file does not hold what it needs; then it joins `unused`."""
        try:
            return make()
        except (McuformerError, *DAMAGE) as error:
            self.unused.append((file, f"not as its command writes it ({type(error).__name__}: {error})"))
            return ""

    def _by_age(self) -> list[tuple[str, dict[str, Any]]]:
        found = [pair for pairs in self.results.values() for pair in pairs]
        return sorted(found, key=lambda pair: (self.folder / pair[0]).stat().st_mtime)


def read_folder(folder: Path, board: str | None = None, leave: Path | None = None) -> Material:
    """Reads every file of the folder, and of fronts in it. board: whose core the instructions of models are counted on;
    default: the one that `convert --json` says. leave: the report itself. ConfigError if there is nothing to show."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give the one that the commands wrote their files into")
    found = Material(folder)
    models = []
    for path in _files(folder):
        if leave is not None and path.resolve() == leave.resolve():
            continue
        if path.suffix == ".tflite":
            models.append(path)
            continue
        try:
            _read(path, found)
        except (McuformerError, *DAMAGE) as error:
            found.unused.append((_name(path, found), f"cannot be read: {' '.join(str(error).split())}"))
    for path in models:
        try:
            found.models.append((_name(path, found), _inspect(path, found, board)))
        except (McuformerError, *DAMAGE) as error:
            found.unused.append((_name(path, found), f"cannot be read: {' '.join(str(error).split())}"))
    shown = (found.search_logs, found.evolution_logs, found.curves, found.models, found.subnets, found.pictures)
    if not any(shown) and not any(found.results.values()):
        raise ConfigError(
            f"{folder}: holds nothing that a report shows; give the folder of what the commands wrote, such as their "
            "--json results, logs and models"
        )
    return found


def _files(folder: Path) -> Iterator[Path]:
    """The oldest first, so that the page tells things in their order; then those of fronts."""
    from mcuformer.nas.front import ROWS

    here = [path for path in folder.iterdir() if not path.name.startswith(".")]
    yield from sorted((path for path in here if path.is_file()), key=lambda path: (path.stat().st_mtime, path.name))
    for inner in sorted(path for path in here if path.is_dir() and (path / ROWS).is_file()):
        yield inner / ROWS


def _name(path: Path, found: Material) -> str:
    return path.relative_to(found.folder).as_posix()


def _read(path: Path, found: Material) -> None:
    name = _name(path, found)
    if path.suffix == ".json":
        content = json.loads(read_text(path))
        kind = next(
            (kind for kind, keys in RESULTS.items() if isinstance(content, dict) and keys <= set(content)), None
        )
        if kind is not None:
            found.results[kind].append((name, content))
        elif not {"rows", "bytes_of"} <= set(content):  # front.json: as search's
            found.unused.append((name, "not a result that a report shows"))
    elif path.suffix == ".jsonl":
        log = _log(path, name)
        (found.search_logs if log.head["format"] == LOGS[0] else found.evolution_logs).append(log)
    elif path.suffix == ".csv":
        found.curves.append(_curves(path, name))
    elif path.suffix == ".pt":
        _read_network(path, name, found)
    elif path.suffix == ".png":
        content = read_bytes(path)
        if not content.startswith(b"\x89PNG") or len(content) > MOST_PICTURE_BYTES:
            raise ValueError(f"no PNG, or one of more than {MOST_PICTURE_BYTES:,} bytes")
        found.pictures.append((name, content))
    else:
        found.unused.append((name, "not a file that a report reads"))


def _log(path: Path, name: str) -> Log:
    """The log's whole lines: a search may be writing it just now."""
    text = read_text(path)
    lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    if not lines or not isinstance(lines[0], dict) or lines[0].get("format") not in LOGS:
        raise ValueError("no log of `mcuformer search --log-file` or `evolve`")
    return Log(name, lines[0], tuple(lines[1:]))


def _curves(path: Path, name: str) -> Curves:
    rows = list(csv.DictReader(read_text(path).splitlines()))
    if not rows or "epoch" not in rows[0]:
        raise ValueError("no training curves: a header with the column epoch, and a row an epoch")
    columns: dict[str, tuple[float, ...]] = {}
    for column in rows[0]:
        try:
            values = tuple(float(row[column] or "nan") for row in rows)
        except (ValueError, TypeError):
            continue  # words, such as the name of a stage
        if any(map(math.isfinite, values)):
            columns[column] = values
    return Curves(name, columns.pop("epoch"), columns)


def _read_network(path: Path, name: str, found: Material) -> None:
    """A subnet's notes. Supernets and checkpoints are known by their format."""
    from mcuformer.nas import saved_network, subnet, supernet

    try:
        content = saved_network.load(path, "subnet.pt", subnet.FORMAT, "copy it again")
    except McuformerError:
        saved_network.load(path, "supernet.pt", supernet.FORMAT, "copy it again")
        found.unused.append((name, "a supernet: its search is shown"))
        return
    notes = content.get("notes")
    found.subnets.append((name, notes if isinstance(notes, dict) else {}))


def _inspect(path: Path, found: Material, board: str | None) -> Inspection:
    from mcuformer.cli.inspect import inspect

    said = [made.get("board") for _, made in found.results["convert"] if Path(str(made["model"])).name == path.name]
    return inspect(path, board=board or next((name for name in said if name), None) or DEFAULT_BOARD)


DEFAULT_BOARD = "nano33ble"  # a Cortex-M4, as `mcuformer search` counts for without a board

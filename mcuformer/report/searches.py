# SPDX-License-Identifier: Apache-2.0
"""The searches of a folder: a log joined with the result of the same search."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from mcuformer.boards import get_board
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.nas.cost import Cost, cost_of
from mcuformer.nas.front import different
from mcuformer.nas.search import Found, front_of
from mcuformer.report.folder import Log, Material


@dataclass(frozen=True)
class Searched:
    """files: that say it; found: evaluated subnets in order, of the front alone if there is no log; budget: limits by
    name; first: subnets of the first generation, children: of those that follow, 0 if unknown."""

    files: str
    found: tuple[Found, ...]
    front: tuple[Found, ...]
    best: Found
    budget: dict[str, int | None]
    board: str | None
    whole: bool
    first: int = 0
    children: int = 0


def searches(material: Material) -> list[Searched]:
    """A log and a result belong together if the log holds the result's front."""
    results = list(material.results["search"])
    made: list[Searched | str] = []
    for log in material.search_logs:
        if not log.entries:
            continue
        known = [entry.get("config") for entry in log.entries]
        pair = next((r for r in results if _is_of(r[1], known)), None)
        if pair is not None:
            results.remove(pair)
        made.append(material.safely(log.file, functools.partial(_from_log, log, pair)))
    for file, content in results:
        made.append(material.safely(file, functools.partial(_from_result, file, content)))
    return [s for s in made if isinstance(s, Searched)]


def _is_of(result: dict[str, Any], known: list[Any]) -> bool:
    front = result["front"]
    return isinstance(front, list) and all(isinstance(row, dict) and row.get("config") in known for row in front)


def _from_log(log: Log, pair: tuple[str, dict[str, Any]] | None) -> Searched:
    file, content = pair or ("", {})
    board = content.get("board")
    count = functools.partial(cost_of, board=board and get_board(board), strips=bool(content.get("strips")))
    found = [
        Found(config, float(entry["accuracy"]), count(config))
        for entry in log.entries
        for config in [SubnetConfig.from_dict(entry["config"])]
    ]
    options = log.head.get("options", {})
    files = f"{log.file}, {file}" if file else log.file
    best = min(found, key=lambda f: (-f.accuracy, f.cost.sram, f.cost.instructions or 0))
    first, children = int(options.get("population", 0)), int(options.get("children", 0))
    return Searched(
        files, tuple(found), different(front_of(found)), best, log.head.get("budget", {}), board, True, first, children
    )  # fmt: skip


def _from_result(file: str, content: dict[str, Any]) -> Searched:
    front = tuple(_found(row) for row in content["front"])
    return Searched(file, front, front, _found(content["best"]), content["budget"], content.get("board"), False)


def _found(row: dict[str, Any]) -> Found:
    cost = Cost(row["sram"], row["flash"], row["instructions"], row.get("latency"))
    return Found(SubnetConfig.from_dict(row["config"]), row["accuracy"], cost)

# SPDX-License-Identifier: Apache-2.0
"""mcuformer boards: the boards by core, the memory they leave for a model, and whether given models fit."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from mcuformer import measured
from mcuformer.boards import BOARDS, Board, get_board
from mcuformer.cli.common import JsonOption, app, check_outputs, out, read_bytes, write_json
from mcuformer.cores import CORES

if TYPE_CHECKING:
    from mcuformer.converter.graph import Graph
    from mcuformer.cores import Core


@dataclass(frozen=True)
class Fit:
    """Whether a model fits a board. model: its file's name; arena_bytes, model_bytes: what it takes; arena_over,
    model_over: by how much that exceeds the budgets, 0 if it fits; instructions: predicted for an image, None: the core
    has no model of them; ms: of an image, as `check-board --board` measured it, None: not measured."""

    model: str
    board: str
    arena_bytes: int
    model_bytes: int
    arena_over: int
    model_over: int
    instructions: int | None
    ms: float | None = None

    @property
    def fits(self) -> bool:
        return not self.arena_over and not self.model_over


@dataclass(frozen=True)
class BoardList:
    """Boards, those of a core beside each other; fits: of each given model on each of them."""

    boards: tuple[Board, ...]
    fits: tuple[Fit, ...] = ()

    def to_dict(self) -> dict:
        """What --json writes."""
        rows = [
            {
                "name": board.name, "mcu": board.mcu, "core": board.core.name, "sram_bytes": board.sram_bytes,
                "sram_budget": board.sram_budget, "flash_bytes": board.flash_bytes, "flash_budget": board.flash_budget,
                "external_flash_bytes": board.external_flash_bytes, "external_ram_bytes": board.external_ram_bytes,
                "source": board.source,
            }
            for board in self.boards
        ]  # fmt: skip
        return {"boards": rows, "fits": [{**dataclasses.asdict(fit), "fits": fit.fits} for fit in self.fits]}


def boards(models: Sequence[str | os.PathLike] = (), board: str | Board | None = None) -> BoardList:
    """The boards that a model can be fitted to, by core, and whether models fit them.

    models  .tflite files made by `convert`
    board   only this one: its name, a YAML file, or a Board
    """
    chosen = BOARDS.values() if board is None else [board if isinstance(board, Board) else get_board(board)]
    order = list(CORES)
    by_core = sorted(chosen, key=lambda one: order.index(one.core.key) if one.core.key in order else len(order))
    return BoardList(tuple(by_core), tuple(fit for model in models for fit in _fits(Path(model), by_core)))


def _fits(path: Path, chosen: Iterable[Board]) -> Iterator[Fit]:
    """A model on each board."""
    from mcuformer.converter.memory.arena import plan_arena
    from mcuformer.converter.memory.board_arena import board_arena_bytes
    from mcuformer.converter.tflite_file import read

    content = read_bytes(path)
    graph = read(content, str(path)).graph
    arena, known = board_arena_bytes(graph, plan_arena(graph)), dict[str, int | None]()
    times = measured.read(measured.path_of(path), content)
    for board in chosen:
        if board.core.key not in known:
            known[board.core.key] = _instructions(graph, board.core)
        flash = len(content) if board.flash_budget is None else board.flash_budget
        over = max(0, arena - board.sram_budget), max(0, len(content) - flash)
        ms = times[board.name]["ms"] if board.name in times else None
        yield Fit(path.name, board.name, arena, len(content), *over, known[board.core.key], ms)


def _instructions(graph: Graph, core: Core) -> int | None:
    """Predicted for an image, with weights packed as `run --on` and exports do, staged ones as they are; None: they
    are unknown, as those of a core that was not counted, or of an int16 stream."""
    from mcuformer.converter.estimate.instructions import op_instructions
    from mcuformer.converter.passes.staging import is_staged
    from mcuformer.converter.repack import repacked_graph

    if core.coefficients is None or graph.is_wide:
        return None
    graph = graph if is_staged(graph) else repacked_graph(graph, core)
    return sum(op_instructions(graph, op, core.coefficients) for op in graph.ops)


def show(listed: BoardList) -> None:
    table = Table("board", "MCU", "SRAM", "for the arena", "flash", "for the model", "flash beside it", "RAM beside it")
    for core, members in groupby(listed.boards, lambda board: board.core.name):
        table.add_section()
        table.add_row(f"[bold]{core}[/bold]")
        for board in members:
            table.add_row(*_row(board))
    out.print(table)
    out.print("All sizes in bytes; the budgets are what the firmware leaves (estimates, see mcuformer/boards.py).")
    for model, fits in groupby(listed.fits, lambda fit: fit.model):
        show_fits(model, list(fits), {board.name: board for board in listed.boards})


def _row(board: Board) -> tuple[str, ...]:
    clock = "" if board.clock_mhz is None else f" {board.clock_mhz} MHz"
    sizes = (
        board.sram_bytes, board.sram_budget, board.flash_bytes, board.flash_budget, board.external_flash_bytes,
        board.external_ram_bytes,
    )  # fmt: skip
    return (escape(board.name), escape(board.mcu) + clock, *(f"{size:,}" if size else "-" for size in sizes))


def show_fits(model: str, fits: Sequence[Fit], named: dict[str, Board]) -> None:
    """Whether a model fits each board."""
    first = fits[0]
    out.print(f"{model}: arena {first.arena_bytes:,} bytes, model {first.model_bytes:,} bytes", markup=False)
    table = Table("board", "core", "fits", "instructions", "ms")
    for fit in fits:
        board = named[fit.board]
        instructions = "unknown" if fit.instructions is None else f"{fit.instructions:,}"
        ms = "unknown" if fit.ms is None else f"{fit.ms:.1f}"
        table.add_row(escape(board.name), board.core.name, _verdict(fit, board), instructions, ms)
    out.print(table)
    out.print(
        "Instructions are predicted for an image, as QEMU counts them: neither cycles nor time. ms are those that "
        "`mcuformer check-board --board` measured."
    )


def _verdict(fit: Fit, board: Board) -> str:
    """yes, or what exceeds its memory, and where else there is room for it."""
    found = []
    if fit.arena_over:
        place = ", fits the RAM beside it" if fit.arena_bytes <= board.external_ram_bytes else ""
        found.append(f"no: arena {fit.arena_over:,} over{place}")
    if fit.model_over:
        place = ", fits the flash beside it" if fit.model_bytes <= board.external_flash_bytes else ""
        found.append(f"no: model {fit.model_over:,} over{place}")
    return "; ".join(found) or "yes"


@app.command("boards")
def command(
    model: Annotated[
        list[Path] | None, typer.Option(help="A .tflite made by `mcuformer convert`: does it fit? Repeatable.")
    ] = None,
    board: Annotated[str | None, typer.Option(help="This board alone: its name, or a YAML file.")] = None,
    json_file: JsonOption = None,
) -> None:
    """List the boards by core and the memory they leave for a model; say whether models fit."""
    check_outputs(json_file)
    listed = boards(model or (), board)
    show(listed)
    write_json(json_file, listed.to_dict())

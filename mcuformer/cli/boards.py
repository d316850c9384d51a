# SPDX-License-Identifier: Apache-2.0
"""mcuformer boards: the boards by core, the memory they leave for a model, and whether given models fit."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from mcuformer import measured
from mcuformer.board_file import write_board
from mcuformer.boards import BOARDS, CYCLES_ARE, Board, get_board, is_board_file
from mcuformer.cli.common import PATH, check_outputs, json_option, out, read_bytes, write_json
from mcuformer.cores import CORES
from mcuformer.errors import ConfigError


@dataclass(frozen=True)
class Fit:
    """Whether a model fits a board. model: its file's name; arena_bytes, model_bytes: what it takes; arena_over,
    model_over: by how much that exceeds the budgets, 0 if it fits; instructions: predicted for an image, None: the core
    has no model of them; ms: of an image, as `check-board --board` measured it, None: not measured; estimated_ms:
    Board.estimated_ms(), None: there is none; cycles: estimated for an image, None: unknown."""

    model: str
    board: str
    arena_bytes: int
    model_bytes: int
    arena_over: int
    model_over: int
    instructions: int | None
    ms: float | None = None
    estimated_ms: float | None = None
    cycles: int | None = None

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
    from mcuformer.converter.estimate.on_board import cycles_on, instructions_on
    from mcuformer.converter.memory.arena import plan_arena
    from mcuformer.converter.memory.board_arena import board_arena_bytes
    from mcuformer.converter.tflite_file import read

    content = read_bytes(path)
    graph = read(content, str(path)).graph
    arena, known = board_arena_bytes(graph, plan_arena(graph)), dict[str, tuple[int | None, int | None]]()
    times, identity = measured.read(measured.path_of(path), content), measured.identity(content)
    for board in chosen:
        if board.core.key not in known:
            known[board.core.key] = instructions_on(graph, board.core), cycles_on(graph, board.core)
        flash = len(content) if board.flash_budget is None else board.flash_budget
        over = max(0, arena - board.sram_budget), max(0, len(content) - flash)
        ms = times[board.name]["ms"] if board.name in times else board.measured_ms(identity)
        count, cycles = known[board.core.key]
        estimate = board.estimated_ms(count, cycles)
        yield Fit(path.name, board.name, arena, len(content), *over, count, ms, estimate, cycles)


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
    table = Table("board", "core", "fits", "instructions", "cycles", "ms")
    for fit in fits:
        board = named[fit.board]
        instructions, cycles = ("unknown" if n is None else f"{n:,}" for n in (fit.instructions, fit.cycles))
        ms = f"{fit.ms:.1f}" if fit.ms is not None else "unknown"
        if fit.ms is None and fit.estimated_ms is not None:
            ms = f"about {fit.estimated_ms:.1f}"
        table.add_row(escape(board.name), board.core.name, _verdict(fit, board), instructions, cycles, ms)
    out.print(table)
    out.print(
        "Instructions are predicted for an image, as QEMU counts them. ms are those that `mcuformer check-board "
        f"--board` measured; about: an estimate, cycles at the board's clock. {CYCLES_ARE[0].upper()}{CYCLES_ARE[1:]}."
    )
    for fit in fits:
        if fit.ms is None and named[fit.board].measured:
            out.print(named[fit.board].estimate_rule(fit.instructions, fit.cycles), markup=False)


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


@click.command("boards")
@click.option(
    "--model", multiple=True, type=PATH, help="A .tflite made by `mcuformer convert`: does it fit? Repeatable."
)
@click.option("--board", help="This board alone: its name, or a YAML file.")
@click.option("--write", type=PATH, help="Write --board as a YAML file to change, which `check-board` adds times to.")
@json_option
def command(model: tuple[Path, ...], board: str | None, write: Path | None, json_file: Path | None) -> None:
    """List the boards by core and the memory they leave for a model; say whether models fit."""
    check_outputs(json_file, write)
    listed = boards(model, board)
    if write is not None:
        if board is None:
            raise ConfigError(f"--write {write}: of which board? Give --board too")
        if not is_board_file(str(write)):
            raise ConfigError(f"--write {write}: a board's file ends in .yaml or .yml; give such a name")
        write_board(write, listed.boards[0])
    show(listed)
    if write is not None:
        out.print(f"wrote {write}")
    write_json(json_file, listed.to_dict())

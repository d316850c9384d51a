# SPDX-License-Identifier: Apache-2.0
"""Whether an export fits a board, and the nearest conversion that does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mcuformer.boards import Board
from mcuformer.converter.graph import Graph
from mcuformer.converter.memory.arena import plan_arena
from mcuformer.converter.memory.board_arena import board_arena_bytes
from mcuformer.converter.passes.scratch import fit_heads
from mcuformer.converter.passes.staging import is_staged
from mcuformer.converter.passes.streamed import streamed
from mcuformer.converter.passes.strips import in_strips, takes_strips
from mcuformer.errors import ConfigError, McuformerError, PlanError


def budget_board(graph: Graph, board: Board | None, external_flash: bool) -> Board | None:
    """The board whose budgets the export must keep: with external_flash the model goes into the flash beside its chip.

    ConfigError if there is no such flash, or nothing to read in place.
    """
    if not external_flash:
        return board
    if board is None:
        raise ConfigError("--external-flash: of which board? Give --board too")
    if is_staged(graph):
        raise ConfigError("--external-flash: staged weights are not read in place; leave it out")
    return board.with_external_flash()


def check_board(graph: Graph, board: Board, arena_bytes: int, flash_bytes: int) -> None:
    """PlanError if the arena exceeds the board's SRAM budget, or the flash contents its flash budget.

    It names the sizes and the nearest fix: another schedule or strips if they fit, else a smaller network.
    """
    if arena_bytes > board.sram_budget:
        raise PlanError(
            f"the arena of {arena_bytes:,} bytes exceeds {board.name}'s budget of {board.sram_budget:,} bytes: "
            f"{_less_ram(graph, board)}"
        )
    if board.flash_budget is not None and flash_bytes > board.flash_budget:
        raise PlanError(
            f"the model of {flash_bytes:,} bytes exceeds {board.name}'s budget of {board.flash_budget:,} bytes of "
            f"flash: {board.flash_fix}search with a smaller budget (`mcuformer search --flash {board.flash_budget}B`), "
            "or use fewer layers, a smaller embed_dim or a rank_ratio"
        )


def check_board_of_all(board: Board, arena_bytes: Sequence[int], flash_bytes: int, shared: str = "") -> None:
    """PlanError if several models, each of which fits, are together too large for a board. shared: how they could share
    an arena, for the error."""
    total = sum(arena_bytes)
    if total > board.sram_budget:
        raise PlanError(
            f"the arenas of {len(arena_bytes)} models, {total:,} bytes together, exceed {board.name}'s budget of "
            f"{board.sram_budget:,} bytes: {shared}use a larger board, or fewer models"
        )
    if board.flash_budget is not None and flash_bytes > board.flash_budget:
        raise PlanError(
            f"{len(arena_bytes)} models of {flash_bytes:,} bytes together exceed {board.name}'s budget of "
            f"{board.flash_budget:,} bytes of flash: {board.flash_fix}leave one out"
        )


def _less_ram(graph: Graph, board: Board) -> str:
    """What to do about the arena: the first conversion that fits, with its size."""
    sizes = {}
    for options, change in _ways(graph).items():
        try:
            other = change(graph)
            other = other if is_staged(other) else fit_heads(other)
        except McuformerError:
            continue
        size = sizes[options] = board_arena_bytes(other, plan_arena(other))
        if size <= board.sram_budget:
            return f"convert it with {options}, which takes {size:,} bytes"
    smaller = f"search with a smaller budget (`mcuformer search --sram {board.sram_budget}B`), or take fewer tokens"
    if not sizes:
        return smaller
    best = min(sizes, key=lambda options: sizes[options])
    return f"converted with {best} it still takes {sizes[best]:,} bytes; {smaller}"


def _ways(graph: Graph) -> dict[str, Callable[[Graph], Graph]]:
    """Options of `mcuformer convert` that the model was converted without, and the graph each would give."""
    can_stream = not is_staged(graph) and not any(op.kind in ("StreamedAttention", "StreamedMLP") for op in graph.ops)
    can_strip = not takes_strips(graph)
    ways: dict[str, Callable[[Graph], Graph]] = {}
    if can_stream:
        ways["--schedule streamed"] = streamed
    if can_strip:
        ways["--strips"] = in_strips
    if can_stream and can_strip:
        ways["--schedule streamed --strips"] = lambda graph: in_strips(streamed(graph))
    return ways

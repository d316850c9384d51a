# SPDX-License-Identifier: Apache-2.0
"""Which schedule: the one of fewest instructions that fits the board."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mcuformer.boards import Board
from mcuformer.converter.estimate.instructions import op_instructions

if TYPE_CHECKING:
    from mcuformer.converter.model import Model


@dataclass(frozen=True)
class ScheduleCost:
    """What a network takes with a schedule. arena_bytes: on a 32-bit board; model_bytes: of the .tflite file;
    instructions: predicted, of one image."""

    schedule: str
    arena_bytes: int
    model_bytes: int
    instructions: int

    def fits(self, board: Board) -> bool:
        flash = board.flash_budget
        return self.arena_bytes <= board.sram_budget and (flash is None or self.model_bytes <= flash)


def quickest(models: Sequence[Model], board: Board) -> Model:
    """Of one network in several schedules, that of fewest instructions which fits the board, with the costs of all.

    That of the least arena if none fits; the first, without costs, if the instructions of the board's core are unknown.
    """
    core = board.core.coefficients
    if core is None:
        return models[0]
    costs = tuple(
        ScheduleCost(
            model.schedule, model.arena_bytes(board), model.model_bytes,
            sum(op_instructions(model.graph, op, core) for op in model.graph.ops),
        )
        for model in models
    )  # fmt: skip
    fitting = [i for i, cost in enumerate(costs) if cost.fits(board)]
    chosen = (
        min(fitting, key=lambda i: (costs[i].instructions, costs[i].arena_bytes))
        if fitting
        else min(range(len(costs)), key=lambda i: costs[i].arena_bytes)
    )
    return dataclasses.replace(models[chosen], costs=costs)

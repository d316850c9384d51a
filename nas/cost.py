# SPDX-License-Identifier: Apache-2.0
"""What a subnet costs on a microcontroller, and the budget it must meet: from its dimensions, before any training."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mcuformer.boards import Board
from mcuformer.converter.estimate import cycles, feasibility, instructions
from mcuformer.converter.estimate.model_size import model_bytes
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.cores import CORES, Core
from mcuformer.errors import ConfigError, PlanError
from mcuformer.nas.paper_memory import paper_sram
from mcuformer.nas.search_space import SearchSpace

UNITS = {"": 1, "B": 1, "K": 1024, "KB": 1024, "M": 1024**2, "MB": 1024**2}
COUNT_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
NAMES = {
    "sram": "bytes of arena", "flash": "bytes of model", "instructions": "instructions per image",
    "latency": "estimated ms per image",
}  # fmt: skip
BY_PAPER = {**NAMES, "sram": "bytes of SRAM by the paper's rule"}
RANDOM_TRIES = 20_000  # subnets drawn before giving up, if no uniform subnet meets the budget


@dataclass(frozen=True)
class Cost:
    """sram: bytes of the arena; flash: an upper bound of the model's bytes; instructions: per image, None if the core's
    are unknown; latency: ms per image, an estimate, None without one. See cost_of."""

    sram: int
    flash: int
    instructions: int | None
    latency: float | None = None

    def of(self, name: str) -> float:
        """One of NAMES; ConfigError if it is unknown, since no limit can then be checked."""
        if (value := getattr(self, name)) is None:
            raise ConfigError(f"a budget of {name}: unknown for this core; leave the {name} budget out")
        return value


@dataclass(frozen=True)
class Budget:
    """The most of each; None: no limit."""

    sram: int | None = None
    flash: int | None = None
    instructions: int | None = None
    latency: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """For files; without a latency as they were before there was one."""
        return {name: value for name, value in vars(self).items() if name != "latency" or value is not None}

    def limits(self) -> Iterator[tuple[str, float]]:
        for name in NAMES:
            if (limit := getattr(self, name)) is not None:
                yield name, limit

    def admits(self, cost: Cost) -> bool:
        return all(cost.of(name) <= limit for name, limit in self.limits())


def cost_of(config: SubnetConfig, board: Board | None = None, strips: bool = False) -> Cost:
    """Arena on the board (without one: in the 64-bit interpreter); an upper bound of the model's bytes; instructions
    predicted for the board's core (without one: a Cortex-M4; see converter/estimate/instructions.py), None if the core
    has no coefficients; the board's estimated milliseconds (Board.estimated_ms).

    strips: the image comes a few rows at a time (convert(..., strips=True)).
    """
    arena = feasibility.arena_bytes if board is None else feasibility.board_arena_bytes
    core = CORES["m4"].coefficients if board is None else board.core.coefficients
    count = None if core is None else instructions.instructions(config, core, strips=strips)
    ms = None if board is None else board.estimated_ms(count, _cycles(config, board.core, strips))
    return Cost(arena(config, strips=strips), model_bytes(config), count, ms)


def _cycles(config: SubnetConfig, core: Core, strips: bool) -> int | None:
    return None if core.cycle_coefficients is None else cycles.cycles(config, core.cycle_coefficients, strips=strips)


def cost_by_paper(config: SubnetConfig, board: Board | None = None, strips: bool = False) -> Cost:
    """cost_of(), but sram is M, the paper's sizing rule (paper_memory.py): neither board nor strips change it."""
    return dataclasses.replace(cost_of(config, board, strips), sram=paper_sram(config))


def board_budget(
    board: Board | None,
    sram: int | None,
    flash: int | None,
    instructions: int | None,
    latency: float | None = None,
) -> Budget:
    """The board's budgets for arena and model, each replaced by a given value.

    ConfigError for a number of instructions, or a latency, on a board for which these are unknown.
    """
    if latency is not None:
        _check_latency(board)
    if board is not None:
        if instructions is not None and board.core.coefficients is None:
            known = ", ".join(core.label for core in CORES.values() if core.coefficients is not None)
            raise ConfigError(
                f"an instruction budget for {board.name}: the instructions of its {board.core.name} are unknown "
                f"(known: {known}); leave it out"
            )
        sram = board.sram_budget if sram is None else sram
        flash = board.flash_budget if flash is None else flash
    return Budget(sram, flash, instructions, latency)


def _check_latency(board: Board | None) -> None:
    """ConfigError if nothing estimates milliseconds on a board."""
    if board is None:
        raise ConfigError("a latency budget is one of a board: its core and clock decide; give the board too")
    core = board.core
    some = (None if known is None else 1 for known in (core.coefficients, core.cycle_coefficients))
    if board.estimated_ms(*some) is None:
        known = ", ".join(core.label for core in CORES.values() if core.cycle_coefficients is not None)
        raise ConfigError(
            f"a latency budget for {board.name}: the cycles of its {core.name} are unknown (known: {known}); leave it "
            "out, or measure a model on the board (mcuformer check-board with the board's YAML file)"
        )


def parse_bytes(text: str) -> int:
    """ "64KB" -> 65536; B, KB and MB, of 1024. ConfigError for anything else."""
    return _parse(text, UNITS, "B, KB or MB, such as 64KB")


def parse_count(text: str) -> int:
    """ "50M" -> 50000000; K, M and G, of 1000. ConfigError for anything else."""
    return _parse(text, COUNT_UNITS, "K, M or G, such as 50M")


def parse_ms(text: str) -> float:
    """ "12.5" or "12.5ms" -> 12.5. ConfigError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:ms)?\s*", text)
    if match is None or float(match[1]) == 0:
        raise ConfigError(f"{text!r}: not a time above 0; write it in milliseconds, such as 12.5")
    return float(match[1])


def _parse(text: str, units: dict[str, int], legal: str) -> int:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in units or float(match[1]) == 0:
        raise ConfigError(f"{text!r}: not an amount above 0; write it in {legal}")
    return round(float(match[1]) * units[match[2].upper()])


def check_reachable(
    space: SearchSpace, cost: Callable[[SubnetConfig], Cost], budget: Budget, names: dict[str, str] = NAMES
) -> list[SubnetConfig]:
    """At least one subnet within the budget, to start from; PlanError names the smallest if there is none.

    The arena is the largest of its layers' and the rest adds up over them, so each minimum belongs to a subnet of equal
    layers and least depth: all of those are checked. If none meets all limits at once, a few thousand subnets of
    unequal layers are drawn before giving up. names: what a Cost's numbers are, in errors.
    """
    costs = {config: cost(config) for config in space.uniform(min(space.depth))}
    for name, limit in budget.limits():
        config = min(costs, key=lambda c: costs[c].of(name))  # noqa: B023 (used immediately)
        if (least := costs[config].of(name)) > limit:
            raise PlanError(
                f"no subnet of the space has at most {limit:,} {names[name]}: the smallest has {least:,} "
                f"({_words(config)}); raise the {name} budget, or add smaller choices to the space"
            )
    fitting = [config for config, found in costs.items() if budget.admits(found)]
    if fitting:
        return fitting
    rng = random.Random(0)
    for _ in range(RANDOM_TRIES):
        if budget.admits(cost(config := space.sample(rng))):
            return [config]
    smallest = {name: min(found.of(name) for found in costs.values()) for name, _ in budget.limits()}
    raise PlanError(
        "no subnet found that meets all limits at once, though each alone can be met: the smallest have "
        + ", ".join(f"{value:,} {names[name]}" for name, value in smallest.items())
        + "; raise a budget, or add smaller choices to the space"
    )


def _words(config: SubnetConfig) -> str:
    layer = config.layers[0]
    rank = "" if layer.rank is None else f", rank {layer.rank}"
    around = "" if layer.attention_rank is None else f", rank {layer.attention_rank} around attention"
    return (
        f"{config.tokens} tokens of width {config.embed_dim}, {config.depth} layers of {layer.num_heads} heads, "
        f"{layer.kv_heads} key/value heads, MLP {layer.mlp_dim}{rank}{around}"
    )

# SPDX-License-Identifier: Apache-2.0
"""What search, evolve and demo share: the budget options, and the line that says what a subnet costs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from mcuformer.errors import ConfigError
from mcuformer.sizes import size_text

if TYPE_CHECKING:
    from mcuformer.boards import Board
    from mcuformer.converter.subnet_config import LayerConfig, SubnetConfig
    from mcuformer.nas.cost import Budget, Cost

board_option = click.option("--board", help="Budget of this board (see `mcuformer boards`).")
sram_option = click.option("--sram", help="Most bytes of arena, such as 64KB.")
flash_option = click.option("--flash", help="Most bytes of model, such as 500KB.")
instructions_option = click.option("--instructions", help="Most instructions per image, such as 50M.")
latency_option = click.option(
    "--latency", help="Most milliseconds per image, such as 50: an estimate, of the board's core and clock."
)
strips_option = click.option("--strips/--no-strips", help="The image comes a few rows at a time; the arena holds none.")


def budget_of(board: Board | None, **amounts: str | float | None) -> Budget:
    """The budget that --board and amounts (sram, flash, instructions, latency) describe; ConfigError without any."""
    from mcuformer.nas import cost

    if board is None and not any(amounts.values()):
        raise ConfigError(f"no budget: give --board, or {' or '.join(f'--{name}' for name in amounts)}")
    parsers: dict[str, Callable[[str], Any]] = {"instructions": cost.parse_count, "latency": cost.parse_ms}
    limits: dict[str, Any] = dict.fromkeys(("sram", "flash", "instructions"))
    for name, amount in amounts.items():
        try:
            limits[name] = None if amount is None else parsers.get(name, cost.parse_bytes)(str(amount))
        except ConfigError as error:
            raise ConfigError(f"--{name} {error}") from error
    return cost.board_budget(board, **limits)


def input_words(config: SubnetConfig) -> str:
    """What a subnet takes, and its stem."""
    height, width, _ = config.image_shape
    channels = itertools.zip_longest(config.conv_channels, config.block_hidden, fillvalue=0)
    words = ", ".join(f"{count} and a block of {hidden}" if hidden else str(count) for count, hidden in channels)
    stem = f"convolutions {words}" if config.stem == "conv" else f"patches of {size_text(config.patch_size)}"
    return f"{height}x{width} pixels, {stem}"


def network_words(config: SubnetConfig) -> str:
    """What a subnet takes, and its dimensions. Layers as query heads / key and value heads (r rank) x MLP width (r
    rank)."""
    from mcuformer.converter.skeleton import attention_ranks, runs_as_factors

    def mlp(layer: LayerConfig) -> str:
        factors = runs_as_factors(layer.rank, config.embed_dim, layer.mlp_dim)
        return f"{layer.mlp_dim}r{layer.rank}" if factors else str(layer.mlp_dim)

    def heads(layer: LayerConfig) -> str:
        rank, _ = attention_ranks(config.embed_dim, layer)
        return f"{layer.num_heads}/{layer.kv_heads}r{rank}" if rank else f"{layer.num_heads}/{layer.kv_heads}"

    layers = ", ".join(f"{heads(layer)}x{mlp(layer)}" for layer in config.layers)
    return (
        f"{input_words(config)}; {config.tokens} tokens of width {config.embed_dim}, {config.depth} layers ({layers})"
    )


def describe(config: SubnetConfig, cost: Cost) -> str:
    """One line: dimensions and cost of a subnet."""
    count = "instructions unknown" if cost.instructions is None else f"{cost.instructions / 1e6:.1f} M instructions"
    ms = "" if cost.latency is None else f", about {cost.latency:.1f} ms, an estimate"
    return f"{network_words(config)}: arena {cost.sram:,} bytes, model at most {cost.flash:,} bytes, {count}{ms}"


def bytes_words(board: str | None) -> str:
    """Whose bytes an arena's are."""
    if board is None:
        return "arenas in bytes of the 64-bit interpreter; a microcontroller's structures are smaller: give --board"
    return f"arenas in bytes of {board}"

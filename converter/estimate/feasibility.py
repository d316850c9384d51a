# SPDX-License-Identifier: Apache-2.0
"""How much arena would this config take? Answered from the dimensions alone, for the search.

Equal to the full plan (tests and benchmarks/feasibility.py compare): its head is the most bytes in use in any step. A
norm has a factor tensor unless there is only one channel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from mcuformer.converter.memory.arena import tail_bytes
from mcuformer.converter.memory.board_arena import arena_of
from mcuformer.converter.memory.plan import align
from mcuformer.converter.skeleton import Part, Place, Schedule, Skeleton, kept, skeleton, with_more_heads
from mcuformer.converter.subnet_config import SubnetConfig

_Tally = tuple[int, tuple[int, ...], int, int]
"""All that the arena of a part or a network depends on: the most bytes in use in any op; bytes that each op keeps in
the tail; tensors (constants and outputs) in the file; scratch buffers."""

_Row = tuple[Callable[[Any], int], Callable[[Any], int], Callable[[Any], int], int | None, tuple[int, ...]]
"""An op's bytes of output, scratch_bytes and constants; the activation that its output overwrites, and the others alive
when it begins: 0 is the part's input, i + 1 the output of op i."""


def arena_bytes(
    config: SubnetConfig, schedule: str = "streamed", strips: bool = False, weights: str = "xip",
    residual: str = "per-channel",
) -> int:  # fmt: skip
    """Arena, head and tail, of convert(...) with the same arguments, in the 64-bit interpreter.

    For the default quantisation but residual, as in QuantisationOptions; "per-tensor" is counted as "per-channel", and
    takes a few dozen bytes less per layer. A 32-bit board usually takes less: board_arena_bytes.
    """
    network = skeleton(config, _schedule(schedule, strips, weights, residual))
    head, op_data, tensors, scratch = _tally(network)
    return head + tail_bytes(op_data, tensors, scratch, network.inputs)


def board_arena_bytes(
    config: SubnetConfig, schedule: str = "streamed", strips: bool = False, weights: str = "xip",
    residual: str = "per-channel",
) -> int:  # fmt: skip
    """The same on a 32-bit board: what Model.arena_bytes(board) is after convert(...) with the same arguments."""
    network = skeleton(config, _schedule(schedule, strips, weights, residual))
    head, op_data, tensors, scratch = _tally(network)
    return arena_of(head, op_data, tensors, network.inputs, scratch, activations=network.inputs + len(op_data))


def fits(
    config: SubnetConfig, sram_bytes: int, schedule: str = "streamed", strips: bool = False, weights: str = "xip"
) -> bool:
    """Whether board_arena_bytes() is at most sram_bytes."""
    return board_arena_bytes(config, schedule, strips, weights) <= sram_bytes


def filled(network: Skeleton) -> Skeleton:
    """The ops that convert(..., weights="xip", scratch=None) makes: more key/value heads at once where the arena has
    room for them, which passes/scratch.py chooses on the graph."""
    return with_more_heads(network, _tally(network)[0])


@functools.lru_cache
def _schedule(name: str, strips: bool, weights: str, residual: str) -> Schedule:
    return Schedule(name, strips, weights, wide=int(residual == "int16"))


def _tally(network: Skeleton) -> _Tally:
    head, tensors, scratch = 0, network.inputs, 0
    op_data: tuple[int, ...] = ()
    for _, recipe in network.recipes:
        part_head, part_op_data, part_tensors, part_scratch = _tally_of(*recipe)
        if part_head > head:
            head = part_head
        op_data += part_op_data
        tensors += part_tensors
        scratch += part_scratch
    return head, op_data, tensors, scratch


@kept
def _tally_of(make: Callable[..., Part], *arguments: Any) -> _Tally:
    input_bytes, ops = make(*arguments)
    places, dims_of_ops = zip(*ops)  # noqa: B905 (strict=True takes 0.2 us, here and below)
    rows, op_data = _rows(places)
    sizes = [align(input_bytes)]
    head, tensors, buffers = 0, len(ops), 0
    for dims, row in zip(dims_of_ops, rows):  # noqa: B905
        output_bytes, scratch_bytes, constants, overwritten, others = row
        live = align(output_bytes(dims))
        sizes.append(live)
        if overwritten is not None and sizes[overwritten] > live:
            live = sizes[overwritten]
        for i in others:
            live += sizes[i]
        if scratch := scratch_bytes(dims):
            live += align(scratch)
            buffers += 1
        if live > head:
            head = live
        tensors += constants(dims)
    return head, op_data, tensors, buffers


@functools.cache
def wide_output_bytes(module: ModuleType) -> Callable[[Any], int]:
    """Of an op whose output may be int16."""
    return lambda dims: module.output_elements(dims) << dims.wide


@functools.lru_cache(maxsize=256)
def _rows(places: tuple[Place, ...]) -> tuple[list[_Row], tuple[int, ...]]:
    """What is known of a part's ops from their places alone: a row each, and the bytes that each keeps in the tail."""
    last_read = {source: at for at, place in enumerate(places) for _, source in place.reads}
    alive, rows = {-1}, []
    for at, (module, _, reads, _) in enumerate(places):
        ends = {position: source for position, source in reads if last_read[source] == at}
        over = next((ends[position] for position in module.OVERWRITES if position in ends), None)
        others = tuple([source + 1 for source in alive if source != over])
        over = None if over is None else over + 1
        output_bytes = wide_output_bytes(module) if "output" in getattr(module, "WIDE", ()) else module.output_elements
        rows.append((output_bytes, module.scratch_bytes, module.constants, over, others))
        alive = (alive | {at}) - set(ends.values())
    return rows, tuple([place.module.OP_DATA_BYTES for place in places])

# SPDX-License-Identifier: Apache-2.0
"""How much arena would this config take? Answered from the dimensions alone, for the search.

Equal to the full plan (tests and benchmarks/feasibility.py compare): its head is the most bytes in use in any step. A
norm has a factor tensor unless there is only one channel.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from mcuformer.converter.memory.arena import tail_bytes
from mcuformer.converter.memory.board_arena import arena_of
from mcuformer.converter.memory.plan import align
from mcuformer.converter.skeleton import Part, Schedule, Skeleton, per_part, skeleton
from mcuformer.converter.subnet_config import SubnetConfig


class _Tally(NamedTuple):
    """All that the arena of a part or a network depends on. head: the most bytes in use in any step; op_data: bytes
    that each op keeps in the tail; tensors: constants and outputs in the file; scratch: buffers."""

    head: int
    op_data: list[int]
    tensors: int
    scratch: int


def arena_bytes(config: SubnetConfig, schedule: str = "streamed", strips: bool = False, weights: str = "xip") -> int:
    """Arena, head and tail, of convert(...) with the same arguments, in the 64-bit interpreter.

    For the default quantisation; residual="per-tensor" takes a few dozen bytes less per layer. A 32-bit board usually
    takes less: board_arena_bytes.
    """
    network = skeleton(config, _schedule(schedule, strips, weights))
    t = _tally(network)
    return t.head + tail_bytes(t.op_data, t.tensors, t.scratch, network.inputs)


def board_arena_bytes(
    config: SubnetConfig, schedule: str = "streamed", strips: bool = False, weights: str = "xip"
) -> int:
    """The same on a 32-bit board: what Model.arena_bytes(board) is after convert(...) with the same arguments."""
    network = skeleton(config, _schedule(schedule, strips, weights))
    t = _tally(network)
    activations = network.inputs + len(t.op_data)
    return arena_of(t.head, t.op_data, t.tensors, network.inputs, t.scratch, activations)


def fits(
    config: SubnetConfig, sram_bytes: int, schedule: str = "streamed", strips: bool = False, weights: str = "xip"
) -> bool:
    """Whether board_arena_bytes() is at most sram_bytes."""
    return board_arena_bytes(config, schedule, strips, weights) <= sram_bytes


@functools.lru_cache
def _schedule(name: str, strips: bool, weights: str) -> Schedule:
    return Schedule(name, strips, weights)


def _tally(network: Skeleton) -> _Tally:
    head, op_data, tensors, scratch = 0, [], network.inputs, 0
    for _, part in network.parts:
        of_part = _tally_of(part)
        head = max(head, of_part.head)
        op_data += of_part.op_data
        tensors += of_part.tensors
        scratch += of_part.scratch
    return _Tally(head, op_data, tensors, scratch)


@per_part
def _tally_of(part: Part) -> _Tally:
    sizes = [align(part.input_bytes)]
    head, op_data, tensors, buffers = 0, [], len(part.steps), 0
    for (module, _, dims, _, _), (alive, over) in zip(part.steps, _lives(part), strict=True):
        sizes.append(align(module.output_elements(dims)))
        scratch = module.scratch_bytes(dims)
        live = align(scratch)
        for i in alive:
            live += sizes[i]
        if over is not None:
            live -= min(sizes[over], sizes[-1])
        head = max(head, live)
        op_data.append(module.OP_DATA_BYTES)
        tensors += module.constants(dims)
        buffers += scratch > 0
    return _Tally(head, op_data, tensors, buffers)


def _lives(part: Part) -> tuple[tuple[tuple[int, ...], int | None], ...]:
    """For each step: the activations alive in it, and the one that its output overwrites. 0 is the part's input, i + 1
    the output of step i."""
    return _lives_of(tuple([(step.module.OVERWRITES, step.reads) for step in part.steps]))


@functools.lru_cache(maxsize=1024)
def _lives_of(
    steps: tuple[tuple[tuple[int, ...], tuple[tuple[int, int], ...]], ...],
) -> tuple[tuple[tuple[int, ...], int | None], ...]:
    """steps: OVERWRITES and reads of each."""
    last_read = {source: at for at, (_, reads) in enumerate(steps) for _, source in reads}
    alive, found = {-1}, []
    for at, (overwrites, reads) in enumerate(steps):
        alive.add(at)
        ends = {position: source for position, source in reads if last_read[source] == at}
        over = next((ends[position] for position in overwrites if position in ends), None)
        found.append((tuple(i + 1 for i in sorted(alive)), None if over is None else over + 1))
        alive -= set(ends.values())
    return tuple(found)

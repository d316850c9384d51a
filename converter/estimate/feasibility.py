# SPDX-License-Identifier: Apache-2.0
"""The search's question: how much arena would this config take? Answered from the dimensions alone.

The answer equals that of the full plan (tests and benchmarks/feasibility.py compare), whose head is the most in use in
one step. A norm has a factor tensor unless there is but one channel.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from mcuformer.converter.memory.arena import tail_bytes
from mcuformer.converter.memory.board_arena import arena_of
from mcuformer.converter.memory.plan import align
from mcuformer.converter.skeleton import Part, Schedule, Skeleton, skeleton
from mcuformer.converter.subnet_config import SubnetConfig


@dataclass(frozen=True)
class _Tally:
    """What of a part or a network the arena depends on. head: the most in use in one step; op_data: bytes that each op
    keeps in the tail; tensors: constants and outputs in the file; scratch: buffers."""

    head: int
    op_data: tuple[int, ...]
    tensors: int
    scratch: int


def arena_bytes(config: SubnetConfig, schedule: str = "streamed", strips: bool = False, weights: str = "xip") -> int:
    """The arena, head and tail, of convert(...) with the same arguments, in the host's 64-bit interpreter.

    Of the default quantisation; with residual="per-tensor" the plan is some tens of bytes a layer smaller. A 32-bit
    board mostly takes less: board_arena_bytes.
    """
    network = skeleton(config, Schedule(schedule, strips, weights))
    t = _tally(network)
    return t.head + tail_bytes(t.op_data, t.tensors, t.scratch, network.inputs)


def board_arena_bytes(
    config: SubnetConfig, schedule: str = "streamed", strips: bool = False, weights: str = "xip"
) -> int:
    """The same on a 32-bit board: what Model.arena_bytes(board) is after convert(...) with the same arguments."""
    network = skeleton(config, Schedule(schedule, strips, weights))
    t = _tally(network)
    activations = network.inputs + len(t.op_data)
    return arena_of(t.head, t.op_data, t.tensors, network.inputs, t.scratch, activations)


def fits(
    config: SubnetConfig, sram_bytes: int, schedule: str = "streamed", strips: bool = False, weights: str = "xip"
) -> bool:
    """Whether the arena on a board, as board_arena_bytes has it, is at most sram_bytes."""
    return board_arena_bytes(config, schedule, strips, weights) <= sram_bytes


def _tally(network: Skeleton) -> _Tally:
    parts = [_tally_of(part) for _, part in network.parts]
    return _Tally(
        head=max(part.head for part in parts),
        op_data=tuple(size for part in parts for size in part.op_data),
        tensors=network.inputs + sum(part.tensors for part in parts),
        scratch=sum(part.scratch for part in parts),
    )


@functools.lru_cache(maxsize=65536)
def _tally_of(part: Part) -> _Tally:
    scratch = [step.module.scratch_bytes(step.dims) for step in part.steps]
    return _Tally(
        head=max(live + align(size) for live, size in zip(_live_bytes(part), scratch, strict=True)),
        op_data=tuple(step.module.OP_DATA_BYTES for step in part.steps),
        tensors=sum(len(step.module.constant_bytes(step.dims)) + 1 for step in part.steps),
        scratch=sum(size > 0 for size in scratch),
    )


def _live_bytes(part: Part) -> list[int]:
    """Bytes of activations alive in every step of a part, each rounded up to 16; of two that stand over each other the
    larger counts."""
    last_read = {source: at for at, step in enumerate(part.steps) for _, source in step.reads}
    sizes = {-1: align(part.input_bytes)}
    alive, found = {-1}, []
    for at, step in enumerate(part.steps):
        sizes[at] = align(step.module.output_elements(step.dims))
        alive.add(at)
        ends = {position: source for position, source in step.reads if last_read[source] == at}
        over = next((ends[position] for position in step.module.OVERWRITES if position in ends), None)
        shared = 0 if over is None else min(sizes[over], sizes[at])
        found.append(sum(sizes[i] for i in alive) - shared)
        alive -= set(ends.values())
    return found

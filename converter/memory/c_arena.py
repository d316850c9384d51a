# SPDX-License-Identifier: Apache-2.0
"""The arena of a model in C, without an interpreter: what the C export declares, and the C engine allocates."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from mcuformer.converter.graph import Graph
from mcuformer.converter.memory import plan as memory_plan
from mcuformer.converter.memory.arena import problem_of
from mcuformer.converter.memory.plan import Problem


@dataclass(frozen=True)
class CArena:
    """Where activations and scratch lie, bytes. offsets: by tensor, without the output; scratch: by op, where it has
    some."""

    offsets: dict[int, int]
    scratch: dict[int, int]
    bytes: int


def plan_c_arena(graph: Graph, keep_inputs: bool) -> CArena:
    """The output of the graph never lies in the arena; its inputs do with keep_inputs, unless they come in strips."""
    problem, tensors = problem_of(graph)
    outside = {graph.output} if keep_inputs else {graph.output, *graph.inputs}
    kept = [i for i, tensor in enumerate(tensors) if tensor not in outside]
    place: dict[int | None, int] = {old: new for new, old in enumerate(kept)}
    buffers = tuple(
        dataclasses.replace(problem.buffers[i], overwrites=place.get(problem.buffers[i].overwrites)) for i in kept
    )
    solution = memory_plan.plan(Problem(buffers, problem.scratch))
    offsets = dict(zip((tensors[i] for i in kept), solution.offsets, strict=True))
    scratch = {
        buffer.first - 1: offset for buffer, offset in zip(problem.scratch, solution.scratch_offsets, strict=True)
    }
    return CArena(offsets, scratch, max(solution.head_bytes, memory_plan.ALIGNMENT))

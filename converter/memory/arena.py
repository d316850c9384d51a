# SPDX-License-Identifier: Apache-2.0
"""From a graph to its memory plan and the size of the whole arena, head and tail."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from mcuformer.converter.file_form import stored_tensors
from mcuformer.converter.graph import Graph
from mcuformer.converter.memory import plan as memory_plan
from mcuformer.converter.memory.plan import Buffer, Problem, Solution, align

# What the 64-bit interpreter of the tflite-micro wheel keeps in the tail, in bytes (measured; tests compare).
TAIL_BASE = 488  # the allocators and the graph
TAIL_PER_OP = 64
TAIL_PER_TENSOR = 24
TAIL_PER_SCRATCH = 8
TAIL_PER_POINTER = 8  # per input, and to the output
TAIL_PER_PORT = 96  # per input, and of the output: tensor and quantisation

# While preparing a model, the interpreter keeps its planning lists where the head will be.
PLANNING_BASE = 256
PLANNING_PER_TENSOR = 32  # per tensor and scratch buffer
PLANNING_PER_BUFFER = 40  # per planned buffer
PLANNING_PER_SCRATCH = 16  # per request for scratch


@dataclass(frozen=True)
class ArenaPlan:
    """The memory plan of one model. tensors[i] is the graph's tensor of problem.buffers[i]; all sizes in bytes."""

    problem: Problem
    solution: Solution
    tensors: tuple[int, ...]
    tail_bytes: int
    planning_bytes: int

    @property
    def head_bytes(self) -> int:
        return self.solution.head_bytes

    @property
    def arena_bytes(self) -> int:
        """Head and tail, as the interpreter of the tflite-micro wheel reports it."""
        return self.head_bytes + self.tail_bytes

    @property
    def needed_bytes(self) -> int:
        """The arena to give the interpreter: arena_bytes, or more if planning needs more than the head."""
        return self.tail_bytes + align(max(self.head_bytes, self.planning_bytes))

    @property
    def sizes(self) -> dict[str, int]:
        """What a model file says about its arena."""
        return {"head_bytes": self.head_bytes, "arena_bytes": self.arena_bytes, "needed_bytes": self.needed_bytes}

    def tensor_offsets(self, graph: Graph) -> list[int]:
        """Offset of each graph tensor in the arena, -1 for constants."""
        offsets = dict(zip(self.tensors, self.solution.offsets, strict=True))
        return [offsets.get(i, -1) for i in range(len(graph.tensors))]


def problem_of(graph: Graph) -> tuple[Problem, tuple[int, ...]]:
    """The planning problem of a graph, and the graph tensor of each of its buffers, in ascending order.

    An output overwrites the first input in the op's OVERWRITES order that is an activation used here for the last time.
    """
    inputs = [i for i in graph.inputs if not graph.tensors[i].external]
    first, last = dict.fromkeys(inputs, 0), dict.fromkeys(inputs, 0)
    for step, op in enumerate(graph.ops, start=1):
        for i in op.inputs:
            if i in first:
                last[i] = step
        first[op.output] = last[op.output] = step
    last[graph.output] = len(graph.ops)
    tensors = tuple(sorted(first))
    index = {tensor: i for i, tensor in enumerate(tensors)}
    producer = {op.output: (step, op) for step, op in enumerate(graph.ops, start=1)}

    def overwritten(tensor: int) -> int | None:
        if tensor not in producer:
            return None
        step, op = producer[tensor]
        for position in op.module.OVERWRITES:
            source = op.inputs[position] if position < len(op.inputs) else -1
            if source in first and last[source] == step and source != graph.output:
                return index[source]
        return None

    buffers = tuple(
        Buffer(graph.tensors[t].name, graph.tensors[t].bytes, first[t], last[t], overwritten(t)) for t in tensors
    )
    scratch = tuple(
        Buffer(f"{graph.tensors[op.output].name} scratch", size, step, step)
        for step, op in enumerate(graph.ops, start=1)
        if (size := graph.scratch_bytes(op))
    )
    return Problem(buffers, scratch), tensors


def plan_arena(graph: Graph) -> ArenaPlan:
    """Plans a graph. The plan is validated."""
    problem, tensors = problem_of(graph)
    return _arena(graph, problem, tensors, memory_plan.plan(problem))


def stored_plan(graph: Graph, offsets: Sequence[int]) -> ArenaPlan:
    """The plan that a file states: offsets, one per tensor, -1 for constants. ValueError, or PlanError as of
    validate(), if it cannot be."""
    problem, tensors = problem_of(graph)
    if len(offsets) != len(graph.tensors):
        raise ValueError(f"{len(offsets)} offsets for {len(graph.tensors)} tensors")
    placed = {i for i, offset in enumerate(offsets) if offset >= 0}
    if odd := placed.symmetric_difference(tensors):
        name = graph.tensors[min(odd)].name
        raise ValueError(f"{name} has {'a' if min(odd) in placed else 'no'} place in the arena")
    solution = memory_plan.with_scratch(problem, [offsets[i] for i in tensors])
    memory_plan.validate(problem, solution)
    return _arena(graph, problem, tensors, solution)


def _arena(graph: Graph, problem: Problem, tensors: tuple[int, ...], solution: Solution) -> ArenaPlan:
    stored = stored_tensors(graph)
    planning = PLANNING_BASE + PLANNING_PER_TENSOR * (stored + len(problem.scratch))
    planning += PLANNING_PER_BUFFER * (len(problem.buffers) + len(problem.scratch))
    planning += PLANNING_PER_SCRATCH * len(problem.scratch)
    inputs = sum(not graph.tensors[i].external for i in graph.inputs)
    tail = tail_bytes(tuple(op.module.OP_DATA_BYTES for op in graph.ops), stored, len(problem.scratch), inputs)
    return ArenaPlan(problem, solution, tensors, tail, planning)


def with_op_data(tail: int, op_data: tuple[int, ...]) -> int:
    """The tail of so many bytes, and op data (bytes per op), each at a multiple of 16 bytes from the arena's top."""
    first, more = _op_data(op_data)
    return align(tail + first) + more if first else tail


@functools.lru_cache(maxsize=256)
def _op_data(op_data: tuple[int, ...]) -> tuple[int, int]:
    """Bytes of the first op's that has any, and of all others', each rounded up."""
    first, *more = [size for size in op_data if size] or [0]
    return first, sum(map(align, more))


def tail_bytes(op_data: tuple[int, ...], tensors: int, scratch: int, inputs: int) -> int:
    """The tail of the 64-bit interpreter. Op data and lists of pointers start at multiples of 16 bytes from its top.

    op_data: bytes per op, 0 for none; tensors: all in the file; scratch: buffers; inputs: 0 or 1, with 1 output.
    """
    tail = TAIL_BASE + TAIL_PER_OP * len(op_data) + TAIL_PER_TENSOR * tensors
    tail = with_op_data(tail, op_data) + TAIL_PER_SCRATCH * scratch
    tail = align(tail + TAIL_PER_POINTER * inputs) + TAIL_PER_PORT * inputs
    return align(tail + TAIL_PER_POINTER) + TAIL_PER_PORT

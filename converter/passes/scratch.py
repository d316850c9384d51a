# SPDX-License-Identifier: Apache-2.0
"""How many tokens an op works on at a time, and the tile of its staged weights: what scratch allows.

With weights read in place, blocks of four tokens are best: the kernels compute four at a time, and more take scratch
for nothing; fewer take less scratch and run slower. Staged weights are read anew for every block of tokens: there, the
more scratch, the fewer bytes are read.
"""

from __future__ import annotations

from dataclasses import dataclass

from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.memory.arena import plan_arena, problem_of
from mcuformer.converter.memory.plan import Problem, align
from mcuformer.converter.passes import staging
from mcuformer.errors import PlanError

READ_COST = 128  # what one read costs beside its bytes, in bytes: command, address, the driver's way
LARGEST_TILE = 16384  # bytes; above that the cost of a read does not count


@dataclass(frozen=True)
class _Choice:
    """One way to run an op. cost: bytes read, READ_COST for every read; or blocks of tokens."""

    cost: int
    scratch: int
    sizes: dict[str, int]


def fit_scratch(graph: Graph, limit: int) -> Graph:
    """The graph in which no op takes more scratch than `limit` bytes, and every op is as quick as that allows.

    PlanError with the smallest limit that would do.
    """
    choices = {i: _choices(graph, op) for i, op in enumerate(graph.ops)}
    needs = {i: min(c.scratch for c in found) for i, found in choices.items() if found}
    if needs and (most := max(needs.values())) > limit:
        culprit = graph.ops[max(needs, key=needs.get)]
        raise PlanError(
            f"scratch = {limit} bytes: {graph.tensors[culprit.output].name} ({culprit.kind}) cannot do with less than "
            f"{most}; give at least that"
        )
    return _choose(graph, choices, dict.fromkeys(needs, limit))


def fill_arena(graph: Graph, spare: int = 0) -> Graph:
    """A graph with staged weights, in which every op takes what scratch it can without a larger arena.

    spare: bytes by which the arena may be larger than the least.
    """
    least = plan_arena(graph)
    problem, _ = problem_of(graph)
    room = {i: least.head_bytes + spare - _live(problem, i + 1) for i in range(len(graph.ops))}
    choices = {i: _choices(graph, op) for i, op in enumerate(graph.ops)}
    fits = {i: found for i, found in choices.items() if found and min(c.scratch for c in found) <= room[i]}
    filled = _choose(graph, fits, room)
    return filled if plan_arena(filled).head_bytes <= least.head_bytes + align(spare) else graph


def _choose(graph: Graph, choices: dict[int, list[_Choice]], limits: dict[int, int]) -> Graph:
    for i, limit in limits.items():
        possible = [choice for choice in choices.get(i, []) if choice.scratch <= limit]
        if possible:
            best = min(possible, key=lambda choice: (choice.cost, choice.scratch))
            if best.sizes:
                graph = staging.resize(graph, graph.ops[i], **best.sizes)
    return graph


def _choices(graph: Graph, op: Op) -> list[_Choice]:
    """Ways to run an op; one without sizes where there is but one; none where it takes no scratch."""
    scratch = graph.scratch_bytes(op)
    if not scratch:
        return []
    tokens = graph.tensors[op.output].shape[1] if op.kind in staging.STREAMED else 1
    if staging.traffic(graph, op) == (0, 0):
        if op.kind not in staging.STREAMED:
            return [_Choice(0, scratch, {})]
        return [_way(graph, op, {"block": block}) for block in {min(4, tokens), min(2, tokens), 1}]
    layers = staging.packed_layers_of(graph, op)
    least = staging.least_tile(layers)
    whole = max(row * rows for row, rows in layers)
    tiles, tile = [], least
    while not tiles or tiles[-1] < min(whole, LARGEST_TILE):
        tiles.append(tile)
        tile *= 2
    return [_way(graph, op, {"block": block, "tile_bytes": tile}) for block in _blocks(graph, op) for tile in tiles]


def _way(graph: Graph, op: Op, sizes: dict[str, int]) -> _Choice:
    i = graph.ops.index(op)
    resized = staging.resize(graph, op, **sizes)
    op = resized.ops[i]
    read, reads = staging.traffic(resized, op)
    tokens = graph.tensors[op.output].shape[1]
    cost = read + READ_COST * reads if reads else -(-tokens // sizes["block"])
    return _Choice(cost, resized.scratch_bytes(op), sizes)


def _blocks(graph: Graph, op: Op) -> list[int]:
    """Sizes of block worth trying: the smallest for every number of blocks."""
    if op.kind == "DecomposedPatchEmbed":
        _, _, width, _ = graph.tensors[op.inputs[0]].shape
        if 0 < op.options.strip_rows < op.options.patch_size:
            return [1]  # a whole row of tokens anyway
        fours = -(-(width // op.options.patch_size) // 4)
        return sorted({-(-fours // n) for n in range(1, fours + 1)})
    shape = graph.tensors[op.inputs[0]].shape
    tokens = shape[0] if len(shape) == 2 else shape[1]
    if tokens <= 4:
        return [tokens]
    fours = -(-tokens // 4)
    return sorted({min(4 * -(-fours // n), tokens) for n in range(1, fours + 1)})


def _live(problem: Problem, step: int) -> int:
    """Bytes of activations in a step, one that overwrites another counted with it."""
    alive = [i for i, buffer in enumerate(problem.buffers) if buffer.first <= step <= buffer.last]
    size = {i: align(problem.buffers[i].size) for i in alive}
    for i in alive:
        over = problem.buffers[i].overwrites
        if over in size:
            size[i] = max(size[i], size.pop(over))
    return sum(size.values())

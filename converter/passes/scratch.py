# SPDX-License-Identifier: Apache-2.0
"""Chooses how many tokens and key/value heads each op handles at a time, and the size of its weight tile, within the
scratch limit or the arena.

With weights in place, four tokens are best: the kernels compute four together; more waste scratch, fewer are slower.
Staged weights are read again each time: there, more tokens, in more scratch, mean fewer bytes read. Each
pass over key/value heads normalises all tokens again: more heads at once are faster.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.memory.arena import plan_arena, problem_of
from mcuformer.converter.memory.plan import Problem, align
from mcuformer.converter.ops import streamed_attention
from mcuformer.converter.ops.packed_weights import least_tile, row_bytes_and_rows
from mcuformer.converter.passes import staging
from mcuformer.errors import PlanError

READ_COST = 128  # bytes that one read costs on top: command, address, driver
LARGEST_TILE = 16384  # bytes; reads larger than this: the cost per read no longer matters


@dataclass(frozen=True)
class _Choice:
    """One way to run an op. cost: bytes read plus READ_COST per read; or less for more tokens at a time. tokens,
    tile_bytes: as staging.resize() takes them; tokens 0: as the op is."""

    cost: int
    scratch: int
    tokens: int = 0
    tile_bytes: int = 0


def fit_scratch(graph: Graph, limit: int) -> Graph:
    """The graph in which no op takes more than `limit` bytes of scratch, each op as fast as that allows.

    PlanError names the smallest limit that works.
    """
    choices = {i: _choices(graph, op) for i, op in enumerate(graph.ops)}
    needs = {i: min(c.scratch for c in found) for i, found in choices.items() if found}
    if needs and (most := max(needs.values())) > limit:
        culprit = graph.ops[max(needs, key=lambda i: needs[i])]
        raise PlanError(
            f"scratch = {limit} bytes: {graph.tensors[culprit.output].name} ({culprit.kind}) needs at least "
            f"{most}; give that or more"
        )
    return _choose(graph, choices, dict.fromkeys(needs, limit))


def fill_arena(graph: Graph, spare: int = 0) -> Graph:
    """A graph with staged weights in which every op uses the scratch it can without enlarging the arena.

    spare: bytes by which the arena may exceed the minimum.
    """
    least = plan_arena(graph)
    problem, _ = problem_of(graph)
    room = {i: least.head_bytes + spare - _live(problem, i + 1) for i in range(len(graph.ops))}
    choices = {i: _choices(graph, op) for i, op in enumerate(graph.ops)}
    fits = {i: found for i, found in choices.items() if found and min(c.scratch for c in found) <= room[i]}
    filled = _choose(graph, fits, room)
    return filled if plan_arena(filled).head_bytes <= least.head_bytes + align(spare) else graph


def fit_heads(graph: Graph) -> Graph:
    """A graph with weights in place in the least arena, in which every StreamedAttention has as many key/value heads at
    once as that arena has room for. estimate/feasibility.py says the same from dimensions alone."""

    def with_heads(heads_of: Callable[[int, streamed_attention.Dims], int]) -> Graph:
        ops = list(graph.ops)
        for i, op in enumerate(ops):
            if op.module is streamed_attention:
                heads = heads_of(i, graph.dims(op))
                ops[i] = dataclasses.replace(op, options=dataclasses.replace(op.options, kv_heads_at_once=heads))
        return Graph(list(graph.tensors), ops, list(graph.inputs), graph.output)

    def fewest(_: int, d: streamed_attention.Dims) -> int:
        return streamed_attention.kv_heads_at_once(
            d.tokens, d.embed_dim, d.num_heads, d.kv_heads, d.head_dim, d.table_length
        )

    def most(i: int, d: streamed_attention.Dims) -> int:
        room = head - _live(problem, i + 1)
        return streamed_attention.kv_heads_within(d._replace(kv_heads_at_once=fewest(i, d)), room - room % align(1))

    least = with_heads(fewest)
    head, (problem, _) = plan_arena(least).head_bytes, problem_of(least)
    filled = with_heads(most)
    return filled if plan_arena(filled).head_bytes == head else least


def _choose(graph: Graph, choices: dict[int, list[_Choice]], limits: dict[int, int]) -> Graph:
    for i, limit in limits.items():
        possible = [choice for choice in choices.get(i, []) if choice.scratch <= limit]
        if possible:
            best = min(possible, key=lambda choice: (choice.cost, choice.scratch))
            if best.tokens:
                graph = staging.resize(graph, graph.ops[i], best.tokens, best.tile_bytes)
    return graph


def _choices(graph: Graph, op: Op) -> list[_Choice]:
    """The ways to run an op. One entry without tokens if there is only one way; empty if the op takes no scratch."""
    scratch, dims = graph.scratch_bytes(op), graph.dims(op)
    if not scratch:
        return []
    token_choices = op.module.token_choices(dims) if hasattr(op.module, "token_choices") else []
    if not token_choices:
        return [_Choice(0, scratch)]
    if staging.traffic(graph, op) == (0, 0):
        return [_way(graph, op, tokens) for tokens in token_choices]
    rows = [row_bytes_and_rows(inputs, outputs, dims.packing) for inputs, outputs in op.module.matrices(dims)]
    least, whole = least_tile(rows), max(row * count for row, count in rows)
    tiles: list[int] = []
    tile = least
    while not tiles or tiles[-1] < min(whole, LARGEST_TILE):
        tiles.append(tile)
        tile *= 2
    return [_way(graph, op, tokens, tile) for tokens in token_choices for tile in tiles]


def _way(graph: Graph, op: Op, tokens: int, tile_bytes: int = 0) -> _Choice:
    resized = staging.resize(graph, op, tokens, tile_bytes)
    op = resized.ops[graph.ops.index(op)]
    read, reads = staging.traffic(resized, op)
    cost = read + READ_COST * reads if reads else -tokens
    return _Choice(cost, resized.scratch_bytes(op), tokens, tile_bytes)


def _live(problem: Problem, step: int) -> int:
    """Bytes of activations in a step; one that overwrites another counts together with it."""
    alive = [i for i, buffer in enumerate(problem.buffers) if buffer.first <= step <= buffer.last]
    size = {i: align(problem.buffers[i].size) for i in alive}
    for i in alive:
        over = problem.buffers[i].overwrites
        if over in size:
            size[i] = max(size[i], size.pop(over))
    return sum(size.values())

# SPDX-License-Identifier: Apache-2.0
"""The convolutions of a stem as one op, which runs row by row: StreamedStem."""

from __future__ import annotations

import numpy as np

from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.ops import stem_conv, streamed_stem
from mcuformer.converter.ops.packed_weights import ROWS
from mcuformer.converter.ops.work import TOKEN_BLOCK


def streamed_stem_of(graph: Graph) -> Graph:
    """The same network with its StemConv ops as one; its logits are equal bit for bit. Unchanged without any."""
    count = next((i for i, op in enumerate(graph.ops) if op.kind != stem_conv.NAME), len(graph.ops))
    if not count:
        return graph
    convs, result = graph.ops[:count], Graph()
    tokens = graph.tensors[convs[-1].output]
    inside = {i for op in convs for i in (*op.inputs[1:], op.output)}
    place = {i: result.add_tensor(graph.tensors[i]) for i in graph.inputs}
    image = {"image": place[convs[0].inputs[0]]}
    made = result.add_op(
        streamed_stem.NAME, tokens.name, _options(convs), image, _constants(graph, convs), tokens.quantisation
    )
    place |= {-1: -1, convs[-1].output: made}
    for i, tensor in enumerate(graph.tensors):
        if i not in place and i not in inside:
            place[i] = result.add_tensor(tensor)
    result.ops += [
        Op(op.kind, tuple(place[i] for i in op.inputs), place[op.output], op.options) for op in graph.ops[count:]
    ]
    result.inputs, result.output = [place[i] for i in graph.inputs], place[graph.output]
    return result


def _options(convs: list[Op]) -> streamed_stem.Options:
    """Of the one op. AssertionError if lowering made other convolutions than it knows."""
    each = [op.options for op in convs]
    for conv, before in zip(each[1:], each, strict=False):
        assert (before.act_min, conv.pad_value) == (before.zero_point, before.zero_point), f"{before}, then {conv}"
    assert each[-1].act_min == -128 and len({conv.packing for conv in each}) == 1, each
    return streamed_stem.Options(
        TOKEN_BLOCK, each[0].pad_value, tuple(conv.zero_point for conv in each), each[0].packing
    )


def _constants(graph: Graph, convs: list[Op]) -> dict[str, np.ndarray | None]:
    def data(op: Op, role: str) -> np.ndarray | None:
        i = op.inputs[stem_conv.INPUTS.index(role)]
        return None if i < 0 else graph.tensors[i].values

    found = {role: data(convs[-1], role) for role in ("position", "position_scale", "prefix")}
    for name, op in zip(streamed_stem.CONVS, convs, strict=False):
        weights = graph.tensors[op.inputs[1]].values
        if op.options.packing == ROWS:
            weights = weights.reshape(len(weights), -1)
        found |= {f"{name}_weights": weights, f"{name}_bias": data(op, "bias")}
        found[f"{name}_multiplier"] = data(op, "multiplier")
    return found

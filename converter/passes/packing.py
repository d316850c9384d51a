# SPDX-License-Identifier: Apache-2.0
"""How weights lie in memory: tflm_kernels/core/mcuf_packing.h tells of each packing. All give the same results."""

from __future__ import annotations

import dataclasses

from mcuformer.boards import Board
from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS, pack

PACKINGS = {"rows": ROWS, "pairs": PAIRS}
_PACKED_OPS = ("InPlaceFC", "DecomposedPatchEmbed", "StemConv")
_WEIGHTS = 1  # position of their weights


def packing_of(board: Board | None) -> int:
    """What a board's core likes best (mcuformer/cores.py); rows without a board."""
    return ROWS if board is None else PACKINGS[board.core.packing]


def packed(graph: Graph, packing: int) -> Graph:
    """The same network with its weights packed; from a graph of schedule "overwrite" with plain rows."""
    if packing == ROWS:
        return graph
    result = Graph(list(graph.tensors), [], list(graph.inputs), graph.output)
    left = _around_odd_heads(graph)
    for op in graph.ops:
        if op.kind in _PACKED_OPS and op.output not in left:
            index = op.inputs[_WEIGHTS]
            tensor = graph.tensors[index]
            rows = tensor.data
            if op.kind == "StemConv":
                rows = rows.reshape(len(rows), -1)
            data = pack(rows, packing)
            result.tensors[index] = dataclasses.replace(tensor, data=data, shape=data.shape)
            op = Op(op.kind, op.inputs, op.output, dataclasses.replace(op.options, packing=packing))
        result.ops.append(op)
    return result


def _around_odd_heads(graph: Graph) -> set[int]:
    """Outputs of the layers before and after attention with an odd head_dim: their heads do not start at pairs."""
    found = set()
    for op in graph.ops:
        if op.kind == "IntAttention" and op.options.head_dim % 2:
            found.add(op.inputs[0])
            found.update(user.output for user in graph.ops if user.inputs[0] == op.output)
    return found

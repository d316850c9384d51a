# SPDX-License-Identifier: Apache-2.0
"""How weights are laid out in memory; tflm_kernels/core/mcuf_packing.h specifies each packing. All give the same
results.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mcuformer.boards import Board
from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.ops.packed_weights import PACKINGS, ROWS, least_tile, pack, row_bytes_and_rows, unpack
from mcuformer.converter.passes.staging import restaged
from mcuformer.converter.passes.streamed import half_layers


def packing_of(board: Board | None) -> int:
    """The packing that a board's core runs fastest (mcuformer/cores.py); rows without a board."""
    return ROWS if board is None else PACKINGS[board.core.packing]


def packed(graph: Graph, packing: int) -> Graph:
    """The same network with its weights in this packing, whatever they are in now; its logits are equal bit for bit.

    Heads of an odd width do not start at pairs: the layers before and after their attention stay in rows.
    """
    left = _around_odd_heads(graph)
    result = Graph(list(graph.tensors), [], list(graph.inputs), graph.output)
    for op in graph.ops:
        wanted = ROWS if op.output in left else packing
        if hasattr(op.module, "WEIGHTS") and op.options.packing != wanted:
            _repack(result, graph, op, wanted)
            op = _with_options(result, op, wanted)
        result.ops.append(op)
    return restaged(result)


def _repack(result: Graph, graph: Graph, op: Op, packing: int) -> None:
    """Replaces the op's weights in `result`."""
    matrices = op.module.matrices(graph.dims(op))
    for index, (inputs, outputs) in zip(graph.weights(op), matrices, strict=True):
        tensor = graph.tensors[index]
        if tensor.data is None:
            raise ValueError(f"{tensor.name}: has no data to pack")
        rows = unpack(tensor.data, outputs, op.options.packing)
        if rows.ndim == 4:  # taps of a convolution
            rows = rows.reshape(outputs, -1)
        rows = np.ascontiguousarray(rows[..., :inputs], np.int8)
        data = pack(rows, packing)
        if packing == ROWS:
            data = data.reshape(
                op.module.rows_shape(graph.dims(op)) if hasattr(op.module, "rows_shape") else data.shape
            )
        result.tensors[index] = dataclasses.replace(tensor, data=data, shape=data.shape)


def _with_options(graph: Graph, op: Op, packing: int) -> Op:
    """The op with the packing in its options and, if its weights are staged, a tile that holds two packed rows."""
    tile = getattr(op.options, "tile_bytes", 0)
    op = dataclasses.replace(op, options=dataclasses.replace(op.options, packing=packing))
    if tile:
        rows = [row_bytes_and_rows(i, o, packing) for i, o in op.module.matrices(graph.dims(op))]
        op = dataclasses.replace(op, options=dataclasses.replace(op.options, tile_bytes=max(tile, least_tile(rows))))
    return op


def _around_odd_heads(graph: Graph) -> set[int]:
    """Outputs of the ops whose matrices are before and after attention with an odd head_dim."""
    found = {op.output for op in graph.ops if op.kind == "StreamedAttention" and op.options.head_dim % 2}
    for first, last in half_layers(graph):
        half = graph.ops[first : last + 1]
        if any(op.kind == "IntAttention" and op.options.head_dim % 2 for op in half):
            found.update(op.output for op in half if op.kind == "InPlaceFC")
    return found

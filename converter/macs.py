# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulates of every op of a graph: those of matrix products, as SubnetConfig.macs counts them."""

from __future__ import annotations

import numpy as np

from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.ops import params_blob, streamed_attention, streamed_mlp


def op_macs(graph: Graph, op: Op) -> int:
    """Multiply-accumulates of one op for one image."""
    shapes = [graph.tensors[i].shape if i >= 0 else None for i in op.inputs]
    output = graph.tensors[op.output].shape
    if op.kind == "DecomposedPatchEmbed":
        return int(np.prod(output)) * op.options.patch_size**2 * shapes[0][3]
    if op.kind == "StemConv":
        return int(np.prod(output)) * 9 * shapes[0][3]
    if op.kind == "InPlaceFC":
        return int(np.prod(output[:-1])) * shapes[1][0] * shapes[1][1]
    if op.kind == "IntAttention":
        return 2 * output[1] ** 2 * shapes[1][0] * op.options.head_dim
    if op.kind == "StreamedAttention":
        return _streamed_attention(graph, op, output[1])
    if op.kind == "StreamedMLP":
        sections = params_blob.unpack(graph.tensors[op.inputs[1]].data)
        return output[1] * sum(len(weights) for weights in sections[streamed_mlp.FIRST_FC :: 3])
    return 0


def _streamed_attention(graph: Graph, op: Op, tokens: int) -> int:
    sections = params_blob.unpack(graph.tensors[op.inputs[1]].data)
    module = streamed_attention
    head_dim = params_blob.array(sections[module.SCALARS], "int32").tolist()[3]
    heads = len(sections[module.HEAD_PARAMS]) // 16
    weights = len(sections[module.QKV]) + len(sections[module.PROJ])
    return tokens * weights + 2 * tokens**2 * heads * head_dim

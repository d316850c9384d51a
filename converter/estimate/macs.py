# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulates of every op of a graph: those of matrix products, as SubnetConfig.macs counts them."""

from __future__ import annotations

import math

import numpy as np

from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.passes import staging


def op_macs(graph: Graph, op: Op) -> int:
    """Multiply-accumulates of one op for one image."""
    shapes = [graph.tensors[i].shape if i >= 0 else None for i in op.inputs]
    output = graph.tensors[op.output].shape
    if op.kind == "DecomposedPatchEmbed":
        return int(np.prod(output)) * op.options.patch_size**2 * shapes[0][3]
    if op.kind == "StemConv":
        return int(np.prod(output)) * 9 * shapes[0][3]
    if op.kind == "InPlaceFC":
        return int(np.prod(output[:-1])) * math.prod(*staging.layers_of(graph, op))
    if op.kind == "IntAttention":
        return 2 * output[1] ** 2 * shapes[1][0] * op.options.head_dim
    if op.kind in staging.STREAMED:
        macs = output[1] * sum(inputs * outputs for inputs, outputs in staging.layers_of(graph, op))
        if op.kind == "StreamedAttention":
            (_, (q_width, _)) = staging.layers_of(graph, op)
            macs += 2 * output[1] ** 2 * q_width
        return macs
    return 0

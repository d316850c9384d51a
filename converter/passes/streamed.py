# SPDX-License-Identifier: Apache-2.0
"""The schedule "streamed": each half of a layer becomes one op that works in place on the residual stream."""

from __future__ import annotations

from typing import Any

import numpy as np

from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.ops import streamed_attention, streamed_mlp
from mcuformer.converter.ops.streamed import FullyConnected, tokens_at_once


def half_layers(graph: Graph) -> list[tuple[int, int]]:
    """(first, last) op of each half-layer: from the LayerNorm of a tensor to the layer that adds it back."""
    found = []
    for first, op in enumerate(graph.ops):
        if op.kind != "IntLayerNorm":
            continue
        stream = op.inputs[0]
        for last in range(first + 1, len(graph.ops)):
            if graph.ops[last].kind == "InPlaceFC" and graph.ops[last].inputs[5] == stream:
                found.append((first, last))
                break
    return found


def streamed(graph: Graph) -> Graph:
    """The same network from a graph of schedule "overwrite"; its logits are equal bit for bit."""
    result = Graph()
    moved: dict[int, int] = {}  # tensor of graph -> tensor of result

    def take(tensor: int) -> int:
        if tensor < 0:
            return tensor
        if tensor not in moved:
            moved[tensor] = result.add_tensor(graph.tensors[tensor])
        return moved[tensor]

    result.inputs = [take(i) for i in graph.inputs]
    ends = dict(half_layers(graph))
    at = 0
    while at < len(graph.ops):
        op = graph.ops[at]
        if at not in ends:
            inputs = tuple(take(i) for i in op.inputs)
            result.ops.append(Op(op.kind, inputs, take(op.output), op.options))
            at += 1
            continue
        ops = graph.ops[at : ends[at] + 1]
        output = graph.tensors[ops[-1].output]
        is_attention = any(o.kind == "IntAttention" for o in ops)
        kind = "StreamedAttention" if is_attention else "StreamedMLP"
        options, constants = _attention(graph, ops) if is_attention else _mlp(graph, ops)
        activations = {"stream": take(ops[0].inputs[0])}
        index = result.add_op(kind, output.name, options, activations, constants, output.quantisation)
        moved[ops[-1].output] = index
        at = ends[at] + 1
    result.output = moved[graph.output]
    return result


def _constants(graph: Graph, op: Op) -> dict[str, np.ndarray | None]:
    """The op's constants by their names in INPUTS."""
    tensors = zip(op.module.INPUTS, op.inputs, strict=True)
    return {role: graph.tensors[i].data if i >= 0 else None for role, i in tensors}


def _layers(graph: Graph, names: tuple[str, ...], ops: list[Op]) -> dict[str, np.ndarray | None]:
    found = {}
    for name, op in zip(names, ops, strict=False):
        constants = _constants(graph, op)
        found.update({f"{name}_{part}": constants[part] for part in FullyConnected._fields})
    return found


def _common(graph: Graph, norm: Op, last: Op) -> dict[str, np.ndarray | None]:
    """LayerNorm's constants, and how the residual is added."""
    constants = _constants(graph, norm)
    return {
        **{name: constants[name] for name in ("gamma", "beta", "factor")},
        "residual_scale": _constants(graph, last)["residual_scale"],
    }


def _attention(graph: Graph, ops: list[Op]) -> tuple[Any, dict[str, np.ndarray | None]]:
    norm, qkv, attention, proj = ops
    _, tokens, d = graph.tensors[norm.inputs[0]].shape
    head_params = graph.tensors[attention.inputs[1]].values
    heads = (len(head_params), attention.options.kv_heads, attention.options.head_dim)
    options = streamed_attention.Options(
        tokens_at_once=tokens_at_once(tokens),
        kv_heads=attention.options.kv_heads,
        kv_heads_at_once=streamed_attention.kv_heads_at_once(tokens, d, *heads),
        head_dim=attention.options.head_dim,
        zero_point=attention.options.zero_point,
        norm_zero_point=norm.options.zero_point,
        epsilon=norm.options.epsilon,
        qkv_zero_point=qkv.options.zero_point,
        proj_zero_point=proj.options.zero_point,
        packing=qkv.options.packing,
    )
    layers = _layers(graph, streamed_attention.LAYERS, [qkv, proj])
    return options, {**_common(graph, norm, proj), "head_params": head_params, **layers}


def _mlp(graph: Graph, ops: list[Op]) -> tuple[Any, dict[str, np.ndarray | None]]:
    norm, *fcs = ops
    tables = [_constants(graph, op)["gelu_table"] for op in fcs]
    gelu_layer = next((i for i, table in enumerate(tables) if table is not None), -1)
    options = streamed_mlp.Options(
        tokens_at_once=tokens_at_once(graph.tensors[norm.inputs[0]].shape[1]),
        norm_zero_point=norm.options.zero_point,
        epsilon=norm.options.epsilon,
        gelu_layer=gelu_layer,
        zero_points=tuple(op.options.zero_point for op in fcs),
        packing=fcs[0].options.packing,
    )
    table = tables[gelu_layer] if gelu_layer >= 0 else None
    layers = _layers(graph, streamed_mlp.LAYERS, fcs)
    return options, {**_common(graph, norm, fcs[-1]), "gelu_table": table, **layers}

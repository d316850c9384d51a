# SPDX-License-Identifier: Apache-2.0
"""The schedule "streamed": each half of a layer becomes one op that works in place on the residual stream."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.ops import in_place_fc, relative_position, streamed_attention, streamed_mlp
from mcuformer.converter.ops.streamed import NORM, FullyConnected, tokens_at_once

RESIDUAL = in_place_fc.INPUTS.index("residual")


def half_layers(graph: Graph) -> list[tuple[int, int]]:
    """(first, last) op of each half-layer: from the first op that reads the stream to the one that adds it back."""
    found = []
    for last, op in enumerate(graph.ops):
        if op.kind == "InPlaceFC" and (stream := op.inputs[RESIDUAL]) >= 0:
            found.append((next(i for i, reader in enumerate(graph.ops) if stream in reader.inputs), last))
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
        options, constants = (_attention if is_attention else _mlp)(graph, _Half.of(ops))
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


class _Half(NamedTuple):
    """norm: its LayerNorm, if it has one; ops: the others, in order."""

    norm: Op | None
    ops: list[Op]

    @classmethod
    def of(cls, ops: list[Op]) -> _Half:
        return cls(ops[0], ops[1:]) if ops[0].kind == "IntLayerNorm" else cls(None, ops)

    @property
    def norm_options(self) -> dict[str, int]:
        if self.norm is None:
            return {"norm_zero_point": 0, "epsilon": 0}
        return {"norm_zero_point": self.norm.options.zero_point, "epsilon": self.norm.options.epsilon}

    @property
    def wide(self) -> int:
        return self.ops[-1].options.wide

    def common_constants(self, graph: Graph) -> dict[str, np.ndarray | None]:
        """LayerNorm's, and how the residual is added."""
        norm = {} if self.norm is None else _constants(graph, self.norm)
        return {
            **{name: norm.get(name) for name in NORM},
            "residual_scale": _constants(graph, self.ops[-1])["residual_scale"],
        }

    def stream_shape(self, graph: Graph) -> tuple[int, ...]:
        return graph.tensors[self.ops[-1].output].shape


def _attention(graph: Graph, half: _Half) -> tuple[Any, dict[str, np.ndarray | None]]:
    at = next(i for i, op in enumerate(half.ops) if op.kind == "IntAttention")
    (*qkv_rank, qkv), attention, (*proj_rank, proj) = half.ops[:at], half.ops[at], half.ops[at + 1 :]
    _, tokens, d = half.stream_shape(graph)
    head_params = graph.tensors[attention.inputs[1]].values
    heads = (len(head_params), attention.options.kv_heads, attention.options.head_dim)
    table_length = graph.dims(attention).table_length
    constants = _constants(graph, attention)
    ranks = {name: op[0] for name, op in (("qkv_rank", qkv_rank), ("proj_rank", proj_rank)) if op}
    options = streamed_attention.Options(
        tokens_at_once=tokens_at_once(tokens),
        kv_heads=attention.options.kv_heads,
        kv_heads_at_once=streamed_attention.kv_heads_at_once(tokens, d, *heads, table_length),
        head_dim=attention.options.head_dim,
        zero_point=attention.options.zero_point,
        qkv_zero_point=qkv.options.zero_point,
        proj_zero_point=proj.options.zero_point,
        packing=qkv.options.packing,
        grid_rows=attention.options.grid_rows,
        grid_columns=attention.options.grid_columns,
        wide=half.wide,
        **{f"{name}_zero_point": op.options.zero_point for name, op in ranks.items()},
        **half.norm_options,
    )
    layers = _layers(graph, ("qkv", "proj", *ranks), [qkv, proj, *ranks.values()])
    relative = {name: constants[name] for name in relative_position.INPUTS}
    return options, {**half.common_constants(graph), "head_params": head_params, **layers, **relative}


def _mlp(graph: Graph, half: _Half) -> tuple[Any, dict[str, np.ndarray | None]]:
    fcs = half.ops
    tables = [_constants(graph, op)["gelu_table"] for op in fcs]
    gelu_layer = next((i for i, table in enumerate(tables) if table is not None), -1)
    options = streamed_mlp.Options(
        tokens_at_once=tokens_at_once(half.stream_shape(graph)[1]),
        gelu_layer=gelu_layer,
        zero_points=tuple(op.options.zero_point for op in fcs),
        packing=fcs[0].options.packing,
        wide=half.wide,
        **half.norm_options,
    )
    table = tables[gelu_layer] if gelu_layer >= 0 else None
    layers = _layers(graph, streamed_mlp.LAYERS, fcs)
    return options, {**half.common_constants(graph), "gelu_table": table, **layers}

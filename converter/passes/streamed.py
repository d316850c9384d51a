# SPDX-License-Identifier: Apache-2.0
"""The schedule "streamed": every half-layer becomes one op that works in place on the residual stream."""

from __future__ import annotations

from mcuformer import kernel_library
from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.ops import streamed_attention, streamed_mlp


def block_of(tokens: int) -> int:
    """Tokens at a time: what the kernels handle at once; more costs scratch and gains nothing from mapped flash."""
    return min(4, tokens)


def kv_heads_at_once(tokens: int, d: int, num_heads: int, kv_heads: int, head_dim: int) -> int:
    """Key/value heads to make at a time: the number with the least scratch, the larger of equals (fewer passes)."""
    divisors = [n for n in range(kv_heads, 0, -1) if kv_heads % n == 0]
    return min(
        divisors,
        key=lambda n: kernel_library.streamed_attention_scratch_bytes(
            tokens, block_of(tokens), d, num_heads, kv_heads, n, head_dim
        ),
    )


def half_layers(graph: Graph) -> list[tuple[int, int]]:
    """(first, last) op of every half-layer: from the LayerNorm of a tensor to the layer that adds it back."""
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
        if any(o.kind == "IntAttention" for o in ops):
            kind, module, params = "StreamedAttention", streamed_attention, _attention_params(graph, ops)
        else:
            kind, module, params = "StreamedMLP", streamed_mlp, _mlp_params(graph, ops)
        activations = {"stream": take(ops[0].inputs[0])}
        index = result.add_op(kind, output.name, module.Options(), activations, {"params": params}, output.quantisation)
        moved[ops[-1].output] = index
        at = ends[at] + 1
    result.output = moved[graph.output]
    return result


def _constants(graph: Graph, op: Op, positions: range) -> list:
    return [graph.tensors[op.inputs[i]].data if op.inputs[i] >= 0 else None for i in positions]


def _norm(graph: Graph, op: Op) -> tuple:
    return op.options, *_constants(graph, op, range(1, 4))


def _fully_connected(graph: Graph, op: Op) -> tuple:
    return op.options, *_constants(graph, op, range(1, 4))


def _attention_params(graph: Graph, ops: list[Op]):
    norm, qkv, attention, proj = ops
    _, tokens, d = graph.tensors[norm.inputs[0]].shape
    (head_params,) = _constants(graph, attention, range(1, 2))
    (residual_scale,) = _constants(graph, proj, range(6, 7))
    return streamed_attention.params(
        block_of(tokens),
        kv_heads_at_once(tokens, d, len(head_params), attention.options.kv_heads, attention.options.head_dim),
        _norm(graph, norm),
        _fully_connected(graph, qkv),
        (attention.options, head_params),
        _fully_connected(graph, proj),
        residual_scale,
    )


def _mlp_params(graph: Graph, ops: list[Op]):
    norm, *fcs = ops
    tables = [_constants(graph, op, range(4, 5))[0] for op in fcs]
    gelu_layer = next((i for i, table in enumerate(tables) if table is not None), -1)
    (residual_scale,) = _constants(graph, fcs[-1], range(6, 7))
    return streamed_mlp.params(
        block_of(graph.tensors[norm.inputs[0]].shape[1]),
        _norm(graph, norm),
        [_fully_connected(graph, op) for op in fcs],
        gelu_layer,
        tables[gelu_layer] if gelu_layer >= 0 else None,
        residual_scale,
    )

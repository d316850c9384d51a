# SPDX-License-Identifier: Apache-2.0
"""weights="staged": weights leave the model for a file of their own, which is read tile by tile into scratch.

For external flash that is not mapped. Every layer's weights lie in the weights file in the order of the ops, each at a
multiple of 16 bytes. What is read with every output or but once (bias, multiplier, tables) stays in the model, and so
do the small weights of a convolution stem.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

import numpy as np

from mcuformer.converter.graph import Graph, Op, Tensor
from mcuformer.converter.ops import decomposed_patch_embed, params_blob, streamed_attention, streamed_mlp
from mcuformer.converter.ops.packed_weights import ROWS, row_bytes_and_rows
from mcuformer.errors import ConfigError, ModelError

ALIGNMENT = params_blob.ALIGNMENT
STREAMED = {"StreamedAttention": streamed_attention, "StreamedMLP": streamed_mlp}
WEIGHTS = {"InPlaceFC": 1, "DecomposedPatchEmbed": 1, "StreamedAttention": 2, "StreamedMLP": 2}  # which input


def is_staged(graph: Graph) -> bool:
    return any(_staged_weights(graph))


def least_tile(layers: list[tuple[int, int]]) -> int:
    """Bytes of the smallest tile for layers of (bytes of a weight row, rows): two rows of each."""
    return -(-max(row * min(rows, 2) for row, rows in layers) // 4) * 4


def layers_of(graph: Graph, op: Op) -> list[tuple[int, int]]:
    """(inputs, outputs) of the matrices of an op with weights; of one field of DecomposedPatchEmbed."""
    if op.kind in STREAMED:
        sections = params_blob.unpack(graph.tensors[op.inputs[1]].data)
        return STREAMED[op.kind].layers_of(sections, graph.tensors[op.inputs[0]].shape[-1])
    shape = graph.tensors[op.inputs[1]].shape
    inputs = shape[-1] if op.options.packing == ROWS else shape[-2]
    if op.kind == "InPlaceFC":  # inputs of pairs are rounded up to even
        inputs = min(inputs, graph.tensors[op.inputs[0]].shape[-1])
    return [(inputs, len(graph.tensors[op.inputs[2]].data))]


def packed_layers_of(graph: Graph, op: Op) -> list[tuple[int, int]]:
    """(bytes of a weight row, rows) of the same matrices as they lie in memory."""
    packing = getattr(op.options, "packing", ROWS)
    if op.kind in STREAMED:
        module = STREAMED[op.kind]
        scalars = params_blob.unpack(graph.tensors[op.inputs[1]].data)[module.SCALARS]
        packing = int(params_blob.array(scalars, "int32")[module.PACKING])
    return [row_bytes_and_rows(*layer, packing) for layer in layers_of(graph, op)]


def staged(graph: Graph) -> Graph:
    """The same network with staged weights, in the least scratch."""
    tensors, ops, at = list(graph.tensors), [], 0
    for op in graph.ops:
        if op.kind not in WEIGHTS:
            ops.append(op)
            continue
        tile = least_tile(packed_layers_of(graph, op))
        if op.kind in STREAMED:
            module = STREAMED[op.kind]
            params = tensors[op.inputs[1]]
            sections = params_blob.unpack(params.data)
            weights = params_blob.take_out(sections, module.weight_sections(sections))
            tensors[op.inputs[1]] = dataclasses.replace(params, data=params_blob.pack(sections))
            tensors.append(
                Tensor(params.name.removesuffix("params") + "weights", weights.shape, weights.dtype, None, weights)
            )
            op = Op(op.kind, (*op.inputs[:2], len(tensors) - 1), op.output, op.options)
        index = op.inputs[WEIGHTS[op.kind]]
        tensors[index] = dataclasses.replace(tensors[index], external=True)
        ops.append(op)
        resized = resize(Graph(tensors, ops), op, tile_bytes=tile, weights_offset=at)
        tensors, ops = resized.tensors, resized.ops
        at += -(-tensors[index].bytes // ALIGNMENT) * ALIGNMENT
    return externals_last(Graph(tensors, ops, graph.inputs, graph.output))


def resize(graph: Graph, op: Op, **sizes: int) -> Graph:
    """The graph with other sizes of an op: block, tile_bytes and weights_offset, as far as given.

    For InPlaceFC block is the tokens, for DecomposedPatchEmbed the blocks of four tokens that weights come once for.
    """
    tensors, ops = list(graph.tensors), list(graph.ops)
    if op.kind in STREAMED:
        module, params = STREAMED[op.kind], tensors[op.inputs[1]]
        sections = params_blob.unpack(params.data)
        scalars = params_blob.array(sections[module.SCALARS], "int32")
        for name, value in sizes.items():
            scalars[getattr(module, name.upper())] = value
        sections[module.SCALARS] = scalars
        data = params_blob.pack(sections)
        tensors[op.inputs[1]] = dataclasses.replace(params, data=data, shape=data.shape)
    else:
        if op.kind == "InPlaceFC":
            tokens = int(np.prod(tensors[op.inputs[0]].shape[:-1]))
            fixed = {"in_features": layers_of(graph, op)[0][0], "block": op.options.block or min(4, tokens)}
        else:
            sizes = {"blocks" if name == "block" else name: value for name, value in sizes.items()}
            fixed = {"blocks": op.options.blocks or 1}
        options = dataclasses.replace(op.options, **{**fixed, **sizes})
        ops[ops.index(op)] = dataclasses.replace(op, options=options)
    return Graph(tensors, ops, list(graph.inputs), graph.output)


def externals_last(graph: Graph) -> Graph:
    """The graph with its external tensors behind all others: weights in the order of the ops, then an image."""
    weights = _staged_weights(graph)
    others = [i for i, tensor in enumerate(graph.tensors) if tensor.external and i not in weights]
    order = [i for i, tensor in enumerate(graph.tensors) if not tensor.external] + weights + others
    place = {old: new for new, old in enumerate(order)} | {-1: -1}
    ops = [
        dataclasses.replace(op, inputs=tuple(place[i] for i in op.inputs), output=place[op.output]) for op in graph.ops
    ]
    return Graph([graph.tensors[i] for i in order], ops, [place[i] for i in graph.inputs], place[graph.output])


def weights_path(path: str | os.PathLike) -> Path:
    """Where the staged weights of the model at path are: beside it, with the suffix ".weights"."""
    path = Path(path)
    if path.suffix == ".weights":
        raise ConfigError(f"{path}: a model with staged weights cannot have their suffix; call it model.tflite")
    return path.with_suffix(".weights")


def weights_content(graph: Graph) -> bytes:
    """The weights file."""
    content = b""
    for i in _staged_weights(graph):
        data = graph.tensors[i].data.tobytes()
        content += data + bytes(-len(data) % ALIGNMENT)
    return content


def weights_info(content: bytes) -> dict:
    """What the model says of its weights file."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def with_weights(graph: Graph, info: dict, content: bytes, name: str) -> Graph:
    """The graph of a model with the data of its weights file. ModelError where that is another model's, or damaged."""
    if weights_info(content) != info:
        raise ModelError(
            f"{name}: not the weights of this model, or damaged ({len(content)} bytes for {info['bytes']}): use the "
            "file that was written with the model"
        )
    tensors, at = list(graph.tensors), 0
    for i in _staged_weights(graph):
        tensor = tensors[i]
        data = np.frombuffer(content[at : at + tensor.bytes], tensor.dtype).reshape(tensor.shape)
        tensors[i] = dataclasses.replace(tensor, data=data)
        at += -(-tensor.bytes // ALIGNMENT) * ALIGNMENT
    return Graph(tensors, graph.ops, graph.inputs, graph.output)


def traffic(graph: Graph, op: Op) -> tuple[int, int]:
    """Bytes and reads of staged weights in one run of an op."""
    weights = op.inputs[WEIGHTS[op.kind]] if op.kind in WEIGHTS else -1
    if weights < 0 or not graph.tensors[weights].external:
        return 0, 0
    layers = packed_layers_of(graph, op)
    weights = sum(row * rows for row, rows in layers)
    if op.kind == "DecomposedPatchEmbed":
        _, height, width, _ = graph.tensors[op.inputs[0]].shape
        size, options = op.options.patch_size, op.options
        ((row, rows),) = layers
        fours = -(-(width // size) // 4)
        blocks = fours if 0 < options.strip_rows < size else options.blocks
        times = (height // size) * -(-fours // blocks)
        fields = (-(-size // decomposed_patch_embed.FIELD)) ** 2
        return times * weights * fields, times * fields * _tiles(row, rows, options.tile_bytes)
    if op.kind == "InPlaceFC":
        tokens = int(np.prod(graph.tensors[op.inputs[0]].shape[:-1]))
        times = -(-tokens // op.options.block)
        return times * weights, times * sum(_tiles(*layer, op.options.tile_bytes) for layer in layers)
    module = STREAMED[op.kind]
    sections = params_blob.unpack(graph.tensors[op.inputs[1]].data)
    scalars = params_blob.array(sections[module.SCALARS], "int32").tolist()
    times, tile = -(-graph.tensors[op.inputs[0]].shape[1] // scalars[module.BLOCK]), scalars[module.TILE_BYTES]
    if op.kind == "StreamedMLP":
        return times * weights, times * sum(_tiles(*layer, tile) for layer in layers)
    _, kv_heads, at_once, head_dim, *_ = scalars
    _, (q_width, _) = layers_of(graph, op)
    (qkv_row, _), (proj_row, proj_rows) = layers
    passes = kv_heads // at_once
    reads = passes * (2 * at_once * _tiles(qkv_row, head_dim, tile) + _tiles(qkv_row, q_width // passes, tile))
    return times * weights, times * (reads + _tiles(proj_row, proj_rows, tile))


def _tiles(row: int, rows: int, tile: int) -> int:
    """Reads of a matrix of `rows` rows of `row` bytes."""
    most = tile // row
    return 1 if most >= rows else -(-rows // (most // 2 * 2))


def _staged_weights(graph: Graph) -> list[int]:
    """Tensors of staged weights, in the order of the ops."""
    found = [op.inputs[WEIGHTS[op.kind]] for op in graph.ops if op.kind in WEIGHTS]
    return [i for i in found if i >= 0 and graph.tensors[i].external]

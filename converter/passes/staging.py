# SPDX-License-Identifier: Apache-2.0
"""weights="staged": weights move from the model into a file of their own and are read tile by tile into scratch.

For external flash that is not memory-mapped. Each layer's weights lie in that file in op order, aligned to 16 bytes.
Small constants (bias, multiplier, tables) stay in the model, and so do the small weights of a convolution stem.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

import numpy as np

from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.ops import can_be_staged, params_blob
from mcuformer.errors import ConfigError, ModelError

ALIGNMENT = params_blob.ALIGNMENT


def is_staged(graph: Graph) -> bool:
    return any(_staged_weights(graph))


def staged(graph: Graph) -> Graph:
    """The same network with staged weights, in the least scratch."""
    tensors, ops = list(graph.tensors), []
    for op in graph.ops:
        if can_be_staged(op.kind):
            dims = op.module.staged(graph.dims(op))
            options = op.module.resized(op.options, dims, op.module.token_choices(dims)[0], dims.tile_bytes, 0)
            op = dataclasses.replace(op, options=options)
            for i in graph.weights(op):
                tensors[i] = dataclasses.replace(tensors[i], external=True)
        ops.append(op)
    return restaged(externals_last(Graph(tensors, ops, graph.inputs, graph.output)))


def restaged(graph: Graph) -> Graph:
    """The graph in which every op knows the place of its staged weights in the weights file; unchanged without any."""
    ops, at = [], 0
    for op in graph.ops:
        weights = [i for i in graph.weights(op) if graph.tensors[i].external]
        if weights:
            op = dataclasses.replace(op, options=dataclasses.replace(op.options, weights_offset=at))
            at += sum(params_blob.align(graph.tensors[i].bytes) for i in weights)
        ops.append(op)
    return Graph(graph.tensors, ops, graph.inputs, graph.output)


def resize(graph: Graph, op: Op, tokens: int, tile_bytes: int = 0) -> Graph:
    """The graph in which one op handles `tokens` tokens at a time, its weights read through a tile of tile_bytes; 0 if
    they are in the model."""
    options = op.module.resized(
        op.options, graph.dims(op), tokens, tile_bytes, getattr(op.options, "weights_offset", -1)
    )
    ops = [dataclasses.replace(o, options=options) if o is op else o for o in graph.ops]
    return Graph(list(graph.tensors), ops, list(graph.inputs), graph.output)


def externals_last(graph: Graph) -> Graph:
    """The graph with its external tensors last: staged weights in op order, then the image."""
    weights = _staged_weights(graph)
    others = [i for i, tensor in enumerate(graph.tensors) if tensor.external and i not in weights]
    order = [i for i, tensor in enumerate(graph.tensors) if not tensor.external] + weights + others
    place = {old: new for new, old in enumerate(order)} | {-1: -1}
    ops = [
        dataclasses.replace(op, inputs=tuple(place[i] for i in op.inputs), output=place[op.output]) for op in graph.ops
    ]
    return Graph([graph.tensors[i] for i in order], ops, [place[i] for i in graph.inputs], place[graph.output])


def weights_path(path: str | os.PathLike) -> Path:
    """The file of the staged weights of the model at path: beside it, with the suffix ".weights"."""
    path = Path(path)
    if path.suffix == ".weights":
        raise ConfigError(f"{path}: a model with staged weights cannot have their suffix; call it model.tflite")
    return path.with_suffix(".weights")


def weights_content(graph: Graph) -> bytes:
    """The weights file."""
    content = b""
    for i in _staged_weights(graph):
        data = graph.tensors[i].values.tobytes()
        content += data + bytes(-len(data) % ALIGNMENT)
    return content


def weights_info(content: bytes) -> dict:
    """The entry for the weights file in the model's metadata: length and SHA-256."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def with_weights(graph: Graph, info: dict, content: bytes, name: str) -> Graph:
    """The graph of a model with the data of its weights file. ModelError if the file is another model's, or damaged."""
    if weights_info(content) != info:
        raise ModelError(
            f"{name}: not the weights of this model, or damaged ({len(content)} bytes for {info['bytes']}): use the "
            "file that was written with the model"
        )
    tensors, at = list(graph.tensors), 0
    for i in _staged_weights(graph):
        tensor = tensors[i]
        piece = content[at : at + tensor.bytes]
        if len(piece) != tensor.bytes:
            raise ModelError(
                f"{name}: {tensor.name} ends past its weights file: the model is damaged; convert it again"
            )
        data = np.frombuffer(piece, tensor.dtype).reshape(tensor.shape)
        tensors[i] = dataclasses.replace(tensor, data=data)
        at += params_blob.align(tensor.bytes)
    return Graph(tensors, graph.ops, graph.inputs, graph.output)


def traffic(graph: Graph, op: Op) -> tuple[int, int]:
    """Bytes and number of reads of staged weights in one run of an op."""
    return op.module.traffic(graph.dims(op)) if can_be_staged(op.kind) else (0, 0)


def _staged_weights(graph: Graph) -> list[int]:
    """Tensors of staged weights, in op order."""
    return [i for op in graph.ops for i in graph.weights(op) if graph.tensors[i].external]

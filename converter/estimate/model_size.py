# SPDX-License-Identifier: Apache-2.0
"""The search's other question: how much flash would this config take? Answered from the dimensions alone, from above.

The constants are counted to the byte, but for the position table, which is int8 or int16: two bytes are counted. What
depends on the trained values (the compressed scales) and on names is bounded by figures that hold in the tests
(tests/converter/test_model_size.py), some kilobytes in all.
"""

from __future__ import annotations

import functools

from mcuformer.converter.ops import decomposed_patch_embed, streamed_attention, streamed_mlp
from mcuformer.converter.ops.params_blob import ALIGNMENT
from mcuformer.converter.subnet_config import LayerConfig, SubnetConfig

FILE_BYTES = 1280  # identifier, tables, checksum, config
OP_BYTES, TENSOR_BYTES = 96, 108  # entries in the flatbuffer, names included
SCALE_BYTES = 56  # of an activation with one scale, compressed
CHANNEL_BYTES = 9  # of a channel of the residual stream with a scale of its own, compressed
CLASS_BYTES = 12  # of a class's name, compressed
GELU_TABLE = 256


def model_bytes(config: SubnetConfig) -> int:
    """At least the size of the .tflite file, schedule "streamed", of a network with this config."""
    d = config.embed_dim
    constants, tensors = _embedding(config)
    tensors += 1 + 2 * 2 * config.depth + 4 + 1 + 4
    constants += sum(_layer_bytes(d, layer) for layer in config.layers)
    constants += _sum(2 * d, 4 * d, d) + _sum(*_fully_connected(d, config.num_classes))
    streams = 2 * config.depth + 1
    ops = 2 * config.depth + 3 + max(1, len(config.conv_channels))
    scales = streams * d * CHANNEL_BYTES + (ops + 1) * SCALE_BYTES
    return constants + FILE_BYTES + ops * OP_BYTES + tensors * TENSOR_BYTES + scales + config.num_classes * CLASS_BYTES


def _embedding(config: SubnetConfig) -> tuple[int, int]:
    """Bytes of constants, and number of tensors, of the stem and the position table."""
    d, inputs = config.embed_dim, config.in_channels
    position = _sum(2 * config.tokens * d, 2 * d)
    if config.stem == "patch":
        side = -(-config.patch_size // decomposed_patch_embed.FIELD) * decomposed_patch_embed.FIELD
        return _sum(side * side * inputs * (d + d % 2), 4 * d, 4 * d) + position, 6
    total = position
    for channels in config.conv_channels:
        total += _sum(*_fully_connected(9 * inputs, channels))
        inputs = channels
    return total, 4 * len(config.conv_channels) + 2


@functools.lru_cache(maxsize=65536)
def _layer_bytes(d: int, layer: LayerConfig) -> int:
    """The params of StreamedAttention and StreamedMLP."""
    norm = (2 * d, 4 * d, d)
    attention = [
        4 * (streamed_attention.PACKING + 1),
        *norm,
        16 * layer.num_heads,
        2 * d,
        *_fully_connected(d, layer.qkv_dim),
    ]
    attention += _fully_connected(layer.q_dim, d)
    sizes = [(d, layer.mlp_dim), (layer.mlp_dim, d)]
    if layer.rank is not None and layer.rank * (d + layer.mlp_dim) < d * layer.mlp_dim:
        sizes = [(d, layer.rank), (layer.rank, layer.mlp_dim), (layer.mlp_dim, layer.rank), (layer.rank, d)]
    mlp = [4 * (streamed_mlp.FIRST_ZERO_POINT + len(sizes)), *norm, GELU_TABLE, 2 * d]
    mlp += [part for size in sizes for part in _fully_connected(*size)]
    assert len(attention) == streamed_attention.PROJ + 3
    return sum(_sum(4 + 8 * len(sections), *sections) for sections in (attention, mlp))


def _fully_connected(inputs: int, outputs: int) -> tuple[int, int, int]:
    packed = (inputs + inputs % 2) * (outputs + outputs % 2)  # pairs of rows round up to even
    return packed, 4 * outputs, 4 * outputs


def _sum(*sizes: int) -> int:
    """Sum of sizes, each rounded up to a multiple of 16."""
    return sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)

# SPDX-License-Identifier: Apache-2.0
"""An upper bound of the model file's size, from the dimensions alone.

Constants are counted to the byte, with weights in pairs of rows, which round up to even. Only the position table, int8
or int16, is counted as two bytes per entry. Parts that depend on trained values (the compressed scales) and on names
are bounded by constants that the tests confirm (tests/converter/test_model_size.py): a few kilobytes in all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mcuformer.converter.ops.packed_weights import PAIRS
from mcuformer.converter.ops.params_blob import align
from mcuformer.converter.skeleton import Part, Schedule, kept, skeleton, steps_of
from mcuformer.converter.subnet_config import SubnetConfig

FILE_BYTES = 1280  # identifier, tables, checksum, config
OP_BYTES, TENSOR_BYTES = 96, 108  # entries in the flatbuffer, names included
SCALE_BYTES = 56  # per activation with one scale, compressed
CHANNEL_BYTES = 9  # per channel of the residual stream with its own scale, compressed
CLASS_BYTES = 12  # per class name, compressed
POSITION_BYTES = 2  # per entry of the position table, at most


def model_bytes(config: SubnetConfig) -> int:
    """An upper bound of the .tflite file's size for this config, schedule "streamed"."""
    network = skeleton(config, Schedule("streamed", packing=PAIRS))
    image = TENSOR_BYTES + SCALE_BYTES
    parts = sum(_part_bytes(config.embed_dim, *recipe) for _, recipe in network.recipes)
    return FILE_BYTES + image + parts + config.num_classes * CLASS_BYTES


@kept
def _part_bytes(embed_dim: int, make: Callable[..., Part], *arguments: Any) -> int:
    total = 0
    for step in steps_of(make(*arguments)):
        dims = step.dims
        if hasattr(dims, "position_bytes"):
            dims = dims._replace(position_bytes=POSITION_BYTES)
        constants = step.module.constant_bytes(dims)
        total += sum(map(align, constants)) + OP_BYTES + (len(constants) + 1) * TENSOR_BYTES + SCALE_BYTES
        total += embed_dim * CHANNEL_BYTES * step.stream
    return total

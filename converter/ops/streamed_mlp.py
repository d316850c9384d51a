# SPDX-License-Identifier: Apache-2.0
"""StreamedMLP: LayerNorm, fully connected layers with GELU, residual: in place on the stream, some tokens at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter.ops import in_place_fc, params_blob
from mcuformer.converter.ops.packed_weights import row_bytes_and_rows

NAME = "StreamedMLP"
INPUTS = ("stream", "params", "weights")
OVERWRITES = (0,)
OP_DATA_BYTES = 4

SCALARS, NORM, GELU_TABLE, RESIDUAL_SCALE, FIRST_FC = 0, 1, 4, 5, 6  # sections
BLOCK, GELU_LAYER, TILE_BYTES, WEIGHTS_OFFSET, PACKING, FIRST_ZERO_POINT = 0, 4, 5, 6, 7, 8  # scalars; zero points last


@dataclass(frozen=True)
class Options:
    """None: everything is in the params, since options would be read anew in every call."""


def params(block: int, norm: tuple, fcs: list[tuple], gelu_layer: int, gelu_table, residual_scale) -> np.ndarray:
    """The params tensor. norm: (options, gamma, beta, factor); fcs: (options, weights, bias, multiplier) each."""
    norm_options, *norm_constants = norm
    epsilon = params_blob.split_int64(norm_options.epsilon)
    zero_points = [options.zero_point for options, *_ in fcs]
    scalars = [block, norm_options.zero_point, *epsilon, gelu_layer, 0, 0, fcs[0][0].packing, *zero_points]
    constants = [array for _, *arrays in fcs for array in arrays]
    return params_blob.pack([np.array(scalars, np.int32), *norm_constants, gelu_table, residual_scale, *constants])


def layers_of(sections: list[bytes], d: int) -> list[tuple[int, int]]:
    """(inputs, outputs) of every fully connected layer."""
    count = len(sections[SCALARS]) // 4 - FIRST_ZERO_POINT
    outputs = [len(sections[FIRST_FC + 3 * i + 1]) // 4 for i in range(count)]
    return list(zip([d, *outputs], outputs, strict=False))


def weight_sections(sections: list[bytes]) -> list[int]:
    return [FIRST_FC + 3 * i for i in range(len(sections[SCALARS]) // 4 - FIRST_ZERO_POINT)]


def reference(
    options: Options, stream: np.ndarray, params: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """stream int8 [batch, tokens, d] -> int8 of the same shape. weights int8 [bytes]: staged ones, see take_out."""
    sections = params_blob.unpack(params)
    scalars = params_blob.array(sections[SCALARS], "int32").tolist()
    _, zero_point, low, high, gelu_layer, _, _, packing, *zero_points = scalars
    sizes = [math.prod(row_bytes_and_rows(*layer, packing)) for layer in layers_of(sections, stream.shape[-1])]
    params_blob.put_back(sections, weight_sections(sections), sizes, weights)
    x = params_blob.layer_norm(sections, NORM, stream, zero_point, low, high)
    for i, zero_point in enumerate(zero_points):
        table = params_blob.array(sections[GELU_TABLE], "int8") if i == gelu_layer else None
        last = i == len(zero_points) - 1
        x = in_place_fc.reference(
            in_place_fc.Options(zero_point, packing),
            x,
            *params_blob.fully_connected(sections, FIRST_FC + 3 * i, packing),
            table,
            stream if last else None,
            params_blob.array(sections[RESIDUAL_SCALE], "int16") if last else None,
        )
    return x


def scratch_bytes(options: Options, tensors) -> int:
    sections = params_blob.unpack(tensors[1].data)
    scalars = params_blob.array(sections[SCALARS], "int32").tolist()
    inputs = tuple(i for i, _ in layers_of(sections, tensors[0].shape[-1]))
    return kernel_library.streamed_mlp_scratch_bytes(scalars[BLOCK], inputs, scalars[TILE_BYTES])


def output_shape(options: Options, shapes) -> tuple[int, ...]:
    return shapes[0]

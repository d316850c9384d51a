# SPDX-License-Identifier: Apache-2.0
"""StemConv: 3x3 convolution of stride 2, batch-norm folded, activation fused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter.ops.fixed_point import exact_matmul, requantise
from mcuformer.converter.ops.packed_weights import ROWS, unpack
from mcuformer.converter.ops.weights import lower_convolution
from mcuformer.converter.quantise import Quantisation

NAME = "StemConv"
INPUTS = ("input", "weights", "bias", "multiplier", "position", "position_scale")
OVERWRITES = ()
OP_DATA_BYTES = 8


@dataclass(frozen=True)
class Options:
    zero_point: int  # of the output
    pad_value: int  # int8 value of the input outside the image
    act_min: int  # zero_point for ReLU, -128 for none
    packing: int = ROWS  # of the weights, a row being all taps of an output


def lower(
    weight: np.ndarray, bias: np.ndarray, position: np.ndarray | None, source_scale: float, source_zero: float,
    target: Quantisation, relu: bool,
) -> tuple[Options, dict[str, np.ndarray | None], Quantisation]:  # fmt: skip
    """Options, constants, and the target widened where its scale is too fine. weight float [out, 3, 3, in]."""
    constants, target = lower_convolution(weight, bias, position, source_scale, source_zero, target)
    pad = int(np.clip(np.ceil(source_zero), -128, 127))
    return Options(target.zero_point, pad, target.zero_point if relu else -128), constants, target


def reference(
    options: Options,
    x: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    multiplier: np.ndarray,
    position: np.ndarray | None = None,
    position_scale: np.ndarray | None = None,
) -> np.ndarray:
    """x int8 [batch, H, W, C] -> int8 [batch, ceil(H/2) * ceil(W/2), out]."""
    batch, height, width, channels = x.shape
    weights = unpack(weights, len(bias), options.packing).reshape(len(bias), -1)[:, : 9 * channels]
    rows, columns = (height + 1) // 2, (width + 1) // 2
    padded = np.full((batch, 2 * rows + 1, 2 * columns + 1, channels), options.pad_value, np.int8)
    padded[:, 1 : height + 1, 1 : width + 1] = x
    taps = [padded[:, y : y + 2 * rows : 2, z : z + 2 * columns : 2] for y in range(3) for z in range(3)]
    taps = np.stack(taps, axis=3).reshape(batch, rows * columns, 9 * channels)
    acc = exact_matmul(taps, weights.T) + bias
    if position is not None:
        acc = acc + position.astype(np.int64) * position_scale
    q = requantise(acc, multiplier, options.zero_point)
    return np.maximum(q, np.int8(options.act_min))


def scratch_bytes(options: Options, tensors) -> int:
    return kernel_library.stem_conv_scratch_bytes(tensors[0].shape[3])


def output_shape(options: Options, shapes) -> tuple[int, ...]:
    """[1, H', W', out], or tokens [1, H' * W', out] where the position table is added."""
    (_, height, width, _), _, (out,) = shapes[:3]
    rows, columns = (height + 1) // 2, (width + 1) // 2
    return (1, rows, columns, out) if shapes[4] is None else (1, rows * columns, out)

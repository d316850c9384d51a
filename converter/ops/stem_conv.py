# SPDX-License-Identifier: Apache-2.0
"""StemConv: 3x3 convolution of stride 2, batch-norm folded, activation fused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter.ops import c_call, decomposed_patch_embed, in_place_fc
from mcuformer.converter.ops.fixed_point import exact_matmul, requantise
from mcuformer.converter.ops.packed_weights import ROWS, unpack
from mcuformer.converter.ops.weights import lower_convolution, with_prefix
from mcuformer.converter.ops.work import Shapes, Work
from mcuformer.converter.quantise import Quantisation

NAME = "StemConv"
INPUTS = ("input", "weights", "bias", "multiplier", "position", "position_scale", "prefix")
OPTIONAL_LAST = ("prefix",)
WEIGHTS = ("weights",)
OVERWRITES = ()
OP_DATA_BYTES = 8

TAPS = 9
KERNELS = {"stem_conv": ("call", "pixel", "value", "odd", "edge")}
"""A convolution is a fully connected layer on its taps; gathering them costs more than copying tokens."""


@dataclass(frozen=True)
class Options:
    zero_point: int  # of the output
    pad_value: int  # int8 value of the input outside the image
    act_min: int  # zero_point for ReLU, -128 for none
    packing: int = ROWS  # of the weights; a row is all taps of an output


class Dims(NamedTuple):
    """height x width pixels of `channels` become half as many each way, of out_channels. position: with a position
    table, position_bytes per entry; the output is then tokens, after `prefix` tokens that are constants."""

    height: int
    width: int
    channels: int
    out_channels: int
    packing: int = ROWS
    position: bool = False
    position_bytes: int = 1
    prefix: int = 0

    @property
    def rows(self) -> int:
        return (self.height + 1) // 2

    @property
    def columns(self) -> int:
        return (self.width + 1) // 2

    @property
    def pixels(self) -> int:
        """Of the output."""
        return self.rows * self.columns

    @property
    def fully_connected(self) -> in_place_fc.Dims:
        """The same arithmetic on the taps of each output pixel."""
        return in_place_fc.Dims(
            self.pixels, TAPS * self.channels, self.out_channels, self.packing, residual=self.position
        )


def dims(options: Options, shapes: Shapes) -> Dims:
    """The dimensions of an op with these options and input shapes."""
    _, height, width, channels = shapes[0]
    position, prefix = shapes[4], shapes[6]
    return Dims(
        height, width, channels, shapes[2][0], options.packing, position is not None,
        prefix=0 if prefix is None else prefix[0],
    )  # fmt: skip


def matrices(d: Dims) -> list[tuple[int, int]]:
    """(inputs, outputs) of each weight matrix."""
    return [(TAPS * d.channels, d.out_channels)]


def rows_shape(d: Dims) -> tuple[int, ...]:
    """Shape of the weights as rows, which is not [outputs, inputs]."""
    return d.out_channels, 3, 3, d.channels


def input_elements(d: Dims) -> int:
    return d.height * d.width * d.channels


def output_elements(d: Dims) -> int:
    return (d.prefix + d.pixels) * d.out_channels


def weight_elements(d: Dims) -> int:
    return TAPS * d.channels * d.out_channels


def constants(d: Dims) -> int:
    """How many constants the model file holds."""
    return 3 + 2 * d.position + (d.prefix > 0)


def constant_bytes(d: Dims) -> tuple[int, ...]:
    """Bytes of each constant in the model file."""
    position = (d.position_bytes * d.pixels * d.out_channels, 2 * d.out_channels) if d.position else ()
    prefix = (d.prefix * d.out_channels,) if d.prefix else ()
    return (*in_place_fc.constant_bytes(d.fully_connected._replace(residual=False)), *position, *prefix)


def scratch_bytes(d: Dims) -> int:
    return kernel_library.scratch_getter("stem_conv")(d.channels)


def macs(d: Dims) -> int:
    return in_place_fc.macs(d.fully_connected)


def work(d: Dims) -> list[Work]:
    pixels = d.pixels
    edge = d.rows * (1 + d.width % 2)  # pixels with padding before or after them
    counts = (1, pixels, pixels * TAPS * d.channels, pixels * (d.channels % 2), edge)
    prefix = decomposed_patch_embed.prefix_work(d.prefix, d.out_channels)
    return [*in_place_fc.work(d.fully_connected), Work("stem_conv", counts), *prefix]


def call(op, c: c_call.Context) -> c_call.Call:
    source, weights, bias, multiplier, position, position_scale, prefix = op.inputs
    options = op.options
    _, height, width, channels = c.shape(source)
    fields = {
        "height": height, "width": width, "in_channels": channels, "out_channels": c.shape(op.output)[-1],
        "pad_value": options.pad_value, "zero_point": options.zero_point, "act_min": options.act_min,
        "packing": options.packing, "weights": c.tensor(weights), "bias": c.tensor(bias),
        "multiplier": c.tensor(multiplier),
        "position": c.tensor(position), "position_scale": c.tensor(position_scale), **c_call.prefix(c, prefix),
    }  # fmt: skip
    return c_call.call("stem_conv", fields, c.address(source), c.address(op.output), c.scratch)


def lower(
    weight: np.ndarray, bias: np.ndarray, position: np.ndarray | None, source_scale: float, source_zero: float,
    target: Quantisation, relu: bool, prefix: np.ndarray | None = None,
) -> tuple[Options, dict[str, np.ndarray | None], Quantisation]:  # fmt: skip
    """Options, constants, and the target, widened if its scale is too fine.

    weight float [out, 3, 3, in], position float [output pixels, out], prefix float [prefix tokens, out].
    """
    constants, target = lower_convolution(weight, bias, position, source_scale, source_zero, target, prefix)
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
    prefix: np.ndarray | None = None,
) -> np.ndarray:
    """x int8 [batch, H, W, C] -> int8 [batch, prefix tokens + ceil(H/2) * ceil(W/2), out]."""
    batch, height, width, channels = x.shape
    weights = unpack(weights, len(bias), options.packing).reshape(len(bias), -1)[:, : TAPS * channels]
    rows, columns = (height + 1) // 2, (width + 1) // 2
    padded = np.full((batch, 2 * rows + 1, 2 * columns + 1, channels), options.pad_value, np.int8)
    padded[:, 1 : height + 1, 1 : width + 1] = x
    shifted = [padded[:, y : y + 2 * rows : 2, z : z + 2 * columns : 2] for y in range(3) for z in range(3)]
    taps = np.stack(shifted, axis=3).reshape(batch, rows * columns, TAPS * channels)
    acc = exact_matmul(taps, weights.T) + bias
    if position is not None and position_scale is not None:
        acc = acc + position.astype(np.int64) * position_scale
    q = requantise(acc, multiplier, options.zero_point)
    return with_prefix(prefix, np.maximum(q, np.int8(options.act_min)))


def output_shape(options: Options, shapes: Shapes) -> tuple[int, ...]:
    """[1, H', W', out], or tokens [1, prefix tokens + H' * W', out] if there is a position table or a prefix."""
    (_, height, width, _), _, (out,) = shapes[:3]
    rows, columns, prefix = (height + 1) // 2, (width + 1) // 2, shapes[6]
    if shapes[4] is None and prefix is None:
        return (1, rows, columns, out)
    return (1, rows * columns + (0 if prefix is None else prefix[0]), out)

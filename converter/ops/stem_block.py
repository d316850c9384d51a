# SPDX-License-Identifier: Apache-2.0
"""The inverted residual that may stand behind an inner convolution of a stem: expansion, 3x3 depthwise convolution of
stride 1, projection, and the pixel added to it (Sandler et al., MobileNetV2, 2018, section 3.3). Part of StreamedStem.

    h = relu(expand x)        [hidden] of each pixel
    g = relu(depthwise h)     3x3; outside the level h is its zero point
    y = project g + x         no activation
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mcuformer.converter.ops import c_call, in_place_fc, streamed
from mcuformer.converter.ops.fixed_point import multiplier_of, requantise, round_bias
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS
from mcuformer.converter.ops.weights import MIN_SCALE_STEPS, accumulator_scale, quantise_rows
from mcuformer.converter.ops.work import TOKEN_BLOCK, Work
from mcuformer.converter.quantise import Quantisation

TAPS = 9
TYPES = {
    "expand_weights": "int8", "expand_bias": "int32", "expand_multiplier": "int32",
    "depthwise_weights": "int8", "depthwise_bias": "int32", "depthwise_multiplier": "int32",
    "project_weights": "int8", "project_bias": "int32", "project_multiplier": "int32", "residual_scale": "int16",
}  # fmt: skip
"""dtype of each constant of a block, by name."""
KERNELS = {
    "stem_block": ("row", "block", "pixel", "value", "word", "rest", "few", "vector", "quarter", "input")
}  # fmt: skip
"""Beside expansion and projection, which are fully connected layers: rows, blocks of pixels, pixels, their hidden
channels, and inputs of the expansion. Of the depthwise convolution, words of four channels of a block of four pixels,
and channels beside them; channels of pixels in smaller blocks; vectors of 16 channels of a pixel, and fours of those
beside them."""


class Constants(NamedTuple):
    """Of a block of c channels: weights of the matrices as packed, [hidden, c] and [c, hidden]; depthwise_weights int8
    [9, hidden], tap by tap; biases and multipliers int32 [hidden], or [c] of the projection; residual_scale int16 [c].
    All None: no block."""

    expand_weights: Any
    expand_bias: Any
    expand_multiplier: Any
    depthwise_weights: Any
    depthwise_bias: Any
    depthwise_multiplier: Any
    project_weights: Any
    project_bias: Any
    project_multiplier: Any
    residual_scale: Any


class Dims(NamedTuple):
    """height x width pixels of `channels`, with so many hidden channels."""

    height: int
    width: int
    channels: int
    hidden: int
    packing: int = ROWS

    @property
    def pixels(self) -> int:
        return self.height * self.width


class ZeroPoints(NamedTuple):
    """Of what each step makes; the first two raise it to theirs, which is a ReLU."""

    expanded: int
    depthwise: int
    output: int


def matrices(d: Dims) -> list[tuple[int, int]]:
    """(inputs, outputs) of expansion and projection."""
    return [(d.channels, d.hidden), (d.hidden, d.channels)]


def weight_elements(d: Dims) -> int:
    return 2 * d.channels * d.hidden + TAPS * d.hidden


def constant_bytes(d: Dims) -> tuple[int, ...]:
    """Bytes of each constant, in the order of TYPES."""
    expand, project = (streamed.layer_bytes(*matrix, d.packing, staged=False) for matrix in matrices(d))
    return (*expand, TAPS * d.hidden, 4 * d.hidden, 4 * d.hidden, *project, 2 * d.channels)


def macs(d: Dims) -> int:
    return d.pixels * weight_elements(d)


def at_once(pixels_at_once: int, columns: int) -> int:
    """Pixels of a row that the kernel takes together: three would take the room of four."""
    most = min(pixels_at_once, columns)
    return 2 if most == 3 else most


def work(d: Dims, pixels_at_once: int) -> list[Work]:
    """The block's own work, without calls."""
    most, found = at_once(pixels_at_once, d.width), []
    for count, turns in streamed.token_counts(d.width, most):
        for layer in (
            in_place_fc.Dims(count, d.channels, d.hidden, d.packing),
            in_place_fc.Dims(count, d.hidden, d.channels, d.packing, residual=True),
        ):
            for one in in_place_fc.work(layer, turns * d.height):
                blocks = 0 if d.packing == PAIRS else one.counts[1]  # of pairs, they are among the block's own counts
                found.append(Work(one.kernel, (0, blocks, *one.counts[2:])))
    counts = dict.fromkeys(KERNELS["stem_block"], 0)
    counts |= {"row": d.height, "pixel": d.pixels, "value": d.pixels * d.hidden, "input": d.pixels * d.channels}
    for count, turns in streamed.token_counts(d.width, most):
        blocks, pixels = d.height * turns, d.height * turns * count
        counts["block"] += blocks
        if count >= 3:
            counts["word"] += blocks * (d.hidden // 4)
            counts["rest"] += pixels * (d.hidden % 4)
        else:
            counts["few"] += pixels * d.hidden
        made = TOKEN_BLOCK * blocks if count >= 3 else pixels  # a third pixel lies in its block twice
        counts["vector"] += made * (d.hidden // 16)
        counts["quarter"] += made * -(-(d.hidden % 16) // 4)
    return [*found, Work("stem_block", tuple(counts.values()))]


def fields(c: c_call.Context, zero_points: tuple[int, int, int], constants: Constants) -> dict[str, Any]:
    """A mcuf_stem_block. constants: indices of tensors."""
    expanded, depthwise, output = zero_points
    return {
        "hidden": c.shape(constants.expand_bias)[0], "expand_zero_point": expanded, "depthwise_zero_point": depthwise,
        "zero_point": output, **{name: c.tensor(tensor) for name, tensor in constants._asdict().items()},
    }  # fmt: skip


def lower_depthwise(
    weight: np.ndarray, bias: np.ndarray, source: Quantisation, target: Quantisation
) -> tuple[dict[str, np.ndarray], Quantisation]:
    """weights int8 [9, hidden], bias and multiplier int32 [hidden], and the target, widened if its scale is too fine.

    weight: float [hidden, 3, 3], bias float [hidden].
    """
    effective = weight.reshape(len(weight), TAPS) * np.reshape(source.scale, (-1, 1))
    acc_scale = accumulator_scale(effective, target, bias)
    weights = quantise_rows(effective, acc_scale)
    target = target.at_least(MIN_SCALE_STEPS * acc_scale)
    folded = bias / acc_scale - source.zero_point * weights.astype(np.float64).sum(axis=1)
    constants = {
        "weights": np.ascontiguousarray(weights.T), "bias": round_bias(folded),
        "multiplier": multiplier_of(acc_scale / target.scale),
    }  # fmt: skip
    return constants, target


def depthwise(
    hidden: np.ndarray, weights: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, outside: int, zero_point: int
) -> np.ndarray:
    """hidden int8 [batch, H, W, hidden], weights int8 [9, hidden] -> int8 like hidden, raised to zero_point.

    outside: what hidden is beyond the level.
    """
    _, height, width, _ = hidden.shape
    padded = np.pad(hidden.astype(np.int64), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=outside)
    acc = bias.astype(np.int64)
    for tap, row in enumerate(weights.astype(np.int64)):
        y, x = divmod(tap, 3)
        acc = acc + padded[:, y : y + height, x : x + width] * row
    return np.maximum(requantise(acc, multiplier, zero_point), np.int8(zero_point))


def reference(zero_points: ZeroPoints, packing: int, x: np.ndarray, block: Constants) -> np.ndarray:
    """x int8 [batch, H, W, c] -> int8, the same shape."""
    b = block
    expand = in_place_fc.Options(zero_points.expanded, packing)
    hidden = in_place_fc.reference(expand, x, b.expand_weights, b.expand_bias, b.expand_multiplier)
    hidden = np.maximum(hidden, np.int8(zero_points.expanded))
    made = depthwise(
        hidden, b.depthwise_weights, b.depthwise_bias, b.depthwise_multiplier, zero_points.expanded,
        zero_points.depthwise,
    )  # fmt: skip
    project = in_place_fc.Options(zero_points.output, packing)
    return in_place_fc.reference(
        project, made, b.project_weights, b.project_bias, b.project_multiplier, residual=x,
        residual_scale=b.residual_scale,
    )  # fmt: skip

# SPDX-License-Identifier: Apache-2.0
"""Weights, bias and position table as integers: the lowering that several ops share."""

from __future__ import annotations

from typing import Any

import numpy as np

from mcuformer.converter.ops.fixed_point import MAX_BIAS, multiplier_of, round_bias, wide_multiplier_of
from mcuformer.converter.quantise import SMALLEST_SCALE, Quantisation
from mcuformer.converter.rounding import compensated

MAX_POSITION_SCALE = 32767
MIN_SCALE_STEPS = 2.001  # accumulator steps per output step, at least: requantisation scales stay below 0.5
MIN_WIDE_SCALE_STEPS = 1 / 127  # the same for int16, whose scales stay below 128
FINEST_STEP = 2.0**-20  # of an output step: a finer accumulator gains nothing
WIDE_FINEST_STEP = 2.0**-14  # the same for int16: multipliers have 24 fraction bits


def accumulator_scale(
    effective: np.ndarray, target: Quantisation, bias: np.ndarray | None, position: np.ndarray | None = None
) -> np.ndarray:
    """float [out]: what one step of the int32 accumulator is worth in each output channel.

    effective: float [out, in], weights per input step; its largest value gets 127. If a channel has almost no weights,
    the scale is chosen so that its bias, position table and multiplier still fit their integers.
    """
    scale = np.maximum(np.abs(effective).max(axis=1) / 127.0, SMALLEST_SCALE)
    scale = np.maximum(scale, np.asarray(target.scale) * (WIDE_FINEST_STEP if target.is_wide else FINEST_STEP))
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias) / (MAX_BIAS / 2))
    if position is not None:
        scale = np.maximum(scale, np.abs(position).max(axis=0) / (127 * MAX_POSITION_SCALE))
    return scale


def quantise_rows(effective: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """int8 [out, in] in [-127, 127]."""
    return np.clip(np.rint(effective / scale[:, None]), -127, 127).astype(np.int8)


def fold_position(position: np.ndarray, acc_scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """position float [tokens, d] -> int8 [1, tokens, d] and int16 factor [d], position ~ int8 * factor * acc_scale.

    The table's scale is free per channel, so it is an integer multiple of the accumulator's.
    """
    largest = np.abs(position).max(axis=0)
    factor = np.clip(np.ceil(largest / (127 * acc_scale)), 1, MAX_POSITION_SCALE)
    table = np.clip(np.rint(position / (factor * acc_scale)), -127, 127).astype(np.int8)
    return table[None], factor.astype(np.int16)


def lower_convolution(
    weight: np.ndarray, bias: np.ndarray, position: np.ndarray | None, source_scale: float, source_zero: float,
    target: Quantisation, prefix: np.ndarray | None = None, rows: np.ndarray | None = None,
) -> tuple[dict[str, Any], Quantisation]:  # fmt: skip
    """Constants, and the target, widened if its scale is too fine. weight float [out, ...], prefix float [tokens, out].

    The image's real zero point may be a fraction (-0.5 for uint8 images in [-1, 1]); it only enters the bias.
    rows: int8 inputs [n, in] that the rounding of weights is made for; None: each to the nearest.
    """
    effective = weight.reshape(len(weight), -1) * source_scale
    acc_scale = accumulator_scale(effective, target, bias, position)
    if rows is None:
        quantised = quantise_rows(effective, acc_scale)
    else:
        quantised = compensated(effective / acc_scale[:, None], rows - source_zero)
    target = target.at_least((MIN_WIDE_SCALE_STEPS if target.is_wide else MIN_SCALE_STEPS) * acc_scale)
    scale = acc_scale / target.scale
    table, factor = (None, None) if position is None else fold_position(position, acc_scale)
    constants = {
        "weights": quantised.reshape(weight.shape),
        "bias": round_bias(bias / acc_scale - source_zero * quantised.astype(np.float64).sum(axis=1)),
        "multiplier": wide_multiplier_of(scale) if target.is_wide else multiplier_of(scale),
        "position": table,
        "position_scale": factor,
        "prefix": None if prefix is None else target.quantise(prefix),
    }
    return constants, target


def with_prefix(prefix: np.ndarray | None, tokens: np.ndarray) -> np.ndarray:
    """tokens [batch, tokens, d] after the prefix [prefix tokens, d] of the same type, or as they are."""
    if prefix is None:
        return tokens
    return np.concatenate([np.broadcast_to(prefix, (len(tokens), *prefix.shape)), tokens], axis=1)

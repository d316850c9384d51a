# SPDX-License-Identifier: Apache-2.0
"""TokenMean: mean over tokens, int8 -> int8 of its own scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mcuformer.converter.ops.fixed_point import multiplier_of, requantise
from mcuformer.converter.quantise import Quantisation

NAME = "TokenMean"
INPUTS = ("input",)
OVERWRITES = (0,)
OP_DATA_BYTES = 8

SUM_SHIFT = 7


@dataclass(frozen=True)
class Options:
    in_zero_point: int
    zero_point: int
    multiplier: int  # round(in_scale / (out_scale * tokens * 128) * 2^32)


def lower(tokens: int, source: Quantisation, target: Quantisation) -> tuple[Options, Quantisation]:
    """Options, and the target widened where its scale is too fine for the arithmetic."""
    step = source.scale / (tokens << SUM_SHIFT)
    target = target.at_least(2.001 * step)
    return Options(source.zero_point, target.zero_point, int(multiplier_of(step / target.scale))), target


def reference(options: Options, x: np.ndarray) -> np.ndarray:
    """x int8 [batch, tokens, d] -> int8 [batch, d]."""
    total = x.astype(np.int64).sum(axis=1) - x.shape[1] * options.in_zero_point
    return requantise(total << SUM_SHIFT, options.multiplier, options.zero_point)


def scratch_bytes(options: Options, tensors) -> int:
    return 0


def output_shape(options: Options, shapes) -> tuple[int, ...]:
    return (shapes[0][0], shapes[0][-1])

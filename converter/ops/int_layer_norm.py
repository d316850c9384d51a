# SPDX-License-Identifier: Apache-2.0
"""IntLayerNorm: layer normalisation of each token in integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mcuformer.converter.ops.fixed_point import mulhi_round, sat8
from mcuformer.converter.quantise import Quantisation

NAME = "IntLayerNorm"
INPUTS = ("input", "gamma", "beta", "factor")
OVERWRITES = (0,)
OP_DATA_BYTES = 16

FRACTION_BITS = 10  # of the normalised value
OUTPUT_BITS = 16  # fraction of normal * gamma + beta
MAX_FACTOR = 127  # keeps (q - zero_point) * factor inside int16
HERON_STEPS = 3


@dataclass(frozen=True)
class Options:
    zero_point: int  # of the input
    epsilon: int  # d^2 * eps / scale^2, at most 2^60


def lower(
    gamma: np.ndarray, beta: np.ndarray, epsilon: float, source: Quantisation, target: Quantisation
) -> tuple[Options, dict[str, np.ndarray | None], Quantisation]:
    """Options, constants, and the target widened where gamma / scale would overflow.

    gamma, beta: float [d]. source may have per-channel scales that are integer multiples of one.
    """
    d = len(gamma)
    gain_bits = OUTPUT_BITS - FRACTION_BITS
    # |normal| <= sqrt(d); both the int16 gamma and the int32 accumulator must hold
    root = int(np.ceil(np.sqrt(d))) + 1
    largest = min(32767.0, (2**31 - 2**28) / (root << FRACTION_BITS)) / 2**gain_bits
    target = target.at_least(np.max(np.abs(gamma)) / largest)
    scaled_beta = (beta / target.scale + target.zero_point) * 2**OUTPUT_BITS + 2 ** (OUTPUT_BITS - 1)
    base, factor = source.integer_factors(MAX_FACTOR)
    options = Options(source.zero_point, int(min(round(d * d * epsilon / base**2), 1 << 60)))
    constants = {
        "gamma": np.rint(gamma / target.scale * 2**gain_bits).astype(np.int16),
        "beta": np.clip(np.rint(scaled_beta), -(2**28), 2**28).astype(np.int32),
        "factor": factor.astype(np.uint8) if (factor > 1).any() else None,
    }
    return options, constants, target


def _bit_length(value: np.ndarray) -> np.ndarray:
    bits = np.zeros_like(value)
    for step in (32, 16, 8, 4, 2, 1):
        large = value >> step > 0
        bits += step * large
        value = np.where(large, value >> step, value)
    return bits + (value > 0)


def reference(
    options: Options, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, factor: np.ndarray | None = None
) -> np.ndarray:
    """x int8 [batch, tokens, d], gamma int16 [d], beta int32 [d], factor uint8 [d] or None -> int8 like x."""
    d = x.shape[-1]
    x = x.astype(np.int64) - options.zero_point
    if factor is not None:
        x = x * factor.astype(np.int64)
    total = x.sum(axis=-1, keepdims=True)
    variance = d * (x * x).sum(axis=-1, keepdims=True) - total * total + options.epsilon
    variance = np.maximum(variance, 1)
    # variance = normal * 4^half with normal in [2^30, 2^32)
    half = (_bit_length(variance) - 31) >> 1
    normal = np.where(half >= 0, variance >> np.maximum(2 * half, 0), variance << np.maximum(-2 * half, 0))
    root = (normal >> 17) + (normal >> 19) + 24576
    for _ in range(HERON_STEPS):
        root = (root + normal // root) >> 1
    inverse = 0xFFFFFFFF // np.minimum(root, 65535)
    up = np.maximum(-4 - half, 0)
    power = FRACTION_BITS - half - up
    multiplier = np.where(power >= 0, inverse << np.maximum(power, 0), inverse >> np.maximum(-power, 0))
    difference = (d * x - total) << up
    t = mulhi_round(difference, multiplier)
    return sat8((t * gamma.astype(np.int64) + beta.astype(np.int64)) >> OUTPUT_BITS)


def scratch_bytes(options: Options, tensors) -> int:
    return 0


def output_shape(options: Options, shapes) -> tuple[int, ...]:
    return shapes[0]

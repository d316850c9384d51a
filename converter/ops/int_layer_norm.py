# SPDX-License-Identifier: Apache-2.0
"""IntLayerNorm: layer normalisation of each token in integers, int8 -> int8, or int16 of a wide stream -> int8."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mcuformer.converter.ops import c_call
from mcuformer.converter.ops.fixed_point import bit_length, mulhi_round, sat8
from mcuformer.converter.ops.work import WIDE_WORK, Shapes, Work
from mcuformer.converter.quantise import Quantisation

NAME = "IntLayerNorm"
INPUTS = ("input", "gamma", "beta", "factor")
OVERWRITES = (0,)
WIDE = ("input",)
OP_DATA_BYTES = 16

FRACTION_BITS = 10  # of the normalised value
OUTPUT_BITS = 16  # fraction of normal * gamma + beta
MAX_FACTOR = 127  # keeps (q - zero_point) * factor inside int16
HERON_STEPS = 3

# The widest tokens that the whole-word kernels take (mcuf_int_layer_norm_s8.c).
MAX_WORD_FEATURES, MAX_WORD_FEATURES_FACTOR = 900, 257
KERNELS = {
    "layer_norm_call": ("call",),
    **{f"layer_norm{kind}": ("token", "element") for kind in ("", "_factor", "_other", "_other_factor")},
}


@dataclass(frozen=True)
class Options:
    zero_point: int  # of the input
    epsilon: int  # d^2 * eps / scale^2, at most 2^60
    wide: int = 0  # 1: the input is int16, with zero point 0 and without factors


class Dims(NamedTuple):
    """tokens of `features` channels, which may lie side by side in the last dimension; factor: with a factor per
    channel; wide: as in Options."""

    tokens: int
    features: int
    factor: bool = True
    wide: int = 0


def dims(options: Options, shapes: Shapes) -> Dims:
    """The dimensions of an op with these options and input shapes: gamma says how many features a token has."""
    width, features = shapes[0][-1], shapes[1][0] if shapes[1] else 0
    if features == 0 or width % features:
        features = width  # gamma is then refused
    return Dims(math.prod(shapes[0]) // features, features, shapes[3] is not None, options.wide)


def input_elements(d: Dims) -> int:
    return d.tokens * d.features


def output_elements(d: Dims) -> int:
    return d.tokens * d.features


def weight_elements(d: Dims) -> int:
    return 0


def constants(d: Dims) -> int:
    """How many constants the model file holds."""
    return 2 + d.factor


def constant_bytes(d: Dims) -> tuple[int, ...]:
    """Bytes of each constant in the model file: gamma, beta, factor."""
    return (2 * d.features, 4 * d.features, *((d.features,) * d.factor))


def scratch_bytes(d: Dims) -> int:
    return 0


def macs(d: Dims) -> int:
    return 0


def work(d: Dims, calls: int = 1) -> list[Work]:
    """The work of `calls` calls. Widths in whole words have kernels of their own."""
    if d.wide:
        return [WIDE_WORK]
    fits = d.features % 4 == 0 and d.features <= (MAX_WORD_FEATURES_FACTOR if d.factor else MAX_WORD_FEATURES)
    kind = f"layer_norm{'' if fits else '_other'}{'_factor' if d.factor else ''}"
    return [Work("layer_norm_call", (calls,)), Work(kind, (calls * d.tokens, calls * d.tokens * d.features))]


def call(op, c: c_call.Context) -> c_call.Call:
    source, gamma, beta, factor = op.inputs
    d = dims(op.options, [c.shape(i) if i >= 0 else None for i in op.inputs])
    fields = {
        "tokens": d.tokens, "features": d.features, "zero_point": op.options.zero_point,
        "epsilon": c_call.Int64(op.options.epsilon), "gamma": c.tensor(gamma), "beta": c.tensor(beta),
        "factor": c.tensor(factor),
    }  # fmt: skip
    function = "mcuf_int_layer_norm_s16" if op.options.wide else "mcuf_int_layer_norm_s8"
    args = (c_call.PARAMS, c.address(source), c.address(op.output))
    return c_call.Call(function, ("mcuf_int_layer_norm_params", fields), args)


def lower(
    gamma: np.ndarray, beta: np.ndarray, epsilon: float, source: Quantisation, target: Quantisation
) -> tuple[Options, dict[str, np.ndarray | None], Quantisation]:
    """Options, constants, and the target, widened if gamma / scale would overflow.

    gamma, beta: float [d]. source may have per-channel scales that are integer multiples of one; for tokens side by
    side [k * d], those of each token in the same proportions (epsilon is then right for the mean of their scales). The
    target may have any scales per channel [d], such as those of the residual stream.
    """
    d = len(gamma)
    gain_bits = OUTPUT_BITS - FRACTION_BITS
    target = _widened(target, finest_scale(gamma))
    scaled_beta = (beta / target.scale + target.zero_point) * 2**OUTPUT_BITS + 2 ** (OUTPUT_BITS - 1)
    base, factor = _factors(source, d)
    options = Options(source.zero_point, int(min(round(d * d * epsilon / base**2), 1 << 60)), int(source.is_wide))
    constants = {
        "gamma": np.rint(gamma / target.scale * 2**gain_bits).astype(np.int16),
        "beta": np.clip(np.rint(scaled_beta), -(2**28), 2**28).astype(np.int32),
        "factor": factor.astype(np.uint8) if (factor > 1).any() else None,
    }
    return options, constants, target


def finest_scale(gamma: np.ndarray) -> np.ndarray:
    """The least scale that a channel of the output may have, float [d]."""
    # |normal| <= sqrt(d); both the int16 gamma and the int32 accumulator must hold
    root = int(np.ceil(np.sqrt(len(gamma)))) + 1
    largest = min(32767.0, (2**31 - 2**28) / (root << FRACTION_BITS)) / 2 ** (OUTPUT_BITS - FRACTION_BITS)
    return np.abs(gamma) / largest


def _widened(target: Quantisation, least: np.ndarray) -> Quantisation:
    """The target with no scale below `least`, float [d]."""
    if not target.per_channel or (target.scale >= least).all():
        return target.at_least(least)
    base, factor = target.integer_factors(MAX_FACTOR)
    wider = np.clip(np.ceil(least / base), factor, MAX_FACTOR)
    if (wider > factor).any():
        target = Quantisation(base * wider, target.zero_point)
    return target.at_least(least)


def _factors(source: Quantisation, d: int) -> tuple[float, np.ndarray]:
    """The scale that a channel's is a multiple of, and the multiples, int [d] or [1]."""
    if np.size(source.scale) <= d:
        return source.integer_factors(MAX_FACTOR)
    tokens = [Quantisation(scale).integer_factors(MAX_FACTOR) for scale in np.reshape(source.scale, (-1, d))]
    base, factors = (np.array(values) for values in zip(*tokens, strict=True))
    if (factors != factors[0]).any():
        raise ValueError("tokens side by side whose channels have scales in different proportions")
    return float(base.mean()), factors[0]


def reference(
    options: Options, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, factor: np.ndarray | None = None
) -> np.ndarray:
    """x int8 or int16 [batch, .., k * d], gamma int16 [d], beta int32 [d], factor uint8 [d] or None -> int8 like
    x."""
    d, shape = len(gamma), x.shape
    x = x.reshape(*shape[:-1], -1, d).astype(np.int64) - options.zero_point
    if factor is not None:
        x = x * factor.astype(np.int64)
    total = x.sum(axis=-1, keepdims=True)
    variance = d * (x * x).sum(axis=-1, keepdims=True) - total * total + options.epsilon
    variance = np.maximum(variance, 1)
    # variance = normal * 4^half with normal in [2^30, 2^32)
    half = (bit_length(variance) - 31) >> 1
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
    return sat8((t * gamma.astype(np.int64) + beta.astype(np.int64)) >> OUTPUT_BITS).reshape(shape)


def output_shape(options: Options, shapes: Shapes) -> tuple[int, ...]:
    return shapes[0]

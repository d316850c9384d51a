# SPDX-License-Identifier: Apache-2.0
"""TokenMean: means over one or two ranges of tokens, int8 -> int8 of their own scales, or int16 -> int16 of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mcuformer.converter.ops import c_call
from mcuformer.converter.ops.fixed_point import multiplier_of, requantise, requantise_wide, wide_multiplier_of
from mcuformer.converter.ops.weights import MIN_SCALE_STEPS
from mcuformer.converter.ops.work import WIDE_WORK, Shapes, Work
from mcuformer.converter.quantise import Quantisation

NAME = "TokenMean"
INPUTS = ("input",)
OVERWRITES = (0,)
WIDE = ("input", "output")
OP_DATA_BYTES = 8

SUM_SHIFT = 7
KERNELS = {"token_mean": ("call", "channel", "element")}


@dataclass(frozen=True)
class Options:
    in_zero_point: int
    zero_point: int
    multiplier: int  # round(in_scale / (out_scale * count * 128) * 2^32), of the first range; wide: 2^24 / count
    first_token: int = 0
    token_count: int = 0  # 0: all tokens
    second_token: int = 0
    second_count: int = 0  # 0: there is no second range
    second_multiplier: int = 0
    wide: int = 0  # 1: input and output are int16, with zero point 0


class Dims(NamedTuple):
    """tokens of `features` channels, and the ranges whose means follow one another: one or two (first token, count).
    wide: as in Options."""

    tokens: int
    features: int
    parts: tuple[tuple[int, int], ...]
    wide: int = 0


def dims(options: Options, shapes: Shapes) -> Dims:
    """The dimensions of an op with these options and input shapes."""
    _, tokens, features = shapes[0]
    return Dims(tokens, features, _parts(options, tokens), options.wide)


def _parts(o: Options, tokens: int) -> tuple[tuple[int, int], ...]:
    first = (o.first_token, o.token_count or tokens)
    return (first, (o.second_token, o.second_count)) if o.second_count else (first,)


def input_elements(d: Dims) -> int:
    return d.tokens * d.features


def output_elements(d: Dims) -> int:
    return len(d.parts) * d.features


def weight_elements(d: Dims) -> int:
    return 0


def constants(d: Dims) -> int:
    """How many constants the model file holds."""
    return 0


def constant_bytes(d: Dims) -> tuple[int, ...]:
    """Bytes of each constant in the model file: none."""
    return ()


def scratch_bytes(d: Dims) -> int:
    return 0


def macs(d: Dims) -> int:
    return 0


def work(d: Dims) -> list[Work]:
    if d.wide:
        return [WIDE_WORK]
    return [Work("token_mean", (1, output_elements(d), sum(count for _, count in d.parts) * d.features))]


def call(op, c: c_call.Context) -> c_call.Call:
    _, tokens, features = c.shape(op.inputs[0])
    fields = {
        "tokens": tokens, "features": features, "in_zero_point": op.options.in_zero_point,
        "zero_point": op.options.zero_point, "multiplier": op.options.multiplier,
    }  # fmt: skip
    for name in ("first_token", "token_count", "second_token", "second_count", "second_multiplier"):
        if value := getattr(op.options, name):
            fields[name] = value
    function = "mcuf_token_mean_s16" if op.options.wide else "mcuf_token_mean_s8"
    args = (c_call.PARAMS, c.address(op.inputs[0]), c.address(op.output))
    return c_call.Call(function, ("mcuf_token_mean_params", fields), args)


def lower(d: Dims, source: Quantisation, targets: Sequence[Quantisation]) -> tuple[Options, Quantisation]:
    """Options, and the quantisation of all means, from one wanted target per part.

    If `source` has one scale, a part's is the wanted one. If `source` has scales per channel, a part's are those of
    `source` times one ratio, the least that makes none finer than the wanted ones: give those of the channels' ranges,
    or `source` itself to copy single tokens exactly. Both are widened if they are too fine for the arithmetic.

    Of a wide source the means keep its scale, whatever the targets.

    The targets share one zero point, 0 if `source` has scales per channel. The result has scales per channel
    [parts * features] then, and with two parts. ValueError if zero points differ or there are not as many targets as
    parts.
    """
    if source.is_wide:  # means are no larger than what they are of
        return _options(d, [int(wide_multiplier_of(1 / count)) for _, count in d.parts], 0, 0, 1), source
    zero_point = targets[0].zero_point
    if len(targets) != len(d.parts) or any(target.zero_point != zero_point for target in targets):
        raise ValueError("the means of a TokenMean need one target each, all with the same zero point")
    if source.per_channel and zero_point:
        raise ValueError("a source with scales per channel needs targets with zero point 0")
    scales: list[float | np.ndarray] = []
    multipliers: list[int] = []
    for (_, count), target in zip(d.parts, targets, strict=True):
        if source.per_channel:
            step = 1 / (count << SUM_SHIFT)  # in units of the source's scales
            ratio = max(float(np.max(target.scale / source.scale)), MIN_SCALE_STEPS * step)
            scales.append(source.scale * ratio)
            multipliers.append(int(multiplier_of(step / ratio)))
        else:
            step = float(source.scale) / (count << SUM_SHIFT)
            target = target.at_least(MIN_SCALE_STEPS * step)
            scales.append(target.scale)
            multipliers.append(int(multiplier_of(step / target.scale)))
    options = _options(d, multipliers, source.zero_point, zero_point, 0)
    if len(d.parts) == 1:
        return options, Quantisation(scales[0], zero_point)
    each_channel = [np.broadcast_to(np.asarray(scale, np.float64), d.features) for scale in scales]
    return options, Quantisation(np.concatenate(each_channel), zero_point)


def _options(d: Dims, multipliers: Sequence[int], in_zero_point: int, zero_point: int, wide: int) -> Options:
    (first, count), *more = d.parts
    second, second_count = more[0] if more else (0, 0)
    return Options(
        in_zero_point, zero_point, multipliers[0], first, 0 if (first, count) == (0, d.tokens) else count, second,
        second_count, multipliers[1] if more else 0, wide,
    )  # fmt: skip


def reference(options: Options, x: np.ndarray) -> np.ndarray:
    """x int8 [batch, tokens, d] -> int8 [batch, parts * d]; int16 both with options.wide."""
    means = []
    multipliers = (options.multiplier, options.second_multiplier)
    for (first, count), multiplier in zip(_parts(options, x.shape[1]), multipliers, strict=False):
        total = x[:, first : first + count].astype(np.int64).sum(axis=1) - count * options.in_zero_point
        if options.wide:
            means.append(requantise_wide(total, multiplier))
        else:
            means.append(requantise(total << SUM_SHIFT, multiplier, options.zero_point))
    return np.concatenate(means, axis=-1)


def output_shape(options: Options, shapes: Shapes) -> tuple[int, ...]:
    return (shapes[0][0], (2 if options.second_count else 1) * shapes[0][-1])

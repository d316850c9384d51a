# SPDX-License-Identifier: Apache-2.0
"""TokenMean: mean over tokens, int8 -> int8 of its own scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mcuformer.converter.ops import c_call
from mcuformer.converter.ops.fixed_point import multiplier_of, requantise
from mcuformer.converter.ops.weights import MIN_SCALE_STEPS
from mcuformer.converter.ops.work import Shapes, Work
from mcuformer.converter.quantise import Quantisation

NAME = "TokenMean"
INPUTS = ("input",)
OVERWRITES = (0,)
OP_DATA_BYTES = 8

SUM_SHIFT = 7
KERNELS = {"token_mean": ("call", "channel", "element")}


@dataclass(frozen=True)
class Options:
    in_zero_point: int
    zero_point: int
    multiplier: int  # round(in_scale / (out_scale * tokens * 128) * 2^32)


class Dims(NamedTuple):
    """The mean of `tokens` tokens of `features` channels."""

    tokens: int
    features: int


def dims(options: Options, shapes: Shapes) -> Dims:
    """The dimensions of an op with these options and input shapes."""
    return Dims(shapes[0][1], shapes[0][2])


def input_elements(d: Dims) -> int:
    return d.tokens * d.features


def output_elements(d: Dims) -> int:
    return d.features


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
    return [Work("token_mean", (1, d.features, d.tokens * d.features))]


def call(op, c: c_call.Context) -> c_call.Call:
    _, tokens, features = c.shape(op.inputs[0])
    fields = {
        "tokens": tokens, "features": features, "in_zero_point": op.options.in_zero_point,
        "zero_point": op.options.zero_point, "multiplier": op.options.multiplier,
    }  # fmt: skip
    return c_call.call("token_mean", fields, c.address(op.inputs[0]), c.address(op.output))


def lower(tokens: int, source: Quantisation, target: Quantisation) -> tuple[Options, Quantisation]:
    """Options, and the target, widened if its scale is too fine for the arithmetic."""
    step = source.scale / (tokens << SUM_SHIFT)
    target = target.at_least(MIN_SCALE_STEPS * step)
    return Options(source.zero_point, target.zero_point, int(multiplier_of(step / target.scale))), target


def reference(options: Options, x: np.ndarray) -> np.ndarray:
    """x int8 [batch, tokens, d] -> int8 [batch, d]."""
    total = x.astype(np.int64).sum(axis=1) - x.shape[1] * options.in_zero_point
    return requantise(total << SUM_SHIFT, options.multiplier, options.zero_point)


def output_shape(options: Options, shapes: Shapes) -> tuple[int, ...]:
    return (shapes[0][0], shapes[0][-1])

# SPDX-License-Identifier: Apache-2.0
"""InPlaceFC: a fully connected layer on each token, with optional GELU and residual, overwriting its tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter.ops.fixed_point import exact_matmul, multiplier_of, requantise, round_bias
from mcuformer.converter.ops.packed_weights import ROWS, unpack
from mcuformer.converter.ops.weights import accumulator_scale, quantise_rows
from mcuformer.converter.quantise import Quantisation

NAME = "InPlaceFC"
INPUTS = ("input", "weights", "bias", "multiplier", "gelu_table", "residual", "residual_scale")
OVERWRITES = (5, 0)  # the residual stream first, else the input tokens
OP_DATA_BYTES = 8

MAX_RESIDUAL_SCALE = 32767


@dataclass(frozen=True)
class Options:
    zero_point: int  # of the requantised value (before the table)
    packing: int = ROWS  # of the weights
    # Where weights are staged:
    in_features: int = 0
    tile_bytes: int = 0  # scratch for a tile of them; 0: they are in the model
    weights_offset: int = -1  # in the weights file, bytes
    block: int = 0  # tokens that they come once for


def quantise_weights(
    weight: np.ndarray,
    bias: np.ndarray | None,
    source: Quantisation,
    target: Quantisation,
    residual: Quantisation | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """weights int8 [out, in], accumulator scale float [out], residual_scale int16 [out] or None.

    Without residual: symmetric, per output channel, in [-127, 127]. With it, the weight scale is chosen so that the
    residual enters the accumulator by an integer factor, exactly (the weight scale is free).
    """
    effective = weight * source.scale  # per input step; scales of single inputs go into the weights
    acc_scale = accumulator_scale(effective, target, bias)
    factor = None
    if residual is not None:
        residual_step = np.broadcast_to(residual.scale, acc_scale.shape)
        factor = np.minimum(np.floor(residual_step / acc_scale), MAX_RESIDUAL_SCALE)
        # A factor below 1: the residual is finer than one step of the accumulator, and is rounded to whole ones.
        acc_scale = np.where(factor >= 1, residual_step / np.maximum(factor, 1), acc_scale)
        factor = np.where(factor >= 1, factor, np.rint(residual_step / acc_scale)).astype(np.int16)
    return quantise_rows(effective, acc_scale), acc_scale, factor


def lower(
    weight: np.ndarray,
    bias: np.ndarray | None,
    source: Quantisation,
    target: Quantisation,
    residual: Quantisation | None = None,
) -> tuple[Options, dict[str, np.ndarray | None], Quantisation]:
    """Options, constants, and the target widened where its scale is too fine for the arithmetic.

    weight float [out, in], bias float [out] or None. target: of the requantised value; residual: of the stream.
    """
    weights, acc_scale, factor = quantise_weights(weight, bias, source, target, residual)
    target = target.at_least(2.001 * acc_scale)
    folded = -source.zero_point * weights.astype(np.float64).sum(axis=1)
    if bias is not None:
        folded += bias / acc_scale
    if residual is not None:
        folded -= factor.astype(np.float64) * residual.zero_point
    constants = {
        "weights": weights,
        "bias": round_bias(folded),
        "multiplier": multiplier_of(acc_scale / target.scale),
        "residual_scale": factor,
    }
    return Options(target.zero_point), constants, target


def reference(
    options: Options,
    x: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    multiplier: np.ndarray,
    gelu_table: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    residual_scale: np.ndarray | None = None,
) -> np.ndarray:
    """x int8 [..., S >= in], weights int8 [out, in] as packed, bias and multiplier int32 [out] -> int8 [..., out]."""
    weights = unpack(weights, len(bias), options.packing)
    features = min(weights.shape[1], x.shape[-1])  # pairs are padded to even
    acc = exact_matmul(x[..., :features], weights[:, :features].T) + bias
    if residual is not None:
        acc = acc + residual.astype(np.int64) * residual_scale
    out = requantise(acc, multiplier, options.zero_point)
    return out if gelu_table is None else gelu_table[out.astype(np.int64) + 128]


def scratch_bytes(options: Options, tensors) -> int:
    return kernel_library.in_place_fc_scratch_bytes(tensors[1].shape[1], options.tile_bytes, options.block)


def output_shape(options: Options, shapes) -> tuple[int, ...]:
    return (*shapes[0][:-1], shapes[2][0])

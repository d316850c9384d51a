# SPDX-License-Identifier: Apache-2.0
"""InPlaceFC: a fully connected layer on each token, with optional GELU and residual, overwriting its tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter.ops import c_call
from mcuformer.converter.ops.fixed_point import (
    WIDE_RESIDUAL_ONE,
    exact_matmul,
    multiplier_of,
    requantise,
    requantise_wide,
    round_bias,
    wide_multiplier_of,
)
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS, least_tile, row_bytes_and_rows, tile_reads, unpack
from mcuformer.converter.ops.weights import MIN_SCALE_STEPS, MIN_WIDE_SCALE_STEPS, accumulator_scale, quantise_rows
from mcuformer.converter.ops.work import BLOCK_SIZES, PACKING_NAMES, WIDE_WORK, Shapes, Work, token_blocks
from mcuformer.converter.quantise import Quantisation
from mcuformer.converter.rounding import compensated

NAME = "InPlaceFC"
INPUTS = ("input", "weights", "bias", "multiplier", "gelu_table", "residual", "residual_scale")
WEIGHTS = ("weights",)
OVERWRITES = (5, 0)  # the residual stream first, else the input tokens
WIDE = ("residual", "output")
OP_DATA_BYTES = 8

MAX_RESIDUAL_SCALE = 32767
GELU_ENTRIES = 256

_COUNTS = (
    "call", "block", "input", "vector", "pair", "pair_word", "pair_vector", "pair_tail", "pair_piece", "odd",
    "odd_word", "output", "gelu", "residual",
)  # fmt: skip
KERNELS = {f"fully_connected_{packing}_{size}": _COUNTS for packing in PACKING_NAMES.values() for size in BLOCK_SIZES}


@dataclass(frozen=True)
class Options:
    zero_point: int  # of the requantised value, before the table
    packing: int = ROWS  # of the weights
    # If weights are staged:
    in_features: int = 0
    tile_bytes: int = 0  # scratch for one tile; 0: weights are in the model
    weights_offset: int = -1  # bytes, in the weights file
    tokens_per_read: int = 0  # of the weights
    # 1: residual and output are int16, with zero point 0. Only inside of Streamed ops: no kernel of this op alone.
    wide: int = 0


class Dims(NamedTuple):
    """tokens of in_features channels become tokens of out_features. gelu, residual: fused. tile_bytes,
    tokens_per_read: for staged weights; 0 if weights are in the model. wide: as in Options."""

    tokens: int
    in_features: int
    out_features: int
    packing: int = ROWS
    gelu: bool = False
    residual: bool = False
    tile_bytes: int = 0
    tokens_per_read: int = 0
    wide: int = 0


def dims(options: Options, shapes: Shapes) -> Dims:
    """The dimensions of an op with these options and input shapes."""
    source, weights, (out_features,), _, table, residual, _ = shapes
    inputs = weights[-1] if options.packing == ROWS else weights[-2]  # pairs are padded to an even number
    return Dims(
        math.prod(source[:-1]), options.in_features or min(inputs, source[-1]), out_features, options.packing,
        table is not None, residual is not None, options.tile_bytes, options.tokens_per_read,
        options.wide,
    )  # fmt: skip


def matrices(d: Dims) -> list[tuple[int, int]]:
    """(inputs, outputs) of each weight matrix."""
    return [(d.in_features, d.out_features)]


def staged(d: Dims) -> Dims:
    """The same with staged weights, in the least scratch."""
    tile = least_tile([row_bytes_and_rows(d.in_features, d.out_features, d.packing)])
    return d._replace(tile_bytes=tile, tokens_per_read=min(4, d.tokens))


def resized(options: Options, d: Dims, tokens: int, tile_bytes: int, weights_offset: int) -> Options:
    """Options with staged weights, read through a tile of tile_bytes once for `tokens` tokens."""
    return replace(
        options, in_features=d.in_features, tile_bytes=tile_bytes, weights_offset=weights_offset, tokens_per_read=tokens
    )


def token_choices(d: Dims) -> list[int]:
    """Tokens per read of staged weights worth trying: the fewest for each number of reads. Empty if not staged."""
    if not d.tile_bytes:
        return []
    if d.tokens <= 4:
        return [d.tokens]
    fours = -(-d.tokens // 4)
    return sorted({min(4 * -(-fours // n), d.tokens) for n in range(1, fours + 1)})


def input_elements(d: Dims) -> int:
    return d.tokens * d.in_features


def output_elements(d: Dims) -> int:
    return d.tokens * d.out_features


def weight_elements(d: Dims) -> int:
    return d.in_features * d.out_features


def constants(d: Dims) -> int:
    """How many constants the model file holds."""
    return 2 + (not d.tile_bytes) + d.gelu + d.residual


def constant_bytes(d: Dims) -> tuple[int, ...]:
    """Bytes of each constant in the model file."""
    weights = () if d.tile_bytes else (math.prod(row_bytes_and_rows(d.in_features, d.out_features, d.packing)),)
    table, residual_scale = (GELU_ENTRIES,) * d.gelu, (2 * d.out_features,) * d.residual
    return (*weights, 4 * d.out_features, 4 * d.out_features, *table, *residual_scale)


def scratch_bytes(d: Dims) -> int:
    scratch_of = kernel_library.scratch_getter("in_place_fc")
    return scratch_of(d.in_features, d.tile_bytes, d.tokens_per_read if d.tile_bytes else 0)


def macs(d: Dims) -> int:
    return d.tokens * d.in_features * d.out_features


def traffic(d: Dims) -> tuple[int, int]:
    """Bytes and number of reads of staged weights in one run."""
    if not d.tile_bytes:
        return 0, 0
    row, rows = row_bytes_and_rows(d.in_features, d.out_features, d.packing)
    times = -(-d.tokens // d.tokens_per_read)
    return times * row * rows, times * tile_reads(row, rows, d.tile_bytes)


def work(d: Dims, calls: int = 1) -> list[Work]:
    """The work of `calls` calls."""
    if d.wide:
        return [WIDE_WORK]
    outputs = d.out_features
    pairs, words, odd = (outputs + 1) // 2, (d.in_features + 1) // 2, outputs % 2
    vectors, pieces, found = -(-d.in_features // 16), -(-d.in_features // 64), []
    for i, (size, count) in enumerate(token_blocks(d.tokens, threes=d.packing == PAIRS)):
        blocks = calls * count
        elements = blocks * size * outputs
        counts = (
            calls * (i == 0), blocks, blocks * d.in_features, blocks * vectors, blocks * pairs, blocks * pairs * words,
            blocks * pairs * vectors, blocks * pairs * (d.in_features % 16 > 0), blocks * pairs * pieces, blocks * odd,
            blocks * odd * words, elements, elements * d.gelu, elements * d.residual,
        )  # fmt: skip
        found.append(Work(f"fully_connected_{PACKING_NAMES[d.packing]}_{size}", counts))
    return found


def call(op, c: c_call.Context) -> c_call.Call:
    if op.options.wide:
        raise ValueError("an int16 residual stream needs the schedule streamed")
    source, weights, bias, multiplier, gelu_table, residual, residual_scale = op.inputs
    d = dims(op.options, [c.shape(i) if i >= 0 else None for i in op.inputs])
    fields = {
        "tokens": d.tokens, "in_features": d.in_features, "in_stride": c.shape(source)[-1],
        "out_features": d.out_features, "zero_point": op.options.zero_point, "packing": d.packing,
        "weights": c.tensor(weights), "bias": c.tensor(bias), "multiplier": c.tensor(multiplier),
        "gelu_table": c.tensor(gelu_table), "residual_scale": c.tensor(residual_scale),
        **c.staged(d.tile_bytes, op.options.weights_offset), "tokens_per_read": op.options.tokens_per_read,
    }  # fmt: skip
    added = c.address(residual) if residual >= 0 else c.null()
    return c_call.call("in_place_fc", fields, c.address(source), added, c.address(op.output), c.scratch)


def quantise_weights(
    weight: np.ndarray,
    bias: np.ndarray | None,
    source: Quantisation,
    target: Quantisation,
    residual: Quantisation | None,
    rows: np.ndarray | None = None,
    row_weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """weights int8 [out, in], accumulator scale float [out], residual_scale int16 [out] or None.

    rows: int8 inputs [n, in] that the rounding of weights is made for; None: each to the nearest.

    Without residual: symmetric, per output channel, in [-127, 127]. With it, the weight scale, which is free, is chosen
    so that the residual enters the accumulator exactly, by an integer factor.
    """
    effective = weight * source.scale  # per input step; scales of single inputs go into the weights
    acc_scale = accumulator_scale(effective, target, bias)
    factor = None
    if residual is not None:
        residual_step = np.broadcast_to(residual.scale, acc_scale.shape)
        factor = np.minimum(np.floor(residual_step / acc_scale), MAX_RESIDUAL_SCALE)
        # A factor below 1: the residual is finer than one accumulator step, and is rounded to whole steps.
        acc_scale = np.where(factor >= 1, residual_step / np.maximum(factor, 1), acc_scale)
        factor = np.where(factor >= 1, factor, np.rint(residual_step / acc_scale)).astype(np.int16)
    if rows is None:
        return quantise_rows(effective, acc_scale), acc_scale, factor
    inputs = rows - float(source.zero_point)
    return compensated(effective / acc_scale[:, None], inputs, row_weights), acc_scale, factor


def lower(
    weight: np.ndarray,
    bias: np.ndarray | None,
    source: Quantisation,
    target: Quantisation,
    residual: Quantisation | None = None,
    rows: np.ndarray | None = None,
    row_weights: np.ndarray | None = None,
) -> tuple[Options, dict[str, np.ndarray | None], Quantisation]:
    """Options, constants, and the target, widened if its scale is too fine for the arithmetic. With a wide target the
    residual, wide as well, is added behind the accumulator, and does not bind the scales of weights.

    weight float [out, in], bias float [out] or None. target: of the requantised value; residual: of the stream.
    rows: float inputs [n, in], with weights [n], that the rounding of weights is made for; None: each to the nearest.
    """
    quantised = None if rows is None else source.quantise(rows)
    inside = None if target.is_wide else residual
    weights, acc_scale, factor = quantise_weights(weight, bias, source, target, inside, quantised, row_weights)
    target = target.at_least((MIN_WIDE_SCALE_STEPS if target.is_wide else MIN_SCALE_STEPS) * acc_scale)
    folded = -source.zero_point * weights.astype(np.float64).sum(axis=1)
    if bias is not None:
        folded += bias / acc_scale
    if inside is not None and factor is not None:
        folded -= factor.astype(np.float64) * inside.zero_point
    constants = {"weights": weights, "bias": round_bias(folded)}
    if target.is_wide and residual is not None:
        target = target.at_least(float(residual.scale) * WIDE_RESIDUAL_ONE / MAX_RESIDUAL_SCALE)
        ratio = float(residual.scale) / float(target.scale)
        factor = np.full(len(weights), np.rint(ratio * WIDE_RESIDUAL_ONE), np.int16)
    scale = acc_scale / target.scale
    constants["multiplier"] = wide_multiplier_of(scale) if target.is_wide else multiplier_of(scale)
    return Options(target.zero_point, wide=int(target.is_wide)), {**constants, "residual_scale": factor}, target


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
    """x int8 [..., S >= in], weights int8 [out, in] as packed, bias and multiplier int32 [out] -> int8 [..., out];
    with options.wide residual and output are int16."""
    weights = unpack(weights, len(bias), options.packing)
    features = min(weights.shape[1], x.shape[-1])  # pairs are padded to an even number
    acc = exact_matmul(x[..., :features], weights[:, :features].T) + bias
    if options.wide:
        return requantise_wide(acc, multiplier, residual, residual_scale)
    if residual is not None and residual_scale is not None:
        acc = acc + residual.astype(np.int64) * residual_scale
    out = requantise(acc, multiplier, options.zero_point)
    return out if gelu_table is None else gelu_table[out.astype(np.int64) + 128]


def output_shape(options: Options, shapes: Shapes) -> tuple[int, ...]:
    return (*shapes[0][:-1], shapes[2][0])

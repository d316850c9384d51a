# SPDX-License-Identifier: Apache-2.0
"""What StreamedAttention and StreamedMLP have in common: LayerNorm, then fully connected layers, on the stream.

The LayerNorm may be missing (post-norm networks): gamma, beta and factor are None then, its options 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from mcuformer.converter.ops import c_call, in_place_fc, int_layer_norm, params_blob
from mcuformer.converter.ops.packed_weights import row_bytes_and_rows
from mcuformer.converter.ops.work import BLOCK_SIZES, TOKEN_BLOCK, Shapes, Work

NORM = ("gamma", "beta", "factor")  # inputs of every Streamed op, after the stream
NORM_TYPES = {"gamma": "int16", "beta": "int32", "factor": "uint8"}
FULLY_CONNECTED_TYPES = {"weights": "int8", "bias": "int32", "multiplier": "int32"}


def tokens_at_once(tokens: int) -> int:
    """Tokens that an op takes through all its steps together: a block. More takes scratch and gains nothing from mapped
    flash."""
    return min(TOKEN_BLOCK, tokens)


class FullyConnected(NamedTuple):
    """Constants of one layer: weights as packed, bias and multiplier int32 [out]."""

    weights: Any
    bias: Any
    multiplier: Any


def layer_types(layers: Sequence[str]) -> dict[str, str]:
    """dtype of each layer's constants, by name."""
    return {f"{layer}_{name}": dtype for layer in layers for name, dtype in FULLY_CONNECTED_TYPES.items()}


def norm_bytes(features: int, factor: bool, norm: bool) -> tuple[int, int, int]:
    """Bytes of gamma, beta and factor; 0 for none."""
    if not norm:
        return 0, 0, 0
    gamma, beta, *rest = int_layer_norm.constant_bytes(int_layer_norm.Dims(1, features, factor))
    return gamma, beta, sum(rest)


def layer_bytes(inputs: int, outputs: int, packing: int, staged: bool) -> tuple[int, int, int]:
    """Bytes of weights (0 if they are staged), bias and multiplier."""
    weights, bias, multiplier = in_place_fc.constant_bytes(in_place_fc.Dims(1, inputs, outputs, packing))
    return 0 if staged else weights, bias, multiplier


def norm_work(tokens: int, features: int, factor: bool, norm: bool, calls: int, wide: int = 0) -> list[Work]:
    """The work of `calls` LayerNorms of `tokens` tokens, none if the op has no LayerNorm."""
    return int_layer_norm.work(int_layer_norm.Dims(tokens, features, factor, wide), calls) if norm else []


def normalised(
    options: Any, stream: np.ndarray, gamma: np.ndarray | None, beta: np.ndarray | None, factor: np.ndarray | None
) -> np.ndarray:
    """What the first layer reads, int8, shaped like stream: the stream itself without LayerNorm. options: of a Streamed
    op."""
    if gamma is None or beta is None:
        return stream
    norm = int_layer_norm.Options(options.norm_zero_point, options.epsilon)
    return int_layer_norm.reference(norm, stream, gamma, beta, factor)


def token_counts(tokens: int, at_once: int) -> list[tuple[int, int]]:
    """(tokens, turns): `at_once` tokens in whole turns, then the rest in one."""
    full, rest = divmod(tokens, at_once)
    return [(count, turns) for count, turns in ((at_once, full), (rest, int(rest > 0))) if turns]


def resized(options: Any, d: Any, tokens: int, tile_bytes: int, weights_offset: int) -> Any:
    """The options of an op with other sizes; weights are staged unless tile_bytes is 0."""
    return replace(options, tokens_at_once=tokens, tile_bytes=tile_bytes, weights_offset=weights_offset)


def token_choices(d: Any) -> list[int]:
    """Tokens at once worth trying: with staged weights the fewest for each number of turns, else blocks that have a
    kernel of their own."""
    if d.tile_bytes:
        return in_place_fc.token_choices(in_place_fc.Dims(d.tokens, 1, 1, tile_bytes=1))
    return [min(size, d.tokens) for size in BLOCK_SIZES]


WIDE = ("stream", "output")


def elements(d: Any) -> int:
    """Of the stream, which is input and output."""
    return d.tokens * d.embed_dim


def constants(d: Any) -> int:
    """How many constants the model file holds: the params."""
    return 1


def output_shape(options: Any, shapes: Shapes) -> tuple[int, ...]:
    return shapes[0]


def weights_bytes(matrices: Sequence[tuple[int, int]], packing: int) -> int:
    """Bytes of all matrices, each (inputs, outputs)."""
    return sum(math.prod(row_bytes_and_rows(*matrix, packing)) for matrix in matrices)


def call(function: str, op, fields: dict[str, Any], c: c_call.Context) -> c_call.Call:
    """The call of a Streamed op's kernel: in place on the stream."""
    output = c.address(op.output)
    if op.options.wide:
        fields |= {"wide": c.symbol("mcuf_wide")}
    if c.address(op.inputs[0]) != output:
        raise AssertionError(f"the output of {op.kind} does not overwrite its input")
    return c_call.call(function, fields, output, c.scratch)


def norm_fields(c: c_call.Context, op, features: int) -> dict[str, Any]:
    """The field `norm`, a mcuf_int_layer_norm_params."""
    gamma, beta, factor = op.inputs[1:4]
    return {
        "features": features, "zero_point": op.options.norm_zero_point, "epsilon": c_call.Int64(op.options.epsilon),
        "gamma": c.tensor(gamma), "beta": c.tensor(beta), "factor": c.tensor(factor),
    }  # fmt: skip


def layer_fields(
    c: c_call.Context, op, layers: Sequence[str], matrices: Sequence[tuple[int, int]], zero_points: Sequence[int]
) -> list[dict[str, Any]]:
    """One mcuf_in_place_fc_params per layer; `layers` are the names of their constants."""
    fields, offset = [], op.options.weights_offset
    for layer, (inputs, outputs), zero_point in zip(layers, matrices, zero_points, strict=True):
        first = op.module.INPUTS.index(f"{layer}_weights")
        weights, bias, multiplier = op.inputs[first : first + 3]
        fields.append(
            {
                "in_features": inputs, "out_features": outputs, "zero_point": zero_point,
                "packing": op.options.packing, "weights": c.tensor(weights), "bias": c.tensor(bias),
                "multiplier": c.tensor(multiplier), **c.staged(op.options.tile_bytes, offset),
            }
        )  # fmt: skip
        offset += params_blob.align(weights_bytes([(inputs, outputs)], op.options.packing))
    return fields

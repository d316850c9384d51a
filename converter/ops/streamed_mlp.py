# SPDX-License-Identifier: Apache-2.0
"""StreamedMLP: LayerNorm or none, fully connected layers with GELU, residual: in place, few tokens at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter.ops import c_call, in_place_fc, params_blob, streamed
from mcuformer.converter.ops.packed_weights import ROWS, least_tile, row_bytes_and_rows, tile_reads
from mcuformer.converter.ops.work import Shapes, Work

NAME = "StreamedMLP"
MAX_LAYERS = 4  # both matrices as two factors: MCUF_STREAMED_MLP_MAX_FCS
LAYERS = tuple(f"fc{i}" for i in range(MAX_LAYERS))
CONSTANT_TYPES = {
    **streamed.NORM_TYPES, "gelu_table": "int8", "residual_scale": "int16", **streamed.layer_types(LAYERS),
}  # fmt: skip
INPUTS = ("stream", *CONSTANT_TYPES)  # layers it lacks are left out
FIRST_LAYER = INPUTS.index("fc0_weights")
WEIGHTS = tuple(f"{layer}_weights" for layer in LAYERS)
OVERWRITES = (0,)
WIDE = streamed.WIDE
OP_DATA_BYTES = 4
KERNELS: dict[str, tuple[str, ...]] = {}  # those of the ops it combines


@dataclass(frozen=True)
class Options:
    tokens_at_once: int  # those that go through all steps together
    norm_zero_point: int  # of the stream; 0, as epsilon, without LayerNorm
    epsilon: int  # of the LayerNorm
    gelu_layer: int  # the one with the GELU; -1: none
    zero_points: tuple[int, ...]  # of each layer
    # If weights are staged:
    tile_bytes: int = 0  # scratch for one tile; 0: weights are in the model
    weights_offset: int = 0  # bytes, in the weights file
    packing: int = ROWS  # of the weights
    wide: int = 0  # 1: the stream is int16, with zero point 0; not among the scalars: its tensor's type says it


def _to_scalars(o: Options) -> list[int]:
    epsilon = params_blob.split_int64(o.epsilon)
    return [
        o.tokens_at_once, o.norm_zero_point, *epsilon, o.gelu_layer, o.tile_bytes, o.weights_offset, o.packing,
        *o.zero_points,
    ]  # fmt: skip


def _from_scalars(scalars: list[int]) -> Options:
    tokens_at_once, norm_zero_point, low, high, gelu_layer, tile_bytes, weights_offset, packing, *zero_points = scalars
    epsilon = params_blob.join_int64(low, high)
    return Options(
        tokens_at_once, norm_zero_point, epsilon, gelu_layer, tuple(zero_points), tile_bytes, weights_offset, packing
    )  # fmt: skip


LAYOUT = params_blob.Layout(
    scalars=(
        "tokens_at_once", "norm_zero_point", "epsilon_low", "epsilon_high", "gelu_layer", "tile_bytes",
        "weights_offset", "packing",
    ),
    repeated="zero_point", dtypes=CONSTANT_TYPES, to_scalars=_to_scalars, from_scalars=_from_scalars,
)  # fmt: skip


class Dims(NamedTuple):
    """tokens of embed_dim channels. layers: (inputs, outputs) of each; the others as in Options. factor: the LayerNorm
    has a factor a channel; norm: there is a LayerNorm; wide: as in Options."""

    tokens: int
    embed_dim: int
    layers: tuple[tuple[int, int], ...]
    gelu_layer: int
    tokens_at_once: int
    factor: bool = True
    packing: int = ROWS
    tile_bytes: int = 0
    norm: bool = True
    wide: int = 0


def dims(options: Options, shapes: Shapes) -> Dims:
    """The dimensions of an op with these options and input shapes."""
    stream, factor = shapes[0], shapes[3]
    outputs = [shapes[FIRST_LAYER + 3 * i + 1][0] for i in range(len(options.zero_points))]
    layers = tuple(zip((stream[-1], *outputs[:-1]), outputs, strict=True))
    return Dims(
        math.prod(stream[:-1]), stream[-1], layers, options.gelu_layer, options.tokens_at_once, factor is not None,
        options.packing, options.tile_bytes,
        shapes[1] is not None, options.wide,
    )  # fmt: skip


def matrices(d: Dims) -> list[tuple[int, int]]:
    """(inputs, outputs) of each layer."""
    return list(d.layers)


def staged(d: Dims) -> Dims:
    """The same with staged weights, in the least scratch."""
    return d._replace(tile_bytes=least_tile(row_bytes_and_rows(*layer, d.packing) for layer in d.layers))


resized, token_choices, constants = streamed.resized, streamed.token_choices, streamed.constants
input_elements = output_elements = streamed.elements
output_shape = streamed.output_shape


def weight_elements(d: Dims) -> int:
    return sum(inputs * outputs for inputs, outputs in d.layers)


def section_bytes(d: Dims) -> tuple[int, ...]:
    """Bytes of every section of the params."""
    scalars = 4 * (len(LAYOUT.scalars) + len(d.layers))
    table = in_place_fc.GELU_ENTRIES * (d.gelu_layer >= 0)
    sections = (scalars, *streamed.norm_bytes(d.embed_dim, d.factor, d.norm), table, 2 * d.embed_dim)
    layers = [streamed.layer_bytes(*layer, d.packing, d.tile_bytes > 0) for layer in d.layers]
    return (*sections, *(size for sizes in layers for size in sizes))


def constant_bytes(d: Dims) -> tuple[int, ...]:
    """Bytes of every constant in the model file: there is one, the params."""
    return (params_blob.packed_bytes(section_bytes(d)),)


def scratch_bytes(d: Dims) -> int:
    # Two buffers: layers take their tokens from one and the other in turn.
    (even, _), (odd, _) = max(d.layers[::2]), max(d.layers[1::2] or ((0, 0),))
    return kernel_library.scratch_getter("streamed_mlp")(d.tokens_at_once, even, odd, d.tile_bytes)


def macs(d: Dims) -> int:
    return d.tokens * weight_elements(d)


def traffic(d: Dims) -> tuple[int, int]:
    """Bytes and number of reads of staged weights in one run."""
    if not d.tile_bytes:
        return 0, 0
    reads = sum(tile_reads(*row_bytes_and_rows(*layer, d.packing), d.tile_bytes) for layer in d.layers)
    times = -(-d.tokens // d.tokens_at_once)
    return times * streamed.weights_bytes(d.layers, d.packing), times * reads


def work(d: Dims) -> list[Work]:
    found = []
    for count, turns in streamed.token_counts(d.tokens, d.tokens_at_once):
        found += streamed.norm_work(count, d.embed_dim, d.factor, d.norm, turns, d.wide)
        for i, (inputs, outputs) in enumerate(d.layers):
            gelu, residual = i == d.gelu_layer, i + 1 == len(d.layers)
            wide = d.wide * residual
            fc = in_place_fc.Dims(count, inputs, outputs, d.packing, gelu, residual, wide=wide)
            found += in_place_fc.work(fc, turns)
    return found


def call(op, c: c_call.Context) -> c_call.Call:
    d = dims(op.options, [c.shape(i) if i >= 0 else None for i in op.inputs])
    fcs = streamed.layer_fields(c, op, LAYERS[: len(d.layers)], d.layers, op.options.zero_points)
    if d.gelu_layer >= 0:
        fcs[d.gelu_layer]["gelu_table"] = c.tensor(op.inputs[INPUTS.index("gelu_table")])
    fcs[-1]["residual_scale"] = c.tensor(op.inputs[INPUTS.index("residual_scale")])
    fields = {
        "tokens": d.tokens, "tokens_at_once": d.tokens_at_once, "norm": streamed.norm_fields(c, op, d.embed_dim),
        "fc_count": len(fcs), "fcs": fcs,
    }  # fmt: skip
    return streamed.call("streamed_mlp", op, fields, c)


def reference(
    options: Options,
    stream: np.ndarray,
    gamma: np.ndarray | None,
    beta: np.ndarray | None,
    factor: np.ndarray | None,
    gelu_table: np.ndarray | None,
    residual_scale: np.ndarray,
    *layers: np.ndarray,
) -> np.ndarray:
    """stream int8, or int16 with options.wide, [batch, tokens, d] -> the same. layers: weights as packed, bias and
    multiplier of every layer; the rest as in the ops it combines."""
    x = streamed.normalised(options, stream, gamma, beta, factor)
    last = len(options.zero_points) - 1
    for i, zero_point in enumerate(options.zero_points):
        weights, bias, multiplier = layers[3 * i : 3 * i + 3]
        table = gelu_table if i == options.gelu_layer else None
        residual = stream if i == last else None
        fc = in_place_fc.Options(zero_point, options.packing, wide=options.wide * (i == last))
        x = in_place_fc.reference(fc, x, weights, bias, multiplier, table, residual, residual_scale)
    return x

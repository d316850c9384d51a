# SPDX-License-Identifier: Apache-2.0
"""StreamedAttention: LayerNorm or none, q, k, v, attention, projection, residual: in place on the stream.

The matrices before and after attention may be two factors each: then layers of their rank are before them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter.ops import c_call, in_place_fc, int_attention, params_blob, relative_position, streamed
from mcuformer.converter.ops.packed_weights import ROWS, least_tile, row_bytes_and_rows, tile_reads
from mcuformer.converter.ops.work import Shapes, Work

NAME = "StreamedAttention"
LAYERS = ("qkv", "proj", "qkv_rank", "proj_rank")  # the last two only with low rank
CONSTANT_TYPES = {
    **streamed.NORM_TYPES, "head_params": "int32", "residual_scale": "int16", **streamed.layer_types(LAYERS),
    **relative_position.CONSTANT_TYPES,
}  # fmt: skip
INPUTS = ("stream", *CONSTANT_TYPES)
WEIGHTS = tuple(f"{layer}_weights" for layer in LAYERS)
OVERWRITES = (0,)
WIDE = streamed.WIDE
OP_DATA_BYTES = 4
KERNELS: dict[str, tuple[str, ...]] = {}  # those of the ops it combines


@dataclass(frozen=True)
class Options:
    tokens_at_once: int  # those that go through all steps together
    kv_heads: int
    kv_heads_at_once: int
    head_dim: int
    zero_point: int  # of the attention's output; q, k and v have zero point 0
    norm_zero_point: int  # of the stream; 0, as epsilon, without LayerNorm
    epsilon: int  # of the LayerNorm
    qkv_zero_point: int
    proj_zero_point: int
    # If weights are staged:
    tile_bytes: int = 0  # scratch for one tile; 0: weights are in the model
    weights_offset: int = 0  # bytes, in the weights file
    packing: int = ROWS  # of the weights
    qkv_rank_zero_point: int = 0  # 0 as well without the layer
    proj_rank_zero_point: int = 0
    grid_rows: int = 0  # of patches, with relative positions
    grid_columns: int = 0
    wide: int = 0  # 1: the stream is int16, with zero point 0; not among the scalars: its tensor's type says it


def _to_scalars(o: Options) -> list[int]:
    ranks = (o.qkv_rank_zero_point, o.proj_rank_zero_point)
    grid = (o.grid_rows, o.grid_columns) if o.grid_rows else ()
    return [
        o.tokens_at_once, o.kv_heads, o.kv_heads_at_once, o.head_dim, o.zero_point, o.norm_zero_point,
        *params_blob.split_int64(o.epsilon), o.qkv_zero_point, o.proj_zero_point, o.tile_bytes, o.weights_offset,
        o.packing, *(ranks if any(ranks) or grid else ()), *grid,
    ]  # fmt: skip


def _from_scalars(scalars: list[int]) -> Options:
    tokens_at_once, kv_heads, at_once, head_dim, zero_point, norm_zero_point, low, high, *rest = scalars
    return Options(
        tokens_at_once,
        kv_heads,
        at_once,
        head_dim,
        zero_point,
        norm_zero_point,
        params_blob.join_int64(low, high),
        *rest,
    )


LAYOUT = params_blob.Layout(
    scalars=(
        "tokens_at_once", "kv_heads", "kv_heads_at_once", "head_dim", "zero_point", "norm_zero_point", "epsilon_low",
        "epsilon_high", "qkv_zero_point", "proj_zero_point", "tile_bytes", "weights_offset", "packing",
        "qkv_rank_zero_point", "proj_rank_zero_point",  # left out if both are 0, and the next two are
        "grid_rows", "grid_columns",  # left out without relative positions
    ),
    repeated="", dtypes=CONSTANT_TYPES, to_scalars=_to_scalars, from_scalars=_from_scalars,
)  # fmt: skip

BASE_SCALARS = LAYOUT.scalars.index("grid_rows")
"""Those without relative positions: with the two before that may be left out as many bytes, since sections begin at
multiples of 16."""


class Dims(NamedTuple):
    """tokens of embed_dim channels, attention as in IntAttention. tokens_at_once, kv_heads_at_once, tile_bytes: as in
    Options; factor: the LayerNorm has a factor per channel; norm: there is a LayerNorm; ranks: of qkv and of the
    projection, 0: one matrix; wide: as in Options."""

    tokens: int
    embed_dim: int
    num_heads: int
    kv_heads: int
    head_dim: int
    kv_heads_at_once: int
    tokens_at_once: int
    factor: bool = True
    packing: int = ROWS
    tile_bytes: int = 0
    norm: bool = True
    ranks: tuple[int, int] = (0, 0)
    relative: relative_position.Relative | None = None
    wide: int = 0

    @property
    def table_length(self) -> int:
        """Entries of the tables for relative positions; 0: none."""
        return relative_position.length_of_tables(self.relative, self.tokens)

    @property
    def q_dim(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def qkv_dim(self) -> int:
        return (self.num_heads + 2 * self.kv_heads) * self.head_dim


def dims(options: Options, shapes: Shapes) -> Dims:
    """The dimensions of an op with these options and input shapes."""
    stream, factor, head_params = shapes[0], shapes[3], shapes[4]
    return Dims(
        math.prod(stream[:-1]), stream[-1], head_params[0], options.kv_heads, options.head_dim,
        options.kv_heads_at_once, options.tokens_at_once, factor is not None, options.packing, options.tile_bytes,
        shapes[1] is not None, (_outputs(shapes, "qkv_rank"), _outputs(shapes, "proj_rank")),
        relative_position.of_options(options, shapes[INPUTS.index("relative_keys")] is not None), options.wide,
    )  # fmt: skip


def _outputs(shapes: Shapes, layer: str) -> int:
    """Outputs of a layer; 0 without it."""
    bias = shapes[INPUTS.index(f"{layer}_bias")]
    return 0 if bias is None else bias[0]


def kv_heads_at_once(
    tokens: int, embed_dim: int, num_heads: int, kv_heads: int, head_dim: int, table_length: int = 0
) -> int:
    """Key/value heads per pass: the number that needs the least scratch; of equals the larger one, for fewer passes."""
    if kv_heads == 1:
        return 1
    scratch_of, block = kernel_library.scratch_getter("streamed_attention"), streamed.tokens_at_once(tokens)
    best, least = kv_heads, None
    for n in range(kv_heads, 0, -1):
        if kv_heads % n == 0:
            scratch = scratch_of(tokens, block, embed_dim, num_heads, kv_heads, n, head_dim, 0, 0, table_length)
            if least is None or scratch < least:
                best, least = n, scratch
    return best


def kv_heads_within(d: Dims, room: int) -> int:
    """The most key/value heads at once whose scratch takes at most `room` bytes; at least as many as now."""
    for n in range(d.kv_heads, d.kv_heads_at_once, -1):
        if d.kv_heads % n == 0 and scratch_bytes(d._replace(kv_heads_at_once=n)) <= room:
            return n
    return d.kv_heads_at_once


def matrices(d: Dims) -> list[tuple[int, int]]:
    """(inputs, outputs) of LAYERS, without those it lacks."""
    qkv_rank, proj_rank = d.ranks
    found = [(qkv_rank or d.embed_dim, d.qkv_dim), (proj_rank or d.q_dim, d.embed_dim)]
    if qkv_rank:
        found.append((d.embed_dim, qkv_rank))
    if proj_rank:
        found.append((d.q_dim, proj_rank))
    return found


def staged(d: Dims) -> Dims:
    """The same with staged weights, in the least scratch."""
    return d._replace(tile_bytes=least_tile(row_bytes_and_rows(*matrix, d.packing) for matrix in matrices(d)))


resized, token_choices, constants = streamed.resized, streamed.token_choices, streamed.constants
input_elements = output_elements = streamed.elements
output_shape = streamed.output_shape


def weight_elements(d: Dims) -> int:
    return sum(inputs * outputs for inputs, outputs in matrices(d))


def section_bytes(d: Dims) -> tuple[int, ...]:
    """Bytes of every section of the params."""
    layers = [streamed.layer_bytes(*matrix, d.packing, d.tile_bytes > 0) for matrix in matrices(d)]
    if (d.ranks[1] or d.relative) and not d.ranks[0]:
        layers.insert(2, (0, 0, 0))
    if d.relative and not d.ranks[1]:
        layers.append((0, 0, 0))
    head_params = 4 * int_attention.HEAD_PARAMS * d.num_heads
    sections = (
        4 * (len(LAYOUT.scalars) if d.relative else BASE_SCALARS),
        *streamed.norm_bytes(d.embed_dim, d.factor, d.norm),
        head_params,
        2 * d.embed_dim,
    )
    return (*sections, *(size for sizes in layers for size in sizes), *_relative_bytes(d))


def _relative_bytes(d: Dims) -> tuple[int, ...]:
    """Bytes of the sections for relative positions, without those after the last that it has."""
    if d.relative is None:
        return ()
    sizes = d.relative.constant_bytes(d.tokens, d.num_heads, d.head_dim)
    return sizes if d.relative.tables else sizes[:2]


def constant_bytes(d: Dims) -> tuple[int, ...]:
    """Bytes of every constant in the model file: there is one, the params."""
    return (params_blob.packed_bytes(section_bytes(d)),)


def scratch_bytes(d: Dims) -> int:
    return kernel_library.scratch_getter("streamed_attention")(
        d.tokens,
        d.tokens_at_once,
        d.embed_dim,
        d.num_heads,
        d.kv_heads,
        d.kv_heads_at_once,
        d.head_dim,
        d.tile_bytes,
        d.ranks[0],
        d.table_length,
    )


def macs(d: Dims) -> int:
    """Those of its ops; rows of qkv_rank that every pass makes again count once."""
    return d.tokens * (weight_elements(d) + 2 * (d.tokens + d.table_length) * d.q_dim)


def traffic(d: Dims) -> tuple[int, int]:
    """Bytes and number of reads of staged weights in one run."""
    if not d.tile_bytes:
        return 0, 0
    (qkv_row, _), *others = (row_bytes_and_rows(*matrix, d.packing) for matrix in matrices(d))
    passes, times = d.kv_heads // d.kv_heads_at_once, -(-d.tokens // d.tokens_at_once)
    keys_and_values = 2 * tile_reads(qkv_row, d.kv_heads_at_once * d.head_dim, d.tile_bytes)
    reads = passes * (keys_and_values + tile_reads(qkv_row, d.q_dim // passes, d.tile_bytes))
    reads += sum(tile_reads(*matrix, d.tile_bytes) for matrix in others)
    size = streamed.weights_bytes(matrices(d), d.packing)
    if d.ranks[0]:  # is read for the keys and for the queries of each pass
        row, rows = row_bytes_and_rows(d.embed_dim, d.ranks[0], d.packing)
        again = 2 * passes - 1
        reads, size = reads + again * tile_reads(row, rows, d.tile_bytes), size + again * row * rows
    return times * size, times * reads


def work(d: Dims) -> list[Work]:
    """The work of its passes, whose order is in mcuf_streamed_attention_s8.h."""
    passes, queries = d.kv_heads // d.kv_heads_at_once, d.num_heads // d.kv_heads * d.kv_heads_at_once
    found = int_attention.tables_work(d.table_length, d.head_dim)
    (qkv_in, _), (proj_in, _), *_ = matrices(d)
    qkv_rank, proj_rank = d.ranks
    for count, turns in streamed.token_counts(d.tokens, d.tokens_at_once):
        times = passes * turns
        found += streamed.norm_work(count, d.embed_dim, d.factor, d.norm, 2 * times, d.wide)
        if qkv_rank:
            found += in_place_fc.work(in_place_fc.Dims(count, d.embed_dim, qkv_rank, d.packing), 2 * times)
        heads = in_place_fc.Dims(count, qkv_in, d.kv_heads_at_once * d.head_dim, d.packing)
        found += in_place_fc.work(heads, 2 * times)
        found.append(int_attention.keys_and_values_work(count, d.head_dim, d.kv_heads_at_once * times))
        found += in_place_fc.work(heads._replace(out_features=queries * d.head_dim), times)
        if proj_rank:
            found += in_place_fc.work(in_place_fc.Dims(count, d.q_dim, proj_rank, d.packing), turns)
        proj = in_place_fc.Dims(count, proj_in, d.embed_dim, d.packing, residual=True, wide=d.wide)
        found += in_place_fc.work(proj, turns)
        for rows, parts in ((4, count // 4), (count % 4, int(count % 4 > 0))):
            if parts:
                calls = queries * times * parts
                found.append(int_attention.query_rows_work(d.tokens, d.head_dim, rows, calls))
                found += relative_position.query_rows_work(d.relative, d.tokens, d.head_dim, rows, calls)
    return found


def call(op, c: c_call.Context) -> c_call.Call:
    d = dims(op.options, [c.shape(i) if i >= 0 else None for i in op.inputs])
    names = [name for name in LAYERS if op.inputs[INPUTS.index(f"{name}_bias")] >= 0]
    zero_points = [getattr(op.options, f"{name}_zero_point") for name in names]
    layers = dict(zip(names, streamed.layer_fields(c, op, names, matrices(d), zero_points), strict=True))
    layers["proj"]["residual_scale"] = c.tensor(op.inputs[INPUTS.index("residual_scale")])
    fields = {
        "tokens": d.tokens, "tokens_at_once": d.tokens_at_once, "num_heads": d.num_heads, "kv_heads": d.kv_heads,
        "kv_heads_at_once": d.kv_heads_at_once, "head_dim": d.head_dim, "zero_point": op.options.zero_point,
        "head_params": c.tensor(op.inputs[INPUTS.index("head_params")]),
        "norm": streamed.norm_fields(c, op, d.embed_dim), **layers, **relative_position.fields(op, c),
    }  # fmt: skip
    return streamed.call("streamed_attention", op, fields, c)


def reference(
    options: Options,
    stream: np.ndarray,
    gamma: np.ndarray | None,
    beta: np.ndarray | None,
    factor: np.ndarray | None,
    head_params: np.ndarray,
    residual_scale: np.ndarray,
    *layers: np.ndarray,
) -> np.ndarray:
    """stream int8, or int16 with options.wide, [batch, tokens, d] -> the same. layers: weights as packed, bias and
    multiplier of each of LAYERS, None where it lacks one, then the constants of relative positions; the rest as in the
    ops it combines."""
    qkv, proj, qkv_rank, proj_rank = (layers[i : i + 3] for i in range(0, 12, 3))
    relative = layers[12:]

    def fully_connected(
        zero_point: int, x: np.ndarray, layer: Sequence[np.ndarray], wide: int = 0, **added: np.ndarray
    ) -> np.ndarray:
        return in_place_fc.reference(in_place_fc.Options(zero_point, options.packing, wide=wide), x, *layer, **added)

    x = streamed.normalised(options, stream, gamma, beta, factor)
    if qkv_rank and qkv_rank[0] is not None:
        x = fully_connected(options.qkv_rank_zero_point, x, qkv_rank)
    x = fully_connected(options.qkv_zero_point, x, qkv)
    attention = int_attention.Options(
        options.kv_heads, options.head_dim, options.zero_point, options.grid_rows, options.grid_columns
    )
    x = int_attention.reference(attention, x, head_params, *relative)
    if proj_rank and proj_rank[0] is not None:
        x = fully_connected(options.proj_rank_zero_point, x, proj_rank)
    return fully_connected(
        options.proj_zero_point, x, proj, options.wide, residual=stream, residual_scale=residual_scale
    )

# SPDX-License-Identifier: Apache-2.0
"""Relative positions of queries and keys, as IntAttention and StreamedAttention take them: biases of the scores, or
tables of vectors that are added to keys and to values.

Trained tables and files have the same order of entries, which bias_entries() and table_entries() specify.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mcuformer.converter.ops import c_call
from mcuformer.converter.ops.fixed_point import bit_length, exact_matmul, mulhi_round
from mcuformer.converter.ops.work import Work
from mcuformer.converter.quantise import symmetric

HEAD_PARAMS = 2  # int32 per query head: MCUF_RELATIVE_HEAD_PARAMS
CONSTANT_TYPES = {
    "relative_params": "int32",  # [heads, HEAD_PARAMS]: factor of the biases, 0; or multipliers of keys and of values
    "relative_bias": "int16",  # [heads, bias_length()], or None
    "relative_keys": "int8",  # [table_length(), head_dim], or None
    "relative_values": "int8",  # as relative_keys
}
INPUTS = tuple(CONSTANT_TYPES)
# For four query rows of a head at a time, or one. place: a row or a column of the grid.
KERNELS = {
    **{f"relative_bias_{rows}": ("call", "token", "row") for rows in (4, 1)},
    **{f"relative_tables_{rows}": ("call", "token", "place", "channel", "place_channel") for rows in (4, 1)},
}
LARGEST_BIAS, LARGEST_ENTRY = 32767, 127
SUM_BITS = 15  # of a row's numerators by table entry, after their shift

PREFIX_BIASES = 3  # of a key that is a patch for a query in the prefix, the other way round, both in the prefix


def bias_length(grid: tuple[int, int], prefix: int) -> int:
    """Biases of one head: one for each offset in rows and columns, and those of a prefix."""
    rows, columns = grid
    return (2 * rows - 1) * (2 * columns - 1) + (PREFIX_BIASES if prefix else 0)


def table_length(grid: tuple[int, int], prefix: int) -> int:
    """Vectors of one table: an entry for each offset in rows, one for each in columns, one for all pairs with a prefix
    token."""
    rows, columns = grid
    return 2 * rows - 1 + 2 * columns - 1 + (1 if prefix else 0)


def distances(have: int, want: int) -> slice | list[int]:
    """Where a table for a side of `have` patches holds the distances of a side of `want`, 1 - want to want - 1; those
    that it lacks are its furthest."""
    if want <= have:
        return slice(have - want, have + want - 1)
    return [min(max(distance, 1 - have), have - 1) + have - 1 for distance in range(1 - want, want)]


def bias_entries(grid: tuple[int, int], prefix: int) -> np.ndarray:
    """int64 [tokens, tokens]: the bias of each query and key."""
    row, column = _offsets(grid)
    patches = row * (2 * grid[1] - 1) + column
    entries = np.empty((prefix + len(patches),) * 2, np.int64)
    first = bias_length(grid, 0)
    entries[:prefix, prefix:], entries[prefix:, :prefix], entries[:prefix, :prefix] = first, first + 1, first + 2
    entries[prefix:, prefix:] = patches
    return entries


def table_entries(grid: tuple[int, int], prefix: int) -> np.ndarray:
    """int64 [2, tokens, tokens]: the two entries whose sum is the vector of each query and key. Pairs with a prefix
    token have the prefix's entry and, for the second, table_length(), an entry of zeros after the last one."""
    row, column = _offsets(grid)
    entries = np.empty((2, prefix + len(row), prefix + len(row)), np.int64)
    entries[0], entries[1] = table_length(grid, 0), table_length(grid, prefix)
    entries[0, prefix:, prefix:], entries[1, prefix:, prefix:] = row, 2 * grid[0] - 1 + column
    return entries


def _offsets(grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """[patches, patches]: rows and columns of a key less those of the query, counted from 0."""
    rows, columns = grid
    row, column = np.divmod(np.arange(rows * columns), columns)
    return row[None] - row[:, None] + rows - 1, column[None] - column[:, None] + columns - 1


class Relative(NamedTuple):
    """Relative positions in a grid of rows x columns patches: biases, or with tables=True tables of vectors."""

    rows: int
    columns: int
    tables: bool

    @property
    def grid(self) -> tuple[int, int]:
        return self.rows, self.columns

    def prefix(self, tokens: int) -> int:
        return tokens - self.rows * self.columns

    def constant_bytes(self, tokens: int, heads: int, head_dim: int) -> tuple[int, int, int, int]:
        """Bytes of each constant of INPUTS, 0 for none."""
        params, prefix = 4 * HEAD_PARAMS * heads, self.prefix(tokens)
        if not self.tables:
            return params, 2 * heads * bias_length(self.grid, prefix), 0, 0
        table = head_dim * table_length(self.grid, prefix)
        return params, 0, table, table


def query_rows_work(relative: Relative | None, tokens: int, head_dim: int, rows: int, calls: int) -> list[Work]:
    """What relative positions add to int_attention.query_rows_work(); nothing without them."""
    if relative is None:
        return []
    calls = calls if rows == 4 else calls * rows
    counts, places = [1, tokens], relative.rows + relative.columns
    counts += [places, head_dim, places * head_dim] if relative.tables else [relative.rows]
    kernel = f"relative_{'tables' if relative.tables else 'bias'}_{4 if rows == 4 else 1}"
    return [Work(kernel, tuple(calls * count for count in counts))]


def of_options(options: Any, tables: bool) -> Relative | None:
    """The relative positions of an op with these options, which has tables or not."""
    return Relative(options.grid_rows, options.grid_columns, tables) if options.grid_rows else None


def length_of_tables(relative: Relative | None, tokens: int) -> int:
    """Entries of a table, 0 for none: what scratch getters ask for."""
    return table_length(relative.grid, relative.prefix(tokens)) if relative and relative.tables else 0


def fields(op: Any, c: c_call.Context) -> dict[str, Any]:
    """The field `relative`, a mcuf_relative_position; no field if an op has none."""
    if not op.options.grid_rows:
        return {}
    params, bias, keys, values = (c.tensor(op.inputs[op.module.INPUTS.index(name)]) for name in INPUTS)
    return {
        "relative": {
            "rows": op.options.grid_rows, "columns": op.options.grid_columns, "head_params": params, "bias": bias,
            "keys": keys, "values": values, "kernels": c.symbol("mcuf_relative"),
        }
    }  # fmt: skip


# The arithmetic, for one query head. Scores are in units of q_scale * k_scale.


def added_scores(
    grid: tuple[int, int], h: int, q: np.ndarray, params: np.ndarray, bias: np.ndarray | None, keys: np.ndarray | None
) -> np.ndarray:
    """What is added to the scores of query head h: int64 [tokens, tokens] or [batch, tokens, tokens]. q: its queries,
    int8 [batch, tokens, head_dim]."""
    prefix = q.shape[-2] - grid[0] * grid[1]
    if bias is not None:
        return bias[h].astype(np.int64)[bias_entries(grid, prefix)] * int(params[h, 0])
    if keys is None:
        raise ValueError("neither biases nor tables")
    by_entry = mulhi_round(2 * exact_matmul(q, np.maximum(keys, -LARGEST_ENTRY).T), params[h, 0])
    by_entry = np.concatenate([by_entry, np.zeros_like(by_entry[..., :1])], axis=-1)
    query = np.arange(q.shape[-2])[:, None]
    first, second = (by_entry[..., query, entries] for entries in table_entries(grid, prefix))
    return first + second


def added_values(
    grid: tuple[int, int], h: int, e: np.ndarray, total: np.ndarray, params: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """What is added to the weighted sums of values, int64 [batch, tokens, head_dim].

    e: numerators int64 [batch, tokens, tokens]; total: their sums [batch, tokens, 1]. Sums by entry are shifted right,
    so that their total is below 2^15, and what they weigh is shifted back.
    """
    prefix = e.shape[-1] - grid[0] * grid[1]
    sums = np.zeros((*e.shape[:-1], len(values) + 1), np.int64)
    batch, query = np.arange(len(e))[:, None, None], np.arange(e.shape[-2])[:, None]
    for entries in table_entries(grid, prefix):
        np.add.at(sums, (batch, query, entries), e)
    shift = np.maximum(bit_length(total) - SUM_BITS, 0)
    weighed = exact_matmul(sums[..., :-1] >> shift, values)
    return mulhi_round(weighed << (shift + 1), params[h, 1])


# Lowering


def lower_bias(bias: np.ndarray, unit: np.ndarray, head_dim: int) -> dict[str, np.ndarray]:
    """Constants for biases in nats, float [heads, bias_length()]; those that least_unit() does not allow for saturate.

    unit: float [heads], what a step of the scores is worth in nats.
    """
    bias = centred(bias)
    factor = np.clip(np.ceil(np.abs(bias).max(axis=1) / (LARGEST_BIAS * unit)), 1, head_dim)
    rounded = np.rint(bias / (unit * factor)[:, None])
    return {
        "relative_params": np.stack([factor, np.zeros_like(factor)], axis=1).astype(np.int32),
        "relative_bias": np.clip(rounded, -LARGEST_BIAS, LARGEST_BIAS).astype(np.int16),
    }


def centred(bias: np.ndarray) -> np.ndarray:
    """The same biases for a softmax, with the smallest and the largest of each head equally far from 0."""
    return bias - (bias.max(axis=1, keepdims=True) + bias.min(axis=1, keepdims=True)) / 2


def least_unit(bias: np.ndarray, head_dim: int) -> np.ndarray:
    """float [heads]: the smallest step of the scores, in nats, for which lower_bias() holds all biases."""
    return np.abs(centred(bias)).max(axis=1) / (LARGEST_BIAS * head_dim)


def table_scale(table: np.ndarray) -> float:
    """The scale of a table, to which that of the keys or values it is added to must be raised."""
    return float(symmetric(np.abs(table).max()).scale)


def lower_tables(
    keys: np.ndarray, values: np.ndarray, k_scale: np.ndarray, v_scale: np.ndarray
) -> dict[str, np.ndarray]:
    """Constants for tables, float [table_length(), head_dim]; k_scale, v_scale: of the key/value head of each query
    head. Entries saturate at the smallest of these scales."""
    lowered = {}
    multipliers = []
    for name, table, scales in (("relative_keys", keys, k_scale), ("relative_values", values, v_scale)):
        scale = min(table_scale(table), float(scales.min()))
        lowered[name] = np.clip(np.rint(table / scale), -LARGEST_ENTRY, LARGEST_ENTRY).astype(np.int8)
        multipliers.append(np.minimum(np.rint(scale / scales * 2.0**31), 2**31 - 1))
    return {"relative_params": np.stack(multipliers, axis=1).astype(np.int32), **lowered}

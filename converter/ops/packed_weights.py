# SPDX-License-Identifier: Apache-2.0
"""Weights of fully connected layers, packed and unpacked: the specification of tflm_kernels/core/mcuf_packing.h."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

ROWS, PAIRS = 0, 1
PACKINGS = {"rows": ROWS, "pairs": PAIRS}


def row_bytes_and_rows(in_features: int, out_features: int, packing: int) -> tuple[int, int]:
    """A packed matrix as rows of bytes; in pairs, a row is half of a pair."""
    if packing == ROWS:
        return in_features, out_features
    return in_features + in_features % 2, out_features + out_features % 2


def least_tile(matrices: Iterable[tuple[int, int]]) -> int:
    """Bytes of the smallest tile for staged matrices, (bytes of a row, rows) each: two rows of the widest one."""
    return -(-max(row * min(rows, 2) for row, rows in matrices) // 4) * 4


def tile_reads(row: int, rows: int, tile: int) -> int:
    """Number of reads for a matrix of `rows` rows of `row` bytes through a tile of `tile` bytes: an even number of rows
    each, or all of them at once."""
    most = tile // row
    return 1 if most >= rows else -(-rows // (most // 2 * 2))


def matrix_shape(in_features: int, out_features: int, packing: int) -> tuple[int, ...]:
    """Shape of a packed matrix [out, in]."""
    if packing == ROWS:
        return out_features, in_features
    return (out_features + 1) // 2, in_features + in_features % 2, 2


def pack(weights: np.ndarray, packing: int) -> np.ndarray:
    """int8 [..., out, in] in [-127, 127] -> the same for rows, int8 [..., ceil(out / 2), in rounded up to even, 2] for
    pairs."""
    if packing == ROWS:
        return weights
    *more, out_features, in_features = weights.shape
    padded = np.zeros((*more, out_features + out_features % 2, in_features + in_features % 2), np.int64)
    padded[..., :out_features, :in_features] = weights
    pairs = 256 * padded[..., 1::2, :] + padded[..., 0::2, :]
    return pairs.astype("<i2")[..., None].view(np.int8)


def unpack(packed: np.ndarray, out_features: int, packing: int) -> np.ndarray:
    """What pack() made -> [..., out, in], the inputs of pairs still rounded up to even."""
    if packing == ROWS:
        return packed
    *more, pairs, inputs, _ = packed.shape
    halfwords = np.ascontiguousarray(packed).view("<i2")[..., 0].astype(np.int64)
    low = ((halfwords + 128) & 255) - 128
    both = np.stack([low, (halfwords - low) >> 8], axis=-2).reshape(*more, 2 * pairs, inputs)
    return both[..., :out_features, :]

# SPDX-License-Identifier: Apache-2.0
"""Weights of fully connected layers, packed and unpacked: the specification of tflm_kernels/core/mcuf_packing.h."""

from __future__ import annotations

import numpy as np

ROWS, PAIRS = 0, 1


def row_bytes_and_rows(in_features: int, out_features: int, packing: int) -> tuple[int, int]:
    """A packed matrix seen as rows of bytes (of pairs: half of a pair)."""
    if packing == ROWS:
        return in_features, out_features
    return in_features + in_features % 2, out_features + out_features % 2


def pack(weights: np.ndarray, packing: int) -> np.ndarray:
    """int8 [..., out, in] in [-127, 127] -> the same for rows; int8 [..., ceil(out / 2), in rounded up to even, 2]."""
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

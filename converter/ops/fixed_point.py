# SPDX-License-Identifier: Apache-2.0
"""The fixed-point arithmetic of all ops, in numpy integers: the specification of mcuf_fixed_point.h.

Arrays hold int64 here, so nothing wraps; the C code is proven not to.
"""

from __future__ import annotations

import numpy as np

MAX_BIAS = 1 << 30
WIDE_SHIFT = 24  # fraction bits of a multiplier to int16
WIDE_RESIDUAL_ONE = 1 << 14  # the residual_scale of a residual that keeps its scale


def sat8(value: np.ndarray) -> np.ndarray:
    """Saturates to [-128, 127] and narrows to int8."""
    return np.clip(value, -128, 127).astype(np.int8)


def mulhi_round(a: np.ndarray, b: np.ndarray | int) -> np.ndarray:
    """High word of a 64-bit product, rounded half up: (a * b + 2^31) >> 32. |a|, |b| < 2^31."""
    return (np.asarray(a, np.int64) * b + (1 << 31)) >> 32


def requantise(acc: np.ndarray, multiplier: np.ndarray | int, zero_point: int) -> np.ndarray:
    """Accumulator -> int8: sat8(zero_point + acc * scale) with multiplier = round(scale * 2^32)."""
    return sat8(zero_point + mulhi_round(acc, np.asarray(multiplier, np.int64)))


def multiplier_of(scale: np.ndarray | float) -> np.ndarray:
    """round(scale * 2^32) as int32; scale must be in [0, 0.5)."""
    multiplier = np.rint(np.asarray(scale, np.float64) * 2.0**32)
    if not np.all((multiplier >= 0) & (multiplier < 2**31)):
        raise ValueError(f"requantisation scale {np.max(scale)} is not below 0.5")
    return multiplier.astype(np.int32)


def requantise_wide(
    acc: np.ndarray,
    multiplier: np.ndarray | int,
    residual: np.ndarray | None = None,
    residual_scale: np.ndarray | None = None,
) -> np.ndarray:
    """Accumulator -> int16, in 64 bits with one rounding: acc * scale plus what is added to it.

    multiplier = round(scale * 2^24); residual: int16, times round(its scale / the output's * 2^14).
    """
    total = np.asarray(acc, np.int64) * np.asarray(multiplier, np.int64) + (1 << (WIDE_SHIFT - 1))
    if residual is not None and residual_scale is not None:
        total = total + residual.astype(np.int64) * residual_scale * ((1 << WIDE_SHIFT) // WIDE_RESIDUAL_ONE)
    return np.clip(total >> WIDE_SHIFT, -32768, 32767).astype(np.int16)


def wide_multiplier_of(scale: np.ndarray | float) -> np.ndarray:
    """round(scale * 2^24) as int32; scale must be in [0, 128)."""
    multiplier = np.rint(np.asarray(scale, np.float64) * 2.0**WIDE_SHIFT)
    if not np.all((multiplier >= 0) & (multiplier < 2**31)):
        raise ValueError(f"requantisation scale {np.max(scale)} to int16 is not below 128")
    return multiplier.astype(np.int32)


def exact_matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integer matrix product through float64 BLAS: exact, since every partial sum is an integer below 2^53."""
    return np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.int64)


def bit_length(value: np.ndarray) -> np.ndarray:
    """Bits of each value, as int.bit_length has it. value: int64, not negative."""
    bits = np.zeros_like(value)
    for step in (32, 16, 8, 4, 2, 1):
        large = value >> step > 0
        bits += step * large
        value = np.where(large, value >> step, value)
    return bits + (value > 0)


def round_bias(bias: np.ndarray) -> np.ndarray:
    """Rounds a bias to int32, saturated at the kernels' limit of 2^30."""
    return np.clip(np.rint(bias), -MAX_BIAS, MAX_BIAS).astype(np.int32)

# SPDX-License-Identifier: Apache-2.0
"""Random op inputs that reach the corners: extremes, zeros, odd sizes."""

from __future__ import annotations

import numpy as np

TOKENS = (1, 2, 3, 4, 5, 7, 16, 37, 49)
WIDTHS = (1, 3, 7, 8, 33, 64, 100, 129)


def int8(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Uniform, all one value, only extremes, or small values."""
    kind = rng.integers(5)
    if kind == 0:
        return np.full(shape, rng.integers(-128, 128), np.int8)
    if kind == 1:
        return rng.choice(np.array([-128, 127], np.int8), shape)
    if kind == 2:
        return rng.integers(-3, 4, shape).astype(np.int8)
    return rng.integers(-128, 128, shape).astype(np.int8)


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return np.maximum(int8(rng, *shape), -127)


def requantisation(rng: np.random.Generator, channels: int, terms: int) -> tuple[np.ndarray, np.ndarray]:
    """bias and multiplier that put outputs mostly inside int8, sometimes far outside."""
    bias = rng.integers(-(1 << 14), 1 << 14, channels).astype(np.int32)
    if rng.random() < 0.1:
        bias = rng.choice(np.array([-(1 << 30), 1 << 30], np.int32), channels)
    scale = 2.0 ** rng.uniform(-12, -1.01, channels) / np.sqrt(terms)
    multiplier = np.minimum(np.rint(scale * 2.0**32), 2**31 - 1).astype(np.int32)
    if rng.random() < 0.1:
        multiplier[:] = rng.choice(np.array([0, 2**31 - 1], np.int32), channels)
    return bias, multiplier


def zero_point(rng: np.random.Generator) -> int:
    return int(rng.choice([-128, -7, 0, 5, 127]))

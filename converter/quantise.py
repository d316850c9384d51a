# SPDX-License-Identifier: Apache-2.0
"""Affine quantisation: real = scale * (q - zero_point); int8, and int16 for a wide residual stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SMALLEST_SCALE = 1e-12
WIDE_HEADROOM = 2.0  # int16 has bits to spare: images beyond the calibration's range do not saturate


@dataclass(frozen=True, eq=False)
class Quantisation:
    """scale: a float, or float64 [channels] for the last axis; zero_point: int in [-128, 127]. bits: 8, or 16 with one
    scale and zero point 0."""

    scale: float | np.ndarray
    zero_point: int = 0
    bits: int = 8

    def quantise(self, real: np.ndarray) -> np.ndarray:
        """Rounded to nearest and saturated, int8 (int16 with 16 bits)."""
        most = (1 << (self.bits - 1)) - 1
        steps = np.clip(np.rint(np.asarray(real, np.float64) / self.scale) + self.zero_point, -most - 1, most)
        return steps.astype(np.int16 if self.is_wide else np.int8)

    def dequantise(self, q: np.ndarray) -> np.ndarray:
        """float64, same shape."""
        return (np.asarray(q, np.float64) - self.zero_point) * self.scale

    @property
    def is_wide(self) -> bool:
        return self.bits == 16

    @property
    def per_channel(self) -> bool:
        return np.ndim(self.scale) > 0

    def at_least(self, scale: float | np.ndarray) -> Quantisation:
        """This quantisation with all scales widened by one factor, so that none is below `scale`."""
        factor = np.max(np.asarray(scale) / self.scale)
        return self if factor <= 1 else Quantisation(self.scale * factor, self.zero_point, self.bits)

    def integer_factors(self, most: int) -> tuple[float, np.ndarray]:
        """base float and factor int [channels] (or [1]) with scale = base * factor, 1 <= factor <= most."""
        scale = np.atleast_1d(np.asarray(self.scale, np.float64))
        for smallest in range(1, most + 1):
            base = float(scale.min()) / smallest
            factor = np.rint(scale / base).astype(np.int64)
            if factor.max() > most:
                break
            if np.allclose(scale, base * factor, rtol=1e-9, atol=0):
                return base, factor
        raise ValueError(f"scales are not integer multiples, up to {most}, of one")


def symmetric(largest: float | np.ndarray) -> Quantisation:
    """Zero point 0, +-largest at +-127."""
    scale = np.maximum(np.asarray(largest, np.float64) / 127.0, SMALLEST_SCALE)
    return Quantisation(scale if scale.ndim else float(scale), 0)


def wide(largest: float) -> Quantisation:
    """int16 for values up to `largest`, and WIDE_HEADROOM times that."""
    return Quantisation(max(WIDE_HEADROOM * float(largest) / 32767.0, SMALLEST_SCALE), 0, 16)


def affine(low: float, high: float) -> Quantisation:
    """[low, high], widened to hold 0, over all 256 values; 0 is exact."""
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    scale = max((high - low) / 255.0, SMALLEST_SCALE)
    return Quantisation(scale, int(np.clip(round(-128 - low / scale), -128, 127)))


def per_channel(largest: np.ndarray, most: int) -> Quantisation:
    """Symmetric scales base * factor[c] with integer factors 1 .. most, each holding its channel's largest magnitude.

    FQ-ViT's power-of-two factors with finer steps: LayerNorm multiplies instead of shifting, at the same cost, and no
    channel wastes up to one bit.
    """
    need = np.maximum(np.asarray(largest, np.float64) / 127.0, SMALLEST_SCALE)
    base = need.max() / most
    return Quantisation(base * np.clip(np.ceil(need / base - 1e-9), 1, most), 0)

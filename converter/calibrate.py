# SPDX-License-Identifier: Apache-2.0
"""Ranges of all activations, measured on calibration images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from mcuformer.checks import as_array
from mcuformer.converter.float_vit import FloatViT
from mcuformer.converter.graph import to_int8
from mcuformer.converter.ops import decomposed_patch_embed
from mcuformer.converter.pixels import to_float
from mcuformer.converter.quantise import Quantisation, affine, per_channel, symmetric, wide
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.errors import ConfigError, DataError, ModelError

METHODS = ("minmax", "percentile", "mse")
PERCENTILE = 99.99
SAMPLE_ROWS = 2048  # tokens kept per tensor
PATCHES = "patches"  # name of what tokens are computed of, if the stem is a patch embedding
MSE_VALUES = 1 << 16
MSE_SHRINK = np.linspace(0.5, 1.0, 26)


@dataclass(frozen=True)
class Samples:
    """One activation: exact per-channel extremes, and some of its tokens. low, high float [C]; rows float [R, C].

    prefix: the first prefix tokens of every image, float [P, C], since few of them are among rows; P is 0 for a network
    without, and for what is behind pooling.
    """

    low: np.ndarray
    high: np.ndarray
    rows: np.ndarray
    prefix: np.ndarray

    def columns(self, start: int, stop: int) -> Samples:
        low, high = self.low[start:stop], self.high[start:stop]
        return Samples(low, high, self.rows[:, start:stop], self.prefix[:, start:stop])

    def affine(self, method: str, floor: float = -np.inf) -> Quantisation:
        """Per-tensor, with zero point. Values below `floor` may share one code."""
        low, high = self.range(method)
        return affine(max(low, floor), high)

    def symmetric(self, method: str) -> Quantisation:
        """Per-tensor, zero point 0."""
        low, high = self.range(method)
        return symmetric(max(-low, high))

    def wide(self, method: str) -> Quantisation:
        """Per-tensor, int16."""
        low, high = self.range(method)
        return wide(max(-low, high))

    def each_channel(self, method: str) -> Quantisation:
        """One scale per channel, zero point 0."""
        return symmetric(self._largest(method))

    def per_channel(self, method: str, most: int) -> Quantisation:
        """One scale per channel, all integer multiples (up to `most`) of one; zero point 0."""
        return per_channel(self._largest(method), most)

    def _largest(self, method: str) -> np.ndarray:
        largest = np.maximum(np.abs(self.low), np.abs(self.high))
        if method == "percentile":
            return np.percentile(np.abs(self.rows), PERCENTILE, axis=0)
        return self._least_error_per_channel(largest) if method == "mse" else largest

    def range(self, method: str) -> tuple[float, float]:
        """Least and largest value, of all channels together."""
        if method == "percentile":
            low, high = np.percentile(self.rows, [100 - PERCENTILE, PERCENTILE])
            return float(low), float(high)
        low, high = float(self.low.min()), float(self.high.max())
        if method == "mse":
            values = self.rows.reshape(-1).astype(np.float64)
            if len(values) > MSE_VALUES:
                values = np.random.default_rng(0).choice(values, MSE_VALUES, replace=False)
            errors = []
            for shrink in MSE_SHRINK:
                q = affine(low * shrink, high * shrink)
                errors.append(np.mean((q.dequantise(q.quantise(values)) - values) ** 2))
            shrink = MSE_SHRINK[int(np.argmin(errors))]
            low, high = low * shrink, high * shrink
        return low, high

    def _least_error_per_channel(self, largest: np.ndarray) -> np.ndarray:
        best, chosen = np.full(len(largest), np.inf), largest
        for shrink in MSE_SHRINK[::5]:
            q = symmetric(largest * shrink)
            error = np.mean((q.dequantise(q.quantise(self.rows)) - self.rows) ** 2, axis=0)
            chosen = np.where(error < best, largest * shrink, chosen)
            best = np.minimum(best, error)
        return chosen


def check_images(images: np.ndarray, config: SubnetConfig, what: str = "images") -> np.ndarray:
    """Returns images as uint8 [n, *config.image_shape]; DataError if they are anything else."""
    images = as_array(images, what)
    if images.dtype != np.uint8:
        raise DataError(f"{what} have dtype {images.dtype}: give uint8 values, 0 to 255")
    want = config.image_shape
    if images.ndim != 4 or images.shape[1:] != want:
        raise DataError(
            f"{what} have shape {images.shape}: the network takes [n, {want[0]}, {want[1]}, {want[2]}] (NHWC)"
        )
    return images


def check_weights(net: FloatViT) -> None:
    """Raises ModelError if a weight is NaN or infinite."""
    for name, value in net.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            bad = int((~torch.isfinite(value)).sum())
            raise ModelError(f"weight {name} holds {bad} NaN or infinite values: train the network again")


def calibrate(
    net: FloatViT,
    images: np.ndarray,
    *,
    batch_size: int = 32,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Samples]:
    """Runs the float network on images (uint8 NHWC) and returns the samples of every tensor by name; of the image those
    of its PATCHES, as the int8 pixels that the patch embedding reads.

    progress(done, total) counts images. DataError for an empty, constant or wrongly shaped set.
    """
    images = check_images(images, net.config, "calibration images")
    if len(images) == 0:
        raise DataError("the calibration set is empty: give a few dozen typical images")
    if images.min() == images.max():
        raise DataError(f"all calibration pixels have the value {images.min()}: give typical images")
    check_weights(net)
    generator = np.random.default_rng(seed)
    lows: dict[str, np.ndarray] = {}
    highs: dict[str, np.ndarray] = {}
    kept: dict[str, list[np.ndarray]] = {}
    prefixes: dict[str, list[np.ndarray]] = {}

    def record(name: str, value: torch.Tensor) -> None:
        prefix = value[:, : net.config.prefix_tokens] if value.ndim == 3 else value[:0]
        prefixes.setdefault(name, []).append(prefix.reshape(-1, value.shape[-1]).numpy().copy())
        rows = value.reshape(-1, value.shape[-1])
        low, high = rows.amin(dim=0).double().numpy(), rows.amax(dim=0).double().numpy()
        lows[name] = np.minimum(lows[name], low) if name in lows else low
        highs[name] = np.maximum(highs[name], high) if name in highs else high
        keep = max(1, -(-SAMPLE_ROWS * len(value) // len(images)))
        if len(rows) > keep:
            rows = rows[torch.from_numpy(generator.choice(len(rows), keep, replace=False))]
        kept.setdefault(name, []).append(rows.numpy().copy())

    was_training = net.training
    net.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(images), batch_size):
                net(to_float(images[start : start + batch_size]), record)
                if progress:
                    progress(min(start + batch_size, len(images)), len(images))
    finally:
        net.train(was_training)
    samples = {
        name: Samples(lows[name], highs[name], np.concatenate(kept[name]), np.concatenate(prefixes[name]))
        for name in kept
    }
    for name, sample in samples.items():
        if not np.isfinite(sample.low).all() or not np.isfinite(sample.high).all():
            raise ModelError(f"tensor {name} is not finite on the calibration images: the network's weights overflow")
    if net.config.stem == "patch":
        samples[PATCHES] = _patches(images, net.config, np.random.default_rng(seed))
    return samples


def _patches(images: np.ndarray, config: SubnetConfig, generator: np.random.Generator) -> Samples:
    """Some patches of every image, as many of each; rows int8 [R, patch height * patch width * C]."""
    keep = min(config.patch_tokens, -(-SAMPLE_ROWS // len(images)))
    rows = []
    for image in images:
        patches = decomposed_patch_embed.patches(to_int8(image[None]), config.patch_shape, config.patch_padding)[0]
        rows.append(patches[generator.choice(len(patches), keep, replace=False)])
    kept = np.concatenate(rows)
    return Samples(kept.min(axis=0), kept.max(axis=0), kept, kept[:0])


def check_method(method: str) -> str:
    if not isinstance(method, str) or method not in METHODS:
        raise ConfigError(f"calibration method {method!r}: must be one of {', '.join(METHODS)}")
    return method

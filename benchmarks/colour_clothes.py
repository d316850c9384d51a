# SPDX-License-Identifier: Apache-2.0
"""A colour data set without a download: the Fashion-MNIST images in the package, or all of them, each in a random
colour, on a crop of one of scikit-learn's two photographs, made half as large.

Test images have backgrounds that no training image has: the right quarter of the photographs. The same pixels every
time, from one seed for each split.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from sklearn.datasets import load_sample_images

from mcuformer.data import Dataset, load

SEEDS = {"train": 0, "test": 1}
TRAIN_SHARE = 0.75  # of the photographs' width
DARKEST = 0.3  # part of a colour that a piece of clothing keeps at least
OPAQUE = 64  # a grey value from which the background does not shine through


def half(photograph: np.ndarray) -> np.ndarray:
    """float [height // 2, width // 2, 3]: means of 2x2 pixels."""
    height, width = (side // 2 for side in photograph.shape[:2])
    return photograph[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).mean(axis=(1, 3))


def backgrounds(split: str, count: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """float [count, side, side, 3], from the split's part of the photographs."""
    photographs = np.stack([half(photograph) for photograph in load_sample_images().images])
    border = int(photographs.shape[2] * TRAIN_SHARE)
    part = photographs[:, :, :border] if split == "train" else photographs[:, :, border:]
    crops = np.lib.stride_tricks.sliding_window_view(part, (side, side), axis=(1, 2))
    chosen = (rng.integers(0, length, count) for length in crops.shape[:3])
    return np.moveaxis(crops[tuple(chosen)], 1, -1)


def colour_clothes(split: str, data: str = "fashion-mnist") -> Dataset:
    """32x32 pixels in colour, with the labels and the order of the data's: fashion-mnist or fashion-mnist-full."""
    grey, rng = load(data, split), np.random.default_rng(SEEDS[split])
    clothes = grey.images.astype(np.float64)
    colours = rng.uniform(DARKEST, 1, (len(grey), 1, 1, 3))
    behind = backgrounds(split, len(grey), clothes.shape[1], rng)
    cover = np.minimum(clothes / OPAQUE, 1)
    images = np.rint(cover * clothes * colours + (1 - cover) * behind).astype(np.uint8)
    return dataclasses.replace(grey, images=images, source=f"{data} on photographs")

# SPDX-License-Identifier: Apache-2.0
"""Small spaces and data for the tests of the search."""

from __future__ import annotations

import dataclasses

import numpy as np
from sklearn.datasets import load_digits

from mcuformer.data import Dataset
from mcuformer.nas import SearchSpace

PATCH = SearchSpace(
    image_size=8, in_channels=1, num_classes=10, patch_size=(2, 3, 4), embed_dim=(16, 24), depth=(1, 2, 3), head_dim=8,
    num_heads=(1, 2, 4), kv_heads=(1, 2, "all"), mlp_ratio=(1.0, 1.5, 2.0), rank_ratio=(0.25, 0.5, 1.0),
)  # fmt: skip
DENSE = dataclasses.replace(PATCH, rank_ratio=None)
CONV = dataclasses.replace(PATCH, patch_size=(4,), stem="conv")  # its inner channels follow embed_dim
SMALL = SearchSpace(
    image_size=8, in_channels=1, num_classes=10, patch_size=(4,), embed_dim=(8, 16), depth=(1, 2), head_dim=8,
    num_heads=(1, 2), mlp_ratio=(1.0, 2.0),
)  # fmt: skip


def digits(start: int, stop: int, split: str = "train") -> Dataset:
    content = load_digits()
    images = np.round(content.images * (255 / 16)).astype(np.uint8)[start:stop, :, :, np.newaxis]
    names = tuple(str(name) for name in content.target_names)
    return Dataset(images, content.target[start:stop].astype(np.int64), names, "digits", split)

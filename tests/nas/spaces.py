# SPDX-License-Identifier: Apache-2.0
"""Small spaces and data for the tests of the search."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
from sklearn.datasets import load_digits

from mcuformer.converter.ops.int_gelu import ACTIVATIONS
from mcuformer.converter.subnet_config import FINAL_NORMS, NORMS, POOLS, RELATIVE_POSITIONS
from mcuformer.data import Dataset
from mcuformer.nas import SearchSpace

PATCH = SearchSpace(
    image_size=8, in_channels=1, num_classes=10, patch_size=(2, 3, 4), embed_dim=(16, 24), depth=(1, 2, 3), head_dim=8,
    num_heads=(1, 2, 4), kv_heads=(1, 2, "all"), mlp_ratio=(1.0, 1.5, 2.0), rank_ratio=(0.25, 0.5, 1.0),
)  # fmt: skip
DENSE = dataclasses.replace(PATCH, rank_ratio=None)
CONV = dataclasses.replace(PATCH, patch_size=(4,), stem="conv")  # its inner channels follow embed_dim
KEYWORD = dataclasses.replace(
    PATCH, image_size=(9, 5), patch_size=((1, 5), (3, 2), (2, 5)), prefix_tokens=2, pool="token+mean",
    final_norm="after", norm_pre=True, norm_epsilon=1e-5, activation="silu", flip=False,
)  # fmt: skip
POST = dataclasses.replace(
    PATCH, image_size=(7, 8), patch_size=(2, (3, 2)), prefix_tokens=1, pool="token", final_norm="none", norm="post",
    activation="relu",
)  # fmt: skip
BIAS = dataclasses.replace(KEYWORD, relative_position="bias")
TABLES = dataclasses.replace(PATCH, image_size=(7, 8), patch_size=(2, (3, 2)), relative_position="tables")
AROUND = dataclasses.replace(PATCH, attention_rank_ratio=(0.3, 0.6, 1.0))
PADDED = dataclasses.replace(
    PATCH, image_size=(7, 8), patch_size=(2, 4, (3, 2)), patch_padding=((4, 3), ((3, 2), 1)), relative_position="bias"
)
ELASTIC = dataclasses.replace(PATCH, image_sizes=(4, 8, 6))
STEMS = dataclasses.replace(
    CONV, image_size=(16, 12), image_sizes=((12, 9), (16, 12)), patch_size=(4, 2, 8),
    stem_channels=((4, 9), (6, 7), (6, 8)),
)  # fmt: skip
BLOCKS = dataclasses.replace(STEMS, stem_blocks=((0, 0), (0, 2), (3, 1)))
BOTH = dataclasses.replace(STEMS, stem=("patch", "conv"))
SMALL = SearchSpace(
    image_size=8, in_channels=1, num_classes=10, patch_size=(4,), embed_dim=(8, 16), depth=(1, 2), head_dim=8,
    num_heads=(1, 2), mlp_ratio=(1.0, 2.0),
)  # fmt: skip


def random_space(rng: random.Random) -> SearchSpace:
    """Choices of PATCH or CONV, dense or not, of low rank around attention or not, with any of the other options, for
    images of any small rectangle."""
    space = rng.choice((PATCH, DENSE, CONV, AROUND))
    space = dataclasses.replace(space, image_size=(rng.randint(4, 9), rng.randint(4, 9)))
    if space.stem == "patch" and rng.random() < 0.7:
        sizes = {(rng.randint(1, 4), rng.randint(1, 4)) for _ in range(3)}
        space = dataclasses.replace(space, patch_size=tuple(sizes))
    prefix = rng.randint(0, 3)
    return dataclasses.replace(
        space, prefix_tokens=prefix, pool=rng.choice([p for p in POOLS if p.split("+").count("token") <= prefix]),
        final_norm=rng.choice(FINAL_NORMS), norm_pre=rng.random() < 0.5, norm=rng.choice(NORMS),
        norm_epsilon=rng.choice((1e-12, 1e-6, 1e-2)), activation=rng.choice(tuple(ACTIVATIONS)),
        relative_position=rng.choice(RELATIVE_POSITIONS),
    )  # fmt: skip


def digits(start: int, stop: int, split: str = "train") -> Dataset:
    content = load_digits()
    images = np.round(content.images * (255 / 16)).astype(np.uint8)[start:stop, :, :, np.newaxis]
    names = tuple(str(name) for name in content.target_names)
    return Dataset(images, content.target[start:stop].astype(np.int64), names, "digits", split)

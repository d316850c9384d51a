# SPDX-License-Identifier: Apache-2.0
"""The bound on a model's bytes against real conversions."""

import dataclasses
import random

import pytest
from conftest import TINY, lively_subnet, structured_images

from mcuformer import SubnetConfig, convert
from mcuformer.converter.estimate.model_size import model_bytes


def random_config(seed: int) -> SubnetConfig:
    rng = random.Random(seed)
    depth, stem = rng.randint(1, 4), rng.choice(["patch", "conv"])
    heads = tuple(rng.randint(1, 4) for _ in range(depth))
    ranks = rng.choice([None, tuple(rng.choice([0.2, 0.4, 1.0]) for _ in heads)])
    return SubnetConfig(
        image_size=rng.choice([16, 20, 32]), in_channels=rng.choice([1, 3]), stem=stem,
        patch_size=rng.choice([4, 8] if stem == "conv" else [3, 4, 5, 8, 16]), embed_dim=rng.choice([8, 31, 64, 96]),
        depth=depth, num_heads=heads, kv_heads=tuple(rng.choice([1, count]) for count in heads),
        head_dim=rng.choice([8, 16, 32]), mlp_ratio=tuple(rng.choice([1.0, 1.5, 3.0]) for _ in heads),
        rank_ratio=ranks, num_classes=rng.choice([3, 10, 120]),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_a_model_is_never_larger_and_little_smaller(seed):
    config = random_config(seed)
    model = convert(lively_subnet(config, seed), structured_images(config, 4))
    kilobytes = 1024 * (3 + config.depth)
    assert model.model_bytes <= model_bytes(config) <= model.model_bytes + kilobytes + config.num_classes * 12


def test_factors_around_attention_are_counted():
    config = dataclasses.replace(TINY, depth=3, attention_rank_ratio=(0.3, 0.6, 1.0), embed_dim=64, num_heads=3)
    config = dataclasses.replace(config, head_dim=16)
    model = convert(lively_subnet(config, 0), structured_images(config, 4))
    assert model.model_bytes <= model_bytes(config) <= model.model_bytes + 1024 * (3 + config.depth)
    dense = model_bytes(dataclasses.replace(config, attention_rank_ratio=None))
    weights = 64 * 144 + 48 * 64 - 19 * (64 + 144 + 48 + 64) + 64 * 144 - 38 * (64 + 144)
    assert weights - 2000 < dense - model_bytes(config) < weights  # biases and multipliers of the ranks


def test_pairs_of_rows_are_counted():
    config = dataclasses.replace(TINY, stem="conv", patch_size=8, stem_channels=(5, 7), embed_dim=23)
    images = structured_images(config, 4)
    net = lively_subnet(config, 0)
    plain, packed = (convert(net, images, schedule="streamed", board=board) for board in (None, "nano33ble"))
    assert plain.model_bytes < packed.model_bytes <= model_bytes(config)


def test_long_class_names_are_within_the_bound():
    names = [f"class of things number {i}" for i in range(TINY.num_classes)]
    model = convert(lively_subnet(TINY, 0), structured_images(TINY, 4), class_names=names)
    assert model.model_bytes <= model_bytes(TINY)

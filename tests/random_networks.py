# SPDX-License-Identifier: Apache-2.0
"""The random networks that must be exact everywhere: on the host and on simulated microcontrollers."""

import dataclasses

import numpy as np

from mcuformer import SubnetConfig
from mcuformer.converter.ops.int_gelu import ACTIVATIONS
from mcuformer.converter.subnet_config import FINAL_NORMS, POOLS, RELATIVE_POSITIONS

CONFIGS = 200  # seeds 0 to CONFIGS - 1


def random_config(rng: np.random.Generator) -> SubnetConfig:
    """Tokens 1 to 350, widths 8 to 200, 1 to 4 heads, shared key/value heads, dense and low rank, both stems; two in
    three with other options than the defaults: prefix tokens, poolings, norms, activations, low rank around attention,
    relative positions, rectangles, padding, no head. Of the stems of several convolutions most have blocks."""
    depth = int(rng.integers(1, 4))
    channels = int(rng.choice([1, 3]))
    conv = rng.random() < 0.2
    if conv:
        patch, size = int(rng.choice([2, 4, 8])), int(rng.integers(8, 34))
    else:
        grid, patch = int(rng.integers(1, 15)), int(rng.choice([1, 2, 3, 4, 5, 7, 8]))
        size = grid * patch + int(rng.integers(patch))
    heads = [int(rng.integers(1, 5)) for _ in range(depth)]
    divisors = [[d for d in range(1, h + 1) if h % d == 0] for h in heads]
    config = SubnetConfig(
        image_size=size,
        in_channels=channels,
        patch_size=patch,
        embed_dim=int(rng.integers(8, 201)),
        depth=depth,
        num_heads=tuple(heads),
        head_dim=int(rng.integers(1, 49)),
        kv_heads=tuple(int(rng.choice(d)) for d in divisors),
        mlp_ratio=tuple(float(rng.uniform(0.5, 4)) for _ in range(depth)),
        rank_ratio=None if rng.random() < 0.5 else tuple(float(rng.uniform(0.05, 1)) for _ in range(depth)),
        num_classes=int(rng.integers(2, 30)),
        stem="conv" if conv else "patch",
    )
    config = config if rng.random() < 0.33 else dataclasses.replace(config, **_random_options(config, rng))
    return config if config.stem == "patch" else _with_blocks(config)


def _with_blocks(config: SubnetConfig) -> SubnetConfig:
    """Two in three with blocks behind some of the stem's convolutions; drawn by the config's own numbers, so that a
    seed draws what it drew before there were any."""
    rng = np.random.default_rng([config.embed_dim, config.head_dim])
    if rng.random() < 0.33:
        return config
    inner = len(config.conv_channels) - 1
    channels, blocks = rng.integers(1, 41, inner), rng.choice([0, 1, 2, 3, 4], inner)
    return dataclasses.replace(config, stem_channels=tuple(channels.tolist()), stem_blocks=tuple(blocks.tolist()))


def _ranks(depth: int, rng: np.random.Generator) -> tuple[float | None, ...]:
    """One layer in five dense; of the others, some have both matrices as factors, some only qkv."""
    return tuple(None if rng.random() < 0.2 else float(rng.uniform(0.05, 1)) for _ in range(depth))


def _random_options(config: SubnetConfig, rng: np.random.Generator) -> dict:
    """Values for the fields that came after the first version, and rectangles."""
    prefix = int(rng.choice([0, 1, 2, 5]))
    pools = [pool for pool in POOLS if pool.split("+").count("token") <= prefix]
    options = {
        "prefix_tokens": prefix,
        "pool": str(rng.choice(pools)),
        "final_norm": str(rng.choice(FINAL_NORMS)),
        "norm_pre": bool(rng.random() < 0.3),
        "norm": "post" if rng.random() < 0.3 else "pre",
        "norm_epsilon": float(rng.choice([1e-12, 1e-6, 1e-5])),
        "activation": str(rng.choice(list(ACTIVATIONS))),
        "num_classes": 0 if rng.random() < 0.2 else config.num_classes,
    }
    if rng.random() < 0.4:
        height, width = config.image_shape[:2]
        options["image_size"] = (height, width + int(rng.integers(1, 8)))
        if config.stem == "patch":
            options["patch_size"] = (int(rng.integers(1, min(height, 9) + 1)), config.patch_shape[1])
            while height // options["patch_size"][0] * (width + 7) // config.patch_shape[1] > 220:
                options["patch_size"] = (options["patch_size"][0] + 1, config.patch_shape[1])
    if rng.random() < 0.5:
        options["relative_position"] = str(rng.choice(RELATIVE_POSITIONS[1:]))
    if config.stem == "patch" and rng.random() < 0.3:
        patch = options.get("patch_size", config.patch_shape)
        options["patch_padding"] = int(rng.integers(min(patch)))
    if rng.random() < 0.5:
        options["attention_rank_ratio"] = _ranks(config.depth, rng)
    return options

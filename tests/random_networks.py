# SPDX-License-Identifier: Apache-2.0
"""The random networks that must be exact everywhere: on the host and on simulated microcontrollers."""

import numpy as np

from mcuformer import SubnetConfig

CONFIGS = 200  # seeds 0 to CONFIGS - 1


def random_config(rng: np.random.Generator) -> SubnetConfig:
    """Tokens 1 to 200, widths 8 to 200, 1 to 4 heads, shared key/value heads, dense and low rank, both stems."""
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
    return SubnetConfig(
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

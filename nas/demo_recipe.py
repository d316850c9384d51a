# SPDX-License-Identifier: Apache-2.0
"""The network of `mcuformer demo`, and how it is trained on the 10,000 images in the package."""

from __future__ import annotations

from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.nas.train import TrainOptions

DEMO_CONFIG = SubnetConfig(
    image_size=32,
    in_channels=1,
    stem="conv",
    patch_size=8,
    embed_dim=96,
    depth=2,
    num_heads=3,
    mlp_ratio=2.0,
    num_classes=10,
)
DEMO_OPTIONS = TrainOptions(epochs=24)

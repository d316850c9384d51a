# SPDX-License-Identifier: Apache-2.0
"""The models that tools/fuzz_models.py damages: tiny networks with every op, layout and option of the format."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from fuzz_mutations import Seed

from mcuformer import QuantisationOptions, SubnetConfig, convert
from mcuformer.converter.float_vit import FloatViT
from mcuformer.nas import build_subnet

PLAIN = SubnetConfig(
    image_size=8, in_channels=1, patch_size=4, embed_dim=8, depth=1, num_heads=2, mlp_ratio=1.5, num_classes=3
)
RGB = dataclasses.replace(PLAIN, in_channels=3, embed_dim=12, depth=2, head_dim=5, kv_heads=1)
CONV = dataclasses.replace(PLAIN, stem="conv", prefix_tokens=1, pool="token")
BLOCKS = dataclasses.replace(CONV, stem_blocks=(2,), image_size=(9, 8))
LOW_RANK = dataclasses.replace(PLAIN, rank_ratio=0.4, attention_rank_ratio=0.5, embed_dim=12, num_heads=3)
PREFIX = dataclasses.replace(
    PLAIN, prefix_tokens=2, pool="token+mean", final_norm="after", norm_pre=True, num_classes=0
)
BIASES = dataclasses.replace(PLAIN, relative_position="bias", image_size=(8, 12), prefix_tokens=1)
TABLES = dataclasses.replace(PLAIN, relative_position="tables", patch_padding=2, image_size=(12, 8))
POST_NORM = dataclasses.replace(PLAIN, norm="post", final_norm="none", activation="relu")

WIDE = dataclasses.replace(PREFIX, norm_pre=False)

OVERWRITE: dict[str, Any] = {"schedule": "overwrite"}
STAGED: dict[str, Any] = {"weights": "staged"}
PACKED: dict[str, Any] = {"board": "nano33ble"}
STRIPS: dict[str, Any] = {"strips": True}
NO_TABLE = {"quantisation": QuantisationOptions(fuse_gelu=False, residual="per-tensor")}
INT16 = {"quantisation": QuantisationOptions(residual="int16")}
CASES: dict[str, tuple[SubnetConfig, dict[str, Any]]] = {
    "plain": (PLAIN, {}),
    "overwrite": (RGB, OVERWRITE),
    "strips": (RGB, STRIPS),
    "staged": (RGB, STAGED),
    "staged overwrite in strips": (PLAIN, OVERWRITE | STAGED | STRIPS),
    "packed": (RGB, PACKED),
    "packed overwrite": (LOW_RANK, OVERWRITE | PACKED),
    "packed staged": (PLAIN, PACKED | STAGED),
    "convolution stem": (CONV, {}),
    "convolution stem overwrite": (CONV, OVERWRITE | {"scratch": 400}),
    "convolution stem in strips": (CONV, STRIPS | PACKED),
    "convolution stem with blocks": (BLOCKS, {}),
    "convolution stem with blocks in strips": (BLOCKS, STRIPS | PACKED),
    "low rank": (LOW_RANK, {}),
    "low rank staged": (LOW_RANK, STAGED | STRIPS),
    "prefix tokens, no head": (PREFIX, OVERWRITE),
    "relative biases": (BIASES, {}),
    "relative biases overwrite": (BIASES, OVERWRITE),
    "relative tables": (TABLES, {}),
    "post-norm": (POST_NORM, {}),
    "GELU as an op": (PLAIN, OVERWRITE | NO_TABLE),
    "int16 stream": (WIDE, INT16),
    "int16 stream staged": (RGB, INT16 | STAGED | STRIPS | PACKED),
}


def make_seeds() -> list[Seed]:
    """One of each of CASES."""
    return [_seed(name, config, options) for name, (config, options) in CASES.items()]


def _seed(name: str, config: SubnetConfig, options: dict[str, Any]) -> Seed:
    images = np.random.default_rng(0).integers(0, 256, (8, *config.image_shape)).astype(np.uint8)
    model = convert(_lively(build_subnet(config, 1)), images, **{"schedule": "streamed", **options})
    weights = model.weights_content if options.get("weights") == "staged" else None
    return Seed(name, model.content, weights, model.plan.arena_bytes, config.image_shape)


def _lively(net: FloatViT) -> FloatViT:
    """The network with weights that all matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in net.parameters():
            value.add_(0.3 * torch.randn(value.shape, generator=generator))
    return net.eval()

# SPDX-License-Identifier: Apache-2.0
"""The paper's sizing rule against figures worked out by hand."""

import pytest

from mcuformer import SubnetConfig
from mcuformer.converter.estimate.sizing import _paper_and_stock, part_of, sizes

A = SubnetConfig(image_size=96, patch_size=16, embed_dim=96, depth=6, num_heads=3)
B = SubnetConfig(image_size=224, patch_size=16, embed_dim=192, depth=12, num_heads=3, num_classes=1000)
C = SubnetConfig(image_size=224, patch_size=32, embed_dim=192, depth=12, num_heads=3, num_classes=1000)
SMALL = SubnetConfig(image_size=224, patch_size=16, embed_dim=384, depth=12, num_heads=6, num_classes=1000)


@pytest.mark.parametrize(
    ("config", "rule"), [(A, 101_376), (B, 297_984), (C, 740_352), (SMALL, 890_880)]
)  # A, C: the patch embedding; B and DeiT-Small's shape: 192 x 768 + 196 x 768, 384 x 1536 + 196 x 1536
def test_the_papers_rule(config, rule):
    parts = {name: paper for name, (paper, _) in _paper_and_stock(config).items()}
    assert max(value for name, value in parts.items() if name != "head") == rule


def test_parts_of_a_plan(tiny_model):
    rows = sizes(tiny_model.config, tiny_model.plan)
    names = [row.name for row in rows]
    assert names == ["embedding", "layers.0 attention", "layers.0 mlp", "layers.1 attention", "layers.1 mlp", "head"]
    assert max(row.ours for row in rows) == tiny_model.plan.head_bytes
    assert part_of("layers.3.fc1.rank") == "layers.3 mlp"

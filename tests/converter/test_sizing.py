# SPDX-License-Identifier: Apache-2.0
"""The paper's sizing rule against figures worked out by hand."""

import dataclasses

import numpy as np
import pytest

from mcuformer import SubnetConfig, convert
from mcuformer.cli.inspect import inspect, show
from mcuformer.converter.estimate.sizing import _paper_and_stock, part_of, sizes
from mcuformer.nas import build_subnet

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


@pytest.mark.parametrize(
    "change",
    [
        {"prefix_tokens": 1, "pool": "token"},
        {"norm": "post", "norm_pre": True},
        {"norm": "post", "final_norm": "none"},
        {"activation": "silu", "num_classes": 0},
        {"image_size": (16, 20), "patch_size": (4, 5), "num_classes": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("schedule", ["overwrite", "streamed"])
def test_inspect_of_every_option(change, schedule, tiny_model, tmp_path, capsys):
    config = dataclasses.replace(tiny_model.config, **change)
    images = np.random.default_rng(0).integers(0, 256, (4, *config.image_shape), dtype=np.uint8)
    model = convert(build_subnet(config), calibration=images, schedule=schedule)
    model.save(tmp_path / "model.tflite")
    inspected = inspect(tmp_path / "model.tflite", board="nano33ble")
    names = [part.name for part in inspected.parts]
    assert names == ["embedding", "layers.0 attention", "layers.0 mlp", "layers.1 attention", "layers.1 mlp", "head"]
    known = not {"prefix_tokens", "norm", "activation"} & set(change)
    assert all((part.stock is not None) == known for part in inspected.parts)
    show(inspected, tensors=True, sizes=True)
    assert ("unknown" in capsys.readouterr().out) != known

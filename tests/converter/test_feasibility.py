# SPDX-License-Identifier: Apache-2.0
"""The quick answer against the full plan. tests/e2e/test_exactness.py compares it on 200 more networks."""

import dataclasses
import time

import pytest
from conftest import TINY, lively_subnet, structured_images

from mcuformer import SubnetConfig, convert
from mcuformer.converter.estimate import feasibility
from mcuformer.errors import ConfigError

B = SubnetConfig(image_size=224, embed_dim=192, depth=12, num_classes=1000)


@pytest.mark.parametrize("schedule", ["overwrite", "streamed"])
@pytest.mark.parametrize("strips", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        dict(image_size=17, patch_size=3, embed_dim=31),
        dict(patch_size=16),
        dict(rank_ratio=0.2, mlp_ratio=(3.0, 0.5)),
        dict(num_heads=4, kv_heads=(1, 2)),
        dict(num_heads=4, kv_heads=(4, 2), attention_rank_ratio=(0.6, 0.3)),
        dict(stem="conv"),
        dict(stem="conv", patch_size=8, image_size=21, stem_channels=(40, 9)),
        dict(stem="conv", patch_size=2, image_size=(9, 6), prefix_tokens=1, pool="token"),
        dict(stem="conv", patch_size=16, image_size=16, in_channels=1),
        dict(stem="conv", patch_size=8, image_size=21, stem_channels=(40, 9), stem_blocks=(0, 3)),
        dict(stem="conv", patch_size=8, image_size=(9, 17), stem_channels=(7, 11), stem_blocks=(2, 1), prefix_tokens=2),
        dict(stem="conv", patch_size=16, image_size=16, in_channels=3, stem_blocks=(1, 0, 8)),
        dict(num_classes=900),
    ],
)
def test_equals_the_full_plan(fields, schedule, strips):
    config = dataclasses.replace(TINY, **fields)
    model = convert(lively_subnet(config, 0), structured_images(config, 2), schedule=schedule, strips=strips)
    assert feasibility.arena_bytes(config, schedule, strips) == model.plan.arena_bytes
    on_board = model.arena_bytes("nano33ble")
    assert feasibility.board_arena_bytes(config, schedule, strips) == on_board
    assert feasibility.fits(config, on_board, schedule, strips)
    assert not feasibility.fits(config, on_board - 1, schedule, strips)
    staged = convert(
        lively_subnet(config, 0), structured_images(config, 2), schedule=schedule, strips=strips, weights="staged"
    )
    assert feasibility.arena_bytes(config, schedule, strips, "staged") == staged.plan.arena_bytes
    assert feasibility.board_arena_bytes(config, schedule, strips, "staged") == staged.arena_bytes("nano33ble")


def test_known_networks():
    """What the interpreter reports for network B (benchmarks/memory.py)."""
    assert feasibility.arena_bytes(B) == 161_376
    assert feasibility.arena_bytes(B, strips=True) == 99_376
    assert feasibility.arena_bytes(B, "overwrite") == 211_296


def test_it_is_quick():
    """Below a millisecond for configs never seen: the best of three sets, since other work may disturb one."""
    seconds = []
    for first in (96, 97, 98):
        configs = [dataclasses.replace(B, embed_dim=first + 3 * i, head_dim=32) for i in range(50)]
        start = time.perf_counter()
        for config in configs:
            feasibility.arena_bytes(config)
        seconds.append((time.perf_counter() - start) / len(configs))
    assert min(seconds) < 0.001


def test_a_stem_that_streams():
    """What the networks of benchmarks/streamed_stem.py take on a board."""
    grey = SubnetConfig(
        image_size=32, in_channels=1, patch_size=8, embed_dim=64, depth=3, num_heads=2, kv_heads=(2, 1, 2),
        mlp_ratio=(1, 2, 2), rank_ratio=(26 / 64, 38 / 64, 38 / 64), stem="conv", stem_channels=(32, 48),
    )  # fmt: skip
    assert feasibility.board_arena_bytes(grey) == feasibility.board_arena_bytes(grey, strips=True) == 7_264
    colour = SubnetConfig(stem="conv", stem_channels=(32, 48, 64))
    assert feasibility.board_arena_bytes(colour, strips=True) == 18_016
    assert feasibility.board_arena_bytes(colour) == 42_208


def test_unknown_choices():
    with pytest.raises(ConfigError, match="schedule = 'stream'"):
        feasibility.arena_bytes(TINY, "stream")
    with pytest.raises(ConfigError, match="weights = 'flash'"):
        feasibility.fits(TINY, 100_000, weights="flash")

# SPDX-License-Identifier: Apache-2.0
"""Sizes in text: 96, or 120x160 with the height first."""

import pytest

from mcuformer import SubnetConfig
from mcuformer.cli.training import assignments
from mcuformer.errors import ConfigError
from mcuformer.sizes import is_size, read_size, shortest, sides, size_text


@pytest.mark.parametrize(("size", "text"), [(96, "96"), ((120, 160), "120x160"), ((1, 40), "1x40")])
def test_text_reads_back(size, text):
    assert size_text(size) == text and read_size(text) == size and shortest(*sides(size)) == size


def test_equal_sides_are_one_number():
    assert size_text((96, 96)) == "96" and read_size("96x96") == 96 and sides(96) == (96, 96)


@pytest.mark.parametrize("text", ["", "x", "96x", "x96", "96X96", "1x2x3", "-1", "1.5", "96 x 96", "٣x٤", "9" * 10])
def test_other_text_is_no_size(text):
    assert read_size(text) is None


@pytest.mark.parametrize(("value", "good"), [(8, True), ([8, 9], True), ((8, 11), False), ((8,), False), (True, False)])
def test_is_size(value, good):
    assert is_size(value, 10) is good


def test_set_takes_a_size_in_both_notations():
    values = assignments(["image_size=98x40", "patch_size=[1, 40]", "depth=2"], "--set")
    config = SubnetConfig.from_dict(values)
    assert config.image_shape == (98, 40, 3) and config.patch_shape == (1, 40)
    with pytest.raises(ConfigError, match="patch_size = 1x41 is larger than image_size = 98x40: use a smaller patch"):
        SubnetConfig.from_dict(assignments(["image_size=98x40", "patch_size=1x41"], "--set"))

# SPDX-License-Identifier: Apache-2.0
"""What does not fit a board is refused with the sizes, and with the nearest fix: its size is what it will take."""

import dataclasses
import re

import pytest
from conftest import lively_subnet, structured_images

from mcuformer import SubnetConfig, convert
from mcuformer.boards import get_board
from mcuformer.converter.export.board_fit import check_board
from mcuformer.errors import PlanError

NANO = get_board("nano33ble")
WIDE = SubnetConfig(image_size=96, in_channels=1, patch_size=6, embed_dim=192, depth=1, num_heads=2, num_classes=4)
PHOTO = SubnetConfig(image_size=288, in_channels=3, patch_size=36, embed_dim=24, depth=1, num_heads=2, num_classes=4)
BOTH = SubnetConfig(
    image_size=288, in_channels=3, patch_size=18, embed_dim=180, depth=1, num_heads=1, kv_heads=1, head_dim=8
)


def refusal(config, ram: int | None = None, **options) -> str:
    model = convert(lively_subnet(config, 1), structured_images(config, 1), **options)
    board = NANO if ram is None else dataclasses.replace(NANO, reserved_sram_bytes=NANO.sram_bytes - ram)
    with pytest.raises(PlanError) as error:
        check_board(model.graph, board, model.arena_bytes("nano33ble"), model.model_bytes)
    return str(error.value)


@pytest.mark.parametrize(
    ("config", "options", "fix", "fixed"),
    [
        (WIDE, {"schedule": "overwrite"}, "--schedule streamed", {"schedule": "streamed"}),
        (PHOTO, {"schedule": "streamed"}, "--strips", {"schedule": "streamed", "strips": True}),
        (PHOTO, {"schedule": "overwrite"}, "--strips", {"schedule": "overwrite", "strips": True}),
        (BOTH, {"schedule": "overwrite"}, "--schedule streamed --strips", {"schedule": "streamed", "strips": True}),
    ],
)
def test_another_way_to_convert_it_that_fits(config, options, fix, fixed):
    text = refusal(config, **options)
    found = re.fullmatch(
        r"the arena of [\d,]+ bytes exceeds nano33ble's budget of 196,608 bytes: "
        r"convert it with (.+), which takes ([\d,]+) bytes",
        text,
    )
    assert found is not None and found[1] == fix, text
    model = convert(lively_subnet(config, 1), structured_images(config, 1), **fixed)
    assert model.arena_bytes("nano33ble") == int(found[2].replace(",", "")) <= 196_608


def test_a_smaller_network_where_nothing_else_helps():
    text = refusal(WIDE, ram=30_000, schedule="overwrite")
    assert "converted with --schedule streamed --strips it still takes" in text
    assert text.endswith("search with a smaller budget (`mcuformer search --sram 30000B`), or take fewer tokens")
    text = refusal(WIDE, ram=30_000, schedule="streamed", strips=True)
    assert "search with a smaller budget (`mcuformer search --sram 30000B`)" in text


def test_flash():
    model = convert(lively_subnet(PHOTO, 1), structured_images(PHOTO, 1), strips=True)
    with pytest.raises(PlanError, match="of 900,000 bytes exceeds nano33ble's budget of 851,968 bytes of flash"):
        check_board(model.graph, NANO, model.arena_bytes("nano33ble"), 900_000)
    check_board(model.graph, NANO, model.arena_bytes("nano33ble"), 851_968)
    check_board(model.graph, get_board("corstone300"), 1000, 10**9)  # it has no flash of its own

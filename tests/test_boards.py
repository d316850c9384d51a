# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest

from mcuformer.boards import BOARDS, get_board
from mcuformer.errors import ConfigError, McuformerError


@pytest.mark.parametrize(
    ("name", "sram_kb", "flash_kb", "clock_mhz"),
    [
        ("nano33ble", 256, 1024, 64),
        ("portenta-h7", 512, 2048, 480),
        ("stm32f427", 256, 1024, 180),
        ("stm32f746", 320, 1024, 216),
        ("stm32h743", 512, 2048, 480),
        ("corstone300", 4096, None, None),
    ],
)
def test_board_has_the_memory_of_its_chip(name, sram_kb, flash_kb, clock_mhz):
    board = get_board(name)
    assert board.name == name
    assert board.sram_bytes == sram_kb * 1024
    assert board.flash_bytes == (None if flash_kb is None else flash_kb * 1024)
    assert board.clock_mhz == clock_mhz


@pytest.mark.parametrize("board", BOARDS.values(), ids=lambda board: board.name)
def test_firmware_leaves_part_of_the_memory_to_the_model(board):
    assert 0 < board.sram_budget < board.sram_bytes
    if board.flash_bytes is None:
        assert board.flash_budget is None
    else:
        assert 0 < board.flash_budget < board.flash_bytes


def test_arena_of_stm32f427_is_one_piece():
    assert get_board("stm32f427").sram_budget <= 192 * 1024


def test_user_can_override_what_firmware_keeps():
    board = dataclasses.replace(get_board("nano33ble"), reserved_sram_bytes=1000, reserved_flash_bytes=0)
    assert board.sram_budget == 256 * 1024 - 1000
    assert board.flash_budget == 1024 * 1024


def test_unknown_board_names_all_boards():
    with pytest.raises(ConfigError) as error:
        get_board("uno")
    assert str(error.value) == f"board 'uno' is unknown; choose one of {', '.join(BOARDS)}"
    assert isinstance(error.value, McuformerError)


@pytest.mark.parametrize("reserved", [-1, 256 * 1024 + 1])
def test_reserving_more_than_there_is_or_less_than_nothing_is_an_error(reserved):
    with pytest.raises(ConfigError, match=r"nano33ble: reserved SRAM of -?\d+ bytes is outside .* give a value"):
        dataclasses.replace(get_board("nano33ble"), reserved_sram_bytes=reserved)
